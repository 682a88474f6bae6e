"""The users in a room: what is kept in memory is what the tables say, whatever has happened."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from homebody.core.events import state
from homebody.core.events.state import Joined
from homebody.core.events.state_changes import MemberSummary
from homebody.core.sync import summaries
from homebody.storage.database import Database, Reader, Tx
from homebody.web import Application
from tests.conftest import Login
from tests.helpers.large_room import add_members, remote_users, store_member

USERS = [*remote_users(12, servers=4), "@alice:localhost", "@dave:localhost", "@eve:localhost"]


def read_anew(tx: Reader, room_id: str) -> Joined:
    """Return the joined users of a room as the database has them."""
    joined = state.joined_users(tx, room_id)
    local = frozenset(user_id for user_id in joined if user_id.endswith(":localhost"))
    servers = Counter(user_id.partition(":")[2] for user_id in joined)
    return Joined(local, dict(servers), len(joined))


def summary(tx: Reader, room_id: str) -> MemberSummary:
    """Return the summary of the members of a room."""
    return summaries.members(tx, [room_id])[room_id]


@pytest.fixture
def room_id(app: Application, login: Login, room: Callable[..., str]) -> str:
    """A room of Alice and of seven users of other servers."""
    assert app
    room_id = room(login("alice"))
    add_members(app, room_id, USERS[:7])
    return room_id


@pytest.fixture
def db(app: Application) -> Database:
    return app.homeserver.database


@pytest.mark.parametrize("seed", range(8))
def test_what_is_kept_follows_every_change_of_membership(
    db: Database, room_id: str, seed: int
) -> None:
    choice = random.Random(seed)  # noqa: S311 - the same in every run
    with db.read() as tx:
        state.joined(tx, room_id)
        summary(tx, room_id)

    for _ in range(40):
        membership = choice.choice(["join", "join", "leave", "invite", "ban", "knock"])
        with db.write() as writing:
            store_member(writing, room_id, choice.choice(USERS), membership)
        with db.read() as tx:
            if choice.random() < 0.3:
                summary(tx, room_id)
            kept, kept_summary = state.joined(tx, room_id), summary(tx, room_id)
            anew = read_anew(tx, room_id)
            anew_summary = summaries.read_members(tx, [room_id])[room_id]

        assert kept == anew
        assert kept_summary == anew_summary


def test_a_change_that_is_undone_is_not_kept(db: Database, room_id: str) -> None:
    with db.read() as tx:
        before = state.joined(tx, room_id), summary(tx, room_id)

    with pytest.raises(ZeroDivisionError), db.write() as writing:
        store_member(writing, room_id, USERS[-1], "join")
        store_member(writing, room_id, USERS[0], "leave")
        assert state.joined(writing, room_id).total == before[0].total
        raise ZeroDivisionError

    with db.read() as tx:
        assert (state.joined(tx, room_id), summary(tx, room_id)) == before


def test_a_snapshot_keeps_the_people_of_its_time(db: Database, room_id: str) -> None:
    with db.read() as older:
        before = state.joined(older, room_id)
        kept = Joined(before.local, dict(before.servers), before.total)
        with db.write() as writing:
            store_member(writing, room_id, "@dave:localhost", "join")
        after = state.joined(older, room_id)
        with db.read() as newer:
            now = state.joined(newer, room_id)

    assert before == after == kept
    assert now.local == kept.local | {"@dave:localhost"}
    assert now.total == kept.total + 1


def test_an_older_snapshot_does_not_fill_the_cache(db: Database, room_id: str) -> None:
    with db.read() as older:
        assert older.position
        with db.write() as writing:
            store_member(writing, room_id, USERS[0], "leave")
            writing.forget(state.JOINED, room_id)
        state.joined(older, room_id)
        with db.read() as newer:
            assert state.joined(newer, room_id) == read_anew(newer, room_id)


def test_a_server_without_members_is_not_listed(db: Database, room_id: str) -> None:
    alone = "@alone:far.test"

    def is_listed(tx: Tx | Reader) -> bool:
        return "far.test" in state.joined(tx, room_id).servers

    seen: list[Any] = []
    for membership in ("join", "join", "leave"):
        with db.write() as tx:
            store_member(tx, room_id, alone, membership)
            seen.append(is_listed(tx))

    assert seen == [True, True, False]


def test_joined_rooms_follow_as_well(db: Database, room_id: str) -> None:
    with db.write() as tx:
        assert state.joined_rooms(tx, USERS[-1]) == frozenset()
        store_member(tx, room_id, USERS[-1], "join")
        assert state.joined_rooms(tx, USERS[-1]) == {room_id}


def test_members_that_are_found_before_a_write_are_those_that_the_database_has(
    db: Database, room_id: str
) -> None:
    db.caches.clear(db.writer.last_position)
    with db.read() as tx:
        state.find_joined(tx, room_id)
        found = tx.cached(state.JOINED, room_id)

        assert found == read_anew(tx, room_id)
        assert state.joined(tx, room_id) is found
