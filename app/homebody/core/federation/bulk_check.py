"""The check of all events that come with a join: for thousands, `bulk.py` starts a process for it.

Verifying ten thousand signatures takes seconds, in which a thread would take the interpreter lock
from all requests, and the events fill 200 MB, which a process that ends gives back. It uses nothing
but `spec/`: no database, network or settings.

Both sides write lines of JSON:

    → {"file", "room_id", "version"}            the body of a send_join response, in a file
    ← {"keys": [[server, key ID, at ts]], "cited": [event ID], …}
                                                what it needs, and what else the response says
    → {"keys": [[server, key ID, key, valid until ts]], "known": [[event ID, standing, PDU]]}
    ← [event fields] TAB its PDU, for each event, after all events that it cites
    ← {"dropped": [[event ID, problem]]}        the end

A few events are checked in the server's own process (`lines`), as a process takes 80 ms to start.

Spec: server-server-api#put_matrixfederationv2send_joinroomideventid,
server-server-api#checks-performed-on-receipt-of-a-pdu
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import msgspec
import orjson

from homebody.spec import event_auth, events, received_pdus, signing
from homebody.spec.event_auth import AuthError
from homebody.spec.events import Event, Json
from homebody.spec.room_versions import VERSIONS, RoomVersion
from homebody.spec.signing import SignatureError, VerifyKey

ACCEPTED: Final = "outlier"
REJECTED: Final = "rejected"
MAX_DROPPED: Final = 100
"""Dropped events that are reported."""
BETWEEN_PAUSES: Final = 10

T = TypeVar("T")


class Response(msgspec.Struct):
    """The parts of a send_join response, or of one to /state."""

    state: list[msgspec.Raw] = []
    pdus: list[msgspec.Raw] = []
    auth_chain: list[msgspec.Raw] = []
    event: msgspec.Raw = msgspec.Raw(b"null")
    members_omitted: bool = False
    servers_in_room: list[str] = []


class Check:
    """The events of one response. `pause` is called after every few of them."""

    def __init__(
        self, response: Response, room_id: str, version: RoomVersion, pause: Callable[[], None]
    ) -> None:
        self._room_id = room_id
        self._version = version
        self._pause = pause
        self.events: dict[str, Event] = {}
        self.known: dict[str, Event] = {}
        """Events that these cite, and the other side has."""
        self.rejected: set[str] = set()
        self.dropped: dict[str, str] = {}
        self.state: set[str] = set(self._parse([*response.state, *response.pdus]))
        for _ in self._parse(response.auth_chain):
            pass

    def wanted_keys(self) -> list[tuple[str, str, int]]:
        """Return the keys that are needed: (server, key ID, latest time at which it is used)."""
        wanted: dict[tuple[str, str], int] = {}
        for event in self.events.values():
            for name, at_ts in received_pdus.wanted_keys(event).items():
                wanted[name] = max(wanted.get(name, 0), at_ts)
        return [(*name, at_ts) for name, at_ts in wanted.items()]

    def cited(self) -> list[str]:
        """Return the ids of the events that others cite, and the response does not contain."""
        cited = {it for event in self.events.values() for it in event.auth_event_ids}
        if self._version.has_privileged_creators:  # whose events all depend on it
            cited.add(self._create_id())
        return sorted(cited - self.events.keys())

    def verify(self, keys: Mapping[tuple[str, str], tuple[VerifyKey, int]]) -> None:
        """Drop the events that lack a signature."""

        def find(server: str, key_id: str, at_ts: int) -> VerifyKey | None:
            key, valid_until_ts = keys.get((server, key_id), (None, 0))
            return key if at_ts <= valid_until_ts else None

        for event in self._with_pauses(list(self.events.values())):
            try:
                received_pdus.verify(event, find)
            except SignatureError as problem:
                self._drop(event.event_id, str(problem))

    def in_order(self) -> Iterator[Event]:
        """Yield the events, each after those that it cites; drop those that cite others."""
        done: set[str] = set()
        begun: set[str] = set()  # without those that are done: the way to the event at hand
        for start in list(self.events):
            path = [start]
            while path:
                event = self.events.get(path[-1])
                if event is None or event.event_id in done:
                    path.pop()
                    continue
                missing = [
                    it for it in event.auth_event_ids if it not in done and it not in self.known
                ]
                lacking = [it for it in missing if it not in self.events]
                if not missing:
                    done.add(event.event_id)
                    yield event
                elif lacking or event.event_id in begun:  # or it cites itself by a detour
                    cited = (lacking or missing)[0]
                    self._drop(event.event_id, f"It cites {cited}, which is not there")
                else:
                    begun.add(event.event_id)
                    path += missing

    def standings(self) -> Iterator[tuple[Event, str]]:
        """Yield the events in their order, each with what its auth events make of it."""
        rejected = self.rejected
        create = self._create()
        for event in self._with_pauses(self.in_order()):
            cited = [self.events.get(it) or self.known[it] for it in event.auth_event_ids]
            by_key = {(it.type, it.state_key or ""): it for it in cited}
            try:
                event_auth.check_auth_events(event, cited, rejected)
                event_auth.check(event, by_key, create)
            except AuthError:
                rejected.add(event.event_id)
                yield event, REJECTED
            else:
                yield event, ACCEPTED

    def _parse(self, pdus: Iterable[msgspec.Raw]) -> Iterator[str]:
        for pdu in self._with_pauses(pdus):
            try:
                event = received_pdus.receive(orjson.loads(bytes(pdu)), self._version)
            except (ValueError, RecursionError) as problem:
                self.dropped.setdefault("", str(problem))
                continue
            if event.room_id != self._room_id:
                self.dropped[event.event_id] = "It belongs to another room"
            elif event.state_key is None:
                self.dropped[event.event_id] = "It is not a state event"
            else:
                self.events[event.event_id] = event
                yield event.event_id

    def _with_pauses(self, items: Iterable[T]) -> Iterator[T]:
        for count, item in enumerate(items, 1):
            yield item
            if count % BETWEEN_PAUSES == 0:
                self._pause()

    def _create(self) -> Event | None:
        """Return the create event where auth events leave it out."""
        if not self._version.has_privileged_creators:
            return None
        return self.events.get(self._create_id()) or self.known.get(self._create_id())

    def _create_id(self) -> str:
        return "$" + self._room_id[1:]

    def _drop(self, event_id: str, problem: str) -> None:
        self.dropped[event_id] = problem
        del self.events[event_id]


def _decode(body: bytes) -> Response:
    """Return a response; in the first version of the API it was [status, response]."""
    if body.lstrip().startswith(b"["):
        return msgspec.json.decode(body, type=tuple[int, Response])[1]
    return msgspec.json.decode(body, type=Response)


def lines(task: Json, ask: Callable[[Json], Json], pause: Callable[[], None]) -> Generator[bytes]:
    """Yield the lines about the events of a file; none if it is not a response.

    `ask` gets what the check needs, and returns the keys and the events that are known.
    """
    version = VERSIONS[task["version"]]
    try:
        response = _decode(Path(task["file"]).read_bytes())
        event = orjson.loads(bytes(response.event))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return
    check = Check(response, task["room_id"], version, pause)
    answer = ask(
        {
            "keys": check.wanted_keys(),
            "cited": check.cited(),
            "event": event,
            "members_omitted": response.members_omitted,
            "servers_in_room": response.servers_in_room,
        }
    )
    for event_id, standing, pdu in answer["known"]:
        check.known[event_id] = Event(event_id, pdu, version)
        if standing == REJECTED:
            check.rejected.add(event_id)
    check.verify(
        {
            (server, key_id): (signing.verify_key_from_base64(key), valid_until_ts)
            for server, key_id, key, valid_until_ts in answer["keys"]
        }
    )
    for event, standing in check.standings():
        fields = orjson.dumps(_fields(event, standing, check.state))
        yield fields + b"\t" + events.encode(event.pdu, version) + b"\n"
    yield orjson.dumps({"dropped": list(check.dropped.items())[:MAX_DROPPED]}) + b"\n"


def run(given: BinaryIO, taken: BinaryIO) -> None:
    """Check the events of a file, as the other side of the pipe says."""

    def ask(head: Json) -> Json:
        taken.write(orjson.dumps(head) + b"\n")
        taken.flush()
        answer: Json = orjson.loads(given.readline())
        return answer

    taken.writelines(lines(orjson.loads(given.readline()), ask, _go_on))
    taken.flush()


def _be_killed_first() -> None:
    """Have the kernel kill this process rather than the server when memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _go_on() -> None:
    """Stand in for a pause, where there is nothing else to do."""


def _fields(event: Event, standing: str, state: set[str]) -> list[Any]:
    return [
        event.event_id,
        standing,
        event.event_id in state,
        event.type,
        event.state_key,
        event.sender,
        event.origin_server_ts,
        event.auth_event_ids,
        event.content.get("membership") if event.type == "m.room.member" else None,
    ]


if __name__ == "__main__":
    _be_killed_first()
    run(sys.stdin.buffer, sys.stdout.buffer)
