"""A bridge with Python mautrix: a ghost that repeats what users say."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nio
import pytest
from mautrix.appservice import AppService
from mautrix.appservice.state_store import FileASStateStore
from mautrix.client import Client as MautrixClient
from mautrix.types import Membership, PresenceState, RoomID, UserID

from tests.clients import nio_client
from tests.clients.waiting import until
from tests.helpers import bridge
from tests.helpers.server import free_port, start

GHOST = "@_irc_echo:localhost"


class EchoBridge:
    """A bridge with one ghost, which joins where it is invited and repeats messages."""

    def __init__(self, server: str, port: int, folder: Path, **options: Any) -> None:
        self.port = port
        self.heard: list[str] = []
        self.typing: list[list[str]] = []
        self.appservice = AppService(
            server=server,
            domain="localhost",
            as_token=bridge.AS_TOKEN,
            hs_token=bridge.HS_TOKEN,
            bot_localpart="_irc_bot",
            id="irc",
            state_store=FileASStateStore(folder / "bridge.json", binary=False),
            ephemeral_events=True,
            **options,
        )
        self.appservice.matrix_event_handler(self.handle)

    @property
    def ghost(self) -> Any:
        return self.appservice.intent.user(UserID(GHOST))

    async def handle(self, event: Any) -> None:
        kind = str(event.type)
        if kind == "m.typing":
            self.typing.append([str(user_id) for user_id in event.content.user_ids])
        elif kind == "m.room.member" and event.state_key == GHOST:
            if event.content.membership == Membership.INVITE:
                await self.ghost.join_room_by_id(event.room_id)
        elif kind == "m.room.message" and event.sender != GHOST:
            self.heard.append(event.content.body)
            await self.ghost.send_text(event.room_id, f"echo: {event.content.body}", timestamp=1000)


@contextlib.asynccontextmanager
async def running(server: str, port: int, folder: Path) -> AsyncIterator[EchoBridge]:
    """The bridge's process, so to say: it listens inside the block only."""
    echo = EchoBridge(server, port, folder)
    await echo.appservice.start("127.0.0.1", port)
    try:
        await echo.appservice.intent.ensure_registered()
        await echo.ghost.ensure_registered()
        yield echo
    finally:
        await echo.appservice.stop()


# mautrix 0.21 and aiohttp 3.14
@pytest.mark.filterwarnings("ignore:loop argument is deprecated:DeprecationWarning")
async def test_a_ghost_talks_with_people_and_misses_nothing_while_its_bridge_restarts(
    tmp_path: Path,
) -> None:
    port = free_port()
    told = bridge.registration(f"http://127.0.0.1:{port}", receive_ephemeral=True)
    path = bridge.write(tmp_path, told)
    server = await asyncio.to_thread(start, tmp_path, appservices=f'["{path}"]')
    try:
        async with nio_client.person(server.url, "alice") as alice:
            async with running(server.url, port, tmp_path) as echo:
                assert await echo.appservice.ping_self() >= 0
                await echo.ghost.set_displayname("Echo")
                await echo.ghost.set_presence(PresenceState.ONLINE)
                room_id = await alice.create_room(GHOST)
                await alice.see_member(room_id, GHOST)
                await alice.say(room_id, "Hello?")
                heard = await alice.hear(room_id, "echo: Hello?")
                await alice.nio.room_typing(room_id)
                await until(lambda: echo.typing, "notice of who types")
                members = await echo.ghost.get_joined_members(room_id)

            for number in range(3):
                await alice.say(room_id, f"missed {number}")
            async with running(server.url, port, tmp_path) as revived:
                await alice.hear(room_id, "echo: missed 2")

        assert heard.sender == GHOST
        assert members[GHOST].displayname == "Echo"
        assert echo.heard == ["Hello?"]
        assert revived.heard == ["missed 0", "missed 1", "missed 2"]
    finally:
        await asyncio.to_thread(server.stop)


class EncryptedBridge:
    """A bridge whose bot has a device; it notes what it needs for encryption."""

    def __init__(self, server: str, port: int, folder: Path) -> None:
        self.echo = EchoBridge(server, port, folder, encryption_events=True)
        self.messages: list[Any] = []
        self.counts: list[Any] = []
        self.changed: list[str] = []
        self.echo.appservice.to_device_handler = self.note_message
        self.echo.appservice.otk_handler = self.note_counts
        self.echo.appservice.device_list_handler = self.note_devices

    async def note_message(self, event: Any) -> None:
        self.messages.append(event)

    async def note_counts(self, counts: Any) -> None:
        self.counts.append(counts)

    async def note_devices(self, lists: Any) -> None:
        self.changed += lists.changed


@pytest.mark.filterwarnings("ignore:loop argument is deprecated:DeprecationWarning")
async def test_a_bridge_gets_what_it_needs_to_encrypt(tmp_path: Path) -> None:
    port = free_port()
    told = bridge.registration(
        f"http://127.0.0.1:{port}", receive_ephemeral=True, **{"org.matrix.msc3202": True}
    )
    path = bridge.write(tmp_path, told)
    server = await asyncio.to_thread(start, tmp_path, appservices=f'["{path}"]')
    encrypted = EncryptedBridge(server.url, port, tmp_path)
    appservice = encrypted.echo.appservice
    await appservice.start("127.0.0.1", port)
    try:
        async with (
            nio_client.person(server.url, "alice") as alice,
            nio_client.person(server.url, "bob") as bob,
        ):
            await appservice.intent.ensure_registered()
            client = MautrixClient(
                mxid=appservice.bot_mxid, base_url=server.url, token=bridge.AS_TOKEN
            )
            await client.create_device_msc4190("BRIDGE", "Bridge")
            room_id = await alice.create_room(appservice.bot_mxid, bob.user_id)
            await appservice.intent.join_room_by_id(RoomID(room_id))
            await bob.join(room_id)
            await until(lambda: encrypted.changed == [bob.user_id], "notice of the devices of bob")
            message = nio.ToDeviceMessage("m.test", appservice.bot_mxid, "BRIDGE", {"n": 1})
            nio_client.ok(await alice.nio.to_device(message))
            await until(lambda: encrypted.messages, "message to the device")
            await client.api.session.close()

        (event,) = encrypted.messages
        assert (event.sender, event.to_user_id, event.to_device_id) == (
            alice.user_id,
            appservice.bot_mxid,
            "BRIDGE",
        )
        assert encrypted.counts[-1][appservice.bot_mxid]["BRIDGE"].signed_curve25519 == 0
    finally:
        await appservice.stop()
        await asyncio.to_thread(server.stop)
