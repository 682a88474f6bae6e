"""Simplified sliding sync over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from tests import encryption
from tests.conftest import Login, Person

MakeRoom = Callable[..., str]
Json = dict[str, Any]
PATH = "org.matrix.simplified_msc3575/sync"
STATE = [["m.room.create", ""], ["m.room.member", "$LAZY"], ["m.room.member", "$ME"]]


def ask(person: Person, pos: str | None = None, timeout: int = 0, **body: Any) -> Json:
    body.setdefault("lists", window(9))
    query = {"timeout": timeout} | ({"pos": pos} if pos else {})
    answer = person.post(PATH, query_string=query, json=body)
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def window(last: int, limit: int = 5) -> Json:
    return {"all": {"ranges": [[0, last]], "timeline_limit": limit, "required_state": STATE}}


def bodies(answer: Json, room_id: str) -> list[str]:
    events = answer["rooms"][room_id]["timeline"]
    return [it["content"]["body"] for it in events if it["type"] == "m.room.message"]


def test_the_first_answer_has_the_newest_rooms_and_a_wider_range_the_others(login: Login) -> None:
    alice = login("alice")
    old, new = alice.create_room(name="Old"), alice.create_room(name="New")
    alice.send(new, "hello")

    first = ask(alice, lists=window(0))
    wider = ask(alice, first["pos"], lists=window(9))

    assert first["lists"]["all"]["count"] == 2
    assert list(first["rooms"]) == [new]
    assert (first["rooms"][new]["name"], first["rooms"][new]["initial"]) == ("New", True)
    assert bodies(first, new) == ["hello"]
    assert list(wider["rooms"]) == [old]


def test_a_message_wakes_and_a_repeated_pos_gets_it_again(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    pos = ask(bob)["pos"]
    answers: list[Json] = []
    thread = threading.Thread(target=lambda: answers.append(ask(bob, pos, timeout=20_000)))
    thread.start()
    time.sleep(0.3)
    alice.send(room_id, "wake up")
    thread.join(10)

    again = ask(bob, pos)

    assert bodies(answers[0], room_id) == bodies(again, room_id) == ["wake up"]
    assert answers[0]["rooms"][room_id]["num_live"] == 1
    assert ask(bob, again["pos"])["rooms"] == {}


def test_lazy_members_are_oneself_and_who_speaks(login: Login, room: MakeRoom) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)
    alice.send(room_id)

    found = ask(bob, lists=window(9, limit=1))["rooms"][room_id]

    members = {it["state_key"] for it in found["required_state"] if it["type"] == "m.room.member"}
    assert members == {alice.user_id, bob.user_id}
    assert (found["joined_count"], found["limited"]) == (3, True)


def test_a_subscription_shows_a_room_that_no_list_has(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    found = ask(alice, lists={}, room_subscriptions={room_id: {"timeline_limit": 2}})

    assert len(found["rooms"][room_id]["timeline"]) == 2
    assert found["rooms"][room_id]["required_state"] == []


def test_an_invite_comes_once_and_its_refusal_too(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    first = ask(bob)
    room_id = alice.create_room(invite=[bob.user_id])

    invited = ask(bob, first["pos"])
    bob.post(f"rooms/{quote(room_id)}/leave")
    refused = ask(bob, invited["pos"])

    assert invited["rooms"][room_id]["membership"] == "invite"
    assert "m.room.create" in {it["type"] for it in invited["rooms"][room_id]["invite_state"]}
    assert refused["rooms"][room_id]["membership"] == "leave"
    assert ask(bob, refused["pos"])["rooms"] == {}


def test_extensions_bring_account_data_and_messages_to_the_device(login: Login) -> None:
    alice = login("alice")
    wanted: Json = {"to_device": {"enabled": True}, "account_data": {"enabled": True}}
    first = ask(alice, extensions=wanted)
    alice.put(f"user/{alice.user_id}/account_data/org.example.colour", json={"colour": "blue"})
    to = {"messages": {alice.user_id: {alice.device_id: {"secret": 1}}}}
    alice.put("sendToDevice/org.example.secret/t1", json=to)

    news = ask(alice, first["pos"], extensions=wanted)["extensions"]
    wanted["to_device"]["since"] = news["to_device"]["next_batch"]
    later = ask(alice, first["pos"], extensions=wanted)["extensions"]

    assert [it["type"] for it in news["account_data"]["global"]] == ["org.example.colour"]
    assert [it["content"] for it in news["to_device"]["events"]] == [{"secret": 1}]
    assert later["to_device"]["events"] == []


def test_an_unknown_pos_tells_the_client_to_start_anew(login: Login) -> None:
    answer = login("alice").post(PATH, query_string={"pos": "never"}, json={})

    assert (answer.status_code, answer.get_json()["errcode"]) == (400, "M_UNKNOWN_POS")


def test_a_connection_that_starts_anew_hears_of_keys_that_changed_meanwhile(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    both: Json = {"to_device": {"enabled": True}, "e2ee": {"enabled": True}}
    inbox = ask(bob, extensions=both)["extensions"]["to_device"]["next_batch"]
    encryption.upload_device_keys(alice)

    both["to_device"]["since"] = inbox
    anew = ask(bob, conn_id="after a restart", extensions=both)["extensions"]

    assert anew["e2ee"]["device_lists"]["changed"] == [alice.user_id]
