"""Rooms that are joined before their members are known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core import partial_rooms
from homebody.core.federation import partial_joins
from homebody.web import Application
from tests.conftest import Person
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.waiting import wait_for


@contextmanager
def omitting(
    remote: Remotes, app: Application, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Remote]:
    """Run a server that leaves members out, and does not send them before `let_state_come`."""
    monkeypatch.setattr(partial_joins, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(partial_joins, "MAX_WAIT_S", 0.05)
    b = remote("b.test")
    b.omits_members = True
    b.fail("/state", 503)
    yield b
    app.homeserver.partial_joins.stop()
    wait_for(app.homeserver.partial_joins.is_idle, "the end of the work")


def join(person: Person, room_id: str, *via: str) -> Any:
    """Join a room by way of a server, and return the response."""
    path = f"join/{quote(room_id)}"
    return person.post(path + "?" + "&".join(f"via={it}" for it in via or ("b.test",)))


def is_partial(app: Application, room_id: str) -> bool:
    """Return whether the members of a room are not known."""
    with app.homeserver.database.read() as tx:
        return partial_rooms.is_partial(tx, room_id)


def let_state_come(b: Remote, app: Application, room: RemoteRoom) -> None:
    """Have the server respond, and wait until the members are known."""
    b.recover("/state")
    wait_for(lambda: not is_partial(app, room.id), "all members of the room")
