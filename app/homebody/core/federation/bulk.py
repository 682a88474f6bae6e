"""Thousands of events at once: those that come with a join, checked in a process of their own.

The process (`bulk_check.py`) reads the response from a file, says which keys it needs, and sends
the events back, each after those that it cites. They are stored as outliers in short writes, with
other requests in between. Only what the caller does with the state afterwards makes the room one
of this server's, so a crash leaves nothing but unused rows. A few hundred events are checked in
this process, with other requests in between as well.

Spec: server-server-api#joining-rooms
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import orjson

from homebody.core.events import auth_chains, state
from homebody.core.federation import bulk_check, join_keys
from homebody.core.federation.keys import ServerKeys
from homebody.core.timeline import many_outliers
from homebody.core.timeline.many_outliers import Outlier
from homebody.models.events import REJECTED
from homebody.outside import RemoteError
from homebody.runtime import event_loop
from homebody.spec import signing
from homebody.spec.events import Json, StateKey
from homebody.storage.database import Database
from homebody.storage.expressions import batches

LOG = logging.getLogger(__name__)

EVENTS_PER_WRITE: Final = 150
"""Other writers wait for some 3 ms."""
MAX_BYTES_HERE: Final = 512 * 2**10
"""Of a response that is checked in this process: 500 events, in a tenth of a second."""
COMMAND: Final = (sys.executable, "-P", "-m", "homebody.core.federation.bulk_check")


@dataclass
class Checked:
    """What a response contained, and what became of it."""

    head: Json
    """`event`, `members_omitted` and `servers_in_room` of the response."""
    state: dict[StateKey, Outlier] = field(default_factory=dict)
    """The entries of the state, without rejected events."""
    stored: int = 0
    dropped: list[list[str]] = field(default_factory=list)
    """[event ID, problem] of events that were left out, at most 100."""


def store_outliers(
    db: Database,
    keys: ServerKeys,
    room_id: str,
    version: str,
    file: Path,
    *,
    resident: str | None = None,
) -> Checked:
    """Check the events of a send_join or /state response, and store them as outliers.

    `resident` is the server that has sent them, if it may say what the keys of servers are that
    can't be asked (join_keys.py): only for a room of which this server knows nothing better.
    The room must have its row already. Raises RemoteError if the response is not one.
    Never within a transaction: it waits for keys and for the process.
    """
    checked = Checked({})

    def ask(head: Json) -> Json:
        known = _known(db, room_id, head.pop("cited"))
        wanted = head.pop("keys")
        checked.head = head
        return {"keys": _keys(keys, resident, wanted), "known": known}

    task = {"file": str(file), "room_id": room_id, "version": version}
    is_small = file.stat().st_size <= MAX_BYTES_HERE
    lines = bulk_check.lines(task, ask, event_loop.pause) if is_small else _elsewhere(task, ask)
    wait_for_commit = _done
    with closing(lines):
        for some in _pieces(lines, checked):
            wait_for_commit = _store(db, room_id, some, checked)
    wait_for_commit()  # the last one comes last
    for event_id, problem in checked.dropped:
        LOG.info("the event %s of %s is left out: %s", event_id, room_id, problem)
    return checked


def _elsewhere(task: Json, ask: Callable[[Json], Json]) -> Generator[bytes]:
    """Yield the lines of `bulk_check.lines`, from a process of their own."""
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own words
        given, taken = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
        try:
            _write(given, task)
            if head := taken.readline():
                _write(given, ask(orjson.loads(head)))
                yield from taken
        finally:
            process.kill()  # it has ended, unless something failed


def _done() -> None:
    """Wait for nothing."""


def _known(db: Database, room_id: str, event_ids: list[str]) -> list[list[Any]]:
    """Return those of these events of a room that are stored: [event ID, standing, PDU]."""
    found: list[list[Any]] = []
    for some in batches(event_ids, EVENTS_PER_WRITE):
        with db.read() as tx:
            found += [
                [event_id, it.standing, it.event.pdu]
                for event_id, it in state.find_many(tx, some).items()
                if it.event.room_id == room_id
            ]
    return found


def _keys(
    keys: ServerKeys, resident: str | None, wanted: list[tuple[str, str, int]]
) -> list[list[Any]]:
    names = {(server, key_id): at_ts for server, key_id, at_ts in wanted}
    known = join_keys.find(keys, names, resident)
    return [
        [
            *name,
            signing.verify_key_to_base64(key.key),
            key.valid_until_ts if key.expired_ts is None else key.expired_ts,
        ]
        for name, key in known.items()
    ]


def _pieces(lines: Iterable[bytes], checked: Checked) -> Iterator[list[Outlier]]:
    """Yield the events in batches; set what the last line says. Raises RemoteError if it lacks."""
    some: list[Outlier] = []
    for line in lines:
        fields, tab, pdu = line.partition(b"\t")
        if not tab:
            checked.dropped = orjson.loads(line)["dropped"]
            yield some
            return
        event = Outlier(pdu[:-1].decode(), *orjson.loads(fields))
        if event.is_in_state and event.standing != REJECTED:
            checked.state[event.type, event.state_key] = event
        some.append(event)
        if len(some) == EVENTS_PER_WRITE:
            yield some
            some = []
    is_response = bool(checked.head)
    problem = "could not be checked" if is_response else "has no state and auth_chain"
    raise RemoteError("bad_response", f"The response {problem}")


def _store(db: Database, room_id: str, some: list[Outlier], checked: Checked) -> Callable[[], None]:
    with db.write(is_awaited=False) as tx:
        many_outliers.store_many(tx, room_id, some)
        known = auth_chains.numbers_of(tx, [it.event_id for it in some])
        for event in some:
            event.number = known[event.event_id]
    checked.stored += len(some)
    event_loop.pause()
    return tx.wait_for_commit


def _write(given: BinaryIO, value: Json) -> None:
    given.write(orjson.dumps(value) + b"\n")
    given.flush()
