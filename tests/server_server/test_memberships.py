from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.federation import membership_events
from homebody.core.timeline import sending as timeline
from homebody.core.timeline.sending import Draft
from homebody.spec import canonical_json, signing
from homebody.spec.events import Event
from homebody.spec.room_versions import VERSIONS
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers import remote_checks, remote_room
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.rooms import membership, state_of, unchanged

Json = dict[str, Any]
ALL = [("ver", str(number)) for number in range(1, 13)]


@pytest.fixture
def b(remote: Remotes) -> Remote:
    """The server of the users who join."""
    return remote("b.test")


@pytest.fixture
def sending(app: Application) -> Iterator[None]:
    """Have the server send its events."""
    app.homeserver.sender.start()
    yield
    app.homeserver.sender.stop()


def template(b: Remote, kind: str, room_id: str, user: str = "carol", **query: Any) -> Any:
    return b.get("v1", f"make_{kind}", room_id, b.user_id(user), query=query.get("query", ALL))


def signed(b: Remote, answer: Json, room_id: str, **changes: Any) -> Event:
    """Return the event of a template, with some keys changed, signed by the remote."""
    room = RemoteRoom(b, answer["room_version"], "@nobody:b.test", room_id)
    pdu = {**answer["event"], **changes}
    if room.version.event_ids == "given":
        pdu["event_id"] = f"$join:{b.name}"
    return room.sign(pdu, add=False)


def set_join_rule(alice: Person, room_id: str, **content: Any) -> None:
    path = f"rooms/{quote(room_id)}/state/m.room.join_rules"
    assert alice.put(path, json=content).status_code == 200


def restrict(alice: Person, room_id: str, *allowed: str, rule: str = "restricted") -> None:
    conditions = [{"type": "m.room_membership", "room_id": it} for it in allowed]
    set_join_rule(alice, room_id, join_rule=rule, allow=conditions)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_remote_user_joins_a_room_of_each_version_and_both_sides_talk(
    b: Remote, login: Login, room: Callable[..., str], version: str
) -> None:
    alice = login("alice")
    room_id = room(alice, room_version=version)

    joined = b.join(room_id, "carol")
    results = b.send(joined.message("hello from b", sender="carol"))

    assert list(results.values()) == [{}]
    assert membership(alice, room_id, "@carol:b.test")["membership"] == "join"
    timeline = alice.sync()["rooms"]["join"][room_id]["timeline"]["events"]
    assert timeline[-1]["content"]["body"] == "hello from b"
    assert joined.membership("@alice:localhost") == "join"
    assert joined.servers() == {"localhost", "b.test"}


def test_the_response_has_the_state_before_the_join_and_its_auth_chain(
    b: Remote, login: Login, room: Callable[..., str]
) -> None:
    alice = login("alice")
    room_id = room(alice, login("bob"), name="A room", room_version="11")
    before = state_of(alice, room_id)
    event = signed(b, template(b, "join", room_id).json, room_id)

    answer = b.put("v2", "send_join", room_id, event.event_id, json=event.pdu).json

    found = {(it["type"], it["state_key"]): it["content"] for it in answer["state"]}
    assert found == before
    version = VERSIONS["11"]
    ids = {signing.event_id_of(it, version) for it in (*answer["state"], *answer["auth_chain"])}
    cited = {one for it in answer["state"] for one in it["auth_events"]}
    assert cited <= ids
    assert set(event.auth_event_ids) <= {
        signing.event_id_of(it, version) for it in answer["auth_chain"]
    }
    assert answer["members_omitted"] is False
    assert answer["event"] == event.pdu


def test_a_server_that_takes_a_state_without_members_gets_heroes_and_servers(
    b: Remote, login: Login, room: Callable[..., str]
) -> None:
    room_id = room(login("alice"), login("bob"))
    event = signed(b, template(b, "join", room_id).json, room_id)

    path = ("v2", "send_join", room_id, event.event_id)
    answer = b.put(*path, json=event.pdu, query={"omit_members": "true"}).json

    assert answer["members_omitted"] is True
    assert answer["servers_in_room"] == ["localhost"]
    members = [it["state_key"] for it in answer["state"] if it["type"] == "m.room.member"]
    assert members == ["@alice:localhost", "@bob:localhost"]  # the room has no name
    state = [canonical_json.encode(it) for it in answer["state"]]
    assert not any(canonical_json.encode(it) in state for it in answer["auth_chain"])


