"""Guests: how one becomes one, what they may do, where they may be, and how they become users."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.helpers.rooms import Json, act, membership, refusal, unchanged
from tests.tools import routes

ALICE = "@alice:localhost"
DUMMY = {"type": "m.login.dummy"}
GUEST_ACCESS, SETTING = "m.room.guest_access", "m.room.history_visibility"
Guest = Callable[[], Person]


@pytest.fixture
def guest(client: FlaskClient) -> Guest:
    """`guest()` is somebody new who looks around."""

    def make() -> Person:
        answer = client.post(V3 + "register?kind=guest", json={})
        assert answer.status_code == 200, answer.get_json()
        session = answer.get_json()
        return Person(client, session["user_id"], session["access_token"], session["device_id"])

    return make


def open_room(person: Person, **options: Any) -> str:
    """A public room that lets guests in."""
    access = {"type": GUEST_ACCESS, "content": {"guest_access": "can_join"}}
    return person.create_room(preset="public_chat", initial_state=[access], **options)


def test_a_guest_gets_a_name_and_a_session_whatever_else_they_ask_for(client: FlaskClient) -> None:
    body = {
        "username": "queen",
        "password": "x",
        "device_id": "MINE",
        "inhibit_login": True,
        "auth": "odd",
        "initial_device_display_name": "Library",
    }

    answer = client.post(V3 + "register?kind=guest", json=body)

    session = answer.get_json()
    assert answer.status_code == 200
    assert session["user_id"].startswith("@guest-")
    assert session["user_id"].endswith(":localhost")
    assert session["device_id"] != "MINE"
    person = Person(client, session["user_id"], session["access_token"], session["device_id"])
    assert person.get("account/whoami").get_json() == {
        "user_id": session["user_id"],
        "device_id": session["device_id"],
        "is_guest": True,
    }
    (device,) = person.get("devices").get_json()["devices"]
    assert device["display_name"] == "Library"
    name = session["user_id"][1:].partition(":")[0]
    assert client.get(f"{V3}profile/{session['user_id']}").get_json() == {"displayname": name}


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"registration": "open"}, 200),
        ({"registration": "token"}, 403),
        ({"registration": "closed"}, 403),
        ({"registration": "closed", "allow_guests": "true"}, 200),
        ({"registration": "open", "allow_guests": "false"}, 403),
    ],
)
def test_guests_come_where_registration_is_open_or_the_owner_wants_them(
    make_app: MakeApp, settings: dict[str, str], status: int
) -> None:
    app = make_app(**settings)

    answer = app.test_client().post(V3 + "register?kind=guest", json={})

    assert answer.status_code == status
    if status == 403:
        assert refusal(answer) == (403, "M_GUEST_ACCESS_FORBIDDEN")


def test_the_first_user_becomes_administrator_although_a_guest_was_there_before(
    app: Application, guest: Guest, login: Login
) -> None:
    guest()
    alice = login("alice")
    bob = login("bob")

    with app.homeserver.database.read() as tx:
        rows = tx.sql.connection.exec_driver_sql(
            "SELECT user_id FROM accounts WHERE is_admin"
        ).scalars()
        assert list(rows) == [alice.user_id] != [bob.user_id]


def test_nobody_logs_in_as_a_guest(client: FlaskClient, guest: Guest) -> None:
    who = {"type": "m.id.user", "user": guest().user_id}
    body = {"type": "m.login.password", "identifier": who, "password": ""}

    answer = client.post(V3 + "login", json=body)

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_whatever_a_view_does_not_allow_is_refused(app: Application, guest: Guest) -> None:
    visitor = guest()
    asked = [
        (route.method, re.sub("<[^>]*>", "x", route.path))
        for route in routes.routes(app)
        if not route.access.guests and route.access.authentication != "browser"
    ]

    answers = {(method, path): visitor.request(method, path) for method, path in asked}

    assert len(asked) > 60
    refused = (403, "M_GUEST_ACCESS_FORBIDDEN")
    assert {it: refusal(answers[it]) for it in asked} == dict.fromkeys(asked, refused)


def test_a_guest_may_do_what_the_list_says_in_a_room(login: Login, guest: Guest) -> None:
    alice, visitor = login("alice"), guest()
    room_id = open_room(alice)
    room = f"rooms/{quote(room_id)}"
    assert act(visitor, room_id, "join").status_code == 200
    levels = {"events": {"org.example.x": 0}}
    alice.set_state(room_id, "m.room.power_levels", {"users": {ALICE: 100}, **levels})

    event_id = visitor.send(room_id)
    answers = [
        visitor.set_state(room_id, "org.example.x", {"a": 1}),
        visitor.get(f"{room}/state"),
        visitor.get(f"{room}/state/org.example.x"),
        visitor.get(f"{room}/messages?dir=b"),
        visitor.get(f"{room}/event/{event_id}"),
        visitor.get(f"{room}/context/{event_id}"),
        visitor.get(f"{room}/members"),
        visitor.get(f"{room}/initialSync"),
        visitor.get("sync"),
        visitor.get("events"),
        visitor.put(f"devices/{visitor.device_id}", json={"display_name": "x"}),
        visitor.put(f"profile/{visitor.user_id}/displayname", json={"displayname": "Visitor"}),
        visitor.delete(f"profile/{visitor.user_id}/displayname"),
        act(visitor, room_id, "leave"),
        visitor.post(f"join/{quote(room_id)}"),
    ]

    assert [answer.status_code for answer in answers] == [200] * len(answers)


def test_what_needs_no_account_guests_may_do_as_well(login: Login, guest: Guest) -> None:
    alice, visitor = login("alice"), guest()
    room_id = alice.create_room(preset="public_chat", room_alias_name="pub")

    answers = [
        visitor.get("/_matrix/client/versions"),
        visitor.get("directory/room/%23pub:localhost"),
        visitor.get(f"/_matrix/client/v1/room_summary/{quote(room_id)}"),
        visitor.get(f"profile/{ALICE}"),
    ]

    assert [answer.status_code for answer in answers] == [200] * len(answers)


def test_a_guest_may_ask_what_clients_ask_at_every_start(guest: Guest) -> None:
    visitor = guest()

    answers = [
        visitor.get("capabilities"),
        visitor.get("thirdparty/protocols"),
        visitor.get("voip/turnServer"),
    ]

    assert [answer.status_code for answer in answers] == [200] * len(answers)


def test_a_guest_may_search_the_directory_that_anybody_may_list(login: Login, guest: Guest) -> None:
    alice, visitor = login("alice"), guest()
    found = alice.create_room(visibility="public", name="Garden")
    alice.create_room(visibility="public", name="Kitchen")

    answer = visitor.post("publicRooms", json={"filter": {"generic_search_term": "gard"}})

    assert answer.status_code == 200
    assert [room["room_id"] for room in answer.get_json()["chunk"]] == [found]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "createRoom", {}),
        ("POST", "rooms/{room}/invite", {"user_id": ALICE}),
        ("POST", "rooms/{room}/kick", {"user_id": ALICE}),
        ("POST", "rooms/{room}/upgrade", {"new_version": "11"}),
        ("POST", "knock/{room}", {}),
        ("PUT", "rooms/{room}/typing/{me}", {"typing": True}),
        ("PUT", "rooms/{room}/redact/$x/1", {}),
        ("PUT", "profile/{me}/avatar_url", {"avatar_url": "mxc://localhost/x"}),
        ("DELETE", "profile/{me}/org.example.x", {}),
        ("PUT", "user/{me}/account_data/org.example.x", {}),
        ("PUT", "presence/{me}/status", {"presence": "online"}),
        ("GET", "joined_rooms", None),
        ("GET", "pushrules/", None),
        ("GET", "initialSync", None),
        ("GET", "account/3pid", None),
        ("POST", "account/deactivate", {}),
        ("POST", "/_matrix/media/v3/upload", {}),
        ("GET", "/_matrix/client/v1/rooms/{room}/hierarchy", None),
        ("GET", "/matrix/client/api/v1/events", None),
    ],
)
def test_everything_else_is_for_users(
    app: Application, login: Login, guest: Guest, method: str, path: str, body: Json | None
) -> None:
    alice, visitor = login("alice"), guest()
    room_id = open_room(alice)
    act(visitor, room_id, "join")
    url = path.format(room=quote(room_id), me=visitor.user_id)
    visitor.get("account/whoami")  # notes when the guest was last here

    with unchanged(app):
        answer = visitor.request(method, url, json=body)

    assert refusal(answer) == (403, "M_GUEST_ACCESS_FORBIDDEN")


@pytest.mark.parametrize("setting", [None, {"guest_access": "forbidden"}, {}, {"guest_access": 1}])
def test_a_guest_can_not_join_a_room_that_does_not_say_so(
    app: Application, login: Login, guest: Guest, setting: Json | None
) -> None:
    alice, visitor = login("alice"), guest()
    state = [] if setting is None else [{"type": GUEST_ACCESS, "content": setting}]
    room_id = alice.create_room(preset="public_chat", initial_state=state)
    visitor.get("account/whoami")

    with unchanged(app):
        answers = [
            act(visitor, room_id, "join"),
            visitor.post(f"join/{quote(room_id)}"),
            visitor.set_state(room_id, "m.room.member", {"membership": "join"}, visitor.user_id),
        ]

    assert [refusal(answer) for answer in answers] == [(403, "M_GUEST_ACCESS_FORBIDDEN")] * 3


def test_an_invite_does_not_help_a_guest_into_a_room_without_guests(
    login: Login, guest: Guest
) -> None:
    alice, visitor = login("alice"), guest()
    closed = {"type": GUEST_ACCESS, "content": {"guest_access": "forbidden"}}
    room_id = alice.create_room(invite=[visitor.user_id], initial_state=[closed])

    assert refusal(act(visitor, room_id, "join")) == (403, "M_GUEST_ACCESS_FORBIDDEN")


@pytest.mark.parametrize(
    ("user_id", "content"),
    [
        ("@bob:localhost", {"membership": "invite"}),
        ("@bob:localhost", {"membership": "leave"}),
        (None, {"membership": "knock"}),
        (None, {"membership": "join", "avatar_url": "mxc://localhost/face"}),
        (None, {"membership": ["join"]}),
    ],
)
def test_guests_do_by_state_nothing_that_they_may_not_do_otherwise(
    app: Application, login: Login, guest: Guest, user_id: str | None, content: Json
) -> None:
    visitor = guest()
    rule = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    access = {"type": GUEST_ACCESS, "content": {"guest_access": "can_join"}}
    room_id = login("alice").create_room(
        initial_state=[rule, access],
        power_level_content_override={"invite": 0, "kick": 0},
        invite=["@bob:localhost"] if content["membership"] == "leave" else [],
    )
    if content["membership"] != "knock":
        assert act(login("alice"), room_id, "invite", user_id=visitor.user_id).status_code == 200
        assert act(visitor, room_id, "join").status_code == 200

    with unchanged(app):
        target = user_id or visitor.user_id
        answers = [visitor.set_state(room_id, "m.room.member", content, target)]
        if "avatar_url" in content:
            answers.append(act(visitor, room_id, "join", **content))

    assert {refusal(it) for it in answers} == {(403, "M_GUEST_ACCESS_FORBIDDEN")}


def test_a_guest_reads_a_room_that_all_may_read(login: Login, guest: Guest) -> None:
    alice, visitor = login("alice"), guest()
    readable = {"type": SETTING, "content": {"history_visibility": "world_readable"}}
    room_id = alice.create_room(initial_state=[readable])
    event_id = alice.send(room_id)

    answer = visitor.get(f"rooms/{quote(room_id)}/messages?dir=b")

    assert answer.get_json()["chunk"][0]["event_id"] == event_id


@pytest.mark.parametrize("setting", [{"guest_access": "forbidden"}, {}])
def test_when_a_room_closes_its_guests_have_to_leave(
    login: Login, guest: Guest, setting: Json
) -> None:
    alice, bob, one, two = login("alice"), login("bob"), guest(), guest()
    room_id = open_room(alice)
    for person in (bob, one, two):
        act(person, room_id, "join")
    token = one.sync()["next_batch"]

    answer = alice.set_state(room_id, GUEST_ACCESS, setting)

    assert answer.status_code == 200
    now = {
        it.user_id: membership(alice, room_id, it.user_id)["membership"] for it in (bob, one, two)
    }
    assert now == {bob.user_id: "join", one.user_id: "leave", two.user_id: "leave"}
    assert room_id in one.sync(token)["rooms"]["leave"]
    assert refusal(act(one, room_id, "join")) == (403, "M_GUEST_ACCESS_FORBIDDEN")


def test_a_redaction_of_the_setting_closes_the_room_too(login: Login, guest: Guest) -> None:
    alice, visitor = login("alice"), guest()
    room_id = open_room(alice)
    act(visitor, room_id, "join")
    content = {"guest_access": "can_join", "org.example": 1}
    event_id = alice.set_state(room_id, GUEST_ACCESS, content).get_json()["event_id"]
    message = alice.send(room_id)
    alice.put(f"rooms/{quote(room_id)}/redact/{message}/1", json={})
    assert membership(alice, room_id, visitor.user_id)["membership"] == "join"

    alice.put(f"rooms/{quote(room_id)}/redact/{event_id}/2", json={})

    assert membership(alice, room_id, visitor.user_id) == {"membership": "leave"}


def grow_up(visitor: Person, **body: Any) -> Any:
    name = visitor.user_id[1:].partition(":")[0]
    wish = {"username": name, "password": PASSWORD, "auth": DUMMY}
    wish |= {"guest_access_token": visitor.access_token, **body}
    return visitor.client.post(V3 + "register", json=wish)


def test_a_guest_becomes_a_user_and_stays_in_their_rooms(login: Login, guest: Guest) -> None:
    alice, visitor = login("alice"), guest()
    room_id = open_room(alice)
    act(visitor, room_id, "join")

    answer = grow_up(visitor)

    session = answer.get_json()
    assert answer.status_code == 200
    assert session["user_id"] == visitor.user_id
    user = login(visitor.user_id[1:].partition(":")[0])
    assert user.user_id == visitor.user_id
    for token in (session["access_token"], visitor.access_token):
        person = Person(visitor.client, visitor.user_id, token, "")
        assert person.get("account/whoami").get_json()["is_guest"] is False
        assert person.get("joined_rooms").get_json() == {"joined_rooms": [room_id]}
    alice.set_state(room_id, GUEST_ACCESS, {"guest_access": "forbidden"})
    assert membership(alice, room_id, visitor.user_id)["membership"] == "join"


def test_one_becomes_a_user_only_once_and_under_ones_own_name(
    app: Application, login: Login, guest: Guest
) -> None:
    alice, visitor = login("alice"), guest()
    visitor.get("account/whoami")

    with unchanged(app):
        answers = [
            grow_up(visitor, username="somebody"),
            grow_up(visitor, username=None),
            grow_up(visitor, guest_access_token=alice.access_token),
        ]
    unknown = grow_up(visitor, guest_access_token="no token")

    assert [refusal(answer) for answer in answers] == [(403, "M_FORBIDDEN")] * 3
    assert refusal(unknown) == (401, "M_UNKNOWN_TOKEN")
    assert grow_up(visitor).status_code == 200
    assert refusal(grow_up(visitor)) == (403, "M_FORBIDDEN")


def test_a_guests_name_can_not_be_taken_without_their_token(
    client: FlaskClient, guest: Guest
) -> None:
    name = guest().user_id[1:].partition(":")[0]

    answer = client.post(
        V3 + "register", json={"username": name, "password": PASSWORD, "auth": DUMMY}
    )

    assert refusal(answer) == (400, "M_USER_IN_USE")


def test_a_guest_takes_part_in_calls(app: Application, login: Login, guest: Guest) -> None:
    """By delayed events, of which a guest's own leave may be one, but no kick."""
    alice, visitor = login("alice"), guest()
    room_id = open_room(alice)
    visitor.post(f"rooms/{room_id}/join")
    path = f"rooms/{room_id}/delayed_event/"
    soon = {"delay_ms": 1}
    member: Json = {"state_key": visitor.user_id, "content": {"membership": "leave"}}
    sent = visitor.put(f"{path}m.room.message/t1", json={**soon, "content": {"body": "x"}})
    left = visitor.put(f"{path}m.room.member/t2", json={**soon, **member})
    kick = visitor.put(f"{path}m.room.member/t3", json={**soon, **member, "state_key": ALICE})

    time.sleep(0.01)
    app.homeserver.delayed_events.send_due()

    ids = [it.get_json()["delay_id"] for it in (sent, left)]
    found = [visitor.get(f"/_matrix/client/v1/delayed_events/{it}").get_json() for it in ids]
    assert all("event_id" in it for it in found)
    assert refusal(kick) == (403, "M_GUEST_ACCESS_FORBIDDEN")
    assert membership(alice, room_id, visitor.user_id) == {"membership": "leave"}
