"""The audit log is kept as long as the settings say."""

from __future__ import annotations

import pytest

from homebody.core import audit
from homebody.web import Application
from tests.conftest import MakeApp

DAY_MS = 86_400_000


def note(app: Application, *subjects: str, days_ago: int = 0) -> None:
    with app.homeserver.database.write() as tx:
        tx.now_ms -= days_ago * DAY_MS
        for subject in subjects:
            audit.note(tx, "@admin:localhost", "test", subject)


def subjects(app: Application) -> list[str]:
    """The subjects of what is left, the oldest first."""
    with app.homeserver.database.read() as tx:
        return [it["subject"] for it in audit.latest(tx, 10_000)][::-1]


def test_old_entries_are_deleted(make_app: MakeApp) -> None:
    app = make_app()
    note(app, "old", "older", days_ago=401)
    note(app, "young", days_ago=399)
    note(app, "new")

    count = audit.sweep(app.homeserver.database)

    assert count == 2
    assert subjects(app) == ["young", "new"]


def test_the_oldest_beyond_a_number_are_deleted_in_short_writes(make_app: MakeApp) -> None:
    app = make_app(**{"audit_log.max_entries": "3"})
    note(app, *map(str, range(1203)))
    steps: list[int] = []

    count = audit.sweep(app.homeserver.database, lambda: steps.append(1))

    assert count == 1200
    assert len(steps) == 3
    assert subjects(app) == ["1200", "1201", "1202"]
    assert audit.sweep(app.homeserver.database) == 0


def test_with_both_switched_off_all_is_kept(make_app: MakeApp) -> None:
    app = make_app(**{"audit_log.max_entries": "0", "audit_log.lifetime": ""})
    note(app, "old", days_ago=4000)
    note(app, "new")

    assert audit.sweep(app.homeserver.database) == 0
    assert subjects(app) == ["old", "new"]


def test_an_entry_of_a_clock_that_was_wrong_goes_with_the_number(make_app: MakeApp) -> None:
    app = make_app(**{"audit_log.max_entries": "2"})
    note(app, "future", days_ago=-4000)
    note(app, "old", days_ago=401)
    note(app, "new", "newest")

    audit.sweep(app.homeserver.database)

    assert subjects(app) == ["new", "newest"]


def test_an_interrupted_sweep_goes_on(make_app: MakeApp) -> None:
    app = make_app(**{"audit_log.max_entries": "1"})
    note(app, *map(str, range(1201)))

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        audit.sweep(app.homeserver.database, stop)
    left = len(subjects(app))
    audit.sweep(app.homeserver.database)

    assert left == 1201 - audit.DELETED_AT_ONCE
    assert subjects(app) == ["1200"]