def test_members_are_left_out_of_the_state_of_a_room_with_a_name(
    b: Remote, login: Login, room: Callable[..., str]
) -> None:
    room_id = room(login("alice"), name="A room")
    event = signed(b, template(b, "join", room_id).json, room_id)

    path = ("v2", "send_join", room_id, event.event_id)
    answer = b.put(*path, json=event.pdu, query={"omit_members": "true"}).json

    assert "m.room.member" not in {it["type"] for it in answer["state"]}
    chain = {it.get("state_key") for it in answer["auth_chain"] if it["type"] == "m.room.member"}
    assert chain == {"@alice:localhost"}


def test_a_join_by_which_the_state_takes_long_to_resolve_is_refused(
    b: Remote, login: Login, room: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership_events, "SECONDS_TO_RESOLVE", -1.0)
    alice = login("alice")
    room_id = room(alice, room_version="11")
    old = template(b, "join", room_id, "dave").json
    alice.set_state(room_id, "m.room.topic", {"topic": "tea"})
    late, event = (
        signed(b, it, room_id) for it in (old, template(b, "join", room_id, "erin").json)
    )

    refused, joined = (
        b.put("v2", "send_join", room_id, it.event_id, json=it.pdu) for it in (late, event)
    )

    assert (refused.status, refused.json["errcode"]) == (429, "M_LIMIT_EXCEEDED")
    assert joined.status == 200
    assert ("m.room.member", "@dave:b.test") not in state_of(alice, room_id)


def test_the_first_version_of_send_join_responds_with_a_list(
    b: Remote, login: Login, room: Callable[..., str]
) -> None:
    room_id = room(login("alice"))
    event = signed(b, template(b, "join", room_id).json, room_id)

    answer = b.put("v1", "send_join", room_id, event.event_id, json=event.pdu).json

    assert answer[0] == 200
    assert {it["type"] for it in answer[1]["state"]} >= {"m.room.create", "m.room.member"}


def test_a_repeated_join_is_stored_once_and_gets_the_same_state(
    b: Remote, app: Application, login: Login, room: Callable[..., str]
) -> None:
    alice = login("alice")
    room_id = room(alice)
    event = signed(b, template(b, "join", room_id).json, room_id)
    path = ("v2", "send_join", room_id, event.event_id)
    first = b.put(*path, json=event.pdu).json
    alice.send(room_id, "meanwhile")

    with unchanged(app):
        second = b.put(*path, json=event.pdu).json

    assert second == first


def test_a_join_is_sent_to_the_other_servers_in_the_room(
    b: Remote, remote: Remotes, sending: None, login: Login, room: Callable[..., str]
) -> None:
    c = remote("c.test")
    room_id = room(login("alice"))
    there = c.join(room_id, "dave")

    b.join(room_id, "carol")

    c.wait_until(lambda: there.membership("@carol:b.test") == "join")
    assert not b.pdus  # which has sent it


def test_a_leave_by_the_last_user_of_a_server_removes_it_from_the_room(
    b: Remote, login: Login, room: Callable[..., str]
) -> None:
    alice = login("alice")
    room_id = room(alice)
    b.join(room_id, "carol")

    b.leave(room_id, "carol")

    assert membership(alice, room_id, "@carol:b.test") == {"membership": "leave"}
    assert b.get("v1", "state_ids", room_id, query={"event_id": "$x"}).status == 403


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_an_invite_is_rejected_from_outside_of_the_room(
    b: Remote, app: Application, login: Login, room: Callable[..., str], version: str
) -> None:
    alice = login("alice")
    room_id = room(alice)
    invite(app, room_id)
    event = signed(b, template(b, "leave", room_id).json, room_id)

    answer = b.put(version, "send_leave", room_id, event.event_id, json=event.pdu)

    assert (answer.status, answer.json) == (200, {} if version == "v2" else [200, {}])
    assert membership(alice, room_id, "@carol:b.test") == {"membership": "leave"}


def invite(app: Application, room_id: str) -> None:
    """Invite Carol without asking her server."""
    with app.homeserver.database.write() as tx:
        content = {"membership": "invite"}
        timeline.send(
            tx, Draft(room_id, "@alice:localhost", "m.room.member", content, "@carol:b.test")
        )


