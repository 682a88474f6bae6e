"""Canonical JSON: the unique encoding of a JSON value as bytes, for hashes and signatures.

Keys are sorted by code point, there is no white space, and numbers are integers that a double can
hold. orjson writes exactly that, ten times faster than Python could: it sorts by UTF-8 bytes,
whose order is that of the code points, also beyond the BMP. orjson also accepts floats and integers
beyond 2^53 - 1; `check` rejects those.

Room versions 1 to 5 have no such limits, and servers hash what Python's json module writes in those
rooms. `encode_historical` does the same: `1e-05`, where orjson has `0.00001`. Integers beyond 64
bits are not supported: `decode` turns them into floats, so the hash of such an event won't match.

Also here: unpadded base64, the encoding of bytes inside JSON.

Spec: appendices#canonical-json, appendices#unpadded-base64
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any, Final, NamedTuple

import orjson

MAX_INTEGER: Final = 2**53 - 1
MAX_HISTORICAL_INTEGER: Final = 2**63 - 1
"""The limit for `depth` in room versions 1 to 5, and of an integer column in the database."""
MAX_DEPTH: Final = 100
"""Nesting of objects and arrays. Real events stay below 10; orjson writes up to 254."""

_OPTIONS: Final = (
    orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
)


def encode(value: Any) -> bytes:
    """Return the canonical bytes of a JSON value that passes `check`.

    Raises ValueError for values JSON can't represent: lone surrogates, keys that aren't strings,
    other types.
    """
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except TypeError as problem:
        raise ValueError(f"Not canonical JSON: {problem}") from problem


def encode_historical(value: Any) -> bytes:
    """Return the bytes that are hashed and signed in room versions 1 to 5.

    They equal those of `encode` wherever that is defined. Raises ValueError as `encode` does, and
    for NaN.
    """
    try:
        text = json.dumps(
            value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True
        )
    except (TypeError, RecursionError) as problem:
        raise ValueError(f"Not JSON: {problem}") from problem
    return text.encode()


def decode(text: bytes | str) -> Any:
    """Return the value of a JSON text. Raises ValueError.

    Rejects invalid UTF-8, NaN, infinities (also as 1e999), lone surrogates and more than 1,024
    levels. Of duplicate keys in an object the last one counts, as in the parsers of other servers.
    """
    return orjson.loads(text)


def check(value: Any, *, is_strict: bool = True, limit: float | None = None) -> None:
    """Raise ValueError, naming the path, for a number or a depth that is not allowed in an event.

    Takes values returned by `decode`. `is_strict` applies the rules of room version 6 and later:
    neither floats nor integers beyond 2^53 - 1. Otherwise floats and 64-bit integers are allowed,
    or integers up to `limit`.
    """
    if limit is None:
        limit = MAX_INTEGER if is_strict else MAX_HISTORICAL_INTEGER
    # level by level, so that deep nesting can't exhaust the stack
    level = [_Node(value if isinstance(value, dict | list) else [value])]
    for _ in range(MAX_DEPTH):
        deeper: list[_Node] = []
        for node in level:
            _check_members(node, limit, deeper, is_strict=is_strict)
        if not deeper:
            return
        level = deeper
    raise ValueError(f"{level[0].path()} is nested deeper than {MAX_DEPTH} levels")


def check_depth(value: Any) -> None:
    """Raise ValueError, naming the path, for any JSON nested deeper than `MAX_DEPTH` levels."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):  # twenty times as fast as `check`
        level = [
            member
            for container in level
            for member in (container.values() if type(container) is dict else container)
            if type(member) is dict or type(member) is list
        ]
        if not level:
            return
    check(value, is_strict=False, limit=math.inf)


def encode_base64(data: bytes, *, is_url_safe: bool = False) -> str:
    """Encode as unpadded base64: keys, signatures, hashes.

    Event IDs since room version 4 are URL-safe, with `-` and `_` for `+` and `/`.
    """
    encode = base64.urlsafe_b64encode if is_url_safe else base64.b64encode
    return encode(data).rstrip(b"=").decode()


def decode_base64(text: str) -> bytes:
    """Decode base64 in the standard alphabet, padded or not. Raises ValueError."""
    unpadded = text.rstrip("=")
    return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)


class _Node(NamedTuple):
    """An object or array visited by `check`, with its parent.

    Paths are built only for the error: with a key of 30,000 bytes above 10,000 small objects, a
    path for each would take 300 MB.
    """

    value: Any
    key: str | int = ""
    parent: _Node | None = None

    def path(self) -> str:
        """Return keys and indexes from the outermost value to this one, long ones truncated."""
        node, keys = self, []
        while node.parent is not None:
            keys.append(str(node.key)[:40])
            node = node.parent
        return ".".join(reversed(keys))


def _check_members(node: _Node, limit: float, deeper: list[_Node], *, is_strict: bool) -> None:
    """Check the numbers in a container, and append nested containers to `deeper`."""
    value = node.value
    for key, member in value.items() if type(value) is dict else enumerate(value):
        kind = type(member)  # not isinstance: bool is a subclass of int
        if kind is dict or kind is list:
            deeper.append(_Node(member, key, node))
        elif kind is int and not -limit <= member <= limit:
            raise ValueError(f"{_Node(member, key, node).path()} is beyond ±{limit}")
        elif kind is float and is_strict:
            raise ValueError(f"{_Node(member, key, node).path()} is not an integer")
