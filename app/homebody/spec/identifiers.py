"""Validate and split user IDs, room IDs, aliases, server names and other identifiers.

The predicates (`is_…`) take any JSON value and never raise, so they can be applied to decoded JSON
directly. The functions that return a part validate the whole identifier first, so that no unchecked
string becomes a server to connect to; they raise ValueError.

All patterns take time linear in the length of the text, as identifiers are untrusted.

Spec: appendices#identifier-grammar
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple, TypeGuard

from homebody.spec.room_versions import EventIds, RoomVersion

MAX_BYTES: Final = 255
PRIVATE_DOMAINS: Final = frozenset(
    {"localhost", "local", "internal", "home.arpa", "lan", "home", "corp"}  # of private networks
    | {"test", "invalid", "example", "alt", "onion"}  # never in the public DNS
)
"""The length of an identifier in UTF-8, including sigil and server name."""

_HOST_AND_PORT: Final = re.compile(
    r"(?:(?P<name>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)|\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_FOUR_NUMBERS: Final = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
# Localparts may hold any Unicode but NUL, lone surrogates and the colon. A Python str can contain
# surrogates (from "\ud800" in JSON parsed leniently), UTF-8 can't.
_WITH_SERVER: Final = re.compile(r"([@!#$])([^:\0\ud800-\udfff]*):([0-9A-Za-z\[\].:-]+)")
_LOCALPART: Final = re.compile(r"[a-z0-9._=/+-]{1,255}")
# 32 bytes of SHA-256 are 43 characters of base64
_URL_SAFE_HASH: Final = re.compile(r"[0-9A-Za-z_-]{43}")
_HASH: Final = re.compile(r"[0-9A-Za-z+/]{43}")


class ServerName(NamedTuple):
    """The parts of a server name."""

    host: str
    """A host name, IPv4 address, or IPv6 address without brackets."""
    port: int | None
    is_ip_literal: bool


def is_server_name(text: object) -> TypeGuard[str]:
    """Return whether this is a host name, IPv4 address or [IPv6 address], with an optional port."""
    if not isinstance(text, str) or len(text) > MAX_BYTES:
        return False
    parts = _HOST_AND_PORT.fullmatch(text)
    if parts is None or int(parts["port"] or 0) > 65535:
        return False
    if parts["ipv6"]:
        return _is_address(ipaddress.IPv6Address, parts["ipv6"])
    if _FOUR_NUMBERS.fullmatch(parts["name"]):
        return _is_address(ipaddress.IPv4Address, parts["name"])
    return True


def split_server_name(text: str) -> ServerName:
    """Return the parts of a server name, as they are written. Raises ValueError."""
    parts = _HOST_AND_PORT.fullmatch(text)
    if parts is None or not is_server_name(text):
        raise ValueError("Not a server name")
    name, ipv6, port = parts.groups()
    is_ip_literal = name is None or _FOUR_NUMBERS.fullmatch(name) is not None
    return ServerName(name or ipv6, None if port is None else int(port), is_ip_literal)


def is_public(server_name: str) -> bool:
    """Return whether a server name may mean something on the internet, as example.org does.

    Names of one word and those below top-level domains for private use do not, nor do addresses of
    private networks and of this machine. Raises ValueError.
    """
    found = split_server_name(server_name)
    if found.is_ip_literal:
        return ipaddress.ip_address(found.host).is_global
    labels = found.host.lower().rstrip(".").split(".")
    return len(labels) > 1 and PRIVATE_DOMAINS.isdisjoint({labels[-1], ".".join(labels[-2:])})


def is_user_id(text: object) -> TypeGuard[str]:
    """Return whether this is a user ID, historical ones included (valid in events)."""
    return _split("@", text) is not None


def is_valid_localpart_for_registration(text: object) -> TypeGuard[str]:
    """Return whether a new account may have this localpart. Does not check the user ID's length."""
    return isinstance(text, str) and _LOCALPART.fullmatch(text) is not None


def is_room_alias(text: object) -> TypeGuard[str]:
    """Return whether this is an alias such as `#cats:example.org`."""
    return _has_localpart("#", text)


def is_room_id(text: object) -> TypeGuard[str]:
    """Return whether this is a room ID: `!opaque:server`, or `!hash` since room version 12."""
    return is_room_id_of(text, names_server=True) or is_room_id_of(text, names_server=False)


def is_room_id_of(text: object, *, names_server: bool) -> TypeGuard[str]:
    """Return whether this is a room ID with a server name, or one of room version 12 without."""
    if names_server:
        return _has_localpart("!", text)
    return (
        isinstance(text, str) and text[:1] == "!" and _URL_SAFE_HASH.fullmatch(text, 1) is not None
    )


def is_event_id_of(text: object, version: RoomVersion) -> TypeGuard[str]:
    """Return whether this is a valid event ID of this room version."""
    if version.event_ids == "given":
        return _has_localpart("$", text)
    hashed = _EVENT_ID_HASHES[version.event_ids]
    return isinstance(text, str) and text[:1] == "$" and hashed.fullmatch(text, 1) is not None


def localpart(identifier: str) -> str:
    """Return the part between sigil and colon. Raises ValueError if there is none."""
    return _parts(identifier)[0]


def server_name(identifier: str) -> str:
    """Return the server named by a user ID, alias, or an older room or event ID.

    Raises ValueError for anything else, including the room IDs of version 12, which have no server.
    """
    return _parts(identifier)[1]


def host(server_name: str) -> str:
    """Return a server name in lower case without its port."""
    if server_name.startswith("["):
        return server_name.partition("]")[0].lower() + "]"
    return server_name.partition(":")[0].lower()


def user_id(localpart: str, server_name: str) -> str:
    """Return the user ID of a localpart on a server. Raises ValueError if it is not valid."""
    text = f"@{localpart}:{server_name}"
    if not is_user_id(text):
        raise ValueError("Not a valid user ID, or longer than 255 bytes")
    return text


def has_at_most_255_bytes(text: str) -> bool:
    """Return whether the text fits the limit of ids, event types and state keys.

    A lone surrogate counts as three bytes here; other checks reject it.
    """
    if len(text) > MAX_BYTES:
        return False
    return text.isascii() or len(text.encode(errors="surrogatepass")) <= MAX_BYTES


def _is_address(kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _split(sigil: str, text: object) -> tuple[str, str] | None:
    """Return (localpart, server name) of an identifier with this sigil, or None."""
    if not isinstance(text, str) or text[:1] != sigil or not has_at_most_255_bytes(text):
        return None
    parts = _WITH_SERVER.fullmatch(text)
    if parts is None or not is_server_name(parts[3]):
        return None
    return parts[2], parts[3]


def _has_localpart(sigil: str, text: object) -> bool:
    """Return whether the localpart is not empty; only user IDs allow that."""
    parts = _split(sigil, text)
    return parts is not None and parts[0] != ""


def _parts(identifier: str) -> tuple[str, str]:
    parts = _split(identifier[:1], identifier)
    if parts is None:
        raise ValueError("Not an identifier that names a server")
    return parts


_EVENT_ID_HASHES: Final[dict[EventIds, re.Pattern[str]]] = {
    "reference_hash": _HASH,
    "url_safe_reference_hash": _URL_SAFE_HASH,
}
