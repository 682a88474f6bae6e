"""Documents that users agree to when they register."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from homebody.models.accounts import AcceptedTerms
from homebody.web import Application
from tests.conftest import PASSWORD, V3, MakeApp

TERMS = """[
    {id = "privacy", version = "1.2", language = "en", name = "Privacy",
     url = "https://a.example/en"},
    {id = "privacy", version = "1.2", language = "fr", name = "Secrets",
     url = "https://a.example/fr"},
    {id = "rules", version = "3", name = "House rules", url = "https://a.example/rules?x=1"},
]""".replace("\n", " ")
FALLBACK = V3 + "auth/m.login.terms/fallback/web"


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    return make_app(terms=TERMS)


def begin(client: FlaskClient) -> str:
    """The session of a registration that has proved all but the terms."""
    body = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    answer = client.post(V3 + "register", json=body)
    assert answer.status_code == 401
    return str(answer.get_json()["session"])


def finish(client: FlaskClient, auth: dict[str, str]) -> int:
    body = {"username": "alice", "password": PASSWORD, "auth": auth}
    return client.post(V3 + "register", json=body).status_code


def accepted(app: Application) -> list[tuple[str, str, str]]:
    with app.homeserver.database.read() as tx:
        columns = (AcceptedTerms.user_id, AcceptedTerms.document_id, AcceptedTerms.version)
        return sorted(tuple(row) for row in tx.sql.execute(select(*columns)))


def test_the_challenge_shows_the_documents(client: FlaskClient) -> None:
    challenge = client.post(V3 + "register", json={"username": "alice"}).get_json()

    assert challenge["flows"] == [{"stages": ["m.login.dummy", "m.login.terms"]}]
    assert challenge["params"]["m.login.terms"]["policies"] == {
        "privacy": {
            "version": "1.2",
            "en": {"name": "Privacy", "url": "https://a.example/en"},
            "fr": {"name": "Secrets", "url": "https://a.example/fr"},
        },
        "rules": {
            "version": "3",
            "en": {"name": "House rules", "url": "https://a.example/rules?x=1"},
        },
    }


def test_who_agrees_gets_an_account_and_the_versions_are_kept(
    app: Application, client: FlaskClient
) -> None:
    session = begin(client)

    status = finish(client, {"type": "m.login.terms", "session": session})

    assert status == 200
    assert accepted(app) == [
        ("@alice:localhost", "privacy", "1.2"),
        ("@alice:localhost", "rules", "3"),
    ]


def test_nobody_gets_an_account_without(app: Application, client: FlaskClient) -> None:
    session = begin(client)

    status = finish(client, {"type": "m.login.dummy", "session": session})

    assert (status, accepted(app)) == (401, [])


def test_a_page_lists_the_documents_and_takes_the_consent(client: FlaskClient) -> None:
    session = begin(client)
    page = client.get(FALLBACK, query_string={"session": session})

    agreed = client.post(FALLBACK, data={"session": session})

    links = re.findall(r'href="([^"]+)"', page.get_data(as_text=True))
    assert {"https://a.example/en", "https://a.example/rules?x=1"} <= set(links)
    assert agreed.status_code == 200
    assert finish(client, {"session": session}) == 200


def test_without_terms_nothing_is_asked_or_kept(make_app: MakeApp) -> None:
    app = make_app()
    client = app.test_client()

    challenge = client.post(V3 + "register", json={"username": "alice"}).get_json()
    status = finish(client, {"type": "m.login.dummy"})

    assert (challenge["params"], challenge["flows"]) == ({}, [{"stages": ["m.login.dummy"]}])
    assert (status, accepted(app)) == (200, [])
