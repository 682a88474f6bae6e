"""All pages for administrators: who may open them, and that no form of another site is accepted."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from homebody.web import Application, admin_pages
from tests.conftest import Person
from tests.helpers.pages import log_in
from tests.helpers.rooms import unchanged
from tests.tools import routes, spec_index
from tests.web.test_pages import visible

PAGES = [
    (route.method, route.path)
    for route in routes.routes(spec_index.server())
    if route.path.startswith(admin_pages.PREFIX)
]


def filled(path: str) -> str:
    """A path of a route with all parameters set."""
    return "/".join("x" if part.startswith("<") else part for part in path.split("/"))


def test_there_are_pages_to_check() -> None:
    assert len(PAGES) > 10


@pytest.mark.parametrize(("method", "path"), PAGES, ids=str)
def test_a_page_is_for_administrators_who_have_logged_in(
    app: Application, alice: Person, method: str, path: str
) -> None:
    other = app.test_client()
    log_in(other, "alice")

    with unchanged(app):
        stranger = app.test_client().open(filled(path), method=method)
        refused = other.open(filled(path), method=method)
        by_token = alice.request(method, filled(path))

    assert stranger.status_code == by_token.status_code == 303
    assert stranger.headers["Location"].startswith("/_homebody/login")
    assert refused.status_code == 403
    assert "Only administrators of the server may do this." in visible(refused)


@pytest.mark.parametrize("path", [path for method, path in PAGES if method == "POST"])
def test_a_form_of_another_site_is_refused(
    app: Application, browser: FlaskClient, path: str
) -> None:
    with unchanged(app):
        answers = [
            browser.post(filled(path)),
            browser.post(filled(path), data={"csrf_token": "0" * 64}),
        ]

    assert [it.status_code for it in answers] == [403, 403]
    assert all("The form is too old" in visible(it) for it in answers)


@pytest.mark.parametrize("path", [path for method, path in PAGES if method == "GET"])
def test_a_page_can_not_be_framed_or_kept(browser: FlaskClient, path: str) -> None:
    answer = browser.get(filled(path))

    assert answer.content_type == "text/html; charset=utf-8"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert "<script" not in answer.get_data(as_text=True)


def test_the_rights_end_with_the_next_request(
    app: Application, browser: FlaskClient, admin: Person, alice: Person
) -> None:
    other = app.test_client()
    log_in(other, "alice")
    admin.put(f"/_synapse/admin/v1/users/{alice.user_id}/admin", json={"admin": True})
    given = other.get(f"{admin_pages.PREFIX}/").status_code
    admin.put(f"/_synapse/admin/v1/users/{alice.user_id}/admin", json={"admin": False})

    assert (given, other.get(f"{admin_pages.PREFIX}/").status_code) == (200, 403)
