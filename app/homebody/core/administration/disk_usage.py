"""What takes the space on the disk, and how much each way of freeing some would give.

The pages of the database are counted by SQLite itself, which reads the head of each page: a second
for a gigabyte in memory. How much a room takes is estimated from its number of events, as counting
exactly would read all of them. It all takes too long for a request: for commands, and for threads.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, func, select

from homebody.core.administration import abandoned_rooms, media_retention
from homebody.core.media import references
from homebody.models.account_data import AccountData
from homebody.models.events import StoredEvent
from homebody.models.key_backup import KeyBackup
from homebody.models.media import Media, RemoteMediaFile, UrlPreview
from homebody.spec.events import Json
from homebody.storage import data_folder, vacuum
from homebody.storage.database import Database, Reader

DAY_MS: Final = 86_400_000
TOP: Final = 10
PURPOSES: Final = {
    "events": ("events", "event_auth", "gaps", "inbound_pdus", "pending_redactions"),
    "state of rooms": (
        "state_intervals",
        "state_differences",
        "differing_entries",
        "rooms",
        "stripped_state",
    ),
    "search index": ("search_index", "search_progress", "directory_words"),
    "receipts": ("receipts",),
    "notifications": ("notifications", "unread_counts", "pushers"),
    "to-device messages": (
        "to_device_messages",
        "to_device_transactions",
        "to_device_cut_answers",
        "received_messages",
    ),
    "encryption keys": (
        "device_keys",
        "one_time_keys",
        "claimed_one_time_keys",
        "fallback_keys",
        "cross_signing_keys",
        "key_signatures",
        "remote_devices",
        "remote_users",
        "device_list_changes",
        "dehydrated_devices",
    ),
    "key backups": ("key_backups", "backed_up_keys"),
    "account data": ("account_data", "filters", "profile_fields"),
    "lists of files": ("media", "remote_media", "url_previews", "quarantined_media"),
    "outgoing": ("outbox", "federation_log", "destinations", "joining", "delayed_events"),
}
"""The tables by what they are for; all others are "other"."""
EVENTS: Final = "events"
OF_USERS: Final = "files of users"
"""With those of link previews, whose images become files of this server."""
_SAMPLED: Final = 1_000
_SEARCH: Final = "search_index"
"""The beginning of the names of the tables that the full-text index consists of."""

_ROOMS = (
    select(StoredEvent.room_id, func.count().label("events"))
    .group_by(StoredEvent.room_id)
    .order_by(func.count().desc())
)
_LARGEST_ROOMS = _ROOMS.limit(bindparam("count"))
_SAMPLE = select(StoredEvent.pdu).order_by(StoredEvent.number.desc()).limit(bindparam("count"))
_SAMPLE_SIZE = select(func.avg(func.length(_SAMPLE.subquery().c.pdu)))
_OLD_EVENTS = select(func.count()).where(
    StoredEvent.origin_server_ts < bindparam("before_ts"),
    StoredEvent.position.is_not(None),
    StoredEvent.state_key.is_(None),
)
_FILES_OF_USERS = (
    select(Media.user_id, func.count().label("files"), func.sum(Media.size_bytes).label("size"))
    .where(Media.size_bytes.is_not(None), Media.user_id.is_not(None))
    .group_by(Media.user_id)
)
_DATA_OF_USERS = select(
    AccountData.user_id, func.sum(AccountData.size_bytes).label("size")
).group_by(AccountData.user_id)
_KEYS_OF_USERS = (
    select(KeyBackup.user_id, func.sum(KeyBackup.size_bytes).label("size"))
    .where(~KeyBackup.is_deleted)
    .group_by(KeyBackup.user_id)
)
_UNUSED_REMOTE = select(
    func.count().label("files"),
    func.coalesce(func.sum(RemoteMediaFile.size_bytes), 0).label("size"),
).where(RemoteMediaFile.last_used_ts < bindparam("before_ts"))
_LOCAL = select(
    func.count().label("files"), func.coalesce(func.sum(Media.size_bytes), 0).label("size")
).where(Media.size_bytes.is_not(None))
_REMOTE = select(
    func.count().label("files"),
    func.coalesce(func.sum(RemoteMediaFile.size_bytes), 0).label("size"),
)
_PREVIEWS = (
    select(func.coalesce(func.sum(Media.size_bytes), 0))
    .where(Media.sha256.in_(select(UrlPreview.image_sha256)))
    .scalar_subquery()
)


class Ages(NamedTuple):
    """How old what could be deleted is, in days."""

    remote_media: int = 30
    local_media: int = 180
    history: int = 365


def measure(db: Database, *, top: int = TOP, ages: Ages | None = None) -> Json:
    """Return what takes the space.

    {"database": {"bytes", "free_bytes", "by_purpose": {purpose: bytes}},
    "media": {kind: {"files", "bytes"}}, "disk": {"total_bytes", "free_bytes"},
    "rooms": [{"room_id", "events", "bytes"}], "users": [{"user_id", "files", "bytes", …}],
    "could_free": [{"what", "bytes", "command", …}]}
    """
    found: Json = {"database": _database(db), "media": _media(db), "disk": _disk(db)}
    events_bytes = found["database"]["by_purpose"].get(EVENTS, 0)
    with db.read() as tx:
        counts: list[Any] = tx.sql.execute(_ROOMS).all()
        per_event = events_bytes / max(1, sum(row.events for row in counts))
        found["rooms"] = [
            {"room_id": it.room_id, "events": it.events, "bytes": int(it.events * per_event)}
            for it in counts[:top]
        ]
        found["users"] = _users(tx)[:top]
    by_room = {row.room_id: int(row.events * per_event) for row in counts}
    found["could_free"] = _could_free(db, ages or Ages(), by_room, per_event)
    return found


def largest_rooms(tx: Reader, top: int = TOP) -> list[Json]:
    """Return the rooms with the most events, with an estimate of the bytes of those.

    [{"room_id", "estimated_size"}], the largest first. Quick enough for a request: the events are
    counted in an index, and the mean size is that of the newest ones of the server.
    """
    found = tx.sql.execute_long(_LARGEST_ROOMS, {"count": top})
    mean = tx.sql.execute(_SAMPLE_SIZE, {"count": _SAMPLED}).scalar() or 0
    return [{"room_id": it.room_id, "estimated_size": int(it.events * mean)} for it in found]


def overview(db: Database) -> Json:
    """Return the sizes that are known at once, for pages and metrics.

    {"database_bytes", "empty_bytes", "files", "file_bytes", "remote_files", "remote_file_bytes",
    "disk": {"total_bytes", "free_bytes"}}. A content that several files have counts for each.
    """
    with db.read() as tx:
        pages = vacuum.pages(tx)
        local, remote = (tx.sql.execute_long(it, {})[0] for it in (_LOCAL, _REMOTE))
    return {
        "database_bytes": pages.total * pages.size_bytes,
        "empty_bytes": pages.free * pages.size_bytes,
        "files": local.files,
        "file_bytes": local.size,
        "remote_files": remote.files,
        "remote_file_bytes": remote.size,
        "disk": _disk(db),
    }


def _database(db: Database) -> Json:
    path = data_folder.database_path(db.server.config.database_url)
    files = [path, path.with_name(f"{path.name}-wal")]
    with db.read() as tx:
        pages = vacuum.pages(tx)
        by_purpose = _by_purpose(tx)
    return {
        "bytes": sum(it.stat().st_size for it in files if it.exists()),
        "free_bytes": pages.free * pages.size_bytes,
        "shrinks_by_itself": pages.is_incremental,
        "by_purpose": by_purpose,
    }


def _by_purpose(tx: Reader) -> dict[str, int]:
    """Return {purpose: bytes}, the largest first; empty where SQLite can't tell."""
    purpose_of = {name: purpose for purpose, names in PURPOSES.items() for name in names}
    found: Counter[str] = Counter()
    for name, size in vacuum.table_bytes(tx).items():
        of_table = _SEARCH if name.startswith(_SEARCH) else name
        found[purpose_of.get(of_table, "other")] += size
    return dict(found.most_common())