def test_a_knock_is_shown_and_its_server_learns_what_the_room_is(
    b: Remote, login: Login, room: Callable[..., str]
) -> None:
    alice = login("alice")
    room_id = room(alice, name="A room", room_version="11")
    set_join_rule(alice, room_id, join_rule="knock")

    state = b.knock(room_id, "carol")

    assert membership(alice, room_id, "@carol:b.test") == {"membership": "knock"}
    assert state[0]["type"] == "m.room.create"
    assert {"m.room.name", "m.room.join_rules"} <= {it["type"] for it in state}
    for pdu in state:
        remote_checks.check_event(b.peer(), pdu, VERSIONS["11"])


def test_templates_are_refused_for_servers_that_do_not_support_the_room_version(
    b: Remote, login: Login, room: Callable[..., str]
) -> None:
    room_id = room(login("alice"), room_version="11")

    for kind in ("join", "knock"):
        answer = template(b, kind, room_id, query=[("ver", "9"), ("ver", "10")])

        assert answer.refusal == (400, "M_INCOMPATIBLE_ROOM_VERSION")
        assert answer.json["room_version"] == "11"
    assert template(b, "join", room_id, query=[]).refusal == (400, "M_INCOMPATIBLE_ROOM_VERSION")


def test_templates_are_refused_for_other_users_than_those_of_the_server(
    b: Remote, login: Login, room: Callable[..., str]
) -> None:
    room_id = room(login("alice"))

    for user in ("@carol:c.test", "@alice:localhost", "@carol"):
        assert template(b, "join", room_id, user).refusal == (403, "M_FORBIDDEN")


def test_templates_are_refused_where_the_rules_do_not_allow_the_event(
    b: Remote, login: Login, room: Callable[..., str]
) -> None:
    room_id = room(login("alice"), preset="private_chat")

    for kind in ("join", "knock", "leave"):
        assert template(b, kind, room_id).refusal == (403, "M_FORBIDDEN")


def test_unknown_rooms_and_rooms_that_this_server_has_left_are_not_found(
    b: Remote, login: Login, room: Callable[..., str]
) -> None:
    alice = login("alice")
    room_id = room(alice)
    event = signed(b, template(b, "join", room_id).json, room_id)
    alice.post(f"rooms/{quote(room_id)}/leave")

    for there in (room_id, "!unknown:localhost"):
        assert template(b, "join", there).refusal == (404, "M_NOT_FOUND")
    answer = b.put("v2", "send_join", room_id, event.event_id, json=event.pdu)
    assert answer.refusal == (404, "M_NOT_FOUND")


def test_servers_that_the_acl_denies_and_rooms_without_federation_are_closed(
    b: Remote, login: Login, room: Callable[..., str]
) -> None:
    alice = login("alice")
    with_acl = room(alice)
    event = signed(b, template(b, "join", with_acl).json, with_acl)
    acl = {"allow": ["*"], "deny": ["b.test"]}
    alice.put(f"rooms/{quote(with_acl)}/state/m.room.server_acl", json=acl)
    local_only = room(alice, creation_content={"m.federate": False})

    assert template(b, "join", with_acl).refusal == (403, "M_FORBIDDEN")
    assert template(b, "join", local_only).refusal == (403, "M_FORBIDDEN")
    answer = b.put("v2", "send_join", with_acl, event.event_id, json=event.pdu)
    assert answer.refusal == (403, "M_FORBIDDEN")


