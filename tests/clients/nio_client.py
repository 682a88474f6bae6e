"""A user of matrix-nio, with sync_forever running.

`person()` creates one. What nio's callbacks received is kept in plain lists, and every wait has a
deadline. nio returns errors instead of raising them: `ok()` raises.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import nio

from tests.clients import waiting

PASSWORD = "correct horse battery staple"
_SYNC_TIMEOUT_MS = 30_000


class Heard(NamedTuple):
    """A text message as the callback received it."""

    room_id: str
    sender: str
    body: str
    event_id: str


def ok(answer: Any) -> Any:
    """Return a response of nio, unless it is an error."""
    assert not isinstance(answer, nio.ErrorResponse), f"the server refused: {answer}"
    return answer


def fresh_name(name: str) -> str:
    """Return a user name that is new on this server, which tests share."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def client(url: str, user: str = "", store: str = "") -> Any:
    """Return an AsyncClient that gives up soon: by default, nio retries forever and silently.

    It encrypts only with a folder `store`, in which it keeps its keys.
    """
    config = nio.AsyncClientConfig(
        max_limit_exceeded=0, max_timeouts=2, request_timeout=waiting.WAIT_SECONDS
    )
    return nio.AsyncClient(url, user, store_path=store, config=config)


class NioPerson:
    """A registered user, their AsyncClient in `nio`, and what its callbacks received."""

    def __init__(self, url: str, name: str) -> None:
        self.name = fresh_name(name)
        self.nio = client(url)
        self.heard: list[Heard] = []
        self.refused: list[str] = []
        self._syncing: asyncio.Task[None] | None = None

    @property
    def user_id(self) -> str:
        return str(self.nio.user_id)

    async def register(self) -> None:
        ok(await self.nio.register(self.name, PASSWORD, device_name="nio test"))

    def start(self) -> None:
        """Start to sync."""
        self.nio.add_event_callback(self._hear, nio.RoomMessageText)
        self.nio.add_response_callback(self._note_refusal, nio.SyncError)
        self._syncing = asyncio.create_task(self.nio.sync_forever(_SYNC_TIMEOUT_MS))

    async def stop(self) -> None:
        if self._syncing:
            self._syncing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._syncing
        await self.nio.close()

    async def _hear(self, room: Any, event: Any) -> None:
        self.heard.append(Heard(room.room_id, event.sender, event.body, event.event_id))

    async def _note_refusal(self, answer: Any) -> None:
        self.refused.append(str(answer))

    async def until(self, look: Callable[[], Any], what: str) -> Any:
        """The first truthy answer of `look`, asked again and again while sync goes on."""

        def look_while_syncing() -> Any:
            if self._syncing and self._syncing.done():
                self._syncing.result()
                raise AssertionError(f"sync_forever of {self.name} has ended")
            return look()

        return await waiting.until(look_while_syncing, f"{what} for {self.name}", self._report)

    def _report(self) -> str:
        return f"heard: {self.heard}; rooms: {list(self.nio.rooms)}; refused: {self.refused}"

    def room(self, room_id: str) -> Any:
        """Return nio's MatrixRoom, if sync has received it."""
        return self.nio.rooms.get(room_id)

    async def create_room(self, *invited: str) -> str:
        answer = ok(await self.nio.room_create(name="Tea", invite=invited))
        room_id = str(answer.room_id)
        await self.until(lambda: self.room(room_id), "room of one's own")
        return room_id

    async def join(self, room_id: str) -> None:
        """Accept an invitation, once it is there."""
        await self.until(lambda: room_id in self.nio.invited_rooms, f"invite to {room_id}")
        ok(await self.nio.join(room_id))
        await self.until(lambda: self.room(room_id), f"room {room_id}")

    async def say(self, room_id: str, body: str) -> str:
        """The event ID of a text message sent now."""
        content = {"msgtype": "m.text", "body": body}
        answer = ok(await self.nio.room_send(room_id, "m.room.message", content))
        return str(answer.event_id)

    async def hear(self, room_id: str, body: str) -> Heard:
        """The message with this body, when the callback has received it."""

        def look() -> Heard | None:
            mine = (one for one in self.heard if (one.room_id, one.body) == (room_id, body))
            return next(mine, None)

        found: Heard = await self.until(look, f"message {body!r}")
        return found

    async def see_member(self, room_id: str, user_id: str) -> None:
        """Wait until that user is a joined member of the room."""
        await self.until(lambda: user_id in _joined(self.room(room_id)), f"member {user_id}")

    async def see_no_member(self, room_id: str, user_id: str) -> None:
        """Wait until that user has left the room."""
        await self.until(lambda: user_id not in _users(self.room(room_id)), f"leave of {user_id}")

    async def see_profile(self, room_id: str, user_id: str, name: str, avatar: str | None) -> None:
        """Wait until the room shows that user under this name and with this avatar."""

        def look() -> bool:
            user = _users(self.room(room_id)).get(user_id)
            return user is not None and (user.display_name, user.avatar_url) == (name, avatar)

        await self.until(look, f"{name!r} with avatar {avatar} as profile of {user_id}")

    async def see_receipt(self, room_id: str, event_id: str, user_id: str) -> None:
        """Wait until that user is known to have read the event."""

        def look() -> bool:
            receipt = self.room(room_id).read_receipts.get(user_id)
            return receipt is not None and receipt.event_id == event_id

        await self.until(look, f"receipt of {user_id} for {event_id}")

    async def see_typing(self, room_id: str, *user_ids: str) -> None:
        """Wait until exactly these users type."""
        typists = set(user_ids)
        await self.until(lambda: set(self.room(room_id).typing_users) == typists, "typing")


def _users(room: Any) -> dict[str, Any]:
    return dict(room.users) if room else {}


def _joined(room: Any) -> set[str]:
    # nio lists the invited among the users too
    return _users(room).keys() - (room.invited_users.keys() if room else set())


@contextlib.asynccontextmanager
async def person(url: str, name: str) -> AsyncIterator[NioPerson]:
    """Someone newly registered under a name of their own, who syncs."""
    someone = NioPerson(url, name)
    try:
        await someone.register()
        someone.start()
        yield someone
    finally:
        await someone.stop()
