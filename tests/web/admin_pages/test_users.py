"""The pages about accounts."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from homebody.core.accounts import accounts, external_ids
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.pages import field, log_in, send
from tests.helpers.rooms import unchanged
from tests.web.admin_pages.audit_log import last_action
from tests.web.test_pages import visible

USERS = "/_homebody/admin/users"
DOCTOR = "/_homebody/admin/doctor"
"""A page that only reads."""


def page_of(person: Person) -> str:
    return f"{USERS}/{quote(person.user_id, safe='')}"


def test_the_list_has_all_accounts(browser: FlaskClient, alice: Person) -> None:
    text = visible(browser.get(USERS))

    assert "@alice:localhost" in text
    assert "@owner:localhost owner administrator" in text
    assert "1 to 2 of 2" in text


def test_the_list_is_searched(browser: FlaskClient, alice: Person) -> None:
    text = visible(browser.get(USERS, query_string={"q": "ALI"}))

    assert "@alice:localhost" in text
    assert "1 to 1 of 1" in text


def test_a_long_list_has_parts(
    browser: FlaskClient, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homebody.web.admin_pages.layout.PER_PAGE", 2)
    for name in ("anna", "ben", "carl"):
        login(name)

    first = browser.get(USERS, query_string={"order": "name"})
    second = browser.get(USERS, query_string={"order": "name", "from": 2})

    assert f'href="{USERS}?order=name&amp;from=2" rel="next"' in first.get_data(as_text=True)
    assert "@carl:localhost" in visible(second)
    assert "@anna:localhost" not in visible(second)
    assert 'rel="prev"' in second.get_data(as_text=True)


@pytest.mark.parametrize("start", ["-1", "x", "9" * 30])
def test_a_wrong_place_in_the_list_is_refused(browser: FlaskClient, start: str) -> None:
    assert browser.get(USERS, query_string={"from": start}).status_code == 400


@pytest.mark.parametrize(
    ("action", "logged", "state"),
    [
        ("lock", "user.lock", "is_locked"),
        ("suspend", "user.suspend", "is_suspended"),
        ("shadow-ban", "user.shadow_ban", "is_shadow_banned"),
        ("make-admin", "user.admin", "is_admin"),
    ],
)
def test_an_action_asks_first_and_is_logged(
    app: Application, browser: FlaskClient, alice: Person, action: str, logged: str, state: str
) -> None:
    path = f"{page_of(alice)}/{action}"

    with unchanged(app):
        asked = browser.get(path)
    answer = send(browser, path)
    after = browser.get(answer.headers["Location"])

    assert "@alice:localhost?" in visible(asked)
    assert answer.status_code == 303
    assert 'role="status"' in after.get_data(as_text=True)
    with app.homeserver.database.read() as tx:
        account = accounts.find(tx, alice.user_id)
    assert account
    assert getattr(account, state)
    assert last_action(app) == ("@owner:localhost", logged, alice.user_id)


@pytest.mark.parametrize(
    ("action", "opposite", "logged"),
    [
        ("lock", "unlock", "user.unlock"),
        ("suspend", "unsuspend", "user.unsuspend"),
        ("shadow-ban", "end-shadow-ban", "user.unshadow_ban"),
        ("make-admin", "end-admin", "user.admin"),
        ("deactivate", "reactivate", "user.reactivate"),
    ],
)
def test_an_action_can_be_taken_back(
    app: Application, browser: FlaskClient, alice: Person, action: str, opposite: str, logged: str
) -> None:
    send(browser, f"{page_of(alice)}/{action}")
    offered = browser.get(page_of(alice)).get_data(as_text=True)

    answer = send(browser, f"{page_of(alice)}/{opposite}", page=page_of(alice))

    assert f'{page_of(alice)}/{opposite}"' in offered
    assert answer.status_code == 303
    assert last_action(app) == ("@owner:localhost", logged, alice.user_id)


def test_deactivating_says_what_it_means_and_logs_out(
    app: Application, browser: FlaskClient, alice: Person
) -> None:
    path = f"{page_of(alice)}/deactivate"

    asked = visible(browser.get(path))
    send(browser, path, erase="on")

    assert "leaves all rooms" in asked
    assert alice.get("account/whoami").status_code == 401
    with app.homeserver.database.read() as tx:
        account = accounts.find(tx, alice.user_id)
    assert account
    assert account.deactivated_ts is not None
    assert account.erased_position is not None
    assert "deactivated" in visible(browser.get(page_of(alice)))


def link(app: Application, user_id: str, provider: str, subject: str) -> None:
    with app.homeserver.database.write() as tx:
        external_ids.add(tx, user_id, provider, subject)


def login_of(person: Person, provider: str, subject: str) -> str:
    return f"{page_of(person)}/logins/{provider}/{quote(subject, safe='')}"


def test_links_to_logins_elsewhere_are_shown_and_removed(
    app: Application, browser: FlaskClient, alice: Person
) -> None:
    link(app, alice.user_id, "keycloak", "a/b ü")
    link(app, alice.user_id, "google", "17")
    path = login_of(alice, "keycloak", "a/b ü")

    page = browser.get(page_of(alice))
    with unchanged(app):
        asked = browser.get(path)
    answer = send(browser, path)
    after = browser.get(answer.headers["Location"])

    assert "keycloak (not in the settings) a/b ü" in visible(page)
    assert f'href="{path}"' in page.get_data(as_text=True)
    assert "a/b ü at keycloak, of @alice:localhost?" in visible(asked)
    assert "The link is removed." in visible(after)
    assert path not in after.get_data(as_text=True)
    with app.homeserver.database.read() as tx:
        assert external_ids.of_user(tx, alice.user_id) == [("google", "17")]
    assert last_action(app) == ("@owner:localhost", "user.unlink", alice.user_id)


def test_a_link_is_called_by_the_name_of_the_provider(
    app: Application, alice: Person, make_app: MakeApp
) -> None:
    link(app, alice.user_id, "house", "17")
    table = '{ id = "house", name = "Our accounts", issuer = "https://a.test", client_id = "x" }'
    browser = make_app(oidc_providers=f"[{table}]").test_client()
    log_in(browser, "owner")

    assert "Our accounts 17" in visible(browser.get(page_of(alice)))


def test_a_link_that_is_not_there_is_not_removed(
    app: Application, browser: FlaskClient, alice: Person, admin: Person
) -> None:
    link(app, admin.user_id, "keycloak", "17")
    path = login_of(alice, "keycloak", "17")

    with unchanged(app):
        asked = browser.get(path)
        answer = send(browser, path, page=page_of(alice))

    assert (asked.status_code, answer.status_code) == (404, 404)


def test_administrators_keep_their_own_links(
    app: Application, browser: FlaskClient, admin: Person
) -> None:
    link(app, admin.user_id, "keycloak", "17")
    path = login_of(admin, "keycloak", "17")

    page = browser.get(page_of(admin))
    with unchanged(app):
        asked = browser.get(path)
        answer = send(browser, path, page=page_of(admin))

    assert "keycloak" in visible(page)
    assert path not in page.get_data(as_text=True)
    assert (asked.status_code, answer.status_code) == (403, 403)


def test_a_device_is_logged_out(app: Application, browser: FlaskClient, alice: Person) -> None:
    path = f"{page_of(alice)}/devices/{alice.device_id}"

    asked = browser.get(path)
    send(browser, path)

    assert asked.status_code == 200
    assert alice.get("account/whoami").status_code == 401
    assert last_action(app) == ("@owner:localhost", "device.delete", alice.user_id)


def test_a_link_for_a_new_password_is_shown_once(
    app: Application, browser: FlaskClient, alice: Person
) -> None:
    answer = send(browser, f"{page_of(alice)}/reset-link")

    assert "/_homebody/reset/" in answer.get_data(as_text=True)
    assert "/_homebody/reset/" not in browser.get(page_of(alice)).get_data(as_text=True)
    assert last_action(app) == ("@owner:localhost", "invitation.password", alice.user_id)


@pytest.mark.parametrize("action", ["lock", "deactivate", "end-admin", "reset-link"])
def test_nobody_locks_themselves_out(
    app: Application, browser: FlaskClient, admin: Person, action: str
) -> None:
    path = f"{page_of(admin)}/{action}"

    with unchanged(app):
        answers = [browser.get(path), send(browser, path, page=DOCTOR)]

    assert [it.status_code for it in answers] == [403, 403]


@pytest.mark.parametrize("name", ["@nobody:localhost", "@alice:elsewhere", "x"])
def test_an_unknown_user_has_no_page(app: Application, browser: FlaskClient, name: str) -> None:
    path = f"{USERS}/{quote(name, safe='')}"

    with unchanged(app):
        answers = [browser.get(path), send(browser, f"{path}/lock", page=DOCTOR)]

    assert all(it.status_code in {400, 404} for it in answers)
    assert all(it.content_type == "text/html; charset=utf-8" for it in answers)


def test_an_unknown_action_or_device_is_not_found(
    app: Application, browser: FlaskClient, alice: Person
) -> None:
    with unchanged(app):
        answers = [
            browser.get(f"{page_of(alice)}/explode"),
            send(browser, f"{page_of(alice)}/explode", page=DOCTOR),
            browser.get(f"{page_of(alice)}/devices/NONE"),
        ]

    assert [it.status_code for it in answers] == [404, 404, 404]


def test_names_can_not_add_markup(browser: FlaskClient, alice: Person) -> None:
    alice.put(f"profile/{alice.user_id}/displayname", json={"displayname": "<script>x</script>"})

    for path in (USERS, page_of(alice)):
        assert "<script>x" not in browser.get(path).get_data(as_text=True)


def test_a_form_without_its_field_changes_nothing(
    app: Application, browser: FlaskClient, alice: Person
) -> None:
    assert field(browser.get(f"{page_of(alice)}/lock"))

    with unchanged(app):
        answer = browser.post(f"{page_of(alice)}/lock")

    assert answer.status_code == 403
