"""The types of settings: how each is read, written and described.

A field is a `bool`, a `Literal` or one of the types at the end of this module, with `| None` or
without. These are annotated with a `Kind`, or with a text that describes what msgspec converts. The
`Kind` reads what is in a TOML file (`parse`) or in an environment variable (`from_text`, then
`parse`), and writes it as TOML (`show`).
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import parseaddr
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Generic, Literal, TypeVar, get_args, get_origin
from urllib.parse import urlsplit

import msgspec

from homebody.spec import identifiers, room_versions

T = TypeVar("T")
Strings = tuple[str, ...]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_SOCKET_PATH_BYTES: Final = 107
"""What Linux allows for the path of a Unix socket."""
LARGEST: Final = 2**53
"""The limit of sizes and durations: JSON numbers are exact up to it."""

_AMOUNT: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]*)")
# M is what Synapse calls a MiB ("max_upload_size: 50M"); MB is the million of the disk makers.
_SIZES: Final = {
    **dict.fromkeys(("", "b"), 1),
    **dict.fromkeys(("k", "kib"), 2**10),
    **dict.fromkeys(("m", "mib"), 2**20),
    **dict.fromkeys(("g", "gib"), 2**30),
    **dict(zip(("kb", "mb", "gb"), (10**3, 10**6, 10**9), strict=True)),
}
_DURATIONS: Final = {
    **dict.fromkeys(("", "ms"), 1),
    **dict.fromkeys(("s", "second", "seconds"), 1_000),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60_000),
    **dict.fromkeys(("h", "hour", "hours"), 3_600_000),
    **dict.fromkeys(("d", "day", "days"), 86_400_000),
    **dict.fromkeys(("w", "week", "weeks"), 604_800_000),
}
FLAGS: Final = {
    **dict.fromkeys(("true", "on", "yes", "1"), True),
    **dict.fromkeys(("false", "off", "no", "0"), False),
}
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
PAGE: Final = r"(?i:https?)://[^\s/?#]\S*"
_MAIL_ADDRESS: Final = re.compile(r"[!-?A-~]+@[A-Za-z0-9.-]+")


def from_toml(text: str) -> object:
    """Return the value that this text is in TOML, or else the text itself (`50 MiB`)."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # also for 5,000 digits or brackets
        return text
    return table["value"] if len(table) == 1 else text


def to_toml(value: object) -> str:
    """Write a value as TOML. Texts are written as in JSON: none has control characters."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(to_toml, value))}]"
    if isinstance(value, Network) and value.num_addresses == 1:
        value = value.network_address
    plain = msgspec.to_builtins(value, enc_hook=str)
    if isinstance(plain, dict):
        pairs = [f"{_key(key)} = {to_toml(it)}" for key, it in plain.items() if it is not None]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    return json.dumps("" if plain is None else plain, ensure_ascii=False)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """How values of one type are read and written."""

    what: str
    """Completes the sentence "must be …" of an error."""
    parse: Callable[[object], T]
    """Raises ValueError for anything else."""
    from_text: Callable[[str], object] = str
    show: Callable[[T], str] = to_toml
    is_secret: bool = False
    """Errors don't show it, and it may be read from a file of its own."""
    is_optional: bool = False
    """"" stands for None: TOML has no null, and environments can't unset."""
    is_hidden: bool = False
    """There are secrets in it: errors show what is wrong, but not the value."""


def kind_of(hint: Any) -> Kind[Any]:
    """Return how values for a field of this type are read and written."""
    convert = partial(msgspec.convert, type=hint)
    if hint is bool:
        return Kind("true or false", convert, lambda text: FLAGS.get(text.lower(), text))
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return _choice(arguments)
    if NoneType in arguments:
        return replace(kind_of(arguments[0]), is_optional=True)
    note = arguments[-1]
    if isinstance(note, Kind):
        return note
    return Kind(note, convert, str if arguments[0] is str else from_toml)


def whole(minimum: int, maximum: int) -> Kind[int]:
    """Return the kind of whole numbers within these bounds."""
    what = f"a whole number from {minimum} to {maximum}"
    return kind_of(Annotated[int, msgspec.Meta(ge=minimum, le=maximum), what])


def size(minimum: int) -> Kind[int]:
    """Return the kind of numbers of bytes."""
    what = 'bytes or such as "50 MiB" (KiB, MiB, GiB, KB, MB or GB)'
    return _amount(f"{what}, at least {minimum} bytes", minimum, _SIZES, ("GiB", "MiB", "KiB"))


