"""The endpoints of the OAuth 2.0 API that clients call."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask.testing import FlaskClient

from homebody.core.accounts import accounts
from homebody.web import Application
from tests.conftest import V3, Login, MakeApp, Person
from tests.helpers.oauth import (
    OAUTH,
    WEB,
    App,
    decide,
    refused,
    register,
    returned,
    scope,
    whoami,
)
from tests.helpers.pages import log_in, send

LATER_MS = 121_000


def is_valid(example: App, tokens: dict[str, Any]) -> bool:
    """Whether the access token is."""
    return whoami(example.client, tokens["access_token"]).status_code == 200


def test_the_metadata_name_all_endpoints(client: FlaskClient) -> None:
    for path in ("v1/auth_metadata", "unstable/org.matrix.msc2965/auth_metadata"):
        answer = client.get(f"/_matrix/client/{path}")

        found = answer.get_json()
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert found["issuer"] == "http://localhost:8008/"
        assert found["prompt_values_supported"] == ["create"]
        assert found["authorization_response_iss_parameter_supported"] is True
        assert found["code_challenge_methods_supported"] == ["S256"]
        assert set(found["response_modes_supported"]) == {"query", "fragment"}
        for name, url in found.items():
            if name.endswith("_endpoint"):
                answer = client.post(url.removeprefix("http://localhost:8008"))
                assert answer.status_code in {400, 403}, name


def test_an_administrator_may_switch_it_off(make_app: MakeApp) -> None:
    app = make_app()
    example, browser = App(app.test_client()), app.test_client()
    register_user = {
        "username": "alice",
        "password": "correct horse battery staple",
        "auth": {"type": "m.login.dummy"},
    }
    app.test_client().post(f"{V3}register", json=register_user)
    log_in(browser, "alice")
    tokens, url = example.log_in(browser), example.url()
    client = make_app(oauth="false").test_client()

    metadata = client.get("/_matrix/client/v1/auth_metadata")
    example.client = client
    again = example.refresh(tokens["refresh_token"])

    assert (metadata.status_code, metadata.get_json()["errcode"]) == (404, "M_UNRECOGNIZED")
    assert client.get(url).status_code == 404
    assert register(client).status_code == 404
    form = {"client_id": example.client_id, "scope": scope()}
    assert client.post(f"{OAUTH}device_authorization", data=form).status_code == 404
    assert again.status_code == 200
    revoked = client.post(f"{OAUTH}revoke", data={"token": again.get_json()["access_token"]})
    assert revoked.status_code == 200
    assert not is_valid(example, again.get_json())


def test_capabilities_say_what_is_done_on_pages(browser: FlaskClient, example: App) -> None:
    capabilities = example.session(browser).get("capabilities").get_json()["capabilities"]

    for name in ("m.change_password", "m.3pid_changes", "m.get_login_token"):
        assert capabilities[name] == {"enabled": False}
    assert capabilities["m.set_displayname"] == {"enabled": True}


def test_a_server_with_closed_registration_creates_no_accounts(make_app: MakeApp) -> None:
    found = make_app(registration="closed").test_client().get("/_matrix/client/v1/auth_metadata")

    assert "prompt_values_supported" not in found.get_json()  # RFC 8414: never an empty list


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "hbc_unknown"},
        {"redirect_uri": f"{WEB}/"},
        {"code_verifier": "w" * 43},
        {"code_verifier": "é" * 43},
        {"code_verifier": "v"},
    ],
)
def test_a_stolen_code_is_worth_nothing(
    browser: FlaskClient, example: App, changes: dict[str, str]
) -> None:
    code = example.code(browser)

    assert refused(example.exchange(code, **changes)) == (400, "invalid_grant")
    assert example.exchange(code).status_code == 200


def test_a_code_is_for_one_client(browser: FlaskClient, example: App) -> None:
    code = example.code(browser)
    other = App(example.client, client_name="Other")

    assert refused(other.exchange(code)) == (400, "invalid_grant")
    assert refused(example.exchange(code, client_id="x")) == (401, "invalid_client")


@pytest.mark.parametrize(
    "name", ["code", "redirect_uri", "code_verifier", "client_id", "grant_type"]
)
def test_a_parameter_is_missing(browser: FlaskClient, example: App, name: str) -> None:
    code = example.code(browser)

    assert refused(example.exchange(code, **{name: None})) == (400, "invalid_request")
    assert refused(example.exchange(code, **{name: ""})) == (400, "invalid_request")


@pytest.mark.parametrize("grant", ["password", "client_credentials", "nonsense"])
def test_other_grants_are_unknown(example: App, grant: str) -> None:
    assert refused(example.token(grant_type=grant)) == (400, "unsupported_grant_type")


def test_a_body_must_be_a_form_with_each_parameter_once(example: App) -> None:
    json = example.client.post(f"{OAUTH}token", json={"grant_type": "refresh_token"})
    twice = example.client.post(
        f"{OAUTH}token",
        data="grant_type=refresh_token&refresh_token=a&refresh_token=b",
        content_type="application/x-www-form-urlencoded",
    )

    assert refused(json) == (400, "invalid_request")
    assert refused(twice) == (400, "invalid_request")


def test_a_code_that_comes_again_ends_the_session(browser: FlaskClient, example: App) -> None:
    code = example.code(browser)
    tokens = example.exchange(code).get_json()

    assert refused(example.exchange(code)) == (400, "invalid_grant")
    assert not is_valid(example, tokens)
    assert refused(example.refresh(tokens["refresh_token"])) == (400, "invalid_grant")


def test_a_used_code_alone_ends_no_session(browser: FlaskClient, example: App) -> None:
    code = example.code(browser)
    tokens = example.exchange(code).get_json()

    assert refused(example.exchange(code, code_verifier="w" * 43)) == (400, "invalid_grant")
    assert is_valid(example, tokens)


def test_a_code_is_used_once_by_concurrent_requests(
    app: Application, browser: FlaskClient, example: App
) -> None:
    code = example.code(browser)
    answers: list[int] = []

    def exchange() -> None:
        other = App.__new__(App)
        other.client, other.client_id = app.test_client(), example.client_id
        other.redirect_uri = example.redirect_uri
        answers.append(other.exchange(code).status_code)

    threads = [threading.Thread(target=exchange) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [200, 400, 400, 400]


def test_a_code_expires(browser: FlaskClient, example: App, later: Any) -> None:
    code = example.code(browser)

    later(LATER_MS)

    assert refused(example.exchange(code)) == (400, "invalid_grant")


def test_a_code_ends_with_a_new_password(browser: FlaskClient, example: App) -> None:
    code = example.code(browser)
    new = "another long password"
    known = "correct horse battery staple"
    page = "/_homebody/account/password"

    assert send(browser, page, current=known, password=new, again=new).status_code == 303

    assert refused(example.exchange(code)) == (400, "invalid_grant")


def test_a_code_ends_with_the_account(
    app: Application, browser: FlaskClient, example: App, alice: Person
) -> None:
    code = example.code(browser)
    with app.homeserver.database.write() as tx:
        accounts.set_locked(tx, alice.user_id, is_locked=True)

    assert refused(example.exchange(code)) == (400, "invalid_grant")


def test_refresh_tokens_rotate(browser: FlaskClient, example: App) -> None:
    first = example.log_in(browser)

    second = example.refresh(first["refresh_token"]).get_json()

    assert second["scope"] == scope()
    assert is_valid(example, first)  # the response may have been lost
    assert is_valid(example, second)
    assert not is_valid(example, first)
    assert second["refresh_token"] != first["refresh_token"]


def test_a_refresh_whose_response_was_lost_is_repeated(browser: FlaskClient, example: App) -> None:
    first = example.log_in(browser)
    lost = example.refresh(first["refresh_token"]).get_json()

    again = example.refresh(first["refresh_token"]).get_json()

    assert is_valid(example, again)
    assert refused(example.refresh(lost["refresh_token"])) == (400, "invalid_grant")
    assert is_valid(example, again)


def test_a_refresh_token_that_comes_again_ends_the_session(
    browser: FlaskClient, example: App, alice: Person
) -> None:
    first = example.log_in(browser)
    second = example.refresh(first["refresh_token"]).get_json()
    assert is_valid(example, second)

    assert refused(example.refresh(first["refresh_token"])) == (400, "invalid_grant")

    assert not is_valid(example, second)
    assert refused(example.refresh(second["refresh_token"])) == (400, "invalid_grant")
    assert len(alice.get("devices").get_json()["devices"]) == 1


def test_a_refresh_token_is_for_one_client_and_api(
    browser: FlaskClient, example: App, client: FlaskClient
) -> None:
    tokens = example.log_in(browser)
    other = App(client, client_name="Other")
    login = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": "correct horse battery staple",
        "refresh_token": True,
    }
    old = client.post(f"{V3}login", json=login).get_json()

    by_old_api = client.post(f"{V3}refresh", json={"refresh_token": tokens["refresh_token"]})

    assert refused(other.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
    assert refused(example.refresh(old["refresh_token"])) == (400, "invalid_grant")
    assert by_old_api.status_code == 401
    assert example.refresh(tokens["refresh_token"]).status_code == 200
    assert (
        client.post(f"{V3}refresh", json={"refresh_token": old["refresh_token"]}).status_code == 200
    )


@pytest.mark.parametrize("changes", [{"refresh_token": "hbr_unknown"}, {"refresh_token": "é"}])
def test_a_refresh_token_is_unknown(example: App, changes: dict[str, str]) -> None:
    assert refused(example.token(grant_type="refresh_token", **changes)) == (400, "invalid_grant")


def test_a_refresh_may_not_widen_the_scope(browser: FlaskClient, example: App) -> None:
    tokens = example.log_in(browser)

    wider = example.refresh(tokens["refresh_token"], scope=scope("OTHER12345"))
    same = example.refresh(tokens["refresh_token"], scope=tokens["scope"])

    assert refused(wider) == (400, "invalid_scope")
    assert is_valid(example, tokens)
    assert same.status_code == 200


def test_another_client_learns_nothing_of_a_scope(browser: FlaskClient, example: App) -> None:
    tokens = example.log_in(browser)
    other = App(example.client, client_name="Other")

    answer = other.refresh(tokens["refresh_token"], scope=scope("OTHER12345"))

    assert refused(answer) == (400, "invalid_grant")


def test_a_locked_account_keeps_its_session(
    app: Application, browser: FlaskClient, example: App, alice: Person
) -> None:
    tokens = example.log_in(browser)
    with app.homeserver.database.write() as tx:
        accounts.set_locked(tx, alice.user_id, is_locked=True)

    answer = example.refresh(tokens["refresh_token"])

    assert answer.status_code == 200
    found = whoami(example.client, answer.get_json()["access_token"])
    assert (found.status_code, found.get_json()["errcode"]) == (401, "M_USER_LOCKED")


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "nonsense", None])
@pytest.mark.parametrize("client_id", ["own", "other", None])
def test_a_session_is_revoked(
    browser: FlaskClient,
    example: App,
    alice: Person,
    kind: str,
    hint: str | None,
    client_id: str | None,
) -> None:
    tokens = example.log_in(browser)
    form = {"token": tokens[kind]}
    form |= {"token_type_hint": hint} if hint else {}
    form |= {"client_id": example.client_id if client_id == "own" else "x"} if client_id else {}

    answer = example.client.post(f"{OAUTH}revoke", data=form)
    again = example.client.post(f"{OAUTH}revoke", data=form)

    assert (answer.status_code, answer.get_json()) == (200, {})
    assert again.status_code == 200
    assert not is_valid(example, tokens)
    assert refused(example.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
    assert len(alice.get("devices").get_json()["devices"]) == 1


def test_revocation_needs_a_token_and_touches_no_other_session(example: App, alice: Person) -> None:
    missing = example.client.post(f"{OAUTH}revoke", data={"client_id": example.client_id})
    other = example.client.post(f"{OAUTH}revoke", data={"token": alice.access_token})

    assert refused(missing) == (400, "invalid_request")
    assert other.status_code == 200
    assert alice.get("account/whoami").status_code == 200


def test_logging_out_ends_the_session(browser: FlaskClient, example: App) -> None:
    tokens = example.log_in(browser)
    person = Person(example.client, "@alice:localhost", tokens["access_token"], "DEVICE1234")

    assert person.post("logout").status_code == 200

    assert not is_valid(example, tokens)
    assert refused(example.refresh(tokens["refresh_token"])) == (400, "invalid_grant")


def test_a_login_with_a_password_on_the_device_replaces_the_session(
    browser: FlaskClient, example: App, client: FlaskClient
) -> None:
    tokens = example.log_in(browser)
    login = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": "correct horse battery staple",
        "device_id": "DEVICE1234",
    }

    assert client.post(f"{V3}login", json=login).status_code == 200

    assert not is_valid(example, tokens)
    assert refused(example.refresh(tokens["refresh_token"])) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "delete_devices", {"devices": ["DEVICE1234"]}),
        ("DELETE", "devices/DEVICE1234", {}),
        ("POST", "account/deactivate", {}),
        ("POST", "account/password", {"new_password": "another long password"}),
        ("POST", "/_matrix/client/v1/login/get_token", {}),
    ],
)
def test_what_needs_the_password_is_done_on_pages(
    browser: FlaskClient, example: App, method: str, path: str, body: dict[str, Any]
) -> None:
    person = example.session(browser)
    auth = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": "correct horse battery staple",
    }

    answer = person.request(method, path, json={**body, "auth": auth})

    assert (answer.status_code, answer.get_json()["errcode"]) == (403, "M_FORBIDDEN")
    assert "/_homebody/oauth/account" in answer.get_json()["error"]
    assert person.get("account/whoami").status_code == 200


def test_too_many_requests_do_not_log_clients_out(make_app: MakeApp) -> None:
    client = make_app(rate_limits="true", **{"rc_writes.burst_count": "1"}).test_client()

    answers = [client.post(f"{OAUTH}token", data={"grant_type": "refresh_token"}) for _ in range(3)]

    assert refused(answers[-1]) == (503, "temporarily_unavailable")
    assert int(answers[-1].headers["Retry-After"]) >= 1


def test_registrations_are_limited(make_app: MakeApp) -> None:
    settings = {"rc_registration.burst_count": "2"}
    client = make_app(rate_limits="true", **settings).test_client()

    answers = [register(client) for _ in range(3)]

    assert [it.status_code for it in answers] == [201, 201, 429]
    assert int(answers[-1].headers["Retry-After"]) >= 1


def test_a_client_may_have_another_user_too(
    app: Application, browser: FlaskClient, example: App, login: Login
) -> None:
    example.log_in(browser)
    bob = login("bob")
    other = app.test_client()
    send(other, "/_homebody/login", user="bob", password="correct horse battery staple")

    answer = example.exchange(returned(decide(other, example.url(), "allow"))["code"])

    assert whoami(example.client, answer.get_json()["access_token"]).get_json()["user_id"] == (
        bob.user_id
    )
