"""Export of a user's own data into a ZIP archive, for the user or by an administrator.

It contains what the user has put on this server: profile, settings, devices, e-mail addresses, the
list of rooms, every event that the user has sent, and the files that they have uploaded. What
others have written is not in it: the user may read it, but it is theirs, and clients export
conversations. Encrypted events and files are in the archive as they are here, encrypted.

The archive gets its name when it is complete. Exports that users order are tasks; their archives
are in the folder `exports` of the data folder for some days.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
from sqlalchemy import Row, bindparam, select

from homebody import errors
from homebody.core import archives, tasks
from homebody.core.accounts import accounts, external_ids, threepids
from homebody.core.accounts.access_tokens import LastSeen
from homebody.core.administration import user_activity
from homebody.core.media import files, quarantine
from homebody.core.profiles import profiles
from homebody.core.rooms import user_redaction
from homebody.core.sessions import devices
from homebody.core.tasks import Task
from homebody.core.user_data import account_data, thread_subscriptions
from homebody.models.events import StoredEvent
from homebody.models.media import Media
from homebody.runtime import event_loop
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import batches

ACTION: Final = archives.ACTION
KEPT_MS: Final = 3 * 24 * 3_600_000
"""How long the archive of a user's export can be downloaded."""
AGAIN_MS: Final = 3_600_000
"""How soon after an export the next one can be ordered."""
ROWS_AT_ONCE: Final = 2000
"""Of a room, read to find those of the user."""
EVENTS_AT_ONCE: Final = 200

README: Final = """\
The data of {user_id} on this Matrix server, as of {when}.

account.json   profile, e-mail addresses, logins elsewhere, devices, and settings by room ("" is for
               all rooms)
rooms.jsonl    the rooms in which you are or were
events.jsonl   what you have sent, one event a line, room by room; what you have deleted is empty,
               and encrypted messages are encrypted
media.jsonl    the files that you have uploaded, and where they are in this archive
media/         these files; those of encrypted rooms are encrypted

What others have sent is not here. Clients can export whole conversations, decrypted.
"""

Report = Callable[[Json], None]

_ROWS = (
    select(StoredEvent.number, StoredEvent.position, StoredEvent.sender)
    .where(StoredEvent.room_id == bindparam("room_id"), StoredEvent.position > bindparam("after"))
    .order_by(StoredEvent.position)
    .limit(bindparam("count"))
)
_EVENTS = (
    select(StoredEvent.event_id, StoredEvent.room_id, StoredEvent.pdu)
    .where(StoredEvent.number.in_(bindparam("numbers", expanding=True)))
    .order_by(StoredEvent.position)
)
_FILES = (
    select(
        Media.origin,
        Media.media_id,
        Media.file_name,
        Media.content_type,
        Media.size_bytes,
        Media.created_ts,
        Media.sha256,
    )
    .where(Media.user_id == bindparam("user_id"), Media.sha256.is_not(None))
    .order_by(Media.created_ts, Media.media_id)
)
_FIRST_ZIP_TIME_S: Final = 315_532_800
"""1980. The clock of a machine that had none yet may have said 1970."""
_OF_EVENT: Final = ("type", "state_key", "content", "origin_server_ts", "redacts")
"""What is taken over from an event, beside its ids."""


def write(db: Database, user_id: str, path: Path, report: Report = lambda _so_far: None) -> Json:
    """Write the archive of a user, and return how many `rooms`, `events` and `files` it contains.

    `report` is called with the same so far, and with `all_rooms`. Whatever ends it leaves no file.
    Raises M_NOT_FOUND for an unknown user; OSError.
    """
    so_far: Json = {"rooms": 0, "all_rooms": 0, "events": 0, "files": 0}
    with _archive(path) as archive:
        with db.read() as tx:
            described, rooms = _described(tx, db, user_id), user_activity.memberships(tx, user_id)
            known = user_redaction.rooms_of(tx, user_id)
        so_far["all_rooms"] = len(known)
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        archive.writestr("README.txt", README.format(user_id=user_id, when=when))
        archive.writestr("account.json", orjson.dumps(described, option=orjson.OPT_INDENT_2))
        lines = ({"room_id": room, "membership": membership} for room, membership in rooms.items())
        archive.writestr("rooms.jsonl", _lines(lines))
        with archive.open("events.jsonl", "w", force_zip64=True) as target:
            for room_id in known:
                for some in _events(db, room_id, user_id):
                    event_loop.offload(target.write, _lines(some))
                    so_far["events"] += len(some)
                    report(so_far)
                    event_loop.pause()
                so_far["rooms"] += 1
        _write_files(db, user_id, archive, so_far, report)
    return so_far


def order(tx: Tx, user_id: str) -> str:
    """Order the task that exports a user's data, and return its id; that of one that is under way.

    Raises M_LIMIT_EXCEEDED when the last one is less than an hour old.
    """
    last = latest(tx, user_id)
    if last is not None and last.status in {tasks.SCHEDULED, tasks.ACTIVE}:
        return last.id
    if last is not None and last.status == tasks.COMPLETE:
        wait = last.created_ts + AGAIN_MS - tx.now_ms
        if wait > 0:
            raise errors.limit_exceeded(wait)
    return tasks.add(tx, ACTION, {"user_id": user_id}, user_id)


