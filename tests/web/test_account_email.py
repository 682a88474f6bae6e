"""Adding and removing e-mail addresses by the pages of an account, with a real mail server."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.web import Application
from tests.conftest import PASSWORD, Login, MakeApp, Person
from tests.core.accounts.test_threepids import press_the_button
from tests.helpers import mail_server
from tests.helpers.mail_server import Mailbox
from tests.helpers.pages import log_in, send
from tests.web.test_pages import visible

EMAIL = "/_homebody/account/email"
ADDRESS = "alice@example.org"


@pytest.fixture(scope="module")
def mailbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailbox]:
    with mail_server.running(tmp_path_factory.mktemp("mail")) as running:
        yield running


@pytest.fixture
def app(make_app: MakeApp, mailbox: Mailbox) -> Application:
    mailbox.empty()
    return make_app(**mailbox.settings)


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def browser(app: Application, alice: Person) -> FlaskClient:
    found = app.test_client()
    log_in(found, "alice")
    return found


def finish(browser: FlaskClient, page: TestResponse, password: str = PASSWORD) -> TestResponse:
    """Send the form of the page that follows the mail."""
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    return browser.post(f"{EMAIL}/add", data={**hidden, "current": password})


def addresses(person: Person) -> list[str]:
    return [it["address"] for it in person.get("account/3pid").get_json()["threepids"]]


def test_an_address_is_added_when_its_link_was_opened(
    browser: FlaskClient, client: FlaskClient, alice: Person, mailbox: Mailbox
) -> None:
    sent = send(browser, EMAIL, address=ADDRESS)
    early = finish(browser, sent)
    press_the_button(client, mailbox.link(ADDRESS))
    wrong = finish(browser, early, "wrong")
    assert addresses(alice) == []

    done = finish(browser, wrong)

    assert "Open the link in the mail first." in visible(early)
    assert "This is not your password." in visible(wrong)
    assert done.headers["Location"] == "/_homebody/account/?done=email"
    assert addresses(alice) == [ADDRESS]
    assert ADDRESS in visible(browser.get("/_homebody/account/"))


def test_an_address_of_somebody_else_is_not_added(
    browser: FlaskClient, app: Application, login: Login, alice: Person, mailbox: Mailbox
) -> None:
    login("bob")
    other = app.test_client()
    log_in(other, "bob")
    page = send(other, EMAIL, address=ADDRESS)
    press_the_button(other, mailbox.link(ADDRESS))
    finish(other, page)

    sent = send(browser, EMAIL, address=ADDRESS)
    refused = finish(browser, sent)

    assert sent.status_code == 200  # it does not reveal that the address has an account
    assert refused.status_code == 403
    assert "Open the link in the mail first." in visible(refused)
    assert mailbox.newest(ADDRESS)["Subject"].startswith("This address belongs to an account")
    assert addresses(alice) == []


def test_what_is_not_an_address_is_refused_beside_the_field(browser: FlaskClient) -> None:
    answer = send(browser, EMAIL, address="alice")

    assert answer.status_code == 400
    assert re.search(r'id="address-problem"[^>]*>This is not an e-mail address', answer.text)


def test_an_address_is_removed(
    browser: FlaskClient, client: FlaskClient, alice: Person, mailbox: Mailbox
) -> None:
    page = send(browser, EMAIL, address=ADDRESS)
    press_the_button(client, mailbox.link(ADDRESS))
    finish(browser, page)

    answer = send(browser, f"{EMAIL}/remove", page="/_homebody/account/", address=ADDRESS)
    again = send(browser, f"{EMAIL}/remove", page="/_homebody/account/", address=ADDRESS)

    assert answer.headers["Location"] == "/_homebody/account/?done=email-removed"
    assert addresses(alice) == []
    assert again.status_code == 400
