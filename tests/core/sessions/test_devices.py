"""The sessions of a user."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from homebody.core.accounts import access_tokens
from homebody.core.sessions import devices
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, Person
from tests.helpers.rooms import refusal

PROOF = {"type": "m.login.password", "user": "alice", "password": PASSWORD}


def test_all_devices_are_listed_and_nobody_elses(login: Login) -> None:
    phone, laptop = login("alice"), login("alice")
    login("bob")

    devices = phone.get("devices").get_json()["devices"]

    assert {device["device_id"] for device in devices} == {phone.device_id, laptop.device_id}


def test_a_device_tells_when_and_from_where_it_was_last_seen(login: Login) -> None:
    alice = login("alice")
    before = time.time_ns() // 1_000_000

    device = alice.get(f"devices/{alice.device_id}").get_json()

    assert device["device_id"] == alice.device_id
    assert device["last_seen_ip"] == "127.0.0.1"
    assert before <= device["last_seen_ts"] <= before + 60_000
    assert device["display_name"] is None


def test_a_device_that_has_just_logged_in_was_seen(app: Application, client: FlaskClient) -> None:
    before = time.time_ns() // 1_000_000
    headers = {"User-Agent": "phone"}
    registered = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    at_once = client.post(V3 + "register", json=registered, headers=headers).get_json()
    login_again = {**PROOF, "device_id": "LAPTOP"}
    client.post(V3 + "login", json=login_again, headers=headers)
    alice = Person(client, at_once["user_id"], at_once["access_token"], at_once["device_id"])

    seen = app.homeserver.last_seen.of(alice.user_id, at_once["device_id"])
    listed = {it["device_id"]: it for it in alice.get("devices").get_json()["devices"]}

    assert seen is not None
    assert (seen.ip, seen.user_agent) == ("127.0.0.1", "phone")
    assert set(listed) == {at_once["device_id"], "LAPTOP"}
    assert listed["LAPTOP"]["last_seen_ip"] == "127.0.0.1"
    assert before <= listed["LAPTOP"]["last_seen_ts"] <= before + 60_000


@pytest.mark.parametrize("kind", ["user", "guest"])
def test_a_guest_and_whoever_registers_were_seen(
    app: Application, client: FlaskClient, kind: str
) -> None:
    body = {"auth": {"type": "m.login.dummy"}}

    session = client.post(V3 + f"register?kind={kind}", json=body).get_json()

    assert app.homeserver.last_seen.of(session["user_id"], session["device_id"])


def test_what_is_not_known_of_a_device_is_null(app: Application, login: Login) -> None:
    alice = login("alice")
    with app.homeserver.database.write() as tx:
        devices.start_session(tx, alice.user_id, "UNUSED")

    (unused,) = (
        it for it in alice.get("devices").get_json()["devices"] if it["device_id"] == "UNUSED"
    )

    assert unused == {
        "device_id": "UNUSED",
        "display_name": None,
        "last_seen_ip": None,
        "last_seen_ts": None,
    }
    assert alice.get("devices/UNUSED").get_json() == unused


def test_being_seen_costs_no_write_but_survives_a_restart(app: Application, login: Login) -> None:
    alice = login("alice")
    seen: access_tokens.LastSeen = app.homeserver.last_seen

    def written() -> Any:
        with app.homeserver.database.read() as tx:
            query = "SELECT last_seen_ip, last_seen_ts FROM devices"
            return tuple(tx.sql.connection.exec_driver_sql(query).one())

    alice.get("account/whoami")
    assert written() == (None, None)
    seen.write()

    ip, ts = written()
    assert ip == "127.0.0.1"
    assert alice.get("devices").get_json()["devices"][0]["last_seen_ts"] >= ts


def test_now_and_then_a_request_starts_the_writing(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = login("alice")
    later = time.monotonic() + access_tokens.WRITE_EVERY_SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: later)

    alice.get("account/whoami")
    monkeypatch.undo()

    until = time.monotonic() + 5
    query = "SELECT last_seen_ts FROM devices"
    seen = None
    while seen is None and time.monotonic() < until:
        with app.homeserver.database.read() as tx:
            seen = tx.sql.connection.exec_driver_sql(query).scalar_one()
        time.sleep(0.01)
    assert seen is not None


def test_a_device_gets_another_name(login: Login) -> None:
    alice = login("alice")
    path = f"devices/{alice.device_id}"

    answer = alice.put(path, json={"display_name": "Alice's phone"})
    alice.put(path, json={})  # changes nothing

    assert (answer.status_code, answer.get_json()) == (200, {})
    assert alice.get(path).get_json()["display_name"] == "Alice's phone"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"display_name": 5}, (400, "M_BAD_JSON")),
        ({"display_name": "x" * 256}, (400, "M_INVALID_PARAM")),
        ([], (400, "M_BAD_JSON")),
    ],
)
def test_a_bad_name_is_refused(login: Login, body: Any, expected: tuple[int, str]) -> None:
    alice = login("alice")

    answer = alice.put(f"devices/{alice.device_id}", json=body)

    assert refusal(answer) == expected
    assert alice.get(f"devices/{alice.device_id}").get_json()["display_name"] is None


def test_a_device_of_somebody_else_is_unknown(login: Login) -> None:
    alice, bob = login("alice"), login("bob")

    read = alice.get(f"devices/{bob.device_id}")
    renamed = alice.put(f"devices/{bob.device_id}", json={"display_name": "mine"})
    alice.delete(f"devices/{bob.device_id}", json={"auth": PROOF})

    assert refusal(read) == (404, "M_NOT_FOUND")
    assert refusal(renamed) == (404, "M_NOT_FOUND")
    assert bob.get("account/whoami").status_code == 200


def test_a_deleted_device_is_refused_by_the_very_next_request(login: Login) -> None:
    laptop, phone = login("alice"), login("alice")
    assert phone.get("account/whoami").status_code == 200  # its token is in the cache

    answer = laptop.delete(f"devices/{phone.device_id}", json={"auth": PROOF})

    assert (answer.status_code, answer.get_json()) == (200, {})
    assert refusal(phone.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")
    assert refusal(laptop.get(f"devices/{phone.device_id}")) == (404, "M_NOT_FOUND")


def test_deleting_a_device_again_is_fine(login: Login) -> None:
    alice = login("alice")

    answer = alice.delete("devices/GONE", json={"auth": PROOF})

    assert (answer.status_code, answer.get_json()) == (200, {})


def test_without_the_password_no_device_is_deleted(login: Login) -> None:
    laptop, phone = login("alice"), login("alice")

    one = laptop.delete(f"devices/{phone.device_id}")
    many = laptop.post("delete_devices", json={"devices": [phone.device_id]})

    assert one.status_code == many.status_code == 401
    assert phone.get("account/whoami").status_code == 200


def test_several_devices_are_deleted_at_once(login: Login) -> None:
    laptop, phone, tablet = login("alice"), login("alice"), login("alice")
    body = {"devices": [phone.device_id, tablet.device_id, "UNKNOWN"], "auth": PROOF}

    answer = laptop.post("delete_devices", json=body)

    assert (answer.status_code, answer.get_json()) == (200, {})
    devices = laptop.get("devices").get_json()["devices"]
    assert [device["device_id"] for device in devices] == [laptop.device_id]


@pytest.mark.parametrize("devices", ["PHONE", [1], {"PHONE": 1}])
def test_a_list_of_devices_is_a_list_of_strings(login: Login, devices: Any) -> None:
    alice = login("alice")

    wrong = alice.post("delete_devices", json={"devices": devices, "auth": PROOF})
    missing = alice.post("delete_devices", json={"auth": PROOF})

    assert refusal(wrong) == (400, "M_BAD_JSON")
    assert refusal(missing) == (400, "M_MISSING_PARAM")


def test_more_devices_than_sql_takes_parameters_are_no_fault(login: Login) -> None:
    alice = login("alice")
    many = [str(number) for number in range(60_000)]

    answer = alice.post("delete_devices", json={"devices": many, "auth": PROOF})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "least"),
    [("logout/all", 4), ("delete_devices", 4), ("account/password", 3), ("account/deactivate", 6)],
)
def test_many_sessions_end_in_several_writes(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch, path: str, least: int
) -> None:
    # each may have thousands of keys and messages, and others wait for the write that deletes them
    monkeypatch.setattr(devices, "REMOVED_AT_ONCE", 2)
    sessions = [login("alice") for _ in range(7)]
    alice = sessions[3]
    ids = [it.device_id for it in sessions]
    writes: list[int] = []
    app.homeserver.database.writer.committed = lambda number, _seconds: writes.append(number)

    body = {"auth": PROOF, "devices": ids, "new_password": "another long one"}
    answer = alice.post(path, json=body)

    assert answer.status_code == 200, answer.get_json()
    assert len(writes) >= least
    ended = [it.get("account/whoami").status_code for it in sessions if it is not alice]
    assert set(ended) == {401}
    stays = path == "account/password"
    assert alice.get("account/whoami").status_code == (200 if stays else 401)


def test_a_device_id_may_hold_any_character(login: Login) -> None:
    alice = login("alice")
    device_id = "a/b %2F ä?#"
    body = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
    alice.post("login", json={**body, "device_id": device_id})

    device = alice.get(f"devices/{quote(device_id, safe='')}").get_json()

    assert device["device_id"] == device_id


@pytest.mark.parametrize("prefix", ["m.", "org.matrix.msc3890."])
def test_settings_of_local_notifications_end_with_the_device(login: Login, prefix: str) -> None:
    phone, laptop = login("alice"), login("alice")
    path = f"user/{phone.user_id}/account_data/{prefix}local_notification_settings."
    for device in (phone, laptop):
        laptop.put(path + device.device_id, json={"is_silenced": True})
    token = laptop.sync()["next_batch"]

    assert phone.post("logout").status_code == 200

    events = laptop.sync(token)["account_data"]["events"]
    gone = f"{prefix}local_notification_settings.{phone.device_id}"
    assert events == [{"type": gone, "content": {}}]
    assert refusal(laptop.get(path + phone.device_id)) == (404, "M_NOT_FOUND")
    assert laptop.get(path + laptop.device_id).get_json() == {"is_silenced": True}
