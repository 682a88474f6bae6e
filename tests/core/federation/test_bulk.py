"""The events of a join, checked in this process or one of their own, and stored as outliers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from homebody.core.events import state
from homebody.core.federation import bulk, bulk_check
from homebody.core.timeline import store
from homebody.models.events import OUTLIER, REJECTED
from homebody.outside import RemoteError
from homebody.runtime import event_loop
from homebody.web import Application
from tests.helpers.remote import Remote
from tests.helpers.remote_room import RemoteRoom, with_wrong_signature
from tests.helpers.waiting import wait_for

Json = dict[str, Any]


@pytest.fixture(autouse=True, params=["here", "in a process"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the events checked in one place, and then in the other."""
    if request.param != "here":
        monkeypatch.setattr(bulk, "MAX_BYTES_HERE", 0)


def response(room: RemoteRoom, *more: Json) -> Json:
    """What the remote answers to send_join, with other events in the auth chain."""
    return {
        "state": [it.pdu for it in room.state.values()],
        "auth_chain": [it.pdu for it in room.events.values()] + list(more),
        "members_omitted": False,
        "event": None,
    }


def check(
    app: Application, room: RemoteRoom, content: Json | bytes, folder: Path, *, is_new: bool = True
) -> bulk.Checked:
    file = folder / "response.json"
    file.write_bytes(content if isinstance(content, bytes) else orjson.dumps(content))
    database = app.homeserver.database
    if is_new:
        with database.write() as tx:
            store.add_room(tx, room.id, state.RoomHead(room.version.name, [], 0))
    return bulk.store_outliers(
        database, app.homeserver.server_keys, room.id, room.version.name, file
    )


def standings(app: Application, room: RemoteRoom) -> dict[str, str]:
    with app.homeserver.database.read() as tx:
        found = state.find_many(tx, list(room.events))
    assert all(it.position is None for it in found.values())
    return {event_id: it.standing for event_id, it in found.items()}


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
def test_all_events_are_stored_and_the_state_is_that_of_the_response(
    app: Application, remote: Any, version: str, tmp_path: Path
) -> None:
    b: Remote = remote("b.test")
    room = b.room(version)
    room.crowd(30)

    checked = check(app, room, response(room), tmp_path)

    assert checked.dropped == []
    assert {key: it.event_id for key, it in checked.state.items()} == {
        key: it.event_id for key, it in room.state.items()
    }
    assert standings(app, room) == dict.fromkeys(room.events, OUTLIER)


def test_an_event_without_a_valid_signature_is_left_out_with_all_that_cite_it(
    app: Application, remote: Any, tmp_path: Path
) -> None:
    b: Remote = remote("b.test")
    room = b.room("11")
    (member,) = room.crowd(1)
    joined = room.state["m.room.member", member]
    topic = room.event("m.room.topic", {"topic": "tea"}, "", sender=member)
    content = response(room)
    lied = with_wrong_signature(joined, b.name)
    for part in ("state", "auth_chain"):
        content[part] = [lied if it == joined.pdu else it for it in content[part]]

    checked = check(app, room, content, tmp_path)

    assert {event_id for event_id, _ in checked.dropped} == {joined.event_id, topic.event_id}
    assert ("m.room.topic", "") not in checked.state
    assert not standings(app, room).keys() & {joined.event_id, topic.event_id}


def test_events_may_cite_what_is_stored_and_not_in_the_response(
    app: Application, remote: Any, tmp_path: Path
) -> None:
    b: Remote = remote("b.test")
    room = b.room("12")
    check(app, room, response(room), tmp_path)
    (member,) = room.crowd(1)
    joined = room.state["m.room.member", member]
    outcast = room.event("m.room.topic", {"topic": "tea"}, "", sender=member)

    checked = check(
        app, room, {"pdus": [joined.pdu], "auth_chain": [outcast.pdu]}, tmp_path, is_new=False
    )

    assert checked.dropped == []
    assert [it.event_id for it in checked.state.values()] == [joined.event_id]
    found = standings(app, room)
    assert (found[joined.event_id], found[outcast.event_id]) == (OUTLIER, REJECTED)


def test_an_event_that_its_auth_events_do_not_allow_is_stored_as_rejected(
    app: Application, remote: Any, tmp_path: Path
) -> None:
    b: Remote = remote("b.test")
    room = b.room("11")
    (member,) = room.crowd(1)
    levels = room.event("m.room.power_levels", {"users": {}}, "", sender=member)

    checked = check(app, room, response(room), tmp_path)

    assert checked.dropped == []
    assert standings(app, room)[levels.event_id] == REJECTED
    assert ("m.room.power_levels", "") not in checked.state


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"state": 5}',
        b'{"state": [1]}',
        b'{"state": ["\\ud800"]}',
        b'{"event": "\\ud800"}',
        b'{"event": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
)
def test_a_malformed_response_stores_nothing(
    app: Application, remote: Any, content: bytes, tmp_path: Path
) -> None:
    b: Remote = remote("b.test")
    room = b.room("11")

    if content == b'{"state": [1]}':
        assert check(app, room, content, tmp_path).state == {}
    else:
        with pytest.raises(RemoteError):
            check(app, room, content, tmp_path)

    assert standings(app, room) == {}


def test_a_process_is_started_for_many_events_only(
    app: Application, remote: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    start = subprocess.Popen

    def note(*args: Any, **kwargs: Any) -> Any:
        started.append(args)
        return start(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", note)
    b: Remote = remote("b.test")
    few, many = b.room("11"), b.room("11")
    many.crowd(100)
    monkeypatch.setattr(bulk, "MAX_BYTES_HERE", 32 * 1024)

    check(app, few, response(few), tmp_path)
    after_few = len(started)
    check(app, many, response(many), tmp_path)

    assert (after_few, len(started)) == (0, 1)
    assert set(standings(app, many).values()) == {OUTLIER}


def test_others_have_their_turn_while_events_are_checked_here(
    app: Application, remote: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[None] = []
    monkeypatch.setattr(event_loop, "pause", lambda: pauses.append(None))
    monkeypatch.setattr(bulk, "MAX_BYTES_HERE", 2**20)
    b: Remote = remote("b.test")
    room = b.room("11")
    room.crowd(100)
    total = len(room.events)

    check(app, room, response(room), tmp_path)

    steps = 3  # each event is parsed, verified and authorised
    assert len(pauses) >= steps * (total // bulk_check.BETWEEN_PAUSES)


def test_its_process_is_killed_before_the_server_when_there_is_no_memory_left() -> None:
    with subprocess.Popen(bulk.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        badness = Path(f"/proc/{process.pid}/oom_score_adj")
        try:
            wait_for(lambda: badness.read_text().strip() == "1000", "its place in the order")
        finally:
            process.kill()
