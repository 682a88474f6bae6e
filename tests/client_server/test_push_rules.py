"""Push rules: reading and changing them."""

from __future__ import annotations

from typing import Any

import pytest

from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import Json, refusal, unchanged

CAKE = {"pattern": "cake*lie", "actions": ["notify"]}
NO_ACTIONS: Json = {"actions": []}


def path(kind: str, rule_id: str, part: str = "") -> str:
    return f"pushrules/global/{kind}/{rule_id}{part}"


def rule(person: Person, kind: str, rule_id: str) -> Json:
    answer = person.get(path(kind, rule_id))
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def own_ids(person: Person, kind: str) -> list[str]:
    rules = person.get("pushrules/global/").get_json()[kind]
    return [it["rule_id"] for it in rules if not it["default"]]


def told(sync: Json) -> Any:
    """The rules in an answer of /sync, None if it does not tell them."""
    events = sync.get("account_data", {"events": []})["events"]
    found = [event["content"] for event in events if event["type"] == "m.push_rules"]
    assert len(found) <= 1
    return found[0] if found else None


def test_everybody_has_the_predefined_rules(login: Login) -> None:
    alice = login("alice")

    rules = alice.get("pushrules/").get_json()

    assert rules == {"global": alice.get("pushrules/global/").get_json()}
    assert alice.get("pushrules").get_json() == rules
    assert [it["rule_id"] for it in rules["global"]["override"]][:2] == [
        ".m.rule.master",
        ".m.rule.suppress_notices",
    ]
    assert "@alice:localhost" in str(rules)


def test_the_first_sync_tells_the_rules_and_later_ones_when_they_change(login: Login) -> None:
    alice = login("alice")
    first = alice.sync()
    unchanged_yet = alice.sync(first["next_batch"])

    alice.put(path("content", "cake"), json=CAKE)

    news = alice.sync(first["next_batch"])
    assert told(first) is not None
    assert told(unchanged_yet) is None
    assert told(news) == alice.get("pushrules/").get_json() == told(alice.sync())
    assert "cake*lie" in str(told(news))


def test_a_rule_is_added_changed_and_deleted(login: Login) -> None:
    alice = login("alice")

    added = alice.put(path("content", "cake"), json=CAKE)
    first = rule(alice, "content", "cake")
    alice.put(path("content", "cake"), json=CAKE | {"pattern": "pie"})
    second = rule(alice, "content", "cake")
    deleted = alice.delete(path("content", "cake"))

    assert [(it.status_code, it.get_json()) for it in (added, deleted)] == [(200, {})] * 2
    assert first == CAKE | {"rule_id": "cake", "enabled": True, "default": False}
    assert second["pattern"] == "pie"
    assert refusal(alice.get(path("content", "cake"))) == (404, "M_NOT_FOUND")


def test_rules_stand_where_they_are_put(login: Login) -> None:
    alice = login("alice")

    for rule_id, place in [
        ("a", {}),
        ("b", {}),
        ("c", {"before": "a"}),
        ("d", {"after": "b"}),
        ("e", {"before": "a", "after": "b"}),
        ("a", {"before": "b"}),
    ]:
        answer = alice.put(path("override", rule_id), json=NO_ACTIONS, query_string=place)
        assert answer.status_code == 200, answer.get_json()

    assert own_ids(alice, "override") == ["a", "b", "d", "c", "e"]


def test_rules_are_switched_off_and_on(login: Login) -> None:
    alice = login("alice")
    enabled = path("override", ".m.rule.master", "/enabled")
    before = alice.get(enabled).get_json()

    answer = alice.put(enabled, json={"enabled": True})

    assert before == {"enabled": False}
    assert (answer.status_code, answer.get_json()) == (200, {})
    assert alice.get(enabled).get_json() == {"enabled": True}
    assert rule(alice, "override", ".m.rule.master")["enabled"] is True


def test_actions_of_predefined_rules_can_be_changed(login: Login) -> None:
    alice = login("alice")
    actions = path("underride", ".m.rule.message", "/actions")
    before = alice.get(actions).get_json()

    alice.put(actions, json={"actions": ["notify", {"set_tweak": "highlight"}]})

    assert before == {"actions": ["notify"]}
    assert alice.get(actions).get_json() == {"actions": ["notify", {"set_tweak": "highlight"}]}


