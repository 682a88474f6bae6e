"""/sync over any course of events: the data of devices adds up to the truth.

/sync must lose nothing. Users do whatever they can think of; their devices sync at any moment, also
during a COMMIT, lose responses, use all kinds of filters, and delete their data; the server drops
its caches and is restarted. At any moment, and in the end, the data of each device must agree with
that of a new device, with /messages, and with what follows from the list of events
(course_truth.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from flask.testing import FlaskClient
from hypothesis import example, given
from hypothesis import strategies as st

from homebody.application import create_app
from homebody.config import settings as config
from homebody.core.encryption import to_device
from homebody.core.events import paging
from homebody.core.sync import spans
from homebody.storage.caches import RecentEvents
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Person
from tests.fuzz import examples
from tests.fuzz.course_client import Device, Habits
from tests.fuzz.course_people import NAMES, Step, World

STEPS = 60
HABITS = [
    Habits(),
    Habits(is_lazy=True),
    Habits(has_state_after=True, include_leave=True),
    Habits(is_lazy=True, has_state_after=True, by_thread=True),
    Habits(wants_only="m.room.message", by_thread=True),
    Habits(not_room=2, include_leave=True),
    Habits(is_lazy=True, wants_only="m.room.message"),
]
USUAL = [
    "",
    *["say"] * 8,
    *["look"] * 14,
    *["peek"] * 6,
    *["join"] * 5,
    "lose",
    "lose",
    "leave",
    "leave",
]
OTHERS = [
    *("repeat", "answer", "redact", "topic", "entry", "name", "visibility", "join_rules"),
    *("invite", "invite", "kick", "ban", "unban", "forget", "knock", "displayname", "nick"),
    *("read", "read", "read_thread", "account_data", "room_data", "tag", "mute", "to_device"),
    *("to_device", "upload_keys", "upload_keys", "look_for_all", "start_anew", "forget_caches"),
    *("redact_state", "redact_member", "dave_says", "dave_says"),
]
RARE = ["upgrade", "restart_server", "erase_dave", "check"]
KINDS = [*USUAL, *OTHERS, *OTHERS, *RARE]

steps = st.builds(
    Step, st.sampled_from(KINDS), st.integers(0, 2), st.integers(0, 2), st.integers(0, 11)
)
courses = st.lists(steps, min_size=STEPS, max_size=STEPS)
habits = st.lists(st.sampled_from(HABITS), min_size=5, max_size=5)


class Session(NamedTuple):
    """The credentials of a user's session."""

    user_id: str
    access_token: str
    device_id: str


def start(folder: Path) -> Application:
    settings = {"data_dir": str(folder), "password_hashing": "cheap", "rate_limits": "false"}
    return create_app(config.load(None, {}, settings))


def stop(app: Application) -> None:
    app.homeserver.ephemeral.close()
    app.homeserver.database.close()


def log_in(client: FlaskClient, name: str) -> Session:
    body: dict[str, Any] = {
        "username": name,
        "password": PASSWORD,
        "auth": {"type": "m.login.dummy"},
    }
    answer = client.post(V3 + "register", json=body)
    if answer.status_code == 400:
        who = {"type": "m.id.user", "user": name}
        body = {"type": "m.login.password", "identifier": who, "password": PASSWORD}
        answer = client.post(V3 + "login", json=body)
    session = answer.get_json()
    return Session(session["user_id"], session["access_token"], session["device_id"])


class Beginning(NamedTuple):
    """The server at the beginning: Alice, Bob and Carol, each with two devices and a viewer.

    And Dave, who may be erased.
    """

    folder: Path
    sessions: list[list[Session]]
    dave: Session
    rooms: list[str]


