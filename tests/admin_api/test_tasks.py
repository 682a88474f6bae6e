"""Background work, the version and statistics by the admin API."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from homebody.core import audit, tasks
from homebody.web import Application
from tests.conftest import Person
from tests.helpers.rooms import Json, refusal, unchanged

ADMIN = "/_synapse/admin/v1"


@pytest.fixture
def ids(app: Application) -> list[str]:
    """Three tasks: one that waits, one that runs, one that failed."""
    with app.homeserver.database.write() as tx:
        found = [
            tasks.add(tx, "room.delete", {}, "!a:b"),
            tasks.add(tx, "room.delete", {}, "!c:d"),
            tasks.add(tx, "user.redact", {}),
        ]
        tx.sql.raw.executemany(
            "UPDATE tasks SET created_ts = ? WHERE id = ?",
            [(number * 1000, task_id) for number, task_id in enumerate(found, 1)],
        )
        tasks.record(tx, found[1], tasks.ACTIVE, result={"done": 1})
        tasks.record(tx, found[2], tasks.FAILED, error="it broke")
    return found


def listed(admin: Person, query: str = "") -> list[Json]:
    answer = admin.get(f"{ADMIN}/scheduled_tasks?{query}")
    assert answer.status_code == 200, answer.get_json()
    found: list[Json] = answer.get_json()["scheduled_tasks"]
    return found


def test_tasks_are_listed_with_what_came_of_them(admin: Person, ids: list[str]) -> None:
    found = listed(admin)

    assert [it.pop("timestamp_ms") > 10**12 for it in found] == [True] * 3
    assert found == [
        {
            "id": ids[0],
            "action": "room.delete",
            "status": "scheduled",
            "resource_id": "!a:b",
            "result": None,
            "error": None,
        },
        {
            "id": ids[1],
            "action": "room.delete",
            "status": "active",
            "resource_id": "!c:d",
            "result": {"done": 1},
            "error": None,
        },
        {
            "id": ids[2],
            "action": "user.redact",
            "status": "failed",
            "resource_id": None,
            "result": None,
            "error": "it broke",
        },
    ]


def test_tasks_are_selected_by_all_conditions(admin: Person, ids: list[str]) -> None:
    def numbers(query: str) -> list[int]:
        return [ids.index(it["id"]) for it in listed(admin, query)]

    assert numbers("action_name=room.delete") == [0, 1]
    assert numbers("action_name=room.delete&action_name=user.redact") == [0, 1, 2]
    assert numbers("status=active&status=failed") == [1, 2]
    assert numbers("job_status=scheduled") == [0]
    assert numbers("resource_id=!c:d") == [1]
    assert numbers("max_timestamp=2000") == [0, 1]
    assert numbers("max_timestamp=0") == []
    assert numbers("action_name=room.delete&status=active&limit=5&order_by=id") == [1]


def test_wrong_conditions_are_refused(admin: Person) -> None:
    for query in ("status=done", "job_status=", "max_timestamp=x", "max_timestamp=-1"):
        answer = admin.get(f"{ADMIN}/scheduled_tasks?{query}")
        assert refusal(answer) == (400, "M_INVALID_PARAM"), query


def test_a_task_is_cancelled(app: Application, admin: Person, ids: list[str]) -> None:
    answer = admin.post(f"{ADMIN}/scheduled_tasks/{ids[1]}/cancel")

    assert answer.status_code == 200
    found = answer.get_json()
    assert (found["id"], found["status"], found["result"]) == (ids[1], "cancelled", {"done": 1})
    assert [it["id"] for it in listed(admin, "status=cancelled")] == [ids[1]]
    with app.homeserver.database.read() as tx:
        (entry,) = audit.latest(tx, 1)
    assert (entry["actor"], entry["action"], entry["subject"]) == (
        admin.user_id,
        "task.cancel",
        "!c:d",
    )
    assert entry["details"] == {"task": ids[1], "kind": "room.delete"}


def test_what_has_ended_or_must_end_is_not_cancelled(
    app: Application, admin: Person, ids: list[str]
) -> None:
    with app.homeserver.database.write() as tx:
        tasks.seal(tx, ids[1])

    with unchanged(app):
        answers = [
            admin.post(f"{ADMIN}/scheduled_tasks/{task_id}/cancel") for task_id in [*ids[1:], "x"]
        ]

    assert [refusal(it) for it in answers] == [
        (400, "M_UNKNOWN"),
        (400, "M_UNKNOWN"),
        (404, "M_NOT_FOUND"),
    ]


def test_upkeep_is_paused_and_goes_on(app: Application, admin: Person) -> None:
    path = f"{ADMIN}/background_updates"

    def states() -> tuple[bool, bool]:
        status = admin.get(f"{path}/status").get_json()
        assert status["current_updates"] == {}
        return status["enabled"], admin.get(f"{path}/enabled").get_json()["enabled"]

    before = states()
    paused = admin.post(f"{path}/enabled", json={"enabled": False})
    while_paused = states()
    resumed = admin.post(f"{path}/enabled", json={"enabled": True})

    assert (before, while_paused, states()) == ((True, True), (False, False), (True, True))
    assert (paused.get_json(), resumed.get_json()) == ({"enabled": False}, {"enabled": True})
    with app.homeserver.database.read() as tx:
        actions = [it["action"] for it in audit.latest(tx, 2)]
    assert actions == ["upkeep.resume", "upkeep.pause"]


def test_jobs_that_are_not_needed_are_accepted(admin: Person) -> None:
    path = f"{ADMIN}/background_updates/start_job"

    for name in ("populate_stats_process_rooms", "regenerate_directory"):
        answer = admin.post(path, json={"job_name": name})
        assert (answer.status_code, answer.get_json()) == (200, {})
    assert refusal(admin.post(path, json={"job_name": "x"})) == (400, "M_UNKNOWN")


@pytest.mark.parametrize(
    ("path", "body", "errcode"),
    [
        ("enabled", {}, "M_MISSING_PARAM"),
        ("enabled", {"enabled": "false"}, "M_BAD_JSON"),
        ("enabled", {"enabled": 0}, "M_BAD_JSON"),
        ("start_job", {}, "M_MISSING_PARAM"),
        ("start_job", {"job_name": 1}, "M_BAD_JSON"),
    ],
)
def test_wrong_bodies_change_nothing(
    app: Application, admin: Person, path: str, body: Json, errcode: str
) -> None:
    with unchanged(app):
        answer = admin.post(f"{ADMIN}/background_updates/{path}", json=body)

    assert refusal(answer) == (400, errcode)
    assert not app.homeserver.upkeep.is_paused


def test_the_version_needs_no_token(client: FlaskClient) -> None:
    answer = client.get(f"{ADMIN}/server_version")

    assert answer.status_code == 200
    version = answer.get_json()["server_version"]
    assert version[0].isdecimal()
    assert version.endswith("(homebody)")


def test_the_largest_rooms_come_first(
    admin: Person, alice: Person, room: Callable[..., str]
) -> None:
    small, large = room(admin), room(alice)
    for number in range(10):
        alice.send(large, f"{number}" * 100)

    found = admin.get(f"{ADMIN}/statistics/database/rooms").get_json()

    assert found.keys() == {"rooms"}
    assert [it["room_id"] for it in found["rooms"]] == [large, small]
    sizes = [it["estimated_size"] for it in found["rooms"]]
    assert sizes[0] > sizes[1] > 1000
