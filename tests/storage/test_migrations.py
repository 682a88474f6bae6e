"""Migrations, step by step: nothing is lost on the way up, and the way down leads back."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, Table, create_engine, func, insert, inspect, select, text, types
from sqlalchemy.engine.interfaces import ReflectedIndex
from sqlalchemy.exc import OperationalError

from homebody.config import settings
from homebody.core.events import relations
from homebody.models.base import NOW_AND_LATER
from homebody.storage import rewriting
from homebody.storage.migrations import FOLDER, current, known, upgrade

ROWS = 3
INTERVALS = [  # room, type, state key, from, to, event, membership
    ("!b", "m.room.create", "", 1, NOW_AND_LATER, 1, None),
    ("!b", "m.room.member", "@bob:x", 2, 5, 2, "join"),
    ("!a", "m.room.create", "", 3, NOW_AND_LATER, 3, None),
    ("!a", "m.room.member", "@bob:x", 4, NOW_AND_LATER, 4, "join"),
    ("!b", "m.room.member", "@bob:x", 5, 7, 5, "leave"),
    ("!c", "m.room.name", "", 6, NOW_AND_LATER, 6, None),
    ("!b", "m.room.member", "@bob:x", 7, NOW_AND_LATER, 7, "join"),
    ("!c", "m.room.member", "@carol:x", 8, NOW_AND_LATER, 8, "ban"),
]
"""Of three rooms: Bob has left one of them and come back."""


class Migrations:
    """Alembic on a database of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "homebody.db"
        self.url = f"sqlite:///{self.file}"
        self.config = Config(FOLDER / "alembic.ini", cmd_opts=Namespace(x=[f"url={self.url}"]))
        self.engine = create_engine(self.url)

    def up(self, revision: str) -> None:
        command.upgrade(self.config, revision)

    def down(self, revision: str) -> None:
        command.downgrade(self.config, revision)

    def tables(self) -> list[Table]:
        """The tables as they are in the database now, without Alembic's own and FTS5's."""
        found = MetaData()
        found.reflect(self.engine, only=lambda name, _: not name.startswith("search_index"))
        return [table for table in found.sorted_tables if table.name != "alembic_version"]

    def schema(self) -> dict[str, Any]:
        """What the tables look like, whatever the order of columns and indexes."""
        eye = inspect(self.engine)
        return {
            table.name: {
                "columns": {
                    column["name"]: (str(column["type"]), column["nullable"])
                    for column in eye.get_columns(table.name)
                },
                "key": eye.get_pk_constraint(table.name),
                "indexes": sorted(map(describe, eye.get_indexes(table.name))),
            }
            for table in self.tables()
        }

    def fill(self) -> None:
        """Put rows into every table."""
        with self.engine.begin() as connection:
            for table in self.tables():
                rows = [row_of(table, number) for number in range(100, 100 + ROWS)]
                connection.execute(insert(table), rows)

    def counts(self) -> dict[str, int]:
        """{table: how many rows it has}"""
        with self.engine.connect() as connection:
            return {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in self.tables()
            }


def describe(index: ReflectedIndex) -> str:
    """What an index is of, and of which rows: `ix_media_expires_ts True ['expires_ts'] …`."""
    condition = index.get("dialect_options", {}).get("sqlite_where", "")
    return f"{index['name']} {index['unique']} {index['column_names']} {condition}"


def row_of(table: Table, number: int) -> dict[str, Any]:
    """A row that no other one is like; no event is redacted, as that takes rows away."""
    columns = (column for column in table.columns if column.name != "redacted_by")
    return {column.name: value_of(column.type, number) for column in columns}


def value_of(kind: Any, number: int) -> Any:
    """A value for a column; texts are JSON, as some columns hold that."""
    if isinstance(kind, types.Boolean):
        return bool(number % 2)
    if isinstance(kind, types.Integer):
        return number
    if isinstance(kind, types.Numeric | types.Float):
        return number / 8
    if isinstance(kind, types.LargeBinary):
        return bytes([number])
    return {"n": number} if isinstance(kind, types.JSON) else f'{{"n": {number}}}'


