from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from homebody.spec.room_versions import VERSIONS
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.rooms import refusal, state_of, unchanged
from tests.helpers.scripted_server import Response

Json = dict[str, Any]
ALICE = "@alice:localhost"
KNOCKABLE = [name for name, version in VERSIONS.items() if version.may_knock]


@pytest.fixture
def b(remote: Remotes) -> Remote:
    """The server of the room."""
    return remote("b.test")


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def closed_room(b: Remote, version: str = "11") -> RemoteRoom:
    room = b.room(version, join_rule="knock")
    room.set_state("m.room.name", {"name": "The room"})
    return room


def knock(person: Person, room_id: str, *via: str, **content: Any) -> Any:
    query = "&".join(f"via={it}" for it in via)
    return person.post(f"knock/{quote(room_id)}?{query}", json=content)


def knocked(person: Person, room_id: str, **query: Any) -> dict[tuple[str, str], Json] | None:
    """Return {(type, state_key): content} of a knock in /sync, None if there is none."""
    rooms = person.sync(**query)["rooms"].get("knock", {})
    if room_id not in rooms:
        return None
    events = rooms[room_id]["knock_state"]["events"]
    return {(it["type"], it["state_key"]): it["content"] for it in events}


@pytest.mark.parametrize("version", KNOCKABLE)
def test_a_user_knocks_is_invited_and_joins(b: Remote, alice: Person, version: str) -> None:
    room = closed_room(b, version)
    since = alice.sync()["next_batch"]

    answer = knock(alice, room.id, "b.test", reason="let me in")

    assert answer.get_json() == {"room_id": room.id}
    own = room.content("m.room.member", ALICE)
    assert own == {"membership": "knock", "reason": "let me in", "displayname": "alice"}
    shown = knocked(alice, room.id, since=since)
    assert shown is not None
    assert shown["m.room.name", ""] == {"name": "The room"}
    assert shown["m.room.member", ALICE]["membership"] == "knock"
    assert b.invite(room, ALICE).status == 200
    assert knocked(alice, room.id) is None
    assert alice.post(f"rooms/{quote(room.id)}/join").status_code == 200
    assert state_of(alice, room.id) == {key: it.content for key, it in room.state.items()}


def test_a_knock_is_taken_back(b: Remote, app: Application, alice: Person) -> None:
    room = closed_room(b)
    knock(alice, room.id, "b.test")
    app.homeserver.delivery.start()

    assert alice.post(f"rooms/{quote(room.id)}/leave").status_code == 200

    assert knocked(alice, room.id) is None
    b.wait_until(lambda: room.membership(ALICE) == "leave", "the leave")
    app.homeserver.delivery.stop()


def test_a_knock_is_refused_by_the_room(b: Remote, alice: Person) -> None:
    room = closed_room(b)
    knock(alice, room.id, "b.test")
    since = alice.sync()["next_batch"]

    b.send(room.member(ALICE, "leave", sender=room.creator))

    assert knocked(alice, room.id) is None
    assert room.id in alice.sync(since=since)["rooms"]["leave"]


def test_the_refusal_of_a_room_is_passed_on_and_nothing_is_stored(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room(join_rule="invite")

    with unchanged(app):
        answer = knock(alice, room.id, "b.test")

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_another_server_is_asked_where_the_first_one_does_not_take_the_knock(
    b: Remote, remote: Remotes, alice: Person
) -> None:
    room, c, d = closed_room(b), remote("c.test"), remote("d.test")
    c.rooms[room.id] = room
    c.fail("/send_knock/", 500)

    assert knock(alice, room.id, "d.test", "c.test", "b.test").status_code == 200
    assert d.received("/make_knock/")


def test_strange_answers_to_a_knock_do_no_harm(b: Remote, alice: Person) -> None:
    room = closed_room(b)
    b.answer("/send_knock/", Response(200, {"knock_room_state": [1, {"type": {}}, None]}))

    assert knock(alice, room.id, "b.test").status_code == 200

    shown = knocked(alice, room.id)
    assert shown is not None
    assert shown.keys() == {("m.room.member", ALICE)}


def test_a_room_here_is_knocked_on_here(b: Remote, alice: Person, login: Login) -> None:
    bob = login("bob")
    room_id = alice.create_room()
    path = f"rooms/{quote(room_id)}/state/m.room.join_rules"
    alice.put(path, json={"join_rule": "knock"})

    assert knock(bob, room_id, "b.test").status_code == 200
    assert not b.received("/make_knock/")
