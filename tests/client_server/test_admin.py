"""What administrators do with accounts: whois, locks, suspensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from tests.conftest import PASSWORD, V3, Login, Person
from tests.helpers.rooms import act, membership, refusal

V1 = "/_matrix/client/v1/admin"
SUSPENDED = (403, "M_USER_SUSPENDED")
Room = Callable[..., str]
Change = Callable[..., None]


@pytest.fixture
def admin(login: Login) -> Person:
    """The first account of a server is its administrator."""
    return login("owner")


@pytest.fixture
def change(admin: Person) -> Change:
    """`change(bob, suspended=True)`."""

    def put(person: Person, **what: bool) -> None:
        verb = "lock" if "locked" in what else "suspend"
        answer = admin.put(f"{V1}/{verb}/{person.user_id}", json=what)
        assert (answer.status_code, answer.get_json()) == (200, what)
        assert admin.get(f"{V1}/{verb}/{person.user_id}").get_json() == what

    return put


def say(person: Person, room_id: str) -> Any:
    path = f"rooms/{quote(room_id)}/send/m.room.message/said"
    return person.put(path, json={"msgtype": "m.text", "body": "hello"})


def test_whois_tells_a_user_and_administrators_from_where_it_was_used(
    admin: Person, login: Login
) -> None:
    bob = login("bob")
    bob.get("account/whoami", headers={"User-Agent": "Telephone/1"})

    own = bob.get(f"admin/whois/{bob.user_id}", headers={"User-Agent": "Telephone/1"})
    theirs = admin.get(f"admin/whois/{bob.user_id}")

    assert own.get_json()["user_id"] == theirs.get_json()["user_id"] == bob.user_id
    for answer in (own, theirs):
        (session,) = answer.get_json()["devices"][bob.device_id]["sessions"]
        (connection,) = session["connections"]
        assert connection["ip"] == "127.0.0.1"
        assert connection["user_agent"] == "Telephone/1"
        assert connection["last_seen"] > 0


def test_whois_is_for_nobody_else(admin: Person, login: Login) -> None:
    bob, mallory = login("bob"), login("mallory")

    assert refusal(mallory.get(f"admin/whois/{bob.user_id}")) == (403, "M_FORBIDDEN")
    assert refusal(admin.get("admin/whois/@nobody:localhost")) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("verb", ["lock", "suspend"])
@pytest.mark.parametrize(
    ("asker", "target", "expected"),
    [
        ("bob", "@owner:localhost", (403, "M_FORBIDDEN")),
        ("bob", "@nobody:localhost", (403, "M_FORBIDDEN")),
        ("bob", "@bob:elsewhere.example", (403, "M_FORBIDDEN")),
        ("owner", "@owner:localhost", (403, "M_FORBIDDEN")),
        ("owner", "@nobody:localhost", (404, "M_NOT_FOUND")),
        ("owner", "@closed:localhost", (404, "M_NOT_FOUND")),
        ("owner", "@bob:elsewhere.example", (400, "M_INVALID_PARAM")),
        ("owner", "bob", (400, "M_INVALID_PARAM")),
    ],
)
def test_only_administrators_change_only_others_of_this_server(
    admin: Person, login: Login, verb: str, asker: str, target: str, expected: tuple[int, str]
) -> None:
    auth = {"type": "m.login.password", "password": PASSWORD}
    login("closed").post("account/deactivate", json={"auth": auth})
    login("bob")
    who = admin if asker == "owner" else login(asker)

    answer = who.put(f"{V1}/{verb}/{target}", json={"locked": True, "suspended": True})

    assert refusal(answer) == expected
    if target != "@owner:localhost" or asker != "owner":
        assert refusal(who.get(f"{V1}/{verb}/{target}")) == expected


@pytest.mark.parametrize("verb", ["lock", "suspend"])
def test_administrators_do_not_lock_out_each_other(
    admin: Person, login: Login, app: Any, verb: str
) -> None:
    other = login("other")
    with app.homeserver.database.write() as tx:
        tx.sql.connection.exec_driver_sql("UPDATE accounts SET is_admin = 1")

    answer = admin.put(f"{V1}/{verb}/{other.user_id}", json={"locked": True, "suspended": True})

    assert refusal(answer) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("body", [{}, {"locked": "yes"}, {"locked": None}])
def test_a_lock_is_true_or_false(admin: Person, login: Login, body: dict[str, Any]) -> None:
    answer = admin.put(f"{V1}/lock/{login('bob').user_id}", json=body)

    assert answer.status_code == 400


def test_the_capability_is_told_to_administrators_alone(admin: Person, login: Login) -> None:
    def told(person: Person) -> Any:
        return person.get("capabilities").get_json()["capabilities"].get("m.account_moderation")

    assert told(admin) == {"suspend": True, "lock": True}
    assert told(login("bob")) is None


def test_a_lock_holds_from_the_next_request_on_and_keeps_the_session(
    login: Login, client: FlaskClient, change: Change
) -> None:
    bob = login("bob")
    before = bob.get("account/whoami").status_code
    change(bob, locked=True)
    who = {"type": "m.id.user", "user": "bob"}
    body = {"type": "m.login.password", "identifier": who, "password": PASSWORD}

    answers = [bob.get("sync"), bob.get("account/whoami"), client.post(V3 + "login", json=body)]
    change(bob, locked=False)

    assert before == 200
    for answer in answers:
        assert refusal(answer) == (401, "M_USER_LOCKED")
        assert answer.get_json()["soft_logout"] is True
    assert bob.get("account/whoami").status_code == 200


@pytest.mark.parametrize("path", ["logout", "logout/all"])
def test_who_is_locked_may_log_out(login: Login, change: Change, path: str) -> None:
    bob = login("bob")
    change(bob, locked=True)

    answer = bob.post(path)
    still_locked = bob.get("account/whoami")
    change(bob, locked=False)

    assert answer.status_code == 200
    assert refusal(still_locked) == (401, "M_UNKNOWN_TOKEN")
    assert refusal(bob.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")


def test_who_is_suspended_says_and_changes_nothing(
    login: Login, room: Room, change: Change
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id, other = room(alice, bob), room(alice)
    event_id = alice.send(room_id)
    own = room(bob)
    change(bob, suspended=True)
    path = f"rooms/{quote(room_id)}"

    answers = [
        say(bob, room_id),
        bob.put(f"{path}/state/m.room.topic", json={"topic": "x"}),
        bob.put(f"{path}/redact/{quote(event_id)}/t", json={}),
        bob.put(f"{path}/send/m.room.redaction/u", json={"redacts": event_id}),
        act(bob, other, "join"),
        bob.post(f"knock/{quote(other)}"),
        act(bob, room_id, "invite", user_id="@eve:localhost"),
        act(bob, own, "ban", user_id=alice.user_id),
        bob.put(f"{path}/state/m.room.member/{bob.user_id}", json={"membership": "join"}),
        bob.post("createRoom"),
        bob.post(f"rooms/{quote(own)}/upgrade", json={"new_version": "11"}),
        bob.put(f"profile/{bob.user_id}/displayname", json={"displayname": "x"}),
        bob.delete(f"profile/{bob.user_id}/displayname"),
    ]

    assert [refusal(answer) for answer in answers] == [SUSPENDED] * len(answers)


def test_who_is_suspended_reads_leaves_and_takes_back_own_words(
    login: Login, room: Room, change: Change
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id, left = room(alice, bob), room(alice, bob)
    own = bob.send(room_id, "regretted")
    change(bob, suspended=True)

    event_id = alice.send(room_id, "news")
    sync = bob.sync()
    taken_back = bob.put(f"rooms/{quote(room_id)}/redact/{quote(own)}/t", json={})
    act(bob, left, "leave")

    events = sync["rooms"]["join"][room_id]["timeline"]["events"]
    assert event_id in [event["event_id"] for event in events]
    assert taken_back.status_code == 200
    assert membership(alice, left, bob.user_id)["membership"] == "leave"
    assert login("bob").get("account/whoami").status_code == 200


def test_a_suspension_ends(login: Login, room: Room, change: Change) -> None:
    bob = login("bob")
    room_id = room(bob)
    change(bob, suspended=True)
    change(bob, suspended=False)

    assert say(bob, room_id).status_code == 200
