from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no types of its own
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebody.spec import push_rulesets
from homebody.spec.events import Json
from homebody.spec.push_rulesets import InvalidRule, NoSuchRule
from tests.spec import pdus

ALICE = "@alice:example.org"
SILENT: Json = {"actions": []}
SCHEMA = jsonschema.Draft202012Validator(
    json.loads((pdus.VECTORS / "push_rules_schema.json").read_text())
)


def ids(changes: Json, kind: str = "override") -> list[str]:
    """Return the ids of the user's own rules in order of priority."""
    rules = push_rulesets.full(ALICE, changes)["global"][kind]
    return [rule["rule_id"] for rule in rules if not rule["default"]]


def with_rules(*rule_ids: str, kind: str = "override") -> Json:
    """Return changes with these rules in this order."""
    changes: Json = {}
    for rule_id in reversed(rule_ids):
        changes = push_rulesets.with_rule(changes, kind, rule_id, SILENT)
    return changes


# What is shown


def test_who_changed_nothing_has_the_predefined_rules() -> None:
    rules = push_rulesets.full(ALICE, {})

    SCHEMA.validate(rules)


def test_the_answer_is_json_of_its_own() -> None:
    rules = push_rulesets.full(ALICE, {})

    for kind in rules["global"].values():
        for rule in kind:
            rule["actions"].append("spoilt")
            rule.get("conditions", []).clear()

    assert push_rulesets.full(ALICE, {})["global"]["override"][1]["conditions"]
    assert "spoilt" not in json.dumps(push_rulesets.full(ALICE, {}))


def test_own_rules_stand_between_the_master_and_the_predefined_ones() -> None:
    rules = push_rulesets.full(ALICE, with_rules("a", "b"))["global"]["override"]

    assert [rule["rule_id"] for rule in rules][:4] == [
        ".m.rule.master",
        "a",
        "b",
        ".m.rule.suppress_notices",
    ]


def test_a_rule_is_shown_with_what_its_kind_has() -> None:
    rule = {"actions": ["notify"], "conditions": [{"kind": "x"}], "pattern": "cake", "more": 1}
    changes: Json = {}
    for kind, rule_id in [("override", "a"), ("content", "b"), ("room", "!r:x.y")]:
        changes = push_rulesets.with_rule(changes, kind, rule_id, rule)

    shown = push_rulesets.full(ALICE, changes)["global"]

    common = {"default": False, "enabled": True, "actions": ["notify"]}
    assert shown["override"][1] == common | {"rule_id": "a", "conditions": [{"kind": "x"}]}
    assert shown["content"][0] == common | {"rule_id": "b", "pattern": "cake"}
    assert shown["room"] == [common | {"rule_id": "!r:x.y"}]


def test_one_rule_is_found_by_kind_and_id() -> None:
    changes = with_rules("a")

    assert push_rulesets.find(ALICE, changes, "override", "a")["default"] is False
    invite = push_rulesets.find(ALICE, {}, "override", ".m.rule.invite_for_me")
    assert invite["conditions"][2]["pattern"] == ALICE
    absent = [("underride", "a"), ("override", "b"), ("content", ".m.rule.master"), ("device", "a")]
    for kind, rule_id in absent:
        with pytest.raises(NoSuchRule):
            push_rulesets.find(ALICE, changes, kind, rule_id)


# Order


def test_a_new_rule_is_the_most_important() -> None:
    assert ids(push_rulesets.with_rule(with_rules("a"), "override", "b", SILENT)) == ["b", "a"]


@pytest.mark.parametrize(
    ("before", "after", "order"),
    [
        ("b", None, ["a", "new", "b", "c"]),
        ("a", None, ["new", "a", "b", "c"]),
        (None, "b", ["a", "b", "new", "c"]),
        (None, "c", ["a", "b", "c", "new"]),
        ("c", "a", ["a", "b", "new", "c"]),
    ],
)
def test_a_rule_takes_the_place_asked_for(
    before: str | None, after: str | None, order: list[str]
) -> None:
    changes = with_rules("a", "b", "c")

    changed = push_rulesets.with_rule(changes, "override", "new", SILENT, before, after)

    assert ids(changed) == order


