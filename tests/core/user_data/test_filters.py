"""Filters that are stored, and filters written into a query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from homebody.core.user_data import filters
from homebody.errors import MatrixError
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import refusal

ALICE = "user/@alice:localhost/filter"
TIMELINE = {"room": {"timeline": {"limit": 7, "types": ["m.room.message"]}}}


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def resolve(app: Application, text: str) -> Any:
    with app.homeserver.database.read() as tx:
        return filters.resolve(tx, "@alice:localhost", text)


def test_a_stored_filter_comes_back_as_it_was_sent(alice: Person) -> None:
    sent = {**TIMELINE, "org.example.unknown": {"kept": True}}

    filter_id = alice.post(ALICE, json=sent).get_json()["filter_id"]

    assert isinstance(filter_id, str)
    assert not filter_id.startswith("{")
    assert alice.get(f"{ALICE}/{filter_id}").get_json() == sent


def test_the_same_filter_has_the_same_id_whatever_the_order_of_its_keys(alice: Person) -> None:
    one = {"event_fields": ["type"], "presence": {"types": [], "limit": 1}}
    same = {"presence": {"limit": 1, "types": []}, "event_fields": ["type"]}

    ids = [alice.post(ALICE, json=it).get_json()["filter_id"] for it in (one, TIMELINE, same)]

    assert ids[0] == ids[2] != ids[1]


def test_filters_belong_to_their_user(alice: Person, login: Login) -> None:
    filter_id = alice.post(ALICE, json=TIMELINE).get_json()["filter_id"]
    mallory = login("mallory")

    assert refusal(mallory.get(f"{ALICE}/{filter_id}")) == (403, "M_FORBIDDEN")
    assert refusal(mallory.post(ALICE, json=TIMELINE)) == (403, "M_FORBIDDEN")
    theirs = mallory.get(f"user/@mallory:localhost/filter/{filter_id}")
    assert refusal(theirs) == (404, "M_NOT_FOUND")


def test_an_unknown_id_is_not_found(alice: Person) -> None:
    assert refusal(alice.get(f"{ALICE}/12")) == (404, "M_NOT_FOUND")
    assert refusal(alice.get(f"{ALICE}/{'9' * 30}")) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    "wrong",
    [
        {"room": []},
        {"room": {"timeline": {"limit": "ten"}}},
        {"room": {"timeline": {"limit": -1}}},
        {"room": {"state": {"types": [1]}}},
        {"room": {"rooms": ["no room id"]}},
        {"presence": {"senders": ["nobody"]}},
        {"event_fields": "type"},
        {"event_format": "xml"},
    ],
)
def test_what_is_no_filter_is_not_stored(alice: Person, wrong: dict[str, Any]) -> None:
    assert refusal(alice.post(ALICE, json=wrong)) == (400, "M_BAD_JSON")
    assert refusal(alice.get(f"{ALICE}/1")) == (404, "M_NOT_FOUND")


def test_a_body_that_is_no_object_is_refused(alice: Person) -> None:
    assert refusal(alice.post(ALICE, json=[])) == (400, "M_BAD_JSON")
    assert refusal(alice.post(ALICE, data="{", json=None)) == (400, "M_NOT_JSON")


def test_a_filter_that_is_too_large_is_refused(alice: Person) -> None:
    large = {"org.example": "x" * filters.MAX_BYTES}

    assert refusal(alice.post(ALICE, json=large)) == (413, "M_TOO_LARGE")


def test_the_oldest_filter_goes_when_there_are_too_many(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "MAX_STORED", 3)

    ids = [alice.post(ALICE, json={"x": it}).get_json()["filter_id"] for it in range(5)]

    known = [alice.get(f"{ALICE}/{it}").status_code for it in ids]
    assert len(set(ids)) == 5
    assert known == [404, 404, 200, 200, 200]


def test_a_request_names_a_filter_by_its_id_or_writes_it_out(
    alice: Person, app: Application
) -> None:
    filter_id = alice.post(ALICE, json=TIMELINE).get_json()["filter_id"]

    stored = resolve(app, filter_id)
    inline = resolve(app, '{"room": {"timeline": {"limit": 3}}}')

    assert (stored.room.timeline.limit, inline.room.timeline.limit) == (7, 3)
    assert resolve(app, filter_id) is stored


@pytest.mark.parametrize("query", [{}, {"filter": ""}])
def test_a_request_without_a_filter_asks_for_everything(
    alice: Person, room: Callable[..., str], query: dict[str, str]
) -> None:
    room_id = room(alice)

    answer = alice.get("sync", query_string=query).get_json()

    assert answer["rooms"]["join"][room_id]["timeline"]["events"]


@pytest.mark.parametrize(
    "text",
    [
        *("1", "x", "{", "{}}", '{"room": 1}', '{"a":"\\ud800"}', "{" * 5000, "\0", '{"x":NaN}'),
        '{"x": "' + "x" * filters.MAX_BYTES + '"}',
    ],
    ids=lambda text: ascii(text[:16]),
)
def test_a_request_with_what_is_no_filter_is_refused(app: Application, text: str) -> None:
    with pytest.raises(MatrixError) as refused:
        resolve(app, text)

    assert (refused.value.status, refused.value.errcode) == (400, "M_INVALID_PARAM")
