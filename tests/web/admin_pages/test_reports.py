"""The pages about what users have reported."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from homebody.web import Application
from tests.conftest import Person
from tests.helpers.pages import send
from tests.helpers.rooms import unchanged
from tests.web.admin_pages.audit_log import last_action
from tests.web.test_pages import visible

REPORTS = "/_homebody/admin/reports"


@pytest.fixture
def kitchen(alice: Person) -> str:
    """A room of Alice's."""
    return alice.create_room(name="The kitchen")


def report(alice: Person, room_id: str, reason: str = "rude") -> None:
    """Report a message, its room, and a user."""
    event_id = alice.send(room_id, "a <b>rude</b> word")
    for path in (
        f"rooms/{room_id}/report/{event_id}",
        f"rooms/{room_id}/report",
        f"users/{alice.user_id}/report",
    ):
        assert alice.post(path, json={"reason": reason}).status_code == 200


def test_all_kinds_of_reports_are_listed(browser: FlaskClient, alice: Person, kitchen: str) -> None:
    report(alice, kitchen)

    text = visible(browser.get(REPORTS))

    assert "Report 3" in text
    assert "a message of @alice:localhost rude" in text
    assert f"the room {kitchen} rude" in text
    assert "1 to 3 of 3" in text
    assert "1 to 3 of 3" in visible(browser.get(REPORTS, query_string={"q": "alic"}))
    assert "No reports" in visible(browser.get(REPORTS, query_string={"q": "bob"}))


def test_a_report_has_its_page_with_the_event(
    browser: FlaskClient, alice: Person, kitchen: str
) -> None:
    report(alice, kitchen)

    answer = browser.get(f"{REPORTS}/1")

    assert "a &lt;b&gt;rude&lt;/b&gt; word" in answer.get_data(as_text=True)
    assert kitchen in visible(answer)
    assert [browser.get(f"{REPORTS}/{it}").status_code for it in (2, 3)] == [200, 200]


def test_a_report_is_resolved(
    app: Application, browser: FlaskClient, alice: Person, kitchen: str
) -> None:
    report(alice, kitchen)

    with unchanged(app):
        asked = browser.get(f"{REPORTS}/1/resolve")
    answer = send(browser, f"{REPORTS}/1/resolve")

    assert "Resolve: report 1?" in visible(asked)
    assert answer.status_code == 303
    assert "The report is resolved." in visible(browser.get(answer.headers["Location"]))
    assert browser.get(f"{REPORTS}/1").status_code == 404
    assert last_action(app) == ("@owner:localhost", "report.remove", None)


@pytest.mark.parametrize("number", ["7", "0", "-1", "x", "²", "9" * 30])
def test_an_unknown_report_is_not_found(
    app: Application, browser: FlaskClient, number: str
) -> None:
    with unchanged(app):
        answers = [
            browser.get(f"{REPORTS}/{number}"),
            browser.get(f"{REPORTS}/{number}/resolve"),
            send(browser, f"{REPORTS}/{number}/resolve", page=REPORTS),
        ]

    assert [it.status_code for it in answers] == [404, 404, 404]
