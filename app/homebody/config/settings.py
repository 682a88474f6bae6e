"""The settings: one frozen dataclass, read once from one TOML file plus the environment.

Each field of `Config` says its default, the type of its value and, in the text below it, what it
means. All else follows from that: which keys are known, what is wrong with a value, `homebody
config`, and the example file.

A key is the field's name without `_ms`, as a duration may be written with its unit. A later source
wins: the file, then the environment (`HOMEBODY_` + the key in capitals, `__` between the parts of a
nested one), then options of the command line. A secret may also stand in a file of its own: the key
+ `_file` names it.
"""

# ruff: noqa: RUF009 - what is called for a default, such as RateLimit, is frozen

from __future__ import annotations

import inspect
import ipaddress
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints
from urllib.parse import urlsplit

from homebody.config import sources, tables, values
from homebody.config.sources import ConfigError, Given, KeyPath, Setting
from homebody.config.tables import (
    InviteLimits,
    JoinLimits,
    LoginLimits,
    PresenceLimits,
    Push,
    Quotas,
    RateLimit,
    Smtp,
)

__all__ = ["Config", "ConfigError", "RateLimit", "describe", "example", "load"]

FILE_NAME = "homebody.toml"
DATABASE_NAME = "homebody.db"
SIGNING_KEY_NAME = "signing.key"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)  # there are secrets in it
class Config:
    """All settings. The defaults are those of a server that is tried out on one's own machine."""

    server_name: values.ServerName = "localhost"
    """The part after the colon in @alice:example.org. It can't change once there are accounts."""
    public_url: values.Url = "http://localhost:8008"
    """Where clients reach this server, as /.well-known/matrix/client and the answer to a login
    say. Default: https:// and server_name; where that is localhost, the listener's port."""
    identity_server: values.Url | None = None
    """The identity server that /.well-known/matrix/client names, if any."""
    bind: values.Address = "127.0.0.1:8008"
    """The address and port to listen on. A proxy in front of it does HTTPS."""
    trusted_proxies: values.Networks = (ipaddress.ip_network("127.0.0.1"),)
    """The proxies whose X-Forwarded-For and X-Forwarded-Proto count."""
    outside_allowed: values.Destinations = ()
    """What this server may call on your own network for its users (push gateways, previews of
    links): names of hosts, addresses and networks that are not public."""
    data_dir: values.FilePath = Path("data")
    """The folder of database, media and keys. Relative paths, here and in all other settings,
    start from the folder in which the server or a command is started: use absolute ones for a
    server that is to stay. homebody.toml in it is read where no other file is named."""
    database_url: values.DatabaseUrl = f"sqlite:///data/{DATABASE_NAME}"
    """Where the database is. Default: homebody.db in data_dir."""
    signing_key_path: values.FilePath = Path("data") / SIGNING_KEY_NAME
    """The file of the key with which this server signs events; made at the first start.
    Default: signing.key in data_dir."""
    cache_bytes: Annotated[int, values.size(2**20)] = 64 * 2**20
    """How much memory the caches of a process may take."""
    registration: Literal["open", "token", "closed"] = "open"
    """Who may make an account: anybody (open), who has a registration token (token), or nobody
    (closed). The first account becomes administrator. Default: open where server_name is
    localhost, else token."""
    registration_open_to_all: bool = False
    """Says that you mean it: without this, a server with a public name does not start with open
    registration, as spammers find it within days."""
    allow_guests: bool = True
    """Whether people may look around without an account of their own, as guests: they read
    rooms that all may read, and join those that let guests in. Default: where registration is
    open, as there anybody gets an account anyway."""
    registration_shared_secret: values.Secret | None = None
    """Lets tools that know this secret make accounts at /_synapse/admin/v1/register."""
    token_lifetime_ms: values.Duration = 3_600_000
    """How long an access token lives that was given with a refresh token. Others live until
    logged out."""
    password_hashing: Literal["argon2id", "cheap"] = "argon2id"  # noqa: S105 - a way of hashing
    """How passwords are kept. cheap is for tests, and only where bind is a loopback address."""
    min_password_length: Annotated[int, values.whole(1, 128)] = 8
    """How many characters a new password has at least. Passwords that accounts have already
    stay good."""
    default_room_version: values.RoomVersion = "11"
    """The version of rooms that are created without one. Rooms of version 12 have ids without a
    server name, which breaks some clients still in use."""
    max_upload_bytes: Annotated[int, values.size(1)] = 50 * 2**20
    """The largest file. The proxy in front has a limit of its own."""
    media_without_token: bool = False
    """Whether the download paths from before authenticated media give files to anybody who
    knows an address, as clients from before 2024 need it."""
    url_previews: bool = True
    """Whether the server fetches the pages that people link to, to show what they are about."""
    url_preview_blacklist: values.Texts = ()
    """Hosts of which it makes no previews; example.org also means www.example.org."""
    presence: bool = True
    """Whether people see who is online. Also taken as a table: [presence] with enabled."""
    support_contacts: tables.Contacts = ()
    """Whom to write to, told in /.well-known/matrix/support: { role = "m.role.admin", matrix_id
    = "@you:example.org", email_address = "you@example.org" }, one of the addresses or both."""
    support_page: values.Page | None = None
    """A page that helps with this server, told there as well."""
    policy_server_public_key: values.Ed25519Key | None = None
    """The key of the policy server that runs under this name, if one does; told in
    /.well-known/matrix/policy_server."""
    terms: tables.Documents = ()
    """What people have to agree to when they register: { id = "privacy_policy", version =
    "1.0", language = "en", name = "Privacy policy", url = "https://…" }, one for each
    language."""
    server_notices_user: values.Localpart | None = None
    """The user name in which `homebody notice` writes to people; the account is made when it is
    needed, and nobody can log in to it."""
    turn_uris: values.TurnUris = ()
    """The TURN servers that let calls through firewalls."""
    turn_shared_secret: values.Secret | None = None
    """The secret that the TURN servers know (coturn: static-auth-secret)."""
    turn_user_lifetime_ms: Annotated[int, values.duration(60_000)] = 3_600_000
    """How long the password for the TURN servers is good."""
    appservices: values.Paths = ()
    """Registration files (YAML) of bridges and bots: paths, or patterns such as bridges/*.yaml.
    They are read when the server starts. Bridges older than version 1.4 of the specification
    (2022) look for their hs_token in the URL: add use_legacy_authorization: true to their
    files."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe messages that are logged. Requests are logged with INFO."""
    log_format: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object a line."""
    hub_stall_ms: Annotated[int, values.duration(20)] = 100
    """A request that keeps all others waiting for longer than this is told in the log, with
    what it was about, and counted in /metrics."""
    metrics_token: values.Secret | None = None
    """What Prometheus has to show as its bearer token to read /metrics. Programs on this
    machine may without, where they come by no proxy."""
    metrics_without_token: bool = True
    """Whether they may. A tunnel, or a proxy that adds no X-Forwarded-For, makes everybody look
    like a program on this machine: there it has to be false."""
    rate_limits: bool = True
    """Whether there are limits on how fast clients may ask. Each limit below is a bucket of
    burst_count requests that fills again at per_second."""
    # Synapse has none. "Mark all as read" is a receipt for each room at once; a first key backup is
    # hundreds of requests, one after the other.
    rc_writes: RateLimit = RateLimit(20.0, 1000)
    """All changes that one account makes, or one IP address without an account: those with a
    limit of their own below, and account data, receipts, keys, messages to devices, uploads and
    everything else. Each MiB of a body counts as one more."""
    # Synapse 0.2 and 10: ten quick replies, or a bot's heart-beat every five seconds and a few
    # words on top, and one is refused. This one stops only programs that run wild.
    rc_message: RateLimit = RateLimit(5.0, 100)
    """Events that one account sends."""
    # Synapse leaves these to rc_message. "Remove all messages of this user" is hundreds at once.
    rc_admin_redaction: RateLimit = RateLimit(10.0, 500)
    """Redactions that one account makes."""
    # Synapse has none. Two go with a message: a bot that begins and ends to type for each it sends.
    rc_typing: RateLimit = RateLimit(10.0, 200)
    """Changes of whether one account types, in all rooms."""
    # Synapse 0.17 and 3: one account takes two requests, and a family registers behind one address.
    rc_registration: RateLimit = RateLimit(0.17, 30)
    """Requests to register from one IP address."""
    rc_registration_token_validity: RateLimit = RateLimit(0.1, 5)
    """Questions from one IP address whether a registration token is valid."""
    # Synapse 0.016 and 10: a family that moves in makes a room for everything on the first evening.
    rc_room_creation: RateLimit = RateLimit(0.2, 30)
    """Rooms that one account creates."""
    # Synapse leaves it to rc_login: each is a word that lets somebody in.
    rc_get_login_token: RateLimit = RateLimit(0.05, 5)
    """Login tokens that one account makes."""
    # Synapse 0.003 and 5: who mistypes an address twice and waits for a slow mail asks that often.
    rc_3pid_validation: RateLimit = RateLimit(0.01, 10)
    """Mails to one address, and mails asked for from one IP address."""
    rc_media_create: RateLimit = RateLimit(10.0, 50)
    """Media ids that one account reserves before it uploads."""
    rc_reports: RateLimit = RateLimit(1.0, 10)
    """Reports that one account makes."""
    # Synapse has none. One is made when somebody sets up a new recovery key.
    rc_key_backup: RateLimit = RateLimit(0.02, 10)
    """New versions of one account's key backup."""
    # No word of Synapse's: it has one for each of these.
    rc_lookups: RateLimit = RateLimit(5.0, 50)
    """Searches for people, questions for free names, and the like, of one account or address."""
    # Synapse has none. A client that starts asks for everybody in its rooms, 250 at once.
    rc_key_queries: RateLimit = RateLimit(10.0, 200)
    """Questions for the device keys of 250 users, of one account."""
    # Synapse has none of its own. Clients ask for the next page as one scrolls.
    rc_search: RateLimit = RateLimit(1.0, 20)
    """Searches for words in messages, of one account."""
    # Synapse has none. An app without an account shows a directory, and a name for each user in it.
    rc_strangers: RateLimit = RateLimit(5.0, 100)
    """Questions of one IP address without an account: profiles, published rooms, aliases,
    summaries of rooms."""
    rc_login: LoginLimits = LoginLimits()
    rc_joins: JoinLimits = JoinLimits()
    rc_invites: InviteLimits = InviteLimits()
    rc_presence: PresenceLimits = PresenceLimits()
    quotas: Quotas = Quotas()
    push: Push = Push()
    smtp: Smtp = Smtp()

    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach the listener."""
        return _is_this_machine(self.bind)

    def is_trusted_proxy(self, address: str) -> bool:
        """Whether a connection from this IP address may say in headers for whom it speaks."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False  # a Unix socket has no address
        if ip.version == 6 and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped  # a listener on [::] sees IPv4 peers as ::ffff:127.0.0.1
        return any(ip in network for network in self.trusted_proxies)


