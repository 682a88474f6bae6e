"""A user is invited where their address was invited, when an identity server says so."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import TestResponse

from homebody.spec import signing
from homebody.spec.signing import SigningKey
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.remote import Remote, Remotes
from tests.helpers.rooms import Json, membership, refusal, unchanged
from tests.helpers.scripted_server import Response

PATH = "/_matrix/federation/v1/3pid/onbind"
EXCHANGE = "/exchange_third_party_invite/"
ALICE, BOB = "@alice:localhost", "@bob:localhost"
KEY = SigningKey.from_seed("0", b"1" * 32)


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


def invited_address(alice: Person) -> str:
    """A room to which an address was invited."""
    room_id = alice.create_room()
    invite = {
        "display_name": "b…@example.org",
        "key_validity_url": "https://id.example.org/valid",
        "public_key": signing.verify_key_to_base64(KEY.verify_key),
    }
    answer = alice.set_state(room_id, "m.room.third_party_invite", invite, "token")
    assert answer.status_code == 200
    return room_id


def bound(room_id: str, sender: str = ALICE, key: SigningKey = KEY, **changes: Any) -> Json:
    signed = signing.sign_json({"mxid": BOB, "token": "token"}, "id.example.org", key)
    address = {"medium": "email", "address": "bob@example.org", "mxid": BOB}
    invite = {**address, "room_id": room_id, "sender": sender, "signed": signed}
    return {**address, "invites": [invite], **changes}


def notify(app: Application, body: Any) -> TestResponse:
    return app.test_client().put(PATH, json=body)


@pytest.mark.usefixtures("remote")
def test_a_user_is_invited_by_an_inviter_of_this_server(app: Application, login: Login) -> None:
    alice = login("alice")
    login("bob")
    room_id = invited_address(alice)

    response = notify(app, bound(room_id))

    assert (response.status_code, response.get_json()) == (200, {})
    content = membership(alice, room_id, BOB)
    assert content["membership"] == "invite"
    assert content["third_party_invite"]["display_name"] == "b…@example.org"


@pytest.mark.usefixtures("remote")
def test_a_proof_of_another_identity_server_invites_nobody(app: Application, login: Login) -> None:
    login("bob")
    room_id = invited_address(login("alice"))

    with unchanged(app):
        response = notify(app, bound(room_id, key=SigningKey.from_seed("0", b"2" * 32)))

    assert response.status_code == 200


@pytest.mark.parametrize(
    ("event_type", "content"),
    [
        ("m.invite_permission_config", {"default_action": "block"}),
        ("org.matrix.msc4155.invite_permission_config", {"blocked_users": [ALICE]}),
    ],
)
def test_a_user_who_blocks_invites_is_not_invited_by_an_address_either(
    app: Application, login: Login, b: Remote, event_type: str, content: Json
) -> None:
    alice = login("alice")
    room_id = invited_address(alice)
    login("bob").put(f"user/{BOB}/account_data/{event_type}", json=content)

    response = notify(app, bound(room_id))
    exchanged = exchange(b, room_id, BOB)

    assert (response.status_code, response.get_json()) == (200, {})
    assert exchanged.refusal == (403, "M_INVITE_BLOCKED")
    member = alice.get(f"rooms/{room_id}/state/m.room.member/{BOB}")
    assert refusal(member) == (404, "M_NOT_FOUND")


def test_the_server_of_another_inviter_gets_the_proof(
    app: Application, login: Login, b: Remote
) -> None:
    login("bob")
    b.answer(EXCHANGE, Response(200, {}))
    body = bound("!room:b.test", "@carol:b.test")

    assert notify(app, body).status_code == 200

    (request,) = b.received(EXCHANGE)
    assert request.path.endswith("/!room:b.test")
    assert request.json["sender"] == "@carol:b.test"
    assert request.json["state_key"] == BOB
    assert request.json["content"]["membership"] == "invite"
    proof = request.json["content"]["third_party_invite"]
    assert proof["signed"] == body["invites"][0]["signed"]
    assert b.unsigned == []


def test_a_server_that_refuses_does_not_stop_the_others(
    app: Application, login: Login, b: Remote
) -> None:
    alice = login("alice")
    login("bob")
    b.fail(EXCHANGE, 403)
    room_id = invited_address(alice)
    body = bound(room_id)
    refused = bound("!room:b.test", "@carol:b.test")["invites"]
    malformed = bound("!room:b.test", "carol")["invites"]
    body["invites"] = [*refused, *malformed, *body["invites"]]

    assert notify(app, body).status_code == 200
    assert membership(alice, room_id, BOB)["membership"] == "invite"


def test_an_unknown_user_is_not_found(app: Application, b: Remote) -> None:
    response = notify(app, bound("!room:b.test", "@carol:b.test"))

    assert refusal(response) == (404, "M_NOT_FOUND")
    assert b.received(EXCHANGE) == []


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"mxid": BOB, "invites": {}}, "M_BAD_JSON"),
        ({"mxid": BOB, "invites": [{"room_id": "!a:b"}]}, "M_MISSING_PARAM"),
        (bound("!a:b", invites=[1] * 101), "M_BAD_JSON"),
    ],
)
def test_a_malformed_notification_is_refused(make_app: MakeApp, body: Any, errcode: str) -> None:
    assert refusal(notify(make_app(federation="true"), body)) == (400, errcode)


def test_notifications_are_limited_by_the_number_of_invites(make_app: MakeApp) -> None:
    limit = {"rc_strangers.per_second": "0.01", "rc_strangers.burst_count": "3"}
    app = make_app(federation="true", rate_limits="true", **limit)
    body = bound("!a:b")
    body["invites"] *= 2

    codes = [notify(app, body).status_code for _ in range(2)]

    assert codes == [404, 429]


CAROL = "@carol:b.test"


def exchange(b: Remote, room_id: str, user_id: str, key: SigningKey = KEY, **changes: Any) -> Any:
    """Ask for the invite of a user whose address was invited."""
    signed = signing.sign_json({"mxid": user_id, "token": "token"}, "id.example.org", key)
    body = {
        "type": "m.room.member",
        "room_id": room_id,
        "sender": ALICE,
        "state_key": user_id,
        "content": {"membership": "invite", "third_party_invite": {"signed": signed}},
        **changes,
    }
    return b.put("v1", "exchange_third_party_invite", room_id, json=body)


@pytest.mark.usefixtures("app")
def test_another_server_has_its_user_invited_by_the_inviter_here(login: Login, b: Remote) -> None:
    alice = login("alice")
    room_id = invited_address(alice)

    answer = exchange(b, room_id, CAROL)

    assert (answer.status, answer.json) == (200, {})
    content = membership(alice, room_id, CAROL)
    assert content["third_party_invite"]["display_name"] == "b…@example.org"
    (got,) = b.invites
    assert got["event"]["sender"] == ALICE


@pytest.mark.usefixtures("app")
def test_another_server_has_a_user_of_this_one_invited(login: Login, b: Remote) -> None:
    alice = login("alice")
    room_id = invited_address(alice)

    assert exchange(b, room_id, BOB).status == 200
    assert membership(alice, room_id, BOB)["membership"] == "invite"


def test_an_exchange_without_a_valid_proof_invites_nobody(
    app: Application, login: Login, b: Remote
) -> None:
    alice = login("alice")
    room_id = invited_address(alice)
    exchange(b, alice.create_room(), CAROL)  # so that its keys are known

    denied = invited_address(alice)
    alice.set_state(denied, "m.room.server_acl", {"allow": ["*"], "deny": ["b.test"]})

    with unchanged(app):
        by_acl = exchange(b, denied, CAROL)
        wrong_key = exchange(b, room_id, CAROL, SigningKey.from_seed("0", b"2" * 32))
        another_inviter = exchange(b, room_id, CAROL, sender=BOB)
        another_type = exchange(b, room_id, CAROL, type="m.room.message")
        no_proof = exchange(b, room_id, CAROL, content={"membership": "invite"})

    assert by_acl.refusal == (403, "M_FORBIDDEN")
    assert wrong_key.refusal == another_inviter.refusal == (403, "M_FORBIDDEN")
    assert another_type.refusal == (400, "M_BAD_JSON")
    assert no_proof.refusal == (400, "M_MISSING_PARAM")
    assert not b.invites