def revisions() -> list[str]:
    """The numbers of all migrations as Alembic orders them."""
    scripts = ScriptDirectory(str(FOLDER))
    return [script.revision for script in scripts.walk_revisions()][::-1]


REVISIONS = revisions()
STEPS = list(zip(["base", *REVISIONS[:-1]], REVISIONS, strict=True))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{revision: an empty database that has come as far as that}, to copy."""
    folder = tmp_path_factory.mktemp("stages")
    found = {"base": folder / "base.db"}
    found["base"].touch()
    database = Migrations(folder)
    for revision in REVISIONS:
        database.up(revision)
        found[revision] = folder / f"{revision}.db"
        shutil.copy(database.file, found[revision])
    database.engine.dispose()
    return found


@pytest.fixture
def migrations(tmp_path: Path) -> Iterator[Migrations]:
    """An empty database, and the migrations to go through."""
    found = Migrations(tmp_path)
    yield found
    found.engine.dispose()


def test_an_empty_database_goes_all_the_way_up_and_down(migrations: Migrations) -> None:
    migrations.up("head")
    schema = migrations.schema()

    migrations.down("base")
    left = [it for it in inspect(migrations.engine).get_table_names() if it != "alembic_version"]
    migrations.up("head")

    assert left == []
    assert migrations.schema() == schema


def test_models_and_migrations_have_not_parted(migrations: Migrations) -> None:
    migrations.up("head")

    command.check(migrations.config)  # raises when they have


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_a_step_keeps_the_rows(
    before: str, after: str, migrations: Migrations, stages: dict[str, Path]
) -> None:
    shutil.copy(stages[before], migrations.file)
    migrations.fill()
    counts = migrations.counts()

    migrations.up(after)

    assert current(migrations.url) == after
    now = migrations.counts()
    assert {table: now[table] for table in counts if table in now} == {
        table: count for table, count in counts.items() if table in now
    }


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_a_step_back_leads_where_it_came_from(
    before: str, after: str, migrations: Migrations, stages: dict[str, Path]
) -> None:
    shutil.copy(stages[before], migrations.file)
    schema = migrations.schema()
    migrations.up(after)
    migrations.fill()

    migrations.down(before)

    assert migrations.schema() == schema


def test_every_table_takes_the_rows_of_these_tests(migrations: Migrations) -> None:
    migrations.up("head")
    before = migrations.counts()

    migrations.fill()

    assert migrations.counts() == {table: count + ROWS for table, count in before.items()}
    assert len(before) > 10


def fill_rooms(migrations: Migrations) -> None:
    """Rooms as they were before they had numbers; the second of them was purged."""
    room = "INSERT INTO rooms VALUES (:id, '11', '[]', :depth, :depth, true)"
    interval = "INSERT INTO state_intervals VALUES (:room, :type, :key, :a, :b, :event, :is)"
    names = ("room", "type", "key", "a", "b", "event", "is")
    intervals = [dict(zip(names, values, strict=True)) for values in INTERVALS]
    with migrations.engine.begin() as connection:
        for depth, room_id in enumerate(("!b", "!purged", "!c", "!a")):
            connection.execute(text(room), {"id": room_id, "depth": depth})
        connection.execute(text("DELETE FROM rooms WHERE room_id = '!purged'"))
        connection.execute(text(interval), intervals)


def rows(migrations: Migrations, query: str) -> list[tuple[Any, ...]]:
    """What a query finds."""
    with migrations.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_rooms_get_numbers_and_keep_their_state(migrations: Migrations) -> None:
    migrations.up("0011")
    fill_rooms(migrations)

    migrations.up("0012")

    found = rows(
        migrations,
        "SELECT room_id, type, state_key, from_position, to_position, event_position, membership"
        " FROM state_intervals JOIN rooms ON number = room_number ORDER BY from_position",
    )
    assert found == INTERVALS
    assert rows(migrations, "SELECT * FROM rooms ORDER BY number") == [
        (1, "!b", "11", "[]", 0, 0, 1),
        (2, "!c", "11", "[]", 2, 2, 1),
        (3, "!a", "11", "[]", 3, 3, 1),
    ]


def test_rooms_lose_their_numbers_and_keep_their_state(migrations: Migrations) -> None:
    migrations.up("0011")
    fill_rooms(migrations)
    rooms = rows(migrations, "SELECT * FROM rooms ORDER BY rowid")
    migrations.up("0012")

    migrations.down("0011")

    assert rows(migrations, "SELECT * FROM state_intervals ORDER BY from_position") == INTERVALS
    assert rows(migrations, "SELECT * FROM rooms ORDER BY rowid") == rooms


def test_edits_get_their_column_and_redacted_events_lose_what_was_derived(
    migrations: Migrations,
) -> None:
    migrations.up("0015")
    event = (
        "INSERT INTO events (position, event_id, room_id, type, sender, origin_server_ts, pdu,"
        " redacted_by, relates_to, rel_type, thread_id)"
        " VALUES (:at, '$' || :at, '!a', 'm.room.message', :sender, :at, :pdu, :by, :to, :type,"
        " :thread)"
    )
    new = '{"content": {"m.new_content": {}}}'
    names = ("at", "sender", "pdu", "by", "to", "type", "thread")
    events = [
        (1, "@a:x", "{}", None, None, None, None),
        (2, "@a:x", new, None, "$1", "m.replace", None),
        (3, "@b:x", new, None, "$1", "m.replace", None),
        (4, "@a:x", new, None, "$2", "m.replace", None),
        (5, "@a:x", "{}", None, "$1", "m.replace", None),
        (6, "@a:x", "{}", 9, "$1", "m.thread", "$1"),
        (7, "@b:x", "{}", None, "$6", "m.annotation", "$1"),
        (8, "@b:x", "{}", None, "$1", "m.thread", "$1"),
        (10, "@b:x", "{}", None, "$7", "m.reference", "$1"),
    ]
    notified = "INSERT INTO notifications VALUES ('@c:x', '!a', :at, '$1', :is_loud, 0, '[]')"
    loud = [{"at": at, "is_loud": at in {6, 10}} for at in (6, 8, 10)]
    with migrations.engine.begin() as connection:
        connection.execute(text(event), [dict(zip(names, it, strict=True)) for it in events])
        connection.execute(text(notified), loud)
        connection.execute(text("INSERT INTO unread_counts VALUES ('@c:x', '!a', '$1', 3, 2)"))

    migrations.up("0016")

    assert rows(migrations, "SELECT position, edit_of FROM events WHERE edit_of NOT NULL") == [
        (2, 1)
    ]
    relations = "SELECT relates_to, rel_type, thread_id FROM events WHERE position > 5"
    assert rows(migrations, relations) == [
        (None, None, None),
        ("$6", "m.annotation", None),
        ("$1", "m.thread", "$1"),
        ("$7", "m.reference", None),
    ]
    assert rows(migrations, "SELECT * FROM unread_counts") == [
        ("@c:x", "!a", "$1", 1, 0),
        ("@c:x", "!a", "main", 1, 1),
    ]
    notified = "SELECT event_position, thread_id, is_highlight, is_read FROM notifications"
    assert rows(migrations, notified) == [(8, "$1", 0, 0), (10, "main", 1, 0)]


def test_what_accounts_have_stored_is_counted(migrations: Migrations) -> None:
    migrations.up("0016")
    with migrations.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO account_data VALUES ('@a:x', '', 'x', '{\"a\": \"\u00fc\"}', 1)")
        )
        backup = "INSERT INTO key_backups VALUES ('@a:x', :version, 'x', '{}', 0, 0, :is_deleted)"
        versions = [{"version": 1, "is_deleted": False}, {"version": 2, "is_deleted": True}]
        connection.execute(text(backup), versions)
        key = "INSERT INTO backed_up_keys VALUES ('@a:x', :version, '!a', :id, 0, 0, 0, '12345')"
        keys = [(1, "s"), (1, "t"), (2, "s")]
        connection.execute(text(key), [{"version": it[0], "id": it[1]} for it in keys])

    migrations.up("0017")

    assert rows(migrations, "SELECT size_bytes FROM account_data") == [(11,)]
    assert rows(migrations, "SELECT size_bytes FROM key_backups ORDER BY version") == [(10,), (0,)]


def test_reactions_are_known_by_their_keys(migrations: Migrations) -> None:
    migrations.up("0020")
    event = (
        "INSERT INTO events (position, event_id, room_id, type, sender, origin_server_ts, pdu,"
        " relates_to, rel_type) VALUES (:at, :id, '!a', 'x', '@a:x', 0, :pdu, '$1', :type)"
    )
    about = [{"key": "👍", "rel_type": "m.annotation"}, {"rel_type": "m.annotation"}, {}]
    rows_before = [
        {
            "at": at,
            "id": f"${at}",
            "pdu": json.dumps({"content": {"m.relates_to": relation}}),
            "type": relation.get("rel_type", "m.reference"),
        }
        for at, relation in enumerate(about, start=2)
    ]
    with migrations.engine.begin() as connection:
        connection.execute(text(event), rows_before)

    migrations.up("0021")

    digests = [("👍", 2), (None, 3)]
    assert rows(
        migrations,
        "SELECT annotation_key, position FROM events WHERE annotation_key IS NOT NULL"
        " ORDER BY position",
    ) == [(relations.key_digest(key), at) for key, at in digests]


def test_a_step_that_fails_changes_nothing(migrations: Migrations) -> None:
    migrations.up("0011")
    fill_rooms(migrations)
    with migrations.engine.begin() as connection:  # in the way of what the step does last
        connection.execute(text("DROP INDEX ix_state_intervals_current"))
        connection.execute(text("CREATE INDEX ix_state_intervals_current ON media (origin)"))
    schema = migrations.schema()

    with pytest.raises(OperationalError, match="already exists"):
        migrations.up("0012")

    assert current(migrations.url) == "0011"
    assert migrations.schema() == schema
    assert rows(migrations, "SELECT * FROM state_intervals ORDER BY from_position") == INTERVALS


def test_the_server_knows_the_migrations_that_alembic_knows() -> None:
    scripts = ScriptDirectory(str(FOLDER))

    assert known() == REVISIONS
    assert scripts.get_heads() == [REVISIONS[-1]]


SPARSE = (
    "INSERT INTO events (position, event_id, room_id, type, sender, origin_server_ts, pdu,"
    " replaces, redacted_by, edit_of)"
    " VALUES (:at, '$' || :at, '!a', :type, '@a:x', :at, '{}', :replaces, :by, :edits)"
)


def fill_sparsely(migrations: Migrations) -> None:
    """Events with gaps between their positions, and what refers to them."""
    names = ("at", "type", "replaces", "by", "edits")
    events = [
        (3, "m.room.name", None, None, None),
        (7, "m.room.name", 3, None, None),
        (8, "m.room.message", None, 20, None),
        (12, "m.room.message", None, None, 8),
        (20, "m.room.redaction", None, None, None),
    ]
    with migrations.engine.begin() as connection:
        connection.execute(text(SPARSE), [dict(zip(names, it, strict=True)) for it in events])
        connection.execute(text("INSERT INTO rooms VALUES (1, '!a', '11', '[]', 5, 20, 0, 0)"))
        connection.execute(
            text("INSERT INTO state_intervals VALUES (1, 'm.room.name', '', :a, :b, :a, NULL)"),
            [{"a": 3, "b": 7}, {"a": 7, "b": NOW_AND_LATER}],
        )
        connection.execute(text("INSERT INTO search_index (rowid, body) VALUES (12, 'hello')"))
        connection.execute(text("INSERT INTO search_progress VALUES (1, 15)"))
        connection.execute(text("UPDATE clock SET position = 25"))
        connection.execute(
            text("INSERT INTO outbox VALUES (:id, :kind, 'd', :payload, 0, 0, 0)"),
            [
                {"id": 1, "kind": "appservice", "payload": '{"position":12}'},
                {"id": 2, "kind": "appservice", "payload": '{"ephemeral":{},"is_moment":false}'},
                {"id": 3, "kind": "push", "payload": '{"room_id":"!a","position":12}'},
            ],
        )


REFERENCES = "SELECT number, position, standing, replaces, redacted_by, edit_of FROM events"


def test_events_get_a_number_and_keep_their_position(migrations: Migrations) -> None:
    migrations.up("0022")
    fill_sparsely(migrations)

    migrations.up("0023")

    assert rows(migrations, f"{REFERENCES} ORDER BY number") == [
        (3, 3, "accepted", None, None, None),
        (7, 7, "accepted", 3, None, None),
        (8, 8, "accepted", None, 20, None),
        (12, 12, "accepted", None, None, 8),
        (20, 20, "accepted", None, None, None),
    ]
    intervals = "SELECT from_position, event_number FROM state_intervals ORDER BY 1"
    assert rows(migrations, intervals) == [(3, 3), (7, 7)]
    assert rows(migrations, "SELECT position, event_number FROM clock") == [(25, 25)]
    assert rows(migrations, "SELECT number FROM search_progress") == [(15,)]
    assert [it[0] for it in rows(migrations, "SELECT payload FROM outbox ORDER BY id")] == [
        '{"number":12}',
        '{"ephemeral":{},"is_moment":false}',
        '{"room_id":"!a","position":12}',
    ]


def test_on_the_way_down_positions_become_the_keys_again(migrations: Migrations) -> None:
    migrations.up("0022")
    fill_sparsely(migrations)
    migrations.up("0023")
    with migrations.engine.begin() as connection:
        connection.execute(
            text("UPDATE events SET number = number + 100, replaces = replaces + 100")
        )
        connection.execute(text("UPDATE events SET redacted_by = redacted_by + 100"))
        connection.execute(text("UPDATE events SET edit_of = edit_of + 100"))
        connection.execute(text("UPDATE state_intervals SET event_number = event_number + 100"))
        connection.execute(
            text("UPDATE outbox SET payload = json_object('number', 112) WHERE id = 1")
        )
        connection.execute(text("UPDATE events SET position = NULL WHERE number = 103"))

    migrations.down("0022")

    found = "SELECT position, replaces, redacted_by, edit_of FROM events ORDER BY position"
    assert rows(migrations, found) == [
        (7, None, None, None),
        (8, None, 20, None),
        (12, None, None, 8),
        (20, None, None, None),
    ]
    intervals = "SELECT from_position, event_position FROM state_intervals ORDER BY 1"
    assert rows(migrations, intervals) == [(3, 3), (7, 7)]
    assert rows(migrations, "SELECT payload FROM outbox WHERE id = 1") == [('{"position":12}',)]
    assert rows(migrations, "SELECT count(*) FROM search_index") == [(0,)]


def test_a_long_table_is_copied_in_parts_that_are_shown(
    migrations: Migrations, capsys: pytest.CaptureFixture[str]
) -> None:
    migrations.up("0022")
    numbers = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 45000)"
    with migrations.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO events (position, event_id, room_id, type, sender, origin_server_ts,"  # noqa: S608 - no input
                f" pdu) {numbers} SELECT 3 * i, '$' || i, '!a', 'a', '@a:x', i, '{{}}' FROM n"
            )
        )

    migrations.up("0023")

    sums = "SELECT count(*), sum(position), sum(number), max(number) FROM events"
    assert rows(migrations, sums) == [(45000, 3 * 1012522500, 3 * 1012522500, 135000)]
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("Copying 45,000 events of a database of ")
    assert [it.partition(" events")[0] for it in shown[1:]] == [
        "20,000 of 45,000",
        "40,000 of 45,000",
        "45,000 of 45,000",
    ]


def test_an_upgrade_lets_an_older_database_shrink(tmp_path: Path) -> None:
    older = Migrations(tmp_path)
    older.up("0023")
    assert not rewriting.is_incremental(older.file)

    upgrade(settings.load(None, {}, {"data_dir": str(tmp_path)}))

    assert current(older.url) == known()[-1]
    assert rewriting.is_incremental(older.file)


@pytest.mark.parametrize("is_large", [False, True])
def test_an_upgrade_does_not_rewrite_a_large_database_or_on_a_small_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_large: bool
) -> None:
    older = Migrations(tmp_path)
    older.up("0023")
    if is_large:
        monkeypatch.setattr("homebody.storage.migrations._MOST_REWRITTEN_BYTES", 1000)
    else:
        monkeypatch.setattr(rewriting, "has_room", lambda _: False)

    upgrade(settings.load(None, {}, {"data_dir": str(tmp_path)}))

    assert current(older.url) == known()[-1]
    assert not rewriting.is_incremental(older.file)
