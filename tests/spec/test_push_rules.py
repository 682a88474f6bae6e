from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebody.spec import push_rules, push_rulesets, room_versions
from homebody.spec.events import Event, Json
from homebody.spec.predefined_push_rules import LEGACY
from homebody.spec.push_conditions import EventView, Recipient
from homebody.spec.push_rules import DEFAULTS, Outcome
from homebody.spec.room_state import PowerLevels
from tests.spec import pdus
from tests.spec.push_reference import NOTHING, evaluate_one

ALICE = "@alice:example.org"
BOB = "@bob:example.org"
ROOM = "!room:example.org"
SOUND = {"set_tweak": "sound", "value": "default"}
HIGHLIGHT = {"set_tweak": "highlight"}


def view(
    type_: str = "m.room.message",
    content: Json | None = None,
    state_key: str | None = None,
    members: int = 10,
    levels: PowerLevels | None = None,
    **top: Any,
) -> EventView:
    """Return an event sent by Bob."""
    pdu = {
        "type": type_,
        "sender": BOB,
        "room_id": ROOM,
        "content": {} if content is None else content,
        "depth": 5,
        "origin_server_ts": 1,
        "auth_events": [],
        "prev_events": [],
    }
    if state_key is not None:
        pdu["state_key"] = state_key
    event = Event("$event", pdu | top, room_versions.VERSIONS["11"])
    return EventView(event, members, levels or PowerLevels({}, frozenset(), 100))


def text(body: object, **more: Any) -> EventView:
    return view(content={"msgtype": "m.text", "body": body, **more})


def outcome(
    event: EventView, changes: Json | None = None, display_name: str | None = "Alice"
) -> Outcome:
    """Return the outcome for Alice, which must be the same by both functions."""
    ruleset = push_rules.compiled(changes or {})
    member = Recipient(ALICE, display_name)
    one = evaluate_one(event, member, ruleset)
    together = push_rules.evaluate(event, [member], lambda _: ruleset)
    assert together == ({ALICE: one} if one.notify else {})
    return one


def holds(condition: Json, event: EventView, display_name: str | None = "Alice") -> bool:
    """Return whether a rule with only this condition matches."""
    rule = {"conditions": [condition], "actions": ["notify", {"set_tweak": "sound", "value": "x"}]}
    changes = push_rulesets.with_rule({}, "override", "it", rule)
    return outcome(event, changes, display_name).sound == "x"


def match(key: str, pattern: str) -> Json:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def without(*rule_ids: str) -> Json:
    """Return changes that disable predefined rules."""
    changes: Json = {}
    for rule_id in rule_ids:
        kind = "underride" if "message" in rule_id else "override"
        changes = push_rulesets.with_enabled(changes, kind, rule_id, enabled=False)
    return changes


# The predefined rules


def test_the_predefined_rules_are_those_of_the_spec() -> None:
    published = json.loads((pdus.VECTORS / "predefined_push_rules.json").read_text())
    text_ = json.dumps(published).replace("[the user's Matrix ID]", ALICE)

    rules = push_rulesets.full(ALICE, {})["global"]
    of_the_spec = {
        kind: [
            rule
            for rule in of_kind
            if rule["rule_id"] not in LEGACY and rule["rule_id"].startswith(".m.rule.")
        ]
        for kind, of_kind in rules.items()
        if kind != "postcontent"
    }

    assert of_the_spec == {"content": [], "room": [], "sender": [], **json.loads(text_)}


def test_the_legacy_rules_stand_behind_those_that_replace_them() -> None:
    rules = push_rulesets.full(ALICE, {})["global"]

    override = [rule["rule_id"] for rule in rules["override"]]
    assert override[4:8] == [
        ".m.rule.is_user_mention",
        ".m.rule.contains_display_name",
        ".m.rule.is_room_mention",
        ".m.rule.roomnotif",
    ]
    assert rules["content"] == [
        {
            "rule_id": ".m.rule.contains_user_name",
            "default": True,
            "enabled": True,
            "pattern": "alice",
            "actions": ["notify", SOUND, HIGHLIGHT],
        }
    ]


