"""Typing, receipts and presence between servers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from homebody.background.federation.sender import Sender
from homebody.core.ephemeral import lifetimes, presence, remote_presence, sent_receipts, typing
from homebody.core.ephemeral.ephemeral import Ephemeral
from homebody.core.federation import edus
from homebody.core.federation.edus import Edus
from homebody.core.timeline import sending
from homebody.core.timeline.sending import Draft
from homebody.runtime import event_loop
from homebody.web import Application
from tests.background.federation.test_sender import registered
from tests.conftest import Login, MakeApp, Person
from tests.helpers.remote import Remote, Remotes, edu
from tests.helpers.shared_rooms import join, leave, shared_room
from tests.helpers.waiting import wait_for

Json = dict[str, Any]
CAROL = "@carol:b.test"
IN_OTHER_THREAD = {"ts": 1, "thread_id": "$x"}
TYPING, RECEIPT, PRESENCE = "m.typing", "m.receipt", "m.presence"


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def b(app: Application, remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def carol(b: Remote) -> str:
    return b.user_id("carol")


@pytest.fixture
def sender(app: Application) -> Iterator[Sender]:
    """The sender of `app`, running."""
    found = app.homeserver.sender
    found.start()
    yield found
    found.stop()


class Clock:
    """Moves the time of typing and presence by hand."""

    def __init__(self, app: Application) -> None:
        self.now_ms = 10_000_000
        parts = app.homeserver
        parts.ephemeral.close()
        self.ephemeral = Ephemeral(parts.database, parts.wakeups.wake, lambda: self.now_ms)
        lifetimes.follow(parts.database, self.ephemeral)
        remote_presence.start(parts.database, self.ephemeral)
        taken_in = Edus(parts.database, self.ephemeral, parts.device_resync)
        app.homeserver = replace(parts, ephemeral=self.ephemeral, edus=taken_in)

    def advance(self, ms: int) -> None:
        self.now_ms += ms
        self.ephemeral.timers.run_due()


@pytest.fixture
def clock(app: Application) -> Iterator[Clock]:
    clock = Clock(app)
    yield clock
    clock.ephemeral.close()


def say(person: Person, room_id: str, **body: Any) -> None:
    path = f"rooms/{quote(room_id)}/typing/{person.user_id}"
    assert person.put(path, json=body).status_code == 200


def read(person: Person, room_id: str, event_id: str, kind: str = "m.read", **body: Any) -> None:
    path = f"rooms/{quote(room_id)}/receipt/{kind}/{quote(event_id)}"
    assert person.post(path, json=body).status_code == 200


def ephemeral(person: Person, room_id: str, event_type: str) -> Json | None:
    """Return the content of the ephemeral event of this type in a first /sync."""
    room = person.sync()["rooms"]["join"][room_id]
    for event in room["ephemeral"]["events"]:
        if event["type"] == event_type:
            content: Json = event["content"]
            return content
    return None


def typers(person: Person, room_id: str) -> list[str]:
    found = ephemeral(person, room_id, TYPING)
    return [] if found is None else list(found["user_ids"])


def readers(person: Person, room_id: str, event_id: str) -> Json:
    """Return {user_id: data} of the receipts of an event."""
    found: Json = (ephemeral(person, room_id, RECEIPT) or {}).get(event_id, {}).get("m.read", {})
    return found


def deny(person: Person, room_id: str, server: str) -> None:
    content = {"allow": ["*"], "deny": [server]}
    assert person.set_state(room_id, "m.room.server_acl", content).status_code == 200


def presences(person: Person) -> dict[str, str]:
    """Return {user_id: presence} of all who are not offline."""
    events = person.sync()["presence"]["events"]
    return {it["sender"]: it["content"]["presence"] for it in events}


def remote_message(app: Application, room_id: str, user_id: str) -> str:
    with app.homeserver.database.write() as tx:
        content = {"msgtype": "m.text", "body": "hello"}
        return sending.send(tx, Draft(room_id, user_id, "m.room.message", content))


# typing


@pytest.mark.usefixtures("sender")
def test_the_servers_in_the_room_learn_who_types(
    app: Application, alice: Person, login: Login, b: Remote, remote: Remotes
) -> None:
    c = remote("c.test")
    room_id = shared_room(app, alice, b)
    shared_room(app, login("bob"), c)

    say(alice, room_id, typing=True)
    b.wait_for_edu(TYPING)
    say(alice, room_id, typing=False)
    b.wait_for_edu(TYPING, lambda content: not content["typing"])

    expected = {"room_id": room_id, "user_id": alice.user_id}
    assert b.edus(TYPING) == [{**expected, "typing": it} for it in (True, False)]
    assert c.edus(TYPING) == []


@pytest.mark.usefixtures("sender")
def test_typing_that_goes_on_is_repeated_and_its_end_is_sent(
    app: Application, alice: Person, b: Remote, clock: Clock
) -> None:
    room_id = shared_room(app, alice, b)

    for _ in range(4):
        say(alice, room_id, typing=True, timeout=30_000)
        clock.advance(typing.REPEATED_MS // 2)
        time.sleep(0.1)  # so that no EDU takes the place of one that was not sent yet
    clock.advance(30_000)

    b.wait_for_edu(TYPING, lambda content: not content["typing"])
    assert [it["typing"] for it in b.edus(TYPING)] == [True, True, False]


def test_typing_of_others_is_shown_until_they_stop(
    app: Application, alice: Person, b: Remote, carol: str
) -> None:
    room_id = shared_room(app, alice, b)
    content = {"room_id": room_id, "user_id": carol}

    b.send_edu(TYPING, {**content, "typing": True})
    began = typers(alice, room_id)
    b.send_edu(TYPING, {**content, "typing": False})

    assert began == [carol]
    assert typers(alice, room_id) == []


@pytest.mark.usefixtures("sender")
def test_typing_of_others_ends_by_itself(
    app: Application, alice: Person, b: Remote, carol: str, clock: Clock
) -> None:
    room_id = shared_room(app, alice, b)
    b.send_edu(TYPING, {"room_id": room_id, "user_id": carol, "typing": True})

    clock.advance(typing.REMOTE_MS - 1)
    before = typers(alice, room_id)
    clock.advance(1)

    assert before == [carol]
    assert typers(alice, room_id) == []
    assert b.edus(TYPING) == []


def test_typing_of_others_ends_when_they_leave(
    app: Application, alice: Person, b: Remote, carol: str
) -> None:
    room_id = shared_room(app, alice, b)
    b.send_edu(TYPING, {"room_id": room_id, "user_id": carol, "typing": True})

    leave(app, room_id, carol)

    wait_for(lambda: typers(alice, room_id) == [], "the end")


@pytest.mark.parametrize(
    "wrong",
    [
        {"user_id": "@dave:b.test"},
        {"user_id": "@alice:localhost"},
        {"user_id": "@carol:c.test"},
        {"room_id": "!other:localhost"},
        {"room_id": None},
        {"typing": "yes"},
    ],
)
def test_wrong_typing_is_dropped_alone(
    app: Application, alice: Person, b: Remote, carol: str, wrong: Json
) -> None:
    room_id = shared_room(app, alice, b)
    join(app, room_id, b.user_id("erin"))
    content = {"room_id": room_id, "user_id": carol, "typing": True}

    good = {**content, "user_id": b.user_id("erin")}
    b.send(edus=[edu(TYPING, {**content, **wrong}), edu(TYPING, good)])

    assert typers(alice, room_id) == [b.user_id("erin")]


def test_a_server_that_the_acl_denies_shows_neither_typing_nor_receipts(
    app: Application, alice: Person, b: Remote, carol: str
) -> None:
    room_id = shared_room(app, alice, b)
    event_id = alice.send(room_id)
    deny(alice, room_id, "b.test")

    b.send_edu(TYPING, {"room_id": room_id, "user_id": carol, "typing": True})
    b.send_edu(RECEIPT, receipt(room_id, carol, event_id))

    assert typers(alice, room_id) == []
    assert readers(alice, room_id, event_id) == {}


# receipts


def receipt(room_id: str, user_id: str, *event_ids: str, **data: Any) -> Json:
    entry = {"event_ids": list(event_ids), "data": {"ts": 1000, **data}}
    return {room_id: {"m.read": {user_id: entry}}}


@pytest.mark.usefixtures("sender")
def test_public_receipts_are_sent_to_the_servers_in_the_room(
    app: Application, alice: Person, b: Remote, carol: str
) -> None:
    room_id = shared_room(app, alice, b)
    event_id = remote_message(app, room_id, carol)

    read(alice, room_id, event_id, "m.read.private")
    read(alice, room_id, event_id)

    found = b.wait_for_edu(RECEIPT)
    entry = found[room_id]["m.read"][alice.user_id]
    assert entry["event_ids"] == [event_id]
    assert list(entry["data"]) == ["ts"]
    assert len(b.edus(RECEIPT)) == 1


@pytest.mark.usefixtures("sender")
def test_the_read_marker_and_threads_send_receipts_too(
    app: Application, alice: Person, b: Remote, carol: str
) -> None:
    room_id = shared_room(app, alice, b)
    first, second = (remote_message(app, room_id, carol) for _ in range(2))

    body = {"m.fully_read": first, "m.read": first}
    alice.post(f"rooms/{quote(room_id)}/read_markers", json=body)
    b.wait_for_edu(RECEIPT)
    read(alice, room_id, second, thread_id="main")

    threaded = b.wait_for_edu(
        RECEIPT, lambda it: "thread_id" in it[room_id]["m.read"][alice.user_id]["data"]
    )
    assert threaded[room_id]["m.read"][alice.user_id]["data"]["thread_id"] == "main"


@pytest.mark.usefixtures("sender")
def test_receipts_of_a_room_are_sent_once_per_second(
    app: Application, alice: Person, b: Remote, carol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sent_receipts, "INTERVAL_MS", 2500)
    room_id = shared_room(app, alice, b)
    event_ids = [remote_message(app, room_id, carol) for _ in range(6)]
    read(alice, room_id, event_ids[0])
    b.wait_for_edu(RECEIPT)

    for event_id in event_ids[1:]:
        read(alice, room_id, event_id)
    b.wait_for_edu(RECEIPT, lambda it: event_ids[-1] in str(it))

    assert len(b.edus(RECEIPT)) == 2


@pytest.mark.usefixtures("sender")
def test_a_receipt_of_an_own_event_is_sent(
    app: Application, alice: Person, b: Remote, carol: str
) -> None:
    room_id = shared_room(app, alice, b)
    event_id = alice.send(room_id)

    read(alice, room_id, event_id)

    assert b.wait_for_edu(RECEIPT)[room_id]["m.read"][alice.user_id]["event_ids"] == [event_id]


@pytest.mark.usefixtures("sender")
def test_receipts_of_older_events_are_not_sent(
    app: Application, alice: Person, b: Remote, carol: str
) -> None:
    room_id = shared_room(app, alice, b)
    older, newer = (remote_message(app, room_id, carol) for _ in range(2))
    read(alice, room_id, newer)
    b.wait_for_edu(RECEIPT)

    read(alice, room_id, older)
    say(alice, room_id, typing=True)
    b.wait_for_edu(TYPING)

    assert len(b.edus(RECEIPT)) == 1


def test_receipts_of_others_are_shown_with_their_time_and_thread(
    app: Application, alice: Person, b: Remote, carol: str
) -> None:
    room_id = shared_room(app, alice, b)
    first, second = alice.send(room_id), alice.send(room_id)

    b.send_edu(RECEIPT, receipt(room_id, carol, first))
    b.send_edu(RECEIPT, receipt(room_id, carol, second, thread_id="main"))

    assert readers(alice, room_id, first) == {carol: {"ts": 1000}}
    assert readers(alice, room_id, second) == {carol: {"ts": 1000, "thread_id": "main"}}


def test_a_receipt_only_moves_forward(
    app: Application, alice: Person, b: Remote, carol: str
) -> None:
    room_id = shared_room(app, alice, b)
    first, second = alice.send(room_id), alice.send(room_id)

    b.send_edu(RECEIPT, receipt(room_id, carol, first, second, "$unknown"))
    b.send_edu(RECEIPT, receipt(room_id, carol, first))

    assert readers(alice, room_id, first) == {}
    assert list(readers(alice, room_id, second)) == [carol]


def test_a_receipt_is_never_in_the_future(
    app: Application, alice: Person, b: Remote, carol: str
) -> None:
    room_id = shared_room(app, alice, b)
    event_id = alice.send(room_id)

    b.send_edu(RECEIPT, receipt(room_id, carol, event_id, ts=2**53 - 1))

    assert readers(alice, room_id, event_id)[carol]["ts"] <= time.time() * 1000


def test_a_receipt_for_an_event_that_comes_later_is_shown_then(
    alice: Person, b: Remote, carol: str, clock: Clock
) -> None:
    room_id = alice.create_room(preset="public_chat")
    event = b.join(room_id).message("hello")
    b.send_edu(RECEIPT, receipt(room_id, carol, event.event_id))
    before = ephemeral(alice, room_id, RECEIPT)

    assert b.send(event) == {event.event_id: {}}
    clock.advance(edus.RETRIES_MS[0])

    assert before is None
    wait_for(lambda: list(readers(alice, room_id, event.event_id)) == [carol], "the receipt")


def test_receipts_that_wait_for_their_events_are_limited(
    app: Application,
    alice: Person,
    b: Remote,
    carol: str,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edus, "MAX_WAITING_RECEIPTS", 3)
    room_id = shared_room(app, alice, b)
    clock.advance(remote_presence.MET_AFTER_MS)
    waiting = len(clock.ephemeral.timers)

    for number in range(5):
        b.send_edu(RECEIPT, receipt(room_id, carol, f"$unknown{number}"))
    added = len(clock.ephemeral.timers) - waiting
    for wait_ms in edus.RETRIES_MS:
        clock.advance(wait_ms)

    assert added == 3
    assert len(clock.ephemeral.timers) == waiting


def test_others_have_their_turn_while_many_receipts_and_messages_are_taken_in(
    app: Application, alice: Person, b: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_id = shared_room(app, alice, b)
    event_id = alice.send(room_id)
    many = {b.user_id(f"user{number}"): None for number in range(4 * edus.RECEIPTS_PER_WRITE)}
    entry = {"event_ids": [event_id], "data": {"ts": 1}}
    receipts = {room_id: {"m.read": dict.fromkeys(many, entry)}}
    messages = [
        {
            "sender": CAROL,
            "type": "m.x",
            "message_id": f"{number}",
            "messages": {alice.user_id: {"*": {}}},
        }
        for number in range(10)
    ]
    pauses: list[None] = []
    monkeypatch.setattr(event_loop, "pause", lambda: pauses.append(None))

    b.send(edus=[edu(RECEIPT, receipts), *(edu("m.direct_to_device", it) for it in messages)])

    assert len(pauses) >= 4 + len(messages)


@pytest.mark.parametrize(
    "wrong",
    [
        {"!other:localhost": {"m.read": {}}},
        {"room": {}},
        {"ROOM": {"m.read": {"@dave:b.test": {"event_ids": ["EVENT"], "data": {"ts": 1}}}}},
        {"ROOM": {"m.read": {"@alice:localhost": {"event_ids": ["EVENT"], "data": {"ts": 1}}}}},
        {"ROOM": {"m.read": {CAROL: {"event_ids": ["EVENT"], "data": {}}}}},
        {"ROOM": {"m.read": {CAROL: {"event_ids": [], "data": {"ts": 1}}}}},
        {"ROOM": {"m.read.private": {CAROL: {"event_ids": ["EVENT"], "data": {"ts": 1}}}}},
        {"ROOM": {"m.read": {CAROL: {"event_ids": ["EVENT"], "data": IN_OTHER_THREAD}}}},
    ],
)
def test_wrong_receipts_are_dropped_alone(
    app: Application, alice: Person, b: Remote, wrong: Json
) -> None:
    room_id = shared_room(app, alice, b)
    event_id, erin = alice.send(room_id), b.user_id("erin")
    join(app, room_id, erin)
    text = json.dumps(wrong).replace("ROOM", room_id).replace("EVENT", event_id)

    right = receipt(room_id, erin, event_id)
    b.send(edus=[edu(RECEIPT, json.loads(text)), edu(RECEIPT, right)])

    assert list(readers(alice, room_id, event_id)) == [erin]


# presence


@pytest.mark.usefixtures("sender")
def test_presence_is_sent_to_servers_that_share_a_room(
    app: Application, alice: Person, login: Login, b: Remote, remote: Remotes
) -> None:
    c = remote("c.test")
    shared_room(app, alice, b)
    shared_room(app, login("bob"), c)

    body = {"presence": "online", "status_msg": "here"}
    alice.put(f"presence/{alice.user_id}/status", json=body)

    (entry,) = b.wait_for_edu(PRESENCE)["push"]
    assert type(entry.pop("last_active_ago")) is int
    assert entry == {"user_id": alice.user_id, **body, "currently_active": True}
    assert c.edus(PRESENCE) == []


@pytest.mark.usefixtures("sender")
def test_presence_is_repeated_while_a_user_is_there(
    app: Application, alice: Person, b: Remote, clock: Clock
) -> None:
    shared_room(app, alice, b)
    with presence.syncing(clock.ephemeral, alice.user_id, alice.device_id):
        b.wait_for_edu(PRESENCE)
        clock.advance(remote_presence.REPEATED_MS - 1)
        before = len(b.edus(PRESENCE))
        clock.advance(1)
        b.wait_until(lambda: len(b.edus(PRESENCE)) > before, "the repetition")

    assert {it["user_id"] for edu in b.edus(PRESENCE) for it in edu["push"]} == {alice.user_id}


@pytest.mark.usefixtures("sender")
def test_a_server_that_begins_to_share_a_room_is_sent_who_is_there(
    alice: Person, login: Login, b: Remote, clock: Clock
) -> None:
    bob, erin = login("bob"), login("erin")
    room_id = alice.create_room(preset="public_chat")
    for person in (bob, erin):
        assert person.post(f"join/{quote(room_id)}").status_code == 200
    for person in (alice, bob):
        person.put(f"presence/{person.user_id}/status", json={"presence": "unavailable"})

    b.join(room_id, "carol")
    b.join(room_id, "dave")
    clock.advance(remote_presence.MET_AFTER_MS - 1)
    before = b.edus(PRESENCE)
    clock.advance(1)

    sent = b.wait_for_edu(PRESENCE)["push"]
    assert before == []
    assert {it["user_id"]: it["presence"] for it in sent} == {
        alice.user_id: "unavailable",
        bob.user_id: "unavailable",
    }
    assert len(b.edus(PRESENCE)) == 1


@pytest.mark.usefixtures("sender")
def test_servers_of_a_room_are_sent_the_presence_of_a_user_who_joins_it(
    alice: Person, login: Login, b: Remote, clock: Clock
) -> None:
    bob = login("bob")
    first, second = (b.room("11") for _ in range(2))
    bob.put(f"presence/{bob.user_id}/status", json={"presence": "unavailable"})
    assert alice.post(f"join/{quote(first.id)}?via=b.test").status_code == 200
    clock.advance(remote_presence.MET_AFTER_MS)

    assert bob.post(f"join/{quote(first.id)}?via=b.test").status_code == 200
    clock.advance(remote_presence.MET_AFTER_MS)

    (sent,) = b.wait_for_edu(PRESENCE)["push"]
    assert (sent["user_id"], sent["presence"]) == (bob.user_id, "unavailable")
    assert bob.post(f"join/{quote(second.id)}?via=b.test").status_code == 200  # shared already
    clock.advance(remote_presence.MET_AFTER_MS)
    alice.send(first.id)
    b.wait_until(lambda: any(it["type"] == "m.room.message" for it in b.pdus))
    assert len(b.edus(PRESENCE)) == 1


def test_presence_of_users_who_share_a_room_is_shown(
    app: Application, alice: Person, b: Remote, carol: str
) -> None:
    shared_room(app, alice, b)
    entry = {"user_id": carol, "presence": "unavailable", "status_msg": "x", "last_active_ago": 5}

    b.send_edu(PRESENCE, {"push": [entry, {**entry, "user_id": b.user_id("dave")}]})

    assert presences(alice) == {alice.user_id: "online", carol: "unavailable"}
    shown = alice.get(f"presence/{carol}/status").get_json()
    assert shown["status_msg"] == "x"
    assert 5 <= shown["last_active_ago"] < 60_000
    assert alice.get(f"presence/{b.user_id('dave')}/status").status_code == 403


def test_a_user_of_whom_nothing_is_heard_goes_offline(
    app: Application, alice: Person, b: Remote, carol: str, clock: Clock
) -> None:
    shared_room(app, alice, b)
    content = {"push": [{"user_id": carol, "presence": "online", "last_active_ago": 0}]}
    b.send_edu(PRESENCE, content)
    clock.advance(remote_presence.REPEATED_MS)
    b.send_edu(PRESENCE, content)

    clock.advance(remote_presence.TIMEOUT_MS - 1)
    before = presences(alice)
    clock.advance(1)

    assert before[carol] == "online"
    assert carol not in presences(alice)


def test_presence_of_before_a_restart_ends_only_by_that_time(
    app: Application, alice: Person, b: Remote, carol: str, clock: Clock
) -> None:
    shared_room(app, alice, b)
    presence.restore(clock.ephemeral, carol, "online", None, 0)
    b.send_edu(PRESENCE, {"push": [{"user_id": carol, "presence": "online"}]})

    clock.advance(presence.OFFLINE_AFTER_MS + presence.IDLE_AFTER_MS)

    assert presences(alice)[carol] == "online"


@pytest.mark.parametrize(
    "wrong",
    [
        {"user_id": "@alice:localhost"},
        {"user_id": "@carol:c.test"},
        {"user_id": None},
        {"presence": "busy"},
        {"presence": None},
    ],
)
def test_wrong_presences_are_dropped_alone(
    app: Application, alice: Person, b: Remote, carol: str, wrong: Json
) -> None:
    room_id = shared_room(app, alice, b)
    erin = b.user_id("erin")
    join(app, room_id, erin)
    entry = {"user_id": carol, "presence": "unavailable"}

    b.send_edu(PRESENCE, {"push": [{**entry, **wrong}, {**entry, "user_id": erin}, None]})

    assert presences(alice) == {alice.user_id: "online", erin: "unavailable"}


def test_an_edu_has_at_most_50_presences(app: Application, alice: Person, b: Remote) -> None:
    room_id = shared_room(app, alice, b)
    users = [b.user_id(f"u{number:02}") for number in range(60)]
    join(app, room_id, *users)

    b.send_edu(PRESENCE, {"push": [{"user_id": it, "presence": "online"} for it in users]})

    assert sorted(presences(alice).keys() - {alice.user_id}) == users[:50]


def test_presence_is_neither_sent_nor_shown_if_it_is_off(
    make_app: MakeApp, remote: Remotes
) -> None:
    app = make_app(**remote.settings, presence="false")
    remote.talk_to(app)
    b, alice = remote("b.test"), registered(app)
    room_id = shared_room(app, alice, b)
    app.homeserver.sender.start()

    alice.put(f"presence/{alice.user_id}/status", json={"presence": "online"})
    entry = {"user_id": b.user_id("carol"), "presence": "online"}
    b.send_edu(PRESENCE, {"push": [entry]})
    say(alice, room_id, typing=True)
    b.wait_for_edu(TYPING)
    app.homeserver.sender.stop()

    assert b.edus(PRESENCE) == []
    assert presences(alice) == {}