def latest(tx: Reader, user_id: str) -> Task | None:
    """Return the last export that a user has ordered, or None."""
    found = tasks.select_tasks(tx, actions=(ACTION,), resource_id=user_id)
    return found[-1] if found else None


def run(db: Database, task: Task, report: Report) -> Json:
    """Do what `order` has ordered. Only the newest archive of a user is kept.

    Raises CancelledError if it was cancelled meanwhile.
    """
    path, user_id = path_of(db, task), task.params["user_id"]
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with db.read() as tx:
        earlier = tasks.select_tasks(tx, actions=(ACTION,), resource_id=user_id)
    written = write(db, user_id, path, report)
    with db.read() as tx:
        is_wanted = task.id in archives.wanted(tx)
    if not is_wanted:  # cancelled after the last report
        path.unlink(missing_ok=True)
        raise tasks.CancelledError
    for it in earlier:
        if it.id != task.id:
            path_of(db, it).unlink(missing_ok=True)
    return written


def path_of(db: Database, task: Task) -> Path:
    """Return where the archive of a task is, once it is complete."""
    return archives.path_of(db.server.config.data_dir, task.id)


def sweep(db: Database) -> None:
    """Delete the archives that are too old, those of erased users, and what a crash has left."""
    folder, now_s = db.server.config.data_dir / archives.FOLDER, time.time()
    paths = list(folder.iterdir()) if folder.is_dir() else []  # before the tasks of new ones
    with db.read() as tx:
        wanted = {
            archives.path_of(db.server.config.data_dir, it).name for it in archives.wanted(tx)
        }
    for path in paths:
        is_partial = path.name[:1] == "."
        if now_s - path.stat().st_mtime > KEPT_MS / 1000 or not (is_partial or path.name in wanted):
            path.unlink(missing_ok=True)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Write an archive in the block; it gets its name at the end, or is deleted."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        # level 1: a stronger compression takes several times as long for a tenth less
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            yield archive
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _described(tx: Reader, db: Database, user_id: str) -> Json:
    account = accounts.find(tx, user_id)
    if account is None:
        raise errors.not_found(f"There is no user {user_id}")
    return {
        "user_id": user_id,
        "created_ts": account.created_ts,
        "profile": profiles.of(tx, user_id),
        "addresses": threepids.of_user(tx, user_id),
        "logins_elsewhere": external_ids.of_user(tx, user_id),
        "devices": devices.described_for_admin(tx, user_id, LastSeen(db)),
        "account_data": account_data.everything(tx, user_id),
        "thread_subscriptions": thread_subscriptions.everything(tx, user_id),
    }


def _events(db: Database, room_id: str, user_id: str) -> Iterator[list[Json]]:
    """Yield the events that a user has sent to a room, some at a time, in their order."""
    after = -(2**62)
    while True:
        with db.read() as tx:
            asked = {"room_id": room_id, "after": after, "count": ROWS_AT_ONCE}
            rows = tx.sql.execute(_ROWS, asked).all()
        own = [row.number for row in rows if row.sender == user_id]
        for some in batches(own, EVENTS_AT_ONCE):
            with db.read() as tx:
                yield [_event(row) for row in tx.sql.execute(_EVENTS, {"numbers": list(some)})]
        if len(rows) < ROWS_AT_ONCE:
            return
        after = rows[-1].position
        event_loop.pause()


def _event(row: Row[*tuple[Any, ...]]) -> Json:
    pdu = orjson.loads(row.pdu)
    kept = {key: pdu[key] for key in _OF_EVENT if key in pdu}
    return {"room_id": row.room_id, "event_id": row.event_id, **kept}


def _write_files(
    db: Database, user_id: str, archive: zipfile.ZipFile, so_far: Json, report: Report
) -> None:
    """Add the user's files as they are, as most are compressed already, and their list."""
    with db.read() as tx:
        rows = tx.sql.execute(_FILES, {"user_id": user_id}).all()
    listed = []
    for row in rows:
        source = files.content_path(db.server.config.data_dir, row.sha256)
        name = f"media/{row.media_id}{_suffix(row.file_name)}"
        is_there = not _is_quarantined(db, row) and source.exists()
        listed.append(
            {
                "uri": f"mxc://{row.origin}/{row.media_id}",
                "file": name if is_there else None,
                "file_name": row.file_name,
                "content_type": row.content_type,
                "size_bytes": row.size_bytes,
                "created_ts": row.created_ts,
            }
        )
        if is_there:
            when = time.gmtime(max(row.created_ts / 1000, _FIRST_ZIP_TIME_S))
            entry = zipfile.ZipInfo(name, when[:6])
            with archive.open(entry, "w", force_zip64=True) as target:
                for piece in files.pieces(source, 0, row.size_bytes):
                    event_loop.offload(target.write, piece)
            so_far["files"] += 1
            report(so_far)
    archive.writestr("media.jsonl", _lines(listed))


def _is_quarantined(db: Database, row: Row[*tuple[Any, ...]]) -> bool:
    with db.read() as tx:
        return quarantine.quarantined_by(tx, row.origin, row.media_id) is not None


def _suffix(file_name: str | None) -> str:
    """Return the ending of a file name, if it is a plain one."""
    suffix = Path(file_name or "").suffix
    return suffix if suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) <= 10 else ""


def _lines(items: Iterable[Json]) -> bytes:
    return b"".join(orjson.dumps(it, option=orjson.OPT_APPEND_NEWLINE) for it in items)
