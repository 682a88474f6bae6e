"""What administrators do to accounts by their pages, beyond restrictions."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from homebody.core import tasks
from homebody.core.accounts import accounts, overrides
from homebody.core.accounts.overrides import Override
from homebody.core.media import limits
from homebody.core.rooms import user_redaction
from homebody.web import Application
from tests.conftest import PASSWORD, MakeApp, Person
from tests.helpers.encryption import Identity
from tests.helpers.pages import log_in, send
from tests.helpers.rooms import unchanged
from tests.web.admin_pages.audit_log import last_action
from tests.web.test_pages import visible

USERS = "/_homebody/admin/users"


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    """A server that can send notices."""
    return make_app(server_notices_user="notices")


def page_of(person: Person) -> str:
    return f"{USERS}/{quote(person.user_id, safe='')}"


def upload(person: Person) -> str:
    """Return the path of a new file."""
    answer = person.request("POST", "/_matrix/media/v3/upload", data=b"tea").get_json()
    return str(answer["content_uri"]).removeprefix("mxc://")


def test_a_user_is_logged_out_everywhere(
    app: Application, browser: FlaskClient, alice: Person
) -> None:
    of_alice = app.test_client()
    log_in(of_alice, "alice")
    body = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
    asked = alice.post("/_matrix/client/v1/login/get_token", json={"auth": body})
    login_token = asked.get_json()["login_token"]

    answer = send(browser, f"{page_of(alice)}/log-out")

    assert "All devices of the user are logged out." in visible(
        browser.get(answer.headers["Location"])
    )
    assert alice.get("account/whoami").status_code == 401
    assert of_alice.get("/_homebody/account/").status_code == 303, "the login comes first"
    again = {"type": "m.login.token", "token": login_token}
    assert alice.post("login", json=again).status_code == 403
    assert last_action(app) == ("@owner:localhost", "device.delete", alice.user_id)


def test_an_account_is_edited(app: Application, browser: FlaskClient, alice: Person) -> None:
    path = f"{page_of(alice)}/edit"

    send(browser, path, displayname="Alice", emails="a@example.org b@example.org", user_type="bot")
    shown = browser.get(path).get_data(as_text=True)

    assert 'value="Alice"' in shown
    assert 'value="a@example.org b@example.org"' in shown
    with app.homeserver.database.read() as tx:
        account = accounts.find(tx, alice.user_id)
    assert account
    assert account.user_type == "bot"


def test_a_telephone_number_outlives_an_edit(
    browser: FlaskClient, admin: Person, alice: Person
) -> None:
    path = f"/_synapse/admin/v2/users/{alice.user_id}"
    number = {"medium": "msisdn", "address": "491701234567"}
    assert admin.put(path, json={"threepids": [number]}).status_code == 200

    send(browser, f"{page_of(alice)}/edit", displayname="A", emails="a@example.org")

    found = admin.get(path).get_json()["threepids"]
    assert {it["address"] for it in found} == {"a@example.org", number["address"]}


@pytest.mark.parametrize(
    ("text", "max_bytes"), [("5 MiB", 5 * 2**20), ("0", 0), ("", None), (" 7 KB ", 7000)]
)
def test_the_quota_of_a_user_is_set(
    app: Application, browser: FlaskClient, alice: Person, text: str, max_bytes: int | None
) -> None:
    answer = send(browser, f"{page_of(alice)}/quota", size=text)

    assert answer.status_code == 303
    with app.homeserver.database.read() as tx:
        assert limits.own(tx, alice.user_id) == max_bytes
    assert last_action(app) == ("@owner:localhost", "user.media_quota", alice.user_id)


def test_the_rate_limit_of_a_user_is_set_shown_and_removed(
    app: Application, browser: FlaskClient, alice: Person
) -> None:
    path = f"{page_of(alice)}/limit"

    send(browser, path, per_second="3", burst="10")
    with app.homeserver.database.read() as tx:
        limit = overrides.find(tx, alice.user_id)
    text, form = visible(browser.get(page_of(alice))), browser.get(path).get_data(as_text=True)
    send(browser, path, per_second="", burst="")

    assert limit == Override(3, 10)
    assert "3 events a second, 10 at once" in text
    assert 'value="3"' in form
    with app.homeserver.database.read() as tx:
        assert overrides.find(tx, alice.user_id) is None


def test_the_expiry_of_an_account_is_set_and_removed(
    app: Application, browser: FlaskClient, alice: Person
) -> None:
    send(browser, f"{page_of(alice)}/expire", days="0")
    expired = alice.get("account/whoami").status_code
    text = visible(browser.get(page_of(alice)))
    send(browser, f"{page_of(alice)}/expire", days="")

    assert expired != 200
    assert "Expiry" in text
    assert alice.get("account/whoami").status_code == 200
    assert last_action(app) == ("@owner:localhost", "user.expiry", alice.user_id)


def test_a_notice_is_sent_to_a_user(app: Application, browser: FlaskClient, alice: Person) -> None:
    send(browser, f"{page_of(alice)}/notice", text="Hello\nAlice")

    assert len(alice.sync()["rooms"]["invite"]) == 1
    assert last_action(app) == ("@owner:localhost", "notice.send", alice.user_id)


def test_the_redaction_of_a_users_messages_is_ordered(
    app: Application, browser: FlaskClient, alice: Person
) -> None:
    answer = send(browser, f"{page_of(alice)}/redact", reason="Spam")

    assert "redact" in visible(browser.get(answer.headers["Location"]))
    with app.homeserver.database.read() as tx:
        (task,) = tasks.select_tasks(tx, actions=[user_redaction.ACTION])
    assert (task.resource_id, task.params["reason"]) == (alice.user_id, "Spam")
    assert last_action(app) == ("@owner:localhost", "user.redact", alice.user_id)


def test_all_files_of_a_user_are_quarantined_and_deleted(
    browser: FlaskClient, alice: Person
) -> None:
    path = f"/_matrix/client/v1/media/download/{upload(alice)}"

    send(browser, f"{page_of(alice)}/quarantine-files")
    quarantined = alice.get(path).status_code
    send(browser, f"{page_of(alice)}/delete-files")

    assert quarantined == 404
    assert "0 bytes of" in visible(browser.get(page_of(alice)))


def test_keys_can_be_replaced_by_a_user_who_has_some(
    app: Application, browser: FlaskClient, alice: Person
) -> None:
    path = f"{page_of(alice)}/replace-keys"

    without = send(browser, path)
    alice.post("keys/device_signing/upload", json=Identity(alice.user_id).upload())
    with_keys = send(browser, path)

    assert (without.status_code, with_keys.status_code) == (404, 303)
    assert "The user has no master cross-signing key" in visible(without)
    assert last_action(app) == ("@owner:localhost", "user.replace_keys", alice.user_id)


@pytest.mark.parametrize(
    ("action", "form", "kept"),
    [
        ("quota", {"size": "much"}, 'value="much"'),
        ("limit", {"per_second": "fast", "burst": "7"}, 'value="7"'),
        ("limit", {"per_second": "-1"}, 'value="-1"'),
        ("expire", {"days": "0.5"}, 'value="0.5"'),
        ("notice", {"text": "  "}, "<textarea"),
        ("edit", {"displayname": "x" * 300}, "x" * 300),
        ("edit", {"displayname": "A", "emails": "nonsense"}, 'value="nonsense"'),
        ("edit", {"displayname": "A", "user_type": "king"}, 'value="king"'),
    ],
)
def test_what_was_entered_is_kept_on_errors(
    app: Application,
    browser: FlaskClient,
    alice: Person,
    action: str,
    form: dict[str, str],
    kept: str,
) -> None:
    with unchanged(app):
        answer = send(browser, f"{page_of(alice)}/{action}", **form)

    text = answer.get_data(as_text=True)
    assert answer.status_code == 400
    assert '<p role="alert" class="problem" id="problem">' in text
    assert kept in text


def test_the_page_of_a_user_lists_the_rooms(browser: FlaskClient, alice: Person) -> None:
    joined, left = alice.create_room(), alice.create_room()
    alice.post(f"rooms/{left}/leave")

    text = visible(browser.get(page_of(alice)))

    assert joined in text
    assert f"{left} (leave)" in text


def test_a_user_is_found_by_the_e_mail_address(browser: FlaskClient, alice: Person) -> None:
    send(browser, f"{page_of(alice)}/edit", displayname="", emails="a@example.org")

    found = visible(browser.get(USERS, query_string={"q": "A@example.org"}))
    nobody = visible(browser.get(USERS, query_string={"q": "b@example.org"}))

    assert "The e-mail address is that of @alice:localhost" in found
    assert "that of" not in nobody
