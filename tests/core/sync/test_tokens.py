"""Tokens that clients carry around."""

from __future__ import annotations

import pytest

from homebody.core.sync.spans import SyncToken
from homebody.errors import MatrixError


@pytest.mark.parametrize("text", ["s0", "s1234", "s1234_567", "s1_2q", "s999999999999999999_0"])
def test_a_token_reads_as_it_was_written(text: str) -> None:
    assert str(SyncToken.parse(text, None)) == text


def test_the_parts_of_a_token_are_positions_on_the_clock_and_in_memory() -> None:
    assert SyncToken.parse("s12_34", 12) == SyncToken(12, 34)
    assert SyncToken.parse("s12", 12) == SyncToken(12, None)
    assert SyncToken.parse("s12_34q", 12) == SyncToken(12, 34, is_quiet=True)


@pytest.mark.parametrize(
    "text",
    [
        *("", "s", "12", "s-1", "s+1", "s1_", "s_1", "s1_2_3", " s1", "s1\n", "s1.0", "s1e3", "S1"),
        *(
            "s१२",
            "t12-34",
            "START",
            "s" + "9" * 10**6,
            "s1_" + "9" * 10**6,
            "s1\0",
            "\ud800",
            "s1q",
        ),
    ],
    ids=lambda text: ascii(text[:10]),
)
def test_what_this_server_cannot_have_given_out_is_an_invalid_parameter(text: str) -> None:
    with pytest.raises(MatrixError) as refusal:
        SyncToken.parse(text, 1000)

    assert (refusal.value.status, refusal.value.errcode) == (400, "M_INVALID_PARAM")


def test_a_token_from_the_future_is_an_invalid_parameter() -> None:
    with pytest.raises(MatrixError, match="future"):
        SyncToken.parse("s1001", 1000)
