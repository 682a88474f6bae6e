"""Files of other servers: fetched when they are first requested, and kept as long as there is room.

A file is written to the disk as it comes; all who request it meanwhile wait for the same fetch, and
it goes on when they give up. Thumbnails are made here, as of uploaded files. When the files take
more than `remote_media_bytes`, those that nobody has used for the longest time are deleted.

This module alone writes the table remote_media.
Spec: server-server-api#content-repository
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from email.message import Message
from typing import Final, NamedTuple
from urllib.parse import quote

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from homebody import errors
from homebody.core import audit
from homebody.core.federation import asking
from homebody.core.media import files, quarantine
from homebody.core.media.files import RemoteFile, StoredFile
from homebody.errors import MatrixError
from homebody.models.media import RemoteMediaFile
from homebody.outside import RemoteError, multipart
from homebody.outside.client import Client
from homebody.outside.expiring import Expiring
from homebody.outside.federation import FederationClient
from homebody.outside.multipart import MultipartReader
from homebody.runtime import event_loop
from homebody.spec import identifiers
from homebody.storage.database import Database, Tx

LOG = logging.getLogger(__name__)

FETCH_SECONDS: Final = 120.0
"""For a whole file, longer than a client waits: it gets the file when it requests it again."""
FAILURE_SECONDS: Final = 30.0
MAX_FAILURES: Final = 10_000
MAX_REDIRECTS: Final = 3
MULTIPART_BYTES: Final = 2**17
"""The parts of a response around the file."""
DAY_MS: Final = 86_400_000
KEPT_PART: Final = 0.9
"""Of `remote_media_bytes`, that is left by a deletion."""
DELETED_AT_ONCE: Final = 200
UNUSED_AT_ONCE: Final = 50
GRACE_SECONDS: Final = 3600.0
"""A file is on the disk before its row is in the database."""
DOWNLOAD: Final = "/_matrix/federation/v1/media/download/"
OLD_DOWNLOAD: Final = "/_matrix/media/v3/download/"

_MEDIA_ID: Final = re.compile(r"[0-9A-Za-z_.~-]{1,255}")
_CONTENT_TYPE: Final = re.compile(r"[!-~][ -~]{0,254}")
_OF_FILE = (
    RemoteMediaFile.server == bindparam("its_server"),
    RemoteMediaFile.media_id == bindparam("its_id"),
)
_FIND = select(
    RemoteMediaFile.name,
    RemoteMediaFile.size_bytes,
    RemoteMediaFile.content_type,
    RemoteMediaFile.file_name,
    RemoteMediaFile.last_used_ts,
).where(*_OF_FILE)
_PUT = insert(RemoteMediaFile)
_PUT = _PUT.on_conflict_do_update(
    index_elements=[RemoteMediaFile.server, RemoteMediaFile.media_id],
    set_={
        name: _PUT.excluded[name]
        for name in ("name", "size_bytes", "content_type", "file_name", "last_used_ts", "sha256")
    },
)
_USE = update(RemoteMediaFile).where(*_OF_FILE).values(last_used_ts=bindparam("now_ms"))
_TOTAL = select(func.coalesce(func.sum(RemoteMediaFile.size_bytes), 0))
_OLDEST = (
    select(
        RemoteMediaFile.server.label("its_server"),
        RemoteMediaFile.media_id.label("its_id"),
        RemoteMediaFile.name,
        RemoteMediaFile.size_bytes,
    )
    .order_by(RemoteMediaFile.last_used_ts)
    .limit(DELETED_AT_ONCE)
)
_UNUSED = (
    select(*_OLDEST.selected_columns)
    .where(RemoteMediaFile.last_used_ts < bindparam("before_ts"))
    .order_by(RemoteMediaFile.last_used_ts, RemoteMediaFile.server, RemoteMediaFile.media_id)
    .limit(UNUSED_AT_ONCE)
    .offset(bindparam("skipped"))
)
_COUNT_UNUSED = select(func.count()).where(RemoteMediaFile.last_used_ts < bindparam("before_ts"))
_NAMES = select(RemoteMediaFile.name)
_DELETE = delete(RemoteMediaFile).where(*_OF_FILE)


class MediaName(NamedTuple):
    """The parts of an mxc URI."""

    server: str
    media_id: str


class RemoteMedia:
    """Finds files of other servers. Its methods wait, so none may be called in a transaction."""

    def __init__(self, db: Database, federation: FederationClient, outside: Client) -> None:
        self._db = db
        self._config = db.server.config
        self._federation = federation
        self._outside = outside
        self._lock = threading.Lock()
        self._under_way: dict[MediaName, Future[StoredFile | MatrixError]] = {}
        self._failures: Expiring[MediaName, MatrixError] = Expiring(MAX_FAILURES)
        self._unchecked_bytes = float("inf")
        """Received since all files were added up."""

    def find(
        self, server: str, media_id: str, timeout_ms: int, may_fetch: Callable[[], None]
    ) -> StoredFile:
        """Return a file, which may take `timeout_ms` until its server has it.

        `may_fetch` is called before it is fetched, to raise the error of a rate limit.
        Raises M_NOT_FOUND, also in quarantine, M_NOT_YET_UPLOADED (504) also when a fetch takes
        longer, M_TOO_LARGE (502), and as `asking.error_of` says.
        """
        if not self._config.federation:
            raise errors.not_found("Files of other servers are not available here")
        if not identifiers.is_server_name(server) or not _MEDIA_ID.fullmatch(media_id):
            raise errors.not_found("There is no such file")
        with self._db.read() as tx:
            if quarantine.quarantined_by(tx, server, media_id) is not None:
                raise errors.not_found("There is no such file")
        name = MediaName(server, media_id)
        found = self._stored(name) or self._failures.get(name)
        if found is None:
            found = self._wait_for(name, timeout_ms, may_fetch)
        if isinstance(found, MatrixError):
            raise MatrixError(found.status, found.errcode, found.message)  # each its own traceback
        return found

    def _stored(self, name: MediaName) -> StoredFile | None:
        """Return a file that is on the disk, and note that it is used."""
        with self._db.read() as tx:
            row = tx.sql.execute(_FIND, _key(name)).first()
            is_noted = row is None or row.last_used_ts > tx.now_ms - DAY_MS
        if row is None:
            return None
        found = self._described(row.name, row.size_bytes, row.content_type, row.file_name)
        if not found.path.exists() or found.path.stat().st_size != row.size_bytes:
            return None  # a restored backup has the table alone
        if not is_noted:
            with self._db.write() as tx:
                tx.sql.execute(_USE, {**_key(name), "now_ms": tx.now_ms})
        return found

    def _described(
        self, name: str, size_bytes: int, content_type: str, file_name: str | None
    ) -> StoredFile:
        path = files.remote_path(self._config.data_dir, name)
        folder = files.remote_thumbnails(self._config.data_dir, name)
        return StoredFile(path, folder, name, size_bytes, content_type, file_name)

    def _wait_for(
        self, name: MediaName, timeout_ms: int, may_fetch: Callable[[], None]
    ) -> StoredFile | MatrixError:
        """Wait for the fetch that is under way, or begin one."""
        seconds = asking.seconds_for(self._federation, name.server)
        if not self._federation.is_failing(name.server):
            seconds += timeout_ms / 1000
        with self._lock:
            fetch = self._under_way.get(name)
            if fetch is None:
                may_fetch()
                fetch = event_loop.spawn(self._fetch, name, timeout_ms)
                self._under_way[name] = fetch
        try:
            return fetch.result(seconds)
        except TimeoutError:
            return errors.not_yet_uploaded()

    def _fetch(self, name: MediaName, timeout_ms: int) -> StoredFile | MatrixError:
        """Fetch a file and store it. Returns the error, as many may wait for it."""
        try:
            # One that ended just before this one began may have stored it
            return self._stored(name) or self._receive(name, timeout_ms)
        except RemoteError as error:
            LOG.info("can't fetch mxc://%s/%s: %s", *name, error)
            failure = _error_of(name.server, error)
            if failure.errcode != "M_NOT_YET_UPLOADED":
                self._failures.put(name, failure, FAILURE_SECONDS)
            return failure
        except MatrixError as error:
            return error
        finally:
            with self._lock:
                del self._under_way[name]

    def _receive(self, name: MediaName, timeout_ms: int) -> StoredFile:
        """Fetch a file and store it.

        Raises RemoteError, 503 when the disk is full, M_NOT_FOUND if its content is in quarantine.
        """
        with files.receiving(self._config.data_dir) as file:
            headers = self._download(name, file, timeout_ms)
            kept = file.keep()
        content_type = headers.get("Content-Type", "")
        if not _CONTENT_TYPE.fullmatch(content_type):
            content_type = "application/octet-stream"
        file_name = multipart.file_name(headers)
        with self._db.write() as tx:
            before = tx.sql.execute(_FIND, _key(name)).first()
            row = {
                "server": name.server,
                "media_id": name.media_id,
                "name": kept,
                "size_bytes": file.size_bytes,
                "content_type": content_type,
                "file_name": file_name,
                "last_used_ts": tx.now_ms,
                "sha256": file.sha256,
            }
            tx.sql.execute(_PUT, row)
            is_quarantined = quarantine.follow(tx, name.server, name.media_id, file.sha256)
        if before is not None:
            event_loop.offload(files.remove_remote, self._config.data_dir, [before.name])
        self._make_room(file.size_bytes)
        if is_quarantined:
            raise errors.not_found("There is no such file")
        return self._described(kept, file.size_bytes, content_type, file_name)

    def _download(self, name: MediaName, file: RemoteFile, timeout_ms: int) -> Message:
        """Write a file of a server to the disk; return the headers that describe it.

        Raises RemoteError.
        """
        reader = MultipartReader(file.write)
        media_id = quote(name.media_id, safe="")
        try:
            self._federation.download(
                name.server,
                DOWNLOAD + media_id,
                reader,
                query={"timeout_ms": str(timeout_ms)},
                timeout_s=self._seconds(name.server, timeout_ms),
                max_bytes=self._config.max_remote_file_bytes + MULTIPART_BYTES,
                check=reader.begin,
            )
            reader.finish()
        except RemoteError as error:
            if not _lacks_endpoint(error):
                raise
            path = f"{OLD_DOWNLOAD}{quote(name.server, safe='')}/{media_id}"
            return self._download_as_before(name.server, path, file, timeout_ms)
        location = reader.headers.get("Location")
        return reader.headers if location is None else self._download_from(location, file)

    def _download_as_before(
        self, server: str, path: str, file: RemoteFile, timeout_ms: int
    ) -> Message:
        """Download a file from a server that is older than version 1.11 of the specification."""
        return self._federation.download(
            server,
            path,
            file,
            query={"allow_remote": "false", "timeout_ms": str(timeout_ms)},
            timeout_s=self._seconds(server, timeout_ms),
            max_bytes=self._config.max_remote_file_bytes,
            is_signed=False,
        ).headers

    def _download_from(self, url: str, file: RemoteFile) -> Message:
        """Download a file from where its server says that it is."""
        if file.size_bytes:
            raise RemoteError("bad_response", "The response has both a file and its location")
        try:
            response = self._outside.request(
                "GET",
                url,
                timeout_s=FETCH_SECONDS,
                max_bytes=self._config.max_remote_file_bytes,
                redirects=MAX_REDIRECTS,
                write_to=file.write,
            )
        except RemoteError as error:
            if error.kind != "refused":
                raise
            sentence = f"The file's location is not permitted: {error}"
            raise RemoteError("bad_response", sentence) from error
        if not 200 <= response.status < 300:
            sentence = f"The file's location responds with status {response.status}"
            raise RemoteError("bad_response", sentence)
        headers = Message()
        for name in ("Content-Type", "Content-Disposition"):
            if name in response.headers:
                headers[name] = response.headers[name]
        return headers

    def _seconds(self, server: str, timeout_ms: int) -> float:
        if self._federation.is_failing(server):
            return asking.SECONDS_IF_FAILING
        return FETCH_SECONDS + timeout_ms / 1000

    def _make_room(self, received_bytes: int) -> None:
        """Delete the files that were not used for the longest time, if there are too many."""
        limit = self._config.remote_media_bytes
        self._unchecked_bytes += received_bytes
        if self._unchecked_bytes < limit * (1 - KEPT_PART) / 2:
            return
        self._unchecked_bytes = 0.0
        with self._db.read() as reader:
            total = reader.sql.execute(_TOTAL).scalar_one()
        excess = total - int(limit * KEPT_PART) if total > limit else 0
        while excess > 0:
            with self._db.write() as tx:
                names, freed = _delete_oldest(tx, excess)
            event_loop.offload(files.remove_remote, self._config.data_dir, names)
            excess = excess - freed if names else 0


class Purged(NamedTuple):
    """What was deleted."""

    files: int
    freed_bytes: int


def delete_unused(
    db: Database, before_ts: int, is_kept: Callable[[str, str], bool] = lambda *_: False
) -> Iterator[Purged]:
    """Delete files that were last used before a time (ms); yield what each step has deleted.

    They are fetched again when somebody requests them. `is_kept` is asked with server and media ID.
    """
    skipped = 0
    while True:
        with db.write() as tx:
            asked = {"before_ts": before_ts, "skipped": skipped}
            rows = tx.sql.execute(_UNUSED, asked).all()
            chosen = [row for row in rows if not is_kept(row.its_server, row.its_id)]
            keys = [{"its_server": row.its_server, "its_id": row.its_id} for row in chosen]
            tx.sql.execute(_DELETE, keys)
        skipped += len(rows) - len(chosen)
        names = [row.name for row in chosen]
        event_loop.offload(files.remove_remote, db.server.config.data_dir, names)
        yield Purged(len(chosen), sum(row.size_bytes for row in chosen))
        if len(rows) < UNUSED_AT_ONCE:
            return
        event_loop.pause()


def purge(db: Database, actor: str, before_ts: int) -> Iterator[Purged]:
    """Delete files as `delete_unused` does, on an administrator's order."""
    with db.write() as tx:
        audit.note(tx, actor, "media.purge_remote", None, before_ts=before_ts)
    yield from delete_unused(db, before_ts)