def duration(minimum_ms: int) -> Kind[int]:
    """Return the kind of numbers of milliseconds."""
    what = f'milliseconds or such as "1 h" (ms, s, min, h, d or w), at least {minimum_ms} ms'
    return _amount(what, minimum_ms, _DURATIONS, ("d", "h", "min", "s"))


def _amount(what: str, minimum: int, units: dict[str, int], shown: tuple[str, ...]) -> Kind[int]:
    def parse(raw: object) -> int:
        amount = raw
        if isinstance(raw, str) and (parts := _AMOUNT.fullmatch(raw.strip())):
            amount = round(float(parts[1]) * units.get(parts[2].lower(), -1))
        if type(amount) is not int or not minimum <= amount <= LARGEST:
            raise ValueError(raw)
        return amount

    def show(amount: int) -> str:
        """Write the first unit that leaves a whole number, or a bare number."""
        for unit in shown:
            count, rest = divmod(amount, units[unit.lower()])
            if count and not rest:
                return to_toml(f"{count} {unit}")
        return str(amount)

    return Kind(what, parse, from_toml, show)


def _choice(names: tuple[str, ...]) -> Kind[str]:
    """Return the kind of these words, in any case. A number is taken for its digits."""

    def parse(raw: object) -> str:
        for name in names:
            if name.casefold() == str(raw).casefold():
                return name
        raise ValueError(raw)

    words = [to_toml(name) for name in names]
    return Kind(f"{', '.join(words[:-1])} or {words[-1]}", parse)


def _texts(is_good: Callable[[str], object]) -> Callable[[object], str]:
    """Return a parser of texts on one line for which `is_good` is true."""

    def parse(raw: object) -> str:
        if not isinstance(raw, str) or not raw or not raw.isprintable() or not is_good(raw):
            raise ValueError(raw)
        return raw

    return parse


def _lists(what: str, parse_one: Callable[[str], T]) -> Kind[tuple[T, ...]]:
    """Return the kind of lists of texts; in an environment variable, commas may separate them."""

    def parse(raw: object) -> tuple[T, ...]:
        if isinstance(raw, str):
            raw = [part.strip() for part in raw.split(",")] if raw else []
        return tuple(parse_one(_text(text)) for text in msgspec.convert(raw, list[str]))

    return Kind(f"a list of {what}", parse, from_toml)


def _listener(raw: object) -> str:
    """Return an address to listen on, or unix: and the absolute path of a socket."""
    text = _text(raw)
    scheme, mark, path = text.partition(":")
    if scheme != "unix" or not mark:
        return _address(text)
    place = _path(path)
    if len(os.fsencode(place)) > MAX_SOCKET_PATH_BYTES:
        raise ValueError(text)
    return f"unix:{place}"


def first_port(bind: Strings) -> str:
    """Return the first port of addresses to listen on, as in URLs; "" if all are Unix sockets."""
    addresses = [identifiers.split_server_name(it) for it in bind if not is_unix_socket(it)]
    # port 0 is any free one: gunicorn_config.py sets what has become of it
    return f":{addresses[0].port or 8008}" if addresses else ""


def is_unix_socket(listener: str) -> bool:
    """Return whether an address to listen on is a Unix socket."""
    return listener.startswith("unix:")


def _dns_server(text: str) -> str:
    is_ipv6 = not identifiers.is_server_name(text)  # without brackets
    ipaddress.ip_address(text if is_ipv6 else identifiers.split_server_name(text).host)
    return text


def _some(parse: Callable[[object], Strings]) -> Callable[[object], Strings]:
    """Return a parser that refuses an empty list, and what is in a list twice."""

    def parse_some(raw: object) -> Strings:
        found = parse(raw)
        if not found or len(set(found)) < len(found):
            raise ValueError(raw)
        return found

    return parse_some


def _path(raw: object) -> Path:
    """Make a path absolute at once, as later something else may be the working folder."""
    try:
        return Path(_text(raw)).expanduser().absolute()
    except RuntimeError as error:  # ~nobody
        raise ValueError(raw) from error


def _database_url(raw: object) -> str:
    path = _text(raw).removeprefix("sqlite:///")
    # ":memory:" is refused: each connection would get a database of its own
    if path in {raw, "", ":memory:"}:
        raise ValueError(raw)
    return f"sqlite:///{Path(path).absolute()}"


