from __future__ import annotations

import json
import math
import re
from typing import Any

import canonicaljson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebody.spec import canonical_json
from tests.spec import pdus

VECTORS = pdus.pairs("canonical_json.md")


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_the_specification_has_ten_examples() -> None:
    assert len(VECTORS) == 10


# The last one writes an integer as 1e10, see the next test
@pytest.mark.parametrize(("text", "canonical"), VECTORS[:-1])
def test_the_examples_of_the_specification_are_encoded_as_it_says(
    text: str, canonical: str
) -> None:
    value = canonical_json.decode(text)

    canonical_json.check(value)

    assert canonical_json.encode(value) == canonical.encode()
    assert canonical_json.encode_historical(value) == canonical.encode()


def test_a_number_written_with_an_exponent_is_refused_rather_than_rewritten() -> None:
    text, canonical = VECTORS[-1]
    value = canonical_json.decode(text)

    with pytest.raises(ValueError, match=r"^b is not an integer$"):
        canonical_json.check(value)

    # What it means is encoded as the specification says
    assert canonical_json.encode({**value, "b": int(value["b"])}) == canonical.encode()


@given(pdus.json_values())
def test_encoding_agrees_with_the_reference_library(value: Any) -> None:
    assert canonical_json.encode(value) == canonicaljson.encode_canonical_json(value)


@given(pdus.json_values(pdus.numbers_of_old_rooms | st.integers(-(2**80), 2**80)))
def test_historical_encoding_agrees_with_it_for_all_numbers(value: Any) -> None:
    expected = canonicaljson.encode_canonical_json(value)

    assert canonical_json.encode_historical(value) == expected


@given(pdus.json_values())
def test_what_was_encoded_is_decoded_to_the_same(value: Any) -> None:
    encoded = canonical_json.encode(value)

    assert canonical_json.decode(encoded) == canonical_json.decode(encoded.decode()) == value


def test_keys_are_sorted_by_code_point_also_beyond_the_bmp() -> None:
    # In UTF-16, where U+1F98A begins with D83E, the fox would come before both of the others
    value = {"\U0001f98a": 1, "\uffee": 2, "\ue000": 3, "z": 4, "Z": 5, "": 6}

    keys = list(canonical_json.decode(canonical_json.encode(value)))

    assert keys == ["", "Z", "z", "\ue000", "\uffee", "\U0001f98a"]


@pytest.mark.parametrize(
    "value", ["\ud800", {"\udfff": 1}, {1: 2}, b"bytes", 2**64, {"a": {1, 2}}, nested(300)]
)
def test_what_json_cannot_say_is_not_encoded(value: Any) -> None:
    with pytest.raises(ValueError, match="Not canonical JSON"):
        canonical_json.encode(value)


@pytest.mark.parametrize("value", ["\ud800", math.nan, math.inf, b"bytes", nested(100_000)])
def test_nor_is_it_in_old_rooms(value: Any) -> None:
    with pytest.raises(ValueError, match=r"JSON|utf-8"):
        canonical_json.encode_historical(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "NaN",
        "[Infinity]",
        "-Infinity",
        "1e999",
        r'"\ud800"',
        r'{"\udfff": 1}',
        '{"a": 1} {}',
        "{'a': 1}",
        "[1,]",
        "01",
        '"\n"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}",
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
    ],
)
def test_what_is_not_json_is_not_decoded(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"line 1|zero-length"):
        canonical_json.decode(text)


def test_of_equal_keys_the_last_counts() -> None:
    assert canonical_json.decode('{"a": 1, "a": 2}') == {"a": 2}


@given(pdus.json_values())
def test_json_with_small_integers_passes_the_check(value: Any) -> None:
    canonical_json.check(value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (1.0, "0 is not an integer"),
        ({"a": {"b": [1, 2, {"c": 0.5}]}}, "a.b.2.c is not an integer"),
        ({"a": 2**53}, "a is beyond ±9007199254740991"),
        ([[], [-(2**53)]], "1.0 is beyond ±9007199254740991"),
        ({"k" * 1000: -0.0}, "k" * 40 + " is not an integer"),
    ],
)
def test_the_check_names_the_place_of_a_bad_number(value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        canonical_json.check(value)


def test_the_largest_integers_pass_and_booleans_are_no_numbers() -> None:
    canonical_json.check({"a": [2**53 - 1, -(2**53) + 1, True, False, None]})


def test_old_rooms_may_have_floats_and_integers_of_64_bits() -> None:
    canonical_json.check({"a": [0.5, 2**63 - 1]}, is_strict=False)

    with pytest.raises(ValueError, match=r"^a\.0 is beyond"):
        canonical_json.check({"a": [2**63]}, is_strict=False)


def test_the_deepest_nesting_that_passes_the_check_can_be_encoded() -> None:
    value = nested(canonical_json.MAX_DEPTH)

    canonical_json.check(value)

    assert canonical_json.encode(value) == json.dumps(value, separators=(",", ":")).encode()


@pytest.mark.parametrize("levels", [canonical_json.MAX_DEPTH + 1, 100_000])
@pytest.mark.parametrize("is_strict", [True, False])
def test_deeper_nesting_is_refused_without_a_crash(levels: int, is_strict: bool) -> None:
    value: Any = {"a": nested(levels - 1)}

    with pytest.raises(ValueError, match="nested deeper than 100 levels"):
        canonical_json.check(value, is_strict=is_strict)


def test_the_depth_of_any_json_can_be_checked_whatever_its_numbers() -> None:
    canonical_json.check_depth({"a": [0.5, 2**80, nested(canonical_json.MAX_DEPTH - 2)]})

    with pytest.raises(ValueError, match=r"^a\.0\.0\..* is nested deeper than 100 levels$"):
        canonical_json.check_depth({"a": nested(canonical_json.MAX_DEPTH)})


BASE64 = re.findall(
    r'UNPADDED_BASE64\("(.*)"\) = "(.*)"', (pdus.VECTORS / "unpadded_base64.md").read_text()
)


def test_the_specification_has_seven_examples_of_base64() -> None:
    assert len(BASE64) == 7


@pytest.mark.parametrize(("text", "encoded"), BASE64)
def test_base64_is_unpadded(text: str, encoded: str) -> None:
    assert canonical_json.encode_base64(text.encode()) == encoded
    assert canonical_json.encode_base64(text.encode(), is_url_safe=True) == encoded
    assert canonical_json.decode_base64(encoded) == text.encode()


@given(st.binary(max_size=100))
def test_base64_is_read_with_and_without_padding(data: bytes) -> None:
    encoded = canonical_json.encode_base64(data)
    padding = "=" * (-len(encoded) % 4)

    assert canonical_json.decode_base64(encoded) == data
    assert canonical_json.decode_base64(encoded + padding) == data


def test_each_alphabet_has_its_own_last_two_characters() -> None:
    assert canonical_json.encode_base64(b"\xfb\xff") == "+/8"
    assert canonical_json.encode_base64(b"\xfb\xff", is_url_safe=True) == "-_8"


@pytest.mark.parametrize("text", ["a", "ab!d", "ab cd", "äbcd", "abcd\n", "-_8", "a=bc"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64|characters|ASCII|padding|data"):
        canonical_json.decode_base64(text)