def count_unused(db: Database, before_ts: int) -> int:
    """Return how many files were last used before a time (ms)."""
    with db.read() as tx:
        return int(tx.sql.execute(_COUNT_UNUSED, {"before_ts": before_ts}).scalar_one())


def sweep(db: Database, step: Callable[[], None] = event_loop.pause) -> int:
    """Delete files and thumbnails without a row, as interruptions leave them; return how many."""
    data_dir, count = db.server.config.data_dir, 0
    before_s = time.time() - GRACE_SECONDS
    with db.read() as tx:
        used = {row.name for row in tx.sql.execute_long(_NAMES, {})}
    for prefix in files.PREFIXES:
        names: set[str] = set()
        for kind in ("remote", "remote_thumbnails"):
            found = event_loop.offload(files.names_in, data_dir, kind, prefix, before_s)
            names.update(found)
        if unused := names - used:
            event_loop.offload(files.remove_remote, data_dir, sorted(unused))
            count += len(unused)
        step()
    return count


def _delete_oldest(tx: Tx, excess: int) -> tuple[list[str], int]:
    """Delete rows of so many bytes, or DELETED_AT_ONCE; return the files' names and their bytes."""
    freed = 0
    chosen = []
    for row in tx.sql.execute(_OLDEST):
        if freed >= excess:
            break
        chosen.append(row)
        freed += row.size_bytes
    if chosen:
        keys = [{"its_server": row.its_server, "its_id": row.its_id} for row in chosen]
        tx.sql.execute(_DELETE, keys)
    return [row.name for row in chosen], freed


def _key(name: MediaName) -> dict[str, str]:
    return {"its_server": name.server, "its_id": name.media_id}


def _lacks_endpoint(error: RemoteError) -> bool:
    """Return whether a server does not know the path for other servers, rather than the file."""
    if error.errcode is None:
        return error.status in {400, 404, 405}
    return error.errcode == "M_UNRECOGNIZED"


def _error_of(server: str, error: RemoteError) -> MatrixError:
    if error.errcode == "M_NOT_YET_UPLOADED":
        return errors.not_yet_uploaded()
    if error.kind == "too_large" or error.errcode == "M_TOO_LARGE":
        return MatrixError(502, "M_TOO_LARGE", f"The file of {server} is too large for this server")
    return asking.error_of(server, error)
