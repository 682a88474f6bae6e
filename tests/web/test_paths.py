"""The parts of paths: none may be empty but the state key."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from homebody.web import Application
from tests.conftest import Login, MakeApp
from tests.helpers.rooms import Json, refusal, unchanged
from tests.tools import spec_index

MAY_BE_EMPTY = {"state_key", "file_name", "key_id"}


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    """A server with all its routes."""
    return make_app(federation="true")


def paths_with_an_empty_part() -> list[tuple[str, str]]:
    """(method, path) of every route, once for each of its parts that is left empty."""
    found = []
    rules = spec_index.server().url_map.iter_rules()
    for rule in (it for it in rules if "<path:" not in it.rule):  # not one part, but all the rest
        for name in sorted(rule.arguments - MAY_BE_EMPTY):
            path = re.sub("<([^>]*)>", lambda part, it=name: "x" * (part[1] != it), rule.rule)  # type: ignore[misc]
            methods = (rule.methods or set()) - {"HEAD", "OPTIONS"}
            found += [(method, path) for method in sorted(methods)]
    return found


def test_no_route_takes_an_empty_part_of_its_path(app: Application, login: Login) -> None:
    alice = login("alice")
    paths = paths_with_an_empty_part()

    with unchanged(app):
        answers = {it: refusal(alice.request(it[0], it[1], json={})) for it in paths}

    assert len(paths) > 150
    assert {it: found for it, found in answers.items() if found != (400, "M_INVALID_PARAM")} == {}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("rooms/{room}/send/m.room.message/", {"msgtype": "m.text", "body": "hello"}),
        ("rooms/{room}/send//t1", {"msgtype": "m.text", "body": "hello"}),
        ("rooms/{room}/state//", {"a": 1}),
        ("user/{me}/account_data/", {"a": 1}),
        ("user/{me}/rooms/{room}/account_data/", {"a": 1}),
        ("user/{me}/rooms/{room}/tags/", {}),
        ("sendToDevice/m.test/", {"messages": {}}),
        ("profile/{me}/", {"": "x"}),
    ],
)
def test_what_a_path_does_not_name_is_not_stored(
    app: Application, login: Login, path: str, body: Json
) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    whole = path.format(room=quote(room_id), me=quote(alice.user_id))

    with unchanged(app):
        answer = alice.put(whole, json=body)

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_a_state_key_may_be_empty_with_and_without_its_slash(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    answers = [
        alice.put(f"rooms/{room_id}/state/m.room.topic{end}", json={"topic": end})
        for end in ("/", "")
    ]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert alice.get(f"rooms/{room_id}/state/m.room.topic/").get_json() == {"topic": ""}


def test_a_slash_after_a_list_is_no_part_of_its_path(login: Login) -> None:
    alice = login("alice")

    assert alice.get("joined_rooms/").get_json() == {"joined_rooms": []}
    assert alice.get("pushrules/").status_code == 200
