"""Transactions of a server that sends anything: each is answered, and rooms keep to their rules."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebody.core.events import state
from homebody.models.events import ACCEPTED
from homebody.spec import events, signing
from homebody.spec.events import Json
from homebody.spec.room_versions import RoomVersion
from homebody.web import Application
from tests.conftest import Login, Person
from tests.fuzz import examples
from tests.fuzz.requests import JSON_TEXTS, SLOWEST_SECONDS
from tests.fuzz.test_canonical_json import decoded_values
from tests.helpers.peers import Answer
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom

ALICE = "@alice:localhost"
CAROL = "@carol:b.test"
VERSIONS = ("1", "5", "6", "10", "11", "12")
TYPES = (
    *("m.room.message", "m.room.member", "m.room.create", "m.room.power_levels", "m.room.policy"),
    *("m.room.join_rules", "m.room.redaction", "m.room.third_party_invite", "m.room.server_acl"),
    *("m.room.history_visibility", "m.room.aliases", "m.room.encryption", "m.room.tombstone"),
    *("m.room.canonical_alias", "m.space.child", "m.reaction", "m.room.name", "org.example", ""),
)
IDS = (
    ALICE,
    CAROL,
    "@dave:b.test",
    "@erin:c.test",
    "@:",
    "",
    "b.test",
    "$" + "x" * 43,
    "!a:b.test",
)
MEMBERSHIPS = ("join", "leave", "invite", "ban", "knock", "")
odd_texts = st.sampled_from([*IDS, *MEMBERSHIPS, "\0", "k" * 300, "ä" * 128, "\u202e"])
odd_values = (
    decoded_values
    | odd_texts
    | st.sampled_from([2**53, 2**63, -1, 0.5, [], {}, [[]], [None], ["$a", "$a"], {"": {}}])
)
contents = st.dictionaries(
    st.sampled_from(
        [
            *("membership", "users", "events", "users_default", "join_rule", "allow", "redacts"),
            *("third_party_invite", "join_authorised_via_users_server", "m.relates_to", "body"),
            *("history_visibility", "creator", "room_version", "m.federate", "via", "alias"),
            *("m.mentions", "avatar_url", "displayname", "predecessor", "deny", "url", "info"),
        ]
    ),
    odd_values
    | st.dictionaries(odd_texts, odd_values, max_size=2)
    | st.sampled_from(
        [
            {"rel_type": "m.thread", "event_id": 1},
            {"rel_type": "m.replace", "event_id": "$" + "x" * 43},
            {"rel_type": "m.annotation", "key": {}},
            {"m.in_reply_to": []},
            {CAROL: 100},
            {"user_ids": [1, ALICE]},
        ]
    ),
    max_size=4,
)
KEYS = (
    *(
        "type",
        "sender",
        "content",
        "depth",
        "origin_server_ts",
        "room_id",
        "prev_events",
        "redacts",
    ),
    *("auth_events", "state_key", "event_id", "unsigned", "origin", "prev_state", "membership"),
)
UNCOVERED = ("hashes", "signatures", "content", "unsigned", "room_id", "sender", "event_id", "type")
"""Keys that are changed after the event is signed."""


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


class World:
    """Rooms of Alice's, which Carol of the other server joins again whenever she has left."""

    def __init__(self, app: Application, b: Remote, alice: Person) -> None:
        self.app = app
        self.b = b
        self.alice = alice
        self._rooms: dict[str, RemoteRoom] = {}
        self._ids = itertools.count()
        self._since = alice.sync()["next_batch"]

    def room(self, version: str) -> RemoteRoom:
        """Return a room that Carol is in."""
        if version not in self._rooms:
            room_id = self.alice.create_room(preset="public_chat", room_version=version)
            self._rooms[version] = self.b.join(room_id, "carol")
        return self._rooms[version]

    def send(self, room: RemoteRoom, *pdus: Any) -> None:
        """Send PDUs, and check what becomes of them."""
        answer = self.b.try_to_send(*pdus, transaction_id=f"f{next(self._ids)}")
        if answer.status in {400, 401}:  # what can't be signed
            return
        results = results_of(answer)
        for pdu in pdus:
            if (event_id := id_of(pdu, room.version)) is not None:
                assert event_id in results or pdu.get("room_id") != room.id, (pdu, results)
        for event_id, outcome in results.items():
            if not outcome:
                self._check_stored(room, event_id)
        with self.app.homeserver.database.read() as tx:
            if not state.is_joined(tx, room.id, CAROL):
                del self._rooms[room.version.name]

    def send_bytes(self, body: bytes) -> None:
        """Send a transaction that need not be JSON."""
        answer = self.b.put("v1", "send", f"f{next(self._ids)}", body=body)
        assert answer.status < 500, answer
        if answer.status == 200:
            results_of(answer)

    def _check_stored(self, room: RemoteRoom, event_id: str) -> None:
        """Check that an event is one of the other server's users, if it was stored."""
        with self.app.homeserver.database.read() as tx:
            known = state.find_any(tx, event_id)
        if known is None:  # it waits for others
            return
        event = known.event
        events.check_format(event.pdu, event.version)
        assert event.sender.endswith(":b.test")
        key = self.b.key
        signing.verify_event(event.pdu, event.version, "b.test", key.key_id, key.verify_key)
        assert signing.event_id_of(event.pdu, event.version) == event_id
        if known.standing == ACCEPTED:
            room.receive(event.pdu)

    def check(self, room: RemoteRoom, caplog: pytest.LogCaptureFixture) -> None:
        """Check that the server goes on: Carol and Alice can write, and Alice reads it."""
        errors = [it.getMessage() for it in caplog.records if it.levelname == "ERROR"]
        assert not errors
        room = room if room.id in {it.id for it in self._rooms.values()} else self.room("11")
        message = room.message("good", sender="carol")
        assert results_of(self.b.try_to_send(message)) == {message.event_id: {}}
        self.alice.send(room.id)
        answer = self.alice.sync(self._since)
        self._since = answer["next_batch"]
        sent = answer["rooms"]["join"][room.id]["timeline"]["events"]
        assert message.event_id in {it["event_id"] for it in sent}


