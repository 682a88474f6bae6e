"""Dehydrated devices: kept, written to by others, brought to life again, ended."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import TestResponse

from homebody.core.encryption import to_device
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.encryption import device_keys, password_of
from tests.helpers.rooms import Json, everything, refusal, unchanged

DEVICE = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
DATA = {"algorithm": "org.matrix.msc3814.v2", "device_pickle": "c2VjcmV0", "nonce": "bm9uY2U"}


def dehydrated(person: Person, device_id: str = "DRY") -> Json:
    """The body of an upload."""
    on_it = Person(person.client, person.user_id, "", device_id)
    otk = {"key": "k" * 43, "signatures": {person.user_id: {f"ed25519:{device_id}": "s" * 86}}}
    return {
        "device_id": device_id,
        "device_data": DATA,
        "initial_device_display_name": "Dehydrated device",
        "device_keys": {**device_keys(on_it), "dehydrated": True},
        "one_time_keys": {"signed_curve25519:AAAA": otk},
        "fallback_keys": {"signed_curve25519:FFFF": {**otk, "fallback": True}},
    }


def upload(person: Person, device_id: str = "DRY") -> None:
    answer = person.put(DEVICE, json=dehydrated(person, device_id))
    assert (answer.status_code, answer.get_json()) == (200, {"device_id": device_id})


def write(sender: Person, receiver: Person, number: int, device_id: str = "DRY") -> None:
    """Send a message to the device."""
    body = {"messages": {receiver.user_id: {device_id: {"number": number}}}}
    answer = sender.put(f"sendToDevice/m.room.encrypted/t{number}", json=body)
    assert answer.status_code == 200, answer.get_json()


def numbers(answer: TestResponse) -> list[int]:
    """Which messages are in an answer."""
    assert answer.status_code == 200, answer.get_json()
    return [event["content"]["number"] for event in answer.get_json()["events"]]


def test_it_is_kept_for_all_sessions_of_its_user(login: Login) -> None:
    phone, laptop, bob = login("alice"), login("alice"), login("bob")

    upload(phone)

    assert laptop.get(DEVICE).get_json() == {"device_id": "DRY", "device_data": DATA}
    assert refusal(bob.get(DEVICE)) == (404, "M_NOT_FOUND")


def test_others_find_it_among_the_devices_and_claim_its_keys(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload(alice)

    found = bob.post("keys/query", json={"device_keys": {alice.user_id: []}}).get_json()
    wish = {"one_time_keys": {alice.user_id: {"DRY": "signed_curve25519"}}}
    claims = [bob.post("keys/claim", json=wish).get_json()["one_time_keys"] for _ in range(2)]

    assert found["device_keys"][alice.user_id]["DRY"]["dehydrated"] is True
    names = [list(claim[alice.user_id]["DRY"]) for claim in claims]
    assert names == [["signed_curve25519:AAAA"], ["signed_curve25519:FFFF"]]


def test_room_mates_learn_of_it(login: Login, room: Any) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    token = bob.sync()["next_batch"]

    upload(alice)

    assert bob.sync(token)["device_lists"]["changed"] == [alice.user_id]


def test_its_messages_are_read_in_parts(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = login("alice"), login("bob")
    upload(alice)
    monkeypatch.setattr(to_device, "AT_ONCE", 2)
    for number in range(5):
        write(bob, alice, number)

    answers = [alice.get(f"{DEVICE}/DRY/events")]
    while "next_batch" in answers[-1].get_json():
        query = {"from": answers[-1].get_json()["next_batch"]}
        answers.append(alice.get(f"{DEVICE}/DRY/events", query_string=query))

    assert [numbers(answer) for answer in answers] == [[0, 1], [2, 3], [4]]
    assert answers[0].get_json()["events"][0]["sender"] == bob.user_id


def test_clients_that_ask_by_post_go_on_until_nothing_comes(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload(alice)
    write(bob, alice, 7)

    first = alice.post(f"{DEVICE}/DRY/events")
    body = {"next_batch": first.get_json()["next_batch"]}
    second = alice.post(f"{DEVICE}/DRY/events", json=body)

    assert (numbers(first), numbers(second)) == ([7], [])
    assert isinstance(second.get_json()["next_batch"], str)


def test_messages_can_be_read_again_until_the_device_goes(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload(alice)
    write(bob, alice, 7)

    answers = [alice.get(f"{DEVICE}/DRY/events") for _ in range(2)]

    assert [numbers(answer) for answer in answers] == [[7], [7]]


def test_a_new_one_takes_the_place_of_the_old(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload(alice, "OLD")
    write(bob, alice, 7, "OLD")

    upload(alice, "NEW")

    assert alice.get(DEVICE).get_json()["device_id"] == "NEW"
    assert refusal(alice.get(f"{DEVICE}/OLD/events")) == (403, "M_FORBIDDEN")
    assert "OLD" not in str(everything(app))


def test_an_upload_that_is_repeated_brings_no_claimed_key_back_and_loses_no_message(
    login: Login,
) -> None:
    alice, bob = login("alice"), login("bob")
    wish = {"one_time_keys": {alice.user_id: {"DRY": "signed_curve25519"}}}
    upload(alice)
    bob.post("keys/claim", json=wish)
    write(bob, alice, 7)

    upload(alice)
    again = bob.post("keys/claim", json=wish).get_json()["one_time_keys"]

    assert list(again[alice.user_id]["DRY"]) == ["signed_curve25519:FFFF"]
    assert numbers(alice.get(f"{DEVICE}/DRY/events")) == [7]


def test_it_can_be_uploaded_again(login: Login) -> None:
    alice = login("alice")

    upload(alice)
    upload(alice)

    assert alice.get(DEVICE).get_json()["device_id"] == "DRY"


def test_it_ends(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload(alice)
    write(bob, alice, 7)

    answers = [alice.delete(DEVICE), alice.delete(DEVICE)]

    assert (answers[0].status_code, answers[0].get_json()) == (200, {"device_id": "DRY"})
    assert refusal(answers[1]) == (404, "M_NOT_FOUND")
    assert "DRY" not in str(everything(app))


def test_it_may_be_ended_like_any_session(login: Login) -> None:
    alice = login("alice")
    upload(alice)

    ended = alice.delete("devices/DRY", json={"auth": password_of(alice)})

    assert ended.status_code == 200
    assert refusal(alice.get(DEVICE)) == (404, "M_NOT_FOUND")
    assert refusal(alice.get(f"{DEVICE}/DRY/events")) == (404, "M_NOT_FOUND")


def test_it_takes_no_sessions_place(app: Application, login: Login) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.put(DEVICE, json=dehydrated(alice, alice.device_id))

    assert refusal(answer) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"device_id": 1}, "M_BAD_JSON"),
        ({"device_data": {}}, "M_MISSING_PARAM"),
        ({"device_data": "x"}, "M_BAD_JSON"),
        ({"device_keys": None}, "M_BAD_JSON"),
        ({"device_id": "OTHER"}, "M_INVALID_PARAM"),
        ({"device_id": ""}, "M_INVALID_PARAM"),
        ({"one_time_keys": {"AAAA": "k"}}, "M_INVALID_PARAM"),
        ({"one_time_keys": {"signed_curve25519:AAAA": 1}}, "M_BAD_JSON"),
        ({"fallback_keys": []}, "M_BAD_JSON"),
    ],
)
def test_a_malformed_one_is_refused(
    app: Application, login: Login, change: Json, errcode: str
) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.put(DEVICE, json={**dehydrated(alice), **change})

    assert refusal(answer) == (400, errcode)


def test_a_very_long_one_is_refused(app: Application, login: Login) -> None:
    alice = login("alice")
    data = {**DATA, "device_pickle": "x" * 70_000}

    with unchanged(app):
        answer = alice.put(DEVICE, json={**dehydrated(alice), "device_data": data})

    assert refusal(answer) == (413, "M_TOO_LARGE")


def test_a_foreign_token_is_refused(login: Login) -> None:
    alice = login("alice")
    upload(alice)

    answers = [
        alice.get(f"{DEVICE}/DRY/events?from=x"),
        alice.post(f"{DEVICE}/DRY/events", json={"next_batch": "s99999"}),
    ]

    assert {refusal(answer) for answer in answers} == {(400, "M_INVALID_PARAM")}


def test_it_goes_with_the_account(app: Application, login: Login) -> None:
    alice = login("alice")
    upload(alice)

    answer = alice.post("account/deactivate", json={"auth": password_of(alice)})

    assert answer.status_code == 200
    assert everything(app)["dehydrated_devices"] == []


def test_clients_can_ask_whether_there_are_any(login: Login) -> None:
    features = login("alice").get("/_matrix/client/versions").get_json()["unstable_features"]

    assert features["org.matrix.msc3814"] is True
