"""The pages of the account to which clients send their users."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from homebody.web import Application
from tests.conftest import PASSWORD, Login, Person
from tests.helpers.encryption import Identity, password_of
from tests.helpers.oauth import OAUTH, App, forwarded, scope, whoami
from tests.helpers.pages import log_in, send
from tests.web.test_pages import visible

PAGE = f"{OAUTH}account"
RESET = f"{PAGE}/cross_signing_reset"
UPLOAD = "keys/device_signing/upload"
ACCOUNT = "/_homebody/account/"


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("", ACCOUNT),
        ("?action=nonsense", ACCOUNT),
        ("?action=org.matrix.profile", f"{PAGE}/profile"),
        ("?action=org.matrix.devices_list", f"{ACCOUNT}#devices"),
        ("?action=org.matrix.sessions_list", f"{ACCOUNT}#devices"),
        ("?action=org.matrix.device_view&device_id=A/B", f"{PAGE}/device?device_id=A%2FB"),
        ("?action=org.matrix.session_view&device_id=AB", f"{PAGE}/device?device_id=AB"),
        ("?action=org.matrix.device_delete&device_id=AB", f"{PAGE}/device?device_id=AB"),
        ("?action=org.matrix.session_end", f"{ACCOUNT}#devices"),
        ("?action=org.matrix.account_deactivate", f"{ACCOUNT}deactivate"),
        ("?action=org.matrix.cross_signing_reset", RESET),
    ],
)
def test_each_action_has_its_page(browser: FlaskClient, query: str, page: str) -> None:
    answer = browser.get(f"{PAGE}{query}")

    assert answer.headers["Location"] == page


def test_all_actions_are_announced(browser: FlaskClient, client: FlaskClient) -> None:
    found = client.get("/_matrix/client/v1/auth_metadata").get_json()

    page = found["account_management_uri"].removeprefix("http://localhost:8008")
    for action in found["org.matrix.msc4191.account_management_actions_supported"]:
        answer = browser.get(page, query_string={"action": action, "device_id": "x"})
        assert answer.headers["Location"] != ACCOUNT, action
        assert browser.get(answer.headers["Location"]).status_code in {200, 404}, action


def test_the_specification_knows_the_actions(client: FlaskClient) -> None:
    found = client.get("/_matrix/client/v1/auth_metadata").get_json()

    assert set(found["account_management_actions_supported"]) == {
        *("org.matrix.profile", "org.matrix.devices_list", "org.matrix.device_view"),
        *("org.matrix.device_delete", "org.matrix.account_deactivate"),
        "org.matrix.cross_signing_reset",
    }


def test_a_device_is_shown_with_its_client_and_logged_out(
    browser: FlaskClient, example: App
) -> None:
    person = example.session(browser)
    page = f"{PAGE}/device?device_id=DEVICE1234"

    shown = browser.get(page)
    send(browser, f"{ACCOUNT}devices/end", page=page, device_id="DEVICE1234")

    assert "DEVICE1234" in visible(shown)
    assert "Logged in by Example" in visible(shown)
    assert person.get("account/whoami").status_code == 401
    assert browser.get(page).status_code == 404


def test_a_device_of_another_user_is_not_shown(
    app: Application, browser: FlaskClient, login: Login
) -> None:
    bob = login("bob")

    assert browser.get(f"{PAGE}/device?device_id={bob.device_id}").status_code == 404


def test_the_name_is_changed_in_rooms_too(
    browser: FlaskClient, alice: Person, room: Callable[..., str]
) -> None:
    room_id = room(alice)

    answer = send(browser, f"{PAGE}/profile", displayname="Alice <3")

    assert answer.status_code == 303
    page = browser.get(answer.headers["Location"])
    assert "Your name is changed" in visible(page)
    assert "Alice &lt;3" in page.text
    member = alice.get(f"rooms/{room_id}/state/m.room.member/{alice.user_id}").get_json()
    assert member["displayname"] == "Alice <3"


def test_the_name_is_removed(browser: FlaskClient, alice: Person) -> None:
    send(browser, f"{PAGE}/profile", displayname="")

    assert alice.get(f"profile/{alice.user_id}/displayname").status_code == 404


def test_a_name_that_is_too_long_changes_nothing(browser: FlaskClient, alice: Person) -> None:
    before = alice.get(f"profile/{alice.user_id}").get_json()

    answer = send(browser, f"{PAGE}/profile", displayname="x" * 70_000)

    assert answer.status_code == 400
    assert alice.get(f"profile/{alice.user_id}").get_json() == before


def test_the_pages_need_a_login(app: Application) -> None:
    for page in ("profile", "device", "cross_signing_reset"):
        answer = app.test_client().get(f"{PAGE}/{page}")
        assert answer.headers["Location"].startswith("/_homebody/login?next="), page


def test_consents_are_listed_and_withdrawn(
    browser: FlaskClient, client: FlaskClient, example: App
) -> None:
    tokens = example.log_in(browser)
    other = App(client, client_name="<b>Other</b>")
    other.log_in(browser, "OTHER12345")

    shown = browser.get(ACCOUNT)
    answer = send(browser, f"{ACCOUNT}consents/withdraw", page=ACCOUNT, client_id=example.client_id)

    text = visible(shown)
    assert "Example (https://example.com/) let in 20" in text
    assert "<b>Other</b>" not in shown.text
    assert "You will be asked" in visible(browser.get(answer.headers["Location"]))
    assert example.client_id not in browser.get(ACCOUNT).text
    assert other.client_id in browser.get(ACCOUNT).text
    assert "Let it in" in browser.get(example.url(scope=scope("THIRD12345"))).text
    assert forwarded(browser.get(other.url(scope=scope("THIRD12345"))))["code"]
    assert whoami(client, tokens["access_token"]).status_code == 200


def test_a_client_that_is_asked_about_each_time_is_not_listed(
    browser: FlaskClient, client: FlaskClient
) -> None:
    uri = "com.example.app:/callback"
    native = App(client, application_type="native", redirect_uris=[uri])
    native.log_in(browser)

    assert native.client_id not in browser.get(ACCOUNT).text


def test_nobody_else_withdraws_a_consent(
    app: Application, browser: FlaskClient, example: App, login: Login
) -> None:
    example.log_in(browser)
    login("bob")
    other = app.test_client()
    log_in(other, "bob")

    send(other, f"{ACCOUNT}consents/withdraw", page=ACCOUNT, client_id=example.client_id)

    assert example.client_id not in other.get(ACCOUNT).text
    assert example.client_id in browser.get(ACCOUNT).text


def test_a_form_of_another_site_withdraws_nothing(browser: FlaskClient, example: App) -> None:
    example.log_in(browser)

    form = {"client_id": example.client_id, "csrf_token": "0" * 64}
    answer = browser.post(f"{ACCOUNT}consents/withdraw", data=form)

    assert answer.status_code == 403
    assert example.client_id in browser.get(ACCOUNT).text


def test_first_keys_need_no_consent(browser: FlaskClient, example: App) -> None:
    person = example.session(browser)

    assert person.post(UPLOAD, json=Identity(person.user_id).upload()).status_code == 200


def test_keys_are_replaced_after_the_user_has_allowed_it(
    browser: FlaskClient, example: App, later: Callable[[int], None]
) -> None:
    person = example.session(browser)
    person.post(UPLOAD, json=Identity(person.user_id).upload())
    new = Identity(person.user_id, "new").upload()

    asked = person.post(UPLOAD, json=new)
    session = asked.get_json()["session"]
    early = person.post(UPLOAD, json={**new, "auth": {"session": session}})
    by_password = person.post(UPLOAD, json={**new, "auth": password_of(person)})
    allowed = send(browser, RESET, current=PASSWORD)
    replaced = person.post(UPLOAD, json={**new, "auth": {"session": session}})
    again = person.post(UPLOAD, json=Identity(person.user_id, "newer").upload())

    stages = ["m.oauth", "org.matrix.cross_signing_reset"]
    url = "http://localhost:8008/_homebody/oauth/account?action=org.matrix.cross_signing_reset"
    assert asked.status_code == 401
    assert asked.get_json()["flows"] == [{"stages": [stage]} for stage in stages]
    assert asked.get_json()["params"] == {stage: {"url": url} for stage in stages}
    assert (early.status_code, early.get_json()["session"]) == (401, session)
    assert by_password.status_code == 401
    assert "within the next 10 minutes" in visible(allowed)
    assert (replaced.status_code, again.status_code) == (200, 401)


def test_permission_to_replace_keys_ends(
    browser: FlaskClient, example: App, later: Callable[[int], None]
) -> None:
    person = example.session(browser)
    person.post(UPLOAD, json=Identity(person.user_id).upload())
    send(browser, RESET, current=PASSWORD)

    later(10 * 60_000)

    assert person.post(UPLOAD, json=Identity(person.user_id, "new").upload()).status_code == 401


def test_a_wrong_password_allows_nothing(browser: FlaskClient, example: App) -> None:
    person = example.session(browser)
    person.post(UPLOAD, json=Identity(person.user_id).upload())

    answer = send(browser, RESET, current="wrong")

    assert answer.status_code == 403
    assert "This is not your password" in visible(answer)
    assert person.post(UPLOAD, json=Identity(person.user_id, "new").upload()).status_code == 401


def test_another_user_gains_nothing(
    app: Application, browser: FlaskClient, example: App, login: Login
) -> None:
    person = example.session(browser)
    person.post(UPLOAD, json=Identity(person.user_id).upload())
    login("bob")
    other = app.test_client()
    log_in(other, "bob")

    send(other, RESET, current=PASSWORD)

    assert person.post(UPLOAD, json=Identity(person.user_id, "new").upload()).status_code == 401
