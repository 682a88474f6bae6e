r"""Dot-separated property paths, with which push rules and filters refer to properties of events.

`content.m\.relates_to.rel_type` is the property `rel_type` of `m.relates_to` of `content`.
Spec: appendices#dot-separated-property-paths
"""

from __future__ import annotations

import functools
import re
from typing import Final

Path = tuple[str, ...]
"""The names of the properties, outermost first, unescaped."""

_PART: Final = re.compile(r"\\[.\\]|.", re.DOTALL)


MAX_CACHED_LENGTH: Final = 255
"""Longer paths are not cached, as thousands of them would fill the memory."""


def parse(text: str) -> Path:
    r"""Return the names in a path. Only `\.` and `\\` are escapes."""
    return _cached(text) if len(text) <= MAX_CACHED_LENGTH else _names(text)


def _names(text: str) -> Path:
    names = [""]
    for part in _PART.findall(text):
        if part == ".":
            names.append("")
        else:
            names[-1] += part[-1]
    return tuple(names)


_cached = functools.lru_cache(maxsize=4096)(_names)
