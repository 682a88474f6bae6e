"""The settings: one frozen dataclass, read once from one TOML file plus the environment.

Each field of `Config` declares the type of its value, its default and, in the text below it, its
meaning. The known keys, the errors for wrong values, `homebody config` and the example file are
derived from the fields.

A key is the field's name without `_ms`, as a duration may be written with its unit. Later sources
override earlier ones: the file, then the environment (`HOMEBODY_` and the key in capitals, with
`__` between the parts of a nested key), then options of the command line. A secret can be kept in a
file of its own, named by the key with `_file` appended.
"""

# ruff: noqa: RUF009 - what is called for a default, such as RateLimit, is frozen

from __future__ import annotations

import inspect
import ipaddress
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import cache, reduce
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from homebody.config import login_providers, objections, sources, tables, values
from homebody.config.sources import ConfigError, Given, KeyPath, Setting
from homebody.config.tables import RateLimit
from homebody.spec import identifiers, server_acl

__all__ = ["Config", "ConfigError", "RateLimit", "describe", "example", "load"]

FILE_NAME = "homebody.toml"
DATABASE_NAME = "homebody.db"
SIGNING_KEY_NAME = "signing.key"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)  # there are secrets in it
class Config:
    """All settings. The defaults suit a server that is tried out on one's own machine."""

    server_name: values.ServerName = "localhost"
    """The part after the colon in @alice:example.org. It can't change once there are accounts."""
    public_url: values.Url = "http://localhost:8008"
    """The URL at which clients reach this server. Default: https:// and server_name; on localhost,
    the port of bind."""
    identity_server: values.Url | None = None
    """The identity server announced in /.well-known/matrix/client, if any."""
    bind: values.Listeners = ("127.0.0.1:8008",)
    """The address and port to listen on, "unix:/path/of/a/socket", or a list of these. HTTPS is up
    to a proxy in front of it. Sockets that systemd has opened take its place."""
    metrics_bind: values.Listener | None = None
    """An address for /metrics alone (and /health), which needs no token there: only
    Prometheus should be able to reach it. Without one, /metrics is served like everything else."""
    trusted_proxies: values.Networks = (ipaddress.ip_network("127.0.0.1"),)
    """The proxies whose X-Forwarded-For and X-Forwarded-Proto headers are used."""
    outside_allowed: values.Destinations = ()
    """What this server may call on your own network for its users (push gateways, link previews):
    host names, addresses and networks that are not public."""
    federation: bool = False
    """Whether this server talks to other homeservers. They reach it at port 8448 of server_name, or
    where /.well-known/matrix/server leads them. Default: true if server_name is public, as
    example.org is, and localhost, server.lan or 192.168.0.2 are not."""
    federation_allow_servers: values.Texts = ("*",)
    """The servers to talk to, without their ports: names, or patterns such as *.example.org."""
    federation_deny_servers: values.Texts = ()
    """The servers to exclude from them, also with * and ?."""
    well_known_server: values.ServerName | None = None
    """Where other servers reach this one, for /.well-known/matrix/server: a name with a port or
    without. Default: the host of public_url and its port, if that begins with https://."""
    trusted_key_servers: values.ServerNames = ()
    """The servers that are asked for the keys of others that don't answer, such as matrix.org. They
    learn which servers this one exchanges events with, and could forge events of those."""
    old_verify_keys: tables.OldVerifyKeys = ()
    """Keys with which this server signed events before its signing key was replaced, so that others
    can verify those: { key_id = "ed25519:a_0123", key = "the public key in base64", expired_ts =
    1700000000000 }."""
    federation_hosts: values.Hosts = ()
    """Where other servers are, if not where their names lead: a table such as
    "b.example.org" = "127.0.0.1:8449". Only this machine and hosts in outside_allowed can be
    named. Their certificates are for their names."""
    federation_ca_file: values.FilePath | None = None
    """The certificate authorities (PEM) of the other servers, in place of the system's, for a
    network of servers that has its own."""
    partial_joins: bool = True
    """Whether a room of another server is usable before all its members are known (MSC3902):
    clients that load members lazily see a large room at once, others when all are known."""
    dns_servers: values.DnsServers = ()
    """The DNS servers at which to look up other servers, such as 9.9.9.9 or 127.0.0.1:5353.
    Default: those of the system, in /etc/resolv.conf."""
    data_dir: values.FilePath = Path("data")
    """The folder for database, media and keys, and for homebody.toml where no other file is named.
    Relative paths, here and in all other settings, start from the folder in which the server or a
    command is started: use absolute ones for a permanent server."""
    database_url: values.DatabaseUrl = f"sqlite:///data/{DATABASE_NAME}"
    """The database. Default: homebody.db in data_dir."""
    signing_key_path: values.FilePath = Path("data") / SIGNING_KEY_NAME
    """The file with the key that signs events; created at the first start. Default: signing.key in
    data_dir."""
    cache_bytes: Annotated[int, values.size(2**20)] = 64 * 2**20
    """The memory for caches."""
    registration: Literal["open", "token", "closed"] = "open"
    """Registration for anybody (open), with a registration token (token), or for nobody (closed).
    The first account becomes administrator. Default: open on localhost, else token."""
    registration_open_to_all: bool = False
    """Must be true for open registration on a public server name: spammers find it within days."""
    oidc_providers: login_providers.OidcProviders = ()
    """OpenID Connect providers at which users may log in, such as Keycloak or Google: a [[table]]
    for each, see docs/sign-on.md."""
    sso_trusted_clients: values.Urls = ()
    """Clients in a browser, such as https://app.element.io, that may finish a single sign-on
    without asking the user whether to continue to them."""
    allow_guests: bool = True
    """Whether guests, who have no account, may read world-readable rooms and join those that allow
    guests. Default: true where registration is open, as anybody gets an account there."""
    oauth: bool = True
    """Whether clients log users in with a browser, by OAuth 2.0; Element X registers them so."""
    registration_shared_secret: values.Secret | None = None
    """Lets tools that know this secret register accounts at /_synapse/admin/v1/register."""
    newcomer_rooms: values.Texts = ()
    """The rooms that new users join when they register: IDs, or aliases of this server. Where users
    need an invite, the local user with most power invites them."""
    token_lifetime_ms: values.Duration = 3_600_000
    """The lifetime of access tokens issued with a refresh token. Others are valid until logout."""
    password_hashing: Literal["argon2id", "cheap"] = "argon2id"  # noqa: S105 - a way of hashing
    """How passwords are hashed. cheap is for tests, and only where bind is a loopback address."""
    min_password_length: Annotated[int, values.whole(1, 128)] = 8
    """The minimum length of new passwords. Existing passwords stay valid."""
    max_upload_bytes: Annotated[int, values.size(1)] = 50 * 2**20
    """The maximum size of an uploaded file. The proxy in front has a limit of its own."""
    max_remote_file_bytes: Annotated[int, values.size(1)] = 100 * 2**20
    """The maximum size of a file of another server."""
    remote_media_bytes: Annotated[int, values.size(1)] = 10 * 2**30
    """How much space files of other servers take. Those that were not used for the longest time
    are deleted, and fetched again when somebody requests them."""
    media_without_token: bool = False
    """Whether the download endpoints from before authenticated media work without a token, for
    clients from before 2024."""
    url_previews: bool = True
    """Whether the server fetches linked pages to preview them."""
    url_preview_blacklist: values.Texts = ()
    """Hosts without previews; example.org includes www.example.org."""
    default_room_version: values.RoomVersion = "11"
    """The version of rooms that are created without one. Room IDs of version 12 have no server
    name, which breaks some clients still in use."""
    presence: bool = True
    """Whether users see who is online. Can also be set as a table: [presence] with enabled."""
    support_contacts: tables.Contacts = ()
    """Contacts for /.well-known/matrix/support: { role = "m.role.admin", matrix_id =
    "@you:example.org", email_address = "you@example.org" }, with one of the addresses or both."""
    support_page: values.Page | None = None
    """A support page for /.well-known/matrix/support."""
    policy_server_public_key: values.Ed25519Key | None = None
    """The key of the policy server under this server name, for /.well-known/matrix/policy_server,
    if there is one."""
    terms: tables.Documents = ()
    """Documents to accept at registration: { id = "privacy_policy", version = "1.0", language =
    "en", name = "Privacy policy", url = "https://…" }, one for each language."""
    server_notices_user: values.Localpart | None = None
    """The user name of the sender of `homebody notice`. The account is created when it is needed,
    and nobody can log in to it."""
    livekit_service_url: values.Url | None = None
    """The service that lets users into group calls: that of lk-jwt-service, for Element Call and
    Element X."""
    turn_uris: values.TurnUris = ()
    """The TURN servers that relay calls through firewalls."""
    turn_shared_secret: values.Secret | None = None
    """The secret shared with the TURN servers (coturn: static-auth-secret)."""
    turn_user_lifetime_ms: Annotated[int, values.duration(60_000)] = 3_600_000
    """The lifetime of credentials for the TURN servers."""
    appservices: values.Paths = ()
    """Registration files (YAML) of bridges and bots, read when the server starts: paths, or
    patterns such as bridges/*.yaml. For bridges older than version 1.4 of the specification (2022),
    which expect their hs_token in the URL, add use_legacy_authorization: true to their files."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe messages to log. Requests are logged with INFO."""
    log_format: Literal["text", "json"] = "text"
    """Text for humans, or one JSON object per line."""
    hub_stall_ms: Annotated[int, values.duration(20)] = 100
    """How long the event loop may be blocked, so that all other requests wait, before the log says
    by which request. Longer blocks are counted in /metrics."""
    metrics_token: values.Secret | None = None
    """The bearer token with which Prometheus may read /metrics. Programs on this machine need none,
    unless they come through a proxy."""
    metrics_without_token: bool = True
    """Whether programs on this machine may read /metrics without the token. Set it to false behind
    a tunnel, or a proxy that adds no X-Forwarded-For: all requests seem to be local there."""
    rate_limits: bool = True
    """Whether requests are rate limited. Each limit below is a bucket of burst_count requests that
    refills at per_second."""
    # Synapse has none. "Mark all as read" is a receipt per room; a key backup hundreds of requests.
    rc_writes: RateLimit = RateLimit(20.0, 1000)
    """Writing requests of one account, or of one IP address without an account: those that also
    have a limit below, and account data, receipts, keys, to-device messages, uploads and everything
    else. Each MiB of a body counts as one more."""
    # Synapse 0.2 and 10, which refuses ten quick replies. This one stops programs that run wild.
    rc_message: RateLimit = RateLimit(5.0, 100)
    """Events that one account sends."""
    # Synapse leaves these to rc_message. "Remove all messages of this user" is hundreds at once.
    rc_admin_redaction: RateLimit = RateLimit(10.0, 500)
    """Redactions of one account."""
    # Synapse has none. A bot may start and stop typing for each message that it sends.
    rc_typing: RateLimit = RateLimit(10.0, 200)
    """Typing notifications of one account, in all rooms."""
    # Synapse 0.17 and 3: an account takes two requests, and a family registers from one address.
    rc_registration: RateLimit = RateLimit(0.17, 30)
    """Registrations from one IP address, also those of clients for OAuth, and of devices for it."""
    rc_registration_token_validity: RateLimit = RateLimit(0.1, 5)
    """Checks of registration tokens from one IP address."""
    # Synapse 0.016 and 10: a family that moves in creates a room for everything on one evening.
    rc_room_creation: RateLimit = RateLimit(0.2, 30)
    """Rooms that one account creates."""
    # Synapse 1 and 5 for a user: a call restarts its delayed event every few seconds.
    rc_delayed_event_mgmt: RateLimit = RateLimit(10.0, 200)
    """Restarts and other requests about the delayed events of one account, or of one IP address
    without an account. A list counts as ten."""
    # Synapse leaves it to rc_login: each of these tokens lets somebody in.
    rc_get_login_token: RateLimit = RateLimit(0.05, 5)
    """Login tokens that one account creates."""
    # Synapse 0.003 and 5, too few for two typing errors and a slow mail.
    rc_3pid_validation: RateLimit = RateLimit(0.01, 10)
    """Mails to one e-mail address, and mails requested from one IP address."""
    rc_media_create: RateLimit = RateLimit(10.0, 50)
    """Media IDs that one account reserves before uploading."""
    # Synapse limits the bytes for each address. A client that opens a room shows all its avatars.
    rc_remote_media: RateLimit = RateLimit(10.0, 300)
    """Files of other servers that this server fetches for one account, or for one IP address
    without an account."""
    rc_reports: RateLimit = RateLimit(1.0, 10)
    """Reports of one account."""
    # Synapse has none. A version is created with each new recovery key.
    rc_key_backup: RateLimit = RateLimit(0.02, 10)
    """New key backup versions of one account."""
    # Synapse has a limit for each of these.
    rc_lookups: RateLimit = RateLimit(5.0, 50)
    """User searches, availability checks of user names and the like, of one account or IP
    address."""
    # Synapse has none. A client that starts queries all users in its rooms, 250 at once.
    rc_key_queries: RateLimit = RateLimit(10.0, 200)
    """Queries for the device keys of 250 users, of one account."""
    # Synapse has none of its own. Clients request the next page when the user scrolls.
    rc_search: RateLimit = RateLimit(1.0, 20)
    """Message searches of one account."""
    # Synapse has none. An app without an account shows a directory with the name of each user.
    rc_strangers: RateLimit = RateLimit(5.0, 100)
    """Requests of one IP address without an account: profiles, public rooms, aliases, room
    summaries."""
    # Synapse delays a server's requests from 10 per second on, and refuses them at 50 that wait. A
    # large server sends one transaction at a time, and fetches files and profiles meanwhile.
    rc_federation: RateLimit = RateLimit(200.0, 2000)
    """Requests of another server. They wait up to 10 seconds before they are refused. One for the
    state of a room counts as one more for each 50 members."""
    rc_login: tables.LoginLimits = tables.LoginLimits()
    rc_joins: tables.JoinLimits = tables.JoinLimits()
    rc_invites: tables.InviteLimits = tables.InviteLimits()
    rc_presence: tables.PresenceLimits = tables.PresenceLimits()
    quotas: tables.Quotas = tables.Quotas()
    delayed_events: tables.DelayedEvents = tables.DelayedEvents()
    media_retention: tables.MediaRetention = tables.MediaRetention()
    retention: tables.Retention = tables.Retention()
    audit_log: tables.AuditLog = tables.AuditLog()
    backup: tables.Backup = tables.Backup()
    push: tables.Push = tables.Push()
    smtp: tables.Smtp = tables.Smtp()

    def is_loopback(self) -> bool:
        """Return whether only programs on this machine can reach the listener."""
        return all(values.is_unix_socket(it) or objections.is_this_machine(it) for it in self.bind)

    def is_trusted_proxy(self, address: str) -> bool:
        """Return whether a connection from this IP address may name the client in headers."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if ip.version == 6 and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped  # a listener on [::] sees IPv4 peers as ::ffff:127.0.0.1
        return any(ip in network for network in self.trusted_proxies)

    def is_server_allowed(self, server_name: str) -> bool:
        """Return whether this server talks to another one."""
        allow, deny = self.federation_allow_servers, self.federation_deny_servers
        return server_acl.of_lists(allow, deny).allows(server_name)


_DEFAULTS = Config()
_EXAMPLE_HEAD = """\
# The settings of homebody and their defaults. Uncomment a line to change a setting.
# `homebody config` prints the settings in effect.
#
# Sizes may be written as "50 MiB", durations as "1 h"; bare numbers are bytes and milliseconds.
# Each key can also be set in the environment: HOMEBODY_ and the key in capitals, with __ between
# the parts of a nested key (HOMEBODY_RC_LOGIN__ADDRESS__BURST_COUNT=50). To keep a secret out of
# this file, write it to another one and set its path: registration_shared_secret_file.

