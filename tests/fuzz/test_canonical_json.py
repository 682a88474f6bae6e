"""Canonical JSON: what comes from strangers is read, judged and written without surprises."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import canonicaljson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from homebody.spec import canonical_json
from tests.fuzz import examples

edges = st.sampled_from([2**31, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64])
integers = st.integers() | st.builds(
    lambda edge, sign: edge * sign, edges, st.sampled_from([1, -1])
)
texts = st.text(max_size=8) | st.sampled_from(["", "\0", "\x7f", "\u2028", "\U0010ffff", '"', "\\"])
broken_texts = st.text(st.characters(min_codepoint=0xD7FF, max_codepoint=0xE000), max_size=3)
others = st.sampled_from([b"bytes", {1}, 1j, object, math.nan, math.inf])

decoded_values = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
"""What a lenient parser could hand over."""
all_values = st.recursive(
    decoded_values | broken_texts | others,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts | broken_texts | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=10,
)
"""And what no parser would."""

json_alphabet = st.sampled_from(
    [
        *(
            *'{}[]:, \n"',
            '"a":',
            "null",
            "true",
            "-",
            "0",
            "1",
            "9" * 30,
            ".5",
            "e5",
            "1e999",
            "NaN",
        ),
        *("\\u0000", "\\ud800", "\\udc00", "\\", "\ufeff", "\x00", "ä", "\U0001f98a"),
    ]
)
near_json = st.lists(json_alphabet, max_size=12).map("".join) | decoded_values.map(json.dumps)


def passes(value: Any, *, is_strict: bool = True) -> bool:
    try:
        canonical_json.check(value, is_strict=is_strict)
    except ValueError:
        return False
    return True


def numbers_in(value: Any) -> list[int | float]:
    if isinstance(value, dict | list):
        members = value.values() if isinstance(value, dict) else value
        return [number for member in members for number in numbers_in(member)]
    return [value] if type(value) in {int, float} else []


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: to Python, 1, 1.0 and True are equal."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)


@examples(80)
@given(decoded_values)
@example({"a": [2**53 - 1, 1 - 2**53]})
@example([2**53])
@example([-(2**53)])
@example([1.0])
@example([-0.0])
@example({"a": [True, False]})
def test_the_check_finds_the_numbers_that_an_event_may_not_have_and_no_others(value: Any) -> None:
    numbers = numbers_in(value)

    is_fine = all(type(it) is int and abs(it) < 2**53 for it in numbers)
    is_fine_of_old = all(type(it) is float or abs(it) < 2**63 for it in numbers)

    assert passes(value) == is_fine
    assert passes(value, is_strict=False) == is_fine_of_old


@examples(80)
@given(decoded_values)
def test_what_passes_is_written_as_others_write_it_and_read_back_as_it_was(value: Any) -> None:
    if not passes(value):
        value = json.loads(json.dumps(value), parse_int=lambda _: 7, parse_float=lambda _: 8)

    encoded = canonical_json.encode(value)

    assert encoded == canonicaljson.encode_canonical_json(value)
    assert is_same(canonical_json.decode(encoded), value)
    assert canonical_json.encode(canonical_json.decode(encoded)) == encoded


@examples(50)
@given(decoded_values)
@example([1e-7, 1e16, 1e22, 5e-324, -0.0, 0.1])
def test_old_rooms_are_hashed_as_others_hash_them(value: Any) -> None:
    encoded = canonical_json.encode_historical(value)

    assert encoded == canonicaljson.encode_canonical_json(value)


@examples(80)
@given(all_values)
@example({1: "a", "b": 2})
@example({"\ud800": 1})
@example([math.nan])
def test_whatever_is_to_be_written_there_are_bytes_or_a_value_error(value: Any) -> None:
    for encode in (canonical_json.encode, canonical_json.encode_historical):
        try:
            encoded = encode(value)
        except ValueError:
            continue
        encoded.decode()  # strict UTF-8


@examples(100)
@given(near_json)
@example('{"a":1,"a":[]}')
@example('"\\ud800"')
@example('"\\ud83e\\udd8a"')
@example("[1e999]")
@example("\ufeff{}")
@example('"\x00"')
@example("-0")
@example("1" * 5000)
@example("[" * 5000)
@example('{"a":' * 2000 + "1" + "}" * 2000)
def test_a_text_is_read_as_pythons_parser_reads_it_or_refused(text: str) -> None:
    try:
        value = canonical_json.decode(text)
    except ValueError:
        with pytest.raises((ValueError, RecursionError)):
            refused_like_us(text)
        return

    expected = json.loads(text, parse_int=as_number)
    assert is_same(value, expected)


def as_number(text: str) -> int | float:
    """What an integer becomes: beyond 64 bits a float."""
    number = int(text)
    return number if -(2**63) <= number < 2**64 else float(text)


def refused_like_us(text: str) -> None:
    """Raise for what is no JSON, and for what JSON can say and canonical JSON can't."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    value = json.loads(text, parse_constant=refuse)
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    if any(abs(number) == math.inf for number in map(float, numbers_in(value))):
        raise ValueError("beyond what a double holds")


@examples(80)
@given(st.binary(max_size=40))
@example(b'"\xed\xa0\x80"')
@example(b'"\xc0\x80"')
@example(b"\xff\xfe{\x00}\x00")
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        value = canonical_json.decode(data)
    except ValueError:
        return

    assert is_same(value, json.loads(data.decode(), parse_int=as_number))


@examples(20)
@given(st.lists(st.sampled_from("[{"), min_size=1, max_size=3), st.integers(1, 400))
@example(["["], 100)
@example(["["], 101)
@example(["[", "{"], 254)
def test_only_what_can_be_written_passes_however_deep_it_is(kinds: list[str], levels: int) -> None:
    value: Any = 1
    for number in range(levels):
        value = [value] if kinds[number % len(kinds)] == "[" else {"a": value}

    assert passes(value) == (levels <= canonical_json.MAX_DEPTH)

    if passes(value):
        assert is_same(canonical_json.decode(canonical_json.encode(value)), value)


@examples(80)
@given(st.text(max_size=12) | st.text("+/-_=aZ09 \n", max_size=12))
@example("====")
@example("A")
@example("AA==")
@example("AB")
def test_base64_is_read_or_refused(text: str) -> None:
    try:
        data = canonical_json.decode_base64(text)
    except ValueError:
        return
    encoded = canonical_json.encode_base64(data)
    # the same but for the last bits, which others leave unread as well
    assert encoded[:-1] == text.rstrip("=")[:-1]
    assert canonical_json.decode_base64(encoded) == data
    padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
    assert base64.b64decode(padded) == data
