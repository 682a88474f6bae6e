"""The page about invitations and registration tokens."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from homebody.core.sessions import invitations, registration_tokens
from homebody.web import Application
from tests.helpers.pages import send
from tests.helpers.rooms import unchanged
from tests.web.admin_pages.audit_log import last_action
from tests.web.test_pages import visible

PAGE = "/_homebody/admin/invitations"
NEW_LINK = f"{PAGE}/new"
NEW_TOKEN = "/_homebody/admin/tokens/new"


def test_a_link_is_shown_once_with_its_code(app: Application, browser: FlaskClient) -> None:
    answer = send(browser, NEW_LINK, page=PAGE, name="bob", days="3")

    text = answer.get_data(as_text=True)
    found = re.search(r'value="(http://[^"]+/_homebody/invite/([^"]+))"', text)
    assert found
    assert "<svg" in text
    assert "within 3 days" in visible(answer)
    assert found.group(2) not in browser.get(PAGE).get_data(as_text=True)
    assert last_action(app) == ("@owner:localhost", "invitation.register", "@bob:localhost")
    assert app.test_client().get(f"/_homebody/invite/{found.group(2)}").status_code == 200


def test_a_link_is_revoked(app: Application, browser: FlaskClient) -> None:
    shown = send(browser, NEW_LINK, page=PAGE, days="3").get_data(as_text=True)
    found = re.search(r"/_homebody/invite/([A-Za-z0-9_-]+)", shown)
    with app.homeserver.database.read() as tx:
        (invitation,) = invitations.all_of(tx)
    path = f"{PAGE}/{invitation.id}/revoke"
    assert path in browser.get(PAGE).get_data(as_text=True)

    with unchanged(app):
        asked = browser.get(path)
    answer = send(browser, path)

    assert asked.status_code == 200
    assert "The link is revoked." in visible(browser.get(answer.headers["Location"]))
    assert found
    assert app.test_client().get(f"/_homebody/invite/{found.group(1)}").status_code == 403
    assert last_action(app)[1] == "invitation.revoke"


@pytest.mark.parametrize(
    "form",
    [{"days": it} for it in ("0", "366", "-1", "x", "", "²", "9" * 20)]
    + [{"days": "3", "name": it} for it in ("owner", "not a name", "@x:y")],
)
def test_a_wrong_invitation_is_refused(
    app: Application, browser: FlaskClient, form: dict[str, str]
) -> None:
    with unchanged(app):
        answer = send(browser, NEW_LINK, page=PAGE, **form)

    assert answer.status_code == 400


def test_a_token_is_created_and_revoked(app: Application, browser: FlaskClient) -> None:
    answer = send(browser, NEW_TOKEN, page=PAGE, uses="2", days="5")
    created = last_action(app)[1]
    with app.homeserver.database.read() as tx:
        (token,) = registration_tokens.every(tx)
    page = browser.get(answer.headers["Location"])
    path = re.search(r"/_homebody/admin/tokens/[0-9a-f]{16}/revoke", page.get_data(as_text=True))

    assert (token["uses_allowed"], created) == (2, "token.add")
    assert token["expires_ts"] - token["created_ts"] == 5 * 86_400_000
    assert "The registration token is in the list." in visible(page)
    assert token["token"] in visible(page)
    assert path
    assert token["token"] in visible(browser.get(path.group()))
    send(browser, path.group())
    assert last_action(app)[1] == "token.remove"
    assert browser.get(path.group()).status_code == 404


def test_a_token_may_have_no_limits(app: Application, browser: FlaskClient) -> None:
    send(browser, NEW_TOKEN, page=PAGE, uses="", days=" ")

    with app.homeserver.database.read() as tx:
        (token,) = registration_tokens.every(tx)
    assert (token["uses_allowed"], token["expires_ts"]) == (None, None)


@pytest.mark.parametrize("form", [{"uses": "0"}, {"uses": "x"}, {"days": "0"}, {"days": "4000"}])
def test_a_wrong_token_is_refused(
    app: Application, browser: FlaskClient, form: dict[str, Any]
) -> None:
    with unchanged(app):
        answer = send(browser, NEW_TOKEN, page=PAGE, **form)

    assert answer.status_code == 400


@pytest.mark.parametrize(
    "path", [f"{PAGE}/0000/revoke", "/_homebody/admin/tokens/0000/revoke", f"{PAGE}/é/revoke"]
)
def test_what_there_is_not_can_not_be_revoked(
    app: Application, browser: FlaskClient, path: str
) -> None:
    with unchanged(app):
        answer = send(browser, path, page=PAGE)

    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("path", "form", "kept"),
    [
        (f"{PAGE}/new", {"name": "owner", "days": "3"}, ('value="owner"', 'value="3"')),
        (f"{PAGE}/new", {"name": "new", "days": "many"}, ('value="new"', 'value="many"')),
        (NEW_TOKEN, {"uses": "-4", "days": "9"}, ('value="-4"', 'value="9"')),
    ],
)
def test_what_was_entered_is_kept_on_errors(
    app: Application, browser: FlaskClient, path: str, form: dict[str, str], kept: tuple[str, ...]
) -> None:
    with unchanged(app):
        answer = send(browser, path, page=PAGE, **form)

    html = answer.get_data(as_text=True)
    assert answer.status_code == 400
    assert html.count('role="alert"') == 1
    assert all(it in html for it in kept)
