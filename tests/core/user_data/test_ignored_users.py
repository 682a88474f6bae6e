"""What ignored users say is left out wherever events are sent; what they do to rooms is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import Login, Person
from tests.helpers import sliding
from tests.helpers.rooms import Json, refusal, state_of

Room = Callable[..., str]

V1 = "/_matrix/client/v1/rooms"


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def mallory(login: Login) -> Person:
    return login("mallory")


def ignore(person: Person, *user_ids: str) -> None:
    path = f"user/{person.user_id}/account_data/m.ignored_user_list"
    answer = person.put(path, json={"ignored_users": {user_id: {} for user_id in user_ids}})
    assert answer.status_code == 200


def keep(person: Person, event_type: str, content: Json, room_id: str | None = None) -> None:
    where = "" if room_id is None else f"rooms/{room_id}/"
    path = f"user/{person.user_id}/{where}account_data/{event_type}"
    assert person.put(path, json=content).status_code == 200


def timeline(sync: Json, room_id: str) -> list[str]:
    room = sync["rooms"]["join"].get(room_id, {"timeline": {"events": []}})
    return [event["event_id"] for event in room["timeline"]["events"]]


def test_sync_leaves_out_their_messages_and_keeps_their_state(
    alice: Person, mallory: Person, room: Room
) -> None:
    room_id = room(alice, mallory)
    levels = state_of(alice, room_id)["m.room.power_levels", ""]
    alice.set_state(
        room_id,
        "m.room.power_levels",
        {**levels, "users": {alice.user_id: 100, mallory.user_id: 50}},
    )
    ignore(alice, mallory.user_id)
    token = alice.sync()["next_batch"]
    said = mallory.send(room_id)
    done = mallory.set_state(room_id, "m.room.topic", {"topic": "x"}).get_json()["event_id"]
    mine = alice.send(room_id)

    assert timeline(alice.sync(token), room_id) == [done, mine]
    assert said not in timeline(alice.sync(), room_id)
    assert said in timeline(mallory.sync(), room_id)


def test_their_messages_alone_are_no_news(alice: Person, mallory: Person, room: Room) -> None:
    room_id = room(alice, mallory)
    ignore(alice, mallory.user_id)
    token = alice.sync()["next_batch"]

    mallory.send(room_id)

    assert alice.sync(token)["rooms"]["join"] == {}


def test_ignoring_and_its_end_take_effect_at_once(
    alice: Person, mallory: Person, room: Room
) -> None:
    room_id = room(alice, mallory)
    token = alice.sync()["next_batch"]
    said = mallory.send(room_id)
    assert timeline(alice.sync(token), room_id) == [said]

    ignore(alice, mallory.user_id)
    then = alice.sync(token)
    ignore(alice)

    assert timeline(then, room_id) == []
    assert timeline(alice.sync(token), room_id) == [said]


def test_nobody_can_ignore_themselves(alice: Person, room: Room) -> None:
    room_id = room(alice)
    ignore(alice, alice.user_id)

    said = alice.send(room_id)

    assert said in timeline(alice.sync(), room_id)


def test_pages_context_and_relations_leave_their_messages_out(
    alice: Person, mallory: Person, room: Room
) -> None:
    room_id = room(alice, mallory)
    mine = alice.send(room_id)
    relation = {"rel_type": "m.thread", "event_id": mine}
    said = mallory.send(room_id, "reply", **{"m.relates_to": relation})
    ignore(alice, mallory.user_id)

    page = alice.get(f"rooms/{room_id}/messages?dir=b&limit=20").get_json()
    context = alice.get(f"rooms/{room_id}/context/{mine}").get_json()
    related = alice.get(f"{V1}/{room_id}/relations/{mine}").get_json()

    assert said not in [event["event_id"] for event in page["chunk"]]
    assert context["events_after"] == []
    assert related["chunk"] == []
    assert refusal(alice.get(f"rooms/{room_id}/event/{said}")) == (404, "M_NOT_FOUND")
    assert mallory.get(f"rooms/{room_id}/event/{said}").status_code == 200


def test_what_others_reply_to_them_can_be_read(
    alice: Person, mallory: Person, room: Room, login: Login
) -> None:
    bob = login("bob")
    room_id = room(alice, mallory, bob)
    root = mallory.send(room_id)
    relation = {"rel_type": "m.thread", "event_id": root}
    answer = bob.send(room_id, "reply", **{"m.relates_to": relation})
    ignore(alice, mallory.user_id)

    found = alice.get(f"{V1}/{room_id}/relations/{root}").get_json()["chunk"]

    assert [event["event_id"] for event in found] == [answer]


@pytest.mark.parametrize("is_known", [True, False])
def test_their_invites_are_not_shown(
    alice: Person, mallory: Person, login: Login, *, is_known: bool
) -> None:
    bob = login("bob")
    ignore(alice, mallory.user_id)
    token = alice.sync()["next_batch"]
    unwanted = mallory.create_room(invite=[alice.user_id])
    wanted = bob.create_room(invite=[alice.user_id])

    sync = alice.sync(token if is_known else None)

    assert list(sync["rooms"]["invite"]) == [wanted]
    assert unwanted not in str(alice.get("initialSync").get_json())


def test_who_wants_no_invites_is_shown_none_until_they_want_them_again(
    alice: Person, login: Login
) -> None:
    bob = login("bob")
    room_id = bob.create_room(invite=[alice.user_id])
    assert list(alice.sync()["rooms"]["invite"]) == [room_id]

    keep(alice, "m.invite_permission_config", {"default_action": "block"})
    then = alice.sync()["rooms"]["invite"]
    keep(alice, "m.invite_permission_config", {})

    assert then == {}
    assert list(alice.sync()["rooms"]["invite"]) == [room_id]


FILTER = "org.matrix.msc4155.invite_permission_config"


@pytest.mark.parametrize("lists", [{"ignored_users": ["@mal*:*"]}, {"ignored_servers": ["local*"]}])
def test_an_ignored_invite_is_sent_and_not_shown(
    alice: Person, mallory: Person, lists: Json
) -> None:
    keep(alice, FILTER, lists)
    token, position = alice.sync()["next_batch"], sliding.ask(alice)["pos"]

    room_id = mallory.create_room(invite=[alice.user_id])

    assert state_of(mallory, room_id)["m.room.member", alice.user_id]["membership"] == "invite"
    assert "invite" not in alice.sync()["rooms"]
    assert "invite" not in alice.sync(token)["rooms"]
    assert sliding.ask(alice, position)["rooms"] == {}
    assert alice.get("notifications").get_json()["notifications"] == []
    assert room_id not in str(alice.get("initialSync").get_json())


def test_invites_from_before_the_filter_are_hidden_until_it_is_relaxed(
    alice: Person, mallory: Person
) -> None:
    room_id = mallory.create_room(invite=[alice.user_id])
    before = sliding.ask(alice)

    keep(alice, FILTER, {"blocked_servers": ["*"]})
    hidden = alice.sync()["rooms"].get("invite", {})
    without = sliding.ask(alice, before["pos"])
    keep(alice, FILTER, {"blocked_servers": ["*"], "allowed_users": [mallory.user_id]})

    assert hidden == {}
    assert without["lists"]["all"]["count"] == 0
    assert list(alice.sync()["rooms"]["invite"]) == [room_id]
    assert list(sliding.ask(alice, without["pos"])["rooms"]) == [room_id]


def test_whoever_is_ignored_altogether_is_not_sent_an_error(alice: Person, mallory: Person) -> None:
    ignore(alice, mallory.user_id)
    keep(alice, FILTER, {"blocked_users": [mallory.user_id]})

    room_id = mallory.create_room(invite=[alice.user_id])

    assert room_id not in alice.sync()["rooms"].get("invite", {})


def test_a_room_can_be_marked_as_unread(alice: Person, room: Room) -> None:
    room_id = room(alice)
    token = alice.sync()["next_batch"]

    keep(alice, "m.marked_unread", {"unread": True}, room_id)

    events = alice.sync(token)["rooms"]["join"][room_id]["account_data"]["events"]
    assert events == [{"type": "m.marked_unread", "content": {"unread": True}}]


def ephemeral(sync: Json, room_id: str, event_type: str) -> Json | None:
    """The content of a room's m.typing or m.receipt; None: the answer has none."""
    room = sync["rooms"]["join"].get(room_id, {"ephemeral": {"events": []}})
    for event in room["ephemeral"]["events"]:
        if event["type"] == event_type:
            content: Json = event["content"]
            return content
    return None


