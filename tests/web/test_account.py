"""The pages on which users manage their own account."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core.accounts import accounts, threepids
from homebody.web import Application
from tests.conftest import PASSWORD, Login, MakeApp, Person
from tests.helpers.pages import log_in, send
from tests.web.test_invitations import may_log_in
from tests.web.test_pages import visible

ACCOUNT = "/_homebody/account/"
NEW = "another long password"
BOTH = {"password": NEW, "again": NEW}


@pytest.fixture
def alice(login: Login) -> Person:
    """Alice at her telephone."""
    return login("alice")


@pytest.fixture
def browser(app: Application, alice: Person) -> FlaskClient:
    """Alice's browser, logged in."""
    found = app.test_client()
    log_in(found, "alice")
    return found


def device_ids(person: Person) -> set[str]:
    """The devices of a user."""
    return {it["device_id"] for it in person.get("devices").get_json()["devices"]}


def is_logged_in(person: Person) -> bool:
    """Whether the client still has a session."""
    return person.get("account/whoami").status_code == 200


def pages(browser: FlaskClient) -> list[str]:
    """The addresses of the pages of an account."""
    found = re.findall(r'href="(/_homebody/account/[^"]+)"', browser.get(ACCOUNT).text)
    return sorted({ACCOUNT, *found})


def test_the_page_shows_devices_and_browsers(browser: FlaskClient, alice: Person) -> None:
    name = "<b>kitchen</b>"
    alice.put(f"devices/{alice.device_id}", json={"display_name": name})

    answer = browser.get(ACCOUNT)

    assert answer.status_code == 200
    text = answer.text
    assert "&lt;b&gt;kitchen&lt;/b&gt;" in text
    assert name not in text
    assert alice.device_id in visible(answer)
    assert "Werkzeug" in visible(answer)
    assert re.search(r"last used 20\d\d-\d\d-\d\d \d\d:\d\d from 127.0.0.1", visible(answer))


def test_one_device_is_logged_out(browser: FlaskClient, alice: Person, login: Login) -> None:
    laptop = login("alice")

    answer = send(browser, f"{ACCOUNT}devices/end", page=ACCOUNT, device_id=laptop.device_id)

    assert answer.headers["Location"] == f"{ACCOUNT}?done=device"
    assert (is_logged_in(alice), is_logged_in(laptop)) == (True, False)
    assert "The session is ended." in visible(browser.get(f"{ACCOUNT}?done=device"))


def test_a_device_of_another_user_is_not_logged_out(
    browser: FlaskClient, alice: Person, login: Login
) -> None:
    bob = login("bob")

    send(browser, f"{ACCOUNT}devices/end", page=ACCOUNT, device_id=bob.device_id)

    assert is_logged_in(bob)
    assert is_logged_in(alice)


def test_another_browser_is_logged_out(browser: FlaskClient, app: Application) -> None:
    other = app.test_client()
    log_in(other, "alice")
    (its_id,) = re.findall(r'name="session" value="(\w+)"', browser.get(ACCOUNT).text)

    send(browser, f"{ACCOUNT}browsers/end", page=ACCOUNT, session=its_id)

    assert other.get(ACCOUNT).status_code == 303
    assert browser.get(ACCOUNT).status_code == 200


def test_all_other_sessions_end(browser: FlaskClient, app: Application, alice: Person) -> None:
    other = app.test_client()
    log_in(other, "alice")

    send(browser, f"{ACCOUNT}others/end", page=ACCOUNT)

    assert not is_logged_in(alice)
    assert other.get(ACCOUNT).status_code == 303
    assert browser.get(ACCOUNT).status_code == 200


@pytest.mark.parametrize("devices", [True, False])
def test_the_password_is_changed(
    browser: FlaskClient, app: Application, alice: Person, *, devices: bool
) -> None:
    thief = app.test_client()
    log_in(thief, "alice")
    more = {"devices": "yes"} if devices else {}

    answer = send(browser, f"{ACCOUNT}password", current=PASSWORD, **BOTH, **more)

    assert answer.headers["Location"] == f"{ACCOUNT}?done=password"
    assert browser.get(ACCOUNT).status_code == 200
    assert thief.get(ACCOUNT).status_code == 303
    assert is_logged_in(alice) != devices
    assert (may_log_in(app, "alice", NEW), may_log_in(app, "alice", PASSWORD)) == (True, False)


@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        ({"current": "wrong", **BOTH}, "current", "This is not your password."),
        ({"current": PASSWORD, "password": "x", "again": "x"}, "password", "fewer than 8"),
        ({"current": PASSWORD, "password": NEW, "again": "x"}, "again", "are not the same"),
    ],
)
def test_a_wrong_form_does_not_change_the_password(
    browser: FlaskClient, app: Application, values: dict[str, str], field: str, sentence: str
) -> None:
    answer = send(browser, f"{ACCOUNT}password", **values)

    assert answer.status_code == 400
    assert re.search(rf'id="{field}-problem"[^>]*>[^<]*{sentence}', answer.text)
    assert may_log_in(app, "alice", PASSWORD)


