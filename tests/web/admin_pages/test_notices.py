"""The page by which notices are sent, to one user or to all."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from homebody.core import tasks
from homebody.core.administration import notices_to_all
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.pages import send
from tests.helpers.rooms import unchanged
from tests.web.admin_pages.audit_log import last_action
from tests.web.test_pages import visible

NOTICES = "/_homebody/admin/notices"


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    """A server that can send notices."""
    return make_app(server_notices_user="notices")


def texts(person: Person) -> list[str]:
    """Return the notices that a user reads, after accepting the invite."""
    for room_id in person.sync()["rooms"].get("invite", {}):
        person.post(f"join/{room_id}")
    rooms = person.sync()["rooms"].get("join", {}).values()
    found = [event for room in rooms for event in room["timeline"]["events"]]
    return [it["content"]["body"] for it in found if it["type"] == "m.room.message"]


@pytest.mark.parametrize("name", ["alice", "@alice:localhost", " alice "])
def test_a_notice_is_sent_to_one_user(
    app: Application, browser: FlaskClient, alice: Person, admin: Person, name: str
) -> None:
    answer = send(browser, NOTICES, user=name, text="Only for you")

    page = visible(browser.get(answer.headers["Location"]))
    assert "The notice is sent." in page
    assert "notice.send @alice:localhost" in page
    assert texts(alice) == ["Only for you"]
    assert texts(admin) == []
    assert last_action(app) == ("@owner:localhost", "notice.send", alice.user_id)


def test_the_lines_of_a_notice_end_as_those_of_clients(browser: FlaskClient, alice: Person) -> None:
    send(browser, NOTICES, user="alice", text="Hello\r\nAlice")  # as browsers send it

    assert texts(alice) == ["Hello\nAlice"]


def test_a_notice_may_be_long_in_any_script(browser: FlaskClient, alice: Person) -> None:
    text = "ж" * 20_000

    answer = send(browser, NOTICES, user="alice", text=text)

    assert answer.status_code == 303
    assert texts(alice) == [text]


def test_a_form_that_is_too_large_is_refused_with_a_page(
    app: Application, browser: FlaskClient, alice: Person
) -> None:
    with unchanged(app):
        answer = send(browser, NOTICES, user="alice", text="x" * 300_000)

    assert answer.status_code == 413
    assert "The form is too large." in visible(answer)


def test_a_notice_to_all_is_a_task_that_reaches_each_user_once(
    app: Application, browser: FlaskClient, alice: Person, admin: Person
) -> None:
    database = app.homeserver.database

    with unchanged(app):
        asked = visible(browser.get(f"{NOTICES}/all"))
    answer = send(browser, f"{NOTICES}/all", text="The server is down on Sunday")

    assert "Send to all: 2 users" in asked
    assert "being sent to all users" in visible(browser.get(answer.headers["Location"]))
    assert last_action(app) == ("@owner:localhost", "notice.send_to_all", None)
    with database.read() as tx:
        (task,) = tasks.select_tasks(tx, actions=[notices_to_all.ACTION])
    reports: list[object] = []
    for _ in range(2):  # the second as after a restart
        assert notices_to_all.run(database, task, reports.append) == {"users": 2}
    assert reports[:2] == [{"users": 1}, {"users": 2}]
    assert texts(alice) == texts(admin) == ["The server is down on Sunday"]


def test_guests_and_deactivated_users_get_no_notice(
    app: Application, login: Login, admin: Person, alice: Person
) -> None:
    gone = login("gone")
    admin.post(f"/_synapse/admin/v1/deactivate/{gone.user_id}")
    app.test_client().post("/_matrix/client/v3/register?kind=guest", json={})

    with app.homeserver.database.read() as tx:
        found = notices_to_all.recipients(tx)

    assert found == [alice.user_id, admin.user_id]


@pytest.mark.parametrize(
    ("path", "form", "status", "problem"),
    [
        (NOTICES, {"user": "nobody", "text": "A"}, 404, "There is no user @nobody:localhost."),
        (NOTICES, {"user": "", "text": "A"}, 400, "Enter the name of a user"),
        (NOTICES, {"user": "@a:elsewhere.test", "text": "A"}, 400, "users of this server"),
        (f"{NOTICES}/all", {"text": " "}, 400, "Enter what the users are to read"),
    ],
)
def test_what_was_entered_is_kept_on_errors(
    app: Application,
    browser: FlaskClient,
    path: str,
    form: dict[str, str],
    status: int,
    problem: str,
) -> None:
    with unchanged(app):
        answer = send(browser, path, **form)

    html = answer.get_data(as_text=True)
    assert answer.status_code == status
    assert problem in visible(answer)
    assert "user" not in form or f'name="user" value="{form["user"]}"' in html
    assert f">\n{form['text']}</textarea>" in html
