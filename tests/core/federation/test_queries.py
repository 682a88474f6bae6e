"""Users name users, aliases and directories of other servers, and get what those say."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.federation import asking, queries
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.remote import Remote, Remotes
from tests.helpers.rooms import refusal
from tests.helpers.scripted_server import Response

CAROL = "@carol:b.test"
PROFILE = f"profile/{CAROL}"
ALIAS = "directory/room/%23cats:b.test"
ROOMS = "publicRooms?server=b.test"
NOT_FOUND = (404, "M_NOT_FOUND")
CATS = {
    "room_id": "!cats:b.test",
    "num_joined_members": 3,
    "world_readable": True,
    "guest_can_join": False,
    "name": "Cats",
    "join_rule": "public",
}


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def alice(b: Remote, login: Login) -> Person:
    return login("alice")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "SECONDS", 0.3)
    monkeypatch.setattr(asking, "SECONDS_IF_FAILING", 0.2)


# profiles


def test_a_profile_comes_from_its_server_once_an_hour(b: Remote, alice: Person) -> None:
    b.profiles[CAROL] = {"displayname": "Carol", "avatar_url": "mxc://b/c", "org.example.x": [1.5]}

    answers = [alice.get(PROFILE).get_json() for _ in range(3)]
    field = alice.get(f"{PROFILE}/displayname").get_json()

    assert answers == [b.profiles[CAROL]] * 3
    assert field == {"displayname": "Carol"}
    assert len(b.received("query/profile")) == 1


def test_a_profile_needs_no_account(app: Application, b: Remote) -> None:
    b.profiles[CAROL] = {"displayname": "Carol"}

    answer = app.test_client().get(f"/_matrix/client/v3/{PROFILE}")

    assert answer.get_json() == {"displayname": "Carol"}


def test_an_unknown_user_and_a_field_that_is_not_set_are_not_found(
    b: Remote, alice: Person
) -> None:
    b.profiles[CAROL] = {"displayname": "Carol"}

    assert refusal(alice.get("profile/@nobody:b.test")) == NOT_FOUND
    assert refusal(alice.get(f"{PROFILE}/avatar_url")) == NOT_FOUND


def test_names_of_a_wrong_type_are_left_out(b: Remote, alice: Person) -> None:
    b.profiles[CAROL] = {"displayname": ["Carol"], "avatar_url": None, "m.tz": "Europe/London"}

    assert alice.get(PROFILE).get_json() == {"m.tz": "Europe/London"}


def test_a_large_profile_is_not_kept(b: Remote, alice: Person) -> None:
    b.profiles[CAROL] = {"org.example.x": "x" * queries.MAX_KEPT_BYTES}

    answers = [alice.get(PROFILE).get_json() for _ in range(2)]

    assert answers == [b.profiles[CAROL]] * 2
    assert len(b.received("query/profile")) == 2


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (Response(500, {"errcode": "M_UNKNOWN"}), (502, "M_UNKNOWN")),
        (Response(404, b"<html>"), NOT_FOUND),
        (Response(403, {"errcode": "M_FORBIDDEN"}), (403, "M_FORBIDDEN")),
        (Response(200, b'{"displayname": '), (502, "M_UNKNOWN")),
        (Response(200, ["Carol"]), (502, "M_UNKNOWN")),
        (Response(200, b'{"x": ' + b"[" * 500 + b"]" * 500 + b"}"), (502, "M_UNKNOWN")),
        (Response(200, {"x": "x" * queries.MAX_PROFILE_BYTES}), (502, "M_UNKNOWN")),
    ],
)
def test_what_is_not_a_profile_is_an_error(
    b: Remote, alice: Person, response: Response, expected: tuple[int, str]
) -> None:
    b.answer("query/profile", response)

    assert refusal(alice.get(PROFILE)) == expected


def test_half_a_response_is_an_error(b: Remote, alice: Person) -> None:
    b.profiles[CAROL] = {"displayname": "Carol"}
    b.cut("query/profile")

    assert refusal(alice.get(PROFILE)) == (502, "M_UNKNOWN")


@pytest.mark.usefixtures("impatient")
def test_a_server_that_hangs_is_waited_for_once(app: Application, b: Remote, alice: Person) -> None:
    b.hang("query/profile")

    answers = [refusal(alice.get(PROFILE)) for _ in range(3)]

    assert answers == [(504, "M_UNKNOWN")] * 3
    assert len(b.received("query/profile")) == 1
    assert app.homeserver.federation.is_failing("b.test")


def test_a_server_that_failed_lately_gets_less_time(
    app: Application, b: Remote, alice: Person
) -> None:
    client = app.homeserver.federation
    b.profiles[CAROL] = {"displayname": "Carol"}
    b.cut("query/profile", times=1)
    seconds = [asking.seconds_for(client, "b.test")]

    for path in (PROFILE, "profile/@nobody:b.test"):
        alice.get(path)
        seconds.append(asking.seconds_for(client, "b.test"))

    assert seconds == [asking.SECONDS, asking.SECONDS_IF_FAILING, asking.SECONDS]


def test_concurrent_requests_share_one(app: Application, b: Remote) -> None:
    b.profiles[CAROL] = {"displayname": "Carol"}
    b.delay("query/profile", 0.2)
    answers: list[Any] = []

    def get() -> None:
        answers.append(app.test_client().get(f"/_matrix/client/v3/{PROFILE}").get_json())

    threads = [threading.Thread(target=get) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [{"displayname": "Carol"}] * 5
    assert len(b.received("query/profile")) == 1


def test_asking_is_limited_and_what_is_kept_is_not(make_app: MakeApp, remote: Remotes) -> None:
    b = remote("b.test")
    limits = {
        "rate_limits": "true",
        "rc_lookups.per_second": "0.001",
        "rc_lookups.burst_count": "1",
    }
    app = make_app(**remote.settings, **limits)
    remote.talk_to(app)
    b.profiles[CAROL] = {"displayname": "Carol"}
    anybody = app.test_client()

    first, again = (anybody.get(f"/_matrix/client/v3/{PROFILE}") for _ in range(2))
    other = anybody.get("/_matrix/client/v3/profile/@dave:b.test")

    assert (first.status_code, again.status_code) == (200, 200)
    assert refusal(other) == (429, "M_LIMIT_EXCEEDED")


@pytest.mark.parametrize("path", [PROFILE, ALIAS, f"{PROFILE}/displayname"])
def test_without_federation_nothing_of_others_is_found(
    make_app: MakeApp, remote: Remotes, path: str
) -> None:
    app = make_app(**{**remote.settings, "federation": "false"})

    assert refusal(app.test_client().get(f"/_matrix/client/v3/{path}")) == NOT_FOUND


@pytest.mark.parametrize("path", [PROFILE, ALIAS, ROOMS])
def test_excluded_servers_are_not_asked(make_app: MakeApp, remote: Remotes, path: str) -> None:
    app = make_app(**remote.settings, federation_deny_servers='["b.test"]')

    assert refusal(app.test_client().get(f"/_matrix/client/v3/{path}")) == (403, "M_FORBIDDEN")


@pytest.mark.usefixtures("remote")
@pytest.mark.parametrize("path", [PROFILE, ALIAS, ROOMS])
def test_a_server_that_is_not_there_is_an_error(app: Application, path: str) -> None:
    answer = app.test_client().get(f"/_matrix/client/v3/{path.replace('b.test', '127.0.0.1:9')}")

    assert refusal(answer) == (502, "M_UNKNOWN")


# aliases


def test_an_alias_is_resolved_by_its_server(b: Remote, alice: Person) -> None:
    b.aliases["#cats:b.test"] = "!cats:b.test"

    answer = alice.get(ALIAS)

    assert answer.get_json() == {"room_id": "!cats:b.test", "servers": ["b.test"]}
    assert refusal(alice.get("directory/room/%23dogs:b.test")) == NOT_FOUND


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"room_id": "!a:c.test", "servers": ["c.test", "no name", 5, "c.test"]}, ["c.test"]),
        ({"room_id": "!a:c.test", "servers": []}, ["b.test"]),
        ({"room_id": "!a:c.test"}, ["b.test"]),
        ({"room_id": "!a:c.test", "servers": "c.test"}, ["b.test"]),
    ],
)
def test_only_names_of_servers_are_passed_on(
    b: Remote, alice: Person, body: Any, expected: list[str]
) -> None:
    b.answer("query/directory", Response(200, body))

    assert alice.get(ALIAS).get_json() == {"room_id": "!a:c.test", "servers": expected}


@pytest.mark.parametrize("body", [{}, {"room_id": 5}, {"room_id": "cats", "servers": ["b.test"]}])
def test_an_alias_needs_a_room(b: Remote, alice: Person, body: Any) -> None:
    b.answer("query/directory", Response(200, body))

    assert refusal(alice.get(ALIAS)) == (502, "M_UNKNOWN")


def test_the_servers_in_the_room_of_an_own_alias_are_returned(
    b: Remote, alice: Person, remote: Remotes
) -> None:
    alice.create_room(preset="public_chat", room_alias_name="dogs")

    found = alice.get("directory/room/%23dogs:localhost").get_json()

    assert found["servers"] == ["localhost"]
    assert not b.received("query/directory")


def name_canonical(person: Person, room_id: str, *aliases: str) -> Any:
    content = {"alias": aliases[0], "alt_aliases": list(aliases[1:])}
    return person.set_state(room_id, "m.room.canonical_alias", content)


def test_aliases_of_other_servers_may_be_those_of_a_room(b: Remote, alice: Person) -> None:
    room_id = alice.create_room(preset="public_chat", room_alias_name="dogs")
    b.aliases = {"#dogs:b.test": room_id, "#cats:b.test": "!cats:b.test"}

    good = name_canonical(alice, room_id, "#dogs:localhost", "#dogs:b.test")
    kept = name_canonical(alice, room_id, "#dogs:b.test")
    wrong = name_canonical(alice, room_id, "#dogs:b.test", "#cats:b.test")
    unknown = name_canonical(alice, room_id, "#nothing:b.test")

    assert (good.status_code, kept.status_code) == (200, 200)
    assert [refusal(it) for it in (wrong, unknown)] == [(400, "M_BAD_ALIAS")] * 2
    asked = [it.query["room_alias"][0] for it in b.received("query/directory")]
    assert asked == ["#dogs:b.test", "#cats:b.test", "#nothing:b.test"]


def test_nobody_is_asked_for_aliases_that_a_user_may_not_set(
    b: Remote, alice: Person, login: Login, room: Callable[..., str]
) -> None:
    bob = login("bob")
    room_id = room(alice, bob)

    assert refusal(name_canonical(bob, room_id, "#dogs:b.test")) == (403, "M_FORBIDDEN")
    assert not b.received("query/directory")


def test_few_aliases_of_other_servers_are_added_at_once(b: Remote, alice: Person) -> None:
    room_id = alice.create_room(preset="public_chat")

    answer = name_canonical(alice, room_id, *(f"#{number}:b.test" for number in range(11)))

    assert refusal(answer) == (400, "M_INVALID_PARAM")
    assert not b.received("query/directory")


# published rooms


def test_the_directory_of_another_server_is_read(b: Remote, alice: Person) -> None:
    b.published = [CATS]

    answer = alice.get(f"{ROOMS}&limit=7&since=abc")

    assert answer.get_json() == {"chunk": [CATS], "total_room_count_estimate": 1}
    (request,) = b.received("publicRooms")
    assert (request.method, request.query) == ("GET", {"limit": ["7"], "since": ["abc"]})


def test_the_directory_of_another_server_is_searched_there(b: Remote, alice: Person) -> None:
    b.published = [CATS]
    wanted = {"generic_search_term": "cats", "room_types": [None, "m.space"]}

    answer = alice.post(
        ROOMS, json={"limit": 5, "filter": wanted, "include_all_networks": True, "since": "x"}
    )

    assert answer.get_json()["chunk"] == [CATS]
    (request,) = b.received("publicRooms")
    assert request.method == "POST"
    assert request.json == {
        "filter": wanted,
        "include_all_networks": True,
        "limit": 5,
        "since": "x",
    }


def test_what_is_not_valid_in_a_directory_is_left_out(b: Remote, alice: Person) -> None:
    wrong = [
        *(5, {}, {**CATS, "room_id": "cats"}, {**CATS, "num_joined_members": "many"}),
        {**CATS, "num_joined_members": True},
    ]
    odd = {**CATS, "name": 5, "topic": None, "world_readable": "yes", "allowed_room_ids": [5]}
    b.answer(
        "publicRooms",
        Response(200, {"chunk": [*wrong, odd], "next_batch": 5, "total_room_count_estimate": "x"}),
    )

    shown = {**CATS, "world_readable": False, "allowed_room_ids": []}
    del shown["name"]
    assert alice.get(ROOMS).get_json() == {"chunk": [shown]}


def test_what_is_not_a_directory_is_an_error(b: Remote, alice: Person) -> None:
    b.answer("publicRooms", Response(200, {"chunk": "all"}))

    assert refusal(alice.get(ROOMS)) == (502, "M_UNKNOWN")


@pytest.mark.usefixtures("remote")
@pytest.mark.parametrize("server", ["b test", "b.test/x?", "", "[::1", "b.test:99999999"])
def test_only_servers_have_directories(login: Login, server: str) -> None:
    answer = login("alice").get(f"publicRooms?server={quote(server)}")

    assert refusal(answer) == (400, "M_INVALID_PARAM")
