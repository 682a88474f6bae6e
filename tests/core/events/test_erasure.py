"""What erased users have said: whole for users who were there, redacted for later ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.accounts import accounts
from homebody.core.events import visibility
from homebody.web import Application
from tests.conftest import PASSWORD, Login, Person
from tests.helpers import reading
from tests.helpers.rooms import Json, act

Room = Callable[..., str]
NAME = "Alice in Wonderland"


def erase(person: Person, *, is_erased: bool = True) -> None:
    auth = {"type": "m.login.password", "password": PASSWORD}
    answer = person.post("account/deactivate", json={"auth": auth, "erase": is_erased})
    assert answer.status_code == 200


def told(person: Person, room_id: str, event_id: str) -> Json:
    """The content of one event as /messages tells it."""
    answer = person.get(f"rooms/{quote(room_id)}/messages?dir=b&limit=100")
    assert answer.status_code == 200, answer.get_json()
    found = {event["event_id"]: event["content"] for event in answer.get_json()["chunk"]}
    content: Json = found[event_id]
    return content


@pytest.fixture
def bob(login: Login) -> Person:
    """A user who has the room and stays in it."""
    return login("bob")


@pytest.fixture
def alice(login: Login) -> Person:
    alice = login("alice")
    alice.put(f"profile/{alice.user_id}/displayname", json={"displayname": NAME})
    return alice


def test_who_was_there_goes_on_reading_and_newcomers_do_not(
    login: Login, alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(bob, alice)
    said, answer = alice.send(room_id, "secret"), bob.send(room_id, "really?")
    between = login("between")  # came after the message, but before the erasure
    act(between, room_id, "join")
    erase(alice)
    late = login("late")
    act(late, room_id, "join")

    assert told(bob, room_id, said)["body"] == told(between, room_id, said)["body"] == "secret"
    assert told(late, room_id, said) == {}
    assert told(late, room_id, answer)["body"] == "really?"


def test_who_left_before_and_comes_back_after_is_a_newcomer(
    login: Login, alice: Person, bob: Person, room: Room
) -> None:
    carol = login("carol")
    room_id = room(bob, alice, carol)
    early = alice.send(room_id, "early")
    act(carol, room_id, "leave")
    said = alice.send(room_id, "secret")
    erase(alice)
    act(carol, room_id, "join")

    assert told(carol, room_id, early)["body"] == "early"
    assert told(carol, room_id, said) == {}


def test_without_the_wish_all_is_told(login: Login, alice: Person, bob: Person, room: Room) -> None:
    room_id = room(bob, alice)
    said = alice.send(room_id, "no secret")
    erase(alice, is_erased=False)
    late = login("late")
    act(late, room_id, "join")

    assert told(late, room_id, said)["body"] == "no secret"


def test_no_way_of_reading_tells_newcomers_what_was_said(
    login: Login, alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(bob, alice)
    root = bob.send(room_id, "really interesting")
    thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    said = alice.send(room_id, "secret", **thread)
    edit = {"m.relates_to": {"rel_type": "m.replace", "event_id": said}}
    new = {"m.new_content": {"msgtype": "m.text", "body": "secret, edited"}}
    alice.send(room_id, "* secret, edited", **edit, **new)
    own_root = alice.send(room_id, "secret root")
    bob.send(room_id, "reply", **{"m.relates_to": {"rel_type": "m.thread", "event_id": own_root}})
    erase(alice)
    late = login("late")
    act(late, room_id, "join")

    told_late = reading.everywhere(late, room_id, said, root)
    told_bob = reading.everywhere(bob, room_id, said, root)

    assert [name for name, text in told_late.items() if "secret" in text or NAME in text] == []
    for name in ("sync", "messages", "context", "event", "relations", "threads", "root", "2014"):
        assert "secret" in told_bob[name], name


def test_search_finds_nothing_of_it_for_newcomers(
    login: Login, alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(bob, alice)
    alice.send(room_id, "the cheese is green")
    erase(alice)
    late = login("late")
    act(late, room_id, "join")
    body = {"search_categories": {"room_events": {"search_term": "cheese"}}}

    found = [
        person.post("search", json=body).get_json()["search_categories"]["room_events"]["results"]
        for person in (bob, late)
    ]

    assert [len(results) for results in found] == [1, 0]


def test_the_room_keeps_the_name_that_an_erased_user_gave_it(
    login: Login, alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    alice.set_state(room_id, "m.room.name", {"name": "Tea party"})
    erase(alice)
    late = login("late")
    act(late, room_id, "join")

    name = late.get(f"rooms/{quote(room_id)}/state/m.room.name").get_json()

    assert name == {"name": "Tea party"}


def test_who_is_erased_is_known_after_a_rollback_and_a_restart(
    app: Application, make_app: Any, login: Login, alice: Person
) -> None:
    database = app.homeserver.database
    with pytest.raises(ZeroDivisionError), database.write() as tx:
        accounts.mark_deactivated(tx, alice.user_id, erase=True)
        assert alice.user_id in visibility.erased(tx)
        raise ZeroDivisionError
    with database.read() as tx:
        rolled_back = visibility.erased(tx)
    erase(alice)

    with make_app().homeserver.database.read() as tx:
        after_a_restart = visibility.erased(tx)

    assert rolled_back == {}
    assert list(after_a_restart) == [alice.user_id]
