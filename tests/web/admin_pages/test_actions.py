"""What administrators do by buttons: each act is in the audit log, and what is final asks first."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from homebody.core import audit
from homebody.core.rooms import purge
from homebody.web import Application
from homebody.web.admin_pages import PREFIX, media, operations, room_actions, user_actions
from homebody.web.admin_pages.layout import Action
from tests.conftest import MakeApp, Person
from tests.helpers.encryption import Identity
from tests.helpers.pages import send
from tests.helpers.rooms import Json

FORMS: dict[str, Json] = {
    "edit": {"user_type": "bot"},
    "limit": {"per_second": "1"},
    "expire": {"days": "1"},
    "quota": {"size": "1 GiB"},
    "notice": {"text": "x"},
    "join": {"user_id": "@alice:localhost"},
    "purge-history": {"days": "1"},
}
BEFORE = {
    "unlock": "lock",
    "unsuspend": "suspend",
    "end-shadow-ban": "shadow-ban",
    "end-admin": "make-admin",
    "reactivate": "deactivate",
    "unblock": "block",
    "lift": "quarantine",
    "unprotect": "protect",
}
"""What has to be done before: the opposite."""
GROUPS: dict[str, dict[str, Action]] = {
    "users": user_actions.ACTIONS,
    "rooms": room_actions.ACTIONS,
    "media": media.ACTIONS,
    "upkeep": operations.UPKEEP,
}
ALL = [(group, name) for group, actions in GROUPS.items() for name in actions]
WITHOUT_EFFECT = ("rooms", "trim-extremities")
"""The graph of the room has one end."""


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    """A server that can send notices."""
    return make_app(server_notices_user="notices")


@pytest.fixture
def paths(
    admin: Person, alice: Person, browser: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The paths below which the actions of each group are, about something that is there."""
    monkeypatch.setattr(purge, "wait_for_clients", lambda: None)
    monkeypatch.setattr(room_actions, "DAY_MS", -1_000_000)  # so that all messages are old
    alice.post("keys/device_signing/upload", json=Identity(alice.user_id).upload())
    uploaded = alice.request("POST", "/_matrix/media/v3/upload", data=b"x").get_json()
    room_id = admin.create_room()
    admin.send(room_id, "tea", msgtype="m.file", url=uploaded["content_uri"])
    media_id = uploaded["content_uri"].rpartition("/")[2]
    return {
        "users": f"{PREFIX}/users/{quote(alice.user_id, safe='')}",
        "rooms": f"{PREFIX}/rooms/{quote(room_id, safe='')}",
        "media": f"{PREFIX}/media/files/{media_id}",
        "upkeep": f"{PREFIX}/upkeep",
    }


@pytest.mark.parametrize(("group", "name"), [it for it in ALL if it != WITHOUT_EFFECT])
def test_an_act_is_in_the_audit_log(
    app: Application, browser: FlaskClient, paths: dict[str, str], group: str, name: str
) -> None:
    def last() -> Json:
        with app.homeserver.database.read() as tx:
            return next(iter(audit.latest(tx, 1)), {"id": 0})

    if name in BEFORE:
        send(browser, f"{paths[group]}/{BEFORE[name]}")
    before = last()["id"]

    answer = send(browser, f"{paths[group]}/{name}", **FORMS.get(name, {}))

    assert answer.status_code in {200, 303}, answer.get_data(as_text=True)
    after = last()
    assert after["id"] > before
    assert after["actor"] == "@owner:localhost"


def test_what_is_final_asks_first() -> None:
    actions = [GROUPS[group][name] for group, name in ALL]

    assert [it.label for it in actions if it.is_final and not it.is_asking] == []
    assert sum(it.is_final for it in actions) >= 5