_DEFAULTS = Config()
_EXAMPLE_HEAD = """\
# The settings of homebody and their defaults. Take the # from the front of a line to change it.
# `homebody config` prints what is in force.
#
# Sizes may be written as "50 MiB", durations as "1 h"; bare numbers are bytes and milliseconds.
# Each key can also be set in the environment: HOMEBODY_ and the key in capitals, with __ between
# the parts of a nested one (HOMEBODY_RC_LOGIN__ADDRESS__BURST_COUNT=50). To keep a secret out of
# here, put it into a file of its own and give its path: registration_shared_secret_file.

"""


def load(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, str] | None = None
) -> Config:
    """Return the settings in force. `overrides` are options of the command line by dotted key.

    Without a path the file is what HOMEBODY_CONFIG names, else homebody.toml in the data folder,
    if it is there. Raises ConfigError, with one line for the administrator.
    """
    given = sources.settle(sources.from_environment(environ), known())
    given |= sources.settle(sources.from_options(overrides or {}), known())
    file = path or _file_to_read(environ, given)
    if file is not None:
        given = sources.settle(sources.from_file(file), known()) | given
    config = _settled(given)
    for key, sentence in _objections(config):
        raise given[(key,)].error(sentence)
    return config


@cache
def known() -> Mapping[KeyPath, Setting]:
    """Return each key that may be written, and the setting that it means."""
    found: dict[KeyPath, Setting] = {}
    for fields, kind in _fields(Config):
        key = _key(fields)
        found[key] = Setting(fields, kind)
        if kind.is_secret:
            found[(*key[:-1], f"{key[-1]}_file")] = Setting(fields, kind, is_file=True)
    return {**found, ("presence", "enabled"): found[("presence",)]}  # as in Synapse


