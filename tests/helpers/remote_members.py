"""Users of other servers in rooms of the server under test, without their servers' doing."""

from __future__ import annotations

from homebody.core.timeline import sending
from homebody.core.timeline.sending import Draft
from homebody.web import Application


def join(app: Application, room_id: str, *user_ids: str) -> None:
    """Join users to a public room."""
    _move(app, room_id, user_ids, "join")


def leave(app: Application, room_id: str, *user_ids: str) -> None:
    """Let users leave by themselves."""
    _move(app, room_id, user_ids, "leave")


def _move(app: Application, room_id: str, user_ids: tuple[str, ...], membership: str) -> None:
    with app.homeserver.database.write() as tx:
        for user_id in user_ids:
            content = {"membership": membership}
            sending.send(tx, Draft(room_id, user_id, "m.room.member", content, user_id))
