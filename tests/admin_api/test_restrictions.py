"""What administrators do to accounts: suspensions, passwords, logins as a user, limits."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core import audit
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.helpers.encryption import Identity
from tests.helpers.rooms import membership, refusal, unchanged

V1 = "/_synapse/admin/v1"
V2 = "/_synapse/admin/v2"
OTHER = "correct horse battery stapler"


def log_in(client: FlaskClient, name: str, password: str = PASSWORD) -> TestResponse:
    who = {"type": "m.id.user", "user": name}
    body = {"type": "m.login.password", "identifier": who, "password": password}
    return client.post(V3 + "login", json=body)


def record(admin: Person, person: Person) -> dict[str, Any]:
    found: dict[str, Any] = admin.get(f"{V2}/users/{person.user_id}").get_json()
    return found


def actions(app: Application, person: Person) -> list[str]:
    """What the audit log has about a person, oldest first."""
    with app.homeserver.database.read() as tx:
        return [it["action"] for it in reversed(audit.latest(tx, 100, subject=person.user_id))]


# deactivation


@pytest.mark.parametrize("body", [None, b"", b"{}", b'{"erase": false}'])
def test_a_deactivated_user_is_gone(
    client: FlaskClient, admin: Person, alice: Person, room: Any, body: bytes | None
) -> None:
    room_id = room(admin, alice)
    path = f"{V1}/deactivate/{alice.user_id}"

    answer = admin.request("POST", path, data=body)
    again = admin.request("POST", path, data=body)

    assert answer.get_json() == again.get_json() == {"id_server_unbind_result": "success"}
    assert refusal(alice.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")
    assert log_in(client, "alice").status_code == 403
    assert membership(admin, room_id, alice.user_id)["membership"] == "leave"
    state = record(admin, alice)
    assert (state["deactivated"], state["erased"]) == (True, False)
    assert state["displayname"] == "alice"


def test_an_erased_user_is_more_than_gone(
    app: Application, admin: Person, alice: Person, login: Login, room: Any
) -> None:
    room_id = room(admin, alice)
    event_id = alice.send(room_id, "secret")
    path = f"{V1}/deactivate/{alice.user_id}"

    admin.post(path)  # first without
    admin.post(path, json={"erase": True})
    admin.post(path, json={"erase": False})  # which does not undo it

    bob = login("bob")
    bob.post(f"rooms/{room_id}/join")
    state = record(admin, alice)
    assert (state["deactivated"], state["erased"], state["displayname"]) == (True, True, None)
    assert bob.get(f"rooms/{room_id}/event/{event_id}").get_json()["content"] == {}
    assert actions(app, alice) == ["user.deactivate"] * 2


@pytest.mark.parametrize("erase", ["yes", 1, None])
def test_erase_is_true_or_false(app: Application, admin: Person, alice: Person, erase: Any) -> None:
    with unchanged(app):
        answer = admin.post(f"{V1}/deactivate/{alice.user_id}", json={"erase": erase})

    assert refusal(answer) == (400, "M_BAD_JSON")


def test_administrators_may_deactivate_themselves(admin: Person, alice: Person) -> None:
    answer = admin.post(f"{V1}/deactivate/{admin.user_id}")

    assert answer.status_code == 200
    assert refusal(admin.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")


# suspension


def test_a_suspension_holds_until_it_ends(
    app: Application, admin: Person, alice: Person, room: Any
) -> None:
    room_id = room(alice)
    path = f"{V1}/suspend/{alice.user_id}"
    content = {"msgtype": "m.text", "body": "x"}

    on = admin.put(path, json={"suspend": True})
    refused = alice.put(f"rooms/{room_id}/send/m.room.message/1", json=content)
    state = record(admin, alice)["suspended"]
    off = admin.put(path, json={"suspend": False})

    assert on.get_json() == {f"user_{alice.user_id}_suspended": True}
    assert off.get_json() == {f"user_{alice.user_id}_suspended": False}
    assert refusal(refused) == (403, "M_USER_SUSPENDED")
    assert state is True
    assert alice.send(room_id)
    assert actions(app, alice) == ["user.suspend", "user.unsuspend"]


@pytest.mark.parametrize("body", [{}, {"suspend": "yes"}, {"suspend": 1}, {"suspend": None}])
def test_a_suspension_is_true_or_false(
    app: Application, admin: Person, alice: Person, body: dict[str, Any]
) -> None:
    with unchanged(app):
        answer = admin.put(f"{V1}/suspend/{alice.user_id}", json=body)

    assert answer.status_code == 400


# passwords


def test_a_password_is_reset_and_sessions_end(
    app: Application, client: FlaskClient, admin: Person, alice: Person
) -> None:
    path = f"{V1}/reset_password/{alice.user_id}"

    kept = admin.post(path, json={"new_password": OTHER, "logout_devices": False})
    still = alice.get("account/whoami").status_code
    ended = admin.post(path, json={"new_password": PASSWORD})

    assert kept.get_json() == ended.get_json() == {}
    assert still == 200
    assert refusal(alice.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")
    assert log_in(client, "alice", OTHER).status_code == 403
    assert log_in(client, "alice").status_code == 200
    assert actions(app, alice) == ["user.password"] * 2
    with app.homeserver.database.read() as tx:
        assert OTHER not in str(audit.latest(tx, 100))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "M_MISSING_PARAM")),
        ({"new_password": 1}, (400, "M_BAD_JSON")),
        ({"new_password": OTHER, "logout_devices": "no"}, (400, "M_BAD_JSON")),
        ({"new_password": "short"}, (400, "M_WEAK_PASSWORD")),
    ],
)
def test_a_bad_reset_changes_nothing(
    app: Application,
    admin: Person,
    alice: Person,
    body: dict[str, Any],
    expected: tuple[int, str],
) -> None:
    with unchanged(app):
        answer = admin.post(f"{V1}/reset_password/{alice.user_id}", json=body)

    assert refusal(answer) == expected


# login as a user


def as_user(client: FlaskClient, admin: Person, user: Person, **body: Any) -> Person:
    answer = admin.post(f"{V1}/users/{user.user_id}/login", json=body)
    assert answer.status_code == 200, answer.get_json()
    assert set(answer.get_json()) == {"access_token"}
    return Person(client, user.user_id, answer.get_json()["access_token"], "")


def test_an_administrator_acts_as_a_user_without_a_device(
    app: Application, client: FlaskClient, admin: Person, alice: Person, room: Any
) -> None:
    puppet = as_user(client, admin, alice)

    whoami = puppet.get("account/whoami").get_json()
    room_id = room(puppet)
    event_id = puppet.send(room_id)

    assert whoami == {"user_id": alice.user_id, "is_guest": False}
    event = alice.get(f"rooms/{room_id}/event/{event_id}").get_json()
    assert event["sender"] == alice.user_id
    assert room_id in puppet.sync()["rooms"]["join"]
    assert len(alice.get("devices").get_json()["devices"]) == 1
    assert refusal(puppet.get(f"{V2}/users")) == (403, "M_FORBIDDEN")
    assert actions(app, alice) == ["user.log_in_as"]


def test_the_token_of_an_administrator_outlives_the_user_s_logout_but_not_its_own(
    client: FlaskClient, admin: Person, alice: Person
) -> None:
    puppet, second = as_user(client, admin, alice), as_user(client, admin, alice)

    alice.post("logout/all")
    after = puppet.get("account/whoami").status_code
    puppet.post("logout")

    assert after == 200
    assert refusal(puppet.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")
    assert second.get("account/whoami").status_code == 200


@pytest.mark.parametrize("end", ["logout/all", "demotion", "deactivation"])
def test_tokens_of_an_administrator_end_with_the_administrator_or_the_account(
    client: FlaskClient, admin: Person, alice: Person, login: Login, end: str
) -> None:
    boss = login("boss")
    admin.put(f"{V1}/users/{boss.user_id}/admin", json={"admin": True})
    puppet = as_user(client, boss, alice)

    if end == "logout/all":
        boss.post("logout/all")
    elif end == "demotion":
        admin.put(f"{V1}/users/{boss.user_id}/admin", json={"admin": False})
    else:
        admin.post(f"{V1}/deactivate/{alice.user_id}")
        admin.put(f"{V2}/users/{alice.user_id}", json={"deactivated": False})

    assert refusal(puppet.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")


def test_the_token_of_an_administrator_ends_when_it_should(
    client: FlaskClient, admin: Person, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = time.time_ns() // 1_000_000 + 60_000
    puppet = as_user(client, admin, alice, valid_until_ms=soon)
    past = as_user(client, admin, alice, valid_until_ms=1)
    before = puppet.get("account/whoami").status_code

    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + 61)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + 61_000_000_000)

    assert before == 200
    assert refusal(puppet.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")
    assert refusal(past.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")


@pytest.mark.parametrize("data", [None, b""])
def test_the_body_of_a_login_may_be_missing(
    admin: Person, alice: Person, data: bytes | None
) -> None:
    answer = admin.request("POST", f"{V1}/users/{alice.user_id}/login", data=data)

    assert answer.status_code == 200


@pytest.mark.parametrize("until", ["1", 1.5, True, -1, 2**63, {}])
def test_nobody_logs_in_as_themselves_or_until_a_time_that_is_none(
    app: Application, admin: Person, alice: Person, until: Any
) -> None:
    with unchanged(app):
        own = admin.post(f"{V1}/users/{admin.user_id}/login")
        odd = admin.post(f"{V1}/users/{alice.user_id}/login", json={"valid_until_ms": until})

    assert own.status_code == odd.status_code == 400


# limits


@pytest.fixture
def limited(make_app: MakeApp) -> Application:
    """A server on which nobody sends more than two messages."""
    return make_app(
        **{
            "rate_limits": "true",
            "rc_message.per_second": "0.001",
            "rc_message.burst_count": "2",
            "rc_writes.burst_count": "40",
            "rc_writes.per_second": "0.001",
        }
    )


def sent(person: Person, room_id: str, count: int) -> int:
    """How many of so many messages are accepted."""
    path = f"rooms/{room_id}/send/m.room.message"
    answers = [person.post(path, json={"msgtype": "m.text", "body": "x"}) for _ in range(count)]
    assert {it.status_code for it in answers} <= {200, 429}
    return sum(it.status_code == 200 for it in answers)


def test_an_own_limit_takes_effect_at_once(
    limited: Application, make_app: MakeApp, login: Login, admin: Person, alice: Person, room: Any
) -> None:
    client = limited.test_client()
    owner, user = (Person(client, it.user_id, it.access_token, "") for it in (admin, alice))
    room_id = room(user)
    path = f"{V1}/users/{user.user_id}/override_ratelimit"
    limit = {"messages_per_second": 1, "burst_count": 5}

    before = sent(user, room_id, 5)
    none = owner.get(path)
    put = owner.post(path, json=limit)
    with_own = sent(user, room_id, 8)
    owner.post(path)  # no rate: no limit
    free = owner.get(path), sent(user, room_id, 60)
    removed = owner.delete(path)

    assert before == 2
    assert none.get_json() == removed.get_json() == {}
    assert put.get_json() == limit
    assert with_own == 5
    assert free[0].get_json() == {"messages_per_second": 0, "burst_count": 0}
    assert free[1] == 60  # which is also more than rc_writes allows
    assert owner.get(path).get_json() == {}
    assert sent(user, room_id, 3) == 0
    assert actions(limited, user) == ["user.rate_limit"] * 3


@pytest.mark.parametrize(
    "body",
    [
        {"messages_per_second": "1"},
        {"messages_per_second": True},
        {"messages_per_second": 1.5},
        {"messages_per_second": -1},
        {"messages_per_second": None},
        {"burst_count": -1},
        {"burst_count": "1"},
        {"burst_count": 2**60},
    ],
)
def test_limits_are_whole_numbers(
    app: Application, admin: Person, alice: Person, body: dict[str, Any]
) -> None:
    with unchanged(app):
        answer = admin.post(f"{V1}/users/{alice.user_id}/override_ratelimit", json=body)

    assert refusal(answer) == (400, "M_INVALID_PARAM")


# expiry


def test_an_account_expires_and_can_be_prolonged(
    app: Application, client: FlaskClient, admin: Person, alice: Person
) -> None:
    def set_expiry(ts: int | None) -> Any:
        body = {"user_id": alice.user_id, "expiration_ts": ts}
        return admin.post(f"{V1}/account_validity/validity", json=body).get_json()

    later = time.time_ns() // 1_000_000 + 3_600_000
    assert set_expiry(later) == {"expiration_ts": later}
    before = alice.get("account/whoami").status_code
    assert set_expiry(1) == {"expiration_ts": 1}
    after = [alice.get("account/whoami"), alice.get("sync"), log_in(client, "alice")]
    assert set_expiry(None) == {"expiration_ts": None}

    assert before == 200
    assert [refusal(it) for it in after] == [(403, "ORG_MATRIX_EXPIRED_ACCOUNT")] * 3
    assert alice.get("account/whoami").status_code == 200
    assert log_in(client, "alice").status_code == 200
    assert actions(app, alice) == ["user.expiry"] * 3


def test_an_account_expires_while_it_is_in_use(
    client: FlaskClient, admin: Person, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"user_id": alice.user_id, "expiration_ts": time.time_ns() // 1_000_000 + 60_000}
    admin.post(f"{V1}/account_validity/validity", json=body)
    before = alice.get("account/whoami").status_code

    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + 61)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + 61_000_000_000)

    assert before == 200
    assert refusal(alice.get("account/whoami")) == (403, "ORG_MATRIX_EXPIRED_ACCOUNT")
    assert alice.post("logout").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user_id": "@alice:localhost"},
        {"user_id": "@alice:localhost", "expiration_ts": "x"},
        {"user_id": "@alice:localhost", "expiration_ts": -1},
        {"user_id": "@alice:elsewhere.example", "expiration_ts": 1},
        {"user_id": 1, "expiration_ts": 1},
    ],
)
def test_a_bad_expiry_changes_nothing(
    app: Application, admin: Person, alice: Person, body: dict[str, Any]
) -> None:
    with unchanged(app):
        answer = admin.post(f"{V1}/account_validity/validity", json=body)

    assert answer.status_code == 400


# cross-signing keys


def test_keys_can_be_replaced_once_without_a_password(
    app: Application, admin: Person, alice: Person
) -> None:
    path = f"{V1}/users/{alice.user_id}/_allow_cross_signing_replacement_without_uia"
    without = admin.post(path)
    alice.post("keys/device_signing/upload", json=Identity(alice.user_id).upload())
    second, third = (Identity(alice.user_id, it).upload() for it in ("second", "third"))

    refused = alice.post("keys/device_signing/upload", json=second)
    allowed = admin.post(path)
    replaced = alice.post("keys/device_signing/upload", json=second)
    again = alice.post("keys/device_signing/upload", json=third)

    assert refusal(without) == (404, "M_NOT_FOUND")
    assert refused.status_code == again.status_code == 401
    until = allowed.get_json()["updatable_without_uia_before_ms"]
    assert 0 < until - time.time() * 1000 <= 600_000
    assert replaced.get_json() == {}
    assert actions(app, alice) == ["user.replace_keys"]


def test_keys_can_be_replaced_for_ten_minutes(
    admin: Person, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.post("keys/device_signing/upload", json=Identity(alice.user_id).upload())
    admin.post(f"{V1}/users/{alice.user_id}/_allow_cross_signing_replacement_without_uia")
    now_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + 601 * 10**9)

    late = alice.post("keys/device_signing/upload", json=Identity(alice.user_id, "second").upload())

    assert late.status_code == 401
