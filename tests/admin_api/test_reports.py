"""Reports of events and of users by the admin API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core import audit
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import Json, refusal, unchanged

MakeRoom = Callable[..., str]
EVENTS = "/_synapse/admin/v1/event_reports"
USERS = "/_synapse/admin/v1/user_reports"


@pytest.fixture
def bob(admin: Person, login: Login) -> Person:
    """A user who reports; the first account is the administrator's."""
    assert admin
    return login("bob")


def report(person: Person, room_id: str, event_id: str, **body: Any) -> None:
    path = f"rooms/{quote(room_id)}/report/{quote(event_id)}"
    assert person.post(path, json=body).status_code == 200


def listed(admin: Person, path: str = EVENTS, **query: str) -> Json:
    answer = admin.get(path, query_string=query)
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def reasons(found: Json) -> list[str]:
    return [it["reason"] for key in ("event_reports", "user_reports") for it in found.get(key, [])]


def test_an_event_report_has_what_tools_show(
    admin: Person, alice: Person, bob: Person, room: MakeRoom
) -> None:
    room_id = room(alice, bob, name="Kitchen", room_alias_name="kitchen")
    event_id = alice.send(room_id, "buy my pills")
    report(bob, room_id, event_id, reason="spam", score=-100)

    found = listed(admin)
    whole = admin.get(f"{EVENTS}/{found['event_reports'][0]['id']}").get_json()

    assert (found["total"], {*found}) == (1, {"event_reports", "total"})
    (only,) = found["event_reports"]
    event = whole.pop("event_json")
    assert whole == only
    assert only.pop("received_ts") > 1_700_000_000_000
    assert only == {
        "id": 1,
        "room_id": room_id,
        "event_id": event_id,
        "user_id": bob.user_id,
        "sender": alice.user_id,
        "reason": "spam",
        "score": -100,
        "name": "Kitchen",
        "canonical_alias": "#kitchen:localhost",
    }
    assert (event["event_id"], event["room_id"]) == (event_id, room_id)
    assert event["content"]["body"] == "buy my pills"


