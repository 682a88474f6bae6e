"""Rooms of the server under test that users of scripted servers are in, and what those got."""

from __future__ import annotations

from homebody.core.timeline import sending
from homebody.core.timeline.sending import Draft
from homebody.web import Application
from tests.conftest import Person
from tests.helpers.remote import Remote


def shared_room(app: Application, creator: Person, *remotes: Remote) -> str:
    """Make a public room with carol of each server."""
    room_id = creator.create_room(preset="public_chat")
    join(app, room_id, *(it.user_id("carol") for it in remotes))
    return room_id


def join(app: Application, room_id: str, *user_ids: str) -> None:
    """Join users to a public room, without their servers' doing."""
    _move(app, room_id, user_ids, "join")


def leave(app: Application, room_id: str, *user_ids: str) -> None:
    """Let users leave by themselves, without their servers' doing."""
    _move(app, room_id, user_ids, "leave")


def _move(app: Application, room_id: str, user_ids: tuple[str, ...], membership: str) -> None:
    with app.homeserver.database.write() as tx:
        for user_id in user_ids:
            content = {"membership": membership}
            sending.send(tx, Draft(room_id, user_id, "m.room.member", content, user_id))


def bodies(remote: Remote) -> list[str]:
    """Return the texts of the messages that a server has got, in their order."""
    return [it["content"]["body"] for it in remote.pdus if it["type"] == "m.room.message"]


def wait_for_bodies(remote: Remote, expected: list[str]) -> None:
    """Wait until a server has got these messages, and nothing else."""
    remote.wait_until(lambda: len(bodies(remote)) >= len(expected), f"{len(expected)} messages")
    assert bodies(remote) == expected
