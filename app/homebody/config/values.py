"""The kinds of values that settings take: how each is read, written and explained.

A kind reads what TOML gives (`parse`) and what an environment variable gives (`from_text`, to what
TOML would have given), and writes it back as TOML (`show`). `must` completes an error's sentence.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

from homebody.spec import identifiers, room_versions

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LARGEST: Final = 2**53
"""Sizes and durations beyond this cannot be meant, and JSON could not carry them."""

_AMOUNT: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]*)")
# M is what Synapse calls a MiB ("max_upload_size: 50M"); MB is the million of the disk makers.
_SIZES: Final = {
    "": 1,
    "b": 1,
    **dict.fromkeys(("k", "kib"), 2**10),
    **dict.fromkeys(("m", "mib"), 2**20),
    **dict.fromkeys(("g", "gib"), 2**30),
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
}
_DURATIONS: Final = {
    **dict.fromkeys(("", "ms"), 1),
    **dict.fromkeys(("s", "second", "seconds"), 1_000),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60_000),
    **dict.fromkeys(("h", "hour", "hours"), 3_600_000),
    **dict.fromkeys(("d", "day", "days"), 86_400_000),
    **dict.fromkeys(("w", "week", "weeks"), 604_800_000),
}
_FLAGS: Final = {
    **dict.fromkeys(("true", "on", "yes", "1"), True),
    **dict.fromkeys(("false", "off", "no", "0"), False),
}
_SQLITE: Final = "sqlite:///"
_PASSWORD_IN_URL: Final = re.compile(r"(?<=://)([^/@:]*):.*(?=@)")


def _as_it_is(text: str) -> object:
    return text


def as_toml(text: str) -> object:
    """What TOML reads in this text, or the text itself: `HOMEBODY_WORKERS=2`, `…_BYTES=50 MiB`."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # also for 5,000 digits or brackets
        return text
    return table["value"] if len(table) == 1 else text