@pytest.mark.parametrize(
    ("body", "name", "is_mention"),
    [
        ("alice: hello", None, True),
        ("hello Alice!", None, True),
        ("malice", None, False),
        ("Ms. A, hello", "Ms. A", True),
        ("Ms. And", "Ms. A", False),
        ("Привет, Алиса!", "Алиса", True),
        ("", "", False),
    ],
)
def test_a_text_without_mentions_mentions_by_name(
    body: str, name: str | None, is_mention: bool
) -> None:
    assert outcome(text(body), display_name=name).highlight == is_mention
    assert not outcome(text(body, **{"m.mentions": {}}), display_name=name).highlight


def test_a_text_without_mentions_mentions_the_room_with_the_power_to_do_so() -> None:
    nobody = PowerLevels({"notifications": {"room": 50}}, frozenset(), 100)
    bob = PowerLevels({"users": {BOB: 50}}, frozenset(), 100)

    def mentions(body: str, levels: PowerLevels, **content: Any) -> bool:
        return outcome(view(content={"body": body, **content}, levels=levels)).highlight

    assert mentions("hi@room", bob)
    assert not mentions("rooms", bob)
    assert not mentions("@rooms", bob)
    assert not mentions("@room", nobody)
    assert not mentions("@room", bob, **{"m.mentions": {}})


def test_the_master_rule_silences_everything_once_enabled() -> None:
    changes = push_rulesets.with_rule({}, "override", "loud", {"actions": ["notify"]})
    muted = push_rulesets.with_enabled(changes, "override", ".m.rule.master", enabled=True)

    assert outcome(text("hi"), changes).notify
    assert outcome(text("hi"), muted) == NOTHING


def test_notices_are_silent() -> None:
    assert not outcome(view(content={"msgtype": "m.notice", "body": "hi"})).notify
    assert outcome(view(content={"msgtype": "m.notices", "body": "hi"})).notify


def test_an_invite_notifies_only_whom_it_invites() -> None:
    mine = view("m.room.member", {"membership": "invite"}, state_key=ALICE)
    of_another = view("m.room.member", {"membership": "invite"}, state_key="@carol:example.org")

    assert outcome(mine) == Outcome(
        notify=True, highlight=False, sound="default", actions=["notify", SOUND]
    )
    assert outcome(of_another) == NOTHING


def test_other_changes_of_members_are_silent_even_if_they_mention() -> None:
    content = {"membership": "join", "m.mentions": {"user_ids": [ALICE]}}

    assert outcome(view("m.room.member", content, state_key=ALICE)) == NOTHING
    assert outcome(view("m.room.topic", content, state_key="")).notify


def test_a_mention_highlights_for_the_mentioned_only() -> None:
    mentioning = text("hi", **{"m.mentions": {"user_ids": ["@carol:example.org", ALICE]}})
    of_another = text("hi", **{"m.mentions": {"user_ids": ["@carol:example.org"]}})

    assert outcome(mentioning) == Outcome(
        notify=True, highlight=True, sound="default", actions=["notify", SOUND, HIGHLIGHT]
    )
    assert outcome(of_another) == Outcome(
        notify=True, highlight=False, sound=None, actions=["notify"]
    )


def test_a_mention_of_the_room_needs_the_power_to_do_so() -> None:
    mention = {"m.mentions": {"room": True}}
    strong = PowerLevels({"users": {BOB: 50}}, frozenset(), 100)
    cheap = PowerLevels({"notifications": {"room": 0}}, frozenset(), 100)

    assert outcome(view(content=mention, levels=strong)).highlight
    assert outcome(view(content=mention, levels=cheap)).highlight
    assert not outcome(view(content=mention)).highlight
    assert not outcome(view(content={"m.mentions": {"room": 1}}, levels=strong)).highlight


def test_creators_of_version_12_rooms_have_the_power_to_mention_the_room() -> None:
    levels = PowerLevels({"notifications": {"room": 1000}}, frozenset({BOB}), math.inf)

    assert outcome(view(content={"m.mentions": {"room": True}}, levels=levels)).highlight


def test_a_tombstone_highlights_only_as_the_rooms_state() -> None:
    assert outcome(view("m.room.tombstone", state_key="")).highlight
    assert not outcome(view("m.room.tombstone", state_key="x")).notify
    assert not outcome(view("m.room.tombstone")).notify


