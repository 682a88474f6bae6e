"""Phones: long polls that wait all the time, each in a thread of its own."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable
from typing import Any

from tests.bench.habits import COMMAND
from tests.bench.town import Device, Person, Room, Town, UnexpectedAnswerError

WAIT_MS = 30_000
SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
_STATE = [["m.room.create", ""], ["m.room.member", "$LAZY"], ["m.room.member", "$ME"]]
_LIST = {"ranges": [[0, 19]], "timeline_limit": 10, "required_state": _STATE}
_EXTENSIONS = ("e2ee", "account_data", "receipts", "typing")


class Phones:
    """The long polls of all users: `start`, and `stop` at the end."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self._is_over = False
        self._open: list[Device] = []
        self._threads: list[threading.Thread] = []

    def __len__(self) -> int:
        return len(self._threads)

    def start(self) -> None:
        """Start them: most users have a long poll, every fifth uses sliding sync, one has none."""
        self._park(self._town.people[0], self._answer)
        for at, person in enumerate(self._town.people[1:], 1):
            if at % 5 == 3:
                self._park(person, self._slide)
            elif at % 5 != 4:
                self._park(person, self._poll)

    def stop(self) -> None:
        """Disconnect. Raises AssertionError if a thread is left."""
        self._is_over = True
        for device in self._open:
            if device.connection.sock is not None:
                with contextlib.suppress(OSError):  # the server has disconnected before
                    device.connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _park(self, person: Person, wait: Callable[[Person, Device], None]) -> None:
        device = person.phone
        self._open.append(device)
        thread = threading.Thread(target=self._go_on, args=(person, device, wait), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _go_on(
        self, person: Person, device: Device, wait: Callable[[Person, Device], None]
    ) -> None:
        try:
            while not self._is_over:
                wait(person, device)
        except (OSError, http.client.HTTPException, UnexpectedAnswerError) as error:
            if not self._is_over:  # otherwise it was this side that disconnected
                self._town.faults.note(f"parked: {error!r}")

    def _poll(self, _: Person, device: Device) -> None:
        device.sync(WAIT_MS)

    def _answer(self, bot: Person, device: Device) -> None:
        """Respond to commands: the first user is a bot."""
        found = device.sync(WAIT_MS)
        for room_id, news in found.get("rooms", {}).get("join", {}).items():
            for event in news["timeline"]["events"]:
                if str(event["content"].get("body", "")).startswith(COMMAND):
                    self._reply(bot, room_id, event)

    def _reply(self, bot: Person, room_id: str, event: Any) -> None:
        room = Room(room_id, [], is_public=False)
        to = {"m.in_reply_to": {"event_id": event["event_id"]}}
        content = {"msgtype": "m.notice", "body": "Done.", "m.relates_to": to}
        path = f"{room.path}/send/m.room.message/b{next(bot.numbers)}"
        bot.phone.ask("PUT", path, content)

    def _slide(self, _: Person, device: Device) -> None:
        query = f"?timeout={WAIT_MS}&pos={device.since}" if device.since else ""
        # without acknowledgement, the server sends the messages again at once
        to_device = {"enabled": True} | ({"since": device.inbox} if device.inbox else {})
        extensions = {name: {"enabled": True} for name in _EXTENSIONS} | {"to_device": to_device}
        body = {"conn_id": "main", "lists": {"all": _LIST}, "extensions": extensions}
        answer = device.ask("POST", SLIDING + query, body)
        device.since, device.inbox = answer["pos"], answer["extensions"]["to_device"]["next_batch"]
