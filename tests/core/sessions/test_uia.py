"""User-interactive authentication: proving once more who one is."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from homebody.core.sessions import registration, registration_tokens, uia
from homebody.errors import MatrixError, UiaRequiredError
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, Person
from tests.helpers.rooms import refusal

TWO_STAGES = [[registration.TOKEN, registration.DUMMY]]


def proof(user: str = "alice", password: str = PASSWORD, **more: Any) -> dict[str, Any]:
    identifier = {"type": "m.id.user", "user": user}
    return {"type": "m.login.password", "identifier": identifier, "password": password, **more}


def begin(person: Person, **body: Any) -> str:
    """The session of a request to end sessions."""
    answer = person.post("delete_devices", json={"devices": [], **body})
    assert answer.status_code == 401
    return str(answer.get_json()["session"])


def test_the_challenge_asks_for_the_password(login: Login) -> None:
    answer = login("alice").post("delete_devices", json={"devices": ["PHONE"]})

    assert answer.status_code == 401
    challenge = answer.get_json()
    assert challenge["flows"] == [{"stages": ["m.login.password"]}]
    assert "errcode" not in challenge
    assert len(challenge["session"]) >= 32


@pytest.mark.parametrize("user", ["alice", "@alice:localhost"])
def test_the_password_is_enough(login: Login, user: str) -> None:
    alice = login("alice")
    session = begin(alice)

    answer = alice.post(
        "delete_devices", json={"devices": [], "auth": proof(user, session=session)}
    )

    assert (answer.status_code, answer.get_json()) == (200, {})


def test_the_older_key_user_and_no_user_at_all_will_do(login: Login) -> None:
    alice = login("alice")
    older = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
    bare = {"type": "m.login.password", "password": PASSWORD}

    answers = [
        alice.post("delete_devices", json={"devices": [], "auth": auth}) for auth in (older, bare)
    ]

    assert [answer.status_code for answer in answers] == [200, 200]


def test_a_wrong_password_may_be_tried_again_in_the_same_session(login: Login) -> None:
    alice = login("alice")
    session = begin(alice)

    wrong = alice.post(
        "delete_devices", json={"devices": [], "auth": proof(password="guess", session=session)}
    )
    right = alice.post("delete_devices", json={"devices": [], "auth": proof(session=session)})

    assert refusal(wrong) == (401, "M_FORBIDDEN")
    assert wrong.get_json()["session"] == session
    assert wrong.get_json()["flows"] == [{"stages": ["m.login.password"]}]
    assert right.status_code == 200


def test_the_password_of_somebody_else_proves_nothing(login: Login) -> None:
    login("bob")
    alice = login("alice")

    session = begin(alice, devices=[alice.device_id])

    answers = [
        alice.post(
            "delete_devices",
            json={"devices": [alice.device_id], "auth": proof(name, word, session=session)},
        )
        for name, word in [("bob", PASSWORD), ("bob", "wrong"), ("nobody", PASSWORD)]
    ]

    assert [refusal(answer) for answer in answers] == [(403, "M_FORBIDDEN")] * 3
    assert len({answer.data for answer in answers}) == 1
    assert alice.get("account/whoami").status_code == 200


def test_the_password_of_somebody_else_confirms_no_removal_of_a_device(login: Login) -> None:
    login("bob")
    alice = login("alice")

    answer = alice.delete(f"devices/{alice.device_id}", json={"auth": proof("bob")})

    assert refusal(answer) == (403, "M_FORBIDDEN")
    assert alice.get("account/whoami").status_code == 200


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ({"type": "m.login.password"}, (400, "M_MISSING_PARAM")),
        ({"type": "m.login.password", "password": 1}, (400, "M_BAD_JSON")),
        ({"type": "m.login.dummy"}, (401, "M_UNRECOGNIZED")),
        ({"session": "made-up"}, (401, "M_UNKNOWN")),
        (proof(session="made-up"), (401, "M_UNKNOWN")),
        ([], (400, "M_BAD_JSON")),
    ],
)
def test_bad_proof_is_refused(login: Login, auth: Any, expected: tuple[int, str]) -> None:
    alice = login("alice")

    answer = alice.post("delete_devices", json={"devices": [alice.device_id], "auth": auth})

    assert refusal(answer) == expected
    assert alice.get("account/whoami").status_code == 200


def test_a_session_is_good_for_the_same_body_only(login: Login) -> None:
    alice = login("alice")
    session = begin(alice, devices=["PHONE"])

    other = {"devices": [alice.device_id], "auth": proof(session=session)}
    answer = alice.post("delete_devices", json=other)

    assert refusal(answer) == (403, "M_FORBIDDEN")
    assert alice.get("account/whoami").status_code == 200


def test_unknown_keys_of_the_body_belong_to_it(login: Login) -> None:
    alice = login("alice")
    session = begin(alice, **{"org.example.key": 1})

    body = {"devices": [], "auth": proof(session=session)}
    without = alice.post("delete_devices", json=body)
    with_it = alice.post("delete_devices", json={**body, "org.example.key": 1})

    assert refusal(without) == (403, "M_FORBIDDEN")
    assert with_it.status_code == 200


def test_a_session_is_good_for_the_same_endpoint_only(login: Login) -> None:
    alice, phone = login("alice"), login("alice")
    session = begin(alice)

    answer = alice.delete(f"devices/{phone.device_id}", json={"auth": proof(session=session)})

    assert refusal(answer) == (403, "M_FORBIDDEN")
    assert phone.get("account/whoami").status_code == 200


def test_a_session_is_good_for_the_same_user_only(login: Login) -> None:
    session = begin(login("alice"))

    answer = login("bob").post(
        "delete_devices", json={"devices": [], "auth": proof("bob", session=session)}
    )

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_a_session_that_is_too_old_is_not_known(app: Application, login: Login) -> None:
    alice = login("alice")
    session = begin(alice)
    with app.homeserver.database.write() as tx:
        tx.sql.connection.exec_driver_sql(
            "UPDATE uia_sessions SET created_ts = created_ts - 3600000"
        )

    answer = alice.post("delete_devices", json={"devices": [], "auth": proof(session=session)})

    assert refusal(answer) == (401, "M_UNKNOWN")
    assert rows(app) == 1  # the new one: the old one is gone


def test_a_session_ends_with_its_purpose(app: Application, login: Login) -> None:
    alice = login("alice")
    session = begin(alice)

    alice.post("delete_devices", json={"devices": [], "auth": proof(session=session)})

    assert rows(app) == 0


def test_nothing_kept_of_a_session_opens_it(app: Application, login: Login) -> None:
    alice = login("alice")
    answer = alice.post("account/password", json={"new_password": "tomorrow's secret"})
    session = answer.get_json()["session"]

    with app.homeserver.database.read() as tx:
        dump = "\n".join(tx.sql.raw.iterdump())

    assert "POST /_matrix/client/v3/account/password" in dump
    assert session not in dump
    assert "tomorrow" not in dump


def test_stages_of_a_flow_are_completed_one_after_the_other(
    app: Application, client: FlaskClient
) -> None:
    database = app.homeserver.database
    with database.write() as tx:
        registration_tokens.add(tx, "test", "family")
    token = {"type": registration.TOKEN, "token": "family"}
    dummy = {"type": registration.DUMMY}

    def attempt(auth: dict[str, Any]) -> uia.Progress | dict[str, Any]:
        request = uia.Attempt("POST /x", {"name": "alice", "auth": auth})
        try:
            return uia.require(database, TWO_STAGES, request)
        except UiaRequiredError as challenge:
            return challenge.body

    too_early = attempt(dummy)
    first = attempt(token)
    assert isinstance(too_early, dict)
    assert isinstance(first, dict)
    again = attempt({**token, "session": first["session"]})
    nothing = attempt({"session": first["session"]})
    done = attempt({**dummy, "session": first["session"]})

    assert too_early["errcode"] == "M_UNRECOGNIZED"
    assert first["completed"] == [registration.TOKEN]
    assert again == first == nothing
    assert isinstance(done, uia.Progress)
    assert done.registration_token == "family"


def test_a_fault_that_is_no_wrong_proof_is_told_as_it_is(app: Application) -> None:
    request = uia.Attempt("POST /x", {"auth": {"type": registration.TOKEN}})

    with pytest.raises(MatrixError) as told:
        uia.require(app.homeserver.database, TWO_STAGES, request)

    assert (told.value.status, told.value.errcode) == (400, "M_MISSING_PARAM")


def test_a_request_without_a_token_is_asked_for_one_first(client: FlaskClient) -> None:
    answer = client.post(V3 + "delete_devices", json={"devices": [], "auth": proof()})

    assert refusal(answer) == (401, "M_MISSING_TOKEN")


def rows(app: Application) -> int:
    with app.homeserver.database.read() as tx:
        return int(
            tx.sql.connection.exec_driver_sql("SELECT count(*) FROM uia_sessions").scalar_one()
        )