def toml_string(value: object) -> str:
    """A TOML string: JSON's, as no setting holds control characters."""
    return json.dumps(str(value), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """One kind of value. `parse` raises ValueError where `must` does not hold."""

    must: str
    parse: Callable[[object], T]
    show: Callable[[T], str] = toml_string
    from_text: Callable[[str], object] = _as_it_is
    is_secret: bool = False
    """Never shown, neither in `homebody config` nor in an error; may be read from a file."""


def _text(raw: object) -> str:
    if not isinstance(raw, str) or not raw or not raw.isprintable():
        raise ValueError(raw)
    return raw


def _server_name(raw: object) -> str:
    if not identifiers.is_server_name(raw):
        raise ValueError(raw)
    return raw


def _url(raw: object) -> str:
    """Without the slash at its end, so that paths can be appended."""
    parts = urlsplit(_text(raw))
    is_plain = not parts.query and not parts.fragment and " " not in parts.path
    if parts.scheme not in {"http", "https"} or not is_plain:
        raise ValueError(raw)
    _server_name(parts.netloc)
    return parts.geturl().rstrip("/")


def _page(raw: object) -> str:
    parts = urlsplit(_text(raw))
    if parts.scheme not in {"http", "https"} or not parts.netloc or " " in parts.geturl():
        raise ValueError(raw)
    return parts.geturl()


def _localpart(raw: object) -> str:
    if not identifiers.is_valid_localpart_for_registration(_text(raw)):
        raise ValueError(raw)
    return str(raw)


def _ed25519_key(raw: object) -> str:
    text = _text(raw)
    if len(base64.b64decode(text + "=", validate=True)) != 32 or text.endswith("="):
        raise ValueError(raw)
    return text


def _turn_uris(raw: object) -> tuple[str, ...]:
    uris = _texts(raw)
    if not all(re.fullmatch(r"(turns?|stuns?):[^\s/]+", uri) for uri in uris):
        raise ValueError(raw)
    return uris


def _address(raw: object) -> str:
    name = _server_name(raw)
    host, _, port = name.rpartition(":")
    if not host or not port.isdigit():  # "[::1]" has no port: what follows its last colon is "1]"
        raise ValueError(raw)
    return name


def _path(raw: object) -> Path:
    """Make a path absolute at once, as later something else may be the working folder."""
    try:
        return Path(_text(raw)).expanduser().absolute()
    except RuntimeError as error:  # ~nobody
        raise ValueError(raw) from error


def _database_url(raw: object) -> str:
    url = _text(raw)
    # ":memory:" is refused: each connection would get a database of its own
    is_file = url.startswith(_SQLITE) and url.removeprefix(_SQLITE) not in {"", ":memory:"}
    if not is_file and not re.fullmatch(r"postgresql(\+psycopg)?://.+", url):
        raise ValueError(url)
    return f"{_SQLITE}{Path(url.removeprefix(_SQLITE)).absolute()}" if is_file else url


def _flag(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise ValueError(raw)  # noqa: TRY004 - Kind.parse promises ValueError
    return raw


def _number(raw: object) -> float:
    # bool is a subclass of int; TOML has inf and nan
    if type(raw) not in {int, float}:
        raise ValueError(raw)
    number = float(str(raw))
    if not 0 < number <= 1_000_000 or not math.isfinite(number):
        raise ValueError(raw)
    return number


def _networks(raw: object) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in _texts(raw))


def _destinations(raw: object) -> tuple[str | Network, ...]:
    return tuple(map(_destination, _texts(raw)))


def _destination(text: str) -> str | Network:
    """A network, or the name of a host in small letters."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        if "/" in text or ":" in text or not identifiers.is_server_name(text):
            raise
        return text.lower()


def _texts(raw: object) -> tuple[str, ...]:
    if isinstance(raw, str):
        raw = [part.strip() for part in raw.split(",")] if raw else []
    if not isinstance(raw, list):
        raise ValueError(raw)  # noqa: TRY004 - as above
    return tuple(_text(part) for part in raw)


def _paths(raw: object) -> tuple[str, ...]:
    """As text, since patterns such as bridges/*.yaml are among them."""
    return tuple(str(_path(text)) for text in _texts(raw))


def _room_version(raw: object) -> str:
    name = str(raw) if type(raw) is int else raw  # 11 without quotes is what people write
    if not isinstance(name, str) or name not in room_versions.VERSIONS:
        raise ValueError(raw)
    return name


def _show_texts(values: tuple[object, ...]) -> str:
    return f"[{', '.join(map(toml_string, values))}]"


def _show_networks(networks: tuple[Network, ...]) -> str:
    return _show_texts(
        tuple(n.network_address if n.num_addresses == 1 else n for n in networks),
    )


def _show_destinations(destinations: tuple[str | Network, ...]) -> str:
    return _show_texts(
        tuple(
            it.network_address if not isinstance(it, str) and it.num_addresses == 1 else it
            for it in destinations
        )
    )


def _show_flag(value: object) -> str:
    return str(value).lower()


def _show_database_url(url: str) -> str:
    return toml_string(_PASSWORD_IN_URL.sub(r"\1:***", url))


def whole(minimum: int, maximum: int) -> Kind[int]:
    """A whole number within these bounds."""

    def parse(raw: object) -> int:
        if type(raw) is not int or not minimum <= raw <= maximum:
            raise ValueError(raw)
        return raw

    must = f"must be a whole number from {minimum} to {maximum}"
    return Kind(must, parse, str, as_toml)


def choice(names: tuple[T, ...]) -> Kind[T]:
    """One of these words, however capitals are used."""

    def parse(raw: object) -> T:
        for name in names:
            if str(raw).casefold() == str(name).casefold():
                return name
        raise ValueError(raw)

    words = [toml_string(name) for name in names]
    return Kind(f"must be {', '.join(words[:-1])} or {words[-1]}", parse)


def optional(kind: Kind[T]) -> Kind[T | None]:
    """The same, or none: an empty string, as TOML has no null and environments can't unset."""

    def parse(raw: object) -> T | None:
        return None if raw == "" else kind.parse(raw)

    def show(value: T | None) -> str:
        return '""' if value is None else kind.show(value)

    return Kind(f'{kind.must} (or "" for none)', parse, show, kind.from_text, kind.is_secret)


def _amount(minimum: int, units: dict[str, int], shown: tuple[str, ...], must: str) -> Kind[int]:
    def parse(raw: object) -> int:
        amount = raw
        if isinstance(raw, str) and (parts := _AMOUNT.fullmatch(raw.strip())):
            amount = round(float(parts[1]) * units.get(parts[2].lower(), -1))
        if type(amount) is not int or not minimum <= amount <= LARGEST:
            raise ValueError(raw)
        return amount

    def show(amount: int) -> str:
        """With the first unit that leaves a whole number, or as a bare number."""
        for unit in shown:
            count, rest = divmod(amount, units[unit.lower()])
            if count and not rest:
                return toml_string(f"{count} {unit}")
        return str(amount)

    return Kind(must, parse, show, as_toml)


def size(minimum: int) -> Kind[int]:
    """Bytes."""
    must = (
        f'must be bytes or such as "50 MiB" (KiB, MiB, GiB, KB, MB or GB), at least {minimum} bytes'
    )
    return _amount(minimum, _SIZES, ("GiB", "MiB", "KiB"), must)


def duration(minimum_ms: int) -> Kind[int]:
    """Milliseconds."""
    must = (
        f'must be milliseconds or such as "1 h" (ms, s, min, h, d or w), at least {minimum_ms} ms'
    )
    return _amount(minimum_ms, _DURATIONS, ("d", "h", "min", "s"), must)


SERVER_NAME: Final = Kind(
    "must be a host name or address, with or without a port, and without https://", _server_name
)
URL: Final = Kind("must be a URL that begins with https:// or http://, without a query", _url)
PAGE: Final = Kind("must be the address of a page: https://…", _page)
LOCALPART: Final = Kind("must be a user name: a to z, 0 to 9 and . _ = - / +", _localpart)
ED25519_KEY: Final = Kind(
    "must be an ed25519 public key: 32 bytes in base64, without = at the end", _ed25519_key
)
TURN_URIS: Final = Kind(
    'must be a list of texts such as "turn:turn.example.org?transport=udp"',
    _turn_uris,
    _show_texts,
    as_toml,
)
ADDRESS: Final = Kind("must be an address and a port, such as 127.0.0.1:8008", _address)
PATH: Final = Kind("must be a path", _path)
PATHS: Final = Kind("must be a list of paths in quotes", _paths, _show_texts, as_toml)
DATABASE_URL: Final = Kind(
    "must be sqlite:/// and a path, or postgresql+psycopg:// and so on",
    _database_url,
    _show_database_url,
    is_secret=True,
)
TEXT: Final = Kind("must be text in quotes, on one line", _text)
SECRET: Final = Kind(TEXT.must, _text, lambda _: '"(not shown)"', is_secret=True)
FLAG: Final = Kind(
    "must be true or false", _flag, _show_flag, lambda text: _FLAGS.get(text.lower(), text)
)
NUMBER: Final = Kind("must be a number above 0 and up to 1000000", _number, repr, as_toml)
NETWORKS: Final = Kind(
    "must be a list of IP addresses or networks, such as 10.0.0.0/8",
    _networks,
    _show_networks,
    as_toml,
)
DESTINATIONS: Final = Kind(
    "must be a list of host names, IP addresses or networks, such as ntfy.home or 10.0.0.0/8",
    _destinations,
    _show_destinations,
    as_toml,
)
TEXTS: Final = Kind("must be a list of texts in quotes", _texts, _show_texts, as_toml)
ROOM_VERSION: Final = Kind(
    f"must be one of the room versions {', '.join(room_versions.VERSIONS)}", _room_version
)
