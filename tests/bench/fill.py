"""Fill a database with rooms, messages, and one big room whose members come and go.

Everything goes through the functions that the views call, hundreds of events in one transaction.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import click

from homebody.application import create_app
from homebody.config import settings as config
from homebody.core.accounts import access_tokens, accounts
from homebody.core.rooms import creation, membership
from homebody.core.sessions import devices
from homebody.core.timeline import sending
from homebody.storage import migrations
from homebody.storage.caches import Requester
from homebody.storage.database import Database, Tx
from tests.bench import storage
from tests.bench.storage import Used

T = TypeVar("T")

SERVER_NAME = "matrix.example.org"
"""Part of every ID: one letter more makes a state change about four bytes larger."""
AT_ONCE = 50
"""Rooms, bursts or changes of membership in one transaction."""
BURST = 10
"""Messages that one user sends in a room before the other one does, there or elsewhere."""
SAID_AT_FIRST = 12
"""Messages in each room before any history: more than an initial /sync returns, or its response
would grow with the history."""
NARROW_ROOMS = 10
_VOCABULARY = 5000
_WORDS = 12


@dataclass(frozen=True, slots=True)
class Sizes:
    """The amount of data to create."""

    rooms: int
    events: int
    """In all rooms together, at the last step."""
    members: int
    """Of the big room. All of them join; every second one leaves and rejoins."""
    steps: tuple[int, ...]
    """In percent of the history; the last one is 100."""


@dataclass(frozen=True, slots=True)
class Session:
    """A user who is logged in."""

    user_id: str
    device_id: str
    token: str

    @property
    def requester(self) -> Requester:
        """Return what a view finds by the token."""
        return Requester(self.user_id, self.device_id, access_tokens.hash_of(self.token))


@dataclass(slots=True)
class Home:
    """The users and rooms in the database."""

    wide: Session
    """In all rooms but the big one."""
    talker: Session
    """Likewise: the two of them talk to each other."""
    narrow: Session
    """In ten of the rooms, and only reads."""
    host: Session
    """Of the big room."""
    guest: Session
    """In no room; will join the big one."""
    rooms: list[str] = field(default_factory=list)
    """Half of all messages are in the first of them."""
    big_room: str = ""
    members: list[str] = field(default_factory=list)
    """Of the big room, besides the host."""
    said: list[str] = field(default_factory=list)
    """The messages in the first room, by event ID."""
    random: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - no secret

    def words(self) -> str:
        """Return a text with many words for the full-text index, some of them frequent."""
        ranks = (int(_VOCABULARY ** self.random.random()) for _ in range(_WORDS))
        return " ".join(f"word{rank}" for rank in ranks)


@dataclass(frozen=True, slots=True)
class Step:
    """The data added by one step of the history."""

    percent: int
    said: int
    """Messages in the first room so far."""
    messages: int
    """Added by this step, in all rooms."""
    changes: int
    """Of membership, added by this step."""
    before: Used
    between: Used
    """After the messages, before the changes of membership."""
    after: Used


@contextmanager
def opened(data_dir: Path) -> Iterator[Database]:
    """Open the database of a stopped server, with all migrations."""
    settings = config.load(None, {}, {"data_dir": str(data_dir), "server_name": SERVER_NAME})
    migrations.upgrade(settings)
    app = create_app(settings)
    try:
        yield app.homeserver.database
    finally:
        app.homeserver.ephemeral.close()
        app.homeserver.database.close()


def move_in(db: Database, sizes: Sizes) -> Home:
    """Create accounts and rooms with their members, before any history."""
    with db.write() as tx:
        home = Home(
            wide=_session(tx, "wide"),
            talker=_session(tx, "talker"),
            narrow=_session(tx, "narrow"),
            host=_session(tx, "host"),
            guest=_session(tx, "guest"),
        )
        home.big_room = _new_room(tx, home.host.user_id, "The big room")

    def make_room(tx: Tx, number: int) -> None:
        room_id = _new_room(tx, home.wide.user_id, f"Room {number}")
        home.rooms.append(room_id)
        others = (home.talker, home.narrow) if number < NARROW_ROOMS else (home.talker,)
        for person in others:
            membership.join(tx, room_id, person.user_id)
        _talk(tx, home, room_id, home.talker, SAID_AT_FIRST)

    def add_member(tx: Tx, number: int) -> None:
        user_id = f"@member{number}:{SERVER_NAME}"
        accounts.create(tx, user_id, None)
        membership.join(tx, home.big_room, user_id)
        home.members.append(user_id)

    _write_all(db, "rooms", range(sizes.rooms), make_room)
    # not in order: a B-tree that is filled in order is denser than one in real use
    numbers = home.random.sample(range(sizes.members - 1), sizes.members - 1)
    _write_all(db, "members", numbers, add_member)
    return home


def live(db: Database, database: Path, home: Home, sizes: Sizes, at: int) -> Step:
    """Add the history from the previous step up to the one with this number.

    Raises UsageError if the rooms alone have more events than requested.
    """
    begin, end = (sizes.steps[at - 1] if at else 0), sizes.steps[at]
    before = storage.look(database)
    coming = _share(home.members, begin, end)
    left = sizes.events - before.events - 2 * len(_share(home.members, begin, 100))
    bursts = range(left * (end - begin) // (100 - begin) // BURST)
    if not bursts:
        raise click.UsageError(f"--events: there are {before.events} before anything is said")

    def talk(tx: Tx, number: int) -> None:
        room_id = home.rooms[number // 2 % len(home.rooms) if number % 2 else 0]
        speaker = home.wide if number % 4 < 2 else home.talker
        _talk(tx, home, room_id, speaker, BURST)

    def change(tx: Tx, what: tuple[str, str]) -> None:
        membership.change(tx, home.big_room, what[1], what[1], what[0])

    _write_all(db, f"messages to {end} %", bursts, talk)
    between = storage.look(database)
    changes = [
        (to, user_id)
        for first in range(0, len(coming), AT_ONCE)
        for to in ("leave", "join")
        for user_id in coming[first : first + AT_ONCE]
    ]
    _write_all(db, f"memberships to {end} %", changes, change)
    after = storage.look(database)
    return Step(end, len(home.said), BURST * len(bursts), len(changes), before, between, after)


def _write_all(
    db: Database, label: str, items: Sequence[T], write: Callable[[Tx, T], None]
) -> None:
    with click.progressbar(length=len(items), label=label, file=sys.stderr) as bar:
        for first in range(0, len(items), AT_ONCE):
            some = items[first : first + AT_ONCE]
            with db.write() as tx:
                for item in some:
                    write(tx, item)
            bar.update(len(some))


def _session(tx: Tx, name: str) -> Session:
    user_id = f"@{name}:{SERVER_NAME}"
    accounts.create(tx, user_id, None)
    device_id = devices.start_session(tx, user_id)
    return Session(user_id, device_id, access_tokens.issue(tx, user_id, device_id)["access_token"])


def _new_room(tx: Tx, creator: str, name: str) -> str:
    version = creation.version_named(tx.server.config.default_room_version)
    wish = creation.RoomOptions("public_chat", version, name=name)
    return creation.create_room(tx, creator, wish)[0]


def _talk(tx: Tx, home: Home, room_id: str, speaker: Session, times: int) -> None:
    for _ in range(times):
        content = {"msgtype": "m.text", "body": home.words()}
        txn_id = f"m{tx.position}.{tx.now_ms}"
        requester = speaker.requester
        event_id = sending.send_message(tx, requester, room_id, "m.room.message", content, txn_id)
        if room_id == home.rooms[0]:
            home.said.append(event_id)


def _share(members: list[str], begin: int, end: int) -> list[str]:
    """Return the members that leave and rejoin between two percentages of the history."""
    restless = members[::2]
    return restless[len(restless) * begin // 100 : len(restless) * end // 100]
