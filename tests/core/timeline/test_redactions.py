"""What follows from an event goes with its content."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Integer, cast, func, select

from homebody.core.timeline import leaving_threads, redactions
from homebody.models.events import StoredEvent
from homebody.models.push import Notification, UnreadCount
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers import reading
from tests.helpers.cost import steps
from tests.helpers.rooms import Json, act, everything, in_thread, read, refusal

Room = Callable[..., str]
BY_THREAD = json.dumps({"room": {"timeline": {"unread_thread_notifications": True, "limit": 50}}})

COUNTED = select(
    UnreadCount.user_id,
    UnreadCount.thread_id,
    UnreadCount.notification_count,
    UnreadCount.highlight_count,
)
LISTED = (
    select(
        Notification.user_id,
        Notification.thread_id,
        func.count(),
        func.sum(cast(Notification.is_highlight, Integer)),
    )
    .where(Notification.is_read.is_(False))
    .group_by(Notification.user_id, Notification.thread_id)
)


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(login: Login) -> Person:
    return login("bob")


def redact(person: Person, room_id: str, event_id: str) -> str:
    answer = person.put(f"rooms/{quote(room_id)}/redact/{quote(event_id)}/r{event_id}", json={})
    assert answer.status_code == 200, answer.get_json()
    return str(answer.get_json()["event_id"])


def send(person: Person, room_id: str, event_type: str, **content: Any) -> str:
    path = f"rooms/{quote(room_id)}/send/{event_type}/t{len(str(content))}{hash(str(content))}"
    answer = person.put(path, json=content)
    assert answer.status_code == 200, answer.get_json()
    return str(answer.get_json()["event_id"])


def mention(person: Person, room_id: str, other: Person, **content: Any) -> str:
    return person.send(room_id, "look", **{"m.mentions": {"user_ids": [other.user_id]}, **content})


def unread(person: Person, room_id: str) -> dict[str, tuple[int, int]]:
    """{thread: (notifications, highlights)}, "main" for what is in none, as a first sync tells."""
    entry = person.sync(filter=BY_THREAD)["rooms"]["join"][room_id]
    counts = {"main": entry["unread_notifications"], **entry.get("unread_thread_notifications", {})}
    return {
        name: (count["notification_count"], count["highlight_count"])
        for name, count in counts.items()
        if count["notification_count"]
    }


def notified(person: Person, **query: str) -> list[str]:
    """The ids of the events that GET /notifications lists."""
    answer = person.get("notifications", query_string=query)
    return [it["event"]["event_id"] for it in answer.get_json()["notifications"]]


def relation(rel_type: str, event_id: str, **more: Any) -> Json:
    return {"m.relates_to": {"rel_type": rel_type, "event_id": event_id, **more}}


def receipt(person: Person, room_id: str, event_id: str, thread_id: str) -> tuple[int, Json]:
    path = f"rooms/{quote(room_id)}/receipt/m.read/{quote(event_id)}"
    answer = person.post(path, json={"thread_id": thread_id})
    return answer.status_code, answer.get_json()


def test_redacted_messages_are_unread_no_more(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    read(bob, room_id, alice.send(room_id))
    gone = [mention(alice, room_id, bob) for _ in range(2)]
    kept = alice.send(room_id)
    before = unread(bob, room_id)

    for event_id in gone:
        redact(alice, room_id, event_id)

    assert before == {"main": (3, 2)}
    assert unread(bob, room_id) == {"main": (1, 0)}
    assert notified(bob) == [kept]
    assert notified(bob, only="highlight") == []


def test_a_redacted_highlight_that_was_read_is_not_listed(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    event_id = mention(alice, room_id, bob)
    read(bob, room_id, event_id)
    alice.send(room_id)
    before = notified(bob, only="highlight")

    redact(alice, room_id, event_id)

    assert before == [event_id]
    assert notified(bob, only="highlight") == []
    assert unread(bob, room_id) == {"main": (1, 0)}


def test_a_redacted_reply_is_not_unread_in_its_thread(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    root = alice.send(room_id)
    read(bob, room_id, root)
    first = in_thread(alice, room_id, root)
    second = in_thread(alice, room_id, root)

    redact(alice, room_id, first)
    between = unread(bob, room_id)
    redact(alice, room_id, second)

    assert between == {root: (1, 0)}
    assert unread(bob, room_id) == {}


def test_a_redacted_reply_is_read_with_the_main_timeline(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    root = alice.send(room_id)
    reply = in_thread(alice, room_id, root)
    reaction = send(alice, room_id, "m.reaction", **relation("m.annotation", reply, key="x"))
    assert refusal_of(receipt(bob, room_id, reply, "main")) == (400, "M_INVALID_PARAM")

    redact(alice, room_id, reply)

    assert receipt(bob, room_id, reply, "main") == (200, {})
    assert receipt(bob, room_id, reaction, "main") == (200, {})
    assert refusal_of(receipt(bob, room_id, reaction, root)) == (400, "M_INVALID_PARAM")
    later = send(alice, room_id, "m.reaction", **relation("m.annotation", reply, key="y"))
    assert receipt(bob, room_id, later, "main") == (200, {})


def refusal_of(answer: tuple[int, Json]) -> tuple[int, str]:
    return answer[0], answer[1]["errcode"]


def test_what_relates_to_a_redacted_reply_is_unread_in_the_main_timeline(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    root = alice.send(room_id)
    read(bob, room_id, root)
    reply = in_thread(alice, room_id, root)
    below = mention(alice, room_id, bob, **relation("org.example.comment", reply))
    deeper = mention(alice, room_id, bob, **relation("org.example.comment", below))
    before = unread(bob, room_id)

    redact(alice, room_id, reply)
    after = unread(bob, room_id)
    receipt(bob, room_id, deeper, "main")

    assert before == {root: (3, 2)}
    assert after == {"main": (2, 2)}
    assert unread(bob, room_id) == {}


def test_much_that_relates_to_a_redacted_reply_leaves_its_thread_in_several_writes(
    app: Application, alice: Person, bob: Person, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 10,000 reactions and edits kept everybody waiting for 300 ms
    monkeypatch.setattr(leaving_threads, "MOVED_AT_ONCE", 3)
    room_id = room(alice, bob)
    root = alice.send(room_id)
    read(bob, room_id, root)
    reply, stays = in_thread(alice, room_id, root), in_thread(alice, room_id, root)
    comment = relation("org.example.comment", reply)
    below = [alice.send(room_id, **comment) for _ in range(8)]
    deeper = [alice.send(room_id, **relation("org.example.comment", it)) for it in below]
    last = alice.send(room_id, **relation("org.example.comment", deeper[-1]))
    other = alice.send(room_id, **relation("org.example.comment", stays))
    writes: list[int] = []
    app.homeserver.database.writer.committed = lambda number, _seconds: writes.append(number)

    redact(alice, room_id, reply)

    assert len(writes) >= 1 + (len(below) + len(deeper) + 1) // 3
    assert unread(bob, room_id) == {root: (2, 0), "main": (len(below) + len(deeper) + 1, 0)}
    assert receipt(bob, room_id, last, "main") == (200, {})
    assert receipt(bob, room_id, other, root) == (200, {})
    assert unread(bob, room_id) == {}


def test_redacting_the_root_leaves_the_thread(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    root = alice.send(room_id)
    reply = in_thread(alice, room_id, root)

    redact(alice, room_id, root)

    assert receipt(bob, room_id, reply, root) == (200, {})
    threads = bob.get(f"/_matrix/client/v1/rooms/{quote(room_id)}/threads").get_json()["chunk"]
    assert [it["event_id"] for it in threads] == [root]


def test_a_room_without_its_redacted_name_is_called_by_its_heroes(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    named = alice.set_state(room_id, "m.room.name", {"name": "Tea"}).get_json()["event_id"]
    first = bob.sync()

    redact(alice, room_id, named)
    later = bob.sync(first["next_batch"])

    assert "m.heroes" not in first["rooms"]["join"][room_id]["summary"]
    assert later["rooms"]["join"][room_id]["summary"]["m.heroes"] == [alice.user_id]


def fill(alice: Person, bob: Person, room_id: str) -> list[str]:
    """Send SECRET in every way from which the server derives something; the ids of the events."""
    root = mention(alice, room_id, bob, formatted_body="SECRET")
    original = alice.send(room_id, "SECRET typo")
    member = alice.get(f"rooms/{quote(room_id)}/state/m.room.member/{alice.user_id}").get_json()
    alice.put(f"directory/room/{quote('#tea:localhost')}", json={"room_id": room_id})
    contents: dict[str, Json] = {
        "m.room.name": {"name": "SECRET"},
        "m.room.topic": {"topic": "SECRET", "m.topic": {"m.text": [{"body": "SECRET"}]}},
        "m.room.avatar": {"url": "mxc://localhost/SECRET"},
        "m.room.canonical_alias": {"alias": "#tea:localhost", "org.example": "SECRET"},
        "m.room.pinned_events": {"pinned": ["$SECRET"]},
        "m.space.child": {"via": ["SECRET.example"]},
        "org.example.state": {"text": "SECRET"},
    }
    sent = [
        root,
        original,
        alice.send(room_id, "SECRET reply", **relation("m.thread", root)),
        alice.send(
            room_id,
            "* SECRET edit",
            **{"m.new_content": {"msgtype": "m.text", "body": "SECRET"}},
            **relation("m.replace", original),
        ),
        alice.send(room_id, "SECRET reference", **relation("m.reference", root)),
        send(alice, room_id, "m.reaction", **relation("m.annotation", root, key="SECRET")),
        alice.send(room_id, "really SECRET", url="mxc://localhost/SECRET"),
    ]
    for event_type, content in contents.items():
        answer = alice.set_state(room_id, event_type, content)
        assert answer.status_code == 200, answer.get_json()
        sent.append(answer.get_json()["event_id"])
    named = {**member, "displayname": "SECRET"}
    answer = alice.set_state(room_id, "m.room.member", named, alice.user_id)
    sent.append(answer.get_json()["event_id"])
    return sent


@pytest.mark.parametrize("version", ["6", "11", "12"])
def test_nothing_that_was_derived_from_it_outlives_an_events_redaction(
    app: Application, alice: Person, bob: Person, room: Room, version: str
) -> None:
    room_id = room(alice, bob, room_version=version, room_alias_name="mad")
    alice.put(f"directory/list/room/{quote(room_id)}", json={"visibility": "public"})
    root = bob.send(room_id, "really")
    sent = fill(alice, bob, room_id)
    assert "SECRET" in str(reading.everywhere(bob, room_id, root, root, "really"))

    for event_id in sent:
        redact(alice, room_id, event_id)

    told = reading.everywhere(bob, room_id, root, root, "really")
    at = f"rooms/{quote(room_id)}"
    for path in (
        "publicRooms",
        f"/_matrix/client/v1/{at}/hierarchy",
        f"{at}/joined_members",
        f"{at}/state/m.room.pinned_events",
    ):
        told[path] = bob.get(path).get_data(as_text=True)
    criteria = {"search_categories": {"room_events": {"search_term": "SECRET"}}}
    found = bob.post("search", json=criteria).get_json()["search_categories"]["room_events"]
    assert [name for name, text in told.items() if "SECRET" in text] == []
    assert [name for name, rows in everything(app).items() if "SECRET" in str(rows)] == []
    assert found["results"] == []
    assert relations_of(app, sent) == {(None, None, None, None, None)}


def relations_of(app: Application, event_ids: list[str]) -> set[tuple[Any, ...]]:
    """What the columns say of how these events relate to others."""
    columns = (
        StoredEvent.relates_to,
        StoredEvent.rel_type,
        StoredEvent.thread_id,
        StoredEvent.edit_of,
        StoredEvent.annotation_key,
    )
    with app.homeserver.database.read() as tx:
        rows = tx.sql.execute(select(*columns).where(StoredEvent.event_id.in_(event_ids)))
        return {tuple(row) for row in rows}


def test_each_derivation_is_undone_by_an_entry_of_its_own() -> None:
    names = [derived.what for derived in redactions.DERIVED]

    assert len(set(names)) == len(names) == len({it.undo for it in redactions.DERIVED}) >= 6


def test_a_redaction_without_the_power_undoes_nothing(
    alice: Person, bob: Person, login: Login, room: Room
) -> None:
    carol = login("carol")
    room_id = room(alice, bob, carol)
    event_id = mention(alice, room_id, carol)

    answer = bob.put(f"rooms/{quote(room_id)}/redact/{quote(event_id)}/r", json={})
    act(bob, room_id, "leave")

    assert refusal(answer) == (403, "M_FORBIDDEN")
    assert unread(carol, room_id) == {"main": (1, 1)}


@pytest.mark.parametrize("kind", ["reactions", "topics"])
def test_a_redaction_costs_the_same_whatever_is_beside_the_event(
    app: Application, alice: Person, bob: Person, room: Room, kind: str
) -> None:
    room_id = room(alice, bob)
    targets = [alice.send(room_id) for _ in range(3)]
    if kind == "topics":
        set_ = [alice.set_state(room_id, "m.room.topic", {"topic": f"{n}"}) for n in range(3)]
        targets = [answer.get_json()["event_id"] for answer in set_]
    redact(alice, room_id, targets[0])

    def cost(event_id: str) -> int:
        path = f"rooms/{quote(room_id)}/redact/{quote(event_id)}/r{event_id}"
        return steps(app, lambda: alice.put(path, json={}))

    before = cost(targets[1])
    for number in range(200):
        if kind == "topics":
            alice.set_state(room_id, "m.room.topic", {"topic": f"more {number}"})
        else:
            key = f"k{number}"
            send(bob, room_id, "m.reaction", **relation("m.annotation", targets[2], key=key))

    assert cost(targets[2]) < before + 40


@pytest.mark.parametrize("seed", range(5))
def test_counts_agree_with_the_notifications_whatever_is_redacted(
    app: Application, alice: Person, bob: Person, room: Room, seed: int
) -> None:
    choose = random.Random(seed)  # noqa: S311 - the same course in every run
    room_id = room(alice, bob)
    sent = [alice.send(room_id)]
    for _ in range(60):
        target = choose.choice(sent)
        kind = choose.choice(["say", "mention", "thread", "comment", "redact", "redact", "read"])
        if kind == "redact":
            redact(alice, room_id, target)
        elif kind == "read":
            path = f"rooms/{quote(room_id)}/receipt/m.read/{quote(target)}"
            bob.post(path, json=choose.choice([{}, {"thread_id": "main"}]))
        elif kind in {"thread", "comment"}:
            rel_type = "m.thread" if kind == "thread" else "org.example.comment"
            mentions = choose.choice([[], [bob.user_id]])
            path = f"rooms/{quote(room_id)}/send/m.room.message/c{len(sent)}"
            content = {"msgtype": "m.text", "body": "x", "m.mentions": {"user_ids": mentions}}
            answer = alice.put(path, json=content | relation(rel_type, target))
            if answer.status_code == 200:  # no thread begins at an event that relates to another
                sent.append(answer.get_json()["event_id"])
        else:
            sent.append(mention(alice, room_id, bob) if kind == "mention" else alice.send(room_id))

        with app.homeserver.database.read() as tx:
            counted = set(map(tuple, tx.sql.execute(COUNTED)))
            listed = set(map(tuple, tx.sql.execute(LISTED)))
        assert counted == listed