@pytest.fixture(scope="module")
def beginning(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Beginning:
    folder = tmp_path_factory.mktemp("beginning")
    shutil.copy(empty_database, folder / "homebody.db")
    app = start(folder)
    client = app.test_client()
    sessions = [[log_in(client, name) for _ in range(3)] for name in NAMES]
    alice, bob, carol = (Person(client, *own[0]) for own in sessions)
    dave = log_in(client, "dave")
    levels = {"state_default": 0, "events": {}}
    rooms = [
        alice.create_room(preset="public_chat", name="Open"),
        bob.create_room(preset="public_chat", power_level_content_override=levels),
        alice.create_room(preset="private_chat", invite=[bob.user_id]),
    ]
    for person, number in ((bob, 0), (carol, 0), (alice, 1), (Person(client, *dave), 0)):
        person.post(f"rooms/{rooms[number]}/join")
    stop(app)
    return Beginning(folder, sessions, dave, rooms)


@contextmanager
def world(beginning: Beginning, chosen: list[Habits]) -> Iterator[World]:
    """Run a copy of that server with its users."""
    running: list[Application] = []
    with TemporaryDirectory() as name:
        folder = Path(name) / "data"
        shutil.copytree(beginning.folder, folder)

        def restart() -> Application:
            while running:
                stop(running.pop())
            running.append(start(folder))
            return running[-1]

        try:
            yield people(beginning, chosen, World(restart(), restart))
        finally:
            stop(running[-1])


def people(beginning: Beginning, chosen: list[Habits], found: World) -> World:
    client = found.app.test_client()
    found.rooms += beginning.rooms
    found.dave = Person(client, *beginning.dave)
    found.keys[found.dave.user_id] = 0
    wanted = iter(chosen)
    for number, own in enumerate(beginning.sessions):
        first, _, viewer = (Person(client, *session) for session in own)
        found.people.append(first)
        found.viewers[first.user_id] = viewer
        found.keys[first.user_id] = 0
        for session in own[:2] if number < 2 else own[:1]:
            # a client of its own, as it may look while the person's is waiting for an answer
            device = Device(Person(found.app.test_client(), *session), next(wanted))
            if device.habits.not_room is not None:
                device.not_room = found.rooms[device.habits.not_room]
            found.devices.append(device)
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the server small responses, short searches and small caches."""
    monkeypatch.setattr(to_device, "AT_ONCE", 2)
    monkeypatch.setattr(spans, "_SCANNED_AT_ONCE", 2)
    monkeypatch.setattr(spans, "_MAX_SCANNED", 4)
    monkeypatch.setattr(spans, "_MAX_SCANNED_IN_ALL", 8)
    monkeypatch.setattr(paging, "SCANNED_ROWS", 6)
    monkeypatch.setattr(paging, "_BATCH", 3)
    monkeypatch.setattr(RecentEvents, "MAX_EVENTS", 8)


PLAIN = [Habits()] * 5
LAZY = [Habits(is_lazy=True, has_state_after=True, by_thread=True)] * 5
LEAVING = [Habits(has_state_after=True, include_leave=True)] * 5
MESSAGES = [Habits(wants_only="m.room.message", by_thread=True)] * 5


@pytest.mark.usefixtures("small")
@examples(10)
@given(courses, habits)
@example([Step("to_device", 2, 0, 7), Step("to_device", 2, 0, 11), Step("to_device", 2)], PLAIN)
@example([Step("look", 0, 2, 5), Step("ban", 1, 2), Step("look", 0, 2, 8)], PLAIN)
@example(
    [Step("visibility", 1, 2, 1), Step("topic", 0, 2), Step("invite", 2, 2), Step("join", 2, 2)],
    PLAIN,
)
@example([Step("answer", 0, 0, 6), Step("nick", 1)], MESSAGES)
@example([Step("look", 0, 0, 9), Step("ban", 1), Step("look_for_all", 1, 2, 1)], LAZY)
@example([Step("check"), Step("ban", 1), Step("unban", 1), Step("invite", 1)], PLAIN)
@example([Step("leave", 1), Step("check"), Step("ban", 1), Step("check"), Step("unban", 1)], PLAIN)
@example([Step("leave", 1), Step("start_anew"), Step("look"), Step("ban", 1)], MESSAGES)
@example([Step("invite", 2, 2), Step("check"), Step("ban", 2, 2), Step("unban", 2, 2)], LEAVING)
@example([], LAZY)
@example(
    [
        *(Step("look", 0, 2), Step("say", 0, 0), Step("say", 0, 1)),
        *(Step("peek", 0, 2, 4), Step("kick", 1, 0)),
    ],
    [Habits(include_leave=True)] * 5,
)
def test_every_device_knows_in_the_end_what_is_true(
    beginning: Beginning, course: list[Step], chosen: list[Habits]
) -> None:
    follow(beginning, course, chosen)


def follow(beginning: Beginning, course: list[Step], chosen: list[Habits]) -> None:
    """Run the steps."""
    with world(beginning, chosen) as here:
        for step in course:
            here.act(step)
        here.check()
