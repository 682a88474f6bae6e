"""Unread counts and the list of notifications."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import func, select

from homebody.core.push import counts
from homebody.models.push import Notification, UnreadCount
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import Json, act, in_thread, refusal

Room = Callable[..., str]
BY_THREAD: Json = {"filter": '{"room":{"timeline":{"unread_thread_notifications":true}}}'}


def unread(person: Person, room_id: str) -> tuple[int, int]:
    """(notifications, highlights) of a room in a first sync."""
    return pair(person.sync()["rooms"]["join"][room_id]["unread_notifications"])


def unread_by_thread(person: Person, room_id: str) -> dict[str, tuple[int, int]]:
    room = person.sync(**BY_THREAD)["rooms"]["join"][room_id]
    threads = {name: pair(it) for name, it in room.get("unread_thread_notifications", {}).items()}
    return {"main": pair(room["unread_notifications"]), **threads}


def pair(found: Json) -> tuple[int, int]:
    return found["notification_count"], found["highlight_count"]


def read(person: Person, room_id: str, event_id: str, kind: str = "m.read", **body: Any) -> None:
    path = f"rooms/{room_id}/receipt/{kind}/{quote(event_id, safe='')}"
    answer = person.post(path, json=body)
    assert answer.status_code == 200, answer.get_json()


def mention(person: Person, room_id: str, *user_ids: str) -> str:
    content: Json = {"m.mentions": {"user_ids": list(user_ids)}}
    return person.send(room_id, **content)


def add_rule(person: Person, kind: str, rule_id: str, **rule: Any) -> None:
    answer = person.put(f"pushrules/global/{kind}/{rule_id}", json=rule)
    assert answer.status_code == 200, answer.get_json()


def rows(app: Application, table: Any) -> int:
    with app.homeserver.database.read() as tx:
        return int(tx.sql.execute(select(func.count()).select_from(table)).scalar_one())


def notifications(person: Person, **query: Any) -> Json:
    answer = person.get("notifications", query_string=query)
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def test_messages_count_for_all_but_who_sent_them(login: Login, room: Room) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)

    alice.send(room_id)
    alice.send(room_id)

    assert [unread(it, room_id) for it in (alice, bob, carol)] == [(0, 0), (2, 0), (2, 0)]


def test_a_count_comes_with_the_event_that_it_counts(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    token = bob.sync()["next_batch"]

    event_id = alice.send(room_id)

    news = bob.sync(token)["rooms"]["join"][room_id]
    assert [it["event_id"] for it in news["timeline"]["events"]] == [event_id]
    assert pair(news["unread_notifications"]) == (1, 0)


def test_a_mention_is_a_highlight(login: Login, room: Room) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)

    mention(alice, room_id, bob.user_id)

    assert [unread(it, room_id) for it in (bob, carol)] == [(1, 1), (1, 0)]


def test_notices_edits_reactions_and_state_do_not_count(login: Login, room: Room) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)
    first = alice.send(room_id)
    read(bob, room_id, first)

    alice.send(room_id, msgtype="m.notice")
    edit: Json = {"m.relates_to": {"rel_type": "m.replace", "event_id": first}}
    alice.send(room_id, **edit)
    reaction = {"rel_type": "m.annotation", "event_id": first, "key": "x"}
    alice.post(f"rooms/{room_id}/send/m.reaction", json={"m.relates_to": reaction})
    alice.set_state(room_id, "m.room.topic", {"topic": "x"})
    alice.put(f"profile/{alice.user_id}/displayname", json={"displayname": "Al"})

    assert unread(bob, room_id) == (0, 0)


def test_only_who_may_mentions_the_whole_room(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)

    content: Json = {"m.mentions": {"room": True}}
    alice.send(room_id, **content)
    bob.send(room_id, **content)

    assert (unread(bob, room_id), unread(alice, room_id)) == ((0, 0), (1, 0))
    assert [it["read"] for it in notifications(bob, only="highlight")["notifications"]] == [True]


@pytest.mark.parametrize("kind", ["m.read", "m.read.private"])
def test_a_receipt_takes_what_it_covers_out_of_the_count(
    login: Login, room: Room, kind: str
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    events = [mention(alice, room_id, bob.user_id), alice.send(room_id), alice.send(room_id)]
    token = bob.sync()["next_batch"]

    read(bob, room_id, events[1], kind)

    news = bob.sync(token)["rooms"]["join"][room_id]
    assert pair(news["unread_notifications"]) == (1, 0)
    assert unread(bob, room_id) == (1, 0)


def test_an_older_receipt_does_not_bring_the_count_back(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    events = [alice.send(room_id) for _ in range(3)]
    read(bob, room_id, events[2], "m.read.private")

    read(bob, room_id, events[0])

    assert unread(bob, room_id) == (0, 0)


def test_who_answers_has_read(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    alice.send(room_id)

    bob.send(room_id)

    assert unread(bob, room_id) == (0, 0)


def test_each_thread_is_counted_apart(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    root, other = alice.send(room_id), alice.send(room_id)
    in_thread(alice, room_id, root)
    in_thread(alice, room_id, root)
    in_thread(alice, room_id, other)

    assert unread_by_thread(bob, room_id) == {"main": (2, 0), root: (2, 0), other: (1, 0)}
    assert unread(bob, room_id) == (5, 0)


def test_a_receipt_reads_its_thread_and_one_without_reads_all(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    root = alice.send(room_id)
    first, second = in_thread(alice, room_id, root), in_thread(alice, room_id, root)
    last = alice.send(room_id)

    read(bob, room_id, first, thread_id=root)
    in_one = unread_by_thread(bob, room_id)
    read(bob, room_id, last, thread_id="main")
    in_main = unread_by_thread(bob, room_id)
    in_thread(alice, room_id, root)
    read(bob, room_id, second)

    assert in_one == {"main": (2, 0), root: (1, 0)}
    assert in_main == {"main": (0, 0), root: (1, 0)}
    assert unread_by_thread(bob, room_id) == {"main": (0, 0), root: (1, 0)}


def test_counts_of_threads_are_left_out_where_there_are_none(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    in_thread(alice, room_id, alice.send(room_id))
    before = bob.sync(**BY_THREAD)["rooms"]["join"][room_id]

    bob.post(f"rooms/{room_id}/receipt/m.read/{quote(alice.send(room_id))}")
    after = bob.sync(**BY_THREAD)["rooms"]["join"][room_id]

    assert len(before["unread_thread_notifications"]) == 1
    assert "unread_thread_notifications" not in after
    assert after["unread_notifications"] == {"notification_count": 0, "highlight_count": 0}


def test_who_answers_in_a_thread_has_read_that_thread(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    root = alice.send(room_id)
    in_thread(alice, room_id, root)

    in_thread(bob, room_id, root)

    assert unread_by_thread(bob, room_id) == {"main": (1, 0)}


def test_changed_rules_hold_from_the_next_event_on(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    loud, muted = room(alice, bob), room(alice, bob)
    alice.send(muted)

    add_rule(bob, "room", muted, actions=[])
    add_rule(bob, "content", "cake", pattern="cake", actions=["notify", {"set_tweak": "highlight"}])
    alice.send(muted)
    alice.send(loud, "Cake is ready")

    assert (unread(bob, muted), unread(bob, loud)) == ((1, 0), (1, 1))


def test_a_rule_about_the_display_name_knows_the_name_in_the_room(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    bob.put(f"profile/{bob.user_id}/displayname", json={"displayname": "Bobby B"})
    condition = {"kind": "contains_display_name"}
    actions = ["notify", {"set_tweak": "highlight"}]
    add_rule(bob, "override", "name", conditions=[condition], actions=actions)

    alice.send(room_id, "is bobby b in?")
    alice.send(room_id, "is bobby in?")

    assert unread(bob, room_id) == (2, 1)


@pytest.mark.parametrize(
    ("body", "highlights"),
    [
        ("Bobby B, are you there?", 1),
        ("is bobby b in?", 1),
        ("is bob in?", 1),
        ("@bob:localhost: hello", 1),
        ("is bobby in?", 0),
        ("bobby bee", 0),
        ("hello", 0),
        ("x" * 4000 + " bob", 0),
    ],
)
def test_a_client_without_mentions_mentions_by_names(
    login: Login, room: Room, body: str, highlights: int
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)
    bob.put(f"profile/{bob.user_id}/displayname", json={"displayname": "Bobby B"})

    alice.send(room_id, body)

    assert unread(bob, room_id) == (1, highlights)
    assert unread(carol, room_id) == (1, 0)


def test_where_mentions_are_told_names_are_none(login: Login, room: Room) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)

    alice.send(room_id, "bob: see @room", **{"m.mentions": {}})
    alice.send(room_id, "bob: hello", **{"m.mentions": {"user_ids": [carol.user_id]}})

    assert unread(bob, room_id) == (2, 0)
    assert unread(carol, room_id) == (2, 1)


def test_mentions_by_name_follow_what_members_are_called(login: Login, room: Room) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)

    def highlighted(body: str) -> tuple[bool, bool]:
        alice.send(room_id, body)
        found = [unread(it, room_id)[1] > 0 for it in (bob, carol)]
        for person in (bob, carol):
            person.post(f"rooms/{room_id}/receipt/m.read/{quote(alice.send(room_id))}")
        return found[0], found[1]

    before = highlighted("Robert")
    answer = bob.set_state(
        room_id, "m.room.member", {"membership": "join", "displayname": "Robert"}, bob.user_id
    )
    named = highlighted("Robert")
    event_id = answer.get_json()["event_id"]
    bob.put(f"rooms/{room_id}/redact/{quote(event_id)}/t1", json={})
    redacted = highlighted("Robert")
    carol.set_state(
        room_id, "m.room.member", {"membership": "join", "displayname": "Robert"}, carol.user_id
    )
    another = highlighted("Robert")

    assert [before, named, redacted, another] == [
        (False, False),
        (True, False),
        (False, False),
        (False, True),
    ]


def test_only_who_may_mentions_the_room_in_a_text(login: Login, room: Room) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)

    bob.send(room_id, "@room please")
    alice.send(room_id, "hello @room!")

    assert unread(carol, room_id) == (2, 1)


def test_mentions_by_name_can_be_switched_off(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    shown = bob.get("pushrules/global/content/.m.rule.contains_user_name").get_json()
    for kind, rule_id in (
        ("content", ".m.rule.contains_user_name"),
        ("override", ".m.rule.contains_display_name"),
    ):
        bob.put(f"pushrules/global/{kind}/{rule_id}/enabled", json={"enabled": False})

    alice.send(room_id, "bob?")

    assert shown["pattern"] == "bob"
    assert unread(bob, room_id) == (1, 0)


def test_who_is_ignored_notifies_nobody_who_ignores_them(login: Login, room: Room) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)
    ignored: Json = {"ignored_users": {alice.user_id: {}}}
    bob.put(f"user/{bob.user_id}/account_data/m.ignored_user_list", json=ignored)

    alice.send(room_id)

    assert [unread(it, room_id) for it in (bob, carol)] == [(0, 0), (1, 0)]


def test_an_invite_notifies_who_is_invited(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room()

    act(alice, room_id, "invite", user_id=bob.user_id)

    found = notifications(bob)["notifications"]
    assert [(it["room_id"], it["event"]["type"], it["read"]) for it in found] == [
        (room_id, "m.room.member", False)
    ]
    act(bob, room_id, "join")
    assert unread(bob, room_id) == (0, 0)


def test_an_accepted_invite_is_neither_listed_nor_counted(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room()
    old = alice.send(room_id)
    act(alice, room_id, "invite", user_id=bob.user_id)
    invite = notifications(bob)["notifications"][0]["event"]["event_id"]
    act(bob, room_id, "join")
    listed = notifications(bob)["notifications"]
    alice.send(room_id)

    read(bob, room_id, old)
    after_reading = unread(bob, room_id)
    alice.put(f"rooms/{room_id}/redact/{invite}/r", json={})

    assert listed == []
    assert after_reading == (1, 0)
    assert unread(bob, room_id) == (1, 0)


def test_a_change_of_the_own_name_leaves_all_notifications_as_they_are(
    login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    mention(alice, room_id, bob.user_id)

    bob.set_state(room_id, "m.room.member", {"membership": "join", "displayname": "B"}, bob.user_id)

    assert unread(bob, room_id) == (1, 1)
    assert len(notifications(bob)["notifications"]) == 1


def test_who_leaves_or_is_banned_has_nothing_unread(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)
    mention(alice, room_id, bob.user_id, carol.user_id)

    act(bob, room_id, "leave")
    act(alice, room_id, "ban", user_id=carol.user_id)

    assert (rows(app, Notification), rows(app, UnreadCount)) == (0, 0)


def test_reading_keeps_highlights_and_nothing_else(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    highlight = mention(alice, room_id, bob.user_id)
    last = alice.send(room_id)

    read(bob, room_id, last)

    found = notifications(bob)["notifications"]
    assert [(it["event"]["event_id"], it["read"]) for it in found] == [(highlight, True)]
    assert (rows(app, Notification), rows(app, UnreadCount)) == (1, 0)


def test_who_never_reads_fills_no_disk(
    app: Application, login: Login, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    monkeypatch.setattr(counts, "_PRUNED_EVERY", 5)
    fewer = counts._OLDEST_KEPT.offset(10)  # noqa: SLF001 - else it takes a thousand events
    monkeypatch.setattr(counts, "_OLDEST_KEPT", fewer)

    events = [alice.send(room_id) for _ in range(40)]

    assert unread(bob, room_id) == (40, 0)
    assert rows(app, Notification) <= 15
    read(bob, room_id, events[-3])
    assert unread(bob, room_id) == (2, 0)


def test_notifications_are_listed_newest_first_page_by_page(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    first, second = room(alice, bob), room(alice, bob)
    sent = [alice.send(room_id) for room_id in (first, second, first, second, first)]

    listed: list[Json] = []
    token: Json = {}
    for _ in range(3):
        page = notifications(bob, limit=2, **token)
        listed += page["notifications"]
        token = {"from": page.get("next_token")}

    assert [it["event"]["event_id"] for it in listed] == sent[::-1]
    assert token == {"from": None}
    assert [it["room_id"] for it in listed] == [first, second, first, second, first]
    assert all("room_id" not in it["event"] for it in listed)
    assert listed[0]["actions"] == ["notify", {"set_tweak": "sound", "value": "default"}]
    assert listed[0]["ts"] == listed[0]["event"]["origin_server_ts"]


def test_only_highlights_are_listed_where_asked(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    highlight = mention(alice, room_id, bob.user_id)
    alice.send(room_id)

    found = notifications(bob, only="highlight")["notifications"]

    assert [it["event"]["event_id"] for it in found] == [highlight]


@pytest.mark.parametrize("query", [{"from": "s5"}, {"limit": "0"}, {"limit": "many"}])
def test_a_wrong_page_is_refused(login: Login, query: Json) -> None:
    answer = login("alice").get("notifications", query_string=query)

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_the_number_of_statements_does_not_grow_with_the_room(
    login: Login, room: Room, statements: list[str]
) -> None:
    people = [login(f"u{number}") for number in range(12)]
    small, big = room(*people[:3]), room(*people)
    for room_id in (small, big):
        people[0].send(room_id)
    statements.clear()

    people[0].send(small)
    for_few = len(statements)
    people[0].send(big)

    assert len(statements) - for_few == for_few


def test_after_a_part_is_read_all_highlights_of_the_rest_count(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    first = mention(alice, room_id, bob.user_id)
    for _ in range(3):
        mention(alice, room_id, bob.user_id)
    before = unread(bob, room_id)

    read(bob, room_id, first)

    assert (before, unread(bob, room_id)) == ((4, 4), (3, 3))
