"""Glob-style matching: `*` is any number of characters, `?` exactly one.

Patterns come from users and texts from anybody, so no pair of them may cost much. Regular
expressions do: `a?a?a?b` compares up to 255 characters at each place of a text of 62,000. Here a
pattern is cut at its `*`, and each part takes the leftmost place that it can have and never gives
it back; that finds a match whenever there is one, as all parts have a fixed length. Parts without
`?` are found by str.find, which is linear. For the others a text is seen as numbers: one for each
character, in which the bit of each of its places is set. Shifting and intersecting them finds all
places of a part at once, with one step for each of its characters that is not `?`.

Nothing here folds case: the caller lowers pattern and text if it wants that.
Spec: appendices#glob-style-matching
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal

_WORD: Final = re.compile(r"\w+", re.ASCII)
"""ASCII makes `\\w` the characters that the push rules name: letters, digits and `_`, of ASCII."""
_WORD_CHARACTERS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
)
_FREQUENT: Final = 255
"""Characters of a text that get a byte of their own; each other one is rare in it."""
_FOLLOWED: Final = 64
"""Characters for which many patterns remember what they do; event types have no more."""


class Text:
    """A text in which patterns are looked for; remembers what several of them need."""

    __slots__ = ("_boundaries", "_codes", "_encoded", "_places", "text")

    def __init__(self, text: str) -> None:
        self.text: Final = text
        self._codes: dict[str, int] | None = None
        self._encoded = b""
        self._places: dict[str, int] = {}
        self._boundaries: int | None = None

    def places(self, character: str) -> int:
        """Return a number in which the bit of each place of the character is set."""
        found = self._places.get(character)
        if found is None:
            code = self._encode().get(character)
            found = self._rare(character) if code is None else self._bits([code])
            self._places[character] = found
        return found

    @property
    def boundaries(self) -> int:
        """The same for the places that aren't inside a word, so that `@room` is in `hi@room`."""
        if self._boundaries is None:
            codes = self._encode()
            words = self._bits([code for it, code in codes.items() if it in _WORD_CHARACTERS])
            for character in _WORD_CHARACTERS - codes.keys():
                words |= self._rare(character)
            inside = words & words << 1
            self._boundaries = (1 << len(self.text) + 1) - 1 & ~inside
        return self._boundaries

    def _encode(self) -> dict[str, int]:
        """Return the bytes of the frequent characters; `_encoded` is the text in them, reversed."""
        if self._codes is None:
            text = self.text
            if text.isascii():
                self._codes = {character: ord(character) for character in set(text)}
                self._encoded = text[::-1].encode("ascii")
            else:
                frequent = Counter(text).most_common(_FREQUENT)
                self._codes = {character: code for code, (character, _) in enumerate(frequent, 1)}
                bytes_of = {ord(it): "\0" for it in set(text)}
                bytes_of |= {ord(it): chr(code) for it, code in self._codes.items()}
                self._encoded = text[::-1].translate(bytes_of).encode("latin-1")
        return self._codes

    def _bits(self, codes: list[int]) -> int:
        digits = bytearray(b"0" * 256)
        for code in codes:
            digits[code] = ord("1")
        return int(self._encoded.translate(bytes(digits)) or b"0", 2)

    def _rare(self, character: str) -> int:
        found, place = 0, self.text.find(character)
        while place >= 0:
            found |= 1 << place
            place = self.text.find(character, place + 1)
        return found


class _Part:
    """What stands between two `*`."""

    __slots__ = ("has_wildcards", "length", "literal", "places")

    def __init__(self, part: str, wildcard: str) -> None:
        self.literal = part
        self.length = len(part)
        self.places = [(at, it) for at, it in enumerate(part) if it != wildcard]
        """Where its characters are, but for wildcards."""
        self.has_wildcards = len(self.places) < self.length

    def is_at(self, text: str, start: int) -> bool:
        """Whether it is at this place of a text, which is long enough for it."""
        if not self.has_wildcards:
            return text.startswith(self.literal, start)
        return all(text[start + at] == it for at, it in self.places)

    def find(self, text: Text, start: int, end: int) -> int:
        """Return its leftmost place between two others, or -1."""
        if not self.has_wildcards:
            return text.text.find(self.literal, start, end)
        found = self.starts(text) >> start
        place = start + (found & -found).bit_length() - 1
        return place if found and place + self.length <= end else -1

    def starts(self, text: Text) -> int:
        """Return a number in which the bit of each of its places is set."""
        last = len(text.text) - self.length
        found = (1 << last + 1) - 1 if last >= 0 else 0
        for at, character in self.places:
            if not found:
                break
            found &= text.places(character) >> at
        return found