def file_in_force(environ: Mapping[str, str]) -> Path | None:
    """Return the file that `load` reads without a path, if there is one. Raises ConfigError."""
    given = sources.settle(sources.from_environment(environ), known())
    return _file_to_read(environ, given)


def describe(config: Config) -> str:
    """Return what is in force, as TOML with a comment per key; secrets are masked."""
    return "".join(_written(config, off="")).rstrip() + "\n"


def example() -> str:
    """Return the example file: all keys with their defaults, switched off by a `#`."""
    return _EXAMPLE_HEAD + "".join(_written(_DEFAULTS, off="#")).rstrip() + "\n"


def _fields(table: Any, above: KeyPath = ()) -> Iterator[tuple[KeyPath, values.Kind[Any]]]:
    """Yield the names that lead to each field, through those of the tables above it."""
    for name, hint in get_type_hints(table, include_extras=True).items():
        if is_dataclass(hint):
            yield from _fields(hint, (*above, name))
        else:
            yield (*above, name), values.kind_of(hint)


def _key(fields: KeyPath) -> KeyPath:
    return (*fields[:-1], fields[-1].removesuffix("_ms"))


def _file_to_read(environ: Mapping[str, str], given: Mapping[KeyPath, Given]) -> Path | None:
    named = environ.get(sources.CONFIG_VARIABLE)
    if named:
        return Path(named)
    data_dir = given.get(("data_dir",))
    usual: Path = (data_dir.value if data_dir else _DEFAULTS.data_dir) / FILE_NAME
    try:
        return usual if usual.exists() else None
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise ConfigError(f"{usual}: cannot be read: {error.strerror}") from error


