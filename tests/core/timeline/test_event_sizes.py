"""What is too large for an event is refused before anything waits for it."""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from werkzeug.test import TestResponse

from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import Json, refusal, unchanged

LARGE = "x" * 70_000
MANY = {str(number): 0 for number in range(10_000)}
BOB = "@bob:localhost"
TOO_LARGE = (413, "M_TOO_LARGE")


def while_another_writes(
    app: Application, person: Person, *asked: Any, **kwargs: Any
) -> TestResponse:
    """The answer to a request, which must come although nobody else can write."""
    answers: list[TestResponse] = []
    asking = threading.Thread(target=lambda: answers.append(person.request(*asked, **kwargs)))
    with app.homeserver.database.write():
        asking.start()
        asking.join(10)
        has_waited = asking.is_alive()
    asking.join()
    assert not has_waited
    return answers[0]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "rooms/{room}/send/m.room.message/1", {"body": LARGE}),
        ("PUT", "rooms/{room}/send/m.room.message/2", MANY),
        ("POST", "rooms/{room}/send/m.room.message", {"body": LARGE}),
        ("PUT", "rooms/{room}/redact/{event}/1", {"reason": LARGE}),
        ("PUT", "rooms/{room}/state/m.room.topic", {"topic": LARGE}),
        (
            "PUT",
            "rooms/{room}/state/m.room.member/@alice:localhost",
            {**MANY, "membership": "join"},
        ),
        ("POST", "rooms/{room}/join", {"reason": LARGE}),
        ("POST", "rooms/{room}/join", {"third_party_signed": MANY}),
        ("POST", "join/{room}", {"reason": LARGE}),
        ("POST", "knock/{room}", {"reason": LARGE}),
        ("POST", "rooms/{room}/leave", {"reason": LARGE}),
        ("POST", "rooms/{room}/invite", {"user_id": BOB, "reason": LARGE}),
        ("POST", "rooms/{room}/kick", {"user_id": BOB, "reason": LARGE}),
        ("POST", "rooms/{room}/ban", {"user_id": BOB, "reason": LARGE}),
        ("POST", "rooms/{room}/unban", {"user_id": BOB, "reason": LARGE}),
        ("POST", "rooms/{room}/upgrade", {"new_version": "12", "additional_creators": [LARGE]}),
        ("POST", "createRoom", {"name": LARGE * 4}),
        ("POST", "createRoom", {"topic": LARGE * 4}),
        ("POST", "createRoom", {"creation_content": {"x": LARGE * 4}}),
        ("POST", "createRoom", {"power_level_content_override": {"x": LARGE * 4}}),
        (
            "POST",
            "createRoom",
            {"initial_state": [{"type": "x", "state_key": key, "content": MANY} for key in "abc"]},
        ),
        (
            "PUT",
            "/matrix/client/api/v1/rooms/{room}/messages/@alice:localhost/1",
            {"msgtype": LARGE},
        ),
    ],
)
def test_what_fits_into_no_event_does_not_wait_for_its_turn(
    app: Application, login: Login, method: str, path: str, body: Json
) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    event_id = alice.send(room_id)
    parts = {"room": room_id, "event": event_id, "me": alice.user_id}
    whole = path.format(**{name: quote(part) for name, part in parts.items()})

    with unchanged(app):
        answer = while_another_writes(app, alice, method, whole, json=body)

    assert refusal(answer) == TOO_LARGE


def test_a_body_that_is_larger_still_is_not_even_read(app: Application, login: Login) -> None:
    alice = login("alice")
    room_id = quote(alice.create_room())
    path = f"rooms/{room_id}/send/m.room.message/1"

    answer = alice.put(path, data=b"no JSON" * 100_000)

    assert refusal(answer) == TOO_LARGE


def test_spaces_and_escapes_on_the_way_do_not_count(login: Login) -> None:
    alice = login("alice")
    room_id = quote(alice.create_room())
    text = "".join(f"\\u{ord(letter):04x}" for letter in "x" * 60_000)
    spaces = " " * 100_000

    answer = alice.put(
        f"rooms/{room_id}/send/m.room.message/1", data=f'{spaces}{{"body":"{text}"}}'
    )

    assert answer.status_code == 200
    event = alice.get(f"rooms/{room_id}/event/{answer.get_json()['event_id']}").get_json()
    assert event["content"] == {"body": "x" * 60_000}


def test_an_event_whose_other_parts_make_it_too_large_is_refused(login: Login) -> None:
    alice = login("alice")
    room_id = quote(alice.create_room())
    content = {"body": "x" * (65_536 - 20)}
    assert len(orjson.dumps(content)) < 65_536

    answer = alice.put(f"rooms/{room_id}/send/m.room.message/1", json=content)

    assert refusal(answer) == TOO_LARGE