def test_a_rule_moves_when_it_is_put_again_with_a_place() -> None:
    changes = with_rules("a", "b", "c")

    assert ids(push_rulesets.with_rule(changes, "override", "c", SILENT, before="a")) == [*"cab"]
    assert ids(push_rulesets.with_rule(changes, "override", "a", SILENT, after="b")) == [*"bac"]


def test_a_rule_put_again_stays_in_its_place_and_switched_off() -> None:
    changes = with_rules("a", "b", "c")
    changes = push_rulesets.with_enabled(changes, "override", "b", enabled=False)

    changed = push_rulesets.with_rule(changes, "override", "b", {"actions": ["notify"]})

    assert ids(changed) == [*"abc"]
    rule = push_rulesets.find(ALICE, changed, "override", "b")
    assert (rule["enabled"], rule["actions"]) == (False, ["notify"])


@pytest.mark.parametrize("other", ["b", ".m.rule.master", ".m.rule.tombstone", "new"])
def test_a_place_is_next_to_another_rule_of_ones_own(other: str) -> None:
    changes = push_rulesets.with_rule(with_rules("a"), "underride", "b", SILENT)

    with pytest.raises(InvalidRule):
        push_rulesets.with_rule(changes, "override", "new", SILENT, before=other)
    with pytest.raises(InvalidRule):
        push_rulesets.with_rule(changes, "override", "new", SILENT, after=other)


# Edits


def test_edits_leave_the_changes_before_them_alone() -> None:
    changes = push_rulesets.with_enabled(
        with_rules("a"), "override", ".m.rule.master", enabled=True
    )
    before = copy.deepcopy(changes)

    push_rulesets.with_rule(changes, "override", "a", {"actions": ["notify"]})
    push_rulesets.with_actions(changes, "override", "a", ["notify"])
    push_rulesets.with_actions(changes, "override", ".m.rule.master", ["notify"])
    push_rulesets.without_rule(changes, "override", "a")

    assert changes == before


def test_predefined_rules_can_be_switched_and_told_to_act_otherwise() -> None:
    changes = push_rulesets.with_enabled({}, "override", ".m.rule.master", enabled=True)
    changes = push_rulesets.with_actions(changes, "override", ".m.rule.master", ["notify"])
    changes = push_rulesets.with_actions(changes, "underride", ".m.rule.message", ["dont_notify"])

    master = push_rulesets.find(ALICE, changes, "override", ".m.rule.master")
    message = push_rulesets.find(ALICE, changes, "underride", ".m.rule.message")

    assert (master["enabled"], master["actions"], master["default"]) == (True, ["notify"], True)
    assert (message["enabled"], message["actions"]) == (True, ["dont_notify"])


def test_changes_of_a_rule_that_is_no_longer_predefined_are_ignored() -> None:
    changes = {"predefined": {".m.rule.of_an_older_version": {"enabled": False}}}

    assert push_rulesets.full(ALICE, changes) == push_rulesets.full(ALICE, {})


def test_predefined_ids_are_unique_over_the_kinds() -> None:
    # The changes name them without the kind.
    rules = [
        rule["rule_id"]
        for of_kind in push_rulesets.full(ALICE, {})["global"].values()
        for rule in of_kind
    ]

    assert len(rules) == len(set(rules)) == 25


def test_own_rules_can_be_switched_and_deleted() -> None:
    changes = push_rulesets.with_enabled(with_rules("a", "b"), "override", "b", enabled=False)

    assert push_rulesets.find(ALICE, changes, "override", "b")["enabled"] is False
    assert push_rulesets.find(ALICE, changes, "override", "a")["enabled"] is True
    assert ids(push_rulesets.without_rule(changes, "override", "b")) == ["a"]


def test_what_is_not_there_can_not_be_changed() -> None:
    changes = with_rules("a")

    for kind, rule_id in [("override", "b"), ("underride", "a"), ("underride", ".m.rule.master")]:
        with pytest.raises(NoSuchRule):
            push_rulesets.without_rule(changes, kind, rule_id)
        with pytest.raises(NoSuchRule):
            push_rulesets.with_enabled(changes, kind, rule_id, enabled=True)
        with pytest.raises(NoSuchRule):
            push_rulesets.with_actions(changes, kind, rule_id, [])


