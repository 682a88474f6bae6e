"""The engine of Element X in rooms: what happens in a timeline, and the list of many rooms."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients import phones
from tests.clients.js_client import JsPerson
from tests.clients.phones import Phone
from tests.clients.test_account_pages import TERMS, browser
from tests.helpers.server import RunningServer, start

pytestmark = phones.MARKS


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on which anybody can register."""
    running = start(tmp_path_factory.mktemp("rooms"), registration="open", terms=TERMS)
    yield running
    running.stop()


@contextlib.asynccontextmanager
async def two(house: RunningServer, folder: Path) -> AsyncIterator[tuple[JsPerson, JsPerson, str]]:
    """Two users in an encrypted room."""
    first, second = Phone(house, folder), Phone(house, folder)
    async with (
        browser(house, "gerda") as hers,
        browser(house, "hugo") as his,
        first.app() as gerda,
        second.app() as hugo,
    ):
        await first.log_in(gerda, hers, is_new=True)
        hugo_id = await second.log_in(hugo, his, is_new=True)
        room = await gerda.ask("createRoom", name="Tea", encrypted=True, invite=[hugo_id])
        await hugo.ask("join", roomId=room)
        await gerda.ask("waitForMember", roomId=room, userId=hugo_id)
        hugo.user_id = hugo_id
        yield gerda, hugo, room


async def said(who: JsPerson, other: JsPerson, room: str, body: str) -> str:
    """Send a message; return its ID once the other one has it."""
    await who.ask("send", roomId=room, body=body)
    return str((await other.ask("waitFor", roomId=room, body=body))["eventId"])


async def item(who: JsPerson, room: str, event_id: str) -> dict[str, Any]:
    """Return what a timeline shows of an event."""
    shown = await who.ask("timeline", roomId=room)
    return next(it for it in shown if it["eventId"] == event_id)


async def test_messages_are_edited_answered_and_pinned(
    house: RunningServer, tmp_path: Path
) -> None:
    async with two(house, tmp_path) as (gerda, hugo, room):
        event_id = await said(gerda, hugo, room, "Tee?")
        await gerda.ask("waitFor", roomId=room, body="Tee?")
        await gerda.ask("edit", roomId=room, eventId=event_id, body="Tea?")
        edited = await hugo.ask("waitFor", roomId=room, body="Tea?")
        await hugo.ask("reply", roomId=room, eventId=event_id, body="Yes")
        reply = await gerda.ask("waitFor", roomId=room, body="Yes")
        await gerda.ask("pin", roomId=room, eventId=event_id)
        pinned = await gerda.ask("pinned", roomId=room)

        assert edited["eventId"] == event_id
        assert reply["isReply"]
        assert [it["eventId"] for it in pinned] == [event_id]


async def test_a_thread_is_written_and_read(house: RunningServer, tmp_path: Path) -> None:
    async with two(house, tmp_path) as (gerda, hugo, room):
        root = await said(gerda, hugo, room, "Which tea?")
        await hugo.ask("sendInThread", roomId=room, eventId=root, body="Green")
        thread = await gerda.ask("waitForThread", roomId=room, eventId=root, body="Green")
        is_automatic = await gerda.ask("subscribeThread", roomId=room, eventId=root)

        assert [it["body"] for it in thread] == ["Which tea?", "Green"]
        assert is_automatic is False


async def test_a_file_is_sent_encrypted(house: RunningServer, tmp_path: Path) -> None:
    async with two(house, tmp_path) as (gerda, hugo, room):
        await gerda.ask("attach", roomId=room, name="tea.txt", data="Boil the water.")
        seen = await hugo.ask("waitFor", roomId=room, body="tea.txt")
        data = await hugo.ask("download", roomId=room, eventId=seen["eventId"])

        assert seen["isEncrypted"]
        assert data == "Boil the water."


async def test_the_list_has_pages_and_filters_and_invites_are_refused(
    house: RunningServer, tmp_path: Path
) -> None:
    async with two(house, tmp_path) as (gerda, hugo, room):
        for number in range(59):
            await hugo.ask("createRoom", name=f"Room {number}")
        invite = await gerda.ask("createRoom", name="Cake", invite=[hugo.user_id])
        everything = await hugo.ask("roomList", expected=61)
        joined = await hugo.ask("roomList", filter="joined", expected=60)
        invites = await hugo.ask("roomList", filter="invites", expected=1)
        found = await hugo.ask("roomList", filter="Room 42", expected=1)
        await hugo.ask("leave", roomId=invite)
        left = await hugo.ask("roomList", filter="invites", expected=0)

        assert len({it["roomId"] for it in everything}) == 61
        assert room in {it["roomId"] for it in joined}
        assert [it["roomId"] for it in invites] == [invite]
        assert [it["name"] for it in found] == ["Room 42"]
        assert left == []


async def test_a_push_is_shown_and_users_are_found_and_ignored(
    house: RunningServer, tmp_path: Path
) -> None:
    async with two(house, tmp_path) as (gerda, hugo, room):
        event_id = await said(gerda, hugo, room, "Tea?")
        shown = await hugo.ask("notification", roomId=room, eventId=event_id)
        found = await gerda.ask("searchUsers", text=hugo.user_id[1:].split(":")[0])
        await gerda.ask("ignore", userId=hugo.user_id)

        assert shown["type"] == "m.room.message"
        assert shown["room"] == "Tea"
        assert found == [hugo.user_id]
