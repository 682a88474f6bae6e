"""Coming into a room by the proof that one has the address which was invited."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert

from homebody.models.sign_in import ThreePid
from homebody.spec import signing
from homebody.spec.signing import SigningKey
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import Json, act, membership, refusal, unchanged

ALICE, BOB = "@alice:localhost", "@bob:localhost"
TOKEN = "magic-token"
INVITE = "m.room.third_party_invite"
KEY = SigningKey.from_seed("0", b"1" * 32)
OTHER_KEY = SigningKey.from_seed("0", b"2" * 32)


def public(key: SigningKey) -> str:
    return signing.verify_key_to_base64(key.verify_key)


def invited_address(person: Person, room_id: str, **content: Any) -> None:
    invite = {
        "display_name": "b…@example.org",
        "key_validity_url": "https://id.example.org/valid",
        "public_key": public(KEY),
        **content,
    }
    answer = person.set_state(room_id, INVITE, invite, TOKEN)
    assert answer.status_code == 200, answer.get_json()


def proof(key: SigningKey = KEY, **changes: str) -> Json:
    """What an identity server gives to the owner of an address."""
    told = {"mxid": BOB, "sender": ALICE, "token": TOKEN, **changes}
    return signing.sign_json(told, "id.example.org", key)


def test_who_proves_to_have_the_address_comes_in(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room()
    invited_address(alice, room_id)
    signed = proof()

    answer = act(bob, room_id, "join", third_party_signed=signed)

    assert (answer.status_code, answer.get_json()) == (200, {"room_id": room_id})
    assert membership(alice, room_id, BOB)["membership"] == "join"
    events = alice.get(f"rooms/{room_id}/messages?dir=b&limit=2").get_json()["chunk"]
    assert [it["content"]["membership"] for it in events] == ["join", "invite"]
    assert events[1]["sender"] == ALICE
    invite = {"signed": signed, "display_name": "b…@example.org"}
    assert events[1]["content"] == {"membership": "invite", "third_party_invite": invite}


def test_a_second_key_of_the_invite_will_do_and_so_will_the_path_by_alias(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(room_alias_name="attic")
    invited_address(alice, room_id, public_keys=[{"public_key": public(OTHER_KEY)}])

    answer = bob.post("join/%23attic:localhost", json={"third_party_signed": proof(OTHER_KEY)})

    assert answer.status_code == 200


def test_who_is_in_already_needs_no_proof(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(invite=[BOB])

    answers = [act(bob, room_id, "join", third_party_signed=proof()) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.parametrize(
    "signed",
    [
        proof(OTHER_KEY),
        proof(mxid="@carol:localhost"),
        proof(token="another"),
        proof(sender=BOB),
        {**proof(), "signatures": {}},
        {**proof(mxid="@carol:localhost"), "mxid": BOB},
    ],
    ids=["another key", "another user", "unknown", "another sender", "unsigned", "forged"],
)
def test_what_proves_nothing_lets_nobody_in(app: Application, login: Login, signed: Json) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room()
    invited_address(alice, room_id)
    bob.get("account/whoami")

    with unchanged(app):
        answer = act(bob, room_id, "join", third_party_signed=signed)

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_an_invite_that_was_taken_back_is_worth_nothing(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room()
    invited_address(alice, room_id)
    alice.set_state(room_id, INVITE, {}, TOKEN)

    answer = act(bob, room_id, "join", third_party_signed=proof())

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_who_was_banned_stays_out(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room()
    invited_address(alice, room_id)
    act(alice, room_id, "ban", user_id=BOB)

    answer = act(bob, room_id, "join", third_party_signed=proof())

    assert refusal(answer) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    "signed",
    [{}, {"sender": ALICE}, {**proof(), "token": 1}, {**proof(), "signatures": {"x": 1}}, []],
)
def test_a_proof_of_another_shape_is_bad(login: Login, signed: Any) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(preset="public_chat")

    answer = act(bob, room_id, "join", third_party_signed=signed)

    assert answer.status_code == 400
    assert answer.get_json()["errcode"] in {"M_BAD_JSON", "M_MISSING_PARAM"}


def test_an_address_is_looked_up_nowhere_not_even_among_those_of_our_own_accounts(
    app: Application, login: Login
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room()
    known = {"address": "bob@example.org", "medium": "email", "validated_ts": 1, "added_ts": 1}
    with app.homeserver.database.write() as tx:
        tx.sql.execute(insert(ThreePid), {**known, "user_id": bob.user_id})
    address = {"id_server": "id.example.org", "id_access_token": "abc", "medium": "email"}

    with unchanged(app):
        answers = [
            act(alice, room_id, "invite", **address, address="bob@example.org"),
            act(alice, room_id, "invite", **address, address="nobody@example.org"),
            alice.post("createRoom", json={"invite_3pid": [{**address, "address": "b@x.example"}]}),
        ]

    assert [refusal(answer) for answer in answers] == [(400, "M_SERVER_NOT_TRUSTED")] * 3
    assert len({answer.get_json()["error"] for answer in answers}) == 1
