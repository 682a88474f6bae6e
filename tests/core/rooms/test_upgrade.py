"""Upgrading a room: what the new one has, what becomes of the old one, and who may."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from homebody.core.rooms import upgrade
from homebody.models.base import NOW_AND_LATER
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec.room_versions import VERSIONS
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.cost import steps
from tests.helpers.rooms import Json, act, membership, refusal, state_of, unchanged

ALICE, BOB, CAROL, MALLORY = (f"@{name}:localhost" for name in ("alice", "bob", "carol", "mallory"))
LEVELS, TOMBSTONE = ("m.room.power_levels", ""), ("m.room.tombstone", "")
CANONICAL = ("m.room.canonical_alias", "")
CREATE = ("m.room.create", "")
ALIAS = "directory/room/%23kitchen:localhost"

Kept = tuple[str, str, str | None]
"""(type, state_key, membership)"""

COPIED: dict[str, Json] = {
    "m.room.server_acl": {"allow": ["*"], "deny": ["evil.example"]},
    "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2"},
    "m.room.name": {"name": "Kitchen"},
    "m.room.avatar": {"url": "mxc://localhost/kitchen"},
    "m.room.topic": {"topic": "Tea"},
    "m.room.guest_access": {"guest_access": "can_join"},
    "m.room.history_visibility": {"history_visibility": "joined"},
    "m.room.join_rules": {"join_rule": "public"},
}


def ask(person: Person, room_id: str, version: str = "11", **body: Any) -> TestResponse:
    return act(person, room_id, "upgrade", new_version=version, **body)


def upgraded(person: Person, room_id: str, version: str = "11", **body: Any) -> str:
    """The id of the room that replaces another one."""
    answer = ask(person, room_id, version, **body)
    assert answer.status_code == 200, answer.get_json()
    return str(answer.get_json()["replacement_room"])


def set_up(person: Person, room_id: str, states: dict[str, Json], state_key: str = "") -> None:
    for event_type, content in states.items():
        answer = person.set_state(room_id, event_type, content, state_key)
        assert answer.status_code == 200, answer.get_json()


@pytest.mark.parametrize(("old", "new"), [("1", "11"), ("10", "11"), ("11", "12"), ("12", "12")])
def test_the_state_that_the_spec_names_is_in_the_new_room(login: Login, old: str, new: str) -> None:
    alice = login("alice")
    room_id = alice.create_room(room_version=old)
    set_up(alice, room_id, {**COPIED, "org.example.colour": {"colour": "blue"}})

    state = state_of(alice, upgraded(alice, room_id, new))

    assert {kind: state[kind, ""] for kind in COPIED} == COPIED
    assert ("org.example.colour", "") not in state
    assert state[CREATE]["room_version"] == new


@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_a_room_can_become_one_of_each_version(login: Login, version: str) -> None:
    alice = login("alice")
    room_id = alice.create_room(name="Kitchen")

    new_id = upgraded(alice, room_id, version)

    state = state_of(alice, new_id)
    assert state[CREATE]["room_version"] == version
    assert state["m.room.name", ""] == {"name": "Kitchen"}
    assert alice.send(new_id)


def test_old_and_new_room_name_each_other(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    new_id = upgraded(alice, room_id)

    found = alice.get(f"rooms/{quote(room_id)}/state/m.room.tombstone/?format=event").get_json()
    assert found["content"]["replacement_room"] == new_id
    assert isinstance(found["content"]["body"], str)
    predecessor = {"room_id": room_id, "event_id": found["event_id"]}
    assert state_of(alice, new_id)[CREATE]["predecessor"] == predecessor


def test_a_room_of_version_12_names_the_old_room_and_no_event(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    new_id = upgraded(alice, room_id, "12")

    create = state_of(alice, new_id)[CREATE]
    assert create["predecessor"] == {"room_id": room_id}
    assert state_of(alice, room_id)[TOMBSTONE]["replacement_room"] == new_id


@pytest.mark.parametrize("content", [{"type": "m.space"}, {"m.federate": False}, {}])
def test_type_and_federation_of_a_room_stay_what_they_were(login: Login, content: Json) -> None:
    alice = login("alice")
    room_id = alice.create_room(creation_content={**content, "org.example.x": 1})

    create = state_of(alice, upgraded(alice, room_id))[CREATE]

    assert set(create) == {"room_version", "creator", "predecessor", *content}
    assert content.items() <= create.items()


def test_a_space_keeps_its_rooms_but_not_those_that_were_taken_out(login: Login) -> None:
    alice = login("alice")
    space = alice.create_room(creation_content={"type": "m.space"})
    set_up(alice, space, {"m.space.child": {"via": ["localhost"], "order": "a"}}, "!in:localhost")
    set_up(alice, space, {"m.space.child": {}}, "!out:localhost")

    state = state_of(alice, upgraded(alice, space))

    children = {key: content for (kind, key), content in state.items() if kind == "m.space.child"}
    assert children == {"!in:localhost": {"via": ["localhost"], "order": "a"}}


def test_bans_go_along_and_members_do_not(login: Login, room: Callable[..., str]) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    act(alice, room_id, "ban", user_id=MALLORY, reason="spam")

    new_id = upgraded(alice, room_id)

    assert membership(alice, new_id, MALLORY) == {"membership": "ban", "reason": "spam"}
    assert ("m.room.member", BOB) not in state_of(alice, new_id)
    assert membership(bob, room_id, BOB)["membership"] == "join"


def test_power_levels_are_the_same_in_the_new_room(login: Login) -> None:
    alice = login("alice")
    levels = {"users": {ALICE: 100, BOB: 50}, "invite": 30, "notifications": {"room": 20}}
    room_id = alice.create_room(power_level_content_override=levels)
    before = state_of(alice, room_id)[LEVELS]

    new_id = upgraded(alice, room_id)

    assert state_of(alice, new_id)[LEVELS] == before


def test_power_levels_that_were_texts_become_numbers(login: Login) -> None:
    alice = login("alice")
    levels = {"users": {ALICE: "100", BOB: " 50 "}, "invite": "30", "events": {"m.room.name": "1"}}
    room_id = alice.create_room(room_version="9", power_level_content_override=levels)

    state = state_of(alice, upgraded(alice, room_id))

    new = state[LEVELS]
    assert (new["users"], new["invite"]) == ({ALICE: 100, BOB: 50}, 30)
    assert new["events"] == {"m.room.name": 1}


def test_creators_of_version_12_are_named_in_the_create_event_and_have_no_level(
    login: Login,
) -> None:
    alice = login("alice")
    levels = {"users": {ALICE: 100, BOB: 100, CAROL: 50}, "events": {}}
    room_id = alice.create_room(power_level_content_override=levels)

    state = state_of(alice, upgraded(alice, room_id, "12", additional_creators=[BOB, BOB]))

    assert state[CREATE]["additional_creators"] == [BOB]
    assert state[LEVELS]["users"] == {CAROL: 50}
    assert state[LEVELS]["events"]["m.room.tombstone"] == 150


def test_former_creators_stay_powerful_where_a_client_names_no_creators(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    content = {"additional_creators": [BOB, CAROL]}
    room_id = alice.create_room(room_version="12", creation_content=content, preset="public_chat")
    bob.post(f"join/{quote(room_id)}")

    state = state_of(bob, upgraded(bob, room_id, "12"))

    assert "additional_creators" not in state[CREATE]
    assert state[LEVELS]["users"] == {ALICE: 100, CAROL: 100}


@pytest.mark.parametrize("named", [[CAROL], []])
def test_former_creators_who_are_left_out_where_creators_are_named_have_no_level(
    login: Login, named: list[str]
) -> None:
    alice, bob = login("alice"), login("bob")
    levels = {"users": {BOB: 150, CAROL: 50}}
    room_id = alice.create_room(
        room_version="12", power_level_content_override=levels, preset="public_chat"
    )
    bob.post(f"join/{quote(room_id)}")

    state = state_of(bob, upgraded(bob, room_id, "12", additional_creators=named))

    assert state[CREATE].get("additional_creators", []) == named
    assert state[LEVELS]["users"] == ({} if named else {CAROL: 50})


def test_creators_of_version_12_get_levels_in_an_older_version(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(room_version="12")

    new_id = upgraded(alice, room_id, "11", additional_creators=[BOB])

    state = state_of(alice, new_id)
    assert state[LEVELS]["users"] == {ALICE: 100}
    assert "additional_creators" not in state[CREATE]


@pytest.mark.parametrize(
    ("users_default", "closed"), [(0, 50), (60, 61)], ids=["usually", "in a room of equals"]
)
def test_in_the_old_room_only_moderators_talk_and_invite(
    login: Login, room: Callable[..., str], users_default: int, closed: int
) -> None:
    alice, bob = login("alice"), login("bob")
    levels = {"users_default": users_default, "invite": 0}
    room_id = room(alice, bob, power_level_content_override=levels)

    upgraded(alice, room_id)

    now = state_of(alice, room_id)[LEVELS]
    assert (now["events_default"], now["invite"]) == (closed, closed)
    assert refusal(act(bob, room_id, "send/m.room.message", body="x")) == (403, "M_FORBIDDEN")
    assert refusal(act(bob, room_id, "invite", user_id=CAROL)) == (403, "M_FORBIDDEN")


def test_who_may_bury_a_room_but_not_change_its_levels_leaves_them(
    login: Login, room: Callable[..., str]
) -> None:
    alice, bob = login("alice"), login("bob")
    levels = {"users": {ALICE: 100, BOB: 50}, "events": {"m.room.tombstone": 50}}
    room_id = room(alice, bob, power_level_content_override={**levels, "state_default": 100})
    before = state_of(bob, room_id)[LEVELS]

    new_id = upgraded(bob, room_id)

    assert state_of(bob, room_id)[LEVELS] == before == state_of(bob, new_id)[LEVELS]


def test_aliases_and_the_canonical_one_move(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(room_alias_name="kitchen", preset="public_chat")
    for name in ("tea", "hidden"):
        alice.put(f"directory/room/%23{name}:localhost", json={"room_id": room_id})
    content = {"alias": "#kitchen:localhost", "alt_aliases": ["#tea:localhost"]}
    set_up(alice, room_id, {"m.room.canonical_alias": content})

    new_id = upgraded(alice, room_id)

    for name in ("kitchen", "tea", "hidden"):
        found = alice.get(f"directory/room/%23{name}:localhost").get_json()
        assert found["room_id"] == new_id
    assert state_of(alice, new_id)[CANONICAL] == content
    assert state_of(alice, room_id)[CANONICAL] == {"alt_aliases": []}
    assert alice.get(f"rooms/{quote(room_id)}/aliases").get_json() == {"aliases": []}


def test_a_place_in_the_directory_goes_to_the_new_room(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(visibility="public")
    private = alice.create_room()

    new_id, new_private = upgraded(alice, room_id), upgraded(alice, private)

    shown = {
        it: alice.get(f"directory/list/room/{quote(it)}").get_json()["visibility"]
        for it in (room_id, new_id, new_private)
    }
    assert shown == {room_id: "private", new_id: "public", new_private: "private"}


@pytest.mark.parametrize(
    ("version", "rule"),
    [("6", "invite"), ("7", "invite"), ("8", "restricted"), ("12", "restricted")],
)
def test_a_join_rule_that_the_version_does_not_know_becomes_invite(
    login: Login, version: str, rule: str
) -> None:
    alice = login("alice")
    allow = [{"type": "m.room_membership", "room_id": "!space:localhost"}]
    room_id = alice.create_room()
    set_up(alice, room_id, {"m.room.join_rules": {"join_rule": "restricted", "allow": allow}})

    rules = state_of(alice, upgraded(alice, room_id, version))["m.room.join_rules", ""]

    assert rules["join_rule"] == rule
    assert rules.get("allow") == (allow if rule == "restricted" else None)


def test_who_may_not_send_a_tombstone_changes_nothing(
    app: Application, login: Login, room: Callable[..., str]
) -> None:
    alice, bob, stranger = login("alice"), login("bob"), login("stranger")
    room_id = room(alice, bob)

    for version in ("11", "12"):
        with unchanged(app):
            answers = [ask(bob, room_id, version), ask(stranger, room_id, version)]
            answers.append(ask(alice, "!none:localhost", version))
        assert [refusal(answer) for answer in answers] == [(403, "M_FORBIDDEN")] * 3


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"new_version": "none such"}, "M_UNSUPPORTED_ROOM_VERSION"),
        ({"new_version": 11}, "M_BAD_JSON"),
        ({}, "M_MISSING_PARAM"),
        ({"new_version": "12", "additional_creators": "@bob:localhost"}, "M_BAD_JSON"),
        ({"new_version": "12", "additional_creators": ["bob"]}, "M_INVALID_PARAM"),
    ],
)
def test_what_makes_no_sense_is_refused(
    app: Application, login: Login, body: Json, errcode: str
) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    with unchanged(app):
        answer = act(alice, room_id, "upgrade", **body)

    assert refusal(answer) == (400, errcode)


def test_creators_are_ignored_where_the_version_has_none(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    new_id = upgraded(alice, room_id, "11", additional_creators=["no user"])

    assert "additional_creators" not in state_of(alice, new_id)[CREATE]


def test_who_follows_finds_tags_direct_chats_and_push_rules_there(
    login: Login, room: Callable[..., str]
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    account = f"user/{BOB}/account_data/m.direct"
    bob.put(f"user/{BOB}/rooms/{room_id}/tags/m.favourite", json={"order": 0.5})
    bob.put(account, json={ALICE: [room_id], CAROL: ["!other:localhost"]})
    bob.put(f"pushrules/global/room/{room_id}", json={"actions": []})
    about = {"kind": "event_match", "key": "room_id", "pattern": room_id}
    mute = {"actions": [], "conditions": [about]}
    bob.put(f"pushrules/global/override/{room_id}", json=mute)
    new_id = upgraded(alice, room_id)

    bob.post(f"join/{quote(new_id)}")

    tags = bob.get(f"user/{BOB}/rooms/{new_id}/tags").get_json()["tags"]
    assert tags == {"m.favourite": {"order": 0.5}}
    assert bob.get(account).get_json() == {
        ALICE: [room_id, new_id],
        CAROL: ["!other:localhost"],
    }
    assert bob.get(f"pushrules/global/room/{new_id}").get_json()["actions"] == []
    muted = bob.get(f"pushrules/global/override/{new_id}").get_json()
    assert muted["conditions"] == [{**about, "pattern": new_id}]


def settle_in(person: Person, room_id: str) -> None:
    """Keep something of each kind about a room."""
    own = f"user/{person.user_id}"
    person.put(f"{own}/rooms/{room_id}/tags/m.favourite", json={"order": 0.5})
    person.put(f"{own}/account_data/m.direct", json={CAROL: [room_id]})
    person.put(f"pushrules/global/room/{room_id}", json={"actions": []})


def kept(person: Person, room_id: str) -> tuple[bool, bool, bool]:
    """Whether the person has a tag, a direct chat and a push rule for a room."""
    own = f"user/{person.user_id}"
    return (
        "m.favourite" in person.get(f"{own}/rooms/{room_id}/tags").get_json()["tags"],
        room_id in person.get(f"{own}/account_data/m.direct").get_json()[CAROL],
        person.get(f"pushrules/global/room/{room_id}").status_code == 200,
    )


def unsettle(person: Person, room_id: str, old_id: str) -> None:
    """Take all of that away again."""
    own = f"user/{person.user_id}"
    person.delete(f"{own}/rooms/{room_id}/tags/m.favourite")
    person.put(f"{own}/account_data/m.direct", json={CAROL: [old_id]})
    person.delete(f"pushrules/global/room/{room_id}")


def replacement(person: Person, room_id: str) -> str:
    """The id of a room that says it replaces another, which does not say so yet."""
    claim = {"predecessor": {"room_id": room_id}}
    return person.create_room(creation_content=claim, preset="public_chat")


def bury(person: Person, room_id: str, new_id: str, body: str = "moved") -> None:
    content = {"body": body, "replacement_room": new_id}
    assert person.set_state(room_id, "m.room.tombstone", content).status_code == 200


NOTHING, ALL = (False, False, False), (True, True, True)


def test_who_is_in_the_new_room_before_the_tombstone_gets_everything_with_it(
    login: Login, room: Callable[..., str]
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob)
    for person in (alice, bob, carol):
        settle_in(person, room_id)
    new_id = replacement(alice, room_id)
    for person in (bob, carol):
        person.post(f"join/{quote(new_id)}")
    assert kept(alice, new_id) == kept(bob, new_id) == NOTHING
    since = bob.sync()["next_batch"]

    bury(alice, room_id, new_id)

    assert kept(alice, new_id) == kept(bob, new_id) == ALL
    assert kept(carol, new_id) == NOTHING  # who never was in the old room
    told = {event["type"] for event in bob.sync(since)["account_data"]["events"]}
    assert told == {"m.push_rules", "m.direct"}


def test_what_somebody_takes_away_in_the_new_room_does_not_come_again(
    login: Login, room: Callable[..., str]
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    settle_in(bob, room_id)
    new_id = upgraded(alice, room_id)
    bob.post(f"join/{quote(new_id)}")
    assert kept(bob, new_id) == ALL
    unsettle(bob, new_id, room_id)

    act(bob, new_id, "leave")
    bob.post(f"join/{quote(new_id)}")

    assert kept(bob, new_id) == NOTHING


def test_a_tombstone_that_is_set_again_brings_nothing_again(
    login: Login, room: Callable[..., str]
) -> None:
    alice = login("alice")
    room_id = room(alice)
    settle_in(alice, room_id)
    new_id = replacement(alice, room_id)
    bury(alice, room_id, new_id)
    unsettle(alice, new_id, room_id)

    bury(alice, room_id, new_id)
    bury(alice, room_id, "!other:localhost")
    bury(alice, room_id, new_id, "moved again")

    assert kept(alice, new_id) == NOTHING


def test_nobody_makes_a_room_costly_to_join_by_many_tombstones(
    app: Application, login: Login, room: Callable[..., str]
) -> None:
    # each may have 64 KiB, and a join looks for the first of them while nobody else can write
    alice, bob = login("alice"), login("bob")

    def joining(tombstones: int) -> int:
        room_id = room(alice, bob)
        new_id = replacement(alice, room_id)
        for number in range(tombstones):
            bury(alice, room_id, new_id, f"moved {number}")
        return steps(app, lambda: bob.post(f"join/{quote(new_id)}"))

    assert joining(150) < joining(30) + 60


def test_who_left_the_new_room_before_the_tombstone_gets_everything_at_the_next_join(
    login: Login, room: Callable[..., str]
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    settle_in(bob, room_id)
    new_id = replacement(alice, room_id)
    bob.post(f"join/{quote(new_id)}")
    act(bob, new_id, "leave")
    bury(alice, room_id, new_id)

    bob.post(f"join/{quote(new_id)}")

    assert kept(bob, new_id) == ALL


def test_a_rule_that_the_new_room_has_already_is_left_alone(
    login: Login, room: Callable[..., str]
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    settle_in(bob, room_id)
    new_id = upgraded(alice, room_id)
    bob.put(f"pushrules/global/room/{new_id}", json={"actions": ["notify"]})

    bob.post(f"join/{quote(new_id)}")

    assert bob.get(f"pushrules/global/room/{new_id}").get_json()["actions"] == ["notify"]


def test_a_room_that_only_claims_to_replace_another_gets_nothing(
    login: Login, room: Callable[..., str]
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    bob.put(f"user/{BOB}/rooms/{room_id}/tags/m.favourite", json={})
    claim = {"predecessor": {"room_id": room_id}}
    new_id = alice.create_room(creation_content=claim, preset="public_chat")

    bob.post(f"join/{quote(new_id)}")

    assert bob.get(f"user/{BOB}/rooms/{new_id}/tags").get_json()["tags"] == {}


def test_the_new_room_comes_by_sync_with_all_it_has(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(name="Kitchen")
    token = alice.sync()["next_batch"]

    new_id = upgraded(alice, room_id)

    told = alice.sync(token)["rooms"]["join"]
    assert told[room_id]["timeline"]["events"][0]["type"] == "m.room.tombstone"
    shown = told[new_id]["state"]["events"] + told[new_id]["timeline"]["events"]
    assert {"m.room.create", "m.room.name", "m.room.power_levels"} <= {it["type"] for it in shown}


@pytest.fixture
def commits(app: Application, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, set[Kept]]]:
    """{room_id: its state} after each COMMIT: what a crash at that moment would leave."""
    seen: list[dict[str, set[Kept]]] = []

    def look(_writes: int, _seconds: float) -> None:
        found: dict[str, set[Kept]] = {}
        with app.homeserver.database.read() as tx:
            current = (
                select(Room.room_id, StateInterval)
                .join(StateInterval, StateInterval.room_number == Room.number)
                .where(StateInterval.to_position == NOW_AND_LATER)
            )
            for row in tx.sql.execute(current):
                found.setdefault(row.room_id, set()).add((row.type, row.state_key, row.membership))
        seen.append(found)

    monkeypatch.setattr(upgrade, "AT_ONCE", 4)
    app.homeserver.database.writer.committed = look
    return seen


def crowded(person: Person, **options: Any) -> tuple[str, set[str]]:
    """A room with an alias that lets everybody in but these eleven."""
    room_id = person.create_room(
        preset="public_chat", room_alias_name="kitchen", name="Kitchen", **options
    )
    banned = {f"@spam{number}:localhost" for number in range(11)}
    for user_id in banned:
        assert act(person, room_id, "ban", user_id=user_id).status_code == 200
    return room_id, banned


@pytest.mark.parametrize("version", ["11", "12"])
def test_a_room_with_many_bans_is_filled_in_small_writes_and_opened_by_the_last(
    commits: list[dict[str, set[Kept]]], login: Login, version: str
) -> None:
    alice = login("alice")
    room_id, banned = crowded(alice)
    commits.clear()

    new_id = upgraded(alice, room_id, version)

    states = [set(), *(found[new_id] for found in commits)]
    sizes = [len(after - before) for before, after in pairwise(states)]
    # name and history visibility are copied as well. The first write makes the room
    # with its creator, the last has join rules, alias and levels
    assert sizes == [2 + 4, 4, 4, 1 + 3]
    opening = {("m.room.join_rules", "", None), ("m.room.canonical_alias", "", None)}
    for found in commits[:-1]:
        assert (*TOMBSTONE, None) not in found[room_id]
        assert not opening & found[new_id]
    assert opening < states[-1]
    assert {("m.room.member", user_id, "ban") for user_id in banned} < states[-1]
    assert state_of(alice, room_id)[TOMBSTONE]["replacement_room"] == new_id
    assert alice.get(ALIAS).get_json()["room_id"] == new_id
    predecessor = state_of(alice, new_id)[CREATE]["predecessor"]
    assert predecessor["room_id"] == room_id
    if version == "11":
        last = alice.get(f"rooms/{quote(room_id)}/event/{predecessor['event_id']}").get_json()
        assert last["content"] == {"membership": "ban"}


def test_who_upgrades_a_room_with_many_bans_finds_their_own_settings_in_the_new_one(
    commits: list[dict[str, set[Kept]]], login: Login
) -> None:
    alice = login("alice")
    room_id, _ = crowded(alice)
    alice.put(f"user/{ALICE}/rooms/{room_id}/tags/m.favourite", json={})

    new_id = upgraded(alice, room_id)

    assert len([found for found in commits if new_id in found]) > 1
    tags = alice.get(f"user/{ALICE}/rooms/{new_id}/tags").get_json()["tags"]
    assert tags == {"m.favourite": {}}


def test_what_the_last_of_several_writes_refuses_leaves_the_old_room_as_it_was(
    app: Application, commits: list[dict[str, set[Kept]]], login: Login
) -> None:
    alice = login("alice")
    odd = {"notifications": "none"}  # which new versions don't take
    room_id, _ = crowded(alice, room_version="5", power_level_content_override=odd)
    before = state_of(alice, room_id)
    commits.clear()

    answer = ask(alice, room_id)

    assert refusal(answer) == (400, "M_BAD_JSON")
    assert len(commits) > 3
    assert state_of(alice, room_id) == before
    assert alice.get(ALIAS).get_json()["room_id"] == room_id
    assert alice.get("joined_rooms").get_json() == {"joined_rooms": [room_id]}


def test_what_a_crash_interrupts_can_be_asked_for_again(
    app: Application,
    make_app: MakeApp,
    login: Login,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alice = login("alice")
    room_id, banned = crowded(alice)
    disks: list[Path] = []

    def copy(_writes: int, _seconds: float) -> None:
        disks.append(tmp_path_factory.mktemp("disk") / "data")
        shutil.copytree(tmp_path, disks[-1])

    monkeypatch.setattr(upgrade, "AT_ONCE", 4)
    app.homeserver.database.writer.committed = copy
    upgraded(alice, room_id)

    for disk in disks[:-1]:
        alice.client = make_app(data_dir=str(disk)).test_client()
        assert TOMBSTONE not in state_of(alice, room_id)
        left = set(alice.get("joined_rooms").get_json()["joined_rooms"]) - {room_id}
        new_id = upgraded(alice, room_id)
        assert {membership(alice, new_id, user_id)["membership"] for user_id in banned} == {"ban"}
        assert alice.get(ALIAS).get_json()["room_id"] == new_id
        assert [act(alice, it, "leave").status_code for it in left] == [200]
    assert len(disks) == 4
