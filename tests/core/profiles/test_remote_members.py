"""Users of other servers are found by those who are in a room with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from homebody.core.events import state
from homebody.core.profiles import remote_members
from homebody.storage.statements import Sql
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.signing_server import SigningServer

Room = Callable[..., str]


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    return make_app(federation="true")


@pytest.fixture
def peer(app: Application) -> SigningServer:
    return SigningServer(app)


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def join(peer: SigningServer, room_id: str, user: str, **content: Any) -> None:
    user_id = f"@{user}:{peer.name}"
    content = {"membership": "join", **content}
    peer.put_event(room_id, state.MEMBER, content, user_id, user)


def search(person: Person, term: str, limit: int = 10) -> Any:
    answer = person.post("user_directory/search", json={"search_term": term, "limit": limit})
    assert answer.status_code == 200, answer.get_json()
    return answer.get_json()


def found(person: Person, term: str) -> list[str]:
    return [it["user_id"] for it in search(person, term)["results"]]


@pytest.mark.parametrize(
    "term",
    [
        *("carol.x", "CAROL", "aro", "ångström", "angstrom", "ANGS carol", "gstr"),
        *("@carol.x:peer.test", "@Carol.x:peer", "@carol.x:", "@carol"),
    ],
)
def test_they_are_found_by_parts_of_their_names(
    peer: SigningServer, alice: Person, room: Room, term: str
) -> None:
    join(peer, room(alice), "carol.x", displayname="Caroline Ångström", avatar_url="mxc://p/c")

    assert search(alice, term) == {
        "limited": False,
        "results": [
            {
                "user_id": "@carol.x:peer.test",
                "display_name": "Caroline Ångström",
                "avatar_url": "mxc://p/c",
            }
        ],
    }


@pytest.mark.parametrize(
    "term", ["dave", "carol dave", "m.room.member", "join", "r", "@carol:other", "@arol:peer.test"]
)
def test_others_are_not(peer: SigningServer, alice: Person, room: Room, term: str) -> None:
    join(peer, room(alice), "carol", displayname="Carol")

    assert found(alice, term) == []


def test_only_members_of_own_rooms_are_found(
    peer: SigningServer, alice: Person, login: Login, room: Room
) -> None:
    room_id = room(alice)
    join(peer, room_id, "carol")
    join(peer, room_id, "carla")
    peer.member(room_id, "leave", "carla")

    assert found(alice, "car") == ["@carol:peer.test"]
    assert found(login("bob"), "car") == []


def test_accounts_come_first_and_then_the_best_match(
    peer: SigningServer, alice: Person, login: Login, room: Room
) -> None:
    room_id = room(alice, login("mycarol"))
    for user in ("oscarol", "carolina", "carol"):
        join(peer, room_id, user)

    assert found(alice, "carol") == [
        "@mycarol:localhost",
        *(f"@{user}:peer.test" for user in ("carol", "carolina", "oscarol")),
    ]


def test_a_user_of_several_rooms_is_found_once(
    peer: SigningServer, alice: Person, room: Room
) -> None:
    for room_id in (room(alice), room(alice)):
        join(peer, room_id, "carol")

    assert found(alice, "carol") == ["@carol:peer.test"]


def test_the_limit_is_said(
    peer: SigningServer, alice: Person, login: Login, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_id = room(alice, login("carola"))
    for number in range(3):
        join(peer, room_id, f"carol{number}")

    one, three, all_of_them = (search(alice, "carol", limit) for limit in (1, 3, 10))
    monkeypatch.setattr(remote_members, "MAX_COMPARED", 3)

    shown = [(len(it["results"]), it["limited"]) for it in (one, three, all_of_them)]
    assert shown == [(1, True), (3, True), (4, False)]
    assert search(alice, "carol")["limited"]


def test_names_of_a_wrong_type_are_left_out(peer: SigningServer, alice: Person, room: Room) -> None:
    join(peer, room(alice), "carol", displayname=["Carol"], avatar_url=None)

    assert search(alice, "carol")["results"] == [{"user_id": "@carol:peer.test"}]


def test_rooms_without_other_servers_are_not_looked_at(
    peer: SigningServer, alice: Person, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[Any] = []
    execute_long = Sql.execute_long

    def note(sql: Sql, statement: Any, values: Any) -> Any:
        searched.append(values["room_ids"])
        return execute_long(sql, statement, values)

    monkeypatch.setattr(Sql, "execute_long", note)
    room(alice)
    found(alice, "carol")
    shared = room(alice)
    join(peer, shared, "carol")
    found(alice, "carol")

    assert searched == [[shared]]
