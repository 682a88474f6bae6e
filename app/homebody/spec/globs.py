"""Glob-style matching: `*` is any number of characters, `?` exactly one.

Patterns and texts are untrusted, so the worst case must be cheap. With regular expressions it
isn't: `a?a?a?b` compares up to 255 characters at each position of a text of 62,000. Here a pattern
is split at its `*`, and each part is matched at its leftmost possible position, without
backtracking; that finds a match whenever there is one, as all parts have a fixed length. Parts
without `?` are found by str.find, which is linear. For the others a text is represented as bit
sets: an integer for each character, with a bit set at each of its positions. Shifting and
intersecting them finds all positions of a part at once, with one step for each of its characters
other than `?`.

Matching is case-sensitive: callers lower pattern and text where case doesn't matter.
Spec: appendices#glob-style-matching
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal

_WORD: Final = re.compile(r"\w+", re.ASCII)
"""With ASCII, `\\w` are the word characters of push rules: ASCII letters, digits and `_`."""
_WORD_CHARACTERS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
)
_FREQUENT: Final = 255
"""Distinct characters of a text that get a byte code; all others are rare in it."""
_MAX_MOVES: Final = 64
"""Characters for which `AnyOf` caches the transitions; event types have no more."""


class Text:
    """A text to match patterns against; caches what several of them need."""

    __slots__ = ("_boundaries", "_codes", "_encoded", "_places", "text")

    def __init__(self, text: str) -> None:
        self.text: Final = text
        self._codes: dict[str, int] | None = None
        self._encoded = b""
        self._places: dict[str, int] = {}
        self._boundaries: int | None = None

    def places(self, character: str) -> int:
        """Return the bit set of the character's positions."""
        found = self._places.get(character)
        if found is None:
            code = self._encode().get(character)
            found = self._rare(character) if code is None else self._bits([code])
            self._places[character] = found
        return found

    @property
    def boundaries(self) -> int:
        """The bit set of word boundaries, so that `@room` matches in `hi@room`."""
        if self._boundaries is None:
            codes = self._encode()
            words = self._bits([code for it, code in codes.items() if it in _WORD_CHARACTERS])
            for character in _WORD_CHARACTERS - codes.keys():
                words |= self._rare(character)
            inside = words & words << 1
            self._boundaries = (1 << len(self.text) + 1) - 1 & ~inside
        return self._boundaries

    def _encode(self) -> dict[str, int]:
        """Return {frequent character: byte code}, and set `_encoded` to the reversed text."""
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
    """The part of a pattern between two `*`."""

    __slots__ = ("has_wildcards", "length", "literal", "places")

    def __init__(self, part: str, wildcard: str) -> None:
        self.literal = part
        self.length = len(part)
        self.places = [(at, it) for at, it in enumerate(part) if it != wildcard]
        """(offset, character) of the characters other than `?`."""
        self.has_wildcards = len(self.places) < self.length

    def is_at(self, text: str, start: int) -> bool:
        """Return whether the part matches at this position; the text must be long enough."""
        if not self.has_wildcards:
            return text.startswith(self.literal, start)
        return all(text[start + at] == it for at, it in self.places)

    def find(self, text: Text, start: int, end: int) -> int:
        """Return its leftmost position between `start` and `end`, or -1."""
        if not self.has_wildcards:
            return text.text.find(self.literal, start, end)
        found = self.starts(text) >> start
        place = start + (found & -found).bit_length() - 1
        return place if found and place + self.length <= end else -1

    def starts(self, text: Text) -> int:
        """Return the bit set of all positions where it matches."""
        last = len(text.text) - self.length
        found = (1 << last + 1) - 1 if last >= 0 else 0
        for at, character in self.places:
            if not found:
                break
            found &= text.places(character) >> at
        return found


