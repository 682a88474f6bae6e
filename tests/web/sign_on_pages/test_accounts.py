"""What the first login at a provider leads to, and the next ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core.accounts import accounts, external_ids
from homebody.core.sessions import deactivation, registration_tokens
from homebody.core.sign_on import attempts
from homebody.web import Application
from tests.conftest import PASSWORD, Login, MakeApp
from tests.helpers import openid_provider
from tests.helpers.openid_provider import Provider, visit
from tests.helpers.pages import field, log_in
from tests.web.test_pages import visible

ACCOUNT = "/_homebody/account/"
START = "/_homebody/sign-on/start/test"
ALICE = "@alice:localhost"


def send(browser: FlaskClient, page: TestResponse, what: str, **values: Any) -> TestResponse:
    """Send a form of the page after a login."""
    html = page.get_data(as_text=True)
    state = html.partition('name="state" value="')[2].partition('"')[0]
    data = {"csrf_token": field(page), "state": state, **values}
    return browser.post(f"/_homebody/sign-on/{what}", data=data)


def who(browser: FlaskClient) -> str | None:
    """The user who is logged in."""
    page = browser.get(ACCOUNT)
    if page.status_code != 200:
        return None
    return page.get_data(as_text=True).partition('<code class="copy">')[2].partition("<")[0]


def linked(app: Application, user_id: str) -> list[tuple[str, str]]:
    with app.homeserver.database.read() as tx:
        return external_ids.of_user(tx, user_id)


def test_the_first_login_asks_for_a_name_and_makes_an_account(
    browser: FlaskClient, provider: Provider, app: Application
) -> None:
    page = visit(browser, provider, preferred_username="alice", name="Alice Liddell")
    made = send(browser, page, "new", name="alice")

    assert 'value="alice"' in page.get_data(as_text=True)
    assert (made.status_code, made.headers["Location"]) == (303, ACCOUNT)
    assert who(browser) == ALICE
    assert linked(app, ALICE) == [("test", "1234")]
    profile = browser.get(f"/_matrix/client/v3/profile/{ALICE}").get_json()
    assert profile["displayname"] == "Alice Liddell"


def test_the_next_login_needs_no_question(
    browser: FlaskClient, provider: Provider, app: Application
) -> None:
    send(browser, visit(browser, provider), "new", name="alice")
    other = app.test_client()

    answer = visit(other, provider, preferred_username="renamed")

    assert answer.status_code == 303
    assert who(other) == ALICE


def test_with_a_template_the_account_is_made_at_once(make_app: MakeApp, provider: Provider) -> None:
    settings = provider.settings(localpart_template="{email|localpart}")
    browser = make_app(oidc_providers=settings).test_client()

    visit(browser, provider, email="Bob@example.org", email_verified=True)

    assert who(browser) == "@bob:localhost"
    assert "bob@example.org" in browser.get(ACCOUNT).get_data(as_text=True)


@pytest.mark.parametrize("name", ["alice", "ALICE", "Ünlü", "a b", None])
def test_a_template_that_leads_to_no_free_name_asks(
    make_app: MakeApp, provider: Provider, name: str | None
) -> None:
    app = make_app(oidc_providers=provider.settings(localpart_template="{nickname}"))
    browser = app.test_client()
    register(browser, "alice")

    page = visit(browser, provider, nickname=name)

    assert "Your first login with The test" in visible(page)
    assert who(browser) is None
    assert linked(app, ALICE) == []


def register(client: FlaskClient, name: str) -> None:
    body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    assert client.post("/_matrix/client/v3/register", json=body).status_code == 200


@pytest.mark.parametrize("is_verified", [False, None, "false", 0, [True], {}])
def test_an_address_that_nobody_has_verified_is_not_kept(
    make_app: MakeApp, provider: Provider, is_verified: Any
) -> None:
    settings = provider.settings(localpart_template="{email|localpart}")
    browser = make_app(oidc_providers=settings).test_client()

    visit(browser, provider, email="bob@example.org", email_verified=is_verified)

    assert who(browser) == "@bob:localhost"
    assert "bob@example.org" not in browser.get(ACCOUNT).get_data(as_text=True)


def test_accounts_that_are_made_at_once_are_limited(make_app: MakeApp, provider: Provider) -> None:
    limits = {"rate_limits": "true", "rc_registration.burst_count": "2"}
    app = make_app(oidc_providers=provider.settings(localpart_template="{sub}"), **limits)

    statuses = [visit(app.test_client(), provider, sub=it).status_code for it in ("a", "b", "c")]

    assert statuses == [303, 303, 429]


@pytest.mark.parametrize("name", ["alice", "", "not a name", "x" * 300])
def test_a_name_that_is_taken_or_invalid_makes_no_account(
    browser: FlaskClient, provider: Provider, login: Login, app: Application, name: str
) -> None:
    login("alice")

    answer = send(browser, visit(browser, provider), "new", name=name)

    assert answer.status_code == 400
    assert "Not yet" in answer.get_data(as_text=True)
    assert who(browser) is None
    assert linked(app, ALICE) == []


def test_an_account_is_linked_by_its_password(
    browser: FlaskClient, provider: Provider, login: Login, app: Application
) -> None:
    login("alice")
    page = visit(browser, provider)

    answer = send(browser, page, "existing", user="alice", password=PASSWORD)
    again = app.test_client()
    visit(again, provider)

    assert answer.status_code == 303
    assert who(browser) == who(again) == ALICE


@pytest.mark.parametrize(("user", "password"), [("alice", "x"), ("", ""), ("bob", PASSWORD)])
def test_a_wrong_password_links_nothing(
    browser: FlaskClient,
    provider: Provider,
    login: Login,
    app: Application,
    user: str,
    password: str,
) -> None:
    login("alice")
    page = visit(browser, provider)

    answer = send(browser, page, "existing", user=user, password=password)

    assert answer.status_code == 403
    assert "Unknown user name or wrong password." in visible(answer)
    assert linked(app, ALICE) == []
    assert who(browser) is None


def test_a_second_person_can_not_have_the_same_login(
    browser: FlaskClient, provider: Provider, login: Login, app: Application
) -> None:
    login("alice")
    first, second = visit(browser, provider), app.test_client()
    other = visit(second, provider)
    send(browser, first, "new", name="bob")

    linking = send(second, other, "existing", user="alice", password=PASSWORD)
    creating = send(second, other, "new", name="carol")

    assert "linked to another account" in visible(linking)
    assert creating.status_code == 400
    assert linked(app, ALICE) == []
    assert who(second) is None


def test_the_same_subject_at_another_provider_is_somebody_else(
    make_app: MakeApp, provider: Provider
) -> None:
    with openid_provider.running() as other:
        tables = [provider.settings()[1:-1], other.settings(id="other")[1:-1]]
        app = make_app(oidc_providers=f"[{', '.join(tables)}]")
        browser, attacker = app.test_client(), app.test_client()
        send(browser, visit(browser, provider, sub="1"), "new", name="alice")

        page = visit(attacker, other, "/_homebody/sign-on/start/other", sub="1")

    assert "Your first login with The test" in visible(page)
    assert who(attacker) is None
    assert linked(app, ALICE) == [("test", "1")]


def test_the_login_of_another_account_is_not_linked_to_ones_own(
    browser: FlaskClient, provider: Provider, login: Login, app: Application
) -> None:
    login("bob")
    log_in(browser, "bob")
    page = visit(browser, provider, "/_homebody/sign-on/link/test")
    other = app.test_client()
    send(other, visit(other, provider), "new", name="alice")

    answer = send(browser, page, "link", current=PASSWORD)

    assert answer.status_code == 403
    assert "linked to another account" in visible(answer)
    assert linked(app, "@bob:localhost") == []


def test_a_page_of_a_login_that_is_over_makes_no_account(
    browser: FlaskClient, provider: Provider, app: Application, later: Callable[[int], None]
) -> None:
    page = visit(browser, provider)
    later(attempts.LIFETIME_MS)

    answer = send(browser, page, "new", name="alice")

    assert answer.status_code == 403
    assert "This login is over" in visible(answer)
    with app.homeserver.database.read() as tx:
        assert accounts.find(tx, ALICE) is None


def test_users_of_a_closed_provider_can_link_but_not_register(
    make_app: MakeApp, provider: Provider
) -> None:
    app = make_app(oidc_providers=provider.settings(registration="closed"))
    browser = app.test_client()
    register(browser, "alice")

    page = visit(browser, provider, nickname="bob")
    made = send(browser, page, "new", name="bob")
    linking = send(browser, page, "existing", user="alice", password=PASSWORD)

    assert "Create an account" not in visible(page)
    assert made.status_code == 400
    assert linking.status_code == 303


def test_where_nothing_is_allowed_the_login_ends_there(
    make_app: MakeApp, provider: Provider
) -> None:
    settings = provider.settings(registration="closed", allow_existing_users=False)
    browser = make_app(oidc_providers=settings).test_client()

    page = visit(browser, provider)

    assert page.status_code == 403
    assert "no account here" in visible(page)


def test_where_accounts_can_not_be_linked_no_page_links_them(
    make_app: MakeApp, provider: Provider
) -> None:
    app = make_app(oidc_providers=provider.settings(allow_existing_users=False))
    browser = app.test_client()
    register(browser, "alice")
    page = visit(browser, provider)
    log_in(browser, "alice")

    by_password = send(browser, page, "existing", user="alice", password=PASSWORD)
    leaving = browser.get("/_homebody/sign-on/link/test")

    assert (by_password.status_code, leaving.status_code) == (403, 403)
    assert "Use the account that you have" not in visible(page)
    assert "The test" not in visible(browser.get(ACCOUNT))
    assert linked(app, ALICE) == []


def test_a_registration_token_is_asked_where_registration_needs_one(
    make_app: MakeApp, provider: Provider
) -> None:
    settings = provider.settings(registration="token", localpart_template="{nickname}")
    app = make_app(oidc_providers=settings)
    browser = app.test_client()
    add_token(app, "letmein")

    page = visit(browser, provider, nickname="bob")
    without = send(browser, page, "new", name="bob")
    wrong = send(browser, page, "new", name="bob", token="x")
    right = send(browser, page, "new", name="bob", token="letmein")

    assert "Registration token" in visible(page)
    assert (without.status_code, wrong.status_code, right.status_code) == (400, 400, 303)
    assert "This registration token is not valid." in visible(wrong)


def add_token(app: Application, token: str) -> None:
    with app.homeserver.database.write() as tx:
        registration_tokens.add(tx, "command line", token, uses_allowed=1)


def test_the_rules_of_the_server_must_be_accepted(make_app: MakeApp, provider: Provider) -> None:
    terms = '[{id="rules", version="1", language="en", name="House rules", url="https://x.test/r"}]'
    settings = provider.settings(localpart_template="{nickname}")
    browser = make_app(oidc_providers=settings, terms=terms).test_client()

    page = visit(browser, provider, nickname="bob")
    without = send(browser, page, "new", name="bob")
    agreed = send(browser, page, "new", name="bob", terms="yes")

    assert "House rules" in visible(page)
    assert (without.status_code, agreed.status_code) == (400, 303)


@pytest.mark.parametrize("state", ["locked", "deactivated", "expired"])
def test_an_account_that_is_not_in_use_lets_nobody_in(
    browser: FlaskClient, provider: Provider, app: Application, state: str
) -> None:
    send(browser, visit(browser, provider), "new", name="alice")
    db, other = app.homeserver.database, app.test_client()
    if state == "deactivated":
        deactivation.deactivate(db, ALICE)
    else:
        with db.write() as tx:
            if state == "locked":
                accounts.set_locked(tx, ALICE, is_locked=True)
            else:
                accounts.set_expiry(tx, ALICE, 1)

    answer = visit(other, provider)

    assert answer.status_code in {401, 403}
    assert who(other) is None


def test_a_user_who_is_logged_in_links_a_login_and_unlinks_it(
    browser: FlaskClient, provider: Provider, login: Login, app: Application
) -> None:
    login("alice")
    log_in(browser, "alice")

    asked = visit(browser, provider, "/_homebody/sign-on/link/test", name="Alice Liddell")
    wrong = send(browser, asked, "link", current="x")
    before = linked(app, ALICE)
    answer = send(browser, asked, "link", current=PASSWORD)
    after = linked(app, ALICE)
    page = browser.get(ACCOUNT)
    data = {"csrf_token": field(page), "provider": "test"}
    unlinked = browser.post("/_homebody/sign-on/unlink", data=data)

    assert "Alice Liddell" in visible(asked)
    assert wrong.status_code == 403
    assert "This is not your password." in visible(wrong)
    assert before == []
    assert answer.headers["Location"] == f"{ACCOUNT}?done=linked"
    assert after == [("test", "1234")]
    assert unlinked.status_code == 303
    assert linked(app, ALICE) == []


def test_an_account_without_a_password_keeps_its_last_login(
    browser: FlaskClient, provider: Provider, app: Application
) -> None:
    send(browser, visit(browser, provider), "new", name="alice")
    with app.homeserver.database.write() as tx:
        external_ids.add(tx, ALICE, "former", "1234")  # it is not in the settings any more
    data = {"csrf_token": field(browser.get(ACCOUNT)), "provider": "test"}

    answer = browser.post("/_homebody/sign-on/unlink", data=data)

    assert answer.status_code == 403
    assert "Set a password first" in visible(answer)
    assert ("test", "1234") in linked(app, ALICE)


def test_a_login_to_link_that_was_begun_by_another_user_is_refused(
    browser: FlaskClient, provider: Provider, login: Login, app: Application
) -> None:
    login("alice"), login("bob")
    log_in(browser, "alice")
    page = visit(browser, provider, "/_homebody/sign-on/link/test")
    browser.post("/_homebody/logout", data={"csrf_token": field(page)})
    log_in(browser, "bob")
    html = page.get_data(as_text=True)
    state = html.partition('name="state" value="')[2].partition('"')[0]

    data = {"csrf_token": field(browser.get(ACCOUNT)), "state": state, "current": PASSWORD}
    answer = browser.post("/_homebody/sign-on/link", data=data)

    assert answer.status_code == 403
    assert linked(app, "@bob:localhost") == []


def test_somebody_without_a_session_can_not_link(browser: FlaskClient) -> None:
    answer = browser.get("/_homebody/sign-on/link/test")

    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/_homebody/login")


@pytest.mark.parametrize(
    "wanted",
    [
        *("https://evil.test", "//evil.test", "/\\evil.test", "x", "/a\nb", "/é"),
        *("/_matrix/client/versions", f"/_homebody/{'x' * 20_000}"),
    ],
)
def test_a_login_leads_to_no_other_site(
    browser: FlaskClient, provider: Provider, app: Application, wanted: str
) -> None:
    send(browser, visit(browser, provider), "new", name="alice")

    leaving = browser.get(START, query_string={"next": wanted})
    back = browser.get(provider.log_in(leaving.headers["Location"]))
    answer = browser.get(back.headers["Location"])

    assert answer.headers["Location"] == ACCOUNT


def test_the_login_page_names_the_providers(browser: FlaskClient) -> None:
    page = browser.get("/_homebody/login?next=/_homebody/start")

    assert "Log in with The test" in visible(page)
    html = page.get_data(as_text=True)
    assert 'href="/_homebody/sign-on/start/test?next=%2F_homebody%2Fstart"' in html