class Glob:
    """A pattern, taken apart when it is first needed: most keywords of most users never are."""

    def __init__(self, pattern: str, wildcards: Literal["*?", "*", ""] = "*?") -> None:
        """`wildcards`: which characters are any, as `?` stands for itself in some of Matrix."""
        self.pattern: Final = pattern
        self._wildcards: Final = wildcards
        is_literal = not any(it in pattern for it in wildcards)
        literals = [pattern] if is_literal else re.split(f"[{wildcards}]", pattern)
        self._literal: Final = max(literals, key=len)

    @property
    def cost(self) -> int:
        """How many of its characters a text has to be looked through for."""
        return len(self.pattern) - sum(self.pattern.count(it) for it in self._wildcards)

    def matches(self, text: str | Text) -> bool:
        """Whether the pattern matches the text as a whole."""
        it = text if isinstance(text, Text) else Text(text)
        if self._literal == self.pattern:
            return it.text == self.pattern
        if self._literal not in it.text:
            return False
        head, *others = self._parts
        if not others:
            return head.length == len(it.text) and head.is_at(it.text, 0)
        *middle, tail = others
        end = len(it.text) - tail.length
        if head.length > end or not (head.is_at(it.text, 0) and tail.is_at(it.text, end)):
            return False
        return _end_of(middle, it, head.length, end) is not None

    def matches_words_of(self, text: str | Text) -> bool:
        """Whether the pattern matches a part of the text that starts and ends at a word boundary.

        Spec: client-server-api#conditions-1, on `content.body`
        """
        it = text if isinstance(text, Text) else Text(text)
        if not self.pattern:  # nothing is found in everything: mention nobody for it
            return not it.text
        if self._literal not in it.text:
            return False
        head, *others = self._parts
        starts = head.starts(it) & it.boundaries
        if not others:
            return bool(starts & it.boundaries >> head.length)
        *middle, tail = others
        if not starts:
            return False
        begin = (starts & -starts).bit_length() - 1 + head.length
        end = _end_of(middle, it, begin, len(it.text))
        return end is not None and bool((tail.starts(it) & it.boundaries >> tail.length) >> end)

    @functools.cached_property
    def _parts(self) -> list[_Part]:
        """What stands between the `*`; nothing stands between two that follow each other."""
        wildcard = "?" if "?" in self._wildcards else ""
        parts = self.pattern.split("*") if "*" in self._wildcards else [self.pattern]
        inner = [part for part in parts[1:-1] if part]
        kept = parts if len(parts) == 1 else [parts[0], *inner, parts[-1]]
        return [_Part(part, wildcard) for part in kept]


class AnyOf:
    """Many patterns, of which any shall match a short text; `*` is their only wildcard.

    All of them are followed at once. How much of each the text has matched so far is a bit of one
    number: bit i of a pattern stands for its first i characters, stars left out. A character of the
    text moves each bit on that it fits; those of which a star follows stay as well.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns: Final = tuple(patterns)
        self._moves: Final[dict[str, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def matches(self, text: str) -> bool:
        """Whether any of the patterns matches the text as a whole."""
        begin, stay, end = self._compiled
        found = begin
        for character in text:
            found = found << 1 & self._move(character) | found & stay
            if not found:
                return False
        return bool(found & end)

    def _move(self, character: str) -> int:
        """Return the bits that a character moves on."""
        found = self._moves.get(character)
        if found is None:
            found = _with_bits(self._places.get(character, ()), self._size)
            if len(self._moves) < _FOLLOWED:  # each is as long as all patterns together
                self._moves[character] = found
        return found

    @functools.cached_property
    def _compiled(self) -> tuple[int, int, int]:
        begin: list[int] = []
        stay: list[int] = []
        end: list[int] = []
        place = 0
        for pattern in self._patterns:
            begin.append(place)
            for character in pattern:
                if character == "*":
                    stay.append(place)
                else:
                    place += 1
            end.append(place)
            place += 1
        size = self._size
        return _with_bits(begin, size), _with_bits(stay, size), _with_bits(end, size)

    @functools.cached_property
    def _places(self) -> dict[str, list[int]]:
        """The bits that each character moves on."""
        found: dict[str, list[int]] = {}
        place = 0
        for pattern in self._patterns:
            literal = pattern.replace("*", "")
            for at, character in enumerate(literal, place + 1):
                found.setdefault(character, []).append(at)
            place += len(literal) + 1
        return found

    @property
    def _size(self) -> int:
        return sum(map(len, self._patterns)) + len(self._patterns)


def _with_bits(places: Iterable[int], size: int) -> int:
    digits = bytearray(size // 8 + 1)
    for place in places:
        digits[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(digits, "little")


def _end_of(parts: list[_Part], text: Text, start: int, end: int) -> int | None:
    """Return where the last of these parts ends that follow each other, each as early as it can."""
    for part in parts:
        place = part.find(text, start, end)
        if place < 0:
            return None
        start = place + part.length
    return start


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


def has_words(words: str, text: str | Text) -> bool:
    """Whether the text contains these words, in which nothing is a wildcard, between boundaries."""
    return _literal_words(words).matches_words_of(text)


@functools.lru_cache(maxsize=1024)
def _literal_words(words: str) -> Glob:
    return Glob(words, "")
