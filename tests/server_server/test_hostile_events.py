"""Events that a hostile server sends: each has an outcome, and none changes the room."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson
import pytest

from homebody.core import incoming
from homebody.core.events import state
from homebody.spec import signing
from homebody.spec.events import Event
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import (
    RemoteRoom,
    with_wrong_hash,
    with_wrong_signature,
    without_signatures,
)
from tests.helpers.rooms import state_of

Json = dict[str, Any]
ALICE = "@alice:localhost"
CAROL = "@carol:b.test"
VERSIONS = ("1", "11", "12")
STRICT = ("11", "12")
NO_GIVEN_IDS = ("11", "12")


class Attack(NamedTuple):
    """A room of Alice's that Carol of the hostile server has joined, and another one."""

    room: RemoteRoom
    other: RemoteRoom

    def event(self, event_type: str, content: Json, state_key: str | None = None, **it: Any) -> Any:
        return self.room.event(event_type, content, state_key, **{"sender": CAROL, **it}, add=False)

    def message(self, body: str = "intruder", **options: Any) -> Event:
        return self.room.message(body, **{"sender": CAROL, **options}, add=False)

    def unsigned(self) -> Json:
        return self.room.unsigned_event("m.room.message", {"body": "intruder"}, sender=CAROL)

    def malformed(self, **changes: Any) -> Json:
        """Return a message with other values, which need not be an event; None removes a key."""
        pdu = {key: it for key, it in (self.unsigned() | changes).items() if it is not None}
        b = self.room.remote
        return signing.add_hashes_and_signatures(pdu, self.room.version, b.name, b.key)[1]


Lie = Callable[[Attack], Event | Json]

REFUSED: dict[str, tuple[Lie, tuple[str, ...]]] = {
    "a depth of 2^53": (lambda it: it.message(depth=2**53), STRICT),
    "a depth of 2^63": (lambda it: it.message(depth=2**63), ("1",)),
    "a negative depth": (lambda it: it.message(depth=-1), VERSIONS),
    "a depth that is a text": (lambda it: it.malformed(depth="7"), VERSIONS),
    "21 prev_events": (
        lambda it: it.message(prev_events=["$" + f"{n:043}" for n in range(21)]),
        NO_GIVEN_IDS,
    ),
    "11 auth_events": (
        lambda it: it.message(auth_events=["$" + f"{n:043}" for n in range(11)]),
        NO_GIVEN_IDS,
    ),
    "auth events twice": (
        lambda it: it.message(auth_events=it.unsigned()["auth_events"] * 2),
        VERSIONS,
    ),
    "no auth events": (lambda it: it.message(auth_events=[]), VERSIONS),
    "auth events of another room": (
        lambda it: it.message(
            auth_events=it.other.unsigned_event("m.room.message", sender=CAROL)["auth_events"]
        ),
        VERSIONS,
    ),
    "prev_events that are not a list": (
        lambda it: it.malformed(prev_events={}),
        NO_GIVEN_IDS,
    ),
    "no prev_events": (lambda it: it.message(prev_events=[]), VERSIONS),
    "a float": (lambda it: it.event("m.room.message", {"n": 1.5}), STRICT),
    "a huge integer": (lambda it: it.event("m.room.message", {"n": 2**53}), STRICT),
    "another server's sender": (lambda it: it.message(sender="@erin:c.test"), VERSIONS),
    "a sender of this server": (lambda it: it.message(sender=ALICE), VERSIONS),
    "no sender's domain": (lambda it: it.malformed(sender="@carol"), VERSIONS),
    "a sender of 300 bytes": (
        lambda it: it.malformed(sender=f"@{'c' * 300}:b.test"),
        VERSIONS,
    ),
    "a user who is not in the room": (lambda it: it.message(sender="@dave:b.test"), VERSIONS),
    "a state key of 300 bytes": (lambda it: it.event("org.example", {}, "k" * 300), VERSIONS),
    "a type of 300 bytes": (lambda it: it.event("t" * 300, {}), VERSIONS),
    "a type that is not a text": (lambda it: it.malformed(type=1), VERSIONS),
    "a content that is a list": (lambda it: it.malformed(content=[]), STRICT),
    "no time": (lambda it: it.malformed(origin_server_ts=None), VERSIONS),
    "too large": (lambda it: it.message("x" * 70_000), VERSIONS),
    "a wrong signature": (lambda it: with_wrong_signature(it.message(), "b.test"), VERSIONS),
    "no signature": (lambda it: without_signatures(it.message()), VERSIONS),
    "a second create event": (
        lambda it: it.event("m.room.create", {"creator": CAROL, "room_version": "1"}, ""),
        ("1", "11"),
    ),
    "a create event without predecessors": (
        lambda it: it.event(
            "m.room.create", {"creator": CAROL}, "", prev_events=[], auth_events=[]
        ),
        ("1", "11"),
    ),
    "a promotion": (
        lambda it: it.event("m.room.power_levels", {"users": {CAROL: 100}}, ""),
        VERSIONS,
    ),
    "a ban without the power": (lambda it: it.room.member(ALICE, "ban", sender=CAROL), VERSIONS),
    "a join for another": (lambda it: it.room.member(ALICE, "join", sender=CAROL), VERSIONS),
    "a membership that is a number": (
        lambda it: it.event("m.room.member", {"membership": 1}, CAROL),
        VERSIONS,
    ),
    "another user's state": (lambda it: it.event("org.example", {}, "@dave:b.test"), VERSIONS),
    "state without the power": (lambda it: it.event("m.room.name", {"name": "x"}, ""), VERSIONS),
    "a forged third-party invite": (
        lambda it: it.event(
            "m.room.member",
            {
                "membership": "invite",
                "third_party_invite": {
                    "display_name": "x",
                    "signed": {"mxid": "@dave:b.test", "token": "none", "signatures": {}},
                },
            },
            "@dave:b.test",
        ),
        VERSIONS,
    ),
    "a join that this server has not authorised": (
        lambda it: it.event(
            "m.room.member",
            {"membership": "join", "join_authorised_via_users_server": ALICE},
            "@dave:b.test",
            sender="@dave:b.test",
        ),
        ("11", "12"),
    ),
    "an event id of this server": (
        lambda it: it.message(event_id="$forged:localhost"),
        ("1",),
    ),
}


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def attack(
    request: pytest.FixtureRequest, b: Remote, alice: Person, room: Callable[..., str]
) -> Attack:
    version = request.param
    rooms = [b.join(room(alice, room_version=version), "carol") for _ in range(2)]
    return Attack(*rooms)