def _media(db: Database) -> dict[str, Json]:
    folder = db.server.config.data_dir / "media"
    kinds = {
        OF_USERS: "files",
        "files of other servers": "remote",
        "thumbnails": "thumbnails",
        "thumbnails of other servers": "remote_thumbnails",
        "being written or deleted": "incoming",
    }
    found = {kind: _size_of(folder / name) for kind, name in kinds.items()}
    with db.read() as tx:
        previews = tx.sql.execute(select(_PREVIEWS.label("size"))).scalar_one()
    found[OF_USERS]["preview_bytes"] = previews
    return found


def _size_of(folder: Path) -> Json:
    """Return the number of files in a folder, and the bytes that they take on the disk."""
    count = size = 0
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                found = (Path(base) / name).stat()
            except FileNotFoundError:
                continue  # deleted meanwhile
            count += 1
            size += found.st_blocks * 512
    return {"files": count, "bytes": size}


def _disk(db: Database) -> Json:
    usage = os.statvfs(db.server.config.data_dir)
    return {
        "total_bytes": usage.f_blocks * usage.f_frsize,
        "free_bytes": usage.f_bavail * usage.f_frsize,
    }


def _users(tx: Reader) -> list[Json]:
    """Return what each user takes, the most first: uploads and account data."""
    found: dict[str, Json] = {}

    def of(user_id: str) -> Json:
        empty = {"files": 0, "media_bytes": 0, "account_data_bytes": 0, "key_backup_bytes": 0}
        return found.setdefault(user_id, {"user_id": user_id, **empty})

    for row in tx.sql.execute(_FILES_OF_USERS):
        of(row.user_id).update(files=row.files, media_bytes=row.size)
    for row in tx.sql.execute(_DATA_OF_USERS):
        of(row.user_id)["account_data_bytes"] = row.size
    for row in tx.sql.execute(_KEYS_OF_USERS):
        of(row.user_id)["key_backup_bytes"] = row.size
    parts = ("media_bytes", "account_data_bytes", "key_backup_bytes")
    return sorted(found.values(), key=lambda it: -sum(it[part] for part in parts))


