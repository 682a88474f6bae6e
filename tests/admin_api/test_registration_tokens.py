"""Registration tokens by the admin API."""

from __future__ import annotations

import time
from typing import Any

import pytest

from homebody.core import audit
from homebody.core.sessions import registration, registration_tokens
from homebody.web import Application
from tests.conftest import PASSWORD, V3, MakeApp, Person
from tests.helpers.rooms import Json, refusal, unchanged

TOKENS = "/_synapse/admin/v1/registration_tokens"
TERMS = """[
  { id = "rules", version = "1", language = "en", name = "Rules", url = "https://x.example/" },
]"""


def create(admin: Person, **body: Any) -> Json:
    answer = admin.post(f"{TOKENS}/new", json=body)
    assert answer.status_code == 200, answer.get_json()
    created: Json = answer.get_json()
    return created


def in_an_hour() -> int:
    return time.time_ns() // 1_000_000 + 3_600_000


def test_a_token_is_random_unless_the_request_has_one(admin: Person) -> None:
    rest = {"uses_allowed": None, "pending": 0, "completed": 0, "expiry_time": None}
    expires = in_an_hour()

    random, long = create(admin), create(admin, length=64)
    family = create(admin, token="fam.ily_~-1", uses_allowed=3, expiry_time=expires)
    by_text = admin.request(
        "POST", f"{TOKENS}/new", data=b'{"token": "x"}', content_type="text/plain"
    )

    assert (len(random["token"]), len(long["token"])) == (16, 64)
    assert random == {"token": random["token"], **rest}
    assert family == {
        **rest,
        "token": "fam.ily_~-1",
        "uses_allowed": 3,
        "expiry_time": expires,
    }
    assert by_text.get_json() == {"token": "x", **rest}
    assert admin.get(f"{TOKENS}/fam.ily_~-1").get_json() == family


def test_a_list_has_all_tokens_or_those_that_are_valid_or_not(
    app: Application, admin: Person
) -> None:
    for name, limits in {"good": {"uses_allowed": 1}, "spent": {"uses_allowed": 0}}.items():
        create(admin, token=name, **limits)
    create(admin, token="old", expiry_time=in_an_hour())
    with app.homeserver.database.write() as tx:
        tx.sql.raw.execute("UPDATE registration_tokens SET expires_ts = 1 WHERE token = 'old'")

    def listed(**query: str) -> list[str]:
        query = {"from": "0", "limit": "10", "order_by": "id", "dir": "ASC", **query}
        found = admin.get(TOKENS, query_string=query).get_json()
        assert list(found) == ["registration_tokens"]
        return [it["token"] for it in found["registration_tokens"]]

    assert sorted(listed()) == ["good", "old", "spent"]
    assert listed(valid="true") == ["good"]
    assert sorted(listed(valid="false")) == ["old", "spent"]
    assert refusal(admin.get(TOKENS, query_string={"valid": "1"})) == (400, "M_INVALID_PARAM")


def test_limits_change_and_null_takes_them_away(admin: Person) -> None:
    create(admin, token="family", uses_allowed=3, expiry_time=in_an_hour())
    path, later = f"{TOKENS}/family", in_an_hour() + 1

    def limits(body: Json) -> tuple[int | None, int | None]:
        answer = admin.put(path, json=body)
        assert answer.status_code == 200
        assert answer.get_json() == admin.get(path).get_json()
        return answer.get_json()["uses_allowed"], answer.get_json()["expiry_time"]

    assert limits({"expiry_time": later}) == (3, later)
    assert limits({"uses_allowed": 5}) == (5, later)
    assert limits({}) == (5, later)
    assert limits({"uses_allowed": None}) == (None, later)
    assert limits({"expiry_time": None}) == (None, None)


def test_a_registration_is_pending_until_it_is_completed(make_app: MakeApp) -> None:
    app = make_app(registration="token", terms=TERMS)
    with app.homeserver.database.write() as tx:
        registration.register(tx, "owner", None)
        registration_tokens.add(tx, "test", "family", uses_allowed=1)
    client = app.test_client()

    def register(**auth: str | None) -> Json:
        body = {"username": "alice", "password": PASSWORD, "auth": auth}
        answer: Json = client.post(V3 + "register", json=body).get_json()
        return answer

    def counts() -> tuple[int, int]:
        with app.homeserver.database.read() as tx:
            found = registration_tokens.find(tx, "family")
        return found["pending"], found["uses"]

    session = register(type=registration.TOKEN, token="family")["session"]
    given = counts()
    registered = register(type=registration.TERMS, session=session)

    assert given == (1, 0)
    assert registered["user_id"] == "@alice:localhost"
    assert counts() == (0, 1)


def test_a_deleted_token_is_gone(admin: Person) -> None:
    create(admin, token="family")

    gone = admin.delete(f"{TOKENS}/family", json={})

    assert (gone.status_code, gone.get_json()) == (200, {})
    for method in ("GET", "DELETE", "PUT"):
        again = admin.request(method, f"{TOKENS}/family", json={})
        assert refusal(again) == (404, "M_NOT_FOUND")


def test_the_audit_log_has_who_did_it_and_no_token(app: Application, admin: Person) -> None:
    create(admin, token="family", uses_allowed=1)
    admin.put(f"{TOKENS}/family", json={"uses_allowed": 2})
    admin.delete(f"{TOKENS}/family")

    with app.homeserver.database.read() as tx:
        found = audit.latest(tx, 10, subject="f…")

    assert [(it["actor"], it["action"]) for it in found] == [
        (admin.user_id, "token.remove"),
        (admin.user_id, "token.change"),
        (admin.user_id, "token.add"),
    ]
    assert found[1]["details"] == {"uses_allowed": 2}
    assert "family" not in str(found)


@pytest.mark.parametrize(
    "body",
    [
        {"token": "family"},
        {"token": ""},
        {"token": "x" * 65},
        {"token": "two words"},
        {"token": "naïve"},
        {"token": 1},
        {"length": 0},
        {"length": 65},
        {"length": "16"},
        {"length": None},
        {"length": True},
        {"uses_allowed": -1},
        {"uses_allowed": "1"},
        {"uses_allowed": 1.5},
        {"uses_allowed": True},
        {"uses_allowed": 2**53},
        {"expiry_time": 1},
        {"expiry_time": "tomorrow"},
        {"expiry_time": 2**60},
    ],
)
def test_a_wrong_value_changes_nothing(app: Application, admin: Person, body: Json) -> None:
    create(admin, token="family")

    with unchanged(app):
        assert refusal(admin.post(f"{TOKENS}/new", json=body)) == (400, "M_INVALID_PARAM")
        if body.keys() & {"uses_allowed", "expiry_time"}:
            changed = admin.put(f"{TOKENS}/family", json=body)
            assert refusal(changed) == (400, "M_INVALID_PARAM")
        assert refusal(admin.request("POST", f"{TOKENS}/new", data=b"{")) == (400, "M_NOT_JSON")
        assert refusal(admin.request("PUT", f"{TOKENS}/family", data=b"[]")) == (400, "M_BAD_JSON")
