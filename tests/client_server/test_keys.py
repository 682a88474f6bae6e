"""Keys of devices: published, asked for, claimed once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from homebody.client_server import keys
from homebody.core.encryption import claim_limits, key_signatures, one_time_keys
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.helpers import encryption, sliding
from tests.helpers.rooms import Json, everything, refusal, unchanged

CURVE = "signed_curve25519"


def signed_key(person: Person, text: str, **more: Any) -> Json:
    """A one-time key as a device signs it."""
    bare = {"key": text * 43, **more}
    key = encryption.device_key(person)
    return encryption.sign(bare, person.user_id, person.device_id, key)


def one_time(person: Person, *names: str) -> Json:
    """{"signed_curve25519:a": key} for each of some names of one letter."""
    return {f"{CURVE}:{name}": signed_key(person, name) for name in names}


def fallback(person: Person, name: str) -> Json:
    return {f"{CURVE}:{name}": signed_key(person, name, fallback=True)}


def upload(person: Person, **body: Any) -> Json:
    """{algorithm: count} after an upload."""
    answer = person.post("keys/upload", json=body)
    assert answer.status_code == 200, answer.get_json()
    counts: Json = answer.get_json()["one_time_key_counts"]
    return counts


def query(person: Person, *others: Person, **body: Any) -> Json:
    asked = {"device_keys": {other.user_id: [] for other in others}, **body}
    answer = person.post("keys/query", json=asked)
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def claim(person: Person, *others: Person, algorithm: str = CURVE) -> Json:
    """{user_id: {device_id: {name: key}}}"""
    wanted: Json = {}
    for other in others:
        wanted.setdefault(other.user_id, {})[other.device_id] = algorithm
    answer = person.post("keys/claim", json={"one_time_keys": wanted})
    assert answer.status_code == 200, answer.get_json()
    assert answer.get_json()["failures"] == {}
    keys: Json = answer.get_json()["one_time_keys"]
    return keys


def claim_one(person: Person, other: Person) -> Json:
    """{name: key}, empty when there is none."""
    found: Json = claim(person, other).get(other.user_id, {}).get(other.device_id, {})
    return found


def test_others_find_a_devices_keys_as_it_signed_them(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    keys = encryption.device_keys(alice)

    upload(alice, device_keys=keys | {"unsigned": {"a": "lie"}})

    found = query(bob, alice)
    assert found["failures"] == {}
    assert found["device_keys"] == {alice.user_id: {alice.device_id: {**keys, "unsigned": {}}}}


def test_a_query_shows_the_name_of_the_device(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    encryption.upload_device_keys(alice)

    alice.put(f"devices/{alice.device_id}", json={"display_name": "Phone"})

    device = query(bob, alice)["device_keys"][alice.user_id][alice.device_id]
    assert device["unsigned"] == {"device_display_name": "Phone"}


def test_a_query_for_some_devices_shows_those(login: Login) -> None:
    phone, laptop, bob = login("alice"), login("alice"), login("bob")
    encryption.upload_device_keys(phone)
    encryption.upload_device_keys(laptop)

    asked = {"device_keys": {phone.user_id: [laptop.device_id, "UNKNOWN"]}}
    found = bob.post("keys/query", json=asked).get_json()["device_keys"]

    assert list(found[phone.user_id]) == [laptop.device_id]
    assert query(bob, phone)["device_keys"][phone.user_id].keys() == {
        phone.device_id,
        laptop.device_id,
    }


def test_a_user_without_keys_is_shown_empty_and_an_unknown_one_not_at_all(login: Login) -> None:
    alice, bob = login("alice"), login("bob")

    asked: Json = {bob.user_id: [], "@nobody:localhost": [], "@far:example.org": []}
    found = alice.post("keys/query", json={"device_keys": asked, "timeout": 10_000}).get_json()

    assert found["device_keys"] == {bob.user_id: {}}


def test_a_query_brings_cross_signing_keys_and_their_signatures(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    keys = encryption.upload_device_keys(alice)
    identity = encryption.Identity(alice.user_id)
    alice.post("keys/device_signing/upload", json=identity.upload())
    bare = {name: value for name, value in keys.items() if name != "signatures"}
    signed = {alice.user_id: {alice.device_id: identity.sign(bare, "self_signing")}}
    alice.post("keys/signatures/upload", json=signed)

    found = query(bob, alice)

    signatures = found["device_keys"][alice.user_id][alice.device_id]["signatures"]
    assert signatures[alice.user_id].keys() == {
        f"ed25519:{alice.device_id}",
        f"ed25519:{identity.public('self_signing')}",
    }
    assert found["master_keys"].keys() == found["self_signing_keys"].keys() == {alice.user_id}
    assert found["user_signing_keys"] == {}
    assert query(alice, alice)["user_signing_keys"].keys() == {alice.user_id}


@pytest.mark.parametrize("other", ["user", "device", "key name"])
def test_a_device_publishes_only_its_own_keys(app: Application, login: Login, other: str) -> None:
    alice, bob = login("alice"), login("alice2")
    keys = encryption.device_keys(alice)
    if other == "user":
        keys["user_id"] = bob.user_id
    elif other == "device":
        keys["device_id"] = bob.device_id
    else:
        keys["keys"] = {f"ed25519:{bob.device_id}": "k" * 43}

    with unchanged(app):
        answer = alice.post("keys/upload", json={"device_keys": keys})

    assert refusal(answer) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({"device_keys": {}}, 400, "M_BAD_JSON"),
        ({"device_keys": []}, 400, "M_BAD_JSON"),
        ({"one_time_keys": {"signed_curve25519:a": 1}}, 400, "M_BAD_JSON"),
        ({"one_time_keys": {"signed_curve25519:a": {"key": "k"}}}, 400, "M_BAD_JSON"),
        ({"one_time_keys": {"nocolon": "k"}}, 400, "M_INVALID_PARAM"),
        ({"one_time_keys": {":a": "k"}}, 400, "M_INVALID_PARAM"),
        ({"one_time_keys": {"curve25519:" + "x" * 255: "k"}}, 400, "M_INVALID_PARAM"),
        ({"one_time_keys": {"curve25519:a": "k" * 9000}}, 413, "M_TOO_LARGE"),
        ({"fallback_keys": {"curve25519:a": "k", "curve25519:b": "k"}}, 400, "M_INVALID_PARAM"),
    ],
)
def test_what_is_no_key_is_refused(
    app: Application, login: Login, body: Json, status: int, errcode: str
) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.post("keys/upload", json=body)

    assert refusal(answer) == (status, errcode)


def test_too_many_one_time_keys_are_refused_before_any_is_looked_at(
    app: Application, login: Login
) -> None:
    # half a million of them kept everybody from writing for seconds
    alice = login("alice")
    names = [f"without a colon {number}" for number in range(one_time_keys.MAX_KEYS + 1)]

    with unchanged(app):
        answer = alice.post("keys/upload", json={"one_time_keys": dict.fromkeys(names, "k")})

    assert refusal(answer) == (413, "M_TOO_LARGE")


def test_a_device_has_fallback_keys_of_few_algorithms(app: Application, login: Login) -> None:
    alice = login("alice")
    names = [f"algorithm{number}:a" for number in range(one_time_keys.MAX_FALLBACKS + 1)]
    upload(alice, fallback_keys=dict.fromkeys(names[:-2], "k"))
    upload(alice, fallback_keys=dict.fromkeys(names[1:-1], "k"))

    with unchanged(app):
        answer = alice.post("keys/upload", json={"fallback_keys": {names[-1]: "k"}})

    assert refusal(answer) == (413, "M_TOO_LARGE")
    assert len(alice.sync()["device_unused_fallback_key_types"]) == one_time_keys.MAX_FALLBACKS


@pytest.mark.parametrize("missing", ["algorithms", "keys", "signatures", "user_id"])
def test_device_keys_without_a_required_key_are_bad_json(
    app: Application, login: Login, missing: str
) -> None:
    alice = login("alice")
    keys = encryption.device_keys(alice)
    del keys[missing]

    with unchanged(app):
        answer = alice.post("keys/upload", json={"device_keys": keys})

    assert refusal(answer) == (400, "M_BAD_JSON")


def test_device_keys_that_are_too_large_or_not_canonical_are_refused(
    app: Application, login: Login
) -> None:
    alice = login("alice")
    keys = encryption.device_keys(alice)

    with unchanged(app):
        answers = [
            alice.post("keys/upload", json={"device_keys": keys | {"x": 1.5}}),
            alice.post(
                "keys/upload", json={"device_keys": keys | {"x": "y" * key_signatures.MAX_BYTES}}
            ),
        ]

    assert [refusal(answer) for answer in answers] == [(400, "M_BAD_JSON"), (413, "M_TOO_LARGE")]


@pytest.mark.parametrize("path", ["query", "claim"])
@pytest.mark.parametrize(
    ("asked", "errcode"),
    [(None, "M_MISSING_PARAM"), ({"bob": {}}, "M_BAD_JSON"), ([], "M_BAD_JSON")],
)
def test_a_request_for_keys_must_have_its_shape(
    login: Login, path: str, asked: Any, errcode: str
) -> None:
    alice = login("alice")
    name = "device_keys" if path == "query" else "one_time_keys"
    body = {} if asked is None else {name: {"@bob:localhost": 1} if asked else asked}

    answer = alice.post(f"keys/{path}", json=body)

    assert refusal(answer) == (400, errcode)


def test_keys_are_asked_for_by_user_id(login: Login) -> None:
    alice = login("alice")

    answers = [
        alice.post("keys/query", json={"device_keys": {"bob": []}}),
        alice.post("keys/claim", json={"one_time_keys": {"bob": {}}}),
    ]

    assert [refusal(answer) for answer in answers] == [(400, "M_INVALID_PARAM")] * 2


def test_one_time_keys_are_counted_in_uploads_and_sync(login: Login) -> None:
    alice = login("alice")

    before = upload(alice)
    after = upload(alice, one_time_keys=one_time(alice, "a", "b") | {"curve25519:x": "bare"})

    assert before == {CURVE: 0}
    assert after == {CURVE: 2, "curve25519": 1}
    assert upload(alice, device_keys=None, one_time_keys=None) == after
    assert alice.sync()["device_one_time_keys_count"] == after


def claimed_while(alice: Person, bob: Person, look: Callable[[], Json]) -> Json:
    """Return the response of a request by Alice that waits while Bob claims a key of hers."""
    answers: list[Json] = []
    thread = threading.Thread(target=lambda: answers.append(look()))
    thread.start()
    time.sleep(0.3)
    began = time.monotonic()
    claim_one(bob, alice)
    thread.join(10)
    assert time.monotonic() - began < 5
    return answers[0]


def test_a_claim_wakes_a_waiting_sync(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload(alice, one_time_keys=one_time(alice, "a", "b"))
    since = alice.sync()["next_batch"]

    answer = claimed_while(alice, bob, lambda: alice.sync(since, timeout=20_000))

    assert answer["device_one_time_keys_count"] == {CURVE: 1}


@pytest.mark.parametrize("has_fallback", [False, True])
def test_a_claim_between_two_requests_ends_the_wait_of_the_second_at_once(
    login: Login, *, has_fallback: bool
) -> None:
    alice, bob = login("alice"), login("bob")
    if has_fallback:
        upload(alice, fallback_keys=fallback(alice, "f"))
    else:
        upload(alice, one_time_keys=one_time(alice, "a", "b"))
    since = alice.sync()["next_batch"]
    claim_one(bob, alice)

    began = time.monotonic()
    answer = alice.sync(since, timeout=20_000)
    repeated = alice.sync(since, timeout=20_000)
    taken = time.monotonic() - began
    upload(alice, one_time_keys=one_time(alice, "c"))
    later = alice.sync(answer["next_batch"], timeout=300)

    assert taken < 5
    assert answer["device_one_time_keys_count"] == {CURVE: 0 if has_fallback else 1}
    assert answer["device_unused_fallback_key_types"] == []
    assert repeated == answer
    assert time.monotonic() - began - taken >= 0.3
    assert later["device_one_time_keys_count"] == {CURVE: 1 if has_fallback else 2}


def test_a_claim_of_a_fallback_key_that_was_used_before_ends_no_wait(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload(alice, fallback_keys=fallback(alice, "f"))
    claim_one(bob, alice)
    since = alice.sync()["next_batch"]
    claim_one(bob, alice)

    began = time.monotonic()
    alice.sync(since, timeout=300)

    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("has_fallback", [False, True])
def test_a_claim_wakes_a_waiting_connection_and_one_before_is_told_at_once(
    login: Login, *, has_fallback: bool
) -> None:
    alice, bob = login("alice"), login("bob")
    keys = one_time(alice, "b", "c")
    if has_fallback:
        keys = {}
        upload(alice, fallback_keys=fallback(alice, "f"))
    upload(alice, one_time_keys=keys)
    wanted: Json = {"lists": {}, "extensions": {"e2ee": {"enabled": True}}}
    pos = sliding.ask(alice, **wanted)["pos"]

    woken = claimed_while(alice, bob, lambda: sliding.ask(alice, pos, 20_000, **wanted))
    began = time.monotonic()
    repeated = sliding.ask(alice, pos, 20_000, **wanted)

    assert woken == {**repeated, "pos": woken["pos"]}
    section = woken["extensions"]["e2ee"]
    assert section["device_one_time_keys_count"] == {CURVE: 0 if has_fallback else 1}
    assert section["device_unused_fallback_key_types"] == []
    assert time.monotonic() - began < 5


def test_a_clients_own_upload_does_not_end_its_wait(login: Login) -> None:
    alice = login("alice")
    wanted: Json = {"lists": {}, "extensions": {"e2ee": {"enabled": True}}}
    pos = sliding.ask(alice, **wanted)["pos"]
    upload(alice, one_time_keys=one_time(alice, "a"))
    began = time.monotonic()

    sliding.ask(alice, pos, 300, **wanted)

    assert time.monotonic() - began >= 0.3


def test_the_oldest_one_time_key_is_claimed_first_and_once(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    old, new = one_time(alice, "z"), one_time(alice, "a")
    upload(alice, one_time_keys=old)
    upload(alice, one_time_keys=new)

    found = [claim_one(bob, alice) for _ in range(3)]

    assert found == [old, new, {}]
    assert alice.sync()["device_one_time_keys_count"] == {CURVE: 0}


def test_a_claim_may_be_for_many_devices_and_some_have_no_key(login: Login) -> None:
    phone, laptop, bob = login("alice"), login("alice"), login("bob")
    upload(phone, one_time_keys=one_time(phone, "p"))

    found = claim(bob, phone, laptop, bob)

    assert found == {phone.user_id: {phone.device_id: one_time(phone, "p")}}


def test_a_key_of_another_algorithm_is_not_claimed(login: Login) -> None:
    alice = login("alice")
    upload(alice, one_time_keys=one_time(alice, "a"))

    assert claim(alice, alice, algorithm="curve25519") == {}
    assert claim_one(alice, alice) == one_time(alice, "a")


def test_a_repeated_upload_of_a_one_time_key_changes_nothing(login: Login) -> None:
    alice = login("alice")
    keys = one_time(alice, "a")
    upload(alice, one_time_keys=keys)
    resigned = {**keys[f"{CURVE}:a"], "signatures": {alice.user_id: {"ed25519:X": "new"}}}

    counts = upload(alice, one_time_keys={f"{CURVE}:a": resigned, **one_time(alice, "b")})

    assert counts == {CURVE: 2}
    assert claim_one(alice, alice) == keys


def test_an_upload_that_is_repeated_after_a_claim_does_not_bring_the_key_back(
    login: Login,
) -> None:
    alice, bob = login("alice"), login("bob")
    keys = one_time(alice, "a", "b")
    upload(alice, one_time_keys=keys)
    first = claim_one(bob, alice)
    again = keys[f"{CURVE}:a"]
    resigned = {**again, "signatures": {alice.user_id: {"ed25519:X": "new"}}}

    counts = [
        upload(alice, one_time_keys=keys),
        upload(alice, one_time_keys={f"{CURVE}:a": resigned}),
    ]

    assert first == one_time(alice, "a")
    assert counts == [{CURVE: 1}] * 2
    assert [claim_one(bob, alice), claim_one(bob, alice)] == [one_time(alice, "b"), {}]


@pytest.mark.parametrize("has_keys", [True, False])
def test_a_claimed_key_does_not_come_back_with_a_new_session_of_the_same_name(
    client: FlaskClient, login: Login, *, has_keys: bool
) -> None:
    before, bob = login("alice"), login("bob")
    if has_keys:
        encryption.upload_device_keys(before)
    keys = one_time(before, "a", "b")
    upload(before, one_time_keys=keys)
    assert claim_one(bob, before) == one_time(before, "a")

    before.post("logout")
    user = {"type": "m.id.user", "user": "alice"}
    body = {"type": "m.login.password", "identifier": user, "password": PASSWORD}
    body["device_id"] = before.device_id
    token = client.post(V3 + "login", json=body).get_json()["access_token"]
    again = Person(client, before.user_id, token, before.device_id)

    assert upload(again, one_time_keys=keys) == {CURVE: 1}
    assert [claim_one(bob, again), claim_one(bob, again)] == [one_time(again, "b"), {}]


def test_claims_of_a_device_that_is_no_more_are_forgotten_in_the_end(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone, laptop, bob = login("alice"), login("alice"), login("bob")
    for device in (phone, laptop):
        upload(device, one_time_keys=one_time(device, "a"))
        claim_one(bob, device)
    phone.post("logout")
    monkeypatch.setattr(one_time_keys, "CLAIMS_KEPT_MS", -1)

    login("alice").post("logout")

    rows = everything(app)["claimed_one_time_keys"]
    assert [row[1] for row in rows] == [laptop.device_id]


def test_claims_of_a_closed_account_are_forgotten_at_once(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    for person in (alice, bob):
        upload(person, one_time_keys=one_time(person, "a"))
        claim_one(bob, person)
    proof = {"type": "m.login.password", "user": "alice", "password": PASSWORD}

    alice.post("account/deactivate", json={"auth": proof})

    rows = everything(app)["claimed_one_time_keys"]
    assert [row[0] for row in rows] == [bob.user_id]


def test_another_key_may_take_the_name_of_a_claimed_one(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload(alice, one_time_keys=one_time(alice, "a"))
    claim_one(bob, alice)

    other = {f"{CURVE}:a": signed_key(alice, "b")}
    upload(alice, one_time_keys=other)

    assert claim_one(bob, alice) == other


def test_only_the_last_claims_of_a_device_are_remembered(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_time_keys, "MAX_KEYS", 2)
    alice, bob = login("alice"), login("bob")
    for name in "abcdef":
        upload(alice, one_time_keys=one_time(alice, name))
        claim_one(bob, alice)
        time.sleep(0.002)  # the claims are ordered by milliseconds

    counts = upload(alice, one_time_keys=one_time(alice, "f"))

    assert counts == {CURVE: 0}
    assert len(everything(app)["claimed_one_time_keys"]) <= 3


def people(make_app: MakeApp, *names: str, **settings: str) -> list[Person]:
    """Users of a server with these settings, and with rate limits."""
    often = {"rate_limits": "true", "rc_registration.burst_count": "10"}
    client = make_app(**(often | settings)).test_client()
    found = []
    for name in names:
        body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        session = client.post(V3 + "register", json=body).get_json()
        ids = (session[part] for part in ("user_id", "access_token", "device_id"))
        found.append(Person(client, *ids))
    return found


def test_strangers_together_get_few_keys_of_a_device_and_then_its_fallback_key(
    make_app: MakeApp, room: Any
) -> None:
    settings = {"quotas.claimed_keys_per_day": "2"}
    alice, bob, eve, mallory = people(make_app, "alice", "bob", "eve", "mallory", **settings)
    room(alice, bob)
    upload(alice, one_time_keys=one_time(alice, *"abcdef"), fallback_keys=fallback(alice, "z"))

    by_strangers = [claim_one(it, alice) for it in (eve, mallory, eve, mallory)]
    by_bob = [claim_one(bob, alice) for _ in range(3)]
    own = [claim_one(alice, alice) for _ in range(2)]

    last = fallback(alice, "z")
    assert by_strangers == [one_time(alice, "a"), one_time(alice, "b"), last, last]
    assert by_bob == [one_time(alice, "c"), one_time(alice, "d"), last]
    assert own == [one_time(alice, "e"), one_time(alice, "f")]


def test_guests_are_strangers_in_every_room(make_app: MakeApp, room: Any) -> None:
    settings = {"quotas.claimed_keys_per_day": "1"}
    alice, bob = people(make_app, "alice", "bob", **settings)
    guest_access = {"type": "m.room.guest_access", "content": {"guest_access": "can_join"}}
    room_id = room(alice, bob, initial_state=[guest_access])
    upload(alice, one_time_keys=one_time(alice, *"abc"))
    found = []
    for _ in range(2):
        session = alice.client.post(f"{V3}register?kind=guest", json={}).get_json()
        ids = (session[part] for part in ("user_id", "access_token", "device_id"))
        guest = Person(alice.client, *ids)
        assert guest.post(f"rooms/{room_id}/join").status_code == 200
        found.append(claim_one(guest, alice))

    found.append(claim_one(bob, alice))

    assert found == [one_time(alice, "a"), {}, one_time(alice, "b")]


def test_somebody_who_is_invited_is_no_stranger(make_app: MakeApp) -> None:
    settings = {"quotas.claimed_keys_per_day": "1"}
    alice, bob, eve = people(make_app, "alice", "bob", "eve", **settings)
    bob.create_room(invite=[alice.user_id])
    upload(alice, one_time_keys=one_time(alice, *"abc"))

    found = [claim_one(it, alice) for it in (eve, bob, eve, bob)]

    assert found == [one_time(alice, "a"), one_time(alice, "b"), {}, {}]


def test_without_rate_limits_all_keys_of_a_device_may_be_claimed(
    make_app: MakeApp,
) -> None:
    settings = {"quotas.claimed_keys_per_day": "1", "rate_limits": "false"}
    alice, eve = people(make_app, "alice", "eve", **settings)
    upload(alice, one_time_keys=one_time(alice, *"ab"))

    found = [claim_one(eve, alice) for _ in range(2)]

    assert found == [one_time(alice, "a"), one_time(alice, "b")]


def test_what_may_be_claimed_is_for_each_device_and_comes_back_after_a_day(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    (alice, eve) = people(make_app, "alice", "eve", **{"quotas.claimed_keys_per_day": "1"})
    upload(alice, one_time_keys=one_time(alice, *"ab"))
    first, refused = claim_one(eve, alice), claim_one(eve, alice)

    monkeypatch.setattr(claim_limits, "_DAY_MS", -1)
    later = claim_one(eve, alice)

    assert [first, refused, later] == [one_time(alice, "a"), {}, one_time(alice, "b")]


def test_keys_of_many_devices_are_claimed_in_several_writes(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 10,000 claims kept everybody from writing for more than 100 ms
    monkeypatch.setattr(one_time_keys, "CLAIMED_AT_ONCE", 2)
    alice, bobs = login("alice"), [login("bob") for _ in range(5)]
    for number, bob in enumerate(bobs):
        upload(bob, one_time_keys=one_time(bob, "abcde"[number]))
    writes: list[int] = []
    app.homeserver.database.writer.committed = lambda number, _seconds: writes.append(number)

    found = claim(alice, *bobs)

    assert len(writes) == 3
    assert found == {
        bobs[0].user_id: {
            bob.device_id: one_time(bob, "abcde"[number]) for number, bob in enumerate(bobs)
        }
    }


def test_a_request_asks_for_only_so_many_users_or_devices(app: Application, login: Login) -> None:
    alice = login("alice")
    users: Json = {f"@u{number}:localhost": [] for number in range(keys.MAX_QUERIED + 1)}
    devices = {f"D{number}": CURVE for number in range(keys.MAX_CLAIMS + 1)}

    with unchanged(app):
        answers = [
            alice.post("keys/query", json={"device_keys": users}),
            alice.post("keys/claim", json={"one_time_keys": {alice.user_id: devices}}),
        ]

    assert [refusal(answer) for answer in answers] == [(413, "M_TOO_LARGE")] * 2


@pytest.mark.parametrize("path", ["query", "claim"])
def test_large_requests_for_keys_are_limited(make_app: MakeApp, path: str) -> None:
    limit = "rc_key_queries" if path == "query" else "rc_writes"
    settings = {f"{limit}.per_second": "0.001", f"{limit}.burst_count": "12"}
    (alice,) = people(make_app, "alice", rate_limits="true", **settings)
    asked: Json = {"device_keys": {f"@u{number}:localhost": [] for number in range(2000)}}
    if path == "claim":
        devices = {f"D{number}": CURVE for number in range(900)}
        asked = {"one_time_keys": {alice.user_id: devices}}

    answers = [alice.post(f"keys/{path}", json=asked) for _ in range(2)]

    assert answers[0].status_code == 200
    assert refusal(answers[1]) == (429, "M_LIMIT_EXCEEDED")


def test_another_one_time_key_under_a_known_name_is_refused(app: Application, login: Login) -> None:
    alice = login("alice")
    upload(alice, one_time_keys=one_time(alice, "a"))
    other = {f"{CURVE}:a": signed_key(alice, "b")}

    with unchanged(app):
        answer = alice.post(
            "keys/upload", json={"one_time_keys": {**one_time(alice, "c"), **other}}
        )

    assert refusal(answer) == (400, "M_INVALID_PARAM")
    assert answer.get_json()["error"].startswith(f"One time key {CURVE}:a already exists.")


def test_a_device_keeps_only_so_many_one_time_keys(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_time_keys, "MAX_KEYS", 2)
    alice = login("alice")
    upload(alice, one_time_keys=one_time(alice, "a", "b"))

    with unchanged(app):
        answer = alice.post("keys/upload", json={"one_time_keys": one_time(alice, "c")})

    assert refusal(answer) == (413, "M_TOO_LARGE")


def test_claims_at_the_same_time_get_different_keys(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload(alice, one_time_keys=one_time(alice, *"abcdefgh"))
    found: list[Json] = []
    body = {"one_time_keys": {alice.user_id: {alice.device_id: CURVE}}}

    def run() -> None:
        person = Person(app.test_client(), bob.user_id, bob.access_token, bob.device_id)
        for _ in range(2):
            keys = person.post("keys/claim", json=body).get_json()["one_time_keys"]
            found.append(keys[alice.user_id][alice.device_id])

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert sorted(name for keys in found for name in keys) == [f"{CURVE}:{it}" for it in "abcdefgh"]


def test_the_fallback_key_stands_in_and_is_then_used(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload(alice, one_time_keys=one_time(alice, "a"), fallback_keys=fallback(alice, "f"))
    unused = alice.sync()["device_unused_fallback_key_types"]

    found = [claim_one(bob, alice) for _ in range(3)]

    assert unused == [CURVE]
    assert found == [one_time(alice, "a"), fallback(alice, "f"), fallback(alice, "f")]
    assert alice.sync()["device_unused_fallback_key_types"] == []


def test_a_new_fallback_key_takes_the_place_of_the_old_one(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload(alice, fallback_keys=fallback(alice, "f"))
    claim_one(bob, alice)

    upload(alice, fallback_keys=fallback(alice, "f"))
    resigned = {**fallback(alice, "f")[f"{CURVE}:f"], "signatures": {alice.user_id: {"X": "new"}}}
    upload(alice, fallback_keys={f"{CURVE}:f": resigned})
    after_the_same = alice.sync()["device_unused_fallback_key_types"]
    upload(alice, fallback_keys=fallback(alice, "g"))

    assert after_the_same == []
    assert alice.sync()["device_unused_fallback_key_types"] == [CURVE]
    assert claim_one(bob, alice) == fallback(alice, "g")


def test_a_device_that_begins_anew_may_use_its_names_again(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    keys = encryption.upload_device_keys(alice)
    upload(alice, one_time_keys=one_time(alice, "a"), fallback_keys=fallback(alice, "f"))
    device = f"curve25519:{alice.device_id}"
    anew = keys | {"keys": keys["keys"] | {device: "n" * 43}}

    counts = upload(alice, device_keys=anew, one_time_keys={f"{CURVE}:a": signed_key(alice, "n")})

    assert counts == {CURVE: 1}
    assert claim_one(bob, alice)[f"{CURVE}:a"]["key"] == "n" * 43
    assert claim_one(bob, alice) == {}


def test_a_device_that_is_no_more_has_no_keys(app: Application, login: Login) -> None:
    phone, laptop, bob = login("alice"), login("alice"), login("bob")
    encryption.upload_device_keys(phone)
    upload(phone, one_time_keys=one_time(phone, "a"), fallback_keys=fallback(phone, "f"))
    encryption.upload_device_keys(laptop)

    phone.post("logout")

    tables = everything(app)
    assert [tables[name] for name in ("one_time_keys", "fallback_keys")] == [[], []]
    assert query(bob, phone)["device_keys"][phone.user_id].keys() == {laptop.device_id}
    assert claim_one(bob, phone) == {}


def test_keys_are_for_who_is_logged_in(login: Login) -> None:
    nobody = login("alice")
    nobody.access_token = "hb_wrong"

    answers = [nobody.post(f"keys/{path}") for path in ("upload", "query", "claim")]
    answers.append(nobody.get("keys/changes?from=s1&to=s1"))

    assert [refusal(answer) for answer in answers] == [(401, "M_UNKNOWN_TOKEN")] * 4
