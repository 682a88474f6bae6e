"""When files were last used, written some at a time and once a day for each file."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import select

from homebody.core.media import last_used
from homebody.core.media.last_used import LastUsed
from homebody.errors import MatrixError
from homebody.models.media import Media
from homebody.storage.database import Database
from homebody.web import Application
from tests.client_server.test_media import upload
from tests.conftest import Login


@pytest.fixture
def database(app: Application) -> Database:
    return app.homeserver.database


@pytest.fixture
def media_id(login: Login) -> str:
    return upload(login("alice")).partition("/")[2]


def used_ts(database: Database) -> int | None:
    with database.read() as tx:
        found: int | None = tx.sql.execute(select(Media.last_used_ts)).scalar_one()
        return found


def test_a_use_is_written_once_a_day(
    database: Database, media_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, now = LastUsed(database), time.time_ns()
    used.note(media_id)
    assert used_ts(database) is None
    used.write()
    first = used_ts(database)
    assert first is not None

    used.note(media_id)
    used.write()

    assert used_ts(database) == first
    monkeypatch.setattr(time, "time_ns", lambda: now + 86_400 * 10**9)
    used.note(media_id)
    used.write()
    later = used_ts(database)
    assert later is not None
    assert later > first + 86_000_000


def test_what_could_not_be_written_is_written_later(
    database: Database, media_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = LastUsed(database)
    used.note(media_id)

    def fail(**_: object) -> None:
        raise MatrixError(503, "M_UNKNOWN", "full")

    with monkeypatch.context() as patch:
        patch.setattr(database, "write", fail)
        with pytest.raises(MatrixError):
            used.write()

    used.write()

    assert used_ts(database) is not None


def test_the_memory_for_uses_is_bounded(
    database: Database, media_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_used, "MAX_NOTED", 10)
    used = LastUsed(database)

    for number in range(1000):
        used.note(f"other{number}")
        used.write()

    used.note(media_id)
    used.write()
    assert used_ts(database) is not None
    assert len(used._noted) <= 10  # noqa: SLF001 - the bound itself


def test_uses_are_written_when_the_server_asks_for_them(
    app: Application, database: Database, media_id: str, login: Login
) -> None:
    login("alice").get(f"/_matrix/client/v1/media/download/localhost/{media_id}")

    app.homeserver.media_used.write()

    assert used_ts(database) is not None