@pytest.fixture(autouse=True)
def no_crash(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [it.message for it in caplog.get_records("call") if it.exc_info]


@pytest.fixture
def world(app: Application, b: Remote, login: Login) -> World:
    return World(app, b, login("alice"))


def results_of(answer: Answer) -> Json:
    """Return the outcomes of a transaction, which was accepted."""
    assert answer.status == 200, answer
    results: Json = answer.json["pdus"]
    for outcome in results.values():
        assert outcome == {} or isinstance(outcome["error"], str)
    return results


def id_of(pdu: Any, version: RoomVersion) -> str | None:
    """Return the id of an event if its form is right."""
    try:
        events.check_format({**pdu, "unsigned": {}}, version)
        return signing.event_id_of(pdu, version)
    except (ValueError, TypeError):
        return None


@st.composite
def changed_pdus(draw: st.DrawFn, room: RemoteRoom) -> Any:
    """Draw an event that is wrong somewhere, mostly signed as it should be."""
    event_type = draw(st.sampled_from(TYPES))
    content = draw(contents)
    if event_type == "m.room.member":
        content["membership"] = draw(st.sampled_from(MEMBERSHIPS) | odd_values)
    state_key = draw(st.none() | st.sampled_from(["", CAROL, ALICE, "@dave:b.test"]))
    pdu = room.unsigned_event(event_type, content, state_key, sender=CAROL)
    for key in draw(st.lists(st.sampled_from(KEYS), max_size=2)):
        pdu[key] = draw(odd_values | st.sampled_from(list(pdu.values())))
    for key in draw(st.lists(st.sampled_from(KEYS), max_size=1)):
        pdu.pop(key, None)
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):  # then unsigned
        b = room.remote
        pdu = signing.add_hashes_and_signatures(pdu, room.version, b.name, b.key)[1]
    for key in draw(st.lists(st.sampled_from(UNCOVERED), max_size=1)):
        pdu[key] = draw(odd_values)
    return pdu


@examples(150)
@given(data=st.data(), version=st.sampled_from(VERSIONS))
def test_no_event_of_another_server_is_a_fault(
    world: World, caplog: pytest.LogCaptureFixture, data: st.DataObject, version: str
) -> None:
    room = world.room(version)
    pdus = [data.draw(changed_pdus(room)) for _ in range(data.draw(st.integers(1, 3)))]
    started = time.monotonic()

    world.send(room, *pdus)

    assert time.monotonic() - started < SLOWEST_SECONDS
    world.check(room, caplog)


@examples(60)
@given(pdus=st.lists(decoded_values, max_size=4), edus=st.lists(decoded_values, max_size=4))
def test_no_json_in_a_transaction_is_a_fault(
    world: World, caplog: pytest.LogCaptureFixture, pdus: list[Any], edus: list[Any]
) -> None:
    room = world.room("11")

    answer = world.b.try_to_send(*pdus, edus=edus)

    assert answer.status in {200, 400, 401}
    world.check(room, caplog)


@pytest.mark.parametrize("place", ["pdus", "edus", "type", "content", "depth", "auth_events"])
def test_no_text_in_the_place_of_json_is_a_fault(
    world: World, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    room = world.room("5")

    for text in JSON_TEXTS:
        pdu = room.message(sender="carol", add=False).pdu | {place: "MARK"}
        body: Json = {"pdus": [pdu], "edus": [], "origin": "b.test"}
        if place in body:
            body[place] = "MARK"
        world.send_bytes(json.dumps(body).encode().replace(b'"MARK"', text))

    world.check(room, caplog)