"""


def load(
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, str] | None = None,
    *,
    with_secret_files: bool = True,
) -> Config:
    """Return the settings in effect. `overrides` are options of the command line by dotted key.

    Without a path, the file is the one that HOMEBODY_CONFIG names, else homebody.toml in the data
    folder, if it exists. `with_secret_files`: whether the files of secrets that it names are read.
    Raises ConfigError.
    """
    given = sources.settle(sources.from_environment(environ), known())
    given |= sources.settle(sources.from_options(overrides or {}), known())
    file = path or file_in_force(environ)
    if file is not None:
        source = sources.from_file(file)
        if not with_secret_files:
            source = sources.without_secret_files(source, known())
        given = sources.settle(source, known()) | given
    config = _settled(given)
    for key, sentence in objections.found(config):
        it = given[(key,)]
        raise it.source.error(it.written, sentence)
    return config


@cache
def known() -> Mapping[KeyPath, Setting]:
    """Return the setting for each key that is allowed."""
    found: dict[KeyPath, Setting] = {}
    for key, fields, hint in _fields(Config):
        if not is_dataclass(hint):
            kind = values.kind_of(hint)
            found[key] = Setting(fields, kind)
            if kind.is_secret:
                found[(*key[:-1], f"{key[-1]}_file")] = Setting(fields, kind, is_file=True)
    return {**found, ("presence", "enabled"): found[("presence",)]}  # as in Synapse


def file_in_force(environ: Mapping[str, str]) -> Path | None:
    """Return the file that `load` reads without a path, if any. Raises ConfigError."""
    if named := environ.get(sources.CONFIG_VARIABLE):
        return Path(named)
    data_dir = sources.settle(sources.from_environment(environ), known()).get(("data_dir",))
    usual: Path = (data_dir.value if data_dir else _DEFAULTS.data_dir) / FILE_NAME
    try:
        return usual if usual.exists() else None
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise ConfigError(f"{usual}: cannot be read: {error.strerror}") from error


def describe(config: Config) -> str:
    """Return settings as TOML, each with its meaning as a comment; secrets are masked.

    Nested keys are dotted (`rc_login.address`): a `[table]` would swallow every key that somebody
    appends to the file.
    """
    written = []
    for key, (*above, name), hint in _fields(Config):
        table: Any = reduce(getattr, above, config)
        meaning, value = _meanings(table.__class__).get(name), getattr(table, name)
        if meaning is not None:
            is_plain = hint is RateLimit or value is None
            shown = values.to_toml(value) if is_plain else values.kind_of(hint).show(value)
            comment = textwrap.fill(meaning, 96, initial_indent="# ", subsequent_indent="# ")
            written.append(f"{comment}\n{sources.dotted(key)} = {shown}\n")
    return "\n".join(written)


def example() -> str:
    """Return the example file: all keys with their defaults, commented out."""
    return _EXAMPLE_HEAD + re.sub(r"(?m)^(?=\w)", "#", describe(_DEFAULTS))


def _fields(table: Any, above: KeyPath = ()) -> Iterator[tuple[KeyPath, KeyPath, Any]]:
    """Yield the key of each field, its name after those of the tables it is in, and its type."""
    for name, hint in get_type_hints(table, include_extras=True).items():
        yield (*above, name.removesuffix("_ms")), (*above, name), hint
        if is_dataclass(hint):
            yield from _fields(hint, (*above, name))


def _settled(given: Mapping[KeyPath, Given]) -> Config:
    """Return the settings with defaults for what was not given, some of them derived."""
    config = _DEFAULTS
    for fields, it in given.items():
        config = _replaced(config, fields, it.value)
    data_dir = config.data_dir.absolute()
    is_local = objections.is_this_machine(config.server_name)
    port = values.first_port(config.bind)
    is_open = config.registration == "open" if ("registration",) in given else is_local
    derived: dict[str, Any] = {
        "database_url": f"sqlite:///{data_dir / DATABASE_NAME}",
        "signing_key_path": data_dir / SIGNING_KEY_NAME,
        "public_url": f"http://localhost{port}" if is_local else f"https://{config.server_name}",
        "registration": "open" if is_local else "token",
        "allow_guests": is_open,
        "federation": identifiers.is_public(config.server_name),
    }
    derived = {name: value for name, value in derived.items() if (name,) not in given}
    return replace(config, data_dir=data_dir, **derived)


def _replaced(table: Any, fields: KeyPath, value: object) -> Any:
    """Return a copy of a table with another value in a field of it or of a table in it."""
    name, *rest = fields
    inside = _replaced(getattr(table, name), tuple(rest), value) if rest else value
    return replace(table, **{name: inside})


@cache
def _meanings(table: type) -> dict[str, str]:
    """Return the text below each field; it is only in the source."""
    texts = r'(?ms)^    (\w+): [^\n]*\n    """(.+?)"""'
    found = re.findall(texts, inspect.getsource(table))
    return {name: " ".join(text.split()) for name, text in found}