def test_predefined_rules_can_not_be_deleted_or_replaced() -> None:
    with pytest.raises(InvalidRule):
        push_rulesets.without_rule({}, "override", ".m.rule.master")
    with pytest.raises(InvalidRule):
        push_rulesets.with_rule({}, "override", ".m.rule.master", SILENT)


@pytest.mark.parametrize(
    ("kind", "rule_id"),
    [
        ("device", "a"),
        ("override", ""),
        ("override", ".mine"),
        ("override", "a/b"),
        ("override", "a\\b"),
        ("override", "é" * 128),
        ("room", "a"),
        ("room", "@bob:example.org"),
        ("sender", "bob"),
        ("sender", "!room:example.org"),
    ],
)
def test_ids_must_fit_their_kind(kind: str, rule_id: str) -> None:
    with pytest.raises(InvalidRule):
        push_rulesets.with_rule({}, kind, rule_id, SILENT)


@pytest.mark.parametrize(
    "actions",
    [None, "notify", {}, [1], ["explode"], [{}], [{"set_tweak": 1}], [None], [["notify"]]],
)
def test_actions_must_be_known(actions: object) -> None:
    with pytest.raises(InvalidRule):
        push_rulesets.with_rule({}, "override", "a", {"actions": actions})
    with pytest.raises(InvalidRule):
        push_rulesets.with_actions(with_rules("a"), "override", "a", actions)
    with pytest.raises(InvalidRule):
        push_rulesets.with_actions({}, "override", ".m.rule.master", actions)


@pytest.mark.parametrize(
    "conditions",
    [
        None,
        {},
        "x",
        [None],
        [{}],
        [{"kind": 1}],
        [{"kind": "event_match", "key": "a"}],
        [{"kind": "event_match", "pattern": "a"}],
        [{"kind": "event_match", "key": "a", "pattern": 1}],
        [{"kind": "event_match", "key": "a", "pattern": "x" * 256}],
        [{"kind": "event_property_is", "key": "a"}],
        [{"kind": "event_property_is", "key": "a", "value": 1.5}],
        [{"kind": "event_property_is", "key": "a", "value": 2**53}],
        [{"kind": "event_property_contains", "key": "a", "value": []}],
        [{"kind": "event_property_contains", "value": "a"}],
        [{"kind": "room_member_count"}],
        [{"kind": "room_member_count", "is": 2}],
        [{"kind": "room_member_count", "is": "=2"}],
        [{"kind": "room_member_count", "is": "two"}],
        [{"kind": "room_member_count", "is": "-1"}],
        [{"kind": "sender_notification_permission"}],
        [{"kind": "x"}] * 21,
        [{"kind": "x", "more": "x" * 9000}],
    ],
)
def test_conditions_must_be_such_as_can_hold(conditions: object) -> None:
    with pytest.raises(InvalidRule):
        push_rulesets.with_rule({}, "override", "a", {"actions": [], "conditions": conditions})


@pytest.mark.parametrize("pattern", [None, 1, "x" * 256])
def test_content_rules_need_a_pattern(pattern: object) -> None:
    with pytest.raises(InvalidRule):
        push_rulesets.with_rule({}, "content", "a", {"actions": [], "pattern": pattern})


@pytest.mark.parametrize("enabled", [None, 1, "true"])
def test_enabled_is_a_boolean(enabled: object) -> None:
    with pytest.raises(InvalidRule):
        push_rulesets.with_enabled({}, "override", ".m.rule.master", enabled)


def test_a_rule_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    with pytest.raises(InvalidRule):
        push_rulesets.with_actions(
            {}, "override", ".m.rule.master", [{"set_tweak": "x", "value": deep}]
        )


# Limits


def test_a_user_has_so_many_rules_and_no_more() -> None:
    own = [{"rule_id": f"!{n}:x.y", "enabled": True, "actions": []} for n in range(1999)]
    changes = push_rulesets.with_rule({"rules": {"room": own}}, "override", "a", SILENT)

    with pytest.raises(InvalidRule):
        push_rulesets.with_rule(changes, "underride", "b", SILENT)
    assert ids(push_rulesets.with_rule(changes, "override", "a", SILENT)) == ["a"]


