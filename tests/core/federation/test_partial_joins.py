from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select

from homebody.core import incoming, partial_rooms
from homebody.core.accounts import accounts
from homebody.core.encryption import remote_devices
from homebody.core.events import client_events, search_index
from homebody.core.events import state as room_state
from homebody.core.events.state import KnownEvent
from homebody.core.federation import inbound, partial_joins, remote_states, resolver
from homebody.core.federation.joins import JoinRequest
from homebody.core.federation.partial_joins import PartialJoins
from homebody.core.rooms import purge
from homebody.core.timeline import forks, partial_state, rechecks
from homebody.errors import MatrixError
from homebody.models.events import ACCEPTED
from homebody.spec.events import Event
from homebody.storage.caches import NOWHERE
from homebody.storage.database import Reader
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers import remote_answers, sliding
from tests.helpers.encryption import upload_device_keys
from tests.helpers.gaps import ends, standing
from tests.helpers.partial_rooms import is_partial, join, let_state_come, omitting
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import CREATE, RemoteRoom
from tests.helpers.rooms import act, ids, membership, refusal, state_of
from tests.helpers.scripted_server import Response
from tests.helpers.waiting import wait_for

Json = dict[str, Any]
ALICE = "@alice:localhost"
CAROL = "@carol:b.test"
DAVE = "@dave:b.test"
LAZY = json.dumps({"room": {"state": {"lazy_load_members": True}}})