@pytest.mark.parametrize(
    ("rule_id", "silenced", "spared"),
    [
        (".m.rule.reaction", view("m.reaction"), view("m.reactions")),
        (
            ".m.rule.room.server_acl",
            view("m.room.server_acl", state_key=""),
            view("m.room.server_acl", state_key="x"),
        ),
        (
            ".m.rule.suppress_edits",
            text("* hi", **{"m.relates_to": {"rel_type": "m.replace"}}),
            text("* hi", **{"m.relates_to": {"rel_type": "m.thread"}}),
        ),
    ],
)
def test_what_is_no_news_is_silent(rule_id: str, silenced: EventView, spared: EventView) -> None:
    loud = push_rulesets.with_rule({}, "underride", "all", {"actions": ["notify"]})
    freed = push_rulesets.with_enabled(loud, "override", rule_id, enabled=False)

    assert not outcome(silenced, loud).notify
    assert outcome(silenced, freed).notify
    assert outcome(spared, loud).notify


def test_a_call_rings() -> None:
    assert outcome(view("m.call.invite")).sound == "ring"
    assert outcome(view("m.call.answer")) == NOTHING


@pytest.mark.parametrize("event_type", ["m.room.message", "m.room.encrypted"])
def test_messages_have_a_sound_between_two_and_none_among_more(event_type: str) -> None:
    assert outcome(view(event_type, members=2)) == Outcome(
        notify=True, highlight=False, sound="default", actions=["notify", SOUND]
    )
    for members in (1, 3):
        assert outcome(view(event_type, members=members)) == Outcome(
            notify=True, highlight=False, sound=None, actions=["notify"]
        )


@pytest.mark.parametrize("kind", ["start", "end"])
def test_polls_notify_like_messages(kind: str) -> None:
    event_type = f"org.matrix.msc3381.poll.{kind}"

    assert outcome(view(event_type, members=2)).sound == "default"
    assert outcome(view(event_type, members=3)) == Outcome(
        notify=True, highlight=False, sound=None, actions=["notify"]
    )


def test_votes_in_a_poll_are_silent_unless_they_mention() -> None:
    vote = view("org.matrix.msc3381.poll.response", {"m.mentions": {"user_ids": [ALICE]}})
    loud = push_rulesets.with_rule({}, "underride", "all", {"actions": ["notify"]})

    assert outcome(vote).highlight  # the rule about mentions comes first, as the proposal has it
    assert not outcome(view("org.matrix.msc3381.poll.response"), loud).notify


def test_a_subscription_to_the_thread_decides_after_content_and_before_rooms() -> None:
    muted = push_rulesets.with_rule({}, "room", ROOM, {"actions": []})
    loud = push_rulesets.with_rule({}, "room", ROOM, {"actions": ["notify"]})

    def reply(**subscriptions: bool) -> EventView:
        event = text("tea", **{"m.mentions": {}})
        event.subscriptions = {f"@{name}:example.org": it for name, it in subscriptions.items()}
        return event

    assert outcome(reply(alice=True), muted).sound == "default"
    assert not outcome(reply(alice=False), loud).notify
    assert outcome(reply(carol=False), loud).notify
    assert not outcome(reply(carol=True), muted).notify
    keyword = {"pattern": "tea", "actions": ["notify", HIGHLIGHT]}
    assert outcome(
        reply(alice=False), push_rulesets.with_rule({}, "content", "tea", keyword)
    ).highlight


def test_other_events_notify_nobody() -> None:
    assert outcome(view("m.room.topic", {"topic": "Alice"}, state_key="")) == NOTHING
    assert outcome(view("org.example.custom", members=2)) == NOTHING


# The conditions


def test_event_match_is_about_the_whole_value_in_any_case() -> None:
    topic = match("content.topic", "lunc?*")

    assert holds(topic, view(content={"topic": "Lunch plans"}))
    assert holds(topic, view(content={"topic": "LUNCH"}))
    for value in (" lunch", "lunc", None, 5, ["lunch"]):
        assert not holds(topic, view(content={"topic": value}))
    assert not holds(match("content.topic", "*"), view())


