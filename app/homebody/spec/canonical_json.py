"""Canonical JSON, the one way to write a JSON value as bytes, so that it can be hashed and signed.

Keys are sorted by code point, there is no white space, and numbers are integers that a double can
hold. orjson writes exactly that, ten times faster than Python could: it sorts by UTF-8 bytes,
whose order is that of the code points, also beyond the BMP. What it lets pass, floats and integers
beyond 2^53 - 1, `check` finds.

Room versions 1 to 5 set numbers no such limits, and servers there hash what Python's json module
writes. `encode_historical` writes that: `1e-05`, where orjson has `0.00001`. Integers beyond 64
bits are lost before: `decode` makes floats of them, so that the hash of such an event won't match.

Also here: unpadded base64, in which Matrix writes bytes inside JSON.

Spec: appendices#canonical-json, appendices#unpadded-base64
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any, Final

import orjson

MAX_INTEGER: Final = 2**53 - 1
MAX_HISTORICAL_INTEGER: Final = 2**63 - 1
"""The limit of room versions 1 to 5 for `depth`, and of what a database column holds."""
MAX_DEPTH: Final = 100
"""Objects and arrays within each other. Real events stay below 10; orjson writes up to 254."""

_OPTIONS: Final = (
    orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
)


def encode(value: Any) -> bytes:
    """The canonical bytes of a JSON value that passes `check`.

    Raises ValueError for what JSON can't say: lone surrogates, keys that aren't text, other types.
    """
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except TypeError as problem:
        raise ValueError(f"Not canonical JSON: {problem}") from problem


def encode_historical(value: Any) -> bytes:
    """The bytes that are hashed and signed in room versions 1 to 5.

    The same as `encode`'s wherever that is defined. Raises ValueError like it, and for NaN.
    """
    try:
        text = json.dumps(
            value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True
        )
    except (TypeError, RecursionError) as problem:
        raise ValueError(f"Not JSON: {problem}") from problem
    return text.encode()


def decode(text: bytes | str) -> Any:
    """The value of a JSON text. Raises ValueError.

    Strict UTF-8; NaN, infinities (also as 1e999), lone surrogates and more than 1,024 levels are
    refused. Of equal keys in an object the last counts, as in every parser that servers use.
    """
    return orjson.loads(text)


def check(value: Any, *, is_strict: bool = True) -> None:
    """Raise ValueError, naming the place, for a number or a depth that an event may not have.

    For values as `decode` gives them. `is_strict` as since room version 6: neither floats nor
    integers beyond 2^53 - 1; else floats pass, and integers of 64 bits.
    """
    limit = MAX_INTEGER if is_strict else MAX_HISTORICAL_INTEGER
    _check(value, limit, is_strict=is_strict)


def check_depth(value: Any) -> None:
    """Raise ValueError, naming the place, for more than `MAX_DEPTH` levels, in JSON of any kind."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):  # twenty times as fast as `_check`, which is for few values
        level = [
            member
            for container in level
            for member in (container.values() if type(container) is dict else container)
            if type(member) is dict or type(member) is list
        ]
        if not level:
            return
    _check(value, math.inf, is_strict=False)


def encode_base64(data: bytes) -> str:
    """Unpadded base64 in the standard alphabet: keys, signatures, hashes."""
    return base64.b64encode(data).rstrip(b"=").decode()


def encode_url_safe_base64(data: bytes) -> str:
    """Unpadded base64 with `-` and `_`: event ids since room version 4."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_base64(text: str) -> bytes:
    """The bytes of base64 in the standard alphabet, padded or not. Raises ValueError."""
    unpadded = text.rstrip("=")
    return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)


def decode_url_safe_base64(text: str) -> bytes:
    """The bytes of base64 in the URL-safe alphabet, padded or not. Raises ValueError."""
    if "+" in text or "/" in text:
        raise ValueError("Not in the URL-safe alphabet of base64")
    return decode_base64(text.replace("-", "+").replace("_", "/"))


class _Node:
    """An object or array met by `check`, and how it was reached.

    Links instead of ready-made paths: a key of 30,000 bytes above 10,000 small objects would
    make a path of that length for each.
    """

    __slots__ = ("key", "parent", "value")

    def __init__(self, value: Any, key: str | int = "", parent: _Node | None = None) -> None:
        self.value = value
        self.key = key
        self.parent = parent

    def path(self) -> str:
        """Keys and indexes from the outermost value to this one, each cut where it gets long."""
        node, keys = self, []
        while node.parent is not None:
            keys.append(str(node.key)[:40])
            node = node.parent
        return ".".join(reversed(keys))


def _check(value: Any, limit: float, *, is_strict: bool) -> None:
    """Go through a value level by level, so that no nesting can exhaust the stack."""
    level = [_Node(value if isinstance(value, dict | list) else [value])]
    for _ in range(MAX_DEPTH):
        deeper: list[_Node] = []
        for node in level:
            _check_members(node, limit, deeper, is_strict=is_strict)
        if not deeper:
            return
        level = deeper
    raise ValueError(f"{level[0].path()} is nested deeper than {MAX_DEPTH} levels")


def _check_members(node: _Node, limit: float, deeper: list[_Node], *, is_strict: bool) -> None:
    """Check the numbers in a container, and note the containers in it in `deeper`."""
    value = node.value
    for key, member in value.items() if type(value) is dict else enumerate(value):
        kind = type(member)  # not isinstance: True is an int, but no number of JSON's
        if kind is dict or kind is list:
            deeper.append(_Node(member, key, node))
        elif kind is int and not -limit <= member <= limit:
            raise ValueError(f"{_Node(member, key, node).path()} is beyond ±{limit}")
        elif kind is float and is_strict:
            raise ValueError(f"{_Node(member, key, node).path()} is not an integer")
