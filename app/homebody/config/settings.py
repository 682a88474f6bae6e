"""The settings: one frozen dataclass, read once from one TOML file plus the environment.

Each field of `Config` says its default, the kind of its value and what it means. All else follows
from that: which keys are known, what a wrong one is told, `homebody config`, and the example file.

A key is the field's name without `_ms`, as a duration may be written with its unit. A later source
wins: the file, then the environment (`HOMEBODY_` + the key in capitals, `__` between the parts of a
nested one), then options of the command line. A secret may also stand in a file of its own: the key
+ `_file` names it.
"""

# ruff: noqa: FBT003, RUF009 - setting() and limit() are dataclasses.field(), default first

from __future__ import annotations

import ipaddress
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from homebody.config import sources, tables
from homebody.config import values as kinds
from homebody.config.mail import Smtp
from homebody.config.rate_limits import (
    InviteLimits,
    JoinLimits,
    LoginLimits,
    PresenceLimits,
    Quotas,
    RateLimit,
    limit,
    setting,
)
from homebody.config.sources import ConfigError, Given, KeyPath, Setting

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Config", "ConfigError", "RateLimit", "describe", "example", "load"]

Table = TypeVar("Table", bound="DataclassInstance")

Registration = Literal["open", "token", "closed"]
PasswordHashing = Literal["argon2id", "cheap"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogFormat = Literal["text", "json"]

FILE_NAME = "homebody.toml"
DATABASE_NAME = "homebody.db"
SIGNING_KEY_NAME = "signing.key"


@dataclass(frozen=True, slots=True)
class Push:
    """What push gateways get to know, and when mails come."""

    include_content: bool = setting(
        True,
        kinds.FLAG,
        "Whether notifications carry the message; Apple, Google and the gateway can then read it.",
    )
    group_unread_count_by_room: bool = setting(
        False, kinds.FLAG, "Whether the badge counts rooms with something unread, not messages."
    )
    mail_delay_ms: int = setting(
        600_000,
        kinds.duration(1),
        "How long a message is unread before a mail tells of it, to who asked for mails.",
    )
    mail_interval_ms: int = setting(
        1_800_000, kinds.duration(1), "How long after a mail the next one comes at the earliest."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings. The defaults are those of a server that is tried out on one's own machine."""

    server_name: str = setting(
        "localhost",
        kinds.SERVER_NAME,
        "The part after the colon in @alice:example.org. It can't change once there are accounts.",
    )
    public_url: str = setting(
        "http://localhost:8008",
        kinds.URL,
        "Where clients reach this server, as /.well-known/matrix/client and the answer to a login"
        " say. Default: https:// and server_name; where that is localhost, the listener's port.",
    )
    identity_server: str | None = setting(
        None,
        kinds.optional(kinds.URL),
        "The identity server that /.well-known/matrix/client names, if any.",
    )
    bind: str = setting(
        "127.0.0.1:8008",
        kinds.ADDRESS,
        "The address and port to listen on. A proxy in front of it does HTTPS.",
    )
    trusted_proxies: tuple[kinds.Network, ...] = setting(
        (ipaddress.ip_network("127.0.0.1"),),
        kinds.NETWORKS,
        "The proxies whose X-Forwarded-For and X-Forwarded-Proto count.",
    )
    outside_allowed: tuple[str | kinds.Network, ...] = setting(
        (),
        kinds.DESTINATIONS,
        "What this server may call on your own network for its users (push gateways, previews of"
        " links): names of hosts, addresses and networks that are not public.",
    )
    data_dir: Path = setting(
        Path("data"),
        kinds.PATH,
        "The folder of database, media and keys. Relative paths, here and in all other settings,"
        " start from the folder in which the server or a command is started: use absolute ones for"
        f" a server that is to stay. {FILE_NAME} in it is read where no other file is named.",
    )
    database_url: str = setting(
        f"sqlite:///data/{DATABASE_NAME}",
        kinds.DATABASE_URL,
        f"Where the database is. Default: {DATABASE_NAME} in data_dir.",
    )
    signing_key_path: Path = setting(
        Path("data") / SIGNING_KEY_NAME,
        kinds.PATH,
        "The file of the key with which this server signs events; made at the first start. Default:"
        f" {SIGNING_KEY_NAME} in data_dir.",
    )
    workers: int = setting(
        1, kinds.whole(1, 64), "How many processes serve. More than one needs PostgreSQL."
    )
    cache_bytes: int = setting(
        64 * 2**20, kinds.size(2**20), "How much memory the caches of a process may take."
    )
    registration: Registration = setting(
        "open",
        kinds.choice(("open", "token", "closed")),
        "Who may make an account: anybody (open), who has a registration token (token), or nobody"
        " (closed). The first account becomes administrator. Default: open where server_name is"
        " localhost, else token.",
    )
    registration_open_to_all: bool = setting(
        False,
        kinds.FLAG,
        "Says that you mean it: without this, a server with a public name does not start with open"
        " registration, as spammers find it within days.",
    )
    allow_guests: bool = setting(
        True,
        kinds.FLAG,
        "Whether people may look around without an account of their own, as guests: they read rooms"
        " that all may read, and join those that let guests in. Default: where registration is"
        " open, as there anybody gets an account anyway.",
    )
    registration_shared_secret: str | None = setting(
        None,
        kinds.optional(kinds.SECRET),
        "Lets tools that know this secret make accounts at /_synapse/admin/v1/register.",
    )
    token_lifetime_ms: int = setting(
        3_600_000,
        kinds.duration(1),
        "How long an access token lives that was given with a refresh token. Others live until"
        " logged out.",
    )
    password_hashing: PasswordHashing = setting(
        "argon2id",
        kinds.choice(("argon2id", "cheap")),
        "How passwords are kept. cheap is for tests, and only where bind is a loopback address.",
    )
    min_password_length: int = setting(
        8,
        kinds.whole(1, 128),
        "How many characters a new password has at least. Passwords that accounts have already stay"
        " good.",
    )
    default_room_version: str = setting(
        "11",
        kinds.ROOM_VERSION,
        "The version of rooms that are created without one. Rooms of version 12 have ids without"
        " a server name, which breaks some clients still in use.",
    )
    max_upload_bytes: int = setting(
        50 * 2**20, kinds.size(1), "The largest file. The proxy in front has a limit of its own."
    )
    media_without_token: bool = setting(
        False,
        kinds.FLAG,
        "Whether the download paths from before authenticated media give files to anybody who knows"
        " an address, as clients from before 2024 need it.",
    )
    url_previews: bool = setting(
        True,
        kinds.FLAG,
        "Whether the server fetches the pages that people link to, to show what they are about.",
    )
    url_preview_blacklist: tuple[str, ...] = setting(
        (),
        kinds.TEXTS,
        "Hosts of which it makes no previews; example.org also means www.example.org.",
    )
    presence: bool = setting(
        True,
        kinds.FLAG,
        "Whether people see who is online. Also taken as a table: [presence] with enabled.",
    )
    support_contacts: tuple[tables.Contact, ...] = setting(
        (),
        tables.CONTACTS,
        'Whom to write to, told in /.well-known/matrix/support: { role = "m.role.admin", matrix_id'
        ' = "@you:example.org", email_address = "you@example.org" }, one of the addresses or both.',
    )
    support_page: str | None = setting(
        None, kinds.optional(kinds.PAGE), "A page that helps with this server, told there as well."
    )
    policy_server_public_key: str | None = setting(
        None,
        kinds.optional(kinds.ED25519_KEY),
        "The key of the policy server that runs under this name, if one does; told in"
        " /.well-known/matrix/policy_server.",
    )
    terms: tuple[tables.Document, ...] = setting(
        (),
        tables.DOCUMENTS,
        'What people have to agree to when they register: { id = "privacy_policy", version = "1.0",'
        ' language = "en", name = "Privacy policy", url = "https://…" }, one for each language.',
    )
    server_notices_user: str | None = setting(
        None,
        kinds.optional(kinds.LOCALPART),
        "The user name in which `homebody notice` writes to people; the account is made when it is"
        " needed, and nobody can log in to it.",
    )
    turn_uris: tuple[str, ...] = setting(
        (), kinds.TURN_URIS, "The TURN servers that let calls through firewalls."
    )
    turn_shared_secret: str | None = setting(
        None,
        kinds.optional(kinds.SECRET),
        "The secret that the TURN servers know (coturn: static-auth-secret).",
    )
    turn_user_lifetime_ms: int = setting(
        3_600_000, kinds.duration(60_000), "How long the password for the TURN servers is good."
    )
    federation: bool = setting(
        False, kinds.FLAG, "Whether to talk to other servers. Has not landed yet."
    )
    appservices: tuple[str, ...] = setting(
        (),
        kinds.PATHS,
        "Registration files (YAML) of bridges and bots: paths, or patterns such as"
        " bridges/*.yaml. They are read when the server starts. Bridges older than version 1.4 of"
        " the specification (2022) look for their hs_token in the URL: add"
        " use_legacy_authorization: true to their files.",
    )
    log_level: LogLevel = setting(
        "INFO",
        kinds.choice(("DEBUG", "INFO", "WARNING", "ERROR")),
        "The least severe messages that are logged. Requests are logged with INFO.",
    )
    log_format: LogFormat = setting(
        "text", kinds.choice(("text", "json")), "Lines for people, or one JSON object a line."
    )
    hub_stall_ms: int = setting(
        100,
        kinds.duration(20),
        "A request that keeps all others waiting for longer than this is told in the log, with what"
        " it was about, and counted in /metrics.",
    )
    metrics_token: str | None = setting(
        None,
        kinds.optional(kinds.SECRET),
        "What Prometheus has to show as its bearer token to read /metrics. Programs on this machine"
        " may without, where they come by no proxy.",
    )
    metrics_without_token: bool = setting(
        True,
        kinds.FLAG,
        "Whether they may. A tunnel, or a proxy that adds no X-Forwarded-For, makes everybody look"
        " like a program on this machine: there it has to be false.",
    )
    rate_limits: bool = setting(
        True,
        kinds.FLAG,
        "Whether there are limits on how fast clients may ask. Each limit below is a bucket of"
        " burst_count requests that fills again at per_second.",
    )
    # Synapse has none. "Mark all as read" is a receipt for each room at once; a first key backup is
    # hundreds of requests, one after the other.
    rc_writes: RateLimit = limit(
        20.0,
        1000,
        "All changes that one account makes, or one IP address without an account: those with a"
        " limit of their own below, and account data, receipts, keys, messages to devices, uploads"
        " and everything else. Each MiB of a body counts as one more.",
    )
    # Synapse 0.2 and 10: ten quick replies, or a bot's heart-beat every five seconds and a few
    # words on top, and one is refused. This one stops only programs that run wild.
    rc_message: RateLimit = limit(5.0, 100, "Events that one account sends.")
    # Synapse leaves these to rc_message. "Remove all messages of this user" is hundreds at once.
    rc_admin_redaction: RateLimit = limit(10.0, 500, "Redactions that one account makes.")
    # Synapse has none. Two go with a message: a bot that begins and ends to type for each it sends.
    rc_typing: RateLimit = limit(10.0, 200, "Changes of whether one account types, in all rooms.")
    # Synapse 0.17 and 3: one account takes two requests, and a family registers behind one address.
    rc_registration: RateLimit = limit(0.17, 30, "Requests to register from one IP address.")
    rc_registration_token_validity: RateLimit = limit(
        0.1, 5, "Questions from one IP address whether a registration token is valid."
    )
    # Synapse 0.016 and 10: a family that moves in makes a room for everything on the first evening.
    rc_room_creation: RateLimit = limit(0.2, 30, "Rooms that one account creates.")
    # Synapse leaves it to rc_login: each is a word that lets somebody in.
    rc_get_login_token: RateLimit = limit(0.05, 5, "Login tokens that one account makes.")
    # Synapse 0.003 and 5: who mistypes an address twice and waits for a slow mail asks that often.
    rc_3pid_validation: RateLimit = limit(
        0.01, 10, "Mails to one address, and mails asked for from one IP address."
    )
    rc_media_create: RateLimit = limit(
        10.0, 50, "Media ids that one account reserves before it uploads."
    )
    rc_reports: RateLimit = limit(1.0, 10, "Reports that one account makes.")
    # Synapse has none. One is made when somebody sets up a new recovery key.
    rc_key_backup: RateLimit = limit(0.02, 10, "New versions of one account's key backup.")
    # No word of Synapse's: it has one for each of these.
    rc_lookups: RateLimit = limit(
        5.0,
        50,
        "Searches for people, questions for free names, and the like, of one account or address.",
    )
    # Synapse has none. A client that starts asks for everybody in its rooms, 250 at once.
    rc_key_queries: RateLimit = limit(
        10.0, 200, "Questions for the device keys of 250 users, of one account."
    )
    # Synapse has none of its own. Clients ask for the next page as one scrolls.
    rc_search: RateLimit = limit(1.0, 20, "Searches for words in messages, of one account.")
    # Synapse has none. An app without an account shows a directory, and a name for each user in it.
    rc_strangers: RateLimit = limit(
        5.0,
        100,
        "Questions of one IP address without an account: profiles, published rooms, aliases,"
        " summaries of rooms.",
    )
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


def load(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, str] | None = None
) -> Config:
    """The settings in force. `overrides` are options of the command line by dotted key.

    Without a path the file is what HOMEBODY_CONFIG names, else homebody.toml in the data folder,
    if it is there. Raises ConfigError, with one line for the owner.
    """
    environment = sources.from_environment(environ)
    options = sources.from_options(overrides or {})
    known = dict(_known(_DEFAULTS))
    given = sources.settle([environment, options], known)
    file = path or _file_to_read(environ, given)
    if file is not None:
        given = sources.settle([sources.from_file(file)], known) | given
    config = _derived(_with(_DEFAULTS, given), given)
    for key, sentence in _objections(config):
        raise given[(key,)].error(sentence)
    return config


def known() -> dict[KeyPath, Setting]:
    """Return each key that may be written, and the setting that it means."""
    return dict(_known(_DEFAULTS))


def file_in_force(environ: Mapping[str, str]) -> Path | None:
    """The file that `load` reads without a path, if there is one. Raises ConfigError."""
    environment = sources.from_environment(environ)
    return _file_to_read(environ, sources.settle([environment], dict(_known(_DEFAULTS))))


def describe(config: Config) -> str:
    """What is in force, as TOML with a comment per key; secrets are masked."""
    return "".join(_written(config, off="")).rstrip() + "\n"


def example() -> str:
    """The sample file: all keys with their defaults, switched off by a `#`."""
    return _EXAMPLE_HEAD + "".join(_written(_DEFAULTS, off="#")).rstrip() + "\n"


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


def _key(of: Field[Any], above: KeyPath) -> KeyPath:
    return (*above, of.name.removesuffix("_ms"))


def _known(defaults: DataclassInstance, above: KeyPath = ()) -> Iterator[tuple[KeyPath, Setting]]:
    """Each key that may be written, and the setting that it means."""
    for part in fields(defaults):
        key = _key(part, above)
        value = getattr(defaults, part.name)
        if is_dataclass(value) and not isinstance(value, type):
            yield from _known(value, key)
            continue
        kind = part.metadata["kind"]
        yield key, Setting(key, kind)
        if kind.is_secret:
            yield (*above, f"{key[-1]}_file"), Setting(key, kind, is_file=True)
        if key == ("presence",):  # as owners of Synapse know it
            yield ("presence", "enabled"), Setting(key, kind)


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


def _with(defaults: Table, given: Mapping[KeyPath, Given], above: KeyPath = ()) -> Table:
    """The defaults, with what was given in their place."""
    changes: dict[str, object] = {}
    for part in fields(defaults):
        key = _key(part, above)
        value = getattr(defaults, part.name)
        if is_dataclass(value) and not isinstance(value, type):
            changes[part.name] = _with(value, given, key)
        elif key in given:
            changes[part.name] = given[key].value
    return replace(defaults, **changes)


def _derived(config: Config, given: Mapping[KeyPath, Given]) -> Config:
    """With the defaults that depend on other settings, and on the working folder."""
    config = replace(config, data_dir=config.data_dir.absolute())
    changes: dict[str, Any] = {
        "database_url": f"sqlite:///{config.data_dir / DATABASE_NAME}",
        "signing_key_path": config.data_dir / SIGNING_KEY_NAME,
        "public_url": _default_public_url(config),
        "registration": "open" if _is_this_machine(config.server_name) else "token",
    }
    config = replace(config, **{key: changes[key] for key in changes if (key,) not in given})
    if ("allow_guests",) in given:
        return config
    return replace(config, allow_guests=config.registration == "open")


def _default_public_url(config: Config) -> str:
    if not _is_this_machine(config.server_name):
        return f"https://{config.server_name}"
    port = config.bind.rpartition(":")[2]
    return f"http://localhost:{port}" if int(port) else _DEFAULTS.public_url


def _objections(config: Config) -> Iterator[tuple[str, str]]:
    """What does not go together: a key that was given, and why it can't stay so."""
    if config.workers > 1 and config.database_url.startswith("sqlite:"):
        yield (
            "workers",
            "more than one needs PostgreSQL (database_url): SQLite has a single writer, and workers"
            " would not hear of each other's messages",
        )
    if not config.database_url.startswith("sqlite:"):
        yield "database_url", "PostgreSQL has not landed yet; leave this out to use SQLite"
    if (
        config.registration == "open"
        and not config.registration_open_to_all
        and not _is_this_machine(config.server_name)
    ):
        yield (
            "registration",
            f'"open" would let anybody make accounts on {config.server_name}; choose "token", or'
            " set registration_open_to_all = true if you mean it",
        )
    is_cheap = config.password_hashing == "cheap"  # noqa: S105 - a way of hashing, no password
    if is_cheap and not config.is_loopback():
        yield (
            "password_hashing",
            f'"cheap" is for tests, and bind = "{config.bind}" lets others in; choose "argon2id"',
        )
    if config.federation:
        yield "federation", "has not landed yet; leave it out or false"


def _is_this_machine(address: str) -> bool:
    """Whether a server name or address, with or without a port, leads back to this machine."""
    host = urlsplit(f"//{address}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _written(settings: DataclassInstance, off: str, above: KeyPath = ()) -> Iterator[str]:
    """Each key below its meaning.

    Nested keys are dotted (`rc_login.address`) and not put under a `[table]`, as that would swallow
    every key which somebody adds at the end of the file.
    """
    for part in fields(settings):
        value = getattr(settings, part.name)
        key = _key(part, above)
        if isinstance(value, RateLimit):
            numbers = f"per_second = {value.per_second}, burst_count = {value.burst_count}"
            yield f"{_comment(part)}{off}{sources.dotted(key)} = {{ {numbers} }}\n\n"
        elif is_dataclass(value) and not isinstance(value, type):
            yield from _written(value, off, key)
        else:
            shown = part.metadata["kind"].show(value)
            yield f"{_comment(part)}{off}{sources.dotted(key)} = {shown}\n\n"


def _comment(part: Field[Any]) -> str:
    meaning = part.metadata["meaning"]
    return textwrap.fill(meaning, 96, initial_indent="# ", subsequent_indent="# ") + "\n"