def test_patterns_that_cost_a_search_are_limited_and_words_are_not() -> None:
    def content(number: int, pattern: str) -> Json:
        return {"rule_id": str(number), "enabled": True, "actions": [], "pattern": pattern}

    words = [content(number, "cake") for number in range(300)]
    searches = [content(number, "cake*") for number in range(300, 500)]
    changes = {"rules": {"content": words + searches}}

    mute = {
        "actions": [],
        "conditions": [{"kind": "event_match", "key": "room_id", "pattern": "!a:b"}],
    }
    push_rulesets.with_rule(changes, "override", "mute", mute)
    for pattern in ("two words", "c?ke"):
        with pytest.raises(InvalidRule):
            push_rulesets.with_rule(changes, "content", "x", {"actions": [], "pattern": pattern})
    mute["conditions"][0]["pattern"] = "!*:b"
    with pytest.raises(InvalidRule):
        push_rulesets.with_rule(changes, "override", "mute", mute)


def with_conditions(changes: Json, rules: int, each: int, size: int = 0) -> Json:
    for number in range(rules):
        one = {"kind": "event_match", "key": "type", "pattern": "x"}
        rule = {"actions": [{"set_tweak": "y" * size}], "conditions": [one] * each}
        changes = push_rulesets.with_rule(changes, "override", str(number), rule)
    return changes


def test_the_conditions_of_all_rules_together_are_limited() -> None:
    changes = with_conditions({}, rules=push_rulesets.MAX_ALL_CONDITIONS // 20, each=20)
    one = [{"kind": "room_member_count", "is": "2"}]

    more: list[tuple[str, Json]] = [
        ("underride", {"actions": [], "conditions": one}),
        ("content", {"actions": [], "pattern": "cake"}),
    ]
    for kind, rule in more:
        with pytest.raises(InvalidRule):
            push_rulesets.with_rule(changes, kind, "x", rule)
    assert push_rulesets.with_rule(changes, "override", "x", SILENT)


def test_the_bytes_of_all_rules_together_are_limited() -> None:
    changes = with_conditions({}, rules=65, each=1, size=7900)
    loud = [{"set_tweak": "y" * 8000}]

    with pytest.raises(InvalidRule):
        push_rulesets.with_rule(changes, "override", "x", {"actions": loud})
    with pytest.raises(InvalidRule):
        push_rulesets.with_actions(changes, "override", ".m.rule.master", loud)
    assert push_rulesets.with_rule(changes, "override", "0", SILENT)


# Properties


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from([None, "a", "b", "c"])),
        max_size=8,
    ),
    pdus.json_values(),
)
def test_whatever_is_accepted_is_shown_as_the_spec_describes(
    edits: list[tuple[str, str | None]], more: object
) -> None:
    changes: Json = {}
    expected: list[str] = []
    for rule_id, before in edits:
        rule = {"actions": ["notify"], "conditions": [{"kind": "org.example.x", "more": more}]}
        if before is not None and (before == rule_id or before not in expected):
            continue
        changes = push_rulesets.with_rule(changes, "underride", rule_id, rule, before=before)
        if before is not None:
            expected = [it for it in expected if it != rule_id]
            expected.insert(expected.index(before), rule_id)
        elif rule_id not in expected:
            expected.insert(0, rule_id)

    assert ids(changes, "underride") == expected
    SCHEMA.validate(push_rulesets.full(ALICE, changes))
    assert json.loads(json.dumps(changes)) == changes


@given(pdus.json_values(), pdus.json_values(), pdus.json_values())
def test_whatever_a_client_sends_is_kept_or_refused(
    actions: object, conditions: object, pattern: object
) -> None:
    rule = {"actions": actions, "conditions": conditions, "pattern": pattern}
    changes: Json = {}
    for kind in ("override", "content"):
        try:
            changes = push_rulesets.with_rule(changes, kind, "a", rule)
        except InvalidRule:
            assert ids(changes, kind) == []
    SCHEMA.validate(push_rulesets.full(ALICE, changes))