def _could_free(db: Database, ages: Ages, by_room: dict[str, int], per_event: float) -> list[Json]:
    """Return how much each way of freeing space would give."""
    now_ms = time.time_ns() // 1_000_000
    with db.read() as tx:
        before = {"before_ts": now_ms - ages.remote_media * DAY_MS}
        remote = tx.sql.execute(_UNUSED_REMOTE, before).one()
        before = {"before_ts": now_ms - ages.history * DAY_MS}
        old_events = tx.sql.execute(_OLD_EVENTS, before).scalar_one()
        pages = vacuum.pages(tx)
    unused = media_retention.unused_files(
        db,
        now_ms - ages.local_media * DAY_MS,
        used=references.collect(db),
        with_encrypted=False,
    )
    abandoned = [it.room_id for it in abandoned_rooms.find(db)]
    return [
        {
            "what": f"files of other servers, unused for {ages.remote_media} days",
            "files": remote.files,
            "bytes": int(remote.size),
            "command": f"homebody media purge-remote --days {ages.remote_media}",
        },
        {
            "what": f"files of users that are not in use, unused for {ages.local_media} days",
            "files": len(unused),
            "bytes": sum(it.size_bytes for it in unused),
            "command": f"homebody media delete-unused --days {ages.local_media}",
        },
        {
            "what": "rooms that all users of this server have left",
            "rooms": len(abandoned),
            "bytes": sum(by_room.get(it, 0) for it in abandoned),
            "command": "homebody rooms delete ROOM",
        },
        {
            "what": f"messages older than {ages.history} days",
            "events": old_events,
            "bytes": int(old_events * per_event),
            "command": f'homebody rooms purge-history ROOM --older-than "{ages.history} d"'
            " --delete-local-events",
        },
        {
            "what": "empty pages of the database",
            "bytes": max(0, pages.free - (pages.kept if pages.is_incremental else 0))
            * pages.size_bytes,
            "command": "homebody disk --vacuum",
        },
    ]
