"""Accounts in the admin API: looking them up, creating and changing them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core import audit
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, Person
from tests.helpers.rooms import membership, refusal, unchanged

V1 = "/_synapse/admin/v1"
V2 = "/_synapse/admin/v2"
BOB = f"{V2}/users/@bob:localhost"
OTHER = "correct horse battery stapler"
ADDRESS = {"medium": "email", "address": "bob@example.org"}
ID = {"auth_provider": "oidc-x", "external_id": "17"}


def put(admin: Person, path: str = BOB, /, **body: Any) -> dict[str, Any]:
    answer = admin.put(path, json=body)
    assert answer.status_code in {200, 201}, answer.get_json()
    record: dict[str, Any] = answer.get_json()
    return record


def log_in(client: FlaskClient, name: str, password: str) -> TestResponse:
    who = {"type": "m.id.user", "user": name}
    body = {"type": "m.login.password", "identifier": who, "password": password}
    return client.post(V3 + "login", json=body)


def logged(app: Application, subject: str) -> list[tuple[str, str]]:
    """(actor, action) of the entries of the audit log about somebody, oldest first."""
    with app.homeserver.database.read() as tx:
        entries = audit.latest(tx, 100, subject=subject)
    return [(it["actor"], it["action"]) for it in reversed(entries)]


def test_a_record_has_all_fields_with_their_types(admin: Person, alice: Person) -> None:
    alice.put(f"profile/{alice.user_id}/avatar_url", json={"avatar_url": "mxc://localhost/a"})

    record = admin.get(f"{V2}/users/{alice.user_id}").get_json()

    now = time.time()
    assert now - 600 < record.pop("creation_ts") <= now  # seconds
    assert now - 600 < record.pop("last_seen_ts") / 1000 <= now  # milliseconds
    assert record == {
        "name": alice.user_id,
        "displayname": "alice",
        "avatar_url": "mxc://localhost/a",
        "threepids": [],
        "external_ids": [],
        "is_guest": False,
        "admin": False,
        "deactivated": False,
        "erased": False,
        "shadow_banned": False,
        "locked": False,
        "suspended": False,
        "user_type": None,
        "appservice_id": None,
        "consent_version": None,
        "consent_ts": None,
        "consent_server_notice_sent": None,
    }
    assert all(record[it] is False for it in ("is_guest", "admin", "deactivated", "locked"))
    assert admin.get(f"{V2}/users/{admin.user_id}").get_json()["admin"] is True


def test_when_a_user_was_last_seen_is_known_after_the_logout_too(
    app: Application, admin: Person, alice: Person
) -> None:
    path = f"{V2}/users/{alice.user_id}"
    alice.get("account/whoami")
    alice.post("logout")

    in_memory = admin.get(path).get_json()["last_seen_ts"]
    app.homeserver.last_seen.write()
    stored = admin.get(path).get_json()["last_seen_ts"]
    listed = admin.get(f"{V2}/users", query_string={"name": "alice"}).get_json()["users"]

    assert in_memory == stored == listed[0]["last_seen_ts"] > 0


def test_an_administrator_who_acts_as_a_user_does_not_make_them_seen(
    client: FlaskClient, admin: Person
) -> None:
    put(admin)
    token = admin.post(f"{V1}/users/@bob:localhost/login").get_json()["access_token"]

    Person(client, "@bob:localhost", token, "").get("account/whoami")

    assert admin.get(BOB).get_json()["last_seen_ts"] is None


@pytest.mark.parametrize(
    ("user_id", "expected"),
    [
        ("@nobody:localhost", (404, "M_NOT_FOUND")),
        ("@bob:elsewhere.example", (400, "M_UNKNOWN")),
        ("bob", (400, "M_INVALID_PARAM")),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "v2/users/{}"),
        ("GET", "v2/users/{}/devices"),
        ("POST", "v2/users/{}/devices"),
        ("POST", "v2/users/{}/delete_devices"),
        ("GET", "v2/users/{}/devices/X"),
        ("PUT", "v2/users/{}/devices/X"),
        ("DELETE", "v2/users/{}/devices/X"),
        ("GET", "v1/users/{}/pushers"),
        ("GET", "v1/users/{}/accountdata"),
        ("GET", "v1/users/{}/override_ratelimit"),
        ("POST", "v1/users/{}/override_ratelimit"),
        ("DELETE", "v1/users/{}/override_ratelimit"),
        ("POST", "v1/users/{}/login"),
        ("POST", "v1/deactivate/{}"),
        ("PUT", "v1/suspend/{}"),
        ("POST", "v1/reset_password/{}"),
        ("PUT", "v1/experimental_features/{}"),
    ],
)
def test_only_users_of_this_server_are_found(
    app: Application,
    admin: Person,
    method: str,
    path: str,
    user_id: str,
    expected: tuple[int, str],
) -> None:
    body = {
        "device_id": "X",
        "devices": [],
        "suspend": True,
        "new_password": OTHER,
        "features": {"msc3881": True},
    }
    with unchanged(app):
        answer = admin.request(method, f"/_synapse/admin/{path.format(user_id)}", json=body)

    assert refusal(answer) == expected


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "v1/users/{}/shadow_ban"),
        ("DELETE", "v1/users/{}/shadow_ban"),
        ("PUT", "v1/users/{}/admin"),
    ],
)
def test_some_paths_have_another_code_for_unknown_users(
    admin: Person, method: str, path: str
) -> None:
    def code(user_id: str) -> tuple[int, str]:
        url = f"/_synapse/admin/{path.format(user_id)}"
        return refusal(admin.request(method, url, json={"admin": True}))

    assert code("@nobody:localhost") == (404, "M_UNKNOWN")
    assert code("@bob:elsewhere.example") == (400, "M_UNKNOWN")


def test_a_user_is_created_with_all_that_the_body_says(
    app: Application, client: FlaskClient, admin: Person
) -> None:
    answer = admin.put(
        BOB,
        json={
            "password": PASSWORD,
            "displayname": "Bobby",
            "avatar_url": "mxc://localhost/b",
            "admin": True,
            "user_type": "support",
            "threepids": [{**ADDRESS, "address": "Bob@Example.org"}],
            "external_ids": [ID, ID],
            "id": "@bob:localhost",
            "avatar_src": None,
            "creation_ts_ms": 0,
        },
    )

    record = answer.get_json()
    assert answer.status_code == 201
    assert (record["name"], record["displayname"]) == ("@bob:localhost", "Bobby")
    assert (record["admin"], record["user_type"]) == (True, "support")
    assert record["avatar_url"] == "mxc://localhost/b"
    assert record["external_ids"] == [ID]
    (threepid,) = record["threepids"]
    assert (threepid["medium"], threepid["address"]) == ("email", "bob@example.org")
    assert threepid["added_at"] == threepid["validated_at"] > 0
    assert record["last_seen_ts"] is None
    assert log_in(client, "bob", PASSWORD).status_code == 200
    assert logged(app, "@bob:localhost") == [
        (admin.user_id, f"user.{it}")
        for it in ("create", "admin", "type", "addresses", "external_ids", "profile", "profile")
    ]


def test_a_user_without_a_password_is_created_and_gets_a_name(admin: Person) -> None:
    record = put(admin)

    assert (record["displayname"], record["avatar_url"]) == ("bob", None)
    assert record["creation_ts"] > 0


def test_a_record_may_be_sent_back_as_it_came(app: Application, admin: Person) -> None:
    made = put(admin, password=PASSWORD, threepids=[ADDRESS], external_ids=[ID])
    entries = logged(app, "@bob:localhost")

    again = admin.put(BOB, json={**made, "id": made["name"]})

    assert (again.status_code, again.get_json()) == (200, made)
    assert logged(app, "@bob:localhost") == entries


@pytest.mark.parametrize(
    "body",
    [
        {"user_type": "king"},
        {"user_type": 1},
        {"admin": "yes"},
        {"admin": None},
        {"deactivated": 1},
        {"locked": "false"},
        {"logout_devices": 1},
        {"deactivated": True, "locked": True},
        {"password": 17},
        {"password": "x" * 600},
        {"displayname": 17},
        {"displayname": "x" * 1000},
        {"threepids": [{"medium": "email"}]},
        {"threepids": [{"address": "a@b.example"}]},
        {"threepids": [{"medium": "pigeon", "address": "a@b.example"}]},
        {"threepids": [{"medium": "email", "address": "nothing"}]},
        {"threepids": [{"medium": "msisdn", "address": "+49 170"}]},
        {"threepids": "a@b.example"},
        {"external_ids": [{"auth_provider": "x"}]},
        {"threepids": [ADDRESS], "admin": True, "displayname": "x" * 1000},
    ],
)
@pytest.mark.parametrize("name", ["alice", "bob"])
def test_bad_values_change_and_create_nothing(
    app: Application, admin: Person, alice: Person, name: str, body: dict[str, Any]
) -> None:
    with unchanged(app):
        answer = admin.put(f"{V2}/users/@{name}:localhost", json={**body})

    assert answer.status_code == 400
    assert refusal(answer)[1] in {"M_BAD_JSON", "M_INVALID_PARAM", "M_MISSING_PARAM", "M_UNKNOWN"}


@pytest.mark.parametrize("name", ["Bob", "b%20b", "b€b"])
def test_a_name_that_no_account_can_have_is_refused(
    app: Application, admin: Person, name: str
) -> None:
    with unchanged(app):
        answer = admin.put(f"{V2}/users/@{name}:localhost", json={})

    assert answer.status_code == 400


def test_an_external_id_belongs_to_one_account(
    app: Application, admin: Person, alice: Person
) -> None:
    put(admin, f"{V2}/users/{alice.user_id}", external_ids=[ID])

    with unchanged(app):
        answer = admin.put(BOB, json={"external_ids": [ID], "password": PASSWORD})

    assert answer.status_code == 409
    found = admin.get(f"{V1}/auth_providers/oidc-x/users/17")
    assert found.get_json() == {"user_id": alice.user_id}
    assert refusal(admin.get(f"{V1}/auth_providers/oidc-x/users/18")) == (404, "M_NOT_FOUND")
    put(admin, f"{V2}/users/{alice.user_id}", external_ids=[])
    assert put(admin, external_ids=[ID])["external_ids"] == [ID]


def test_an_address_belongs_to_one_account_and_finds_it(
    app: Application, admin: Person, alice: Person
) -> None:
    numbers = [ADDRESS, {"medium": "msisdn", "address": "4917012345"}]
    put(admin, f"{V2}/users/{alice.user_id}", threepids=numbers)

    with unchanged(app):
        taken = admin.put(BOB, json={"threepids": [ADDRESS]})

    assert refusal(taken) == (400, "M_THREEPID_IN_USE")
    for path in ("email/users/Bob@example.org", "msisdn/users/4917012345"):
        assert admin.get(f"{V1}/threepid/{path}").get_json() == {"user_id": alice.user_id}
    assert refusal(admin.get(f"{V1}/threepid/email/users/c@d.example")) == (404, "M_NOT_FOUND")
    record = put(admin, f"{V2}/users/{alice.user_id}", threepids=numbers[1:])
    assert [it["medium"] for it in record["threepids"]] == ["msisdn"]
    assert refusal(admin.get(f"{V1}/threepid/email/users/bob@example.org"))[0] == 404


def test_names_and_avatars_reach_the_rooms(
    admin: Person, alice: Person, login: Login, room: Any
) -> None:
    bob = login("bob")
    room_id = room(alice, bob)

    put(admin, displayname="Robert", avatar_url="mxc://localhost/r")
    shown = membership(alice, room_id, bob.user_id)
    put(admin, displayname=None, avatar_url="")

    assert (shown["displayname"], shown["avatar_url"]) == ("Robert", "mxc://localhost/r")
    after = membership(alice, room_id, bob.user_id)
    assert after == {"membership": "join"}


def test_a_new_password_ends_all_sessions_unless_it_should_not(
    client: FlaskClient, admin: Person, login: Login
) -> None:
    bob = login("bob")

    put(admin, password=OTHER, logout_devices=False)
    kept = bob.get("account/whoami").status_code
    put(admin, password=PASSWORD)

    assert kept == 200
    assert refusal(bob.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")
    assert log_in(client, "bob", OTHER).status_code == 403
    assert log_in(client, "bob", PASSWORD).status_code == 200


def test_the_session_that_sets_the_own_password_stays(admin: Person, login: Login) -> None:
    second = login("owner")

    put(admin, f"{V2}/users/{admin.user_id}", password=OTHER)

    assert admin.get("account/whoami").status_code == 200
    assert refusal(second.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")


def test_nobody_takes_away_their_own_rights(app: Application, admin: Person, alice: Person) -> None:
    own = f"{V2}/users/{admin.user_id}"

    with unchanged(app):
        by_record = admin.put(own, json={"admin": False, "displayname": "x"})
        by_flag = admin.put(f"{V1}/users/{admin.user_id}/admin", json={"admin": False})

    assert by_record.status_code == by_flag.status_code == 400
    assert put(admin, own, admin=True)["admin"] is True
    assert put(admin, f"{V2}/users/{alice.user_id}", admin=True)["admin"] is True
    assert put(alice, own, admin=False)["admin"] is False
    assert refusal(admin.get(own)) == (403, "M_FORBIDDEN")


def test_the_admin_flag_is_asked_for_in_odd_ways(admin: Person, alice: Person) -> None:
    def flag(user_id: str) -> TestResponse:
        return admin.get(f"{V1}/users/{user_id}/admin")

    assert flag(admin.user_id).get_json() == {"admin": True}
    assert flag(alice.user_id).get_json() == {"admin": False}
    assert flag("@nobody:localhost").get_json() == {"admin": False}
    assert flag("@foo:bar").status_code == 400  # "I am an administrator"
    assert refusal(alice.get(f"{V1}/users/{alice.user_id}/admin")) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("body", [{}, {"admin": "yes"}, {"admin": None}])
def test_the_admin_flag_is_true_or_false(
    app: Application, admin: Person, alice: Person, body: dict[str, Any]
) -> None:
    with unchanged(app):
        answer = admin.put(f"{V1}/users/{alice.user_id}/admin", json=body)

    assert answer.status_code == 400


def test_locking_by_the_record_keeps_the_session(admin: Person, login: Login) -> None:
    bob = login("bob")

    locked = put(admin, locked=True)
    answer = bob.get("account/whoami")
    unlocked = put(admin, locked=False)

    assert (locked["locked"], unlocked["locked"]) == (True, False)
    assert refusal(answer) == (401, "M_USER_LOCKED")
    assert answer.get_json()["soft_logout"] is True
    assert bob.get("account/whoami").status_code == 200


def test_deactivation_by_the_record_can_be_undone(
    app: Application, client: FlaskClient, admin: Person, login: Login, room: Any
) -> None:
    bob = login("bob")
    room_id = room(admin, bob)

    closed = put(admin, deactivated=True)
    left = membership(admin, room_id, bob.user_id)["membership"]
    refused = [bob.get("account/whoami"), log_in(client, "bob", PASSWORD)]
    opened = put(admin, deactivated=False)
    without = log_in(client, "bob", PASSWORD)
    put(admin, password=OTHER)

    assert (closed["deactivated"], closed["erased"], opened["deactivated"]) == (True, False, False)
    assert left == "leave"
    assert [it.status_code for it in refused] == [401, 403]
    assert without.status_code == 403
    again = log_in(client, "bob", OTHER)
    assert client.get(f"{V3}profile/@bob:localhost").get_json() == {"displayname": "bob"}
    room(admin, Person(client, bob.user_id, again.get_json()["access_token"], "again"))
    (found,) = admin.post("user_directory/search", json={"search_term": "bob"}).get_json()[
        "results"
    ]
    assert found["user_id"] == bob.user_id
    actions = [action for _, action in logged(app, "@bob:localhost")]
    assert actions == ["user.deactivate", "user.reactivate", "user.password"]


def test_password_and_reactivation_may_come_together(
    client: FlaskClient, admin: Person, login: Login
) -> None:
    login("bob")
    put(admin, deactivated=True)

    put(admin, deactivated=False, password=OTHER)

    assert log_in(client, "bob", OTHER).status_code == 200


@pytest.mark.parametrize(
    ("username", "expected"),
    [
        ("free", (200, None)),
        ("alice", (400, "M_USER_IN_USE")),
        ("a b", (400, "M_INVALID_USERNAME")),
        ("Free", (400, "M_INVALID_USERNAME")),
        (None, (400, "M_MISSING_PARAM")),
    ],
)
def test_names_can_be_checked_before(
    admin: Person, alice: Person, username: str | None, expected: tuple[int, str | None]
) -> None:
    query = {} if username is None else {"username": username}

    answer = admin.get(f"{V1}/username_available", query_string=query)

    assert (answer.status_code, answer.get_json().get("errcode")) == expected
    if answer.status_code == 200:
        assert answer.get_json() == {"available": True}


def test_a_body_that_is_not_json_is_refused(admin: Person, alice: Person) -> None:
    for method, path in (
        ("PUT", f"{V2}/users/{alice.user_id}"),
        ("PUT", f"{V1}/suspend/{alice.user_id}"),
        ("POST", f"{V1}/deactivate/{alice.user_id}"),
        ("POST", f"{V1}/users/{alice.user_id}/login"),
    ):
        assert refusal(admin.request(method, path, data=b"{")) == (400, "M_NOT_JSON")
        assert refusal(admin.request(method, path, data=b"[]")) == (400, "M_BAD_JSON")
