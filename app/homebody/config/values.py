"""The types of settings: how each is read, written and described.

A field is a `bool`, a `Literal` or one of the types at the end of this module, with `| None` or
without. The type's `Kind` reads what is in a TOML file (`parse`) or in an environment variable
(`from_text`, then `parse`), and writes it as TOML (`show`).
"""

from __future__ import annotations

import ipaddress
import json
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
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

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
_SQLITE: Final = "sqlite:///"


def from_toml(text: str) -> object:
    """Return the value that this text is in TOML, or else the text itself (`50 MiB`)."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # also for 5,000 digits or brackets
        return text
    return table["value"] if len(table) == 1 else text


def to_toml(value: object) -> str:
    """Write a value as TOML. Texts are written as in JSON: none has control characters."""
    plain = msgspec.to_builtins(value, enc_hook=_plain)
    if isinstance(plain, dict):
        pairs = [f"{_key(key)} = {to_toml(it)}" for key, it in plain.items() if it is not None]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    if isinstance(plain, list | tuple):
        return f"[{', '.join(map(to_toml, plain))}]"
    return json.dumps("" if plain is None else plain, ensure_ascii=False)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key)


def _plain(value: Any) -> str:
    if isinstance(value, Network) and value.num_addresses == 1:
        return str(value.network_address)
    return str(value)


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
    is_map: bool = False
    """Its value is a table with keys of the administrator's choice."""


def kind_of(hint: Any) -> Kind[Any]:
    """Return how values for a field of this type are read and written."""
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return _choice(arguments)
    if NoneType in arguments:
        return replace(kind_of(arguments[0]), is_optional=True)
    kind: Kind[Any] = _FLAG if hint is bool else arguments[1]
    return kind


def converted(what: str, hint: Any) -> Kind[Any]:
    """Return the kind of what msgspec converts to a type."""
    return Kind(what, partial(msgspec.convert, type=hint), from_toml)


def whole(minimum: int, maximum: int) -> Kind[int]:
    """Return the kind of whole numbers within these bounds."""
    hint = Annotated[int, msgspec.Meta(ge=minimum, le=maximum)]
    return converted(f"a whole number from {minimum} to {maximum}", hint)


def size(minimum: int) -> Kind[int]:
    """Return the kind of numbers of bytes."""
    units = "KiB, MiB, GiB, KB, MB or GB"
    what = f'bytes or such as "50 MiB" ({units}), at least {minimum} bytes'
    return _amount(minimum, _SIZES, ("GiB", "MiB", "KiB"), what)


def duration(minimum_ms: int) -> Kind[int]:
    """Return the kind of numbers of milliseconds."""
    units = "ms, s, min, h, d or w"
    what = f'milliseconds or such as "1 h" ({units}), at least {minimum_ms} ms'
    return _amount(minimum_ms, _DURATIONS, ("d", "h", "min", "s"), what)


def _amount(minimum: int, units: dict[str, int], shown: tuple[str, ...], what: str) -> Kind[int]:
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


def _texts(what: str, is_good: Callable[[str], object]) -> Kind[str]:
    """Return the kind of texts on one line for which `is_good` is true."""

    def parse(raw: object) -> str:
        if not isinstance(raw, str) or not raw or not raw.isprintable() or not is_good(raw):
            raise ValueError(raw)
        return raw

    return Kind(what, parse)


def _lists(what: str, parse_one: Callable[[str], T]) -> Kind[tuple[T, ...]]:
    """Return the kind of lists of texts; in an environment variable, commas may separate them."""

    def parse(raw: object) -> tuple[T, ...]:
        if isinstance(raw, str):
            raw = [part.strip() for part in raw.split(",")] if raw else []
        texts = msgspec.convert(raw, list[str])
        return tuple(parse_one(_text(text)) for text in texts)

    return Kind(what, parse, from_toml)


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    # "[::1]" has no port: what follows its last colon is "1]"
    return bool(host) and port.isdigit() and identifiers.is_server_name(text)


def _is_host(text: str) -> bool:
    return identifiers.is_server_name(text) and ":" not in text


def _is_dns_server(text: str) -> bool:
    if not identifiers.is_server_name(text):
        return _is_ip(text)  # IPv6 without brackets
    return identifiers.split_server_name(text).is_ip_literal


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_sender(text: str) -> bool:
    return bool(re.fullmatch(r"[!-?A-~]+@[A-Za-z0-9.-]+", parseaddr(text)[1]))


def _path(raw: object) -> Path:
    """Make a path absolute at once, as later something else may be the working folder."""
    try:
        return Path(_text(raw)).expanduser().absolute()
    except RuntimeError as error:  # ~nobody
        raise ValueError(raw) from error


