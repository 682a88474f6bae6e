r"""Dot-separated property paths: how push rules and filters name a place inside an event.

`content.m\.relates_to.rel_type` is the property `rel_type` of `m.relates_to` of `content`.
Spec: appendices#dot-separated-property-paths
"""

from __future__ import annotations

import functools
import re
from typing import Final

Path = tuple[str, ...]
"""The names of the properties, from the outermost on, without escapes."""

MISSING: Final = object()
"""What stands where the event has no such property, as null is a value."""
_PART: Final = re.compile(r"\\[.\\]|.", re.DOTALL)


MAX_REMEMBERED_LENGTH: Final = 255
"""Longer ones nobody needs, and thousands of them would fill the memory."""


def parse(text: str) -> Path:
    r"""The names in a path. Only `\.` and `\\` are escapes; other backslashes stay."""
    return _remembered(text) if len(text) <= MAX_REMEMBERED_LENGTH else _names(text)


def _names(text: str) -> Path:
    names = [""]
    for part in _PART.findall(text):
        if part == ".":
            names.append("")
        else:
            names[-1] += part[-1]
    return tuple(names)


_remembered = functools.lru_cache(maxsize=4096)(_names)


def value_at(json: object, path: Path) -> object:
    """The value at the end of the path, or MISSING. Arrays have no properties."""
    for name in path:
        if not isinstance(json, dict) or name not in json:
            return MISSING
        json = json[name]
    return json
