"""The users by whom a user may be invited."""

from __future__ import annotations

import time
from typing import Any

import pytest

from homebody.spec.invite_filter import ALL_ALLOWED, MAX_WILDCARDS, InviteFilter

BOB = "@bob:b.test"
MATCHING = {"users": BOB, "servers": "b.test"}
ORDER = [f"{it}_{what}" for what in MATCHING for it in ("allowed", "ignored", "blocked")]


def decide(inviter: str = BOB, **content: Any) -> str:
    return InviteFilter(content).decide(inviter)


def test_all_invites_are_allowed_at_first() -> None:
    assert decide() == ALL_ALLOWED.decide(BOB) == "allow"
    assert not ALL_ALLOWED


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_lists_are_evaluated_in_order(first: int) -> None:
    lists = {name: [MATCHING[name.partition("_")[2]]] for name in ORDER[first:]}

    decision = InviteFilter(lists).decide(BOB)

    assert decision == {"a": "allow", "i": "ignore", "b": "block"}[ORDER[first][0]]


def test_a_user_is_matched_as_a_whole_and_a_server_without_its_port() -> None:
    assert decide(blocked_users=["bob", "b.test", "@bob:b.tes"]) == "allow"
    assert decide(blocked_servers=[BOB, "b.tes", "b.test:8448"]) == "allow"
    assert decide("@bob:b.test:8448", blocked_servers=["b.test"]) == "block"
    assert decide("@bob:[::1]:8448", blocked_servers=["[::1]"]) == "block"


def test_case_does_not_matter() -> None:
    assert decide("@BOB:B.test", blocked_users=[BOB]) == "block"
    assert decide("@bob:B.TEST", blocked_servers=["b.Test"]) == "block"


@pytest.mark.parametrize("pattern", ["*", "b.*", "?.test", "*?test", "b.test"])
def test_lists_have_globs(pattern: str) -> None:
    assert decide(ignored_servers=[pattern]) == "ignore"
    assert decide("@bob:c.org", ignored_servers=[pattern]) == (
        "ignore" if pattern == "*" else "allow"
    )


def test_a_filter_can_be_switched_off() -> None:
    assert decide(enabled=False, blocked_servers=["*"]) == "allow"
    assert decide(enabled=True, blocked_servers=["*"]) == "block"


@pytest.mark.parametrize("value", [None, "*", {"*": {}}, ["*", 1], 1], ids=repr)
def test_a_list_of_anything_but_strings_makes_all_of_it_invalid(value: object) -> None:
    assert decide(blocked_servers=["*"], allowed_users=value) == "allow"
    assert decide(blocked_servers=["*"], something_else=value) == "block"


def test_a_filter_that_takes_long_is_invalid() -> None:
    slow = [f"*{number}*?a*?b*" for number in range(MAX_WILDCARDS)]
    inviter = f"@{'ab' * 100}:b.test"
    prepared = InviteFilter({"blocked_users": slow, "blocked_servers": ["b.test"]})

    began = time.thread_time()
    decision = prepared.decide(inviter)

    assert time.thread_time() - began < 0.5
    assert decision == "block"
    assert decide(inviter, blocked_users=[*slow, "*"]) == "allow"
