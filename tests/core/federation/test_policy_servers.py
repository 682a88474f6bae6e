"""Rooms whose policy server has to sign what is sent there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.spec import policy_servers, signing
from homebody.spec.events import Event
from homebody.spec.policy_servers import KEY_ID
from homebody.spec.signing import SigningKey
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.rooms import membership, refusal
from tests.helpers.scripted_server import Request, Response
from tests.helpers.waiting import wait_for

Json = dict[str, Any]
KEY = SigningKey.from_seed("policy_server", b"p" * 32)
OTHER_KEY = SigningKey.from_seed("policy_server", b"q" * 32)
SIGN = "/policy/v1/sign"
POLICY = "m.room.policy"
CAROL = "@carol:b.test"


INVALID: tuple[Json, ...] = (
    {"via": "c.test"},
    {"via": 1},
    {"via": "@"},
    {"public_keys": {}},
    {"public_keys": {"ed25519": 1}},
    {"public_keys": {"ed25519": "short"}},
    {"public_keys": []},
)


class PolicyServer:
    """b.test as the policy server of a room of Alice's, which Carol of b.test is in."""

    def __init__(self, b: Remote, alice: Person, room_id: str) -> None:
        self.b = b
        self.alice = alice
        self.room = b.join(room_id, "carol")
        self.key = KEY
        self.refused = ("spam",)
        b.answer(SIGN, self.respond)

    def respond(self, request: Request) -> Response:
        """Sign an event, unless its body is refused."""
        pdu: Json = request.json
        if pdu["content"].get("body") in self.refused:
            return Response(400, {"errcode": "M_FORBIDDEN", "error": "This looks like spam"})
        return Response(200, {"b.test": self.signature(pdu)})

    def signature(self, pdu: Json, key: SigningKey | None = None) -> dict[str, str]:
        signed = signing.sign_event(pdu, self.room.version, "policy", key or self.key)
        found: dict[str, str] = signed["signatures"]["policy"]
        return found

    def signed(self, event: Event, key: SigningKey | None = None) -> Json:
        """Return the PDU with the policy server's signature."""
        own = event.pdu["signatures"].get("b.test", {})
        by_key = {**own, **self.signature(event.pdu, key)}
        return {**event.pdu, "signatures": {**event.pdu["signatures"], "b.test": by_key}}

    def start(self, **content: Any) -> None:
        """Make it the policy server of the room."""
        public = signing.verify_key_to_base64(KEY.verify_key)
        content = {"via": "b.test", "public_keys": {"ed25519": public}, **content}
        assert self.alice.set_state(self.room.id, POLICY, content).status_code == 200

    @property
    def asked(self) -> list[Json]:
        """The events that it was to sign."""
        return [it.json for it in self.b.received(SIGN)]


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def policy(remote: Remotes, alice: Person, room: Callable[..., str]) -> PolicyServer:
    return PolicyServer(remote("b.test"), alice, room(alice))


def bodies(person: Person, room_id: str) -> list[str]:
    """The texts of the messages in the room."""
    timeline = person.sync()["rooms"]["join"][room_id]["timeline"]["events"]
    return [it["content"]["body"] for it in timeline if it["type"] == "m.room.message"]


def try_to_send(person: Person, room_id: str, body: str) -> Any:
    path = f"rooms/{quote(room_id)}/send/m.room.message/{body}"
    return person.put(path, json={"msgtype": "m.text", "body": body})


def stored(policy: PolicyServer, event_id: str) -> Json:
    """The event as another server gets it."""
    (pdu,) = policy.b.get("v1", "event", event_id).json["pdus"]
    found: Json = pdu
    return found


def test_messages_are_signed_by_the_policy_server_before_they_are_sent(
    policy: PolicyServer, alice: Person
) -> None:
    policy.start()

    event_id = alice.send(policy.room.id, "hello")

    (asked,) = policy.asked
    pdu = stored(policy, event_id)
    event = Event(event_id, pdu, policy.room.version)
    found = policy_servers.Policy("b.test", KEY.verify_key)
    assert policy_servers.is_approved(event, found)
    assert asked["signatures"].keys() == {"localhost"}
    assert pdu == {**asked, "signatures": {**asked["signatures"], **pdu["signatures"]}}
    assert bodies(alice, policy.room.id) == ["hello"]


def test_the_client_gets_the_policy_servers_refusal_and_nothing_is_sent(
    policy: PolicyServer, alice: Person
) -> None:
    policy.start()

    answer = try_to_send(alice, policy.room.id, "spam")

    assert refusal(answer) == (400, "M_FORBIDDEN")
    assert answer.get_json()["error"] == "This looks like spam"
    assert try_to_send(alice, policy.room.id, "ham").status_code == 200
    assert bodies(alice, policy.room.id) == ["ham"]