def _database_url(raw: object) -> str:
    path = _text(raw).removeprefix(_SQLITE)
    # ":memory:" is refused: each connection would get a database of its own
    if path in {raw, "", ":memory:"}:
        raise ValueError(raw)
    return f"{_SQLITE}{Path(path).absolute()}"


def _destination(text: str) -> str | Network:
    """Return a network, or the name of a host in small letters."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        if "/" in text or not _is_host(text):
            raise
        return text.lower()


def _hosts(raw: object) -> tuple[tuple[str, str], ...]:
    """Return a map from server names to addresses as pairs: settings are hashable."""
    found = msgspec.convert(raw, dict[str, str])
    for name, address in found.items():
        if not identifiers.is_server_name(name) or not _is_address(address):
            raise ValueError(raw)
    return tuple(found.items())


def _url(raw: object) -> str:
    """Leave out the slash at the end, so that paths can be appended."""
    parts = urlsplit(_text(raw))
    is_plain = not parts.query and not parts.fragment and " " not in parts.path
    if parts.scheme not in {"http", "https"} or not is_plain:
        raise ValueError(raw)
    if not identifiers.is_server_name(parts.netloc):
        raise ValueError(raw)
    return parts.geturl().rstrip("/")


_TEXT: Final = _texts("text in quotes, on one line", bool)
_text: Final = _TEXT.parse
_FLAG: Final = replace(
    converted("true or false", bool), from_text=lambda text: FLAGS.get(text.lower(), text)
)
PATH: Final = Kind("a path", _path)

_POSITIVE: Final = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
Number = Annotated[float, converted("a number above 0 and up to 1000000", _POSITIVE)]
Duration = Annotated[int, duration(1)]
Text = Annotated[str, _TEXT]
Secret = Annotated[str, replace(_TEXT, show=lambda _: '"(not shown)"', is_secret=True)]
FilePath = Annotated[Path, PATH]
ServerName = Annotated[
    str, _texts("a host name or address, without https://", identifiers.is_server_name)
]
ServerNames = Annotated[
    tuple[str, ...],
    _lists(
        "a list of server names, such as example.org",
        _texts("", identifiers.is_server_name).parse,
    ),
]
Host = Annotated[str, _texts("a host name or an IPv4 address, without a port", _is_host)]
Address = Annotated[str, _texts("an address and a port, such as 127.0.0.1:8008", _is_address)]
Url = Annotated[str, Kind("a URL with https:// or http://, without a query", _url)]
Page = Annotated[str, _texts("the URL of a page: https://…", re.compile(PAGE).fullmatch)]
Localpart = Annotated[
    str,
    _texts(
        "a user name: a to z, 0 to 9 and . _ = - / +",
        identifiers.is_valid_localpart_for_registration,
    ),
]
Ed25519Key = Annotated[
    str,
    _texts(
        "an ed25519 public key: 32 bytes in base64, without = at the end",
        re.compile("[A-Za-z0-9+/]{43}").fullmatch,
    ),
]
Sender = Annotated[str, _texts("an address such as Example <no-reply@example.org>", _is_sender)]
# A secret, as somebody may write the URL of another database, with its password
DatabaseUrl = Annotated[str, Kind("sqlite:/// and a path", _database_url, is_secret=True)]
RoomVersion = Annotated[str, _choice(tuple(room_versions.VERSIONS))]
Texts = Annotated[tuple[str, ...], _lists("a list of texts in quotes", str)]
# As text, since patterns such as bridges/*.yaml are among them
Paths = Annotated[
    tuple[str, ...], _lists("a list of paths in quotes", lambda text: str(_path(text)))
]
TurnUris = Annotated[
    tuple[str, ...],
    _lists(
        'a list of texts such as "turn:turn.example.org?transport=udp"',
        _texts("", re.compile(r"(turns?|stuns?):[^\s/]+").fullmatch).parse,
    ),
]
Networks = Annotated[
    tuple[Network, ...],
    _lists("a list of IP addresses or networks, such as 10.0.0.0/8", ipaddress.ip_network),
]
Destinations = Annotated[
    tuple[str | Network, ...],
    _lists("a list of host names, IP addresses or networks, such as ntfy.home", _destination),
]
Hosts = Annotated[
    tuple[tuple[str, str], ...],
    Kind(
        'a table such as { "b.example.org" = "127.0.0.1:8449" }',
        _hosts,
        from_toml,
        lambda pairs: to_toml(dict(pairs)),
        is_map=True,
    ),
]
DnsServers = Annotated[
    tuple[str, ...],
    _lists(
        "a list of IP addresses, with a port or without",
        _texts("", _is_dns_server).parse,
    ),
]