@pytest.mark.parametrize(
    "actions",
    [
        ["dont_notify"],
        ["coalesce"],
        ["notify", "coalesce", {"set_tweak": "sound", "value": "default"}],
        ["dont_notify", {"set_tweak": "highlight", "value": False}],
        [],
    ],
)
def test_actions_come_back_as_they_were_stored(login: Login, actions: list[Any]) -> None:
    alice, bob = login("alice"), login("bob")

    alice.put(path("sender", bob.user_id), json={"actions": actions})
    alice.put(path("underride", ".m.rule.message", "/actions"), json={"actions": actions})

    assert rule(alice, "sender", bob.user_id)["actions"] == actions
    assert rule(alice, "underride", ".m.rule.message")["actions"] == actions
    assert alice.get(path("sender", bob.user_id, "/actions")).get_json() == {"actions": actions}
    assert told(alice.sync())["global"]["sender"][0]["actions"] == actions


def test_a_rule_with_the_action_dont_notify_does_not(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(preset="public_chat")
    bob.post(f"rooms/{room_id}/join")
    alice.put(path("sender", bob.user_id), json={"actions": ["dont_notify"]})

    bob.send(room_id)

    assert alice.get("notifications").get_json()["notifications"] == []
    unread = alice.sync()["rooms"]["join"][room_id]["unread_notifications"]
    assert unread == {"notification_count": 0, "highlight_count": 0}


def test_one_users_rules_are_not_anothers(login: Login) -> None:
    alice, bob = login("alice"), login("bob")

    alice.put(path("content", "cake"), json=CAKE)

    assert own_ids(bob, "content") == []
    assert refusal(bob.get(path("content", "cake"))) == (404, "M_NOT_FOUND")


def test_a_room_rule_is_named_after_its_room(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    answer = alice.put(path("room", room_id), json=NO_ACTIONS)

    assert answer.status_code == 200
    assert own_ids(alice, "room") == [room_id]


@pytest.mark.parametrize(
    ("method", "part", "body"),
    [
        ("GET", "", None),
        ("DELETE", "", None),
        ("GET", "/enabled", None),
        ("PUT", "/enabled", {"enabled": True}),
        ("GET", "/actions", None),
        ("PUT", "/actions", NO_ACTIONS),
    ],
)
@pytest.mark.parametrize("kind", ["content", "sideride"])
def test_what_does_not_exist_is_not_found(
    app: Application, login: Login, method: str, part: str, body: Json | None, kind: str
) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.request(method, path(kind, "cake", part), json=body)

    assert refusal(answer) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("kind", "rule_id", "body", "errcode"),
    [
        ("content", "cake", {"pattern": "x"}, "M_MISSING_PARAM"),
        ("content", "cake", {"pattern": "x", "actions": "notify"}, "M_BAD_JSON"),
        ("content", "cake", {"pattern": "x", "actions": [5]}, "M_INVALID_PARAM"),
        ("content", "cake", {"actions": ["notify"]}, "M_INVALID_PARAM"),
        ("override", "x", {"actions": [], "conditions": [5]}, "M_INVALID_PARAM"),
        ("override", ".m.mine", NO_ACTIONS, "M_INVALID_PARAM"),
        ("override", "a%2Fb", NO_ACTIONS, "M_INVALID_PARAM"),
        ("room", "kitchen", NO_ACTIONS, "M_INVALID_PARAM"),
        ("sender", "alice", NO_ACTIONS, "M_INVALID_PARAM"),
        ("sideride", "x", NO_ACTIONS, "M_INVALID_PARAM"),
    ],
)
def test_a_wrong_rule_is_refused(
    app: Application, login: Login, kind: str, rule_id: str, body: Json, errcode: str
) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.put(path(kind, rule_id), json=body)

    assert refusal(answer) == (400, errcode)


@pytest.mark.parametrize("place", [{"before": "x"}, {"after": ".m.rule.master"}])
def test_a_place_beside_what_is_no_rule_of_the_users_is_refused(
    app: Application, login: Login, place: Json
) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.put(path("override", "a"), json=NO_ACTIONS, query_string=place)

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_predefined_rules_cannot_be_deleted(app: Application, login: Login) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.delete(path("override", ".m.rule.master"))

    assert refusal(answer) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("body", [{}, {"enabled": "yes"}, {"enabled": None}])
def test_enabled_is_true_or_false(app: Application, login: Login, body: Json) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.put(path("override", ".m.rule.master", "/enabled"), json=body)

    assert answer.status_code == 400