def test_event_match_finds_words_of_the_body() -> None:
    pattern = match("content.body", "ex*ple")

    assert holds(pattern, text("An example event."))
    assert holds(pattern, text("exple"))
    assert holds(pattern, text("An exciting triple-whammy"))
    assert not holds(pattern, text("An inexample event"))
    assert not holds(match("content.body", "cake"), text("pancakes, cupcake, cake_shop"))
    assert holds(match("content.body", "Cake"), text("(CAKE)"))
    assert holds(match("content.body", "cake time"), text("is it cake time?"))


def test_event_match_knows_no_words_outside_the_body() -> None:
    assert not holds(match("content.formatted_body", "cake"), text("", formatted_body="a cake"))


def test_event_match_sees_the_ids_of_the_event() -> None:
    assert holds(match("room_id", ROOM), view())
    assert holds(match("event_id", "$event"), view())
    assert not holds(match("room_id", "!other:example.org"), view())
    assert holds(match("room_id", "!*:example.org"), view())


def test_an_escaped_dot_belongs_to_the_name_of_the_property() -> None:
    condition = match(r"content.m\.relates_to.rel_type", "m.thread")

    assert holds(condition, view(content={"m.relates_to": {"rel_type": "m.thread"}}))
    assert not holds(condition, view(content={"m": {"relates_to": {"rel_type": "m.thread"}}}))


@pytest.mark.parametrize("value", ["x", 1, 0, True, False, None, 2**53 - 1])
def test_event_property_is_casts_no_types(value: object) -> None:
    condition = {"kind": "event_property_is", "key": "content.it", "value": value}

    assert holds(condition, view(content={"it": value}))
    for other in ("1", "X", 1.0, 2, 0.0, [value], {"it": value}):
        assert not holds(condition, view(content={"it": other}))
    if isinstance(value, bool | int):
        other_type = int(value) if isinstance(value, bool) else bool(value)
        assert not holds(condition, view(content={"it": other_type}))
    assert not holds(condition, view())


@pytest.mark.parametrize("value", ["#room:example.com", 1, True, None])
def test_event_property_contains_looks_for_the_exact_element(value: object) -> None:
    condition = {"kind": "event_property_contains", "key": "content.it", "value": value}

    assert holds(condition, view(content={"it": [[], {}, 1.5, 2**60, value]}))
    for other in (["room", "1", 2, False, [value]], value, {"it": value}, []):
        assert not holds(condition, view(content={"it": other}))
    assert not holds(condition, view())


def test_an_array_holds_true_and_one_apart() -> None:
    condition = {"kind": "event_property_contains", "key": "content.it", "value": True}

    assert not holds(condition, view(content={"it": [1]}))


@pytest.mark.parametrize(
    ("name", "body", "is_found"),
    [
        ("Alice", "hello ALICE!", True),
        ("Alice", "malice", False),
        ("Alice", "malice and alice", True),
        ("A*", "Also", False),
        ("A*", "see a* here", True),
        ("Dr. (No)", "is dr. (no) in?", True),
        ("Ünal", "hi ünal", True),
        ("", "anything", False),
        (None, "None", False),
    ],
)
def test_contains_display_name_looks_for_the_name_as_it_is(
    name: str | None, body: str, is_found: bool
) -> None:
    assert holds({"kind": "contains_display_name"}, text(body), name) == is_found


def test_no_name_is_found_where_there_is_no_body() -> None:
    assert not holds({"kind": "contains_display_name"}, text(None))
    assert not holds({"kind": "contains_display_name"}, view())


@pytest.mark.parametrize(
    ("count", "matching"),
    [
        ("2", {2}),
        ("==2", {2}),
        ("<2", {1}),
        (">2", {3}),
        ("<=2", {1, 2}),
        (">=2", {2, 3}),
        ("002", {2}),
    ],
)
def test_room_member_count_compares(count: str, matching: set[int]) -> None:
    condition = {"kind": "room_member_count", "is": count}

    assert {n for n in (1, 2, 3) if holds(condition, view(members=n))} == matching


def test_sender_notification_permission_needs_the_level_of_its_key() -> None:
    levels = PowerLevels(
        {"users": {BOB: 20}, "notifications": {"cheap": 20, "dear": 21}}, frozenset(), 100
    )

    def may_notify(key: str) -> bool:
        condition = {"kind": "sender_notification_permission", "key": key}
        return holds(condition, view(levels=levels))

    assert may_notify("cheap")
    assert not may_notify("dear")
    assert not may_notify("unnamed")  # 50


