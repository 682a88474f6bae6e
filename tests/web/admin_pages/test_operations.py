"""The pages about other servers, tasks and the audit log."""

from __future__ import annotations

import time

import pytest
from flask.testing import FlaskClient

from homebody.core import audit, outgoing, tasks
from homebody.core.outgoing import Progress
from homebody.web import Application
from tests.helpers.pages import send
from tests.helpers.rooms import unchanged
from tests.web.admin_pages.audit_log import last_action
from tests.web.test_pages import visible

FEDERATION = "/_homebody/admin/federation"
TASKS = "/_homebody/admin/tasks"
AUDIT = "/_homebody/admin/audit"


@pytest.fixture
def destinations(app: Application) -> None:
    """A server that can be reached, and one that can't."""
    now = time.time_ns() // 1_000_000
    failing = Progress("down.test", 1, now - 60_000, 3, now + 600_000, "timeout")
    with app.homeserver.database.write() as tx:
        outgoing.save(tx, 1, [Progress("up.test", 1, last_sent_ts=now), failing])


@pytest.mark.usefixtures("destinations")
def test_servers_are_listed_those_that_fail_first(browser: FlaskClient) -> None:
    text = visible(browser.get(FEDERATION))
    found = visible(browser.get(FEDERATION, query_string={"q": "UP."}))

    assert text.index("down.test fails since") < text.index("up.test reachable")
    assert "down.test" not in found


def test_a_server_that_has_to_make_a_request_first_has_no_next_attempt(
    app: Application, browser: FlaskClient
) -> None:
    silent = Progress("gone.test", 1, 1_700_000_000_000, 40, outgoing.NEVER, "timeout")
    with app.homeserver.database.write() as tx:
        outgoing.save(tx, 1, [silent])

    for path in (FEDERATION, f"{FEDERATION}/gone.test"):
        text = visible(browser.get(path))
        assert "when it makes a request" in text
        assert text.count("2023-11-14") == 1, "since when it fails"


@pytest.mark.usefixtures("destinations")
def test_a_server_that_fails_is_tried_again(app: Application, browser: FlaskClient) -> None:
    answer = send(browser, f"{FEDERATION}/down.test/retry", page=FEDERATION)

    assert "The server is tried again." in visible(browser.get(answer.headers["Location"]))
    assert last_action(app) == ("@owner:localhost", "federation.retry", "down.test")


@pytest.mark.usefixtures("destinations")
@pytest.mark.parametrize(("server", "status"), [("up.test", 400), ("nowhere.test", 404)])
def test_only_servers_that_fail_are_tried_again(
    app: Application, browser: FlaskClient, server: str, status: int
) -> None:
    with unchanged(app):
        answer = send(browser, f"{FEDERATION}/{server}/retry", page=FEDERATION)

    assert answer.status_code == status


def test_tasks_are_listed_the_newest_first(app: Application, browser: FlaskClient) -> None:
    with app.homeserver.database.write() as tx:
        tasks.add(tx, "purge_history", {}, "!a:localhost")
    time.sleep(0.002)
    with app.homeserver.database.write() as tx:
        failed = tasks.add(tx, "shutdown_and_purge_room", {}, "!b:localhost")
        tasks.record(tx, failed, tasks.FAILED, error="users could not leave")

    text = visible(browser.get(TASKS))

    assert text.index("failed: users could not leave") < text.index("purge history !a:localhost")