def _settled(given: Mapping[KeyPath, Given]) -> Config:
    """Return what was given, and defaults for the rest, some of which depend on what was given."""
    config = _DEFAULTS
    for fields, it in given.items():
        config = _replaced(config, fields, it.value)
    data_dir = config.data_dir.absolute()
    is_local = _is_this_machine(config.server_name)
    derived: dict[str, Any] = {
        "database_url": f"sqlite:///{data_dir / DATABASE_NAME}",
        "signing_key_path": data_dir / SIGNING_KEY_NAME,
        "public_url": _local_url(config) if is_local else f"https://{config.server_name}",
        "registration": "open" if is_local else "token",
    }
    derived = {name: value for name, value in derived.items() if (name,) not in given}
    config = replace(config, data_dir=data_dir, **derived)
    if ("allow_guests",) in given:
        return config
    return replace(config, allow_guests=config.registration == "open")


def _replaced(table: Any, fields: KeyPath, value: object) -> Any:
    """Return a table with another value in a field, its own or one of a table in it."""
    name, *rest = fields
    return replace(
        table, **{name: _replaced(getattr(table, name), tuple(rest), value) if rest else value}
    )


def _local_url(config: Config) -> str:
    port = config.bind.rpartition(":")[2]
    return f"http://localhost:{port}" if int(port) else _DEFAULTS.public_url


def _objections(config: Config) -> Iterator[tuple[str, str]]:
    """Yield what does not go together: a key that was given, and why it can't stay so."""
    is_public = not _is_this_machine(config.server_name)
    if config.registration == "open" and not config.registration_open_to_all and is_public:
        yield (
            "registration",
            f'"open" would let anybody make accounts on {config.server_name}; choose "token", or'
            " set registration_open_to_all = true if you mean it",
        )
    is_cheap = config.password_hashing == "cheap"  # noqa: S105 - as above
    if is_cheap and not config.is_loopback():
        yield (
            "password_hashing",
            f'"cheap" is for tests, and bind = "{config.bind}" lets others in; choose "argon2id"',
        )


def _is_this_machine(address: str) -> bool:
    """Whether a server name or address, with or without a port, leads back to this machine."""
    host = urlsplit(f"//{address}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _written(table: Any, off: str, above: KeyPath = ()) -> Iterator[str]:
    """Yield each key below its meaning.

    Nested keys are dotted (`rc_login.address`) and not put under a `[table]`, as that would swallow
    every key which somebody adds at the end of the file.
    """
    meanings = _meanings(type(table))
    for name, hint in get_type_hints(type(table), include_extras=True).items():
        fields, value = (*above, name), getattr(table, name)
        if is_dataclass(hint) and hint is not RateLimit:
            yield from _written(value, off, fields)
            continue
        shown = values.to_toml(value) if hint is RateLimit else values.kind_of(hint).show(value)
        comment = textwrap.fill(meanings[name], 96, initial_indent="# ", subsequent_indent="# ")
        yield f"{comment}\n{off}{sources.dotted(_key(fields))} = {shown}\n\n"


def _meanings(table: type) -> dict[str, str]:
    """Return the text below each field, from the source, as Python keeps none of it."""
    texts = r'(?ms)^    (\w+): [^\n]*\n    """(.+?)"""'
    found = re.findall(texts, inspect.getsource(table))
    return {name: " ".join(text.split()) for name, text in found}