def test_an_unknown_condition_never_holds() -> None:
    assert not holds({"kind": "org.example.weather", "is": "good"}, view())


# Kinds, actions, users


def test_kinds_are_checked_in_the_order_of_the_spec() -> None:
    ids = {"override": "a", "content": "a", "room": ROOM, "sender": BOB, "underride": "a"}
    changes: Json = {}
    for kind, rule_id in ids.items():
        actions = ["notify", {"set_tweak": "sound", "value": kind}]
        rule = {"actions": actions, "pattern": "cake"}
        changes = push_rulesets.with_rule(changes, kind, rule_id, rule)

    heard = []
    for kind, rule_id in ids.items():
        heard.append(outcome(text("cake"), changes).sound)
        changes = push_rulesets.with_enabled(changes, kind, rule_id, enabled=False)

    assert heard == list(ids)


def test_room_and_sender_rules_match_their_id_only() -> None:
    silent: Json = {"actions": []}
    others = push_rulesets.with_rule({}, "room", "!other:example.org", silent)
    others = push_rulesets.with_rule(others, "sender", "@carol:example.org", silent)

    assert outcome(text("hi"), others).notify
    assert not outcome(text("hi"), push_rulesets.with_rule(others, "room", ROOM, silent)).notify
    assert not outcome(text("hi"), push_rulesets.with_rule(others, "sender", BOB, silent)).notify


def test_among_rules_of_a_kind_the_first_counts() -> None:
    def rule(pattern: str) -> Json:
        return {"pattern": pattern, "actions": ["notify", {"set_tweak": "sound", "value": pattern}]}

    changes = push_rulesets.with_rule({}, "content", "1", rule("tea"))
    changes = push_rulesets.with_rule(changes, "content", "2", rule("time"))

    assert outcome(text("It's time for tea"), changes).sound == "time"


def test_an_override_for_one_room_is_asked_in_that_room() -> None:
    mute = {"conditions": [match("room_id", ROOM.upper())], "actions": []}
    elsewhere = {"conditions": [match("room_id", "!other:example.org")], "actions": []}
    changes = push_rulesets.with_rule({}, "override", "there", elsewhere)

    assert outcome(text("hi"), changes).notify
    assert not outcome(text("hi"), push_rulesets.with_rule(changes, "override", ROOM, mute)).notify


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ([], (False, False, None)),
        (["notify"], (True, False, None)),
        (["notify", HIGHLIGHT], (True, True, None)),
        (["notify", HIGHLIGHT | {"value": True}], (True, True, None)),
        (["notify", HIGHLIGHT | {"value": False}], (True, False, None)),
        (["notify", {"set_tweak": "sound", "value": 5}], (True, False, None)),
        ([HIGHLIGHT, SOUND], (False, False, None)),
        (["dont_notify"], (False, False, None)),
        (["dont_notify", "coalesce", "notify", SOUND], (True, False, "default")),
    ],
)
def test_actions_say_whether_and_how(
    actions: list[Any], expected: tuple[bool, bool, str | None]
) -> None:
    changes = push_rulesets.with_rule({}, "override", "it", {"actions": actions})

    it = outcome(view(), changes)

    assert (it.notify, it.highlight, it.sound) == expected
    assert it.actions == [it for it in actions if it not in ("dont_notify", "coalesce")]


def test_tweaks_are_passed_on() -> None:
    light = {"set_tweak": "org.example.light", "value": {"colour": "red"}}
    changes = push_rulesets.with_rule(
        {}, "override", "it", {"actions": ["notify", HIGHLIGHT, light]}
    )

    tweaks = outcome(view(), changes).tweaks

    assert tweaks == {"highlight": True, "org.example.light": {"colour": "red"}}


def test_the_sender_is_never_notified() -> None:
    members = [Recipient(BOB, "Bob"), Recipient(ALICE, "Alice")]
    mention = text("Bob", **{"m.mentions": {"user_ids": [BOB, ALICE]}})

    outcomes = push_rules.evaluate(mention, members, lambda _: DEFAULTS)

    assert list(outcomes) == [ALICE]
    assert evaluate_one(mention, members[0], DEFAULTS) == NOTHING


