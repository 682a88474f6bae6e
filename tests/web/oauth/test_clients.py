"""Clients that register themselves."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update

from homebody.core.oauth import clients
from homebody.models.oauth import OAuthClient
from homebody.web import Application
from tests.helpers.oauth import METADATA, OAUTH, WEB, App, refused, register, scope


def test_a_client_registers(client: FlaskClient) -> None:
    more = {
        "logo_uri": "https://example.com/logo.png",
        "tos_uri": "https://sub.example.com/tos",
        "policy_uri": "https://example.com:8443/policy",
    }

    answer = register(client, **more, **{"client_name#fr": "Exemple", "unknown": 1})

    found = answer.get_json()
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert found.pop("client_id")
    assert found.pop("client_id_issued_at")
    assert found == {**METADATA, **more}


def test_equal_metadata_give_the_same_client(client: FlaskClient) -> None:
    first, again, other = register(client), register(client), register(client, client_name="Other")

    assert first.get_json()["client_id"] == again.get_json()["client_id"]
    assert first.get_json()["client_id"] != other.get_json()["client_id"]


def test_what_is_left_out_has_defaults(client: FlaskClient) -> None:
    body = {"client_uri": METADATA["client_uri"], "redirect_uris": [WEB]}

    found = client.post(f"{OAUTH}clients", json=body).get_json()

    assert found["application_type"] == "web"
    assert found["token_endpoint_auth_method"] == "none"
    assert found["response_types"] == ["code"]
    assert found["grant_types"] == ["authorization_code", "refresh_token"]


def test_what_is_null_is_left_out(client: FlaskClient) -> None:
    optional = ("application_type", "grant_types", "response_types", "logo_uri", "client_name")
    body = {"client_uri": METADATA["client_uri"], "redirect_uris": [WEB]}
    known = client.post(f"{OAUTH}clients", json=body).get_json()

    answer = client.post(f"{OAUTH}clients", json=body | dict.fromkeys(optional))

    assert answer.status_code == 201
    assert answer.get_json()["client_id"] == known["client_id"]


def test_values_that_are_not_known_are_ignored(client: FlaskClient) -> None:
    grants = ["authorization_code", "urn:ietf:params:oauth:grant-type:token-exchange"]

    found = register(client, grant_types=grants, response_types=["code", "token"]).get_json()

    assert found["grant_types"] == ["authorization_code", "refresh_token"]
    assert found["response_types"] == ["code"]


def test_a_device_needs_no_redirect_uri(client: FlaskClient) -> None:
    grant = METADATA["grant_types"][2]

    answer = register(client, grant_types=[grant], redirect_uris=None, response_types=[])

    assert answer.status_code == 201
    assert answer.get_json()["redirect_uris"] == []


WEB_URIS = [
    "https://example.com/callback",
    "https://app.example.com/callback",
    "https://example.com:5173/?query=value",
]
NATIVE_URIS = [
    *WEB_URIS,
    "com.example.app:/callback",
    "com.example:/",
    "com.example:callback",
    "http://localhost/callback",
    "http://localhost",
    "http://127.0.0.1/callback",
    "http://[::1]/callback",
]
BAD_URIS = [
    "https://example.com/callback#fragment",
    "https://example.com/callback#",
    "http://example.com/callback",
    "https://user@example.com/",
    "https://user:secret@example.com/",
    "https://example.org/callback",
    "https://notexample.com/",
    "https://example.com.evil.org/",
    "https://example.com:99999/",
    "https://example.com\\@evil.org/",
    "https://evil.org\\.example.com/",
    "https://exam\tple.com/",
    "https://example.com/\r\nSet-Cookie: a=b",
    "https:///callback",
    "https:callback",
    "https://[::1/",
    "example:/callback",
    "org.example:/callback",
    "com.examples:/callback",
    "com.example.app://callback",
    "javascript:alert(1)",
    "data:text/html,x",
    "https://localhost/callback",
    "http://localhost:1234/callback",
    "http://localhost.evil.org/",
    "http://127.0.0.1.evil.org/",
    "http://user@localhost/",
    "http://127.0.0.2/",
    "/callback",
    "",
    f"https://example.com/{'x' * 2000}",
]


@pytest.mark.parametrize("uri", WEB_URIS)
def test_redirect_uris_of_web_clients(client: FlaskClient, uri: str) -> None:
    assert register(client, redirect_uris=[uri]).status_code == 201


@pytest.mark.parametrize("uri", NATIVE_URIS)
def test_redirect_uris_of_native_clients(client: FlaskClient, uri: str) -> None:
    answer = register(client, redirect_uris=[uri], application_type="native")

    assert answer.status_code == 201


@pytest.mark.parametrize("uri", BAD_URIS)
@pytest.mark.parametrize("kind", ["web", "native"])
def test_bad_redirect_uris_are_refused(client: FlaskClient, uri: str, kind: str) -> None:
    answer = register(client, redirect_uris=[WEB, uri], application_type=kind)

    assert refused(answer) == (400, "invalid_redirect_uri")


@pytest.mark.parametrize("scheme", ["javascript", "data", "file", "localhost"])
def test_a_scheme_of_its_own_is_a_domain(client: FlaskClient, scheme: str) -> None:
    answer = register(
        client,
        client_uri=f"https://{scheme}/",
        redirect_uris=[f"{scheme}:alert(1)"],
        application_type="native",
    )

    assert refused(answer) == (400, "invalid_redirect_uri")


@pytest.mark.parametrize("uri", sorted(set(NATIVE_URIS) - set(WEB_URIS)))
def test_web_clients_have_https_alone(client: FlaskClient, uri: str) -> None:
    assert refused(register(client, redirect_uris=[uri])) == (400, "invalid_redirect_uri")


@pytest.mark.parametrize("value", [None, [], "https://example.com/", [1], {}, [WEB] * 21])
def test_redirect_uris_are_a_short_list_of_strings(client: FlaskClient, value: Any) -> None:
    assert refused(register(client, redirect_uris=value)) == (400, "invalid_redirect_uri")


@pytest.mark.parametrize(
    "changes",
    [
        {"client_uri": None},
        {"client_uri": "http://example.com/"},
        {"client_uri": "https://user@example.com/"},
        {"client_uri": "https://"},
        {"client_uri": "example.com"},
        {"client_uri": 1},
        {"client_uri": f"https://example.com/{'x' * 2000}"},
        {"client_name": ["Example"]},
        {"client_name": "x" * 256},
        {"logo_uri": "https://example.org/logo.png"},
        {"logo_uri": "javascript:alert(1)"},
        {"tos_uri": "http://example.com/"},
        {"policy_uri": "https://notexample.com/"},
        {"policy_uri": "https://user@example.com/"},
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"token_endpoint_auth_method": []},
        {"application_type": "desktop"},
        {"grant_types": "authorization_code"},
        {"grant_types": ["password"]},
        {"grant_types": []},
        {"response_types": ["token"]},
        {"response_types": {}},
    ],
)
def test_bad_metadata_are_refused(client: FlaskClient, changes: dict[str, Any]) -> None:
    assert refused(register(client, **changes)) == (400, "invalid_client_metadata")


@pytest.mark.parametrize("body", ["", "[]", "{", '"x"'])
def test_a_registration_is_a_json_object(client: FlaskClient, body: str) -> None:
    answer = client.post(f"{OAUTH}clients", data=body, content_type="application/json")

    assert refused(answer) == (400, "invalid_client_metadata")


def test_a_registration_is_small(client: FlaskClient) -> None:
    assert register(client, unknown="x" * 60_000).status_code == 413


def test_clients_without_a_session_are_forgotten(
    app: Application, client: FlaskClient, browser: FlaskClient, example: App
) -> None:
    used = example.log_in(browser)
    idle = App(client, client_name="Idle")
    with app.homeserver.database.write() as tx:
        for made in (example, idle):
            tx.sql.execute(_dated(made.client_id, tx.now_ms - clients.UNUSED_MS - 1))

    register(client, client_name="New")

    assert example.refresh(used["refresh_token"]).status_code == 200
    assert refused(idle.refresh("x")) == (401, "invalid_client")
    assert register(client, client_name="Idle").get_json()["client_id"] == idle.client_id


def test_many_clients_without_a_session_push_out_the_oldest(
    app: Application,
    client: FlaskClient,
    browser: FlaskClient,
    example: App,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = example.log_in(browser)
    monkeypatch.setattr(clients, "MAX_UNUSED", 2)
    made = [App(client, client_name=f"Client {number}") for number in range(4)]
    with app.homeserver.database.write() as tx:
        for number, it in enumerate([example, *made]):
            tx.sql.execute(_dated(it.client_id, tx.now_ms - 1000 + number))

    register(client, client_name="New")

    known = [it.refresh("x").status_code == 400 for it in made]
    assert known == [False, False, True, True]
    assert example.refresh(used["refresh_token"]).status_code == 200


def test_a_client_that_was_forgotten_lets_nobody_in(
    app: Application, browser: FlaskClient, client: FlaskClient, example: App
) -> None:
    code = example.code(browser, scope=scope())
    with app.homeserver.database.write() as tx:
        tx.sql.execute(_dated(example.client_id, 0))
    register(client, client_name="New")

    assert refused(example.exchange(code)) == (401, "invalid_client")
    assert browser.get(example.url()).status_code == 400


def test_consents_end_with_the_client(
    app: Application, browser: FlaskClient, client: FlaskClient, example: App
) -> None:
    tokens = example.log_in(browser)
    client.post(f"{OAUTH}revoke", data={"token": tokens["access_token"]})
    with app.homeserver.database.write() as tx:
        tx.sql.execute(_dated(example.client_id, 0))
    register(client, client_name="New")

    again = App(client)

    assert again.client_id == example.client_id
    assert "Let it in" in browser.get(again.url(scope=scope("OTHER12345"))).text


def _dated(client_id: str, ts: int) -> Any:
    """Set when a client was used."""
    of_client = OAuthClient.client_id == client_id
    return update(OAuthClient).where(of_client).values(last_used_ts=ts)