def _destination(text: str) -> str | Network:
    """Return a network, or the name of a host in small letters."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return _host(text).lower()


def _hosts(raw: object) -> tuple[tuple[str, str], ...]:
    """Return a map from server names to addresses as pairs: settings are hashable."""
    pairs = msgspec.convert(raw, dict[str, str]).items()
    return tuple((_server_name(name), _address(address)) for name, address in pairs)


def _url(raw: object) -> str:
    """Leave out the slash at the end, so that paths can be appended."""
    parts = urlsplit(_text(raw))
    is_http = parts.scheme in {"http", "https"} and identifiers.is_server_name(parts.netloc)
    if not is_http or parts.query or parts.fragment or " " in parts.path:
        raise ValueError(raw)
    return parts.geturl().rstrip("/")


_text: Final = _texts(bool)
_server_name: Final = _texts(identifiers.is_server_name)
_host: Final = _texts(lambda text: identifiers.is_server_name(text) and ":" not in text)
_address: Final = _texts(lambda text: identifiers.split_server_name(text).port is not None)
_localpart: Final = _texts(identifiers.is_valid_localpart_for_registration)
_page: Final = _texts(re.compile(PAGE).fullmatch)
_sender: Final = _texts(lambda text: _MAIL_ADDRESS.fullmatch(parseaddr(text)[1]))
_turn_uri: Final = _texts(re.compile(r"(turns?|stuns?):[^\s/]+").fullmatch)
_POSITIVE: Final = msgspec.Meta(gt=0, le=1_000_000)
_ED25519_KEY: Final = msgspec.Meta(pattern=r"^[A-Za-z0-9+/]{43}\Z")
_HOSTS: Final = Kind(
    'a table such as { "b.example.org" = "127.0.0.1:8449" }',
    _hosts,
    from_toml,
    lambda pairs: to_toml(dict(pairs)),
)
_LISTENERS: Final = _lists("addresses", _listener)
_ONE_LINE: Final = Kind("text in quotes, on one line", _text)
PATH: Final = Kind("a path", _path)

Number = Annotated[float, _POSITIVE, "a number above 0 and up to 1000000"]
Duration = Annotated[int, duration(1)]
Text = Annotated[str, _ONE_LINE]
Secret = Annotated[str, replace(_ONE_LINE, show=lambda _: '"(not shown)"', is_secret=True)]
FilePath = Annotated[Path, PATH]
ServerName = Annotated[str, Kind("a host name or address, without https://", _server_name)]
ServerNames = Annotated[Strings, _lists("server names, such as example.org", _server_name)]
Host = Annotated[str, Kind("a host name or an IPv4 address, without a port", _host)]
Address = Annotated[str, Kind("an address and a port, such as 127.0.0.1:8008", _address)]
Listener = Annotated[str, Kind("an address and a port, or unix: and a path", _listener)]
Listeners = Annotated[
    Strings,
    replace(
        _LISTENERS,
        what="an address and a port, such as 127.0.0.1:8008, unix: and a path, or a list of these",
        parse=_some(_LISTENERS.parse),
        show=lambda them: to_toml(them[0] if len(them) == 1 else them),
    ),
]
Url = Annotated[str, Kind("a URL with https:// or http://, without a query", _url)]
Urls = Annotated[Strings, _lists("URLs with https:// or http://, without a query", _url)]
Page = Annotated[str, Kind("the URL of a page: https://…", _page)]
Localpart = Annotated[str, Kind("a user name: a to z, 0 to 9 and . _ = - / +", _localpart)]
Ed25519Key = Annotated[
    str, _ED25519_KEY, "an ed25519 public key: 32 bytes in base64, without = at the end"
]
Sender = Annotated[str, Kind("an address such as Example <no-reply@example.org>", _sender)]
# A secret, as somebody may write the URL of another database, with its password
DatabaseUrl = Annotated[str, Kind("sqlite:/// and a path", _database_url, is_secret=True)]
RoomVersion = Annotated[str, _choice(tuple(room_versions.VERSIONS))]
Texts = Annotated[Strings, _lists("texts in quotes", str)]
# As text, since patterns such as bridges/*.yaml are among them
Paths = Annotated[Strings, _lists("paths in quotes", lambda text: str(_path(text)))]
TurnUris = Annotated[
    Strings, _lists('texts such as "turn:turn.example.org?transport=udp"', _turn_uri)
]
DnsServers = Annotated[Strings, _lists("IP addresses, with a port or without", _dns_server)]
Networks = Annotated[
    tuple[Network, ...],
    _lists("IP addresses or networks, such as 10.0.0.0/8", ipaddress.ip_network),
]
Destinations = Annotated[
    tuple[str | Network, ...],
    _lists("host names, IP addresses or networks, such as ntfy.home", _destination),
]
Hosts = Annotated[tuple[tuple[str, str], ...], _HOSTS]