class Glob:
    """A pattern, split when it is first needed, which most users' keywords never are."""

    def __init__(self, pattern: str, wildcards: Literal["*?", "*", ""] = "*?") -> None:
        """Accept other wildcards than `*?`, as `?` is literal in some parts of Matrix."""
        self.pattern: Final = pattern
        self._wildcards: Final = wildcards
        is_literal = not any(it in pattern for it in wildcards)
        literals = [pattern] if is_literal else re.split(f"[{wildcards}]", pattern)
        self._literal: Final = max(literals, key=len)

    @property
    def cost(self) -> int:
        """The number of its characters other than wildcards: each may scan the whole text."""
        return len(self.pattern) - sum(self.pattern.count(it) for it in self._wildcards)

    def matches(self, text: str | Text) -> bool:
        """Return whether the pattern matches the text as a whole."""
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
        """Return whether the pattern matches some part of the text between word boundaries.

        Spec: client-server-api#conditions-1, on `content.body`
        """
        it = text if isinstance(text, Text) else Text(text)
        if not self.pattern:  # the empty pattern would match every text and mention everybody
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
        """The parts between the `*`, without the empty ones in the middle."""
        wildcard = "?" if "?" in self._wildcards else ""
        parts = self.pattern.split("*") if "*" in self._wildcards else [self.pattern]
        inner = [part for part in parts[1:-1] if part]
        kept = parts if len(parts) == 1 else [parts[0], *inner, parts[-1]]
        return [_Part(part, wildcard) for part in kept]


class AnyOf:
    """Many patterns matched against a short text together; `*` is their only wildcard.

    This simulates one NFA whose states are the bits of an integer: bit i of a pattern is set if the
    text so far matches its first i characters, stars not counted. A character of the text advances
    the bits that it matches; bits followed by a star stay set as well.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns: Final = tuple(patterns)
        self._moves: Final[dict[str, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def matches(self, text: str) -> bool:
        """Return whether any of the patterns matches the text as a whole."""
        begin, stay, end = self._compiled
        found = begin
        for character in text:
            found = found << 1 & self._move(character) | found & stay
            if not found:
                return False
        return bool(found & end)

    def _move(self, character: str) -> int:
        """Return the bits reached by a character."""
        found = self._moves.get(character)
        if found is None:
            found = _with_bits(self._places.get(character, ()), self._size)
            if len(self._moves) < _MAX_MOVES:  # each value is as long as all patterns together
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
        """{character: the bits reached by it}."""
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


class Patterns:
    """Patterns of which a text has to match one, in any case.

    Lists of servers and users have hundreds, most of them without wildcards.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        lowered = {text.lower() for text in patterns}
        wild = {text for text in lowered if has_wildcards(text)}
        self._literal: Final = lowered - wild
        self._with_stars: Final = AnyOf(text for text in wild if "?" not in text)
        self._others: Final = [Glob(text) for text in wild if "?" in text]

    def matches(self, text: str) -> bool:
        """Return whether a text in lower case matches a pattern."""
        if text in self._literal or self._with_stars.matches(text):
            return True
        return any(glob.matches(text) for glob in self._others)


def _with_bits(places: Iterable[int], size: int) -> int:
    digits = bytearray(size // 8 + 1)
    for place in places:
        digits[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(digits, "little")


def _end_of(parts: list[_Part], text: Text, start: int, end: int) -> int | None:
    """Return the end of the leftmost match of these parts in order, or None."""
    for part in parts:
        place = part.find(text, start, end)
        if place < 0:
            return None
        start = place + part.length
    return start


@functools.lru_cache(maxsize=8192)
def compiled(pattern: str) -> Glob:
    """Return the cached `Glob` of a pattern."""
    return Glob(pattern)


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text: its runs of ASCII letters, digits and `_`."""
    return frozenset(_WORD.findall(text))


def is_word(pattern: str) -> bool:
    """Return whether the pattern is a single word, which `words_of` finds without a search."""
    return _WORD.fullmatch(pattern) is not None


def has_wildcards(pattern: str) -> bool:
    """Return whether the pattern may match more than one text."""
    return "*" in pattern or "?" in pattern


def has_words(words: str, text: str | Text) -> bool:
    """Return whether the text contains these words between word boundaries; no wildcards."""
    return _literal_words(words).matches_words_of(text)


@functools.lru_cache(maxsize=1024)
def _literal_words(words: str) -> Glob:
    return Glob(words, "")
