"""Requests that go on after their session has ended: they change nothing."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from sqlalchemy import update
from werkzeug.test import TestResponse

from homebody.core.accounts import access_tokens, accounts
from homebody.models.devices import AccessToken
from homebody.storage.database import Tx
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers import bridge
from tests.helpers.rooms import everything, refusal, unchanged
from tests.tools import spec_index

OF_OTHERS: Final = re.compile(
    "appservice|^/_homebody/|^/_matrix/(static|key|federation)/|^/_synapse/|/fallback/web$"
    r"|requestToken$|/homebody\.doctor/|/rendezvous|/(register|login|refresh)$"
)
"""Paths for clients that have no access token, or one of another kind."""
WITHOUT_BODY: Final = {
    ("POST", "/_matrix/client/v3/rooms/<room_id>/forget"),
    ("POST", "/_matrix/client/v3/logout"),
    ("POST", "/_matrix/client/v3/logout/all"),
    ("POST", "/_matrix/media/v1/create"),
    ("PUT", "/_matrix/client/v3/directory/list/appservice/<network_id>/<room_id>"),
    ("POST", "/_matrix/client/v1/delayed_events/<delay_id>/<action>"),
    ("POST", "/_matrix/client/v3/org.matrix.msc4140/delayed_events/<delay_id>/<action>"),
}
SWITCHED_OFF: Final = {"M_THREEPID_DENIED"}
"""The error of endpoints that need settings which a new server does not have."""
Ends = Callable[[Tx, Person], None]


class LateBody(io.BytesIO):
    """A body before whose first byte something else happens."""

    def __init__(self, content: bytes, before: Callable[[], object]) -> None:
        super().__init__(content)
        self._before: Callable[[], object] | None = before

    def readinto(self, buffer: Any) -> int:
        before, self._before = self._before, None
        if before is not None:
            before()
        return super().readinto(buffer)


def late(
    person: Person, method: str, path: str, content: bytes, before: Callable[[], object]
) -> TestResponse:
    """Send a request whose body comes after something else has happened."""
    return person.request(
        method, path, input_stream=LateBody(content, before), content_length=len(content)
    )


def with_a_body() -> list[tuple[str, str]]:
    """(method, route) of everything for which users send a body."""
    return sorted(
        (method, rule.rule)
        for rule in spec_index.server().url_map.iter_rules()
        for method in {"PUT", "POST"} & (rule.methods or set())
        if (method, rule.rule) not in WITHOUT_BODY and not OF_OTHERS.search(rule.rule)
    )


def logged_out(tx: Tx, person: Person) -> None:
    access_tokens.revoke(tx, person.user_id, [person.device_id])


def locked(tx: Tx, person: Person) -> None:
    accounts.set_locked(tx, person.user_id, is_locked=True)
    access_tokens.drop_cached(tx, person.user_id)


def deactivated(tx: Tx, person: Person) -> None:
    logged_out(tx, person)
    accounts.mark_deactivated(tx, person.user_id, erase=False)


def suspended(tx: Tx, person: Person) -> None:
    accounts.set_suspended(tx, person.user_id, is_suspended=True)
    access_tokens.drop_cached(tx, person.user_id)


def expired(tx: Tx, person: Person) -> None:
    tx.sql.execute(update(AccessToken).values(expires_ts=1))
    access_tokens.drop_cached(tx, person.user_id)


@pytest.fixture
def parts(login: Login) -> dict[str, str]:
    """What stands in paths: a room of Alice with an event of hers, and so on."""
    alice = login("alice")
    room_id = alice.create_room()
    return {
        "room_id": room_id,
        "room_id_or_alias": room_id,
        "user_id": alice.user_id,
        "sender": alice.user_id,
        "event_id": alice.send(room_id),
        "event_type": "org.example.type",
        "state_key": "",
        "receipt_type": "m.read",
        "kind": "room",
        "rule_id": room_id,
        "room_alias": "#cats:localhost",
        "key_name": "displayname",
        "server_name": "localhost",
    }


def test_no_body_that_comes_after_the_logout_does_anything(
    app: Application, login: Login, parts: dict[str, str]
) -> None:
    asked = with_a_body()
    answers = {}

    for method, rule in asked:
        phone = login("alice")
        uri = phone.post("/_matrix/media/v1/create").get_json()["content_uri"]
        filled = {**parts, "media_id": uri.rpartition("/")[2]}
        path = re.sub("<([^>]*)>", lambda it, to=filled: quote(to.get(it[1], "x"), safe=""), rule)  # type: ignore[misc]
        after: list[Any] = []

        def log_out(phone: Person = phone, after: list[Any] = after) -> None:
            assert phone.post("logout").status_code == 200
            after.append(everything(app))

        answers[method, rule] = refusal(late(phone, method, path, b"{}", log_out))

        assert not after or everything(app) == after[0], (method, rule)

    on = {it: how for it, how in answers.items() if how[1] not in SWITCHED_OFF}
    assert len(on) > 50
    assert {it: how for it, how in on.items() if how != (401, "M_UNKNOWN_TOKEN")} == {}


MESSAGE: Final = "rooms/{room_id}/send/m.room.message/late"


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (logged_out, (401, "M_UNKNOWN_TOKEN")),
        (locked, (401, "M_USER_LOCKED")),
        (deactivated, (401, "M_UNKNOWN_TOKEN")),
        (suspended, (403, "M_USER_SUSPENDED")),
        (expired, (401, "M_UNKNOWN_TOKEN")),
    ],
)
@pytest.mark.parametrize("path", [MESSAGE, "rooms/{room_id}/state/m.room.topic"])
def test_whatever_ends_a_session_ends_its_requests_too(
    app: Application,
    parts: dict[str, str],
    login: Login,
    end: Ends,
    expected: tuple[int, str],
    path: str,
) -> None:
    alice = login("alice")
    after: list[Any] = []

    def happen() -> None:
        with app.homeserver.database.write() as tx:
            end(tx, alice)
        after.append(everything(app))

    answer = late(alice, "PUT", path.format(**parts), b'{"body":"late"}', happen)

    assert refusal(answer) == expected
    assert everything(app) == after[0]


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("PUT", MESSAGE, {"body": "late"}),
        ("PUT", "rooms/{room_id}/state/m.room.topic", {"topic": "late"}),
        ("POST", "createRoom", {}),
        ("POST", "rooms/{room_id}/leave", {}),
        ("POST", "rooms/{room_id}/read_markers", {"m.fully_read": "{event_id}"}),
        ("PUT", "user/{user_id}/account_data/org.example", {"a": 1}),
        ("DELETE", "user/{user_id}/rooms/{room_id}/tags/u.work", {}),
        ("PUT", "profile/{user_id}/displayname", {"displayname": "late"}),
        ("POST", "pushers/set", {"kind": None, "app_id": "a", "pushkey": "b"}),
        ("PUT", "pushrules/global/room/{room_id}", {"actions": []}),
        ("POST", "rooms/{room_id}/report", {"reason": "late"}),
        ("PUT", "sendToDevice/m.test/late", {"messages": {}}),
        ("POST", "rooms/{room_id}/upgrade", {"new_version": "11"}),
        ("POST", "user/{user_id}/openid/request_token", {}),
        ("POST", "/_matrix/media/v3/upload", {}),
        ("POST", "/_matrix/media/v1/create", {}),
    ],
)
def test_a_request_that_waits_for_its_turn_to_write_is_asked_again(
    app: Application, login: Login, parts: dict[str, str], method: str, path: str, content: Any
) -> None:
    alice = login("alice")
    body = {key: parts.get(str(value).strip("{}"), value) for key, value in content.items()}
    answers: list[TestResponse] = []

    def ask() -> None:
        answers.append(alice.request(method, path.format(**parts), json=body))

    waiting = threading.Thread(target=ask)
    with app.homeserver.database.write() as tx:
        waiting.start()
        time.sleep(0.2)  # one that is slower finds no session in the first place
        logged_out(tx, alice)
    with unchanged(app):
        waiting.join()

    assert refusal(answers[0]) == (401, "M_UNKNOWN_TOKEN")


def test_a_file_that_comes_after_the_logout_is_not_kept(login: Login, tmp_path: Path) -> None:
    alice = login("alice")

    def files() -> set[Path]:
        return {path for path in (tmp_path / "media").rglob("*") if path.is_file()}

    before = files()
    path = "/_matrix/media/v3/upload"
    answer = late(alice, "POST", path, b"a file", lambda: alice.post("logout"))

    assert refusal(answer) == (401, "M_UNKNOWN_TOKEN")
    assert files() == before


def test_a_locked_user_can_still_log_out_by_a_write(login: Login, app: Application) -> None:
    alice = login("alice")
    with app.homeserver.database.write() as tx:
        locked(tx, alice)

    assert alice.post("logout").status_code == 200
    assert refusal(alice.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")


def test_typing_and_presence_that_come_late_are_not_shown(login: Login, room: Any) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    since = alice.sync()["next_batch"]
    phone = login("bob")
    typing = f"rooms/{room_id}/typing/{bob.user_id}"

    answer = late(phone, "PUT", typing, b'{"typing":true}', lambda: phone.post("logout"))

    assert refusal(answer) == (401, "M_UNKNOWN_TOKEN")
    assert alice.sync(since)["rooms"]["join"] == {}


def test_what_a_bridge_says_late_for_a_locked_user_is_not_said(
    make_app: MakeApp, tmp_path: Path
) -> None:
    path = bridge.write(tmp_path, bridge.registration(None))
    app = make_app(appservices=f'["{path}"]')
    bot = Person(app.test_client(), "@_irc_bot:localhost", bridge.AS_TOKEN, "")
    room_id = bot.create_room()
    after: list[Any] = []

    def lock() -> None:
        with app.homeserver.database.write() as tx:
            locked(tx, bot)
        after.append(everything(app))

    answer = late(bot, "PUT", MESSAGE.format(room_id=room_id), b'{"body":"late"}', lock)

    assert refusal(answer) == (401, "M_USER_LOCKED")
    assert everything(app) == after[0]
