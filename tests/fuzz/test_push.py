"""Push rules of any kind, evaluated for any event: never a fault, never slow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from homebody.spec import canonical_json, globs, push_conditions, push_rules, push_rulesets
from homebody.spec.events import Json
from homebody.spec.push_conditions import EventView, Recipient
from homebody.spec.push_rulesets import InvalidRule, NoSuchRule
from homebody.spec.room_state import PowerLevels
from homebody.spec.room_versions import V11
from tests.fuzz import examples
from tests.fuzz.test_canonical_json import decoded_values
from tests.spec import dag
from tests.spec.push_reference import evaluate_one

MEMBERS = [Recipient(dag.BOB, "Bob B."), Recipient(dag.CAROL), Recipient(dag.DAVE, "*")]
LONGEST_BODY = "c b" + "a" * 60_000  # with all letters of the patterns, or they are not tried
SLOWEST_SECONDS = 1
"""For the 200 slowest patterns of a user. They take 0.1 s; tried at each place, they took 20 s."""

patterns = (
    st.text("ab*?", max_size=12)
    | st.text(max_size=5)
    | st.sampled_from(
        ["", "*", "**", "@room", "*a" * 100, "a?" * 100, "İ", "\u017f", "\ud800", "[a-z]"]
    )
)
keys = st.sampled_from(
    [
        *("content.body", "type", "room_id", "sender", "content", "content.m\\.mentions.user_ids"),
        *("", ".", "\\", "content.", "content.n", "state_key", "origin_server_ts", "unsigned.a"),
    ]
)
values = decoded_values | st.sampled_from([math.nan, 2**63, "\ud800", [], {}, [[]]])
kinds = st.sampled_from([*push_conditions._KINDS, "unknown", ""])  # noqa: SLF001 - all there are
conditions = st.fixed_dictionaries(
    {"kind": kinds | values},
    optional={
        "key": keys | values,
        "pattern": patterns | values,
        "value": st.sampled_from(["a", 7, True, None]) | values,
        "is": st.sampled_from(["2", "==2", "<2", ">=10", "٢", "2 ", "= 2", "9" * 15]) | values,
    },
)
actions = st.lists(
    st.sampled_from(["notify", "dont_notify", "coalesce", {"set_tweak": "highlight"}])
    | st.fixed_dictionaries(
        {"set_tweak": st.sampled_from(["sound", "highlight"])}, optional={"value": values}
    )
    | values,
    max_size=3,
)
rules = st.fixed_dictionaries(
    {},
    optional={
        "actions": actions | values,
        "pattern": patterns | values,
        "conditions": st.lists(conditions | values, max_size=3) | values,
    },
)
rule_kinds = st.sampled_from(["override", "content", "room", "sender", "underride", "nonsense"])
rule_ids = st.sampled_from(
    ["mine", "other", "", ".m.rule.master", ".m.rule.suppress_notices", "a/b", dag.BOB, "!r:b"]
)
contents = st.fixed_dictionaries(
    {},
    optional={
        "body": patterns | values,
        "n": st.sampled_from([7, True, None, 7.0, [7, [7]]]) | values,
        "m.mentions": st.fixed_dictionaries({}, optional={"user_ids": values, "room": values}),
        "membership": values,
    },
)
NO_LEVELS = PowerLevels({}, frozenset(), 0)


def view_of(content: Json, event_type: str = "m.room.message") -> EventView:
    return EventView(dag.event(V11, event_type, dag.ALICE, content), 3, NO_LEVELS)


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, tuple[Any, ...]]:
    kind, rule_id = draw(rule_kinds), draw(rule_ids)
    name = draw(st.sampled_from(["with_rule", "with_rule", "with_rule", "without_rule"]))
    if name == "without_rule":
        return name, (kind, rule_id)
    if draw(st.integers(0, 3)) == 0:
        return "with_enabled", (kind, rule_id, draw(st.booleans() | values))
    if draw(st.integers(0, 3)) == 0:
        return "with_actions", (kind, rule_id, draw(actions | values))
    place = st.none() | rule_ids
    return name, (kind, rule_id, draw(rules), draw(place), draw(place))


def edited(steps: list[tuple[str, tuple[Any, ...]]]) -> Json:
    """What a user has changed, after all edits that were allowed."""
    changes: Json = {}
    for name, arguments in steps:
        before = repr(changes)
        try:
            changes, old = getattr(push_rulesets, name)(changes, *arguments), changes
        except (InvalidRule, NoSuchRule):
            continue
        assert repr(old) == before  # given ones are left alone
    return changes


@examples(120)
@given(st.lists(edits(), max_size=6), contents)
@example([("with_rule", ("content", "mine", {"actions": [], "pattern": "\ud800"}))], {"body": "a"})
@example([("with_actions", ("override", ".m.rule.master", [{"set_tweak": "sound"}]))], {})
def test_any_edits_leave_rules_that_can_be_shown_and_evaluated(
    steps: list[tuple[str, tuple[Any, ...]]], content: Json
) -> None:
    changes = edited(steps)

    shown = push_rulesets.full(dag.BOB, changes)["global"]
    ruleset = push_rules.compiled(changes)
    outcomes = push_rules.evaluate(view_of(content), MEMBERS, lambda _: ruleset)

    for kind, rules_shown in shown.items():
        ids = [rule["rule_id"] for rule in rules_shown]
        assert len(set(ids)) == len(ids)
        for rule in rules_shown:
            assert push_rulesets.find(dag.BOB, changes, kind, rule["rule_id"]) == rule
            assert type(rule["enabled"]) is bool
    one_by_one = {
        member.user_id: evaluate_one(view_of(content), member, ruleset) for member in MEMBERS
    }
    assert outcomes == {user_id: it for user_id, it in one_by_one.items() if it.notify}


@examples(150)
@given(conditions, contents, st.sampled_from(["m.room.message", "", "m.room.member"]))
def test_any_condition_is_refused_or_holds_or_not(
    condition: Json, content: Json, event_type: str
) -> None:
    rule = {"actions": ["notify"], "conditions": [condition]}
    try:
        push_rulesets.with_rule({}, "override", "mine", rule)
    except InvalidRule:
        return

    compiled = push_conditions.compiled(condition)

    view = view_of(content, event_type)
    holds = [view.holds(compiled.of_event), view.holds(compiled.of_event)]
    if compiled.of_member is not None:
        holds += [compiled.of_member(view, member) for member in MEMBERS]
    assert {type(answer) for answer in holds} == {bool}


@examples(100)
@given(contents, values)
def test_default_rules_take_any_event(content: Json, mentions: Any) -> None:
    for mentioned in (content, content | {"m.mentions": mentions}):
        event_types = ["m.room.message", "m.room.encrypted", "m.room.member", "m.room.tombstone"]
        for event_type in [*event_types, "m.reaction", "m.room.server_acl"]:
            push_rules.evaluate(
                view_of(mentioned, event_type), MEMBERS, lambda _: push_rules.DEFAULTS
            )


def fits(pattern: str, text: str) -> bool:
    """Whether a glob matches all of a text."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(fits(pattern[1:], text[at:]) for at in range(len(text) + 1))
    return bool(text) and pattern[0] in {"?", text[0]} and fits(pattern[1:], text[1:])