CHANGES: dict[str, Json] = {
    "another type": {"type": "m.room.message"},
    "another user": {"state_key": "@dave:b.test"},
    "another server's user": {"sender": "@carol:c.test", "state_key": "@carol:c.test"},
    "no member event": {"state_key": ""},
    "another membership": {"content": {"membership": "leave"}},
    "another room": {"room_id": "!other:localhost"},
    "no content": {"content": []},
    "too deep": {"depth": 2**53},
    "a float": {"content": {"membership": "join", "x": 0.5}},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_other_events_than_the_join_are_refused_and_change_nothing(
    b: Remote, app: Application, login: Login, room: Callable[..., str], changes: Json
) -> None:
    room_id = room(login("alice"))
    answer = template(b, "join", room_id).json
    event = signed(b, answer, room_id)
    pdu = {**event.pdu, **changes}
    with contextlib.suppress(ValueError, TypeError, AttributeError):  # what can't be signed
        pdu = signed(b, answer, room_id, **changes).pdu

    with unchanged(app):
        refused = b.put("v2", "send_join", room_id, event.event_id, json=pdu)

    assert refused.refusal == (400, "M_INVALID_PARAM")


def test_a_join_with_a_wrong_signature_hash_or_id_is_refused(
    b: Remote, app: Application, login: Login, room: Callable[..., str]
) -> None:
    room_id = room(login("alice"))
    event = signed(b, template(b, "join", room_id).json, room_id)
    wrong = [
        (event.event_id, remote_room.with_wrong_signature(event, "b.test")),
        (event.event_id, remote_room.without_signatures(event)),
        (event.event_id, remote_room.with_wrong_hash(event, displayname="Mallory")),
        ("$" + "A" * 43, event.pdu),
    ]

    with unchanged(app):
        answers = [b.put("v2", "send_join", room_id, it, json=pdu) for it, pdu in wrong]

    assert [it.refusal for it in answers] == [(400, "M_INVALID_PARAM")] * 4


def test_a_join_after_a_ban_is_refused_though_the_template_was_made_before(
    b: Remote, app: Application, login: Login, room: Callable[..., str]
) -> None:
    alice = login("alice")
    room_id = room(alice)
    event = signed(b, template(b, "join", room_id).json, room_id)
    alice.post(f"rooms/{quote(room_id)}/ban", json={"user_id": "@carol:b.test"})

    with unchanged(app):
        answer = b.put("v2", "send_join", room_id, event.event_id, json=event.pdu)

    assert answer.refusal == (403, "M_FORBIDDEN")


def test_a_join_that_follows_unknown_events_is_refused(
    b: Remote, app: Application, login: Login, room: Callable[..., str]
) -> None:
    room_id = room(login("alice"))
    unknown = ["$" + "A" * 43]
    event = signed(b, template(b, "join", room_id).json, room_id, prev_events=unknown)

    with unchanged(app):
        answer = b.put("v2", "send_join", room_id, event.event_id, json=event.pdu)

    assert answer.refusal == (400, "M_UNKNOWN")


@pytest.mark.parametrize("rule", ["restricted", "knock_restricted"])
def test_members_of_an_allowed_room_join_a_restricted_room_with_our_signature(
    b: Remote, login: Login, room: Callable[..., str], rule: str
) -> None:
    alice = login("alice")
    allowed, restricted = room(alice), room(alice)
    restrict(alice, restricted, allowed, rule=rule)
    b.join(allowed, "carol")

    joined = b.join(restricted, "carol")

    content = membership(alice, restricted, "@carol:b.test")
    assert content["join_authorised_via_users_server"] == "@alice:localhost"
    own = joined.state["m.room.member", "@carol:b.test"]
    assert own.pdu["signatures"].keys() == {"b.test", "localhost"}
    remote_checks.check_event(b.peer(), own.pdu, joined.version)


def test_others_do_not_join_a_restricted_room(
    b: Remote, app: Application, login: Login, room: Callable[..., str]
) -> None:
    alice = login("alice")
    allowed, restricted = room(alice), room(alice)
    b.join(allowed, "carol")
    event = signed(b, template(b, "join", restricted).json, restricted)
    authorised = {"membership": "join", "join_authorised_via_users_server": "@alice:localhost"}
    restrict(alice, restricted, allowed)
    answer = template(b, "join", restricted).json
    b.leave(allowed, "carol")
    late = signed(b, answer, restricted)

    assert template(b, "join", restricted).refusal == (403, "M_FORBIDDEN")
    assert late.content == authorised
    with unchanged(app):
        for it in (event, late):
            answer = b.put("v2", "send_join", restricted, it.event_id, json=it.pdu)
            assert answer.refusal == (403, "M_FORBIDDEN")


def test_a_server_that_does_not_know_the_allowed_room_says_so(
    b: Remote, login: Login, room: Callable[..., str]
) -> None:
    alice = login("alice")
    room_id = room(alice)
    restrict(alice, room_id, "!elsewhere:c.test")

    assert template(b, "join", room_id).refusal == (400, "M_UNABLE_TO_AUTHORISE_JOIN")


def test_a_server_whose_users_may_not_invite_leaves_the_join_to_another(
    b: Remote, remote: Remotes, login: Login, room: Callable[..., str]
) -> None:
    alice, c = login("alice"), remote("c.test")
    allowed, restricted = room(alice), room(alice, room_version="11")
    b.join(allowed, "carol")
    c.join(restricted, "dave")
    path = f"rooms/{quote(restricted)}/state/m.room.power_levels"
    users = {"@alice:localhost": 50, "@dave:c.test": 100}
    levels = {**alice.get(path).get_json(), "users": users, "invite": 100}
    restrict(alice, restricted, allowed)
    assert alice.put(path, json=levels).status_code == 200

    assert template(b, "join", restricted).refusal == (400, "M_UNABLE_TO_GRANT_JOIN")
