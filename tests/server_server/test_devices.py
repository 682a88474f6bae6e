"""What other servers learn of the devices of this server's users."""

from __future__ import annotations

from typing import Any

import pytest

from homebody.core.encryption import claim_limits
from homebody.server_server import devices
from homebody.web import Application
from tests.background.federation.test_sender import registered
from tests.client_server.test_keys import CURVE, one_time, upload
from tests.conftest import Login, MakeApp, Person
from tests.helpers import encryption
from tests.helpers.remote import Remote, Remotes
from tests.helpers.shared_rooms import shared_room

Json = dict[str, Any]


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def b(app: Application, remote: Remotes) -> Remote:
    return remote("b.test")


def claim_at(b: Remote, *owners: Person, algorithm: str = CURVE) -> Json:
    """Claim a key of each device, and return {user_id: {device_id: {name: key}}}."""
    wanted: Json = {}
    for owner in owners:
        wanted.setdefault(owner.user_id, {})[owner.device_id] = algorithm
    answer = b.post("v1", "user/keys/claim", json={"one_time_keys": wanted})
    assert answer.status == 200, answer
    keys: Json = answer.json["one_time_keys"]
    return keys


def names(found: Json, owner: Person) -> list[str]:
    return list(found.get(owner.user_id, {}).get(owner.device_id, {}))


def test_devices_with_keys_are_returned_with_their_names(
    login: Login, alice: Person, b: Remote
) -> None:
    keys = encryption.upload_device_keys(alice)
    login("alice")  # a device without keys
    alice.put(f"devices/{alice.device_id}", json={"display_name": "Phone"})

    answer = b.get("v1", "user/devices", alice.user_id)

    assert answer.status == 200
    assert answer.json["user_id"] == alice.user_id
    assert type(answer.json["stream_id"]) is int
    assert answer.json["devices"] == [
        {"device_id": alice.device_id, "keys": keys, "device_display_name": "Phone"}
    ]


def test_cross_signing_keys_are_returned_without_the_user_signing_key(
    alice: Person, b: Remote
) -> None:
    encryption.upload_device_keys(alice)
    keys = encryption.Identity(alice.user_id).upload()
    assert alice.post("keys/device_signing/upload", json=keys).status_code == 200

    devices_of = b.get("v1", "user/devices", alice.user_id).json
    queried = b.post("v1", "user/keys/query", json={"device_keys": {alice.user_id: []}}).json

    for usage in ("master", "self_signing"):
        assert devices_of[f"{usage}_key"]["keys"] == keys[f"{usage}_key"]["keys"]
        assert queried[f"{usage}_keys"][alice.user_id] == devices_of[f"{usage}_key"]
    assert "user_signing" not in str(devices_of) + str(queried)


@pytest.mark.parametrize("user_id", ["@nobody:localhost", "@carol:b.test", "alice"])
def test_only_users_of_this_server_have_devices_here(b: Remote, user_id: str) -> None:
    answer = b.get("v1", "user/devices", user_id)

    assert (answer.status, answer.json["errcode"]) == (404, "M_NOT_FOUND")


def test_keys_are_queried_by_device_and_unknown_users_are_left_out(
    login: Login, alice: Person, b: Remote
) -> None:
    other = login("alice")
    keys = encryption.upload_device_keys(alice)
    encryption.upload_device_keys(other)

    asked = {alice.user_id: [alice.device_id], "@nobody:localhost": [], "@carol:b.test": []}
    answer = b.post("v1", "user/keys/query", json={"device_keys": asked})

    assert answer.status == 200
    assert answer.json["device_keys"] == {
        alice.user_id: {alice.device_id: {**keys, "unsigned": {}}}
    }
    assert "failures" not in answer.json


def test_a_one_time_key_is_handed_out_once_and_then_the_fallback_key(
    alice: Person, b: Remote
) -> None:
    keys = one_time(alice, "a")
    spare = {f"{CURVE}:z": one_time(alice, "z")[f"{CURVE}:z"]}
    upload(alice, one_time_keys=keys, fallback_keys=spare)

    found = [claim_at(b, alice)[alice.user_id][alice.device_id] for _ in range(3)]

    assert found == [keys, spare, spare]


def test_what_does_not_exist_is_left_out_of_claims(alice: Person, b: Remote) -> None:
    upload(alice, one_time_keys=one_time(alice, "a"))
    wanted = {alice.user_id: {"NODEVICE": CURVE}, "@nobody:localhost": {"D": CURVE}}

    answer = b.post("v1", "user/keys/claim", json={"one_time_keys": wanted})
    other = claim_at(b, alice, algorithm="curve25519")

    assert (answer.status, answer.json) == (200, {"one_time_keys": {}})
    assert other == {}


def test_a_server_without_a_shared_room_can_not_use_up_the_one_time_keys(
    make_app: MakeApp, remote: Remotes
) -> None:
    app = make_app(**remote.settings, rate_limits="true", **{"quotas.claimed_keys_per_day": "1"})
    remote.talk_to(app)
    alice = registered(app)
    upload(alice, one_time_keys=one_time(alice, "a", "b", "c"))
    b, c = remote("b.test"), remote("c.test")
    shared_room(app, alice, b)

    of_stranger = [names(claim_at(c, alice), alice) for _ in range(2)]
    of_member = [names(claim_at(b, alice), alice) for _ in range(2)]

    assert of_stranger == [[f"{CURVE}:a"], []]
    assert of_member == [[f"{CURVE}:b"], [f"{CURVE}:c"]]
    assert claim_limits.SHARES_OF_SERVER > 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"device_keys": []},
        {"device_keys": {"@alice:localhost": "A"}},
        {"device_keys": {"@alice:localhost": [1]}},
    ],
)
def test_malformed_queries_are_refused(b: Remote, body: Json) -> None:
    answer = b.post("v1", "user/keys/query", json=body)

    assert answer.status == 400
    assert answer.json["errcode"] in {"M_BAD_JSON", "M_MISSING_PARAM"}


@pytest.mark.parametrize(
    "body",
    [{}, {"one_time_keys": []}, {"one_time_keys": {"@alice:localhost": {"D": 1}}}],
)
def test_malformed_claims_are_refused(b: Remote, body: Json) -> None:
    answer = b.post("v1", "user/keys/claim", json=body)

    assert answer.status == 400
    assert answer.json["errcode"] in {"M_BAD_JSON", "M_MISSING_PARAM"}


def test_requests_have_limits_and_claim_nothing_above_them(alice: Person, b: Remote) -> None:
    upload(alice, one_time_keys=one_time(alice, "a"))
    many: Json = {f"D{number}": CURVE for number in range(devices.MAX_CLAIMS)}
    wanted = {alice.user_id: {alice.device_id: CURVE, **many}}
    users: Json = {f"@u{number}:localhost": [] for number in range(devices.MAX_QUERIED + 1)}

    claimed = b.post("v1", "user/keys/claim", json={"one_time_keys": wanted})
    queried = b.post("v1", "user/keys/query", json={"device_keys": users})

    assert (claimed.status, claimed.json["errcode"]) == (413, "M_TOO_LARGE")
    assert (queried.status, queried.json["errcode"]) == (413, "M_TOO_LARGE")
    assert names(claim_at(b, alice), alice) == [f"{CURVE}:a"]
