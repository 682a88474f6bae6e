"""Deactivating an account that is in many rooms."""

from __future__ import annotations

from typing import Any

import pytest

from homebody.core.events import state
from homebody.core.sessions import deactivation
from homebody.web import Application
from tests.conftest import Login


def test_it_says_how_many_rooms_are_left(
    app: Application, login: Login, room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deactivation, "ROOMS_AT_ONCE", 2)
    alice, bob = login("alice"), login("bob")
    rooms = [room(alice, bob) for _ in range(5)]
    database, seen = app.homeserver.database, []

    def note(done: int, total: int) -> None:
        with database.read() as tx:
            seen.append((done, total, len(state.joined_rooms(tx, bob.user_id))))

    deactivation.deactivate(database, bob.user_id, progress=note)

    assert seen == [(2, 5, 3), (4, 5, 1), (5, 5, 0)]
    assert len(rooms) == 5
