"""Devices that show a code, and are let in from a browser."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core.oauth import device_codes
from homebody.core.oauth.client_metadata import DEVICE_CODE
from homebody.core.sessions import browser_sessions
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.oauth import OAUTH, App, refused, scope, whoami
from tests.helpers.pages import field, log_in
from tests.web.test_pages import visible

DEVICE = f"{OAUTH}device"


def begin(example: App, **changes: str) -> TestResponse:
    """Have a device ask for its codes."""
    form = {"client_id": example.client_id, "scope": scope(), **changes}
    return example.client.post(f"{OAUTH}device_authorization", data=form)


def poll(example: App, begun: dict[str, Any], **changes: str | None) -> TestResponse:
    """Have a device ask for its tokens."""
    form = {"grant_type": DEVICE_CODE, "device_code": begun["device_code"], **changes}
    return example.token(**form)


def answer_it(browser: FlaskClient, code: str, decision: str) -> TestResponse:
    """Type the code, and press a button."""
    page = browser.get(DEVICE, query_string={"user_code": code})
    assert page.status_code == 200, page.text
    form = {"csrf_token": field(page), "user_code": code, "decision": decision}
    return browser.post(DEVICE, data=form)


def test_a_device_is_let_in(browser: FlaskClient, example: App, alice: Person, later: Any) -> None:
    begun = begin(example).get_json()
    pending = poll(example, begun)
    page = browser.get(begun["verification_uri_complete"].removeprefix("http://localhost:8008"))

    answer = answer_it(browser, begun["user_code"], "allow")

    assert refused(pending) == (400, "authorization_pending")
    assert begun["user_code"] in visible(page)
    assert "Example" in visible(page)
    assert "DEVICE1234" in visible(page)
    assert "The device is let in" in visible(answer)
    tokens = poll(example, begun).get_json()
    assert tokens["scope"] == scope()
    found = whoami(example.client, tokens["access_token"]).get_json()
    assert (found["user_id"], found["device_id"]) == (alice.user_id, "DEVICE1234")
    assert example.refresh(tokens["refresh_token"]).status_code == 200
    assert refused(poll(example, begun)) == (400, "invalid_grant")


def test_codes_are_typed_in_many_ways(browser: FlaskClient, example: App) -> None:
    begun = begin(example).get_json()
    assert begun["verification_uri"] == "http://localhost:8008/_homebody/oauth/device"
    code = begun["user_code"]

    for typed in (code.lower(), code.replace("-", ""), f" {code.replace('-', ' ')} "):
        assert code in visible(browser.get(DEVICE, query_string={"user_code": typed}))


def test_a_device_is_turned_away(browser: FlaskClient, example: App, alice: Person) -> None:
    begun = begin(example).get_json()

    answer_it(browser, begun["user_code"], "deny")

    assert refused(poll(example, begun)) == (400, "access_denied")
    assert len(alice.get("devices").get_json()["devices"]) == 1


def test_a_device_that_asks_too_often_slows_down(example: App, later: Any) -> None:
    begun = begin(example).get_json()
    assert begun["interval"] == 5

    answers = []
    for wait_ms in (0, 1_000, 5_000, 10_000):
        later(wait_ms)
        answers.append(refused(poll(example, begun))[1])

    assert answers == [
        "authorization_pending",
        "slow_down",
        "slow_down",
        "slow_down",
    ]
    later(20_000)
    assert refused(poll(example, begun)) == (400, "authorization_pending")


def test_a_device_code_expires(browser: FlaskClient, example: App, later: Any) -> None:
    begun = begin(example).get_json()

    later(begun["expires_in"] * 1000)

    begin(example)  # forgets codes that have expired long ago
    assert refused(poll(example, begun)) == (400, "expired_token")
    shown = browser.get(DEVICE, query_string={"user_code": begun["user_code"]})
    assert shown.status_code == 400


def test_a_code_is_decided_once(
    app: Application, browser: FlaskClient, example: App, login: Login
) -> None:
    begun = begin(example).get_json()
    login("mallory")
    other = app.test_client()
    log_in(other, "mallory")
    late = field(other.get(DEVICE, query_string={"user_code": begun["user_code"]}))
    answer_it(browser, begun["user_code"], "allow")

    form = {"csrf_token": late, "user_code": begun["user_code"], "decision": "allow"}
    answer = other.post(DEVICE, data=form)

    assert answer.status_code == 400
    tokens = poll(example, begun).get_json()
    assert whoami(example.client, tokens["access_token"]).get_json()["user_id"].startswith("@alice")


def test_the_second_of_two_decisions_at_once_has_no_effect(
    app: Application, browser: FlaskClient, example: App, alice: Person
) -> None:
    begun = begin(example).get_json()
    with app.homeserver.database.write() as tx:
        (session,) = browser_sessions.all_of(tx, alice.user_id)
        first = device_codes.decide(tx, session, begun["user_code"], is_allowed=False)
        second = device_codes.decide(tx, session, begun["user_code"], is_allowed=True)

    assert first is not None
    assert second is None
    assert refused(poll(example, begun)) == (400, "access_denied")


def test_a_device_that_is_let_in_leaves_its_client_a_stranger(
    browser: FlaskClient, example: App
) -> None:
    begun = begin(example).get_json()
    answer_it(browser, begun["user_code"], "allow")

    assert "Let it in" in browser.get(example.url(scope=scope("OTHER12345"))).text


def test_an_allowed_device_waits_in_vain_after_the_user_has_logged_out_everywhere(
    browser: FlaskClient, example: App, alice: Person
) -> None:
    begun = begin(example).get_json()
    answer_it(browser, begun["user_code"], "allow")

    alice.post("logout/all")

    assert refused(poll(example, begun)) == (400, "access_denied")


def test_the_page_needs_a_login_and_comes_back(app: Application, example: App) -> None:
    begun = begin(example).get_json()

    answer = app.test_client().get(DEVICE, query_string={"user_code": begun["user_code"]})

    wanted = quote(f"{DEVICE}?user_code={begun['user_code']}")
    assert answer.headers["Location"] == f"/_homebody/login?next={wanted}"


@pytest.mark.parametrize("code", ["BCDF-GHJK", "x", "é", "%00"])
def test_a_wrong_code_is_said_to_be_wrong(browser: FlaskClient, example: App, code: str) -> None:
    begin(example)

    answer = browser.get(DEVICE, query_string={"user_code": code})

    assert answer.status_code == 400
    assert "No device shows this code" in visible(answer)


def test_a_form_of_another_site_lets_no_device_in(browser: FlaskClient, example: App) -> None:
    begun = begin(example).get_json()
    form = {"user_code": begun["user_code"], "decision": "allow", "csrf_token": "0" * 64}

    assert browser.post(DEVICE, data=form).status_code == 403
    assert refused(poll(example, begun)) == (400, "authorization_pending")


def test_a_device_code_is_for_one_client(example: App, client: FlaskClient) -> None:
    begun = begin(example).get_json()
    other = App(client, client_name="Other")

    assert refused(poll(other, begun)) == (400, "invalid_grant")
    assert refused(poll(example, begun, device_code="hbd_x")) == (400, "invalid_grant")
    assert refused(poll(example, begun, device_code=None)) == (400, "invalid_request")
    assert refused(poll(example, begun, client_id="x")) == (401, "invalid_client")


def test_a_client_without_the_grant_is_refused(client: FlaskClient) -> None:
    app = App(client, grant_types=["authorization_code"])

    assert refused(begin(app)) == (400, "unauthorized_client")
    assert refused(app.token(grant_type=DEVICE_CODE, device_code="x")) == (
        400,
        "unauthorized_client",
    )


def test_a_bad_request_begins_nothing(example: App) -> None:
    assert refused(begin(example, scope="openid")) == (400, "invalid_scope")
    assert refused(begin(example, scope="")) == (400, "invalid_scope")
    assert refused(begin(example, client_id="")) == (400, "invalid_request")
    assert refused(begin(example, client_id="x")) == (401, "invalid_client")


def test_not_too_many_devices_wait(example: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_codes, "MAX_PENDING", 2)

    answers = [begin(example) for _ in range(3)]

    assert [it.status_code for it in answers] == [200, 200, 503]
