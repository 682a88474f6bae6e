"""The pages behind links: registering by an invitation, and setting a new password."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient

from homebody.core.accounts import accounts
from homebody.core.sessions import invitations
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.helpers.pages import log_in, send
from tests.web.test_pages import visible

HOUR = 3_600_000
NEW = "another long password"
BOTH = {"password": NEW, "again": NEW}


def invite(
    app: Application, name: str | None = None, lifetime_ms: int = HOUR, **more: list[str]
) -> str:
    """The path of a new invitation."""
    with app.homeserver.database.write() as tx:
        link = invitations.invite(tx, "test", name, lifetime_ms, **more)
    return urlsplit(link).path


def reset(app: Application, user_id: str) -> str:
    """The path of a link for a new password."""
    with app.homeserver.database.write() as tx:
        link = invitations.reset_link(tx, "test", user_id, HOUR)
    return urlsplit(link).path


def may_log_in(app: Application, name: str, password: str) -> bool:
    """Whether clients can log in with it."""
    who = {"type": "m.id.user", "user": name}
    body = {"type": "m.login.password", "identifier": who, "password": password}
    return app.test_client().post(f"{V3}login", json=body).status_code == 200


@pytest.fixture
def closed(make_app: MakeApp) -> Application:
    """A server on which nobody can register."""
    return make_app(registration="closed")


@pytest.fixture
def browser(closed: Application) -> FlaskClient:
    """A browser without a session."""
    return closed.test_client()


def test_a_person_with_a_link_registers_where_registration_is_closed(
    closed: Application, browser: FlaskClient
) -> None:
    path = invite(closed)

    answer = send(browser, path, name="Maria", **BOTH)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/_homebody/start")
    assert may_log_in(closed, "maria", NEW)
    steps = browser.get("/_homebody/start")
    assert "Welcome, maria" in visible(steps)
    assert "@maria:localhost" in visible(steps)
    assert "account_provider=localhost&amp;login_hint=mxid:@maria:localhost" in steps.text


def test_a_link_works_once(closed: Application, browser: FlaskClient) -> None:
    path = invite(closed)
    send(browser, path, name="maria", **BOTH)

    shown = browser.get(path)
    again = send(browser, path, page="/_homebody/account/", name="olga", **BOTH)

    assert shown.status_code == 403
    assert "it was used before, or has expired" in visible(shown)
    assert again.status_code == 403
    assert not may_log_in(closed, "olga", NEW)


def test_an_expired_link_is_refused(closed: Application, browser: FlaskClient) -> None:
    path = invite(closed, lifetime_ms=1)

    assert browser.get(path).status_code == 403


@pytest.mark.parametrize("path", ["/_homebody/invite/x", "/_homebody/reset/x"])
def test_an_unknown_link_is_refused(browser: FlaskClient, path: str) -> None:
    assert browser.get(path).status_code == 403


def test_a_link_of_one_kind_does_not_serve_for_the_other(
    app: Application, login: Login, client: FlaskClient
) -> None:
    alice = login("alice")
    token = reset(app, alice.user_id).rpartition("/")[2]

    assert client.get(f"/_homebody/invite/{token}").status_code == 403
    assert client.get(f"/_homebody/reset/{token}").status_code == 200


@pytest.mark.parametrize(
    ("values", "wrong", "sentence"),
    [
        ({"name": "maria", "password": "short", "again": "short"}, "password", "fewer than 8"),
        ({"name": "maria", "password": NEW, "again": "x"}, "again", "are not the same"),
        ({"name": "ma ria", **BOTH}, "name", "A user name consists of"),
        ({"name": "", **BOTH}, "name", "A user name consists of"),
        ({"name": "taken", **BOTH}, "name", "This user name is taken"),
        ({"name": "kept", **BOTH}, "name", "This user name is taken"),
        ({"name": "maria", "password": "x" * 600, "again": "x" * 600}, "password", "longer than"),
    ],
)
def test_an_error_stands_beside_its_field_and_uses_up_nothing(
    closed: Application, browser: FlaskClient, values: dict[str, str], wrong: str, sentence: str
) -> None:
    invite(closed, "kept")
    send(browser, invite(closed), name="taken", **BOTH)
    path = invite(closed)

    answer = send(closed.test_client(), path, **values)

    assert answer.status_code == 400
    problem = re.search(rf'<p id="{wrong}-problem" class="problem">([^<]*)</p>', answer.text)
    assert problem
    assert sentence in problem.group(1)
    tag = re.search(rf'<input id="{wrong}"[^>]*>', answer.text)
    assert tag
    assert 'aria-invalid="true"' in tag.group()
    assert f"{wrong}-problem" in tag.group()
    assert values["password"] not in answer.text
    assert send(closed.test_client(), path, name="maria", **BOTH).status_code == 303


def test_a_name_in_the_invitation_is_the_one_that_the_account_gets(
    closed: Application, browser: FlaskClient
) -> None:
    path = invite(closed, "bob")

    answer = send(browser, path, name="mallory", **BOTH)

    assert answer.status_code == 303
    assert (may_log_in(closed, "bob", NEW), may_log_in(closed, "mallory", NEW)) == (True, False)


def test_a_name_that_is_kept_is_not_given_to_another(app: Application, client: FlaskClient) -> None:
    invite(app, "bob")

    answer = client.get(f"{V3}register/available?username=bob")

    assert answer.get_json()["errcode"] == "M_USER_IN_USE"


TERMS = '[{id="rules", version="1", language="en", name="House rules", url="https://x.test/r"}]'


def test_the_terms_have_to_be_accepted(make_app: MakeApp) -> None:
    app = make_app(terms=TERMS)
    path = invite(app)

    refused = send(app.test_client(), path, name="maria", **BOTH)
    accepted = send(app.test_client(), path, name="maria", terms="yes", **BOTH)

    assert refused.status_code == 400
    assert "House rules" in visible(refused)
    assert "if you agree" in visible(refused)
    assert accepted.status_code == 303


@pytest.mark.parametrize("preset", ["public_chat", "private_chat"])
def test_a_newcomer_joins_the_rooms_of_the_invitation(
    app: Application, login: Login, preset: str
) -> None:
    alice = login("alice")
    room_id = alice.create_room(preset=preset)
    path = invite(app, rooms=["#unknown:localhost", room_id])

    answer = send(app.test_client(), path, name="maria", **BOTH)

    assert answer.status_code == 303
    members = alice.get(f"rooms/{room_id}/joined_members").get_json()["joined"]
    assert set(members) == {alice.user_id, "@maria:localhost"}


def test_all_who_register_join_the_rooms_for_newcomers(make_app: MakeApp, login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(preset="public_chat", room_alias_name="lobby")
    app = make_app(newcomer_rooms='["#lobby:localhost"]')

    send(app.test_client(), invite(app), name="maria", **BOTH)
    body = {"username": "bob", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    session = app.test_client().post(f"{V3}register", json=body).get_json()

    bob = Person(app.test_client(), session["user_id"], session["access_token"], "")
    members = bob.get(f"rooms/{room_id}/joined_members").get_json()["joined"]
    assert set(members) == {alice.user_id, "@maria:localhost", "@bob:localhost"}


def test_a_new_password_is_set_once_and_ends_all_sessions(app: Application, login: Login) -> None:
    alice, browser, thief = login("alice"), app.test_client(), app.test_client()
    log_in(thief, "alice")
    path = reset(app, alice.user_id)

    answer = send(browser, path, **BOTH)

    assert answer.status_code == 200
    assert alice.user_id in visible(answer)
    assert may_log_in(app, "alice", NEW)
    assert not may_log_in(app, "alice", PASSWORD)
    assert alice.get("account/whoami").status_code == 401
    assert thief.get("/_homebody/account/").status_code == 303
    assert browser.get(path).status_code == 403


def test_a_wrong_new_password_changes_nothing(app: Application, login: Login) -> None:
    alice = login("alice")
    path = reset(app, alice.user_id)

    answer = send(app.test_client(), path, password="short", again="short")

    assert answer.status_code == 400
    assert may_log_in(app, "alice", PASSWORD)
    assert alice.get("account/whoami").status_code == 200
    assert app.test_client().get(path).status_code == 200


def test_a_newer_link_for_a_password_ends_the_older(app: Application, login: Login) -> None:
    alice = login("alice")
    older, newer = reset(app, alice.user_id), reset(app, alice.user_id)

    statuses = [app.test_client().get(path).status_code for path in (older, newer)]

    assert statuses == [403, 200]


def test_a_locked_account_gets_no_new_password(app: Application, login: Login) -> None:
    alice = login("alice")
    path = reset(app, alice.user_id)
    with app.homeserver.database.write() as tx:
        accounts.set_locked(tx, alice.user_id, is_locked=True)

    answer = send(app.test_client(), path, **BOTH)

    assert answer.status_code == 401
    with app.homeserver.database.write() as tx:
        accounts.set_locked(tx, alice.user_id, is_locked=False)
    assert may_log_in(app, "alice", PASSWORD)


def test_a_form_of_another_site_uses_no_link(closed: Application, browser: FlaskClient) -> None:
    path = invite(closed)

    answer = browser.post(path, data={"name": "maria", **BOTH})

    assert answer.status_code == 403
    assert not may_log_in(closed, "maria", NEW)


def test_registrations_by_links_are_limited_as_others(make_app: MakeApp) -> None:
    limit = {"rc_registration.burst_count": "1", "rc_registration.per_second": "0.001"}
    app = make_app(rate_limits="true", **limit)
    paths = [invite(app), invite(app)]

    statuses = [
        send(app.test_client(), path, name=name, **BOTH).status_code
        for path, name in zip(paths, ("maria", "olga"), strict=True)
    ]

    assert statuses == [303, 429]


def test_the_address_of_a_page_is_not_passed_on(closed: Application, browser: FlaskClient) -> None:
    answer = browser.get(invite(closed))

    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert not re.search(r'(?:src|href)="https?://', answer.text)


def test_each_field_of_the_pages_has_a_label(
    app: Application, login: Login, make_path: Callable[[str], str]
) -> None:
    for kind in ("invite", "reset"):
        text = app.test_client().get(make_path(kind)).text

        fields = [tag for tag in re.findall(r"<input[^>]*>", text) if 'type="hidden"' not in tag]
        assert len(fields) >= 2
        for tag in fields:
            found = re.search(r'id="(\w+)"', tag)
            assert found
            assert f'<label for="{found.group(1)}">' in text


@pytest.fixture
def make_path(app: Application, login: Login) -> Callable[[str], str]:
    """The path of a link of this kind."""

    def make(kind: str) -> str:
        return invite(app) if kind == "invite" else reset(app, login("alice").user_id)

    return make


def test_a_new_password_ends_links_that_were_not_used(app: Application, login: Login) -> None:
    alice = login("alice")
    path = reset(app, alice.user_id)
    who = {"type": "m.id.user", "user": alice.user_id}
    auth = {"type": "m.login.password", "identifier": who, "password": PASSWORD}

    answer = alice.post("account/password", json={"new_password": NEW, "auth": auth})

    assert answer.status_code == 200
    assert app.test_client().get(path).status_code == 403


def test_a_link_does_not_outlive_a_deactivation(app: Application, login: Login) -> None:
    owner, alice = login("owner"), login("alice")
    path = reset(app, alice.user_id)

    owner.post(f"/_synapse/admin/v1/deactivate/{alice.user_id}")
    owner.put(f"/_synapse/admin/v2/users/{alice.user_id}", json={"deactivated": False})

    assert app.test_client().get(path).status_code == 403
