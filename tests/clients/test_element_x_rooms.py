"""The engine of Element X in rooms: what happens in a timeline, and the list of many rooms."""

from pathlib import Path

from tests.clients import phones
from tests.clients.js_client import JsPerson
from tests.clients.phones import two
from tests.helpers.server import RunningServer

pytestmark = phones.MARKS


async def said(who: JsPerson, other: JsPerson, room: str, body: str) -> str:
    """Send a message; return its ID once the other one has it."""
    await who.ask("send", roomId=room, body=body)
    return str((await other.ask("waitFor", roomId=room, body=body))["eventId"])


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
        ignored = await gerda.ask("ignored", userId=hugo.user_id)

        assert ignored is True
        assert shown["type"] == "m.room.message"
        assert shown["room"] == "Tea"
        assert found == [hugo.user_id]


async def test_readers_are_shown_and_history_goes_back_to_its_beginning(
    house: RunningServer, tmp_path: Path
) -> None:
    async with two(house, tmp_path) as (gerda, hugo, room):
        first = await said(gerda, hugo, room, "message 0")
        await hugo.ask("stop")  # so that he has a gap to fill
        for number in range(1, 210):
            await gerda.ask("send", roomId=room, body=f"message {number}")
        await gerda.ask("waitFor", roomId=room, body="message 209")
        await hugo.ask("start")
        last = (await hugo.ask("waitFor", roomId=room, body="message 209"))["eventId"]
        await hugo.ask("read", roomId=room)
        await gerda.ask("waitForReader", roomId=room, eventId=last, userId=hugo.user_id)
        pages = await hugo.ask("paginateToStart", roomId=room)
        shown = [it for it in await hugo.ask("timeline", roomId=room) if it["body"]]
        await gerda.ask("redact", roomId=room, eventId=last)
        await hugo.ask("waitForRedaction", roomId=room, eventId=last)

        assert [it["body"] for it in shown] == [f"message {number}" for number in range(210)]
        assert shown[0]["eventId"] == first
        assert pages > 3
        assert all(it["isEncrypted"] for it in shown)


async def test_who_knocks_is_let_in(house: RunningServer, tmp_path: Path) -> None:
    async with two(house, tmp_path) as (gerda, hugo, _):
        room = await gerda.ask("createRoom", name="Kitchen", knock=True)
        await hugo.ask("knock", roomId=room)
        await gerda.ask("letIn", roomId=room, userId=hugo.user_id)
        invites = await hugo.ask("roomList", filter="invites", expected=1)
        await hugo.ask("join", roomId=room)
        await gerda.ask("waitForMember", roomId=room, userId=hugo.user_id)

        assert [it["roomId"] for it in invites] == [room]