@examples(150)
@given(st.text("ab*?\n", max_size=7), st.text("ab\n", max_size=9))
@example("?*?*?", "ab")
@example("*ab*ab", "abab")
def test_globs_match_what_they_say(pattern: str, text: str) -> None:
    assert globs.Glob(pattern).matches(text) == fits(pattern, text)


WORST_PATTERNS = [
    *("*a" * 127 + "b", "a*" * 127 + "b", "?*" * 127 + "b", "*" * 254 + "b", "a?" * 127 + "b"),
    *("?" * 254 + "b", "*?a" * 80 + "b", "a b*" * 60 + "c", "* *" * 80 + "b"),
]


@pytest.mark.parametrize("pattern", WORST_PATTERNS, ids=lambda pattern: pattern[:6])
@pytest.mark.parametrize("body", ["c b" + "a" * 60_000, "c b " + "a " * 30_000, "ba" * 30_000])
def test_no_pattern_takes_long_in_any_body(pattern: str, body: str) -> None:
    glob = globs.Glob(pattern)

    started = time.thread_time()
    glob.matches(body)
    glob.matches_words_of(body)

    assert time.thread_time() - started < 0.5


WORST_KEYWORDS: dict[str, Callable[[int], str]] = {
    "parts": lambda number: "*a?" * 40 + "b" + "?" * (number % 99),
    "wildcards": lambda number: "a?" * 100 + "?" * (number % 14) + "?b" * (number // 14),
    "words": lambda number: "a " * 100 + "b" + "?" * number,
}


@pytest.mark.parametrize("kind", WORST_KEYWORDS)
@pytest.mark.parametrize("body", [LONGEST_BODY, "a " * 31_000 + "b", "é " * 15_000 + "ab"])
def test_the_most_patterns_that_a_user_may_have_do_not_take_long_together(
    kind: str, body: str
) -> None:
    changes: Json = {}
    for number in range(push_rulesets.MAX_SEARCHES):
        rule = {"actions": ["notify"], "pattern": WORST_KEYWORDS[kind](number)[:255]}
        changes = push_rulesets.with_rule(changes, "content", f"rule{number}", rule)
    ruleset = push_rules.compiled(changes)

    started = time.thread_time()
    push_rules.evaluate(view_of({"body": body}), MEMBERS, lambda _: ruleset)

    assert time.thread_time() - started < SLOWEST_SECONDS


def greedy(number: int) -> Json:
    """As many patterns as a user may have, each as slow as it can be."""
    own = "c" + "?" * number + "d"  # equal patterns of several users are looked for once
    patterns = [
        WORST_KEYWORDS["wildcards"](at)[: 255 - len(own)] + own
        for at in range(push_rulesets.MAX_SEARCHES)
    ]
    rules = [
        {"rule_id": str(at), "enabled": True, "actions": [], "pattern": pattern}
        for at, pattern in enumerate(patterns)
    ]
    return {"rules": {"content": rules}}


def test_many_users_with_slow_rules_delay_nobody_and_cost_others_no_notification() -> None:
    keyword = {"pattern": "ca*e", "actions": ["notify", {"set_tweak": "highlight"}]}
    modest = push_rules.compiled(push_rulesets.with_rule({}, "content", "cake", keyword))
    rulesets = {f"@greedy{n}:x.y": push_rules.compiled(greedy(n)) for n in range(20)}
    rulesets["@modest:x.y"] = modest
    members = [Recipient(user_id) for user_id in rulesets]
    body = "a " * 30_000 + "b cake c" + "d" * 30

    started = time.thread_time()
    outcomes = push_rules.evaluate(view_of({"body": body}), members, rulesets.__getitem__)

    assert time.thread_time() - started < SLOWEST_SECONDS
    assert outcomes["@modest:x.y"].highlight
    assert set(outcomes) == set(rulesets)


@examples(60)
@given(st.text(max_size=30), st.text(max_size=30))
def test_a_name_is_found_in_what_contains_it_as_a_word(name: str, around: str) -> None:
    assert globs.has_words(name.lower(), f"{around} {name} {around}".lower()) or not name

    member = Recipient(dag.BOB, name)
    canonical_json.encode({"name": name})
    condition = push_conditions.compiled({"kind": "contains_display_name"})
    assert condition.of_member is not None
    assert condition.of_member(view_of({"body": f"{around} {name} {around}"}), member) == (
        name.lower() != ""
    )
