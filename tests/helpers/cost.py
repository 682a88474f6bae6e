"""The cost of a request in the database, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable

from werkzeug.test import TestResponse

from homebody.web import Application


def steps(app: Application, request: Callable[[], TestResponse]) -> int:
    """Return roughly how many instructions of its virtual machine SQLite runs, divided by ten."""
    done = [0]

    def count() -> int:
        done[0] += 1
        return 0  # continue

    database = app.homeserver.database
    with database.read() as tx:  # the next reader has the same connection
        connections = (tx.sql.raw, database.writer.raw)
    for connection in connections:
        connection.set_progress_handler(count, 10)
    answer = request()
    for connection in connections:
        connection.set_progress_handler(None, 0)
    assert answer.status_code == 200, answer.get_json()
    assert done[0] > 0
    return done[0]