@pytest.mark.parametrize(
    "response",
    [
        Response(500, {}),
        Response(404, {"errcode": "M_UNRECOGNIZED", "error": "No"}),
        Response(200, {}),
        Response(200, {"b.test": {KEY_ID: "A" * 86}}),
        Response(200, {"b.test": {"ed25519:other": "A" * 86}}),
    ],
)
def test_without_a_valid_signature_nothing_is_sent(
    policy: PolicyServer, alice: Person, response: Response
) -> None:
    policy.start()
    policy.b.answer(SIGN, response)

    answer = try_to_send(alice, policy.room.id, "hello")

    assert refusal(answer) == (403, "M_FORBIDDEN")
    assert bodies(alice, policy.room.id) == []


def test_a_policy_server_that_does_not_respond_ends_the_wait(
    policy: PolicyServer, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homebody.core.federation.policy_servers.TIMEOUT_S", 0.2)
    policy.start()
    policy.b.hang(SIGN)

    answer = try_to_send(alice, policy.room.id, "hello")

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_state_and_memberships_are_signed_too_but_not_the_policy_itself(
    policy: PolicyServer, alice: Person, login: Login
) -> None:
    policy.start()
    room_id, bob = policy.room.id, login("bob")

    assert alice.set_state(room_id, "m.room.name", {"name": "x"}).status_code == 200
    assert bob.post(f"rooms/{quote(room_id)}/join").status_code == 200
    assert bob.post(f"rooms/{quote(room_id)}/leave").status_code == 200
    assert alice.set_state(room_id, POLICY, {}, "other").status_code == 200

    kinds = [(it["type"], it["state_key"]) for it in policy.asked]
    member = ("m.room.member", bob.user_id)
    assert kinds == [("m.room.name", ""), member, member, (POLICY, "other")]
    assert membership(alice, room_id, bob.user_id)["membership"] == "leave"
    assert alice.set_state(room_id, POLICY, {}).status_code == 200
    alice.send(room_id)
    assert len(policy.asked) == 4


def test_an_event_that_is_signed_while_the_room_goes_on_is_sent_nevertheless(
    policy: PolicyServer, alice: Person
) -> None:
    policy.start()
    room_id = policy.room.id

    def respond(request: Request) -> Response:
        if not bodies(alice, room_id):
            message = policy.room.message("meanwhile", sender="carol")
            policy.b.send(policy.signed(message))
        return policy.respond(request)

    policy.b.answer(SIGN, respond)
    alice.send(room_id, "hello")

    assert sorted(bodies(alice, room_id)) == ["hello", "meanwhile"]
    assert len(policy.asked) == 1


def test_a_user_who_may_not_write_any_more_when_it_is_signed_is_refused(
    policy: PolicyServer, alice: Person, login: Login
) -> None:
    policy.start()
    room_id, bob = policy.room.id, login("bob")
    assert bob.post(f"rooms/{quote(room_id)}/join").status_code == 200

    def respond(request: Request) -> Response:
        if request.json["type"] == "m.room.message":
            body = {"user_id": bob.user_id}
            assert alice.post(f"rooms/{quote(room_id)}/ban", json=body).status_code == 200
        return policy.respond(request)

    policy.b.answer(SIGN, respond)

    assert refusal(try_to_send(bob, room_id, "hello")) == (403, "M_FORBIDDEN")
    assert bodies(alice, room_id) == []


def test_a_room_does_not_use_a_policy_server_that_is_not_in_it_or_not_valid(
    policy: PolicyServer, alice: Person
) -> None:
    for content in INVALID:
        policy.start(**content)
        alice.send(policy.room.id)

    policy.start()
    policy.b.leave(policy.room.id, "carol")
    alice.send(policy.room.id)

    assert [it["type"] for it in policy.asked] == ["m.room.member"]


def test_events_of_other_servers_are_signed_if_they_are_not(
    policy: PolicyServer, alice: Person
) -> None:
    policy.start()
    signed, unsigned = (policy.room.message(it, sender="carol") for it in ("signed", "unsigned"))
    wrong = policy.room.message("wrong key", sender="carol")

    results = policy.b.send(policy.signed(signed), unsigned, policy.signed(wrong, OTHER_KEY))

    assert list(results.values()) == [{}, {}, {}]
    assert bodies(alice, policy.room.id) == ["signed", "unsigned", "wrong key"]
    assert [it["content"]["body"] for it in policy.asked] == ["unsigned", "wrong key"]
    for event in (signed, unsigned, wrong):
        pdu = stored(policy, event.event_id)
        assert pdu["signatures"]["b.test"].keys() == {policy.b.key.key_id, KEY_ID}


def test_events_of_other_servers_that_it_does_not_sign_are_not_shown(
    policy: PolicyServer, alice: Person
) -> None:
    policy.start()
    spam = policy.room.message("spam", sender="carol", add=False)
    later = policy.room.message("later", sender="carol")

    results = policy.b.send(spam, policy.signed(later))

    assert results == {spam.event_id: {}, later.event_id: {}}
    assert bodies(alice, policy.room.id) == ["later"]


def test_events_do_not_wait_for_it_one_after_the_other(
    policy: PolicyServer, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homebody.core.federation.policy_servers.SECONDS", 0.3)
    policy.start()
    policy.b.hang(SIGN)
    events = [policy.room.message(f"n{number}", sender="carol") for number in range(20)]
    began = time.monotonic()

    results = policy.b.send(*events)

    assert list(results.values()) == [{}] * 20
    assert time.monotonic() - began < 3
    assert bodies(alice, policy.room.id) == []


def test_those_of_some_rooms_do_not_delay_what_a_server_sends_to_others(
    policy: PolicyServer, alice: Person, room: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homebody.core.federation.inbound.MAX_SECONDS", 0.1)
    for name in ("SECONDS", "SECONDS_IF_FAILING"):
        monkeypatch.setattr(f"homebody.core.federation.policy_servers.{name}", 1.5)
    policies = [policy, *(PolicyServer(policy.b, alice, room(alice)) for _ in range(3))]
    for it in policies:
        it.start()
    other = policy.b.join(room(alice), "carol")
    policy.b.hang(SIGN)
    events = [it.room.message("slow", sender="carol") for it in policies]
    began = time.monotonic()

    results = policy.b.send(*events, last := other.message("hello", sender="carol"))
    seconds = time.monotonic() - began

    assert results == {it.event_id: {} for it in (*events, last)}
    assert seconds < 4
    wait_for(lambda: bodies(alice, other.id) == ["hello"])


def test_a_join_that_it_does_not_sign_is_refused(
    policy: PolicyServer, alice: Person, remote: Remotes
) -> None:
    policy.start()
    policy.b.fail(SIGN, 400, errcode="M_FORBIDDEN")
    c = remote("c.test")
    template = c.get("v1", "make_join", policy.room.id, "@erin:c.test", query={"ver": "11"})
    room = RemoteRoom(c, "11", "@erin:c.test", policy.room.id)
    event = room.sign(template.json["event"], add=False)

    answer = c.put("v2", "send_join", policy.room.id, event.event_id, json=event.pdu)

    assert answer.refusal == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("invited", ["@dave:b.test", "@erin:c.test"])
def test_invites_of_users_of_other_servers_are_signed(
    policy: PolicyServer, alice: Person, remote: Remotes, invited: str
) -> None:
    remote("c.test")
    policy.start()
    path = f"rooms/{quote(policy.room.id)}/invite"

    assert alice.post(path, json={"user_id": invited}).status_code == 200

    assert [it["state_key"] for it in policy.asked] == [invited]
    assert membership(alice, policy.room.id, invited)["membership"] == "invite"
    policy.b.fail(SIGN, 400, errcode="M_FORBIDDEN")
    answer = alice.post(path, json={"user_id": invited.replace(":", "2:")})
    assert refusal(answer) == (400, "M_FORBIDDEN")


def test_a_transaction_id_that_is_repeated_is_not_signed_again(
    policy: PolicyServer, alice: Person
) -> None:
    policy.start()

    first = try_to_send(alice, policy.room.id, "once").get_json()
    again = try_to_send(alice, policy.room.id, "once").get_json()

    assert first == again
    assert len(policy.asked) == 1


def test_a_deactivated_user_leaves_without_it(
    app: Application, policy: PolicyServer, alice: Person, login: Login
) -> None:
    policy.start()
    bob = login("bob")
    assert bob.post(f"rooms/{quote(policy.room.id)}/join").status_code == 200
    policy.b.fail(SIGN, 500)

    auth = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "bob"},
        "password": "correct horse battery staple",
    }
    assert bob.post("account/deactivate", json={"auth": auth}).status_code == 200

    assert membership(alice, policy.room.id, bob.user_id)["membership"] == "leave"


LEAVES: dict[str, Callable[[Person, str], Any]] = {
    "leave": lambda it, room_id: it.post(f"rooms/{quote(room_id)}/leave", json={"reason": "spam"}),
    "state": lambda it, room_id: it.set_state(
        room_id, "m.room.member", {"membership": "leave", "reason": "spam"}, it.user_id
    ),
}
REFUSED = {"refused": (400, "M_FORBIDDEN"), "away": (502, "M_UNKNOWN")}


@pytest.mark.parametrize("leave", LEAVES.values(), ids=LEAVES)
@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_a_user_leaves_without_it_but_without_a_reason(
    policy: PolicyServer,
    app: Application,
    alice: Person,
    login: Login,
    refused: tuple[int, str],
    leave: Callable[[Person, str], Any],
) -> None:
    app.homeserver.sender.start()
    policy.start()
    bob = login("bob")
    assert bob.post(f"rooms/{quote(policy.room.id)}/join").status_code == 200
    policy.b.fail(SIGN, refused[0], errcode=refused[1])

    assert leave(bob, policy.room.id).status_code == 200

    assert policy.room.id not in bob.get("joined_rooms").get_json()["joined_rooms"]
    assert membership(alice, policy.room.id, bob.user_id) == {"membership": "leave"}
    policy.b.wait_until(lambda: policy.room.membership(bob.user_id) == "leave")
    assert len(policy.asked) == 2
    app.homeserver.sender.stop()


def test_a_leave_that_it_signs_has_its_reason(
    policy: PolicyServer, alice: Person, login: Login
) -> None:
    policy.start()
    bob = login("bob")
    assert bob.post(f"rooms/{quote(policy.room.id)}/join").status_code == 200

    assert LEAVES["leave"](bob, policy.room.id).status_code == 200

    assert membership(alice, policy.room.id, bob.user_id)["reason"] == "spam"


def test_kicks_and_redactions_are_not_sent_without_it(
    policy: PolicyServer, alice: Person, login: Login
) -> None:
    policy.start()
    room_id, bob = policy.room.id, login("bob")
    assert bob.post(f"rooms/{quote(room_id)}/join").status_code == 200
    event_id = alice.send(room_id, "hello")
    policy.b.fail(SIGN, 502)

    kick = alice.post(f"rooms/{quote(room_id)}/kick", json={"user_id": bob.user_id})
    redaction = alice.put(f"rooms/{quote(room_id)}/redact/{quote(event_id)}/1", json={})

    assert (refusal(kick), refusal(redaction)) == ((403, "M_FORBIDDEN"),) * 2
    assert membership(alice, room_id, bob.user_id)["membership"] == "join"


def test_an_invite_is_rejected_without_it(
    policy: PolicyServer, alice: Person, login: Login
) -> None:
    bob = login("bob")
    body = {"user_id": bob.user_id}
    assert alice.post(f"rooms/{quote(policy.room.id)}/invite", json=body).status_code == 200
    policy.start()
    policy.b.fail(SIGN, 502)

    assert LEAVES["leave"](bob, policy.room.id).status_code == 200

    assert policy.room.id not in bob.sync()["rooms"].get("invite", {})


@pytest.mark.parametrize("body", ["hello", "spam"])
def test_delayed_events_are_signed_when_they_are_sent(
    app: Application, policy: PolicyServer, alice: Person, body: str
) -> None:
    timer = app.homeserver.delayed_events
    timer.start()
    policy.start()
    path = f"rooms/{quote(policy.room.id)}/delayed_event/m.room.message/t1"
    content = {"msgtype": "m.text", "body": body}

    answer = alice.put(path, json={"delay_ms": 10, "content": content})
    path = f"/_matrix/client/v1/delayed_events/{answer.get_json()['delay_id']}"
    wait_for(lambda: "finalised_ts" in alice.get(path).get_json())
    timer.stop()

    found = alice.get(path).get_json()
    assert [it["content"]["body"] for it in policy.asked] == [body]
    assert bodies(alice, policy.room.id) == (["hello"] if body == "hello" else [])
    assert ("event_id" in found, "error" in found) == (body == "hello", body == "spam")


def test_a_delayed_event_that_is_sent_at_once_is_signed_too(
    app: Application, policy: PolicyServer, alice: Person
) -> None:
    policy.start()
    path = f"rooms/{quote(policy.room.id)}/delayed_event/m.room.message/t1"
    content = {"msgtype": "m.text", "body": "hello"}
    answer = alice.put(path, json={"delay_ms": 3_600_000, "content": content})
    delayed = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events"

    sent = app.test_client().post(f"{delayed}/{answer.get_json()['delay_id']}/send")

    assert sent.get_json() == {}
    assert bodies(alice, policy.room.id) == ["hello"]