def test_passwords_are_not_guessed_by_the_form(make_app: MakeApp, alice: Person) -> None:
    app = make_app(rate_limits="true", **{"rc_login.failed_attempts.burst_count": "3"})
    browser = app.test_client()
    log_in(browser, "alice")

    answers = [send(browser, f"{ACCOUNT}password", current="x", **BOTH) for _ in range(5)]

    assert "This is not your password." in visible(answers[0])
    assert "Too many attempts." in visible(answers[-1])


@pytest.mark.parametrize("erase", [True, False])
def test_an_account_is_closed(
    browser: FlaskClient, app: Application, alice: Person, login: Login, *, erase: bool
) -> None:
    bob = login("bob")
    room_id = bob.create_room(preset="public_chat")
    alice.post(f"rooms/{quote(room_id)}/join")
    more = {"erase": "yes"} if erase else {}

    answer = send(browser, f"{ACCOUNT}deactivate", current=PASSWORD, sure="yes", **more)

    assert answer.status_code == 200
    assert "Your account is closed" in visible(answer)
    assert "Log out" not in visible(answer)
    assert browser.get(ACCOUNT).status_code == 303
    assert not is_logged_in(alice)
    assert not may_log_in(app, "alice", PASSWORD)
    joined = bob.get(f"rooms/{quote(room_id)}/joined_members").get_json()["joined"]
    assert set(joined) == {bob.user_id}
    with app.homeserver.database.read() as tx:
        account = accounts.find(tx, alice.user_id)
    assert account
    assert (account.erased_position is not None) == erase


@pytest.mark.parametrize(
    "values", [{"current": PASSWORD}, {"current": "wrong", "sure": "yes"}, {"sure": "yes"}]
)
def test_an_account_is_not_closed_by_mistake(
    browser: FlaskClient, alice: Person, values: dict[str, str]
) -> None:
    answer = send(browser, f"{ACCOUNT}deactivate", **values)

    assert answer.status_code == 400
    assert is_logged_in(alice)
    assert browser.get(ACCOUNT).status_code == 200


def test_without_a_mail_server_no_address_can_be_added(browser: FlaskClient) -> None:
    answer = browser.get(f"{ACCOUNT}email")

    assert answer.status_code == 403
    assert "does not send mail" in visible(answer)
    assert f"{ACCOUNT}email" not in pages(browser)


def test_no_page_of_an_account_is_shown_without_a_session(
    browser: FlaskClient, app: Application
) -> None:
    stranger = app.test_client()

    answers: dict[str, TestResponse] = {path: stranger.get(path) for path in pages(browser)}

    assert len(answers) >= 3
    assert {answer.status_code for answer in answers.values()} == {303}


def test_no_form_of_an_account_is_accepted_from_another_site(
    browser: FlaskClient, app: Application, alice: Person
) -> None:
    rules = [
        rule.rule
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(ACCOUNT) and "POST" in (rule.methods or ())
    ]
    form = {"current": PASSWORD, "sure": "yes", "device_id": alice.device_id, **BOTH}

    answers = {rule: browser.post(rule, data=form) for rule in rules}

    assert len(answers) >= 7
    assert {rule: answer.status_code for rule, answer in answers.items()} == dict.fromkeys(
        rules, 403
    )
    assert is_logged_in(alice)
    assert browser.get(ACCOUNT).status_code == 200


def test_a_suspended_user_may_see_to_the_account_but_not_remove_addresses(
    browser: FlaskClient, app: Application, alice: Person
) -> None:
    with app.homeserver.database.write() as tx:
        accounts.set_suspended(tx, alice.user_id, is_suspended=True)

    refused = send(browser, f"{ACCOUNT}email/remove", page=ACCOUNT, address="a@x.test")
    changed = send(browser, f"{ACCOUNT}password", current=PASSWORD, **BOTH)

    assert (refused.status_code, changed.status_code) == (403, 303)


def test_every_page_of_an_account_has_labels_and_one_heading(browser: FlaskClient) -> None:
    for path in pages(browser):
        text = browser.get(path).text

        assert len(re.findall(r"<h1\b", text)) == 1, path
        fields = [tag for tag in re.findall(r"<input[^>]*>", text) if 'type="hidden"' not in tag]
        for tag in fields:
            found = re.search(r'id="([\w-]+)"', tag)
            is_labelled = found and f'for="{found.group(1)}"' in text
            assert is_labelled or re.search(rf"<label[^>]*>{re.escape(tag)}", text), tag
        assert not re.search(r'(?:src|href)="(?!/|#)', text), path


def test_an_address_of_an_account_is_a_name_for_the_login(app: Application, alice: Person) -> None:
    with app.homeserver.database.write() as tx:
        threepids.replace_all(tx, alice.user_id, [("email", "alice@x.test")])

    assert log_in(app.test_client(), "Alice@x.test").status_code == 303
    assert log_in(app.test_client(), "bob@x.test").status_code == 403