def test_a_report_from_a_room_without_a_name_and_without_a_score_has_null(
    admin: Person, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    report(alice, room_id, alice.send(room_id))

    (only,) = listed(admin)["event_reports"]

    assert (only["name"], only["canonical_alias"], only["score"]) == (None, None, None)
    assert only["reason"] == ""


def test_a_list_has_pages_that_begin_with_the_newest(
    admin: Person, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    event_id = alice.send(room_id)
    for number in range(5):
        report(alice, room_id, event_id, reason=f"{number}")

    first = listed(admin, limit="2")
    second = listed(admin, limit="2", **{"from": str(first["next_token"])})
    last = listed(admin, limit="2", **{"from": "4"})
    forwards = listed(admin, limit="3", dir="f", **{"from": "1"})

    assert (reasons(first), first["next_token"], first["total"]) == (["4", "3"], 2, 5)
    assert (reasons(second), second["next_token"]) == (["2", "1"], 4)
    assert (reasons(last), "next_token" in last) == (["0"], False)
    assert (reasons(forwards), forwards["next_token"]) == (["1", "2", "3"], 4)
    assert listed(admin, limit="0")["event_reports"] == []
    assert listed(admin, order_by="id", whatever="1", **{"from": "99"})["total"] == 5


def test_a_list_of_events_has_filters(
    admin: Person, alice: Person, bob: Person, room: MakeRoom
) -> None:
    first, second = room(alice, bob), room(alice, bob)
    report(bob, first, alice.send(first), reason="by bob")
    report(alice, second, bob.send(second), reason="by alice")

    assert reasons(listed(admin, user_id=bob.user_id)) == ["by bob"]
    assert reasons(listed(admin, user_id="lic")) == ["by alice"]
    assert reasons(listed(admin, room_id=first)) == ["by bob"]
    assert reasons(listed(admin, event_sender_user_id=bob.user_id)) == ["by alice"]
    assert listed(admin, user_id="%")["total"] == 0


def test_reports_of_users_are_a_list_of_their_own(
    admin: Person, alice: Person, bob: Person, room: MakeRoom
) -> None:
    room_id = room(alice, bob)
    report(bob, room_id, alice.send(room_id), reason="event")
    bob.post(f"rooms/{quote(room_id)}/report", json={"reason": "room"})
    bob.post(f"users/{alice.user_id}/report", json={"reason": "user"})
    alice.post(f"users/{bob.user_id}/report", json={"reason": "back"})

    found = listed(admin, USERS, dir="f")
    newest = listed(admin, USERS, limit="1")
    one = admin.get(f"{USERS}/{found['user_reports'][0]['id']}").get_json()

    assert reasons(listed(admin)) == ["event"]
    assert (found["total"], reasons(found)) == (2, ["user", "back"])
    assert (reasons(newest), newest["next_token"]) == (["back"], 1)
    assert one == found["user_reports"][0]
    assert one.pop("received_ts") > 0
    assert one == {
        "id": 3,
        "target_user_id": alice.user_id,
        "user_id": bob.user_id,
        "reason": "user",
    }
    assert reasons(listed(admin, USERS, target_user_id=bob.user_id)) == ["back"]
    assert reasons(listed(admin, USERS, user_id=bob.user_id)) == ["user"]


def test_a_report_that_was_dealt_with_can_go(
    app: Application, admin: Person, alice: Person, bob: Person, room: MakeRoom
) -> None:
    room_id = room(alice, bob)
    report(bob, room_id, alice.send(room_id), reason="event")
    bob.post(f"users/{alice.user_id}/report", json={"reason": "user"})

    with unchanged(app):  # each list has its own
        assert refusal(admin.delete(f"{USERS}/1")) == (404, "M_NOT_FOUND")
        assert refusal(admin.delete(f"{EVENTS}/2")) == (404, "M_NOT_FOUND")
    answers = [admin.delete(f"{EVENTS}/1", json={}), admin.delete(f"{USERS}/2")]

    assert [(it.status_code, it.get_json()) for it in answers] == [(200, {})] * 2
    assert refusal(admin.delete(f"{EVENTS}/1")) == (404, "M_NOT_FOUND")
    assert listed(admin)["total"] == listed(admin, USERS)["total"] == 0
    with app.homeserver.database.read() as tx:
        assert [it["action"] for it in audit.latest(tx, 9)] == ["report.remove"] * 2


def test_a_report_of_an_event_that_was_purged_is_still_there(
    app: Application, admin: Person, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    event_id = alice.send(room_id)
    report(alice, room_id, event_id, reason="spam")
    with app.homeserver.database.write() as tx:
        tx.sql.raw.execute("DELETE FROM events WHERE event_id = ?", [event_id])

    assert reasons(listed(admin)) == ["spam"]
    assert admin.get(f"{EVENTS}/1").get_json()["event_json"] is None


@pytest.mark.parametrize("path", [EVENTS, USERS])
def test_wrong_requests_are_refused(admin: Person, path: str) -> None:
    for name, value in [("from", "-1"), ("limit", "-1"), ("limit", "x"), ("dir", "up")]:
        answer = admin.get(path, query_string={name: value})
        assert refusal(answer) == (400, "M_INVALID_PARAM"), name
    for report_id in ("x", "-1", "1.5", "9" * 30, "٣"):
        for method in ("GET", "DELETE"):
            answer = admin.request(method, f"{path}/{report_id}")
            assert refusal(answer) == (400, "M_INVALID_PARAM"), report_id
    for method in ("GET", "DELETE"):
        assert refusal(admin.request(method, f"{path}/7")) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("score", ["-100", 1.5, True, 2**60])
def test_a_wrong_score_is_refused(
    app: Application, alice: Person, room: MakeRoom, score: object
) -> None:
    room_id = room(alice)
    path = f"rooms/{quote(room_id)}/report/{quote(alice.send(room_id))}"

    with unchanged(app):
        assert refusal(alice.post(path, json={"score": score})) == (400, "M_BAD_JSON")
