"""The pages about rooms."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from homebody.core import tasks
from homebody.core.rooms import blocked, deletion, history_purge
from homebody.web import Application
from tests.conftest import Person
from tests.helpers.pages import send
from tests.helpers.rooms import unchanged
from tests.web.admin_pages.audit_log import last_action
from tests.web.test_pages import visible

ROOMS = "/_homebody/admin/rooms"


def page_of(room_id: str) -> str:
    return f"{ROOMS}/{quote(room_id, safe='')}"


@pytest.fixture
def kitchen(alice: Person) -> str:
    """A room with a name."""
    return alice.create_room(name="The kitchen", topic="What is for dinner")


def test_the_list_has_all_rooms_and_is_searched(browser: FlaskClient, kitchen: str) -> None:
    all_rooms = visible(browser.get(ROOMS))
    found = visible(browser.get(ROOMS, query_string={"q": "kitch", "order": "joined_members"}))
    nothing = visible(browser.get(ROOMS, query_string={"q": "cellar"}))

    assert "The kitchen" in all_rooms
    assert "1 to 1 of 1" in found
    assert "No rooms" in nothing


def test_a_room_has_its_page(browser: FlaskClient, alice: Person, kitchen: str) -> None:
    text = visible(browser.get(page_of(kitchen)))

    assert kitchen in text
    assert "What is for dinner" in text
    assert alice.user_id in text


def test_a_room_is_blocked_and_unblocked(
    app: Application, browser: FlaskClient, kitchen: str
) -> None:
    asked = browser.get(f"{page_of(kitchen)}/block")
    send(browser, f"{page_of(kitchen)}/block")
    with app.homeserver.database.read() as tx:
        by = blocked.blocked_by(tx, kitchen)
    entry = last_action(app)
    send(browser, f"{page_of(kitchen)}/unblock", page=page_of(kitchen))

    assert "Nobody of this server can join" in visible(asked)
    assert by == "@owner:localhost"
    assert entry == ("@owner:localhost", "room.block", kitchen)
    assert last_action(app) == ("@owner:localhost", "room.unblock", kitchen)


def test_a_room_that_is_not_known_can_be_unblocked(app: Application, browser: FlaskClient) -> None:
    elsewhere = "!spam:elsewhere.test"
    with app.homeserver.database.write() as tx:
        blocked.block(tx, "@owner:localhost", elsewhere)

    shown = browser.get(page_of(elsewhere))
    send(browser, f"{page_of(elsewhere)}/unblock", page=page_of(elsewhere))

    assert "this server has no events of the room" in visible(shown)
    assert last_action(app) == ("@owner:localhost", "room.unblock", elsewhere)


def test_deleting_a_room_orders_a_task(
    app: Application, browser: FlaskClient, kitchen: str
) -> None:
    path = f"{page_of(kitchen)}/delete"

    with unchanged(app):
        asked = visible(browser.get(path))
    answer = send(browser, path, purge="on", block="on")

    assert "Other servers keep what they have" in asked
    assert answer.status_code == 303
    with app.homeserver.database.read() as tx:
        (task,) = tasks.select_tasks(tx, actions=[deletion.ACTION], resource_id=kitchen)
    assert (task.params["is_purging"], task.params["is_blocking"]) == (True, True)
    assert last_action(app) == ("@owner:localhost", "room.delete", kitchen)
    assert "scheduled" in visible(browser.get(page_of(kitchen)))


def test_a_room_is_not_deleted_twice_at_once(browser: FlaskClient, kitchen: str) -> None:
    send(browser, f"{page_of(kitchen)}/delete", purge="on")

    answer = send(browser, f"{page_of(kitchen)}/delete", purge="on")

    assert answer.status_code == 400
    assert "being deleted already" in visible(answer)


def test_power_is_given_to_the_administrator_by_default(
    app: Application, browser: FlaskClient, kitchen: str, admin: Person
) -> None:
    answer = send(browser, f"{page_of(kitchen)}/make-admin", user_id="")

    assert answer.status_code == 303
    assert last_action(app)[1:] == ("room.make_admin", kitchen)
    assert kitchen in admin.sync()["rooms"]["invite"]


def test_power_is_not_given_to_users_elsewhere(
    app: Application, browser: FlaskClient, kitchen: str
) -> None:
    with unchanged(app):
        path = f"{page_of(kitchen)}/make-admin"
        answer = send(browser, path, user_id="@bob:elsewhere.test")

    assert answer.status_code == 400


@pytest.mark.parametrize("room_id", ["!nothing:localhost", "nothing", "#alias:localhost"])
def test_an_unknown_room_has_no_page_and_is_not_deleted(
    app: Application, browser: FlaskClient, room_id: str
) -> None:
    with unchanged(app):
        answers = [
            browser.get(page_of(room_id)),
            send(browser, f"{page_of(room_id)}/delete", page=ROOMS),
            send(browser, f"{page_of(room_id)}/explode", page=ROOMS),
        ]

    assert all(it.status_code in {400, 404} for it in answers)


def test_a_room_with_thousands_of_members_shows_some(
    browser: FlaskClient,
    kitchen: str,
    monkeypatch: pytest.MonkeyPatch,
    admin: Person,
    alice: Person,
) -> None:
    monkeypatch.setattr("homebody.web.admin_pages.rooms.MAX_MEMBERS", 1)
    alice.post(f"rooms/{kitchen}/invite", json={"user_id": admin.user_id})
    admin.post(f"rooms/{kitchen}/join")

    assert "and 1 others" in visible(browser.get(page_of(kitchen)))


def test_the_purge_of_a_rooms_history_is_ordered_and_shown(
    app: Application, browser: FlaskClient, alice: Person, kitchen: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        long_ago = time.time_ns() - 40 * 86_400 * 10**9
        patch.setattr("time.time_ns", lambda: long_ago)
        old = alice.create_room()
    alice.send(old, "new")
    path = f"{page_of(old)}/purge-history"

    with unchanged(app):
        asked = visible(browser.get(path))
        early = send(browser, f"{page_of(kitchen)}/purge-history", days="30")
        wrong = send(browser, path, days="some", local="on")
    answer = send(browser, path, days="30", local="on")

    assert "Other servers keep what they have" in asked
    assert early.status_code == 404
    assert "The room has no events before that time" in visible(early)
    assert wrong.status_code == 400
    assert 'value="some"' in wrong.get_data(as_text=True)
    assert 'name="local" checked' in wrong.get_data(as_text=True)
    assert answer.status_code == 303
    with app.homeserver.database.read() as tx:
        (task,) = tasks.select_tasks(tx, actions=[history_purge.ACTION], resource_id=old)
    assert task.params["delete_local_events"] is True
    assert last_action(app) == ("@owner:localhost", "room.purge_history", old)
    assert "purge history" in visible(browser.get(page_of(old)))


def test_a_user_joins_a_room_in_which_the_administrator_is(
    app: Application, browser: FlaskClient, alice: Person, admin: Person, kitchen: str
) -> None:
    own = admin.create_room()

    joined = send(browser, f"{page_of(own)}/join", user_id=alice.user_id)
    refused = send(browser, f"{page_of(kitchen)}/join", user_id=admin.user_id)
    unknown = send(browser, f"{page_of(own)}/join", user_id="@nobody:localhost")

    assert joined.status_code == 303
    assert own in alice.sync()["rooms"]["join"]
    assert last_action(app) == ("@owner:localhost", "room.join", own)
    assert (refused.status_code, unknown.status_code) == (403, 404)
    assert 'value="@nobody:localhost"' in unknown.get_data(as_text=True)


def test_all_files_of_a_room_are_quarantined(
    browser: FlaskClient, alice: Person, kitchen: str
) -> None:
    uploaded = alice.request("POST", "/_matrix/media/v3/upload", data=b"tea").get_json()
    uri = uploaded["content_uri"]
    alice.send(kitchen, "tea", msgtype="m.file", url=uri)

    send(browser, f"{page_of(kitchen)}/quarantine-files")

    path = f"/_matrix/client/v1/media/download/{uri.removeprefix('mxc://')}"
    assert alice.get(path).status_code == 404


def test_a_room_is_deleted_with_a_new_one_for_its_users(
    app: Application, browser: FlaskClient, alice: Person, kitchen: str
) -> None:
    path = f"{page_of(kitchen)}/delete"
    form = {"purge": "on", "new_room_name": "Other", "message": "Moved"}

    unknown = send(browser, path, new_room_by="@nobody:localhost", **form)
    send(browser, path, new_room_by="@owner:localhost", **form)

    assert unknown.status_code == 404
    assert 'value="Other"' in unknown.get_data(as_text=True)
    assert 'name="block" checked' not in unknown.get_data(as_text=True)
    with app.homeserver.database.read() as tx:
        (task,) = tasks.select_tasks(tx, actions=[deletion.ACTION], resource_id=kitchen)
    assert task.params["new_room_user_id"] == "@owner:localhost"
    assert (task.params["new_room_name"], task.params["message"]) == ("Other", "Moved")