def shown(alice: Person, room_id: str) -> Any:
    """What Alice sees of a room."""
    timeline = alice.sync()["rooms"]["join"][room_id]["timeline"]["events"]
    return state_of(alice, room_id), [it["event_id"] for it in timeline]


def settle(app: Application) -> None:
    """Wait until no event waits for others."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with app.homeserver.database.read() as tx:
            if not incoming.rooms(tx):
                return
        time.sleep(0.01)
    raise AssertionError("events still wait for others")


LIES = [
    pytest.param(version, lie, id=f"{name} in version {version}")
    for name, (lie, versions) in REFUSED.items()
    for version in versions
]


def outcome_of(attack: Attack, pdu: Event | Json, results: Json) -> Any:
    """What the server says about an event."""
    if isinstance(pdu, dict):
        return results.get(signing.event_id_of(pdu, attack.room.version))
    return results.get(pdu.event_id)


def is_error_free(caplog: pytest.LogCaptureFixture) -> bool:
    return not [it for it in caplog.records if it.levelname == "ERROR"]


@pytest.mark.parametrize(("attack", "lie"), LIES, indirect=["attack"])
def test_a_lie_is_refused_and_changes_nothing(
    app: Application,
    b: Remote,
    alice: Person,
    attack: Attack,
    lie: Lie,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = shown(alice, attack.room.id)
    bad, good = lie(attack), attack.message("good")

    results = b.send(bad, good)

    assert outcome_of(attack, bad, results)["error"]
    assert outcome_of(attack, good, results) == {}
    settle(app)
    state, timeline = shown(alice, attack.room.id)
    assert (state, timeline) == (before[0], [*before[1], good.event_id])
    assert is_error_free(caplog)


ODD_SENDERS: tuple[Any, ...] = (CAROL, None, 1, "", [], {})
GARBAGE: list[Any] = [
    *(None, True, 0, 1.5, "", "x", [], [[]], {}, {"": {}}, {"room_id": 1}, {"pdu": {}}),
    *({"room_id": "!unknown:b.test"}, {"room_id": "!unknown:localhost", "sender": CAROL}),
    {"room_id": "!" + "x" * 300},
]


@pytest.mark.parametrize("attack", ["11"], indirect=True)
def test_what_is_not_an_event_does_not_keep_the_others_out(
    app: Application, b: Remote, attack: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    ours = [{"room_id": attack.room.id, "sender": it} for it in ODD_SENDERS]
    good = attack.message("good")

    results = b.send(*GARBAGE, *ours, good)

    settle(app)
    assert outcome_of(attack, good, results) == {}
    assert all(it.get("error") for key, it in results.items() if key != good.event_id)
    assert is_error_free(caplog)


BODIES = {
    "a lone surrogate": b'"\\ud800"',
    "an infinite number": b"1e999",
    "a thousand levels": b"[" * 1000 + b"]" * 1000,
    "no JSON": b"NaN",
    "invalid UTF-8": b'"\xff"',
}


@pytest.mark.parametrize("attack", ["11"], indirect=True)
@pytest.mark.parametrize("value", BODIES.values(), ids=BODIES)
def test_a_transaction_that_is_not_json_is_refused(
    b: Remote, alice: Person, attack: Attack, value: bytes
) -> None:
    before = shown(alice, attack.room.id)
    pdu = orjson.dumps(attack.message("MARK").pdu).replace(b'"MARK"', value)

    answer = b.put("v1", "send", "t-odd", body=b'{"edus":[],"pdus":[' + pdu + b"]}")

    assert answer.status in {400, 401}
    assert shown(alice, attack.room.id) == before
    good = attack.message("good")
    assert b.send(good) == {good.event_id: {}}


@pytest.mark.parametrize("attack", VERSIONS, indirect=True)
def test_an_event_with_a_wrong_hash_comes_in_redacted(
    b: Remote, alice: Person, attack: Attack
) -> None:
    event = attack.message("first")

    results = b.send(with_wrong_hash(event, body="second"))

    assert outcome_of(attack, event, results) == {}
    last = alice.sync()["rooms"]["join"][attack.room.id]["timeline"]["events"][-1]
    assert (last["event_id"], last["content"]) == (event.event_id, {})


@pytest.mark.parametrize("attack", VERSIONS, indirect=True)
def test_a_server_redacts_no_messages_of_others(b: Remote, alice: Person, attack: Attack) -> None:
    event_id = alice.send(attack.room.id, "stays")
    named = {"redacts": event_id}
    in_content = attack.room.version.has_redacts_in_content

    b.send(
        attack.event(
            "m.room.redaction", named if in_content else {}, **({} if in_content else named)
        )
    )

    path = f"rooms/{quote(attack.room.id)}/event/{quote(event_id)}"
    assert alice.get(path).get_json()["content"]["body"] == "stays"


@pytest.mark.parametrize("attack", ["11"], indirect=True)
def test_events_for_a_room_of_this_server_in_which_their_senders_are_not_are_refused(
    b: Remote, alice: Person, attack: Attack, room: Callable[..., str]
) -> None:
    private = room(alice, preset="private_chat")
    before = shown(alice, private)

    event = attack.message(room_id=private)
    results = b.send(event)

    assert results[event.event_id].get("error")
    assert shown(alice, private) == before


@pytest.mark.parametrize("attack", ["12"], indirect=True)
def test_a_server_that_is_not_in_the_room_does_not_fill_the_disk(
    app: Application, b: Remote, remote: Remotes, attack: Attack
) -> None:
    c = remote("c.test")
    c.rooms[attack.room.id] = attack.room
    large: Json = {"sender": "@erin:c.test", "by": c}
    lost = attack.room.message("x" * 50_000, **large)
    state_too = attack.room.event("m.room.topic", {"topic": "x" * 50_000}, "", **large)
    follows_known = attack.message("x" * 50_000, **large, prev_events=lost.prev_event_ids)
    follows_lost = attack.message("x" * 50_000, **large)
    b.fail("/_matrix/federation/v1/", 404)

    results = c.send(follows_known, follows_lost)
    settle(app)

    assert "error" in results[follows_known.event_id]
    assert c.received("/get_missing_events/")
    assert not c.received("/state")
    assert not c.received("/event_auth/")
    with app.homeserver.database.read() as tx:
        sent = [it.event_id for it in (lost, state_too, follows_known, follows_lost)]
        assert state.find_many(tx, sent) == {}


def test_a_server_that_has_joined_by_another_one_is_asked_for_its_join(
    app: Application, b: Remote, remote: Remotes, alice: Person, room: Callable[..., str]
) -> None:
    c = remote("c.test")
    there = b.join(room(alice), "carol")
    c.rooms[there.id] = there
    there.member("@erin:c.test", "join", by=c)
    said = there.message("hello", sender="@erin:c.test", by=c)
    b.fail("/_matrix/federation/v1/", 404)

    c.send(said)
    settle(app)

    assert shown(alice, there.id)[1][-1] == said.event_id


@pytest.mark.parametrize("attack", ["12"], indirect=True)
def test_an_event_of_a_server_that_has_left_is_taken_in_if_it_is_older(
    app: Application, remote: Remotes, alice: Person, attack: Attack
) -> None:
    c = remote("c.test")
    of_c = c.join(attack.room.id, "dora")
    late = of_c.message("late", add=False)
    topic = of_c.event("m.room.topic", {"topic": "dora's"}, "", add=False)
    c.leave(attack.room.id, "dora")

    results = c.send(late, topic)

    assert results[late.event_id] == {}
    assert "error" in results[topic.event_id]
    with app.homeserver.database.read() as tx:
        assert state.find_any(tx, late.event_id) is not None
        assert state.find_any(tx, topic.event_id) is None


@pytest.mark.parametrize("attack", ["1"], indirect=True)
def test_an_event_id_that_is_taken_brings_no_other_content(
    b: Remote, alice: Person, attack: Attack
) -> None:
    first = attack.message("first", event_id="$mine:b.test")
    second = attack.message("second", event_id="$mine:b.test")
    of_alice = attack.message("third", event_id=alice.send(attack.room.id, "by alice"))

    b.send(first)
    b.send(second, of_alice)

    timeline = alice.sync()["rooms"]["join"][attack.room.id]["timeline"]["events"]
    found = [it["content"]["body"] for it in timeline if it["type"] == "m.room.message"]
    assert sorted(found) == ["by alice", "first"]


@pytest.mark.parametrize("attack", ["1"], indirect=True)
def test_an_event_that_follows_or_cites_itself_is_refused(
    app: Application, b: Remote, alice: Person, attack: Attack, caplog: pytest.LogCaptureFixture
) -> None:
    before = shown(alice, attack.room.id)
    itself = [["$self:b.test", {"sha256": "A" * 43}]]
    cited = [*attack.unsigned()["auth_events"], *itself]

    b.send(attack.message(event_id="$self:b.test", prev_events=itself))
    settle(app)
    b.send(attack.message(event_id="$self:b.test", auth_events=cited))
    settle(app)

    assert shown(alice, attack.room.id) == before
    assert is_error_free(caplog)


@pytest.mark.parametrize("attack", VERSIONS, indirect=True)
def test_an_event_that_comes_twice_is_stored_once(b: Remote, alice: Person, attack: Attack) -> None:
    before = shown(alice, attack.room.id)
    event = attack.message("once")

    results = [b.send(event, event), b.send(event)]

    assert results == [{event.event_id: {}}] * 2
    assert shown(alice, attack.room.id) == (before[0], [*before[1], event.event_id])


@pytest.mark.parametrize("attack", ["11"], indirect=True)
def test_nul_characters_are_allowed_and_shown(b: Remote, alice: Person, attack: Attack) -> None:
    events = [
        attack.message("a\0b"),
        attack.event("m.\0", {"\0": "\0"}),
        attack.event("m.room.member", {"membership": "join", "displayname": "\0"}, CAROL),
    ]

    assert list(b.send(*events).values()) == [{}] * 3
    timeline = shown(alice, attack.room.id)[1]
    assert timeline[-3:] == [it.event_id for it in events]
