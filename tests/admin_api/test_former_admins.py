"""What administrators lose at once when they are demoted, locked or suspended."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from homebody.client_server import http
from homebody.core.accounts import accounts, moderation
from homebody.core.sessions import invitations
from homebody.web import Application
from homebody.web.admin_pages import layout
from tests.conftest import PASSWORD, Login, Person
from tests.helpers.pages import field, log_in
from tests.helpers.rooms import refusal

API = "/_synapse/admin"


@pytest.fixture
def bob(admin: Person, login: Login) -> Person:
    """Another administrator."""
    bob = login("bob")
    url = f"{API}/v1/users/{bob.user_id}/admin"
    assert admin.put(url, json={"admin": True}).status_code == 200
    return bob


def demote(admin: Person, user_id: str) -> None:
    admin.put(f"{API}/v1/users/{user_id}/admin", json={"admin": False})


def lock(admin: Person, user_id: str) -> None:
    admin.put(f"{API}/v2/users/{user_id}", json={"locked": True})


def suspend(admin: Person, user_id: str) -> None:
    admin.put(f"{API}/v1/suspend/{user_id}", json={"suspend": True})


def expire(admin: Person, user_id: str) -> None:
    body = {"user_id": user_id, "expiration_ts": 1}
    admin.post(f"{API}/v1/account_validity/validity", json=body)


def deactivate(admin: Person, user_id: str) -> None:
    admin.post(f"{API}/v1/deactivate/{user_id}")


END = [demote, lock, suspend, expire, deactivate]


@pytest.mark.parametrize("end", END)
def test_the_tokens_by_which_they_act_as_users_end(
    admin: Person, bob: Person, alice: Person, end: Callable[[Person, str], None]
) -> None:
    token = bob.post(f"{API}/v1/users/{alice.user_id}/login").get_json()["access_token"]
    as_alice = Person(alice.client, alice.user_id, token, "")
    assert as_alice.get("account/whoami").status_code == 200

    end(admin, bob.user_id)

    assert as_alice.get("account/whoami").status_code == 401
    assert alice.get("account/whoami").status_code == 200


@pytest.mark.parametrize("end", END)
def test_their_links_for_a_new_password_of_others_are_not_valid_any_more(
    app: Application, admin: Person, bob: Person, end: Callable[[Person, str], None]
) -> None:
    with app.homeserver.database.write() as tx:
        link = invitations.reset_link(tx, bob.user_id, admin.user_id, 3_600_000)
    path = urlsplit(link).path
    browser = app.test_client()
    form = {"csrf_token": field(browser.get(path)), "password": "x" * 12, "again": "x" * 12}

    end(admin, bob.user_id)

    assert browser.get(path).status_code == 403
    assert browser.post(path, data=form).status_code == 403
    assert log_in(app.test_client(), "owner", PASSWORD).status_code == 303


def test_a_request_that_waits_while_its_administrator_is_demoted_changes_nothing(
    app: Application, bob: Person, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = http.body_as
    database = app.homeserver.database

    def slowly(*args: object, **kwargs: object) -> object:
        with database.read() as tx:
            account = accounts.find(tx, bob.user_id)
        assert account is not None
        with database.write() as tx:
            moderation.set_admin(tx, "test", account, is_admin=False)
        return read(*args, **kwargs)  # type: ignore[arg-type] # as it was called

    monkeypatch.setattr(http, "body_as", slowly)

    answer = bob.put(f"{API}/v1/users/{alice.user_id}/admin", json={"admin": True})

    assert refusal(answer) == (403, "M_FORBIDDEN")
    with database.read() as tx:
        found = accounts.find(tx, alice.user_id)
    assert found is not None
    assert not found.is_admin


def test_a_form_that_waits_while_its_administrator_is_demoted_changes_nothing(
    app: Application, bob: Person, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, choose = app.homeserver.database, layout.choose
    browser = app.test_client()
    log_in(browser, "bob")
    path = f"/_homebody/admin/users/{alice.user_id}/make-admin"
    form = {"csrf_token": field(browser.get(path))}

    def slowly(*args: object) -> object:
        with database.read() as tx:
            account = accounts.find(tx, bob.user_id)
        assert account is not None
        with database.write() as tx:
            moderation.set_admin(tx, "test", account, is_admin=False)
        return choose(*args)  # type: ignore[arg-type] # as it was called

    monkeypatch.setattr(layout, "choose", slowly)

    assert browser.post(path, data=form).status_code == 403
    with database.read() as tx:
        found = accounts.find(tx, alice.user_id)
    assert found is not None
    assert not found.is_admin
