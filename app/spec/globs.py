"""Glob-style matching: `*` is any number of characters, `?` exactly one.

Patterns come from users and texts from anybody, so no pair of them may cost much. The obvious
translation (`*` to `.*`) lets `*a*a*a*a*b` try every way to place the letters; here each part
between two `*` takes the leftmost place it can have and never gives it back (an atomic group). That
finds a match whenever there is one, as all parts have a fixed length.
Nothing here folds case: the caller lowers pattern and text if it wants that.
Spec: appendices#glob-style-matching
"""

from __future__ import annotations

import functools
import re
from typing import Final, Literal

_WORD: Final = re.compile(r"\w+", re.ASCII)
_ANY: Final = re.compile(r"(?:\\\?)+")
"""Question marks, as re.escape() writes them."""
_BOUNDARY: Final = r"(?:(?<!\w)|(?!\w))"
"""Any place that isn't inside a word, so that `@room` is found in `hi@room`."""
_FLAGS: Final = re.DOTALL | re.ASCII
"""ASCII makes `\\w` the characters that the push rules name: letters, digits and `_`, of ASCII."""


class Glob:
    """A pattern, compiled when it is first needed: most keywords of most users never are."""

    def __init__(self, pattern: str, wildcards: Literal["*?", "*"] = "*?") -> None:
        """`wildcards`: which characters are any, as `?` stands for itself in some of Matrix."""
        self.pattern: Final = pattern
        self._wildcards = wildcards
        self._literal = max(re.split(f"[{wildcards}]", pattern), key=len)

    def matches(self, text: str) -> bool:
        """Whether the pattern matches the text as a whole."""
        if self._literal == self.pattern:
            return text == self.pattern
        return self._literal in text and self._whole.fullmatch(text) is not None

    def matches_words_of(self, text: str) -> bool:
        """Whether the pattern matches a part of the text that starts and ends at a word boundary.

        Spec: client-server-api#conditions-1, on `content.body`
        """
        if not self.pattern:  # nothing is found in everything: mention nobody for it
            return not text
        return self._literal in text and self._words.match(text) is not None

    @functools.cached_property
    def _whole(self) -> re.Pattern[str]:
        head, *rest = self._parts()
        if not rest:
            return re.compile(head, _FLAGS)
        *middle, tail = rest
        return re.compile(f"{head}{_one_after_another(middle)}.*{tail}", _FLAGS)

    @functools.cached_property
    def _words(self) -> re.Pattern[str]:
        head, *rest = self._parts()
        if not rest:
            return re.compile(f".*?{_BOUNDARY}{head}{_BOUNDARY}", _FLAGS)
        *middle, tail = rest
        first = f"(?>.*?{_BOUNDARY}{head})"
        return re.compile(
            f"{first}{_one_after_another(middle)}.*?{tail}{_BOUNDARY}",
            _FLAGS,
        )

    def _parts(self) -> list[str]:
        """The regular expressions of what stands between the `*`, each of a fixed length."""
        parts = [re.escape(part) for part in self.pattern.split("*")]
        if "?" in self._wildcards:
            # a run of them in one step, as each place in the text may have to try it
            return [_ANY.sub(lambda run: f".{{{len(run[0]) // 2}}}", part) for part in parts]
        return parts


@functools.lru_cache(maxsize=8192)
def compiled(pattern: str) -> Glob:
    """The same `Glob` for the same pattern, as long as it is in use."""
    return Glob(pattern)


def words_of(text: str) -> frozenset[str]:
    """Every run of the characters between which there is no word boundary."""
    return frozenset(_WORD.findall(text))


def is_word(pattern: str) -> bool:
    """Whether the pattern matches in exactly those texts of which it is one of the words."""
    return _WORD.fullmatch(pattern) is not None


def has_wildcards(pattern: str) -> bool:
    """Whether the pattern may match more than one text."""
    return "*" in pattern or "?" in pattern


def has_words(words: str, text: str) -> bool:
    """Whether the text contains these words, in which nothing is a wildcard, between boundaries."""
    return words in text and _literal_words(words).search(text) is not None


@functools.lru_cache(maxsize=1024)
def _literal_words(words: str) -> re.Pattern[str]:
    return re.compile(f"{_BOUNDARY}{re.escape(words)}{_BOUNDARY}", _FLAGS)


def _one_after_another(parts: list[str]) -> str:
    return "".join(f"(?>.*?{part})" for part in parts if part)