@pytest.fixture
def b(remote: Remotes, app: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    """A server that leaves members out, and does not send them before `let_state_come`."""
    with omitting(remote, app, monkeypatch) as b:
        yield b


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def joined(person: Person, room_id: str, since: str | None = None, **query: Any) -> Json | None:
    """Return the room in the section `join` of a /sync response, if it is there."""
    found: Json | None = person.sync(since, **query)["rooms"]["join"].get(room_id)
    return found


def bodies(entry: Json | None) -> list[str]:
    events = [] if entry is None else entry["timeline"]["events"]
    return [it["content"]["body"] for it in events if it["type"] == "m.room.message"]


def users_in(entry: Json | None) -> set[str]:
    """Return the users whose member events a response has, in the state or the timeline."""
    assert entry is not None
    events = [*entry["state"]["events"], *entry["timeline"]["events"]]
    return {it["state_key"] for it in events if it["type"] == "m.room.member"}


def messages(person: Person, room_id: str) -> list[str]:
    page = person.get(f"rooms/{quote(room_id)}/messages?dir=b&limit=50").get_json()["chunk"]
    return [it["content"]["body"] for it in page if it["type"] == "m.room.message"]


def test_clients_that_load_members_lazily_see_the_room_at_once(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.set_state("m.room.name", {"name": "Large"})
    room.member("dave", "join")
    since = alice.sync(filter=LAZY)["next_batch"]

    assert join(alice, room.id).get_json() == {"room_id": room.id}

    assert is_partial(app, room.id)
    shown = joined(alice, room.id, since, filter=LAZY)
    assert shown is not None
    assert users_in(shown) == {ALICE}
    names = [it["content"] for it in shown["state"]["events"] if it["type"] == "m.room.name"]
    assert names == [{"name": "Large"}]
    assert room.id in sliding.ask(alice)["rooms"]


def test_other_clients_see_it_when_all_members_are_known(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.member("dave", "join")
    first = alice.sync()["next_batch"]
    join(alice, room.id)

    between = alice.sync(first)
    assert room.id not in between["rooms"]["join"]
    assert joined(alice, room.id) is None
    let_state_come(b, app, room)

    for since in (first, between["next_batch"], None):
        shown = joined(alice, room.id, since)
        assert users_in(shown) == {ALICE, CAROL, DAVE}
    later = alice.sync(between["next_batch"])["next_batch"]
    assert joined(alice, room.id, later) is None


def test_a_client_that_waits_is_woken_when_the_members_are_known(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    join(alice, room.id)
    since = alice.sync()["next_batch"]

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(joined, alice, room.id, since, timeout=30_000)
        time.sleep(0.5)
        assert not waiting.done()
        let_state_come(b, app, room)
        assert waiting.result(timeout=10) is not None


def test_at_the_end_the_state_is_that_of_the_room(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.member("dave", "join")
    room.member("erin", "invite", sender=CAROL)
    room.member("frank", "ban", sender=CAROL)
    join(alice, room.id)

    let_state_come(b, app, room)

    assert state_of(alice, room.id) == {key: it.content for key, it in room.state.items()}
    path = f"rooms/{quote(room.id)}"
    there = alice.get(f"{path}/joined_members").get_json()["joined"]
    assert there.keys() == {ALICE, CAROL, DAVE}
    with app.homeserver.database.read() as tx:
        assert room_state.joined(tx, room.id).total == 3
        assert dict(room_state.joined(tx, room.id).servers) == {"localhost": 1, "b.test": 2}


@pytest.mark.parametrize(
    "path", ["members", "joined_members", "state", f"state/m.room.member/{DAVE}"]
)
def test_who_asks_for_members_waits_for_them(
    b: Remote, app: Application, alice: Person, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    room = b.room()
    room.member("dave", "join")
    join(alice, room.id)
    url = f"rooms/{quote(room.id)}/{path}"

    monkeypatch.setattr(partial_rooms, "WAIT_SECONDS", 0.1)
    assert refusal(alice.get(url)) == (504, "M_UNKNOWN")
    monkeypatch.setattr(partial_rooms, "WAIT_SECONDS", 20.0)
    b.recover("/state")
    answer = alice.get(url)

    assert answer.status_code == 200
    assert not is_partial(app, room.id)


def test_what_local_users_are_in_the_room_is_known_at_once(b: Remote, alice: Person) -> None:
    room = b.room()
    join(alice, room.id)

    assert membership(alice, room.id, ALICE)["membership"] == "join"


def test_a_message_of_an_unknown_member_is_shown_with_its_sender(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.member("dave", "join", content={"displayname": "Dave"})
    join(alice, room.id)
    since = alice.sync(filter=LAZY)["next_batch"]
    message = room.message("hello alice", sender="dave")

    assert b.send(message) == {message.event_id: {}}

    wait_for(lambda: messages(alice, room.id), "the message, after its auth events")
    shown = joined(alice, room.id, since, filter=LAZY)
    assert bodies(shown) == ["hello alice"]
    assert users_in(shown) == {DAVE}
    let_state_come(b, app, room)
    assert messages(alice, room.id) == ["hello alice"]
    assert state_of(alice, room.id)["m.room.member", DAVE]["displayname"] == "Dave"


def test_changes_of_members_meanwhile_stay(b: Remote, app: Application, alice: Person) -> None:
    room = b.room()
    room.member("dave", "join")
    room.member("erin", "join")
    join(alice, room.id)
    b.send(
        room.member("dave", "join", content={"displayname": "David"}),
        room.member("erin", "leave"),
        room.member("frank", "join"),
        room.set_state("m.room.topic", {"topic": "news"}),
    )

    let_state_come(b, app, room)
    wait_for(lambda: not waiting_pdus(app, room.id), "the events that had to wait")

    assert state_of(alice, room.id) == {key: it.content for key, it in room.state.items()}
    with app.homeserver.database.read() as tx:
        assert room_state.joined(tx, room.id).total == 4


def test_branches_meanwhile_resolve_to_the_same_state(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.member("dave", "join")
    join(alice, room.id)
    (start,) = room.heads
    left = room.member("dave", "leave", prev=[start])
    right = room.set_state("m.room.topic", {"topic": "right"}, prev=[start])
    b.send(left, right)

    let_state_come(b, app, room)
    merged = room.message("merged")
    b.send(merged)

    assert state_of(alice, room.id) == {key: it.content for key, it in room.state.items()}
    assert messages(alice, room.id) == ["merged"]


def test_events_whose_state_takes_long_to_resolve_wait_for_the_members(
    b: Remote, app: Application, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = b.room()
    room.member("dave", "join")
    join(alice, room.id)
    (start,) = room.heads
    left = room.set_state("m.room.topic", {"topic": "left"}, prev=[start])
    right = room.set_state("m.room.topic", {"topic": "right"}, prev=[start])
    for module, name in ((inbound, "SECONDS_TO_RESOLVE"), (resolver, "SECONDS_IN_WRITE")):
        monkeypatch.setattr(module, name, -1.0)

    b.send(left, right)
    wait_for(lambda: put_off(app, room.id), "the second event")
    at_first = standing(app, right)
    let_state_come(b, app, room)
    wait_for(lambda: not waiting_pdus(app, room.id), "all events")

    assert at_first is None
    assert standing(app, right) == ACCEPTED
    assert state_of(alice, room.id) == {key: it.content for key, it in room.state.items()}


def waiting_pdus(app: Application, room_id: str) -> bool:
    """Return whether events of the room wait for others."""
    with app.homeserver.database.read() as tx:
        return incoming.next_try_ts(tx, room_id) is not None


def put_off(app: Application, room_id: str) -> bool:
    """Return whether an event of the room waits to be tried later."""
    with app.homeserver.database.read() as tx:
        return bool(incoming.next_try_ts(tx, room_id))


def banned_dave(room: RemoteRoom) -> list[Any]:
    """Ban Dave, and return the auth events by which he can pretend that he is there."""
    room.member("dave", "join")
    levels = {**(room.content("m.room.power_levels") or {})}
    levels["users"] = {**levels["users"], DAVE: 60}
    room.set_state("m.room.power_levels", levels)
    old = [room.state[key] for key in (("m.room.member", DAVE), ("m.room.power_levels", ""))]
    room.member("dave", "ban", sender=CAROL)
    return [room.state["m.room.create", ""].event_id, *(it.event_id for it in old)]


def test_events_of_banned_users_are_rejected_when_all_members_are_known(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room("11")
    room.set_state("m.room.topic", {"topic": "before"})
    cited = banned_dave(room)
    join(alice, room.id)
    fine = room.message("fine")
    topic = room.event(
        "m.room.topic", {"topic": "lie"}, "", sender="dave", auth_events=cited, add=False
    )
    spam = room.message("spam", sender="dave", auth_events=cited, add=False)
    b.send(fine, topic, spam)
    wait_for(lambda: not waiting_pdus(app, room.id), "the events of Dave")
    since = alice.sync(filter=LAZY)["next_batch"]
    assert messages(alice, room.id) == ["spam", "fine"]
    assert alice.get(f"rooms/{quote(room.id)}/state/m.room.topic").get_json()["topic"] == "lie"

    let_state_come(b, app, room)

    assert messages(alice, room.id) == ["fine"]
    assert state_of(alice, room.id) == {key: it.content for key, it in room.state.items()}
    shown = joined(alice, room.id, since, filter=LAZY)
    assert shown is not None
    topics = [it["content"] for it in shown["state"]["events"] if it["type"] == "m.room.topic"]
    assert topics == [{"topic": "before"}]
    assert bodies(shown) == []
    assert bodies(joined(alice, room.id)) == ["fine"]
    found = alice.get(f"rooms/{quote(room.id)}/event/{quote(spam.event_id)}")
    assert found.status_code == 404
    with app.homeserver.database.read() as tx:  # what comes next does not follow them
        assert room_state.head(tx, room.id).forward_extremities == [fine.event_id]
    after = room.message("after")
    assert b.send(after) == {after.event_id: {}}
    counted = alice.sync()["rooms"]["join"][room.id]["unread_notifications"]
    assert counted["notification_count"] == 2


def test_a_chain_of_refused_state_leads_back_to_what_was_before(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room("11")
    cited = banned_dave(room)
    join(alice, room.id)
    before = alice.sync(filter=LAZY)["next_batch"]
    last = start = room.heads[-1]
    for number in range(3):
        lie = room.event(
            "m.room.topic",
            {"topic": f"lie {number}"},
            "",
            sender="dave",
            auth_events=cited,
            prev_events=[last],
            add=False,
        )
        b.send(lie)
        wait_for(lambda: not waiting_pdus(app, room.id), "the events of Dave")
        last = lie.event_id
    shown = alice.get(f"rooms/{quote(room.id)}/state/m.room.topic").get_json()
    assert shown == {"topic": "lie 2"}
    with app.homeserver.database.read() as tx:
        meanwhile = tx.position

    let_state_come(b, app, room)

    topic = ("m.room.topic", "")
    assert topic not in state_of(alice, room.id)
    with app.homeserver.database.read() as tx:
        assert room_state.numbers_at(tx, room.id, [topic], meanwhile) == {}
        assert room_state.head(tx, room.id).forward_extremities == [start]
    shown = joined(alice, room.id, before, filter=LAZY)
    assert shown is not None
    types = {it["type"] for it in [*shown["timeline"]["events"], *shown["state"]["events"]]}
    assert "m.room.topic" not in types


def test_members_that_the_first_server_has_made_up_are_gone_in_the_end(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    ghost = room.member("ghost", "join", add=False)

    def respond(request: Any) -> Response:
        answer = remote_answers.send_join(b, request)
        return Response(200, answer | {"state": [*answer["state"], ghost.pdu]})

    b.answer("/send_join/", respond, times=1)
    join(alice, room.id)
    with app.homeserver.database.read() as tx:
        assert room_state.is_joined(tx, room.id, "@ghost:b.test")

    let_state_come(b, app, room)

    assert state_of(alice, room.id).keys() == room.state.keys()
    with app.homeserver.database.read() as tx:
        assert room_state.joined(tx, room.id).total == 2
        assert room.id not in room_state.joined_rooms(tx, "@ghost:b.test")


def test_a_server_of_which_one_member_leaves_may_have_others(
    b: Remote, remote: Remotes, app: Application, alice: Person
) -> None:
    app.homeserver.sender.start()
    c, room = remote("c.test"), b.room()
    c.rooms[room.id] = room
    room.member("erin", "join", by=c)
    room.member("frank", "join", by=c)
    join(alice, room.id)
    c.send(room.member("erin", "leave", by=c))
    wait_for(lambda: not waiting_pdus(app, room.id), "the leave")
    with app.homeserver.database.read() as tx:
        assert room_state.membership_of(tx, room.id, "@erin:c.test") == "leave"

    alice.send(room.id, "hello")

    c.wait_until(lambda: [it["content"].get("body") for it in c.pdus] == ["hello"])
    app.homeserver.sender.stop()


def test_a_user_who_waits_for_the_join_of_another_is_not_let_in_unseen(
    b: Remote, app: Application, alice: Person, login: Login
) -> None:
    mallory, room = login("mallory"), b.room()
    room.member(mallory.user_id, "ban", sender=CAROL)
    b.delay("/send_join/", 0.5, times=1)
    request = JoinRequest(room.id, ALICE, {}, ["b.test"])

    with ThreadPoolExecutor() as pool:
        first = pool.submit(app.homeserver.joins.join, request)
        b.wait_until(lambda: b.received("/send_join/"))
        with pytest.raises(MatrixError, match="banned"):
            app.homeserver.joins.join(JoinRequest(room.id, mallory.user_id, {}, ["b.test"]))
        first.result()

    assert is_partial(app, room.id)
    with app.homeserver.database.read() as tx:
        assert not room_state.is_joined(tx, room.id, mallory.user_id)


def test_a_banned_user_of_a_server_without_members_gets_and_sends_nothing(
    b: Remote, remote: Remotes, app: Application, alice: Person
) -> None:
    app.homeserver.sender.start()
    c, room = remote("c.test"), b.room("11")
    c.rooms[room.id] = room
    mallory = room.member("mallory", "join", by=c)
    room.member("@mallory:c.test", "ban", sender=CAROL)
    join(alice, room.id)
    cited = [room.state["m.room.create", ""], mallory, room.state["m.room.power_levels", ""]]
    spam = room.message(
        "spam", sender="mallory", by=c, auth_events=[it.event_id for it in cited], add=False
    )

    c.send(spam)
    b.wait_until(lambda: [*b.received("/event_auth/"), *c.received("/event_auth/")])
    wait_for(lambda: not waiting_pdus(app, room.id), "the decision on the event")
    assert messages(alice, room.id) == []

    event_id = alice.send(room.id, "secret")
    b.wait_for_event(event_id)
    assert c.pdus == []
    assert c.get("v1", "event", event_id).status == 403
    let_state_come(b, app, room)
    assert messages(alice, room.id) == ["secret"]
    app.homeserver.sender.stop()


def lie_about_servers(b: Remote, *servers: Any) -> None:
    def respond(request: Any) -> Response:
        return Response(200, remote_answers.send_join(b, request) | {"servers_in_room": servers})

    b.answer("/send_join/", respond, times=1)


def test_members_of_a_server_that_was_not_named_are_heard_in_the_end(
    b: Remote, remote: Remotes, app: Application, alice: Person
) -> None:
    c, room = remote("c.test"), b.room()
    room.member("erin", "join", by=c)
    lie_about_servers(b, "b.test")
    join(alice, room.id)
    message = room.message("hello", sender="erin", by=c)
    c.send(message)

    let_state_come(b, app, room)

    wait_for(lambda: messages(alice, room.id) == ["hello"], "the message")
    assert state_of(alice, room.id) == {key: it.content for key, it in room.state.items()}
    with app.homeserver.database.read() as tx:
        assert dict(room_state.joined(tx, room.id).servers) == {
            "localhost": 1,
            "b.test": 1,
            "c.test": 1,
        }


@pytest.mark.parametrize("servers", [("not a name", "", "localhost"), ()])
def test_names_of_servers_that_are_none_are_ignored(
    b: Remote, app: Application, alice: Person, servers: tuple[Any, ...]
) -> None:
    room = b.room()
    lie_about_servers(b, *servers)

    assert join(alice, room.id).status_code == 200
    with app.homeserver.database.read() as tx:
        assert partial_rooms.servers_in_room(tx, room.id) == {"b.test"}
    let_state_come(b, app, room)
    assert state_of(alice, room.id).keys() == room.state.keys()


def test_servers_that_are_said_to_be_there_and_are_not_get_nothing_more_in_the_end(
    b: Remote, remote: Remotes, app: Application, alice: Person
) -> None:
    c, room = remote("c.test"), b.room()
    lie_about_servers(b, "b.test", "c.test")
    join(alice, room.id)
    let_state_come(b, app, room)
    with app.homeserver.database.read() as tx:
        assert room_state.joined(tx, room.id).servers.keys() == {"b.test", "localhost"}
    app.homeserver.sender.start()

    b.wait_for_event(alice.send(room.id, "secret"))

    assert c.pdus == []
    app.homeserver.sender.stop()


def test_what_local_users_say_meanwhile_reaches_all_servers(
    b: Remote, remote: Remotes, app: Application, alice: Person
) -> None:
    app.homeserver.sender.start()
    c, room = remote("c.test"), b.room()
    c.rooms[room.id] = room
    room.member("erin", "join", by=c)
    join(alice, room.id)

    event_id = alice.send(room.id, "hello")

    b.wait_until(lambda: event_id in room.events)
    c.wait_until(lambda: [it["content"].get("body") for it in c.pdus] == ["hello"])
    let_state_come(b, app, room)
    app.homeserver.sender.stop()


def test_a_kick_meanwhile_ends_it(b: Remote, app: Application, alice: Person) -> None:
    room = b.room()
    join(alice, room.id)
    since = alice.sync(filter=LAZY)["next_batch"]
    kick = room.member(ALICE, "leave", sender=CAROL)

    assert b.send(kick) == {kick.event_id: {}}

    assert room.id in alice.sync(since, filter=LAZY)["rooms"]["leave"]
    assert not is_partial(app, room.id)
    with app.homeserver.database.read() as tx:
        assert "b.test" not in room_state.joined(tx, room.id).presumed


def test_a_leave_meanwhile_works_at_once_and_the_next_join_has_all_members(
    b: Remote, app: Application, alice: Person
) -> None:
    app.homeserver.sender.start()
    room = b.room()
    room.member("dave", "join")
    join(alice, room.id)

    assert act(alice, room.id, "leave").status_code == 200

    b.wait_until(lambda: room.membership(ALICE) == "leave")
    app.homeserver.sender.stop()
    assert not is_partial(app, room.id)
    room.member("dave", "leave")
    assert join(alice, room.id).status_code == 200
    assert not is_partial(app, room.id)
    assert "omit_members" not in b.received("/send_join/")[-1].query
    assert state_of(alice, room.id) == {key: it.content for key, it in room.state.items()}


def test_another_user_who_joins_meanwhile_asks_the_other_server(
    b: Remote, app: Application, alice: Person, login: Login
) -> None:
    bob, mallory = login("bob"), login("mallory")
    room = b.room()
    room.member(mallory.user_id, "ban", sender=CAROL)
    join(alice, room.id)

    assert join(bob, room.id).status_code == 200
    assert refusal(join(mallory, room.id)) == (403, "M_FORBIDDEN")

    assert room.membership(bob.user_id) == "join"
    assert joined(bob, room.id, filter=LAZY) is not None
    let_state_come(b, app, room)
    assert state_of(bob, room.id) == {key: it.content for key, it in room.state.items()}
    assert refusal(join(mallory, room.id)) == (403, "M_FORBIDDEN")


def test_a_local_user_who_is_invited_meanwhile_joins_here(
    b: Remote, app: Application, alice: Person, login: Login
) -> None:
    app.homeserver.sender.start()
    bob, room = login("bob"), b.room()
    join(alice, room.id)
    act(alice, room.id, "invite", user_id=bob.user_id)

    assert join(bob, room.id).status_code == 200

    assert len(b.received("/make_join/")) == 1
    b.wait_until(lambda: room.membership(bob.user_id) == "join")
    let_state_come(b, app, room)
    assert state_of(bob, room.id) == {key: it.content for key, it in room.state.items()}
    app.homeserver.sender.stop()


@pytest.mark.parametrize("operation", ["make_join", "make_knock", "make_leave"])
def test_other_servers_can_not_join_by_this_one_before(
    b: Remote, remote: Remotes, app: Application, alice: Person, operation: str
) -> None:
    c, room = remote("c.test"), b.room()
    join(alice, room.id)
    versions = [("ver", room.version.name)]

    answer = c.get("v1", operation, room.id, "@erin:c.test", query=versions)
    assert (answer.status, answer.json["errcode"]) == (404, "M_NOT_FOUND")

    let_state_come(b, app, room)
    if operation == "make_join":
        assert c.get("v1", operation, room.id, "@erin:c.test", query=versions).status == 200


def test_a_join_that_was_begun_before_is_not_taken_in_either(
    b: Remote, remote: Remotes, alice: Person
) -> None:
    c, room = remote("c.test"), b.room()
    join(alice, room.id)
    event = room.member("erin", "join", by=c, add=False)

    answer = c.put("v2", "send_join", room.id, event.event_id, json=event.pdu)

    assert (answer.status, answer.json["errcode"]) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("operation", ["state", "state_ids"])
def test_other_servers_wait_for_the_state_and_are_not_sent_one_without_members(
    b: Remote, app: Application, alice: Person, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    room = b.room()
    room.member("dave", "join")
    join(alice, room.id)
    asked: Json = {"query": {"event_id": alice.send(room.id, "hello")}}

    monkeypatch.setattr(partial_rooms, "WAIT_SECONDS", 0.1)
    answer = b.get("v1", operation, room.id, **asked)
    assert (answer.status, answer.json["errcode"]) == (404, "M_NOT_FOUND")
    monkeypatch.setattr(partial_rooms, "WAIT_SECONDS", 20.0)
    b.recover("/state")
    answer = b.get("v1", operation, room.id, **asked)

    assert answer.status == 200
    assert not is_partial(app, room.id)
    assert len(answer.json["pdus" if operation == "state" else "pdu_ids"]) == len(room.state)


def test_another_server_is_asked_if_the_first_one_does_not_respond(
    b: Remote, remote: Remotes, app: Application, alice: Person
) -> None:
    c, room = remote("c.test"), b.room()
    c.rooms[room.id] = room
    room.member("erin", "join", by=c)
    join(alice, room.id)

    wait_for(lambda: not is_partial(app, room.id), "all members of the room")

    assert c.received("/state")
    assert state_of(alice, room.id).keys() == room.state.keys()


def test_another_server_is_asked_if_the_response_of_the_first_one_fails_here(
    b: Remote,
    remote: Remotes,
    app: Application,
    alice: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    c, room = remote("c.test"), b.room()
    c.rooms[room.id] = room
    room.member("erin", "join", by=c)
    complete = PartialJoins._complete  # noqa: SLF001 - one of the two fails

    def fail(self: PartialJoins, server: str, *others: Any) -> None:
        if server == "b.test":
            raise KeyError(server)
        complete(self, server, *others)

    monkeypatch.setattr(PartialJoins, "_complete", fail)
    b.recover("/state")
    join(alice, room.id)

    wait_for(lambda: not is_partial(app, room.id), "all members of the room")


def without_create(answer: Json) -> None:
    answer["pdus"] = [it for it in answer["pdus"] if it["type"] != "m.room.create"]


def nothing(answer: Json) -> None:
    answer["pdus"] = answer["auth_chain"] = []


@pytest.mark.parametrize("change", [without_create, nothing])
def test_a_response_that_is_no_state_of_the_room_is_not_taken_for_it(
    b: Remote,
    app: Application,
    alice: Person,
    monkeypatch: pytest.MonkeyPatch,
    change: Any,
) -> None:
    monkeypatch.setattr(remote_states, "MAX_IDS_BYTES", 10)
    room = b.room()
    room.member("dave", "join")

    def respond(request: Any) -> Response:
        answer = remote_answers.state(b, request)
        change(answer)
        return Response(200, answer)

    b.recover("/state")
    b.answer("/state/", respond)
    join(alice, room.id)

    b.wait_until(lambda: len(b.received("/state/")) > 2)
    assert is_partial(app, room.id)
    b.recover("/state/")
    let_state_come(b, app, room)
    assert state_of(alice, room.id).keys() == room.state.keys()


def test_the_next_process_goes_on(b: Remote, app: Application, alice: Person) -> None:
    room = b.room()
    join(alice, room.id)
    app.homeserver.partial_joins.stop()
    wait_for(app.homeserver.partial_joins.is_idle, "the end of the work")
    asked = len(b.received("/state"))
    homeserver = app.homeserver
    following = partial_joins.PartialJoins(
        homeserver.database,
        homeserver.federation,
        homeserver.server_keys,
        homeserver.locks,
        homeserver.inbound,
    )

    following.start()

    b.wait_until(lambda: len(b.received("/state")) > asked)
    let_state_come(b, app, room)
    wait_for(following.is_idle, "the end of the work")


def test_the_device_lists_of_all_members_are_new_when_they_are_known(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.member("dave", "join")
    since = alice.sync(filter=LAZY)["next_batch"]
    join(alice, room.id)
    between = alice.sync(since, filter=LAZY)
    assert DAVE not in between["device_lists"]["changed"]

    let_state_come(b, app, room)

    for token in (since, between["next_batch"]):
        changed = alice.sync(token, filter=LAZY)["device_lists"]["changed"]
        assert set(changed) >= {CAROL, DAVE}
    lists = alice.get("keys/changes", query_string={"from": since, "to": "s0"}).get_json()
    assert set(lists["changed"]) >= {CAROL, DAVE}


def test_a_device_list_that_changes_while_it_is_fetched_is_not_kept(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.member("dave", "join")
    join(alice, room.id)
    with app.homeserver.database.read() as tx:
        assert not remote_devices.sharing(tx, [DAVE])
    b.add_device("dave", "PHONE")

    def respond(request: Any) -> Response:
        answer = remote_answers.keys_query(b, request)
        b.add_device("dave", "TABLET")
        update = {"user_id": DAVE, "device_id": "TABLET", "stream_id": 2, "prev_id": [1]}
        b.send_edu("m.device_list_update", update)
        let_state_come(b, app, room)
        return Response(200, answer)

    b.answer("/user/keys/query", respond, times=1)
    alice.post("keys/query", json={"device_keys": {DAVE: []}})

    found = alice.post("keys/query", json={"device_keys": {DAVE: []}}).get_json()
    assert found["device_keys"][DAVE].keys() == {"PHONE", "TABLET"}


def test_the_number_of_members_in_the_summary_is_sent_again(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.member("dave", "join")
    join(alice, room.id)
    since = alice.sync(filter=LAZY)["next_batch"]

    let_state_come(b, app, room)

    shown = joined(alice, room.id, since, filter=LAZY)
    assert shown is not None
    assert shown["summary"]["m.joined_member_count"] == 3
    assert shown["timeline"]["events"] == []


def test_a_large_room_is_not_taken_for_a_chat_of_two(
    b: Remote, app: Application, alice: Person
) -> None:
    rule = "pushrules/global/underride/.m.rule.message/actions"
    alice.put(rule, json={"actions": ["dont_notify"]})
    room = b.room()
    room.member("dave", "join")
    join(alice, room.id)

    b.send(room.message("hello"))

    shown = joined(alice, room.id, filter=LAZY)
    assert shown is not None
    assert shown["unread_notifications"]["notification_count"] == 0
    let_state_come(b, app, room)


def test_older_messages_can_be_read_meanwhile(b: Remote, app: Application, alice: Person) -> None:
    room = b.room()
    room.member("dave", "join")
    room.message("older", sender="dave")
    room.member("dave", "join", content={"displayname": "David"})
    join(alice, room.id)

    assert messages(alice, room.id) == ["older"]

    let_state_come(b, app, room)
    assert messages(alice, room.id) == ["older"]
    assert state_of(alice, room.id) == {key: it.content for key, it in room.state.items()}


def test_history_before_the_join_has_the_names_of_that_time(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.member("dave", "join")
    join(alice, room.id)
    b.send(room.member("dave", "join", content={"displayname": "David"}))
    wait_for(lambda: not waiting_pdus(app, room.id), "the new name")
    at = alice.sync(filter=LAZY)["next_batch"]
    b.send(room.member("dave", "leave"))
    let_state_come(b, app, room)

    members = alice.get(f"rooms/{quote(room.id)}/members", query_string={"at": at}).get_json()

    assert len(ids(members)) == 3
    names = {it["state_key"]: it["content"].get("displayname") for it in members["chunk"]}
    assert names[DAVE] == "David"


def test_an_event_after_a_gap_waits_for_the_members(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    before = set(room.heads)
    join(alice, room.id)
    for number in range(30):
        room.message(str(number))
    for it in list(room.events.values())[-25:]:
        room.hidden.add(it.event_id)
    b.fail("/get_missing_events/", 404)
    last = room.message("last")

    assert b.send(last) == {last.event_id: {}}

    b.wait_until(lambda: b.received("/get_missing_events/"))
    wait_for(lambda: put_off(app, room.id), "the decision to wait")
    assert {it.query["event_id"][0] for it in b.received("/state_ids/")} <= before
    assert is_partial(app, room.id)
    let_state_come(b, app, room)
    wait_for(lambda: messages(alice, room.id)[:1] == ["last"], "the event")


def test_sliding_sync_sends_all_members_to_clients_that_want_them(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.member("dave", "join")
    join(alice, room.id)
    lists = sliding.window(9, required_state=[["m.room.member", "*"]])
    lazy_lists = sliding.window(9)
    first = sliding.ask(alice, lists=lists, conn_id="all")
    lazy_first = sliding.ask(alice, lists=lazy_lists, conn_id="lazy")
    assert sliding.state(first, room.id).keys() == {("m.room.member", ALICE)}

    let_state_come(b, app, room)

    second = sliding.ask(alice, first["pos"], lists=lists, conn_id="all")
    users = {key[1] for key in sliding.state(second, room.id)}
    assert users == {ALICE, CAROL, DAVE}
    lazy_second = sliding.ask(alice, lazy_first["pos"], lists=lazy_lists, conn_id="lazy")
    assert "initial" not in lazy_second["rooms"][room.id]
    assert lazy_second["rooms"][room.id]["joined_count"] == 3


def test_servers_in_the_room_get_messages_whole_if_only_members_may_read_them(
    b: Remote, remote: Remotes, app: Application, alice: Person
) -> None:
    c, room = remote("c.test"), b.room()
    room.set_state("m.room.history_visibility", {"history_visibility": "joined"})
    room.member("erin", "join", by=c)
    join(alice, room.id)
    event_id = alice.send(room.id, "hello")

    for _ in range(2):
        (pdu,) = c.get("v1", "event", event_id).json["pdus"]
        assert pdu["content"]["body"] == "hello"
        let_state_come(b, app, room)


def test_an_invited_user_joins_a_room_of_which_nothing_else_is_known(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room(join_rule="invite")
    b.invite(room, ALICE)

    assert join(alice, room.id).status_code == 200

    assert is_partial(app, room.id)
    let_state_come(b, app, room)
    assert state_of(alice, room.id) == {key: it.content for key, it in room.state.items()}


def test_a_restricted_join_needs_the_member_who_authorises_it(
    b: Remote, app: Application, alice: Person
) -> None:
    allowed, restricted = b.room(), b.room(join_rule="restricted")
    join(alice, allowed.id)

    assert join(alice, restricted.id).status_code == 200

    assert is_partial(app, restricted.id)
    let_state_come(b, app, restricted)
    let_state_come(b, app, allowed)
    state = {key: it.content for key, it in restricted.state.items()}
    assert state_of(alice, restricted.id) == state


def test_a_server_that_hangs_does_not_hold_up_others(
    b: Remote, remote: Remotes, app: Application, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_states, "STATE_SECONDS", 0.5)
    c, room = remote("c.test"), b.room()
    c.rooms[room.id] = room
    room.member("erin", "join", by=c)
    b.recover("/state")
    b.hang("/state")

    join(alice, room.id)

    wait_for(lambda: not is_partial(app, room.id), "all members of the room")
    assert b.received("/state")
    b.recover("/state")


def test_a_room_that_is_purged_is_forgotten(b: Remote, app: Application, alice: Person) -> None:
    room = b.room()
    join(alice, room.id)

    purge.purge(app.homeserver.database, room.id, is_forced=True)

    assert not is_partial(app, room.id)
    wait_for(app.homeserver.partial_joins.is_idle, "the end of the work")


def typing_users(person: Person, room_id: str) -> list[str]:
    shown = joined(person, room_id, filter=LAZY)
    events = [] if shown is None else shown["ephemeral"]["events"]
    return [one for it in events if it["type"] == "m.typing" for one in it["content"]["user_ids"]]


def test_unknown_members_of_servers_in_the_room_are_seen_typing_and_reading(
    b: Remote, remote: Remotes, app: Application, alice: Person
) -> None:
    c, room = remote("c.test"), b.room()
    room.member("dave", "join")
    room.member("erin", "join", by=c)
    lie_about_servers(b, "b.test")
    join(alice, room.id)
    b.send(room.member("frank", "leave", sender=CAROL, content={"reason": "spam"}))
    wait_for(lambda: not waiting_pdus(app, room.id), "the kick")
    event_id = alice.send(room.id, "hello")

    for server, user in ((b, "dave"), (b, "frank"), (c, "erin")):
        user_id = f"@{user}:{server.name}"
        content = {"room_id": room.id, "user_id": user_id, "typing": True}
        server.send_edu("m.typing", content)
        read = {"m.read": {user_id: {"event_ids": [event_id], "data": {"ts": 1}}}}
        server.send_edu("m.receipt", {room.id: read})

    assert typing_users(alice, room.id) == [DAVE]
    shown = joined(alice, room.id, filter=LAZY)
    assert shown is not None
    (receipts,) = [it for it in shown["ephemeral"]["events"] if it["type"] == "m.receipt"]
    assert receipts["content"][event_id]["m.read"].keys() == {DAVE}
    let_state_come(b, app, room)
    c.send_edu("m.typing", {"room_id": room.id, "user_id": "@erin:c.test", "typing": True})
    assert set(typing_users(alice, room.id)) == {DAVE, "@erin:c.test"}


def test_a_message_beside_the_leave_of_its_sender_is_shown(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.member("dave", "join")
    join(alice, room.id)
    (start,) = room.heads
    b.send(room.member("dave", "leave", prev=[start]))
    wait_for(lambda: not waiting_pdus(app, room.id), "the leave")

    late = room.message("late", sender="dave", prev=[start])
    b.send(late)

    wait_for(lambda: not waiting_pdus(app, room.id), "the message")
    assert messages(alice, room.id) == ["late"]
    let_state_come(b, app, room)
    assert messages(alice, room.id) == ["late"]


def test_a_short_timeline_ends_with_the_last_event_that_was_not_refused(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room("11")
    cited = banned_dave(room)
    join(alice, room.id)
    since = alice.sync(filter=LAZY)["next_batch"]
    start = list(room.heads)
    fine = room.message("fine")
    b.send(fine)
    spam = room.message("spam", sender="dave", prev=start, auth_events=cited, add=False)
    b.send(spam)
    wait_for(lambda: not waiting_pdus(app, room.id), "the events of Dave")
    short = json.loads(LAZY)
    short["room"]["timeline"] = {"limit": 1}
    assert bodies(joined(alice, room.id, since, filter=json.dumps(short))) == ["spam"]

    let_state_come(b, app, room)

    assert bodies(joined(alice, room.id, since, filter=json.dumps(short))) == ["fine"]
    with app.homeserver.database.read() as tx:  # the graph does not end at `start` again
        assert room_state.head(tx, room.id).forward_extremities == [fine.event_id]


def test_what_was_refused_is_not_found_any_more(b: Remote, app: Application, alice: Person) -> None:
    room = b.room("11")
    cited = banned_dave(room)
    join(alice, room.id)
    b.send(room.message("fine words"))
    spam = room.message("spam words", sender="dave", auth_events=cited, add=False)
    b.send(spam)
    wait_for(lambda: not waiting_pdus(app, room.id), "the events of Dave")
    criteria = {"room_events": {"search_term": "words"}}

    def found() -> set[str]:
        answer = alice.post("search", json={"search_categories": criteria}).get_json()
        results = answer["search_categories"]["room_events"]["results"]
        return {it["result"]["content"]["body"] for it in results}

    assert found() == {"fine words", "spam words"}
    search_index.catch_up(app.homeserver.database)

    let_state_come(b, app, room)

    assert found() == {"fine words"}
    with app.homeserver.database.read() as tx:
        known = room_state.find_any(tx, spam.event_id)
        assert known is not None
        assert known.number not in tx.sql.execute(select(search_index.INDEX.c.rowid)).scalars()
        (shown,) = client_events.load(tx, [known.number])
        assert shown.position == NOWHERE


def test_the_state_on_another_branch_is_without_what_was_refused(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room("11")
    cited = banned_dave(room)
    join(alice, room.id)
    (start,) = room.heads
    ts = room.events[start].origin_server_ts
    lie = room.event(
        "m.room.topic",
        {"topic": "lie"},
        "",
        sender="dave",
        auth_events=cited,
        prev_events=[start],
        origin_server_ts=ts + 1,
        add=False,
    )
    truth = room.set_state(
        "m.room.topic", {"topic": "truth"}, prev=[start], origin_server_ts=ts + 1000
    )
    b.send(lie, truth)
    wait_for(lambda: not waiting_pdus(app, room.id), "the events of Dave")
    after_lie = room.message("after the lie", prev=[start], prev_events=[lie.event_id], add=False)
    b.send(after_lie)
    wait_for(lambda: not waiting_pdus(app, room.id), "the message")
    with app.homeserver.database.read() as tx:
        before = forks.before_event(tx, after_lie.event_id)
        assert before is not None
        assert before.overlay

    let_state_come(b, app, room)

    asked: Json = {"query": {"event_id": after_lie.event_id}}
    given = b.get("v1", "state_ids", room.id, **asked).json["pdu_ids"]
    assert lie.event_id not in given
    assert truth.event_id not in given
    topic = alice.get(f"rooms/{quote(room.id)}/state/m.room.topic").get_json()
    assert topic == {"topic": "truth"}


def test_a_server_in_the_room_that_was_away_gets_what_was_said_meanwhile(
    b: Remote, remote: Remotes, app: Application, alice: Person
) -> None:
    c, room = remote("c.test"), b.room()
    c.rooms[room.id] = room
    room.member("erin", "join", by=c)
    join(alice, room.id)
    c.fail("/send/", 503)
    c.fail("/state", 503)
    app.homeserver.sender.start()
    alice.send(room.id, "hello")
    c.wait_until(lambda: c.received("/send/"))
    alice.send(room.id, "are you there")
    b.wait_until(lambda: len(b.pdus) > 1)

    c.recover("/send/")
    c.send_edu("m.typing", {"room_id": room.id, "user_id": "@erin:c.test", "typing": True})

    def said() -> list[str]:
        return [it["content"].get("body") for it in c.pdus if it["type"] == "m.room.message"]

    c.wait_until(lambda: said() == ["hello", "are you there"])
    assert is_partial(app, room.id)
    app.homeserver.sender.stop()


def test_what_was_said_before_a_restart_reaches_all_servers(
    b: Remote, remote: Remotes, app: Application, alice: Person
) -> None:
    c, room = remote("c.test"), b.room()
    c.rooms[room.id] = room
    room.member("erin", "join", by=c)
    join(alice, room.id)
    alice.send(room.id, "hello")

    app.homeserver.sender.start()

    c.wait_until(lambda: [it["content"].get("body") for it in c.pdus] == ["hello"])
    app.homeserver.sender.stop()


def updates(server: Remote, user_id: str) -> list[Json]:
    return [it for it in server.edus("m.device_list_update") if it["user_id"] == user_id]


def test_servers_that_were_not_named_learn_of_devices_in_the_end(
    b: Remote, remote: Remotes, app: Application, alice: Person
) -> None:
    app.homeserver.sender.start()
    c, room = remote("c.test"), b.room()
    c.rooms[room.id] = room
    room.member("erin", "join", by=c)
    lie_about_servers(b, "b.test")
    upload_device_keys(alice)
    join(alice, room.id)
    b.wait_for_edu("m.device_list_update", lambda it: it["user_id"] == ALICE)
    assert not updates(c, ALICE)

    let_state_come(b, app, room)

    c.wait_for_edu("m.device_list_update", lambda it: it["user_id"] == ALICE)
    b.wait_for_event(alice.send(room.id, "hello"))
    assert len(updates(b, ALICE)) == 1
    app.homeserver.sender.stop()


def test_device_lists_of_members_that_were_made_up_are_not_kept(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    ghost = room.member("ghost", "join", add=False)
    b.add_device("ghost", "PHONE")

    def respond(request: Any) -> Response:
        answer = remote_answers.send_join(b, request)
        return Response(200, answer | {"state": [*answer["state"], ghost.pdu]})

    b.answer("/send_join/", respond, times=1)
    join(alice, room.id)
    alice.post("keys/query", json={"device_keys": {ghost.sender: []}})
    with app.homeserver.database.read() as tx:
        assert remote_devices.kept(tx, [ghost.sender])[0].keys() == {ghost.sender}

    let_state_come(b, app, room)

    with app.homeserver.database.read() as tx:
        assert remote_devices.kept(tx, [ghost.sender]) == ({}, {})


def rejected_topic(b: Remote, app: Application, alice: Person, **options: Any) -> Any:
    """Join a partial room, and have Erin's topic rejected there: Dave, who had left, kicks her.

    Return the room and the topic.
    """
    room = b.room("11")
    room.member("erin", "join")
    levels = {**(room.content("m.room.power_levels") or {})}
    levels["users"] = {**levels["users"], "@erin:b.test": 60, DAVE: 100}
    room.set_state("m.room.power_levels", levels)
    room.member("dave", "join")
    cited = [
        room.state[key].event_id
        for key in (
            ("m.room.create", ""),
            ("m.room.power_levels", ""),
            ("m.room.member", DAVE),
            ("m.room.member", "@erin:b.test"),
        )
    ]
    room.member("dave", "leave")
    join(alice, room.id)
    (start,) = room.heads
    kick = room.member(
        "erin", "leave", sender=DAVE, auth_events=cited, prev_events=[start], add=False
    )
    b.send(kick)
    wait_for(lambda: not waiting_pdus(app, room.id), "the kick")
    topic = room.event("m.room.topic", {"topic": "erin's"}, "", sender="erin", add=False)
    topic = room.sign({**topic.pdu, "prev_events": [kick.event_id], **options}, add=False)
    b.send(topic)
    wait_for(lambda: not waiting_pdus(app, room.id), "the topic")
    assert alice.get(f"rooms/{quote(room.id)}/state/m.room.topic").status_code == 404
    return room, topic


def test_a_state_event_that_was_rejected_too_early_is_state_in_the_end(
    b: Remote, app: Application, alice: Person
) -> None:
    room, _ = rejected_topic(b, app, alice)

    let_state_come(b, app, room)

    url = f"rooms/{quote(room.id)}/state"
    wait_for(
        lambda: alice.get(f"{url}/m.room.topic").get_json() == {"topic": "erin's"}, "the topic"
    )
    assert membership(alice, room.id, "@erin:b.test")["membership"] == "join"


def state_before(b: Remote, room: RemoteRoom, event: Event) -> list[str]:
    """The ids of the state before an event, as another server gets them."""
    found = b.get("v1", "state_ids", room.id, query={"event_id": event.event_id})
    ids: list[str] = found.json["pdu_ids"]
    return ids


def test_it_is_in_the_state_of_what_follows_it(b: Remote, app: Application, alice: Person) -> None:
    room, topic = rejected_topic(b, app, alice)
    next_one = room.message("after the topic", prev_events=[topic.event_id])
    name = room.event("m.room.name", {"name": "Cats"}, "", prev_events=[next_one.event_id])
    last = room.message("last", prev_events=[name.event_id])
    b.send(next_one, name, last)
    wait_for(lambda: not waiting_pdus(app, room.id), "the last event")

    let_state_come(b, app, room)

    wait_for(lambda: topic.event_id in state_before(b, room, next_one), "the corrected state")
    assert {topic.event_id, name.event_id} <= set(state_before(b, room, last))
    wait_for(lambda: ends(app, room) == {last.event_id}, "the end of the graph")
    url = f"rooms/{quote(room.id)}/state"
    assert alice.get(f"{url}/m.room.topic").get_json() == {"topic": "erin's"}
    assert alice.get(f"{url}/m.room.name").get_json() == {"name": "Cats"}
    assert membership(alice, room.id, "@erin:b.test")["membership"] == "join"


def test_what_replaces_it_stays_whatever_its_clock_says(
    b: Remote, app: Application, alice: Person
) -> None:
    tomorrow_ms = int(time.time() * 1000) + 12 * 3_600_000
    room, topic = rejected_topic(b, app, alice, origin_server_ts=tomorrow_ms)
    later = room.event("m.room.topic", {"topic": "later"}, "", prev_events=[topic.event_id])
    b.send(later)
    wait_for(lambda: not waiting_pdus(app, room.id), "the later topic")

    let_state_come(b, app, room)

    wait_for(lambda: topic.event_id in state_before(b, room, later), "the corrected state")
    wait_for(lambda: ends(app, room) == {later.event_id}, "the end of the graph")
    path = f"rooms/{quote(room.id)}/state/m.room.topic"
    assert alice.get(path).get_json() == {"topic": "later"}


def test_all_members_are_found_in_the_user_directory_in_the_end(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.member("rod", "join", content={"displayname": "Rodney"})
    join(alice, room.id)

    def found() -> list[str]:
        answer = alice.post("user_directory/search", json={"search_term": "rod"}).get_json()
        return [it["user_id"] for it in answer["results"]]

    assert found() == []
    let_state_come(b, app, room)

    assert found() == ["@rod:b.test"]


def test_what_replaces_a_refused_event_shows_what_was_before_that(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room("11")
    room.set_state("m.room.topic", {"topic": "before"})
    cited = banned_dave(room)
    join(alice, room.id)
    lie = room.event(
        "m.room.topic", {"topic": "lie"}, "", sender="dave", auth_events=cited, add=False
    )
    b.send(lie)
    wait_for(lambda: not waiting_pdus(app, room.id), "the events of Dave")
    after = room.set_state("m.room.topic", {"topic": "after"}, prev_events=[lie.event_id])
    b.send(after)
    url = f"rooms/{quote(room.id)}/event/{quote(after.event_id)}"
    shown = alice.get(url).get_json()["unsigned"]["prev_content"]
    assert shown == {"topic": "lie"}

    let_state_come(b, app, room)

    assert alice.get(url).get_json()["unsigned"]["prev_content"] == {"topic": "before"}
    assert state_of(alice, room.id)["m.room.topic", ""] == {"topic": "after"}


def test_an_event_that_its_own_auth_events_do_not_allow_tells_nothing_of_members(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room("11")
    room.member("dave", "join")
    keys = ("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", DAVE)
    cited = [room.state[key].event_id for key in (*keys, ("m.room.join_rules", ""))]
    join(alice, room.id)

    b.send(room.message("hello", sender="dave", auth_events=cited, add=False))

    wait_for(lambda: not waiting_pdus(app, room.id), "the message")
    assert messages(alice, room.id) == []
    with app.homeserver.database.read() as tx:
        assert room_state.membership_of(tx, room.id, DAVE) is None
    let_state_come(b, app, room)
    assert membership(alice, room.id, DAVE)["membership"] == "join"


def test_a_member_event_after_the_join_is_not_taken_for_the_state_before_it(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room("11")
    dave = room.member("dave", "join")
    join(alice, room.id)
    with app.homeserver.database.write() as tx:
        partial = partial_rooms.find(tx, room.id)
        assert partial is not None
        position = partial_state.joined_at(tx, partial)
        assert position is not None
        key = ("m.room.member", DAVE)
        (number,) = room_state.numbers_at(tx, room.id, [CREATE], position).values()
        known = KnownEvent(number, position + 1, ACCEPTED, dave)

        partial_state.learn_cited(tx, room.id, [key], [known])
        assert not room_state.entries(tx, room.id, [key])[key].is_there
        partial_state.learn_cited(tx, room.id, [key], [known._replace(position=None)])
        assert room_state.entries(tx, room.id, [key])[key].is_there


def test_events_that_others_only_cite_are_not_checked_again(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room("11")
    join(alice, room.id)
    join_id = room.heads[-1]
    bad = room.member("dave", "join", auth_events=[])
    keys = ("m.room.create", ""), ("m.room.power_levels", "")
    cited = [*(room.state[key].event_id for key in keys), bad.event_id]
    spam = room.message("spam", sender="dave", auth_events=cited, prev=[join_id], add=False)

    b.send(spam)

    wait_for(lambda: not waiting_pdus(app, room.id), "the message")
    with app.homeserver.database.read() as tx:
        found = {it: room_state.find_any(tx, it) for it in (join_id, bad.event_id, spam.event_id)}
        assert all(found.values())
        first = found[join_id]
        assert first is not None
        again = rechecks.rejected_since(tx, room.id, first.number, 10)
    assert [it.event_id for it in again] == [spam.event_id]


def test_a_state_can_not_join_a_local_user_who_has_never_joined(
    b: Remote, app: Application, alice: Person, login: Login
) -> None:
    bob, room = login("bob"), b.room()
    here = SimpleNamespace(
        name="localhost", key=app.homeserver.server.signing_key, user_id=lambda it: it
    )
    room.member(bob.user_id, "join", by=here)  # before the database was lost
    join(alice, room.id)

    let_state_come(b, app, room)

    with app.homeserver.database.read() as tx:
        assert not room_state.is_joined(tx, room.id, bob.user_id)
        assert room_state.joined(tx, room.id).local == {ALICE}
    assert room.id not in bob.sync()["rooms"]["join"]


def test_a_room_that_was_partial_is_forgotten_with_its_purge(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    join(alice, room.id)
    let_state_come(b, app, room)
    with app.homeserver.database.read() as tx:
        assert partial_rooms.full_since(tx, 0) == {room.id}

    purge.purge(app.homeserver.database, room.id, is_forced=True)

    with app.homeserver.database.read() as tx:
        assert partial_rooms.full_since(tx, 0) == set()


def test_events_that_come_at_the_last_moment_are_checked_too(
    b: Remote, app: Application, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = rechecks.Recheck.go_on

    def only_at_the_end(recheck: rechecks.Recheck, tx: Reader, seconds: float) -> bool:
        return seconds == math.inf and go_on(recheck, tx, seconds)

    monkeypatch.setattr(rechecks.Recheck, "go_on", only_at_the_end)
    room = b.room("11")
    cited = banned_dave(room)
    join(alice, room.id)
    b.send(room.message("spam", sender="dave", auth_events=cited, add=False))
    wait_for(lambda: not waiting_pdus(app, room.id), "the events of Dave")

    let_state_come(b, app, room)

    assert messages(alice, room.id) == []


def test_known_members_leave_by_this_server_meanwhile(
    b: Remote, remote: Remotes, app: Application, alice: Person
) -> None:
    c, room = remote("c.test"), b.room()
    join(alice, room.id)
    b.send(room.member("erin", "join", by=c))
    wait_for(lambda: not waiting_pdus(app, room.id), "the join")

    assert c.get("v1", "make_leave", room.id, "@erin:c.test").status == 200
    assert c.get("v1", "make_leave", room.id, "@frank:c.test").status == 404


def test_a_server_that_has_not_responded_is_asked_last(
    b: Remote, remote: Remotes, app: Application, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_states, "STATE_SECONDS", 0.5)
    c, room = remote("c.test"), b.room()
    c.rooms[room.id] = room
    room.member("erin", "join", by=c)
    b.recover("/state")
    b.hang("/state")
    c.fail("/state", 503, times=1)

    join(alice, room.id)

    wait_for(lambda: not is_partial(app, room.id), "all members of the room")
    assert len(b.received("/state")) == 1
    b.recover("/state")


def test_with_the_setting_off_a_join_waits_for_all_members(
    remote: Remotes, make_app: MakeApp
) -> None:
    app = make_app(**remote.settings, partial_joins="false")
    remote.talk_to(app)
    b = remote("b.test")
    b.omits_members = True
    room = b.room()
    room.member("dave", "join")
    with app.homeserver.database.write() as tx:
        accounts.create(tx, ALICE, None)

    app.homeserver.joins.join(JoinRequest(room.id, ALICE, {}, ["b.test"]))

    assert not is_partial(app, room.id)
    assert "omit_members" not in b.received("/send_join/")[-1].query
    with app.homeserver.database.read() as tx:
        assert room_state.joined(tx, room.id).total == 3


def test_members_that_are_known_while_the_room_is_outside_the_window_come_with_it(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.member("dave", "join")
    join(alice, room.id)
    narrow, wide = (
        sliding.window(last, required_state=[["m.room.member", "*"]]) for last in (0, 9)
    )
    first = sliding.ask(alice, lists=wide)
    other = alice.create_room()
    away = sliding.ask(alice, first["pos"], lists=narrow)
    let_state_come(b, app, room)
    alice.send(other)
    still_away = sliding.ask(alice, away["pos"], lists=narrow)

    back = sliding.ask(alice, still_away["pos"], lists=wide)

    assert room.id not in {*away["rooms"], *still_away["rooms"]}
    assert {key[1] for key in sliding.state(back, room.id)} == {ALICE, CAROL, DAVE}