def test_equal_conditions_of_many_people_are_asked_once() -> None:
    event = text("plain")
    asked = []

    def is_asked(of: EventView) -> bool:
        asked.append(of)
        return False

    assert not any(event.holds(is_asked) for _ in range(200))
    assert asked == [event]


def test_who_changed_nothing_shares_the_defaults() -> None:
    assert push_rules.compiled({}) is DEFAULTS


# Properties

CONDITIONS: list[Json] = [
    match("content.body", "c?ke*"),
    match("content.body", "cake"),
    match("content.x", "*"),
    match("state_key", "*alice*"),
    match("room_id", ROOM),
    {"kind": "event_property_is", "key": "content.x", "value": None},
    {"kind": "event_property_contains", "key": r"content.m\.mentions.user_ids", "value": BOB},
    {"kind": "contains_display_name"},
    {"kind": "room_member_count", "is": ">5"},
    {"kind": "sender_notification_permission", "key": "room"},
    {"kind": "org.example.unknown"},
]
all_rules = st.lists(
    st.tuples(
        st.sampled_from(["override", "content", "underride"]),
        st.lists(st.sampled_from(CONDITIONS), max_size=2),
        st.sampled_from([[], ["notify"], ["notify", HIGHLIGHT]]),
        st.booleans(),
    ),
    max_size=4,
)
contents = st.dictionaries(
    st.sampled_from(["body", "x", "msgtype", "m.mentions", "m.relates_to"]),
    pdus.json_values(pdus.numbers_of_old_rooms)
    | st.sampled_from(["cake", "Alice's CAKES", "bob", {"user_ids": [ALICE, BOB]}, {"room": True}]),
)


def changed_by(rules: list[tuple[str, list[Json], list[Any], bool]]) -> Json:
    changes: Json = {}
    for number, (kind, conditions, actions, is_enabled) in enumerate(rules):
        rule = {"conditions": conditions, "actions": actions, "pattern": "cake"}
        changes = push_rulesets.with_rule(changes, kind, str(number), rule)
        changes = push_rulesets.with_enabled(changes, kind, str(number), enabled=is_enabled)
    return changes


@given(
    content=contents,
    type_=st.sampled_from(["m.room.message", "m.room.member", "m.reaction", "x"]),
    state_key=st.sampled_from([None, "", ALICE]),
    members=st.sampled_from([2, 10]),
    rules=st.lists(all_rules, min_size=4, max_size=4),
)
def test_asking_for_all_members_agrees_with_asking_for_each(
    content: Json,
    type_: str,
    state_key: str | None,
    members: int,
    rules: list[list[tuple[str, list[Json], list[Any], bool]]],
) -> None:
    people = [Recipient(BOB, "Bob"), Recipient(ALICE, "Alice"), Recipient("@c:x.y", "cake")]
    people.append(Recipient("@d:x.y"))
    rulesets = dict(
        zip(
            (it.user_id for it in people),
            map(push_rules.compiled, map(changed_by, rules)),
            strict=True,
        )
    )
    event = view(type_, content, state_key, members)

    together = push_rules.evaluate(event, people, rulesets.__getitem__)

    fresh = view(type_, content, state_key, members)
    each = {it.user_id: evaluate_one(fresh, it, rulesets[it.user_id]) for it in people}
    assert together == {user_id: it for user_id, it in each.items() if it.notify}


@given(
    content=st.dictionaries(pdus.texts, pdus.json_values(pdus.numbers_of_old_rooms)),
    key=pdus.texts | st.sampled_from(["content", "content.body", "sender", "depth"]),
    pattern=pdus.texts,
)
def test_no_event_content_breaks_the_evaluation(content: Json, key: str, pattern: str) -> None:
    conditions = [
        match(key, pattern),
        {"kind": "event_property_is", "key": key, "value": pattern},
        {"kind": "event_property_contains", "key": key, "value": pattern},
        {"kind": "contains_display_name"},
    ]
    changes: Json = {}
    for number, condition in enumerate(conditions):
        rule = {"conditions": [condition], "actions": []}
        changes = push_rulesets.with_rule(changes, "override", str(number), rule)

    assert outcome(view(content=content), changes, pattern).notify in {True, False}