def test_the_audit_log_is_read_by_pages_and_searched(
    app: Application, browser: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homebody.web.admin_pages.layout.PER_PAGE", 2)
    with app.homeserver.database.write() as tx:
        for number in range(5):
            audit.note(tx, "@owner:localhost", f"test.{number}", f"!{number % 2}:x", flag=True)
        last = audit.latest(tx, 1)[0]["id"]

    first = browser.get(AUDIT)
    second = browser.get(AUDIT, query_string={"before": last - 1})
    found = visible(browser.get(AUDIT, query_string={"q": "!1:x"}))

    assert f'href="{AUDIT}?before={last - 1}"' in first.get_data(as_text=True)
    assert "test.4 !0:x flag: True" in visible(first)
    assert "test.2" not in visible(first)
    assert "test.2" in visible(second)
    assert "test.3" in found
    assert "test.4" not in found
    assert browser.get(AUDIT, query_string={"before": "x"}).status_code == 400
    assert "test.4" in visible(browser.get(AUDIT, query_string={"by": "@owner:localhost"}))
    assert "test." not in visible(browser.get(AUDIT, query_string={"by": "@other:localhost"}))


@pytest.mark.usefixtures("destinations")
def test_a_server_has_a_page_with_its_last_error(browser: FlaskClient) -> None:
    failing = visible(browser.get(f"{FEDERATION}/down.test"))
    good = visible(browser.get(f"{FEDERATION}/up.test"))

    assert "3 attempts Last error timeout" in failing
    assert "Try again" in failing
    assert "State reachable" in good
    assert "Try again" not in good
    assert "timeout" in visible(browser.get(FEDERATION))
    assert browser.get(f"{FEDERATION}/nowhere.test").status_code == 404


def test_a_task_is_cancelled_after_a_question(app: Application, browser: FlaskClient) -> None:
    with app.homeserver.database.write() as tx:
        task_id = tasks.add(tx, "purge_history", {}, "!a:localhost")
    path = f"{TASKS}/{task_id}/cancel"

    with unchanged(app):
        asked = visible(browser.get(path))
    answer = send(browser, path)
    again = send(browser, path)

    assert "Cancel: purge history !a:localhost?" in asked
    assert "The task is cancelled." in visible(browser.get(answer.headers["Location"]))
    assert last_action(app) == ("@owner:localhost", "task.cancel", "!a:localhost")
    assert again.status_code == 400
    assert browser.get(f"{TASKS}/nothing/cancel").status_code == 404


def test_what_a_task_has_done_is_shown(app: Application, browser: FlaskClient) -> None:
    with app.homeserver.database.write() as tx:
        task_id = tasks.add(tx, "shutdown_and_purge_room", {}, "!b:localhost")
        result = {"kicked_users": ["@a:x", "@b:x"], "events": 12, "freed_bytes": 2000, "new": None}
        tasks.record(tx, task_id, tasks.ACTIVE, result=result)

    text = visible(browser.get(TASKS))

    assert "2 kicked users, 12 events, 2.0 KB freed" in text


def test_upkeep_is_paused_after_a_question_and_resumed(
    app: Application, browser: FlaskClient
) -> None:
    upkeep = app.homeserver.upkeep
    path = "/_homebody/admin/upkeep"

    with unchanged(app):
        asked = visible(browser.get(f"{path}/pause"))
    send(browser, f"{path}/pause")
    paused, text, entry = upkeep.is_paused, visible(browser.get(TASKS)), last_action(app)
    send(browser, f"{path}/resume", page=TASKS)

    assert "The disk may fill up meanwhile" in asked
    assert paused
    assert "Upkeep is paused" in text
    assert not upkeep.is_paused
    assert entry == ("@owner:localhost", "upkeep.pause", None)
    assert last_action(app) == ("@owner:localhost", "upkeep.resume", None)
    assert browser.get(f"{path}/nothing").status_code == 404


def test_giving_space_back_is_ordered(app: Application, browser: FlaskClient) -> None:
    answer = send(browser, "/_homebody/admin/upkeep/vacuum", page=TASKS)

    assert "The task is ordered." in visible(browser.get(answer.headers["Location"]))
    assert last_action(app) == ("@owner:localhost", "server.vacuum", None)
    with app.homeserver.database.read() as tx:
        assert [it.action for it in tasks.select_tasks(tx)] == ["vacuum"]
