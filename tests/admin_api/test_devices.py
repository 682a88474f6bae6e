"""Devices, pushers and whois in the admin API."""

from __future__ import annotations

import time
from typing import Any

import pytest

from homebody.core import audit
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import refusal, unchanged

V1 = "/_synapse/admin/v1"
V2 = "/_synapse/admin/v2"
ALICE = f"{V2}/users/@alice:localhost"
GATEWAY = {
    "kind": "http",
    "app_id": "org.example",
    "pushkey": "key",
    "app_display_name": "App",
    "device_display_name": "Phone",
    "lang": "en",
    "data": {"url": "https://push.example/_matrix/push/v1/notify"},
}


def test_devices_are_listed_with_the_program_that_used_them(admin: Person, alice: Person) -> None:
    alice.get("account/whoami", headers={"User-Agent": "Telephone/1"})

    answer = admin.get(f"{ALICE}/devices").get_json()

    (device,) = answer["devices"]
    assert answer["total"] == 1
    assert device == admin.get(f"{ALICE}/devices/{alice.device_id}").get_json()
    assert abs(device.pop("last_seen_ts") - time.time() * 1000) < 600_000
    assert device == {
        "device_id": alice.device_id,
        "display_name": None,
        "last_seen_ip": "127.0.0.1",
        "last_seen_user_agent": "Telephone/1",
        "user_id": alice.user_id,
    }


def test_a_dehydrated_device_is_marked(admin: Person, alice: Person, app: Application) -> None:
    with app.homeserver.database.write() as tx:
        tx.sql.connection.exec_driver_sql(
            "INSERT INTO dehydrated_devices VALUES (?, ?, '{}')", (alice.user_id, alice.device_id)
        )

    (device,) = admin.get(f"{ALICE}/devices").get_json()["devices"]

    assert device["dehydrated"] is True


def test_a_device_is_created_renamed_and_deleted(
    app: Application, admin: Person, alice: Person
) -> None:
    made = admin.post(f"{ALICE}/devices", json={"device_id": "NEW"})
    again = admin.post(f"{ALICE}/devices", json={"device_id": "NEW"})
    renamed = admin.put(f"{ALICE}/devices/NEW", json={"display_name": "Newest"})
    nothing = admin.put(f"{ALICE}/devices/NEW", json={})
    shown = admin.get(f"{ALICE}/devices/NEW").get_json()
    gone = admin.request("DELETE", f"{ALICE}/devices/NEW", json={})
    twice = admin.delete(f"{ALICE}/devices/NEW")

    assert (made.status_code, again.status_code) == (201, 201)
    assert renamed.get_json() == nothing.get_json() == gone.get_json() == twice.get_json() == {}
    assert (shown["display_name"], shown["last_seen_ts"]) == ("Newest", None)
    assert refusal(admin.get(f"{ALICE}/devices/NEW")) == (404, "M_NOT_FOUND")
    assert refusal(admin.put(f"{ALICE}/devices/NEW", json={"display_name": "x"}))[0] == 404
    with app.homeserver.database.read() as tx:
        entries = audit.latest(tx, 100, subject=alice.user_id)
    assert [it["action"] for it in reversed(entries)] == [
        *("device.create", "device.rename", "device.delete")
    ]


def test_deleted_devices_are_logged_out(admin: Person, alice: Person, login: Login) -> None:
    second, third = login("alice"), login("alice")
    body = {"devices": [alice.device_id, second.device_id, "UNKNOWN"]}

    answer = admin.post(f"{ALICE}/delete_devices", json=body)

    assert answer.get_json() == {}
    assert [it.get("account/whoami").status_code for it in (alice, second, third)] == [
        *(401, 401, 200)
    ]


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "devices", {}, (400, "M_MISSING_PARAM")),
        ("POST", "devices", {"device_id": ""}, (400, "M_MISSING_PARAM")),
        ("POST", "devices", {"device_id": 1}, (400, "M_BAD_JSON")),
        ("POST", "devices", {"device_id": "x" * 300}, (400, "M_INVALID_PARAM")),
        ("POST", "delete_devices", {}, (400, "M_MISSING_PARAM")),
        ("POST", "delete_devices", {"devices": "x"}, (400, "M_BAD_JSON")),
        ("PUT", "devices/X", {"display_name": 1}, (400, "M_BAD_JSON")),
    ],
)
def test_bad_bodies_change_nothing(
    app: Application,
    admin: Person,
    alice: Person,
    method: str,
    path: str,
    body: dict[str, Any],
    expected: tuple[int, str],
) -> None:
    with unchanged(app):
        answer = admin.request(method, f"{ALICE}/{path}", json=body)

    assert refusal(answer) == expected


def test_pushers_are_listed(admin: Person, alice: Person) -> None:
    path = f"{V1}/users/{alice.user_id}/pushers"
    none = admin.get(path).get_json()
    assert alice.post("pushers/set", json=GATEWAY).status_code == 200

    found = admin.get(path).get_json()

    assert none == {"pushers": [], "total": 0}
    (pusher,) = found["pushers"]
    assert found["total"] == 1
    assert pusher == {"profile_tag": "", **pusher, **GATEWAY}


def test_whois_is_for_oneself_and_for_administrators(
    admin: Person, alice: Person, login: Login
) -> None:
    path = f"{V1}/whois/{alice.user_id}"
    alice.get("account/whoami", headers={"User-Agent": "Telephone/1"})

    theirs = admin.get(path).get_json()
    own = alice.get(path, headers={"User-Agent": "Telephone/1"}).get_json()

    assert own["user_id"] == theirs["user_id"] == alice.user_id
    for answer in (own, theirs):
        ((session,),) = (it["sessions"] for it in answer["devices"].values())
        (connection,) = session["connections"]
        assert set(connection) == {"ip", "last_seen", "user_agent"}
        assert connection["user_agent"] == "Telephone/1"
    assert refusal(login("mallory").get(path)) == (403, "M_FORBIDDEN")


def test_whois_has_no_connection_of_a_device_that_was_never_used(
    admin: Person, alice: Person
) -> None:
    admin.post(f"{ALICE}/devices", json={"device_id": "NEW"})

    found = admin.get(f"{V1}/whois/{alice.user_id}").get_json()["devices"]

    assert found["NEW"] == {"sessions": [{"connections": []}]}
    assert len(found[alice.device_id]["sessions"][0]["connections"]) == 1


def test_whois_of_nobody_tells_that_one_is_an_administrator(admin: Person, alice: Person) -> None:
    path = f"{V1}/whois/@nobody:localhost"

    assert admin.get(path).get_json() == {"user_id": "@nobody:localhost", "devices": {}}
    assert refusal(alice.get(path)) == (403, "M_FORBIDDEN")
    assert admin.get(f"{V1}/whois/@bob:elsewhere.example").status_code == 400
