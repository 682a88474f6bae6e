"""Cross-signing: who may upload and replace keys, who may sign what, and who sees it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from werkzeug.test import TestResponse

from homebody.core.encryption import cross_signing, key_signatures
from homebody.web import Application
from tests.conftest import V3, Login, Person
from tests.helpers.encryption import (
    Identity,
    device_key,
    device_keys,
    password_of,
    public,
    sign,
    signing_key,
    upload_device_keys,
)
from tests.helpers.rooms import Json, everything, refusal, unchanged

UPLOAD = "keys/device_signing/upload"
ALICE = "@alice:localhost"
SIGNATURES = "keys/signatures/upload"
NO_NEWS: Json = {"changed": [], "left": []}


def with_keys(person: Person, generation: str = "") -> Identity:
    """Upload cross-signing keys of the person."""
    identity = Identity(person.user_id, generation)
    answer = person.post(UPLOAD, json=identity.upload())
    assert (answer.status_code, answer.get_json()) == (200, {})
    return identity


def stored(app: Application) -> list[Any]:
    """Return the keys of all users."""
    return everything(app)["cross_signing_keys"]


def query(person: Person, *others: Person) -> Json:
    asked: Json = {other.user_id: [] for other in others or (person,)}
    answer = person.post("keys/query", json={"device_keys": asked})
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def replace(person: Person, keys: Json) -> TestResponse:
    """Upload keys, authenticated with the password."""
    return person.post(UPLOAD, json={**keys, "auth": password_of(person)})


def failures(answer: TestResponse) -> Json:
    """{user_id: {name: errcode}}"""
    assert answer.status_code == 200, answer.get_json()
    told = answer.get_json()["failures"]
    return {
        user_id: {name: error["errcode"] for name, error in of_user.items()}
        for user_id, of_user in told.items()
    }


def test_the_first_keys_need_no_password_and_are_seen(login: Login) -> None:
    alice, bob = login("alice"), login("bob")

    identity = with_keys(alice)

    mine, theirs = query(alice), query(bob, alice)
    for usage in ("master", "self_signing"):
        assert mine[f"{usage}_keys"] == {alice.user_id: identity.key(usage)}
        assert theirs[f"{usage}_keys"] == mine[f"{usage}_keys"]
    assert mine["user_signing_keys"] == {alice.user_id: identity.key("user_signing")}
    assert theirs.get("user_signing_keys", {}) == {}


def test_the_same_keys_may_be_uploaded_again_without_password(
    app: Application, login: Login
) -> None:
    alice = login("alice")
    identity = with_keys(alice)
    before = stored(app)

    answers = [
        alice.post(UPLOAD, json=identity.upload()),
        alice.post(UPLOAD, json={"master_key": identity.key("master")}),
        alice.post(UPLOAD, json={"self_signing_key": identity.key("self_signing")}),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert stored(app) == before


@pytest.mark.parametrize("usage", ["master", "self_signing", "user_signing"])
def test_other_keys_need_the_password(app: Application, login: Login, usage: str) -> None:
    alice = login("alice")
    old, new = with_keys(alice), Identity(alice.user_id, "new")
    new.keys = {**old.keys, usage: new.keys[usage]}

    before = stored(app)
    asked = alice.post(UPLOAD, json=new.upload())
    after = stored(app)
    answer = replace(alice, new.upload())

    assert (asked.status_code, after) == (401, before)
    assert asked.get_json()["flows"] == [{"stages": ["m.login.password"]}]
    assert answer.status_code == 200, answer.get_json()
    assert query(alice)[f"{usage}_keys"] == {alice.user_id: new.key(usage)}


def test_a_key_added_to_a_set_needs_the_password(app: Application, login: Login) -> None:
    alice = login("alice")
    identity = Identity(alice.user_id)
    alice.post(UPLOAD, json={"master_key": identity.key("master")})

    before = stored(app)
    asked = alice.post(UPLOAD, json=identity.upload())

    assert (asked.status_code, stored(app)) == (401, before)
    assert replace(alice, identity.upload()).status_code == 200
    assert query(alice)["self_signing_keys"] == {alice.user_id: identity.key("self_signing")}


def test_the_wrong_password_replaces_nothing(app: Application, login: Login) -> None:
    alice = login("alice")
    with_keys(alice)
    auth = {**password_of(alice), "password": "guess"}
    before = stored(app)

    answer = alice.post(UPLOAD, json={**Identity(alice.user_id, "new").upload(), "auth": auth})

    assert stored(app) == before
    assert (answer.status_code, answer.get_json()["errcode"]) == (401, "M_FORBIDDEN")


def test_a_new_master_key_ends_what_the_old_one_signed(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload_device_keys(alice)
    old, bobs = with_keys(alice), with_keys(bob)
    alice.post(
        SIGNATURES,
        json={
            alice.user_id: {alice.device_id: old.sign(device_keys(alice), "self_signing")},
            bob.user_id: {bobs.public("master"): old.sign(bobs.key("master"), "user_signing")},
        },
    )
    new = Identity(alice.user_id, "new")

    answer = replace(alice, {"master_key": new.key("master")})

    found = query(alice, alice, bob)
    assert answer.status_code == 200
    assert found["master_keys"] == {
        alice.user_id: new.key("master"),
        bob.user_id: bobs.key("master"),
    }
    assert alice.user_id not in found["self_signing_keys"] | found["user_signing_keys"]
    assert (
        found["device_keys"][alice.user_id][alice.device_id]["signatures"]
        == (device_keys(alice)["signatures"])
    )
    signers = {row[1] for row in everything(app)["key_signatures"]}
    assert signers == {bob.user_id}


def test_there_must_be_a_master_key(app: Application, login: Login) -> None:
    alice = login("alice")
    identity = Identity(alice.user_id)

    with unchanged(app):
        answer = alice.post(UPLOAD, json={"self_signing_key": identity.key("self_signing")})

    assert refusal(answer) == (400, "M_MISSING_PARAM")


def test_an_upload_of_no_keys_is_accepted_and_changes_nothing(
    app: Application, login: Login
) -> None:
    alice, bob = login("alice"), login("bob")
    bob.post(UPLOAD, json=Identity(bob.user_id).upload())

    with unchanged(app):
        answers = [alice.post(UPLOAD, json={}), bob.post(UPLOAD, json={"master_key": None})]

    assert [(it.status_code, it.get_json()) for it in answers] == [(200, {})] * 2


@pytest.mark.parametrize("usage", ["self_signing", "user_signing"])
def test_what_the_master_key_has_not_signed_is_refused(
    app: Application, login: Login, usage: str
) -> None:
    alice = login("alice")
    identity, other = Identity(alice.user_id), Identity(alice.user_id, "other")
    good = identity.key(usage)
    unsigned = {name: value for name, value in good.items() if name != "signatures"}
    changed = {**good, "org.example.more": 1}
    wrong_key = other.sign(unsigned, "master")
    no_base64 = {
        **good,
        "signatures": {alice.user_id: {"ed25519:" + identity.public("master"): "é"}},
    }

    with unchanged(app):
        answers = [
            alice.post(UPLOAD, json={**identity.upload(), f"{usage}_key": bad})
            for bad in (unsigned, changed, wrong_key, no_base64)
        ]

    assert {refusal(answer) for answer in answers} == {(400, "M_INVALID_SIGNATURE")}


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"user_id": "@bob:localhost"}, "M_INVALID_PARAM"),
        ({"usage": ["self_signing"]}, "M_INVALID_PARAM"),
        ({"usage": []}, "M_INVALID_PARAM"),
        ({"keys": {}}, "M_INVALID_PARAM"),
        ({"keys": {"ed25519:a": "a"}}, "M_INVALID_PARAM"),
        ({"keys": {"ed25519:" + "A" * 42: "A" * 42}}, "M_INVALID_PARAM"),
        ({"keys": {"ed25519:" + "A" * 43: "A" * 42 + "Q"}}, "M_INVALID_PARAM"),
        ({"keys": {"ed25519:" + "A" * 42 + "B": "A" * 42 + "B"}}, "M_INVALID_PARAM"),
        ({"keys": {"ed25519:" + "A" * 43 + "=": "A" * 43 + "="}}, "M_INVALID_PARAM"),
        ({"keys": {"curve25519:" + "A" * 43: "A" * 43}}, "M_INVALID_PARAM"),
        (
            {
                "keys": {
                    "ed25519:" + "A" * 43: "A" * 43,
                    "ed25519:" + "B" * 42 + "A": "B" * 42 + "A",
                }
            },
            "M_INVALID_PARAM",
        ),
        ({"keys": {"ed25519:a": 1}}, "M_BAD_JSON"),
        ({"usage": "master"}, "M_BAD_JSON"),
        ({"signatures": {"@alice:localhost": "x"}}, "M_BAD_JSON"),
        ({"org.example.float": 0.5}, "M_BAD_JSON"),
    ],
)
def test_a_key_that_is_none_is_refused(
    app: Application, login: Login, change: Json, errcode: str
) -> None:
    alice = login("alice")
    key = {**Identity(alice.user_id).key("master"), **change}

    with unchanged(app):
        answer = alice.post(UPLOAD, json={"master_key": key})

    assert refusal(answer) == (400, errcode)


@pytest.mark.parametrize("missing", ["user_id", "usage", "keys"])
def test_an_incomplete_key_is_refused(app: Application, login: Login, missing: str) -> None:
    alice = login("alice")
    key = Identity(alice.user_id).key("master")
    del key[missing]

    with unchanged(app):
        answer = alice.post(UPLOAD, json={"master_key": key})

    assert refusal(answer) == (400, "M_MISSING_PARAM")


def test_a_very_long_key_is_refused(app: Application, login: Login) -> None:
    alice = login("alice")
    key = {**Identity(alice.user_id).key("master"), "org.example.long": "x" * 70_000}

    with unchanged(app):
        answer = alice.post(UPLOAD, json={"master_key": key})

    assert refusal(answer) == (413, "M_TOO_LARGE")


def login_on(person: Person, device_id: str) -> TestResponse:
    """Log in again as the person, on a device with this name."""
    body = {**password_of(person), "device_id": device_id}
    return person.client.post(V3 + "login", json=body)


def test_no_key_is_called_like_a_device(app: Application, login: Login) -> None:
    alice = login("alice")
    identity = Identity(alice.user_id)
    assert login_on(alice, identity.public("self_signing")).status_code == 200

    with unchanged(app):
        answer = alice.post(UPLOAD, json=identity.upload())

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_no_device_is_called_like_a_key(app: Application, login: Login) -> None:
    alice = login("alice")
    identity = with_keys(alice)

    with unchanged(app):
        answer = login_on(alice, identity.public("master"))

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_two_first_uploads_at_once_do_not_replace_each_other(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = login("alice")
    first, second = Identity(alice.user_id, "first"), Identity(alice.user_id, "second")
    write, requesting = app.homeserver.database.write, threading.current_thread()

    def write_after_the_first(**options: bool) -> Any:
        if threading.current_thread() is requesting:  # a timer may also write
            monkeypatch.undo()
            assert alice.post(UPLOAD, json=first.upload()).status_code == 200
        return write(**options)

    monkeypatch.setattr(app.homeserver.database, "write", write_after_the_first)
    answer = alice.post(UPLOAD, json=second.upload())

    assert refusal(answer) == (403, "M_FORBIDDEN")
    assert query(alice)["master_keys"] == {alice.user_id: first.key("master")}


def test_the_self_signing_key_signs_devices_for_all_to_see(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload_device_keys(alice)
    identity = with_keys(alice)
    signed = identity.sign(device_keys(alice), "self_signing")

    answer = alice.post(SIGNATURES, json={alice.user_id: {alice.device_id: signed}})

    device = query(bob, alice)["device_keys"][alice.user_id][alice.device_id]
    assert failures(answer) == {}
    assert device["signatures"] == signed["signatures"]
    assert len(device["signatures"][alice.user_id]) == 2


def test_a_device_signs_its_users_master_key_for_all_to_see(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload_device_keys(alice)
    identity = with_keys(alice)
    master = identity.key("master")
    signed = sign(master, alice.user_id, alice.device_id, device_key(alice))

    answer = alice.post(SIGNATURES, json={alice.user_id: {identity.public("master"): signed}})

    assert failures(answer) == {}
    assert query(bob, alice)["master_keys"] == {alice.user_id: signed}


def test_a_master_key_may_bring_the_signature_of_a_device(login: Login) -> None:
    alice = login("alice")
    upload_device_keys(alice)
    master = Identity(alice.user_id).key("master")
    signed = sign(master, alice.user_id, alice.device_id, device_key(alice))
    more = sign(signed, alice.user_id, "UNKNOWN", signing_key("unknown"))

    answer = alice.post(UPLOAD, json={"master_key": more})

    assert answer.status_code == 200
    assert query(alice)["master_keys"] == {alice.user_id: signed}


def test_a_master_key_with_a_false_signature_of_a_device_is_refused(
    app: Application, login: Login
) -> None:
    alice = login("alice")
    upload_device_keys(alice)
    master = Identity(alice.user_id).key("master")
    signed = sign(master, alice.user_id, alice.device_id, signing_key("another"))

    with unchanged(app):
        answer = alice.post(UPLOAD, json={"master_key": signed})

    assert refusal(answer) == (400, "M_INVALID_SIGNATURE")


def test_whom_a_user_has_verified_only_the_user_sees(login: Login) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    alices, bobs = with_keys(alice), with_keys(bob)
    signed = alices.sign(bobs.key("master"), "user_signing")

    answer = alice.post(SIGNATURES, json={bob.user_id: {bobs.public("master"): signed}})

    assert failures(answer) == {}
    assert query(alice, bob)["master_keys"] == {bob.user_id: signed}
    for other in (bob, carol):
        assert query(other, bob)["master_keys"] == {bob.user_id: bobs.key("master")}


def test_each_bad_signature_is_told_and_the_good_ones_are_kept(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload_device_keys(alice)
    upload_device_keys(bob)
    alices, bobs = with_keys(alice), with_keys(bob)
    mine = device_keys(alice)
    master = bobs.public("master")

    answer = alice.post(
        SIGNATURES,
        json={
            alice.user_id: {
                alice.device_id: alices.sign(mine, "self_signing"),
                alices.public("master"): alices.key("master"),
                "UNKNOWN": alices.sign(mine, "self_signing"),
                alices.public("self_signing"): alices.key("self_signing"),
            },
            bob.user_id: {
                master: alices.sign({**bobs.key("master"), "x": 1}, "user_signing"),
                bob.device_id: alices.sign(device_keys(bob), "user_signing"),
            },
            "@nobody:localhost": {master: alices.sign(bobs.key("master"), "user_signing")},
        },
    )

    assert failures(answer) == {
        alice.user_id: {
            alices.public("master"): "M_INVALID_SIGNATURE",
            "UNKNOWN": "M_NOT_FOUND",
            alices.public("self_signing"): "M_NOT_FOUND",
        },
        bob.user_id: {master: "M_INVALID_PARAM", bob.device_id: "M_NOT_FOUND"},
        "@nobody:localhost": {master: "M_NOT_FOUND"},
    }
    found = query(alice)["device_keys"][alice.user_id][alice.device_id]
    assert found["signatures"] == alices.sign(mine, "self_signing")["signatures"]


@pytest.mark.parametrize("signer", ["master", "user_signing"])
def test_a_device_is_signed_by_the_self_signing_key_only(
    app: Application, login: Login, signer: str
) -> None:
    alice = login("alice")
    upload_device_keys(alice)
    identity = with_keys(alice)
    signed = identity.sign(device_keys(alice), signer)

    with unchanged(app):
        answer = alice.post(SIGNATURES, json={alice.user_id: {alice.device_id: signed}})

    assert failures(answer) == {alice.user_id: {alice.device_id: "M_INVALID_SIGNATURE"}}


def test_a_false_signature_is_refused(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    upload_device_keys(alice)
    alices, bobs = with_keys(alice), with_keys(bob)
    bob_key = bobs.public("master")

    def forge(signed: Json, usage: str) -> Json:
        return sign(signed, alice.user_id, alices.public(usage), signing_key("another"))

    with unchanged(app):
        answer = alice.post(
            SIGNATURES,
            json={
                alice.user_id: {alice.device_id: forge(device_keys(alice), "self_signing")},
                bob.user_id: {bob_key: forge(bobs.key("master"), "user_signing")},
            },
        )

    assert failures(answer) == {
        alice.user_id: {alice.device_id: "M_INVALID_SIGNATURE"},
        bob.user_id: {bob_key: "M_INVALID_SIGNATURE"},
    }


@pytest.mark.parametrize("body", [{"@alice:localhost": []}, {"@alice:localhost": {"X": 1}}])
def test_signatures_of_another_shape_are_refused(
    app: Application, login: Login, body: Json
) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.post(SIGNATURES, json=body)

    assert refusal(answer) == (400, "M_BAD_JSON")


@pytest.mark.parametrize("signatures", [1, [], {"@alice:localhost": 1}])
def test_malformed_signatures_of_an_object_are_told(
    app: Application, login: Login, signatures: Any
) -> None:
    alice = login("alice")
    upload_device_keys(alice)
    with_keys(alice)
    signed = {**device_keys(alice), "signatures": signatures}

    with unchanged(app):
        answer = alice.post(SIGNATURES, json={alice.user_id: {alice.device_id: signed}})

    assert failures(answer) == {alice.user_id: {alice.device_id: "M_INVALID_SIGNATURE"}}


@pytest.mark.parametrize(
    "signed",
    [
        {ALICE: {"A": {}, "B": {}}},
        {ALICE: {}, "@bob:localhost": {}},
        {ALICE: {"A": {"signatures": {ALICE: {"ed25519:A": "x", "ed25519:B": "x"}}}}},
    ],
    ids=["objects", "users", "signatures"],
)
def test_too_many_signatures_are_refused(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch, signed: Json
) -> None:
    alice = login("alice")
    monkeypatch.setattr(cross_signing, "MAX_OBJECTS", 1)

    with unchanged(app):
        answer = alice.post(SIGNATURES, json=signed)

    assert refusal(answer) == (413, "M_TOO_LARGE")


def test_room_mates_learn_of_new_keys_and_of_signed_devices(login: Login, room: Any) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    upload_device_keys(alice)
    start = bob.sync()["next_batch"]

    identity = with_keys(alice)
    keys_came = bob.sync(start)
    signed = identity.sign(device_keys(alice), "self_signing")
    alice.post(SIGNATURES, json={alice.user_id: {alice.device_id: signed}})
    signature_came = bob.sync(keys_came["next_batch"])

    assert keys_came["device_lists"]["changed"] == [alice.user_id]
    assert signature_came["device_lists"]["changed"] == [alice.user_id]


def test_whom_a_user_has_verified_only_the_users_other_devices_are_told(
    login: Login, room: Any
) -> None:
    phone, laptop, bob, carol = login("alice"), login("alice"), login("bob"), login("carol")
    room(phone, bob, carol)
    alices, bobs = with_keys(phone), with_keys(bob)
    tokens = {person: person.sync()["next_batch"] for person in (laptop, bob, carol)}
    signed = alices.sign(bobs.key("master"), "user_signing")

    phone.post(SIGNATURES, json={bob.user_id: {bobs.public("master"): signed}})

    assert laptop.sync(tokens[laptop])["device_lists"]["changed"] == [bob.user_id]
    for other in (bob, carol):
        assert other.sync(tokens[other])["device_lists"] == NO_NEWS


def test_the_same_keys_again_are_no_news(login: Login, room: Any) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    identity = with_keys(alice)
    token = bob.sync()["next_batch"]

    alice.post(UPLOAD, json=identity.upload())

    assert bob.sync(token)["device_lists"] == NO_NEWS


def test_a_device_that_ends_takes_its_signatures_with_it(app: Application, login: Login) -> None:
    alice = login("alice")
    keys = upload_device_keys(alice)
    identity = with_keys(alice)
    master = sign(identity.key("master"), alice.user_id, alice.device_id, device_key(alice))
    body = {
        alice.device_id: identity.sign(keys, "self_signing"),
        identity.public("master"): master,
    }
    assert failures(alice.post(SIGNATURES, json={alice.user_id: body})) == {}

    alice.post("logout")

    other = login("alice")
    assert query(other)["master_keys"] == {alice.user_id: identity.key("master")}
    left = {(row[2], row[3]) for row in everything(app)["key_signatures"]}
    by_master = f"ed25519:{identity.public('master')}"
    assert left == {(identity.public(u), by_master) for u in ("self_signing", "user_signing")}


def test_a_device_with_other_keys_than_before_has_to_be_signed_anew(login: Login) -> None:
    alice = login("alice")
    keys = upload_device_keys(alice)
    identity = with_keys(alice)
    body = {alice.device_id: identity.sign(keys, "self_signing")}
    assert failures(alice.post(SIGNATURES, json={alice.user_id: body})) == {}
    bare = {name: value for name, value in keys.items() if name != "signatures"}
    other = {**bare, "keys": {f"ed25519:{alice.device_id}": public(signing_key("other"))}}
    other = sign(other, alice.user_id, alice.device_id, signing_key("other"))

    answer = alice.post("keys/upload", json={"device_keys": other})

    device = query(alice)["device_keys"][alice.user_id][alice.device_id]
    assert answer.status_code == 200
    assert device["signatures"] == other["signatures"]


def test_keys_and_signatures_go_with_the_account(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    alices, bobs = with_keys(alice), with_keys(bob)
    for person, mine, other, theirs in ((alice, alices, bob, bobs), (bob, bobs, alice, alices)):
        signed = mine.sign(theirs.key("master"), "user_signing")
        body = {other.user_id: {theirs.public("master"): signed}}
        assert failures(person.post(SIGNATURES, json=body)) == {}

    answer = alice.post("account/deactivate", json={"auth": password_of(alice)})

    left = everything(app)
    assert answer.status_code == 200
    assert {row[0] for row in left["cross_signing_keys"]} == {bob.user_id}
    assert {row[:2] for row in left["key_signatures"]} == {(bob.user_id, bob.user_id)}


def test_so_many_users_may_be_asked_for_at_once(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = login("alice"), login("bob")
    with_keys(alice)
    with_keys(bob)
    monkeypatch.setattr(key_signatures, "IDS_AT_ONCE", 1)

    found = query(alice, alice, bob)

    assert set(found["master_keys"]) == {alice.user_id, bob.user_id}
    assert public(Identity(bob.user_id).keys["master"]) in str(found["self_signing_keys"])