def types(person: Person, room_id: str, *, is_typing: bool) -> None:
    path = f"rooms/{room_id}/typing/{person.user_id}"
    assert person.put(path, json={"typing": is_typing, "timeout": 30000}).status_code == 200


def reads(person: Person, room_id: str, event_id: str) -> None:
    assert person.post(f"rooms/{room_id}/receipt/m.read/{event_id}").status_code == 200


def test_that_they_type_is_not_told(
    alice: Person, mallory: Person, login: Login, room: Room
) -> None:
    bob = login("bob")
    room_id = room(alice, mallory, bob)
    ignore(alice, mallory.user_id)
    token = alice.sync()["next_batch"]

    types(mallory, room_id, is_typing=True)
    alone, first = alice.sync(token), alice.sync()
    types(bob, room_id, is_typing=True)
    with_bob = alice.sync(alone["next_batch"])
    types(bob, room_id, is_typing=False)
    types(mallory, room_id, is_typing=False)

    assert alone["rooms"]["join"] == {}
    assert ephemeral(first, room_id, "m.typing") is None
    assert ephemeral(with_bob, room_id, "m.typing") == {"user_ids": [bob.user_id]}
    assert ephemeral(alice.sync(with_bob["next_batch"]), room_id, "m.typing") == {"user_ids": []}


def test_how_far_they_have_read_is_not_told(
    alice: Person, mallory: Person, login: Login, room: Room
) -> None:
    bob = login("bob")
    room_id = room(alice, mallory, bob)
    event_id = alice.send(room_id)
    ignore(alice, mallory.user_id)
    token = alice.sync()["next_batch"]

    reads(mallory, room_id, event_id)
    alone = alice.sync(token)
    reads(bob, room_id, event_id)
    both, first = alice.sync(token), alice.sync()

    assert alone["rooms"]["join"] == {}
    for sync in (both, first):
        receipt = ephemeral(sync, room_id, "m.receipt")
        assert receipt is not None
        assert list(receipt[event_id]["m.read"]) == [bob.user_id]


def test_sliding_sync_does_not_tell_it_either(alice: Person, mallory: Person, room: Room) -> None:
    room_id = room(alice, mallory)
    event_id = alice.send(room_id)
    ignore(alice, mallory.user_id)
    types(mallory, room_id, is_typing=True)
    reads(mallory, room_id, event_id)
    body = {
        "lists": {"all": {"ranges": [[0, 9]], "timeline_limit": 1, "required_state": []}},
        "extensions": {"typing": {"enabled": True}, "receipts": {"enabled": True}},
    }

    path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
    found = alice.post(path, json=body).get_json()

    assert room_id in found["rooms"]
    assert found["extensions"]["typing"] == found["extensions"]["receipts"] == {"rooms": {}}
