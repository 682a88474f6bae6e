"""The account itself: whose it is, its password, its end."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from homebody.core.encryption import backed_up_keys
from homebody.core.events import state
from homebody.core.rooms import membership as rooms
from homebody.core.sessions import deactivation
from homebody.storage.database import Database
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, Person
from tests.helpers.rooms import refusal

PROOF = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
NEW = "another battery"


def can_log_in(client: FlaskClient, password: str) -> bool:
    body = {"type": "m.login.password", "user": "alice", "password": password}
    return client.post(V3 + "login", json=body).status_code == 200


def test_whoami_tells_whose_token_it_is(login: Login) -> None:
    alice = login("alice")

    answer = alice.get("account/whoami")

    assert answer.get_json() == {
        "user_id": "@alice:localhost",
        "device_id": alice.device_id,
        "is_guest": False,
    }


def test_a_changed_password_is_the_only_one(client: FlaskClient, login: Login) -> None:
    alice = login("alice")

    answer = alice.post("account/password", json={"new_password": NEW, "auth": PROOF})

    assert (answer.status_code, answer.get_json()) == (200, {})
    assert can_log_in(client, NEW)
    assert not can_log_in(client, PASSWORD)


def test_a_changed_password_ends_the_other_sessions(login: Login) -> None:
    phone, laptop = login("alice"), login("alice")
    assert phone.get("account/whoami").status_code == 200

    laptop.post("account/password", json={"new_password": NEW, "auth": PROOF})

    assert refusal(phone.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")
    assert laptop.get("account/whoami").status_code == 200


def test_the_other_sessions_may_stay(login: Login) -> None:
    phone, laptop = login("alice"), login("alice")
    body = {"new_password": NEW, "logout_devices": False, "auth": PROOF}

    laptop.post("account/password", json=body)

    assert phone.get("account/whoami").status_code == 200


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"new_password": ""}, (400, "M_WEAK_PASSWORD")),
        ({"new_password": "1234567"}, (400, "M_WEAK_PASSWORD")),
        ({"new_password": None}, (400, "M_BAD_JSON")),
        ({}, (400, "M_MISSING_PARAM")),
        ({"new_password": NEW, "logout_devices": "no"}, (400, "M_BAD_JSON")),
        ({"new_password": NEW, "auth": {**PROOF, "password": "guess"}}, (401, "M_FORBIDDEN")),
    ],
)
def test_a_bad_request_changes_no_password(
    client: FlaskClient, login: Login, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    phone, laptop = login("alice"), login("alice")

    answer = laptop.post("account/password", json={"auth": PROOF, **body})

    assert refusal(answer) == expected
    assert can_log_in(client, PASSWORD)
    assert phone.get("account/whoami").status_code == 200


def test_a_deactivated_account_is_closed_for_ever(client: FlaskClient, login: Login) -> None:
    phone, laptop = login("alice"), login("alice")
    assert phone.get("account/whoami").status_code == 200

    answer = laptop.post("account/deactivate", json={"auth": PROOF})

    assert answer.get_json() == {"id_server_unbind_result": "success"}
    assert refusal(phone.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")
    assert refusal(laptop.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")
    assert not can_log_in(client, PASSWORD)


def test_without_the_password_the_account_stays(login: Login) -> None:
    alice = login("alice")

    answer = alice.post("account/deactivate", json={})

    assert answer.status_code == 401
    assert answer.get_json()["flows"] == [{"stages": ["m.login.password"]}]
    assert alice.get("account/whoami").status_code == 200


def membership(app: Application, room_id: str, person: Person) -> str | None:
    with app.homeserver.database.read() as tx:
        return state.membership_of(tx, room_id, person.user_id)


def test_a_deactivated_user_has_left_every_room(
    app: Application, login: Login, room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deactivation, "ROOMS_AT_ONCE", 2)
    alice, bob = login("alice"), login("bob")
    joined = [room(bob, alice) for _ in range(3)]
    invited = room(bob, preset="private_chat")
    bob.post(f"rooms/{quote(invited)}/invite", json={"user_id": alice.user_id})
    elsewhere = room(bob)

    alice.post("account/deactivate", json={"auth": PROOF})

    assert [membership(app, room_id, alice) for room_id in (*joined, invited)] == ["leave"] * 4
    assert membership(app, elsewhere, alice) is None
    assert membership(app, joined[0], bob) == "join"


def test_a_deactivated_user_has_also_left_a_room_that_another_device_joined_meanwhile(
    app: Application, login: Login, room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = login("alice"), login("bob")
    joined, late = room(bob, alice), room(bob)
    erase = backed_up_keys.erase

    def join_and_erase(db: Database, user_id: str) -> None:
        """Join another room between the write that leaves the rooms and the last one."""
        assert membership(app, joined, alice) == "leave"
        with db.write() as tx:
            rooms.join(tx, late, user_id)
        erase(db, user_id)

    monkeypatch.setattr(backed_up_keys, "erase", join_and_erase)
    answer = alice.post("account/deactivate", json={"auth": PROOF})

    assert answer.status_code == 200
    assert membership(app, late, alice) == "leave"


@pytest.mark.parametrize(
    ("body", "is_erased"), [({}, 0), ({"erase": False}, 0), ({"erase": True}, 1)]
)
def test_who_wants_to_be_erased_is_remembered_so(
    app: Application, login: Login, body: dict[str, Any], is_erased: int
) -> None:
    login("alice").post("account/deactivate", json={"auth": PROOF, **body})

    with app.homeserver.database.read() as tx:
        row = tx.sql.connection.exec_driver_sql(
            "SELECT erased_position IS NOT NULL, password_hash FROM accounts"
        ).one()
    assert tuple(row) == (is_erased, None)


def test_erasing_takes_profile_and_account_data_along(app: Application, login: Login) -> None:
    alice = login("alice")
    alice.put(f"profile/{alice.user_id}/displayname", json={"displayname": "Alice"})
    alice.put(f"user/{alice.user_id}/account_data/org.example.colour", json={"colour": "blue"})

    alice.post("account/deactivate", json={"auth": PROOF, "erase": True})

    with app.homeserver.database.read() as tx:
        for table in ("profile_fields", "account_data"):
            query = f"SELECT count(*) FROM {table}"  # noqa: S608 - the two names above
            assert tx.sql.connection.exec_driver_sql(query).scalar_one() == 0
