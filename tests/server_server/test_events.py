"""Servers in a room may read its events and state, and no others."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import orjson
import pytest
from sqlalchemy import update

from homebody.core.federation import rooms
from homebody.models.events import StoredEvent
from homebody.runtime import event_loop
from homebody.server_server import events
from homebody.spec import event_auth, signing
from homebody.spec.events import Event, Json
from homebody.spec.room_versions import VERSIONS
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.rooms import refusal
from tests.helpers.signing_server import SigningServer

FORBIDDEN = (403, "M_FORBIDDEN")
NOT_FOUND = (404, "M_NOT_FOUND")
MakeRoom = Callable[..., str]


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    return make_app(federation="true")


@pytest.fixture
def peer(app: Application) -> SigningServer:
    """A server with a user in no room yet."""
    return SigningServer(app).introduce()


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def event_path(event_id: str) -> str:
    return f"v1/event/{quote(event_id, safe='')}"


def paths(room_id: str, event_id: str) -> dict[str, str]:
    """The paths by which a server reads a room."""
    room, event = quote(room_id, safe=""), quote(event_id, safe="")
    return {
        "event": f"v1/event/{event}",
        "event_auth": f"v1/event_auth/{room}/{event}",
        "state": f"v1/state/{room}?event_id={event}",
        "state_ids": f"v1/state_ids/{room}?event_id={event}",
        "timestamp_to_event": f"v1/timestamp_to_event/{room}?ts=0&dir=f",
    }


OPERATIONS = tuple(paths("", ""))


def content_of(peer: SigningServer, event_id: str) -> Json:
    (pdu,) = peer.get(event_path(event_id)).get_json()["pdus"]
    content: Json = pdu["content"]
    return content


def test_an_event_is_returned_as_it_was_signed(
    app: Application, peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    peer.member(room_id)
    event_id = alice.send(room_id, "hello")

    body = peer.get(event_path(event_id)).get_json()

    (pdu,) = body["pdus"]
    assert body["origin"] == "localhost"
    assert body["origin_server_ts"] > 1_700_000_000_000
    assert signing.event_id_of(pdu, VERSIONS["11"]) == event_id
    assert signing.has_valid_content_hash(pdu, VERSIONS["11"])
    key = app.homeserver.server.signing_key
    signing.verify_event(pdu, VERSIONS["11"], "localhost", key.key_id, key.verify_key)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_server_that_is_not_in_the_room_reads_nothing(
    peer: SigningServer, alice: Person, room: MakeRoom, operation: str
) -> None:
    room_id = room(alice)
    event_id = alice.send(room_id)

    never = peer.get(paths(room_id, event_id)[operation])
    peer.member(room_id, "invite")
    invited = peer.get(paths(room_id, event_id)[operation])
    peer.member(room_id, "join")
    joined = peer.get(paths(room_id, event_id)[operation])
    peer.member(room_id, "leave")
    left = peer.get(paths(room_id, event_id)[operation])

    assert joined.status_code == 200
    assert [refusal(it) for it in (never, invited, left)] == [FORBIDDEN] * 3


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_server_that_the_acl_denies_reads_nothing(
    peer: SigningServer, alice: Person, room: MakeRoom, operation: str
) -> None:
    room_id = room(alice)
    event_id = alice.send(room_id)
    peer.member(room_id)

    alice.set_state(room_id, "m.room.server_acl", {"allow": ["*"], "deny": ["peer.*"]})

    assert refusal(peer.get(paths(room_id, event_id)[operation])) == FORBIDDEN


@pytest.mark.parametrize("operation", [it for it in OPERATIONS if it != "event"])
def test_a_room_that_is_not_known_is_refused_as_one_that_is(
    peer: SigningServer, operation: str
) -> None:
    assert refusal(peer.get(paths("!none:localhost", "$none")[operation])) == FORBIDDEN


@pytest.mark.parametrize("operation", [it for it in OPERATIONS if it != "timestamp_to_event"])
def test_an_event_that_is_not_known_is_not_found(
    peer: SigningServer, alice: Person, room: MakeRoom, operation: str
) -> None:
    room_id = room(alice)
    peer.member(room_id)

    assert refusal(peer.get(paths(room_id, "$none")[operation])) == NOT_FOUND


@pytest.mark.parametrize("operation", ["event_auth", "state", "state_ids"])
def test_an_event_of_another_room_is_not_found(
    peer: SigningServer, alice: Person, room: MakeRoom, operation: str
) -> None:
    room_id, other = room(alice), room(alice)
    peer.member(room_id)
    peer.member(other)
    elsewhere = alice.send(other)

    assert refusal(peer.get(paths(room_id, elsewhere)[operation])) == NOT_FOUND


@pytest.mark.parametrize("operation", ["state", "state_ids"])
def test_the_event_is_required(
    peer: SigningServer, alice: Person, room: MakeRoom, operation: str
) -> None:
    room_id = room(alice)
    peer.member(room_id)

    response = peer.get(f"v1/{operation}/{quote(room_id)}")

    assert refusal(response) == (400, "M_MISSING_PARAM")


@pytest.mark.parametrize(
    ("setting", "before_invite", "before_join", "after_join"),
    [
        ("world_readable", True, True, True),
        ("shared", True, True, True),
        ("invited", False, True, True),
        ("joined", False, False, True),
        ("nonsense", True, True, True),
    ],
)
def test_messages_that_no_user_of_the_server_may_read_are_redacted(
    peer: SigningServer,
    alice: Person,
    room: MakeRoom,
    setting: str,
    before_invite: bool,
    before_join: bool,
    after_join: bool,
) -> None:
    room_id = room(alice)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": setting})
    first = alice.send(room_id)
    peer.member(room_id, "invite")
    second = alice.send(room_id)
    peer.member(room_id)
    third = alice.send(room_id)

    found = [bool(content_of(peer, it)) for it in (first, second, third)]

    assert found == [before_invite, before_join, after_join]


def test_a_redacted_message_keeps_its_id_and_signature(
    app: Application, peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    event_id = alice.send(room_id)
    peer.member(room_id)

    (pdu,) = peer.get(event_path(event_id)).get_json()["pdus"]

    key = app.homeserver.server.signing_key
    assert pdu["content"] == {}
    assert signing.event_id_of(pdu, VERSIONS["11"]) == event_id
    signing.verify_event(pdu, VERSIONS["11"], "localhost", key.key_id, key.verify_key)


def test_a_server_whose_name_ends_like_that_of_another_counts_for_itself(
    app: Application, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    event_id = alice.send(room_id)
    SigningServer(app, "sub.peer.test:8448").member(room_id)

    for name in ("peer.test", "8448", "peer.test:8448"):
        peer = SigningServer(app, name).introduce()
        assert refusal(peer.get(event_path(event_id))) == FORBIDDEN


def test_messages_of_erased_users_are_redacted(
    peer: SigningServer, alice: Person, login: Login, room: MakeRoom
) -> None:
    bob = login("bob")
    room_id = room(alice, bob)
    peer.member(room_id)
    event_id, other = bob.send(room_id), alice.send(room_id)
    auth = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "bob"}}
    auth["password"] = "correct horse battery staple"
    response = bob.post("account/deactivate", json={"auth": auth, "erase": True})

    assert response.status_code == 200, response.get_json()
    assert content_of(peer, event_id) == {}
    assert content_of(peer, other) != {}


def test_the_state_is_that_before_the_event(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice, name="first")
    peer.member(room_id)
    event_id = alice.set_state(room_id, "m.room.name", {"name": "second"}).get_json()["event_id"]
    alice.set_state(room_id, "m.room.name", {"name": "third"})

    body = peer.get(paths(room_id, event_id)["state"]).get_json()

    found = {(it["type"], it["state_key"]): it["content"] for it in body["pdus"]}
    assert found["m.room.name", ""] == {"name": "first"}
    assert found["m.room.member", "@carol:peer.test"] == {"membership": "join"}
    assert len(found) == len(body["pdus"])


def test_the_ids_are_those_of_the_state(peer: SigningServer, alice: Person, room: MakeRoom) -> None:
    room_id = room(alice)
    peer.member(room_id)
    event_id = alice.send(room_id)

    whole = peer.get(paths(room_id, event_id)["state"]).get_json()
    ids = peer.get(paths(room_id, event_id)["state_ids"]).get_json()

    def ids_of(pdus: list[Json]) -> list[str]:
        return sorted(signing.event_id_of(it, VERSIONS["11"]) for it in pdus)

    assert sorted(ids["pdu_ids"]) == ids_of(whole["pdus"])
    assert sorted(ids["auth_chain_ids"]) == ids_of(whole["auth_chain"])


def test_states_are_read_in_pieces_while_they_are_sent(
    app: Application,
    peer: SigningServer,
    alice: Person,
    room: MakeRoom,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room_id = room(alice)
    peer.member(room_id)
    event_id = alice.send(room_id)
    operations = ("state", "state_ids", "event_auth")
    whole = [peer.get(paths(room_id, event_id)[it]).get_json() for it in operations]
    monkeypatch.setattr(rooms, "PDUS_AT_ONCE", 2)
    monkeypatch.setattr(rooms, "IDS_AT_ONCE", 2)
    pauses: list[None] = []
    monkeypatch.setattr(event_loop, "pause", lambda: pauses.append(None))

    in_pieces = [peer.get(paths(room_id, event_id)[it]).get_json() for it in operations]

    assert in_pieces == whole
    assert len(pauses) >= sum(len(them) // 2 for it in whole for them in it.values()) - 2


def test_the_state_of_a_large_room_counts_as_many_requests(
    make_app: MakeApp, login: Login, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MEMBERS_PER_REQUEST", 1)
    limit = {"rc_federation.per_second": "0.001", "rc_federation.burst_count": "7"}
    room_id = room(alice := login("alice"))
    event_id = alice.send(room_id)
    peer = SigningServer(make_app(federation="true", rate_limits="true", **limit)).introduce()
    peer.member(room_id)
    wanted = paths(room_id, event_id)

    statuses = [peer.get(wanted[it]).status_code for it in ("event", "state", "state_ids", "event")]

    assert statuses == [200, 200, 200, 429]
    assert refusal(peer.get(wanted["state"])) == (429, "M_LIMIT_EXCEEDED")


def test_events_that_are_purged_while_they_are_sent_are_left_out(app: Application) -> None:
    pieces = rooms.encoded(app.homeserver.database, {"a": 1}, {"pdus": [10**6], "auth_chain": []})

    assert orjson.loads(b"".join(pieces)) == {"a": 1, "pdus": [], "auth_chain": []}


@pytest.mark.parametrize("version", ["3", "11", "12"])
def test_state_and_auth_chain_are_enough_to_check_all_of_them(
    peer: SigningServer, alice: Person, room: MakeRoom, version: str
) -> None:
    room_id = room(alice, room_version=version)
    alice.set_state(room_id, "m.room.power_levels", {"users": {}} if version == "12" else {})
    peer.member(room_id)
    alice.set_state(room_id, "m.room.topic", {"topic": "second"})
    event_id = alice.send(room_id)
    rules = VERSIONS[version]

    body = peer.get(paths(room_id, event_id)["state"]).get_json()

    every = {
        it.event_id: it
        for pdu in (*body["pdus"], *body["auth_chain"])
        for it in [Event(signing.event_id_of(pdu, rules), pdu, rules)]
    }
    create = next(it for it in every.values() if it.type == "m.room.create")
    for it in every.values():
        cited = {every[cited_id] for cited_id in it.auth_event_ids}  # none is missing
        if rules.has_privileged_creators and it is not create:
            cited.add(create)
        event_auth.check(it, {(one.type, one.state_key or ""): one for one in cited})


@pytest.mark.parametrize("version", ["11", "12"])
def test_the_auth_chain_of_an_event_goes_back_to_the_create_event(
    peer: SigningServer, alice: Person, room: MakeRoom, version: str
) -> None:
    room_id = room(alice, room_version=version)
    peer.member(room_id)
    event_id = alice.send(room_id)

    chain = peer.get(paths(room_id, event_id)["event_auth"]).get_json()["auth_chain"]

    types = [it["type"] for it in chain]
    assert types.count("m.room.create") == 1
    assert types.count("m.room.power_levels") == 1
    assert "m.room.message" not in types
    assert len(types) == len({signing.event_id_of(it, VERSIONS[version]) for it in chain})


def test_the_create_event_has_no_auth_chain(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice, room_version="12")
    peer.member(room_id)

    response = peer.get(paths(room_id, "$" + room_id[1:])["event_auth"])

    assert response.get_json() == {"auth_chain": []}


def test_the_event_nearest_to_a_time_is_found_in_both_directions(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    peer.member(room_id)
    last = alice.send(room_id)
    path = f"v1/timestamp_to_event/{quote(room_id)}"

    forwards = peer.get(path, ts=0, dir="f").get_json()
    backwards = peer.get(path, ts=2**50, dir="b").get_json()

    created = peer.get(event_path(forwards["event_id"])).get_json()["pdus"][0]
    assert created["type"] == "m.room.create"
    assert forwards["origin_server_ts"] == created["origin_server_ts"]
    assert backwards["event_id"] == last


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ({"dir": "f"}, "M_MISSING_PARAM"),
        ({"ts": 1}, "M_MISSING_PARAM"),
        ({"ts": "x", "dir": "f"}, "M_INVALID_PARAM"),
        ({"ts": 1, "dir": "x"}, "M_INVALID_PARAM"),
    ],
)
def test_a_time_and_a_direction_are_required(
    peer: SigningServer, alice: Person, room: MakeRoom, query: Json, errcode: str
) -> None:
    room_id = room(alice)
    peer.member(room_id)

    response = peer.get(f"v1/timestamp_to_event/{quote(room_id)}", **query)

    assert refusal(response) == (400, errcode)


def test_a_time_without_events_is_not_found(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    peer.member(room_id)

    response = peer.get(f"v1/timestamp_to_event/{quote(room_id)}", ts=2**50, dir="f")

    assert refusal(response) == NOT_FOUND


def test_each_branch_of_a_fork_has_its_own_state(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    peer.member(room_id)
    levels = {"users": {alice.user_id: 100, "@carol:peer.test": 50}}
    base = alice.set_state(room_id, "m.room.power_levels", levels).get_json()["event_id"]

    def branch(topic: str) -> str:
        event_id = peer.put_event(room_id, "m.room.topic", {"topic": topic}, "", prev=[base])
        return peer.put_event(room_id, "m.room.message", {"body": topic}, prev=[event_id])

    ends = {topic: branch(topic) for topic in ("first", "second", "third")}

    for topic, event_id in ends.items():
        body = peer.get(paths(room_id, event_id)["state"]).get_json()
        found = [it["content"] for it in body["pdus"] if it["type"] == "m.room.topic"]
        assert found == [{"topic": topic}]


def test_the_history_visibility_of_the_branch_counts(
    peer: SigningServer, alice: Person, room: MakeRoom, app: Application
) -> None:
    room_id = room(alice)
    peer.member(room_id)
    levels = {"users": {alice.user_id: 100, "@carol:peer.test": 100}}
    base = alice.set_state(room_id, "m.room.power_levels", levels).get_json()["event_id"]

    def branch(setting: str) -> str:
        content, event_type = {"history_visibility": setting}, "m.room.history_visibility"
        event_id = peer.put_event(room_id, event_type, content, "", prev=[base])
        return peer.put_event(room_id, "m.room.message", {"body": setting}, prev=[event_id])

    ends = {setting: branch(setting) for setting in ("joined", "shared")}
    late = SigningServer(app, "late.test", b"l" * 32).introduce()
    late.member(room_id)

    assert content_of(late, ends["joined"]) == {}
    assert content_of(late, ends["shared"]) == {"body": "shared"}
    assert content_of(peer, ends["joined"]) == {"body": "joined"}


def set_standing(app: Application, event_id: str, standing: str) -> None:
    """Take an event out of the timeline, as if it had come from another server."""
    with app.homeserver.database.write() as tx:
        change = update(StoredEvent).where(StoredEvent.event_id == event_id)
        tx.sql.execute(change.values(standing=standing, position=None))


@pytest.mark.parametrize("standing", ["soft_failed", "outlier"])
def test_events_outside_of_the_timeline_are_returned_but_not_their_state(
    app: Application,
    peer: SigningServer,
    alice: Person,
    room: MakeRoom,
    standing: str,
) -> None:
    room_id = room(alice)
    peer.member(room_id)
    message = alice.send(room_id)
    topic = alice.set_state(room_id, "m.room.topic", {"topic": "x"}).get_json()["event_id"]
    for event_id in (message, topic):
        set_standing(app, event_id, standing)

    assert content_of(peer, message) == {}
    assert content_of(peer, topic) == {"topic": "x"}
    assert peer.get(paths(room_id, topic)["event_auth"]).status_code == 200
    for operation in ("state", "state_ids"):
        assert refusal(peer.get(paths(room_id, topic)[operation])) == NOT_FOUND
    newest = peer.get(f"v1/timestamp_to_event/{quote(room_id)}", ts=2**50, dir="b").get_json()
    assert newest["event_id"] not in {message, topic}


@pytest.mark.parametrize("operation", [it for it in OPERATIONS if it != "timestamp_to_event"])
def test_rejected_events_are_not_found(
    app: Application, peer: SigningServer, alice: Person, room: MakeRoom, operation: str
) -> None:
    room_id = room(alice)
    peer.member(room_id)
    event_id = alice.send(room_id)
    set_standing(app, event_id, "rejected")

    assert refusal(peer.get(paths(room_id, event_id)[operation])) == NOT_FOUND
