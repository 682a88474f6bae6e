"""Long answers: while one is put together, others are served."""

from __future__ import annotations

import pytest

from homebody.runtime import event_loop
from tests.conftest import Login, Person
from tests.helpers import encryption
from tests.helpers.rooms import Json

SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
MANY_ROOMS, MANY_EVENTS = 65, 450


@pytest.fixture
def breaths(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return a list to which each pause adds an entry in which others are served."""
    seen: list[None] = []
    monkeypatch.setattr(event_loop, "pause", lambda: seen.append(None))
    return seen


def ask(person: Person, what: str) -> None:
    one: Json = {"ranges": [[0, 99]], "timeline_limit": 1, "required_state": []}
    bodies: dict[str, Json] = {
        SLIDING: {"lists": {"all": one}},
        "publicRooms": {"filter": {"generic_search_term": "nothing"}},
    }
    answer = person.post(what, json=bodies[what]) if what in bodies else person.get(what)
    assert answer.status_code == 200


@pytest.mark.parametrize(("what", "least"), [("sync", 3), (SLIDING, 3), ("publicRooms", 1)])
def test_an_answer_about_many_rooms_lets_others_go_on(
    login: Login, breaths: list[None], what: str, least: int
) -> None:
    alice = login("alice")
    for _ in range(MANY_ROOMS):
        alice.create_room(visibility="public", name="r")
    breaths.clear()

    ask(alice, what)

    assert len(breaths) >= least


def test_an_answer_with_much_state_lets_others_go_on(login: Login, breaths: list[None]) -> None:
    alice = login("alice")
    state = [
        {"type": "org.example.a", "state_key": str(number), "content": {}}
        for number in range(MANY_EVENTS)
    ]
    room_id = alice.create_room(initial_state=state)
    breaths.clear()

    found = alice.get(f"rooms/{room_id}/state").get_json()

    assert len(found) > MANY_EVENTS
    assert len(breaths) >= 2


def test_the_keys_of_many_devices_let_others_go_on(login: Login, breaths: list[None]) -> None:
    # nothing bounds how many devices a user has
    alice = login("alice")
    devices = [login("bob") for _ in range(120)]
    for device in devices:
        device.post("keys/upload", json={"device_keys": encryption.device_keys(device)})
    breaths.clear()

    answer = alice.post("keys/query", json={"device_keys": {devices[0].user_id: []}})

    assert len(answer.get_json()["device_keys"][devices[0].user_id]) == len(devices)
    assert len(breaths) >= 2
