"""Pages for users; tests/clients/test_fallback_pages.py opens them in a browser."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core.sessions import registration_tokens
from tests.conftest import MakeApp

REGISTER = "/_matrix/client/v3/register"
TOKEN_PAGE = "/_matrix/client/v3/auth/m.login.registration_token/fallback/web"
DUMMY_PAGE = "/_matrix/client/r0/auth/m.login.dummy/fallback/web"


def visible(answer: TestResponse) -> str:
    """The text of a page, without markup."""
    without_code = re.sub(
        r"<(script|style)\b.*?</\1>", "", answer.get_data(as_text=True), flags=re.DOTALL
    )
    return " ".join(re.sub(r"<[^>]*>", " ", without_code).split())


def begin(client: FlaskClient, **body: Any) -> str:
    """The session of a request to register."""
    answer = client.post(REGISTER, json=body)
    assert answer.status_code == 401
    return str(answer.get_json()["session"])


def finish(client: FlaskClient, session: str, name: str = "alice") -> TestResponse:
    """Repeat the request once the stage is said to be complete."""
    return client.post(REGISTER, json={"username": name, "auth": {"session": session}})


@pytest.mark.parametrize(
    "path",
    [
        "/_matrix/static/client/login/",
        "/_matrix/static/client/login",
        "/_matrix/static/client/login/?device_id=GHTYAJCE",
        "/_matrix/client/v3/login/fallback",
        "/_matrix/client/r0/login/fallback",
        "/matrix/client/api/v1/login/fallback",
    ],
)
def test_every_path_of_old_and_new_shows_the_log_in_page(client: FlaskClient, path: str) -> None:
    answer = client.get(path)

    assert (answer.status_code, answer.content_type) == (200, "text/html; charset=utf-8")
    assert visible(answer).startswith("Log in to localhost Log in to localhost User name Password")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/_matrix/static/client/login/",
        f"{DUMMY_PAGE}?session=x",
        "/_matrix/client/v3/auth/m.x/fallback/web",
    ],
)
def test_a_page_runs_its_own_script_and_no_other(client: FlaskClient, path: str) -> None:
    first, second = client.get(path), client.get(path)

    policies = [answer.headers["Content-Security-Policy"] for answer in (first, second)]
    text = first.get_data(as_text=True)
    nonces = set(re.findall(r'nonce="([^"]+)"', text))

    assert policies[0] != policies[1]
    assert len(nonces) == 1
    assert f"script-src 'nonce-{nonces.pop()}';" in policies[0]
    assert "default-src 'none'" in policies[0]
    assert "unsafe" not in policies[0]
    assert not re.search(r"\son\w+=|\sstyle=|javascript:", text)
    assert first.headers["Cache-Control"] == "no-store"
    assert '<html lang="en">' in text
    assert 'name="viewport"' in text


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"registration_open_to_all": "true", "registration": "open"}, "Everyone can register."),
        ({}, "With a registration token from"),
        ({"registration": "closed"}, "Only administrators create them."),
    ],
)
def test_the_first_page_says_what_this_is(
    make_app: MakeApp, settings: dict[str, str], sentence: str
) -> None:
    address = "https://chat.example.org"
    client = make_app(server_name="example.org", public_url=address, **settings)

    text = visible(client.test_client().get("/"))

    assert "This is a Matrix homeserver" in text
    assert (
        f"Server name example.org Homeserver address, for the settings of a client {address}"
        in text
    )
    assert sentence in text


def test_every_field_has_its_label(client: FlaskClient) -> None:
    for path in ("/_matrix/static/client/login/", f"{TOKEN_PAGE}?session=x"):
        text = client.get(path).get_data(as_text=True)

        fields = [tag for tag in re.findall(r"<input[^>]*>", text) if 'type="hidden"' not in tag]
        assert fields
        for tag in fields:
            found = re.search(r'id="(\w+)"', tag)
            assert found
            assert f'<label for="{found.group(1)}">' in text


def test_a_registration_token_can_be_given_on_a_page(make_app: MakeApp) -> None:
    app = make_app(registration="token")
    with app.homeserver.database.write() as tx:
        registration_tokens.add(tx, "test", "open-sesame")
    client = app.test_client()
    session = begin(client, username="alice")

    shown = client.get(f"{TOKEN_PAGE}?session={session}")
    done = client.post(TOKEN_PAGE, data={"session": session, "token": " open-sesame "})
    registered = finish(client, session)

    assert f'value="{session}"' in shown.get_data(as_text=True)
    assert "Registration token" in visible(shown)
    assert done.status_code == 200
    assert "window.onAuthDone()" in done.get_data(as_text=True)
    assert registered.get_json()["user_id"] == "@alice:localhost"
    assert finish(client, session, "bob").status_code == 401  # it is good for one account


def test_a_wrong_registration_token_can_be_corrected(make_app: MakeApp) -> None:
    client = make_app(registration="token").test_client()
    session = begin(client, username="alice")

    answer = client.post(TOKEN_PAGE, data={"session": session, "token": "<guess>"})

    assert answer.status_code == 403
    assert visible(answer).endswith("This registration token is not valid.")
    assert f'value="{session}"' in answer.get_data(as_text=True)
    assert finish(client, session).status_code == 401


def test_a_stage_that_asks_for_nothing_can_be_confirmed_on_a_page(client: FlaskClient) -> None:
    session = begin(client, username="alice")

    client.get(f"{DUMMY_PAGE}?session={session}")
    client.post(DUMMY_PAGE, data={"session": session})

    assert finish(client, session).status_code == 200


def test_the_dummy_page_replaces_no_registration_token(make_app: MakeApp) -> None:
    client = make_app(registration="token").test_client()
    session = begin(client, username="alice")

    client.post(DUMMY_PAGE, data={"session": session})

    assert finish(client, session).status_code == 401


def test_the_page_of_an_unknown_session_or_stage_says_so(client: FlaskClient) -> None:
    forged = client.post(DUMMY_PAGE, data={"session": '"><script>alert(1)</script>'})
    page = "/_matrix/client/v3/auth/m.login.msisdn/fallback/web"
    unknown = client.get(f"{page}?session=x")
    posted = client.post(page, data={"session": "x"})

    assert (forged.status_code, unknown.status_code, posted.status_code) == (401, 404, 404)
    assert "This session is unknown or has expired." in visible(forged)
    assert "<script>alert" not in forged.get_data(as_text=True)
    for answer in (forged, unknown, posted):
        assert answer.content_type == "text/html; charset=utf-8"


def test_the_first_page_links_to_help_and_says_how_to_log_in(make_app: MakeApp) -> None:
    app = make_app(
        server_name="example.org",
        public_url="https://chat.example.org",
        support_page="https://example.org/help?a=1&b=2",
        support_contacts=(
            '[{ role = "m.role.admin", matrix_id = "@me:example.org" },'
            ' { role = "org.example.cook", email_address = "cook@example.org" }]'
        ),
        terms='[{ id = "a", version = "1", name = "<Rules>", url = "https://example.org/rules" }]',
    )

    answer = app.test_client().get("/")
    text, words = answer.get_data(as_text=True), visible(answer)

    assert "enter example.org . If it does not find the server, enter https://chat" in words
    assert "such as @name:example.org" in words
    assert "enter the registration token" in words
    assert 'href="https://example.org/help?a=1&amp;b=2"' in text
    assert 'href="mailto:cook@example.org"' in text
    assert "Administrator: @me:example.org" in words
    assert "&lt;Rules&gt;" in text
    for path in ("/_homebody/account/", "/_homebody/admin/"):
        assert f'href="{path}"' in text


def test_the_first_page_mentions_no_registration_where_it_is_closed(make_app: MakeApp) -> None:
    text = visible(make_app(registration="closed").test_client().get("/"))

    assert "choose to create one" not in text
    assert "Contact" not in text
