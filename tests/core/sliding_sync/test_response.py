"""Rooms in sliding sync: state, timeline, counts, membership."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from urllib.parse import quote

import pytest

from homebody.core.rooms import purge
from homebody.core.sliding_sync import summaries
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.sliding import Json, ask, bodies, members, state, window

MakeRoom = Callable[..., str]
ids = itertools.count()


def act(person: Person, room_id: str, what: str, **body: str) -> None:
    answer = person.post(f"rooms/{quote(room_id)}/{what}", json=body)
    assert answer.status_code == 200, answer.get_json()


def react(person: Person, room_id: str) -> None:
    """Send an event that does not move the room to the top."""
    path = f"rooms/{quote(room_id)}/send/org.example.reaction/r{next(ids)}"
    assert person.put(path, json={}).status_code == 200


def ignore(person: Person, other: Person) -> None:
    content: Json = {"ignored_users": {other.user_id: {}}}
    person.put(f"user/{person.user_id}/account_data/m.ignored_user_list", json=content)


def test_lazy_members_are_oneself_and_who_speaks(login: Login, room: MakeRoom) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)
    alice.send(room_id)

    found = ask(bob, lists=window(9, limit=1))

    assert members(found, room_id) == {alice.user_id, bob.user_id}
    entry = found["rooms"][room_id]
    assert (entry["joined_count"], entry["invited_count"], entry["limited"]) == (3, 0, True)


def test_lazy_members_come_once_and_again_when_they_change(login: Login, room: MakeRoom) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)
    alice.send(room_id)
    first = ask(bob, lists=window(9, limit=1))
    alice.send(room_id)
    same = ask(bob, first["pos"], lists=window(9, limit=1))
    carol.send(room_id)
    other = ask(bob, same["pos"], lists=window(9, limit=1))
    alice.put(f"profile/{alice.user_id}/displayname", json={"displayname": "Alice the Great"})
    renamed = ask(bob, other["pos"], lists=window(9, limit=1))

    assert members(same, room_id) == set()
    assert members(other, room_id) == {carol.user_id}
    assert members(renamed, room_id) == {alice.user_id}
    assert "joined_count" in renamed["rooms"][room_id]
    assert "joined_count" not in same["rooms"][room_id]


def test_after_a_gap_lazy_members_come_again(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    alice.send(room_id)
    pos = ask(bob, lists=window(9, limit=1))["pos"]
    alice.send(room_id)
    alice.send(room_id)

    found = ask(bob, pos, lists=window(9, limit=1))

    assert found["rooms"][room_id]["limited"] is True
    assert members(found, room_id) == {alice.user_id}


@pytest.mark.parametrize(
    ("asked", "kinds", "who"),
    [
        ([["*", "*"]], None, {"alice", "bob", "carol"}),
        ([["*", "*"], ["m.room.member", "$LAZY"]], None, {"alice"}),
        ([["*", ""]], None, set()),
        ([["m.room.member", "*"]], {"m.room.member"}, {"alice", "bob", "carol"}),
        ([["m.room.member", "$ME"]], {"m.room.member"}, {"bob"}),
        ([["m.room.member", "@carol:localhost"]], {"m.room.member"}, {"carol"}),
        ([["m.room.topic", "*"]], {"m.room.topic"}, set()),
        ([["m.room.topic", "other"]], set(), set()),
        ([["m.room.member", "$LAZY"]], {"m.room.member"}, {"alice"}),
    ],
)
def test_patterns_say_which_state_is_required(
    login: Login, room: MakeRoom, asked: list[list[str]], kinds: set[str] | None, who: set[str]
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol, topic="Tea")
    alice.send(room_id)

    found = ask(bob, lists=window(9, limit=1, required_state=asked))

    assert members(found, room_id) == {f"@{name}:localhost" for name in who}
    shown = {kind for kind, _ in state(found, room_id)}
    all_kinds = {"m.room.create", "m.room.topic", "m.room.power_levels", "m.room.join_rules"}
    assert shown == kinds if kinds is not None else shown >= all_kinds


def test_state_that_changes_is_told_as_it_is_then_also_across_a_gap(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(topic="Tea")
    wanted = window(9, limit=1, required_state=[["m.room.topic", ""]])
    first = ask(alice, lists=wanted)
    alice.set_state(room_id, "m.room.topic", {"topic": "Coffee"})
    alice.set_state(room_id, "org.example.other", {"not": "wanted"})
    then = ask(alice, first["pos"], lists=wanted)
    alice.send(room_id)
    later = ask(alice, then["pos"], lists=wanted)

    assert state(first, room_id)["m.room.topic", ""]["topic"] == "Tea"
    assert [*state(then, room_id)] == [("m.room.topic", "")]
    assert state(then, room_id)["m.room.topic", ""]["topic"] == "Coffee"
    assert state(later, room_id) == {}


def test_more_required_state_comes_at_once_and_no_more_than_that(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(topic="Tea", name="Kitchen")
    little = window(9, required_state=[["m.room.topic", ""]])
    much = window(9, required_state=[["m.room.topic", ""], ["m.room.name", ""]])
    pos = ask(alice, lists=little)["pos"]

    more = ask(alice, pos, lists=much)
    again = ask(alice, more["pos"], lists=much)
    back = ask(alice, again["pos"], lists=little)
    much_again = ask(alice, back["pos"], lists=much)

    assert [*state(more, room_id)] == [("m.room.name", "")]
    assert "initial" not in more["rooms"][room_id]
    assert more["rooms"][room_id]["timeline"] == []
    assert again["rooms"] == back["rooms"] == much_again["rooms"] == {}


def test_state_that_changed_while_it_was_not_wanted_comes_when_it_is_wanted_again(
    login: Login,
) -> None:
    alice = login("alice")
    room_id = alice.create_room(name="Kitchen")
    little = window(9, required_state=[])
    much = window(9, required_state=[["m.room.name", ""]])
    pos = ask(alice, lists=much)["pos"]
    alice.set_state(room_id, "m.room.name", {"name": "Cellar"})
    unwanted = ask(alice, pos, lists=little)

    found = ask(alice, unwanted["pos"], lists=much)

    assert state(unwanted, room_id) == {}
    assert state(found, room_id)["m.room.name", ""]["name"] == "Cellar"


def test_a_longer_timeline_comes_at_once_with_what_is_known_already(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    for number in range(5):
        alice.send(room_id, f"line {number}")
    pos = ask(alice, lists=window(9, limit=1))["pos"]

    more = ask(alice, pos, lists=window(9, limit=3))
    again = ask(alice, more["pos"], lists=window(9, limit=3))

    entry = more["rooms"][room_id]
    assert bodies(more, room_id) == ["line 2", "line 3", "line 4"]
    assert (entry["unstable_expanded_timeline"], entry["limited"]) == (True, True)
    assert (entry["num_live"], "initial" in entry) == (0, False)
    assert again["rooms"] == {}


def test_a_gap_under_a_short_timeline_is_filled_when_it_is_longer_again(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    pos = ask(alice, lists=window(9, limit=5))["pos"]
    for number in range(3):
        alice.send(room_id, f"line {number}")
    short = ask(alice, pos, lists=window(9, limit=1))

    found = ask(alice, short["pos"], lists=window(9, limit=3))

    assert (bodies(short, room_id), short["rooms"][room_id]["limited"]) == (["line 2"], True)
    assert bodies(found, room_id) == ["line 0", "line 1", "line 2"]


def test_older_messages_are_found_from_prev_batch_on(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    for number in range(4):
        alice.send(room_id, f"line {number}")

    found = ask(alice, lists=window(9, limit=2))["rooms"][room_id]
    query = {"dir": "b", "from": found["prev_batch"], "limit": 2}
    older = alice.get(f"rooms/{quote(room_id)}/messages", query_string=query).get_json()["chunk"]

    assert [event["content"]["body"] for event in older] == ["line 1", "line 0"]


def test_name_and_avatar_come_when_they_change_and_as_null_when_they_go(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(name="Kitchen")
    first = ask(alice)
    alice.send(room_id)
    same = ask(alice, first["pos"])
    alice.set_state(room_id, "m.room.avatar", {"url": "mxc://localhost/picture"})
    pictured = ask(alice, same["pos"])
    alice.set_state(room_id, "m.room.avatar", {})
    alice.set_state(room_id, "m.room.name", {"name": ""})
    bare = ask(alice, pictured["pos"])

    assert (first["rooms"][room_id]["name"], "avatar" in first["rooms"][room_id]) == (
        "Kitchen",
        False,
    )
    assert not {"name", "avatar"} & same["rooms"][room_id].keys()
    assert pictured["rooms"][room_id]["avatar"] == "mxc://localhost/picture"
    assert "name" not in pictured["rooms"][room_id]
    assert (bare["rooms"][room_id]["avatar"], bare["rooms"][room_id]["name"]) == (None, None)


@pytest.mark.parametrize("missed", [0, 20], ids=["in the timeline", "in a gap"])
@pytest.mark.parametrize("version", ["10", "11"])
def test_a_redacted_name_is_taken_back_and_gives_heroes(
    login: Login, room: MakeRoom, version: str, missed: int
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, room_version=version)
    wanted = window(9, required_state=[["m.room.name", ""]])
    sent = [
        alice.set_state(room_id, "m.room.name", {"name": "Mad"}),
        alice.set_state(room_id, "m.room.avatar", {"url": "mxc://localhost/mad"}),
    ]
    pos = ask(bob, lists=wanted)["pos"]

    for number, answer in enumerate(sent):
        event_id = quote(answer.get_json()["event_id"])
        alice.put(f"rooms/{quote(room_id)}/redact/{event_id}/r{number}", json={})
    for _ in range(missed):
        alice.send(room_id)
    news = ask(bob, pos, lists=wanted)
    alice.send(room_id)
    then = ask(bob, news["pos"], lists=wanted)["rooms"][room_id]

    found = news["rooms"][room_id]
    assert (found["name"], found["avatar"]) == (None, None)
    assert [hero["user_id"] for hero in found["heroes"]] == [alice.user_id]
    assert state(news, room_id) == {("m.room.name", ""): {}}
    assert {"name", "avatar", "heroes"}.isdisjoint(then)


def test_a_redacted_display_name_of_a_hero_follows(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(bob, alice)
    named = {"membership": "join", "displayname": "Mad"}
    event_id = alice.set_state(room_id, "m.room.member", named, alice.user_id).get_json()
    first = ask(bob)
    path = f"rooms/{quote(room_id)}/redact/{quote(event_id['event_id'])}/r"
    bob.put(path, json={})

    then = ask(bob, first["pos"])["rooms"][room_id]

    assert first["rooms"][room_id]["heroes"] == [{"user_id": alice.user_id, "displayname": "Mad"}]
    assert then["heroes"] == [{"user_id": alice.user_id}]


def test_a_room_whose_alias_is_taken_away_has_heroes(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, room_alias_name="tea")
    alias = {"alias": "#tea:localhost"}
    alice.set_state(room_id, "m.room.canonical_alias", alias)
    first = ask(bob)

    alice.set_state(room_id, "m.room.canonical_alias", {})
    then = ask(bob, first["pos"])["rooms"][room_id]

    assert "heroes" not in first["rooms"][room_id]
    assert [hero["user_id"] for hero in then["heroes"]] == [alice.user_id]


def test_a_room_without_a_name_has_heroes_that_follow(login: Login, room: MakeRoom) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    alice.put(f"profile/{alice.user_id}/displayname", json={"displayname": "Alice"})
    room_id = room(alice, bob)
    first = ask(bob)
    act(carol, room_id, "join")
    then = ask(bob, first["pos"])

    assert first["rooms"][room_id]["heroes"] == [{"user_id": alice.user_id, "displayname": "Alice"}]
    heroes = {hero["user_id"] for hero in then["rooms"][room_id]["heroes"]}
    assert heroes == {alice.user_id, carol.user_id}
    assert then["rooms"][room_id]["joined_count"] == 3


def test_unread_messages_are_counted_until_another_device_has_read_them(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    telephone = login("bob")
    room_id = room(alice, bob)
    first = ask(bob)
    said = alice.send(room_id, "bob: look", **{"m.mentions": {"user_ids": [bob.user_id]}})
    unread = ask(bob, first["pos"])
    telephone.post(f"rooms/{quote(room_id)}/receipt/m.read/{quote(said)}")
    read = ask(bob, unread["pos"])

    def counts(answer: Json) -> tuple[int, int]:
        entry = answer["rooms"][room_id]
        return entry["notification_count"], entry["highlight_count"]

    assert (counts(first), counts(unread), counts(read)) == ((0, 0), (1, 1), (0, 0))
    assert "timeline" not in read["rooms"][room_id]
    assert ask(bob, read["pos"])["rooms"] == {}


def test_what_was_read_out_of_sight_is_told_in_the_window(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id, other = room(alice, bob), room(alice, bob)
    said = alice.send(room_id)
    first = ask(bob, lists=window(0))
    alice.send(other)
    away = ask(bob, first["pos"], lists=window(0))
    bob.post(f"rooms/{quote(room_id)}/receipt/m.read/{quote(said)}")
    still_away = ask(bob, away["pos"], lists=window(0))
    back = ask(bob, still_away["pos"], lists=window(1))

    assert (list(first["rooms"]), list(away["rooms"])) == ([room_id], [other])
    assert still_away["rooms"] == {}
    assert list(back["rooms"]) == [room_id]
    assert back["rooms"][room_id]["notification_count"] == 0


def test_the_stamp_follows_what_is_said_and_never_goes_back(
    login: Login, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "_MAX_SCANNED", 4)
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    alice.send(room_id)
    stamps = []
    pos = None
    for number in range(8):
        if number == 4:
            alice.send(room_id)
        react(bob, room_id)
        found = ask(bob, pos)
        pos = found["pos"]
        anew = ask(bob, conn_id="other")
        stamps.append((found["rooms"][room_id]["bump_stamp"], anew["rooms"][room_id]["bump_stamp"]))

    told, afresh = [one for one, _ in stamps], [other for _, other in stamps]
    assert told[:4] == [told[0]] * 4
    assert told[4:] == [told[4]] * 4
    assert told[4] > told[0]
    assert afresh == sorted(afresh)


def test_a_room_for_two_is_called_so_and_says_when_it_is_none(login: Login) -> None:
    alice = login("alice")
    room_id, other = alice.create_room(), alice.create_room()
    path = f"user/{alice.user_id}/account_data/m.direct"
    alice.put(path, json={"@bob:localhost": [room_id], "@broken:localhost": "nonsense"})
    first = ask(alice)
    alice.put(path, json={"@bob:localhost": [other]})

    found = ask(alice, first["pos"])

    assert first["rooms"][room_id]["is_dm"] is True
    assert "is_dm" not in first["rooms"][other]
    assert {room: entry["is_dm"] for room, entry in found["rooms"].items()} == {
        room_id: False,
        other: True,
    }


def test_an_invite_comes_once_and_its_refusal_too(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    first = ask(bob)
    room_id = alice.create_room(name="Den", invite=[bob.user_id])

    invited = ask(bob, first["pos"])
    alice.send(room_id, "not for who is only invited")
    quiet = ask(bob, invited["pos"])
    act(bob, room_id, "leave")
    refused = ask(bob, quiet["pos"])

    entry = invited["rooms"][room_id]
    assert (entry["membership"], entry["initial"], entry["name"]) == ("invite", True, "Den")
    assert not {"timeline", "required_state", "joined_count"} & entry.keys()
    shown = {(it["type"], it["state_key"]): it["sender"] for it in entry["invite_state"]}
    assert shown["m.room.member", bob.user_id] == alice.user_id
    assert {("m.room.create", ""), ("m.room.member", alice.user_id)} <= shown.keys()
    assert quiet["rooms"] == {}
    assert refused["rooms"][room_id]["membership"] == "leave"
    assert [*state(refused, room_id)] == [("m.room.member", bob.user_id)]
    assert refused["rooms"][room_id]["timeline"] == []
    assert ask(bob, refused["pos"])["rooms"] == {}


def test_an_invite_that_is_accepted_brings_the_whole_room(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(invite=[bob.user_id])
    alice.send(room_id, "before")
    pos = ask(bob)["pos"]
    act(bob, room_id, "join")

    found = ask(bob, pos)

    assert (found["rooms"][room_id]["initial"], found["rooms"][room_id]["membership"]) == (
        True,
        "join",
    )
    assert bodies(found, room_id) == ["before"]


def test_a_knock_shows_what_the_room_is(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room_id = alice.create_room(name="Door", initial_state=[rules])
    pos = ask(bob)["pos"]
    answer = bob.post(f"knock/{quote(room_id)}")
    assert answer.status_code == 200

    found = ask(bob, pos)["rooms"][room_id]

    assert (found["membership"], found["name"]) == ("knock", "Door")
    kinds = [(it["type"], it["state_key"]) for it in found["invite_state"]]
    assert kinds.count(("m.room.member", bob.user_id)) == 1
    assert ("m.room.join_rules", "") in kinds


def test_who_is_kicked_sees_the_room_up_to_then(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, name="Before")
    pos = ask(bob)["pos"]
    alice.send(room_id, "your last")
    act(alice, room_id, "kick", user_id=bob.user_id)
    alice.set_state(room_id, "m.room.name", {"name": "After"})
    alice.send(room_id, "he is gone")

    told = ask(bob, pos)
    anew = ask(bob, conn_id="new", lists=window(9, required_state=[["m.room.name", ""]]))

    for found in (told, anew):
        entry = found["rooms"][room_id]
        assert (entry["membership"], bodies(found, room_id)) == ("leave", ["your last"])
        assert state(found, room_id)["m.room.member", bob.user_id]["membership"] == "leave"
        assert found["lists"]["all"]["count"] == 1
    assert (anew["rooms"][room_id]["initial"], anew["rooms"][room_id]["name"]) == (True, "Before")
    assert state(anew, room_id)["m.room.name", ""]["name"] == "Before"
    assert ask(bob, told["pos"])["rooms"] == ask(bob, anew["pos"], conn_id="new")["rooms"] == {}


def test_a_room_that_threw_somebody_out_is_gone_when_they_forget_it(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    act(alice, room_id, "ban", user_id=bob.user_id)
    before = ask(bob)
    act(bob, room_id, "forget")

    after = ask(bob)

    assert before["rooms"][room_id]["membership"] == "ban"
    assert (after["rooms"], after["lists"]["all"]["count"]) == ({}, 0)


def test_who_was_banned_and_never_in_is_shown_nothing(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice)
    pos = ask(bob)["pos"]
    act(alice, room_id, "ban", user_id=bob.user_id)

    assert ask(bob, pos)["rooms"] == ask(bob)["rooms"] == {}


def test_who_comes_back_gets_the_room_anew(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    pos = ask(bob)["pos"]
    act(bob, room_id, "leave")
    alice.send(room_id, "meanwhile")
    act(bob, room_id, "join")

    found = ask(bob, pos)

    assert found["rooms"][room_id]["initial"] is True
    assert bodies(found, room_id) == ["meanwhile"]


def test_who_comes_back_out_of_sight_gets_the_room_anew_in_the_window(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id, other = room(alice, bob), room(alice, bob)
    pos = ask(bob)["pos"]
    act(bob, room_id, "leave")
    act(bob, room_id, "join")
    alice.send(other)
    narrow = ask(bob, pos, lists=window(0))

    found = ask(bob, narrow["pos"], lists=window(1))

    assert list(narrow["rooms"]) == [other]
    assert found["rooms"][room_id]["initial"] is True


def test_what_the_history_hides_is_not_shown(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    content = {"history_visibility": "joined"}
    hidden = {"type": "m.room.history_visibility", "state_key": "", "content": content}
    room_id = room(alice, initial_state=[hidden])
    alice.send(room_id, "before he came")
    act(bob, room_id, "join")
    alice.send(room_id, "welcome")

    assert bodies(ask(bob, lists=window(9, limit=20)), room_id) == ["welcome"]


def test_what_ignored_users_say_is_neither_shown_nor_a_reason_to_show_the_room(
    login: Login, room: MakeRoom
) -> None:
    alice, bob, mallory = login("alice"), login("bob"), login("mallory")
    room_id = room(alice, bob, mallory)
    alice.send(room_id, "hello")
    ignore(bob, mallory)
    first = ask(bob)
    mallory.send(room_id, "spam")

    then = ask(bob, first["pos"])
    alice.send(room_id, "anyway")
    later = ask(bob, then["pos"])

    assert then["rooms"] == {}
    assert bodies(later, room_id) == ["anyway"]
    assert bodies(ask(bob), room_id) == ["hello", "anyway"]


def test_invites_of_ignored_users_are_not_shown_and_go_when_they_are_ignored(login: Login) -> None:
    bob, mallory = login("bob"), login("mallory")
    early = mallory.create_room(invite=[bob.user_id])
    first = ask(bob)
    ignore(bob, mallory)
    ignored = ask(bob, first["pos"])
    mallory.create_room(invite=[bob.user_id])
    later = ask(bob, ignored["pos"])

    assert list(first["rooms"]) == [early]
    assert (ignored["rooms"], ignored["lists"]["all"]["count"]) == ({}, 0)
    assert (later["rooms"], later["lists"]["all"]["count"]) == ({}, 0)


def test_relations_are_bundled_where_the_timeline_has_a_gap(app: Application, login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    said = alice.send(room_id, "first draft")
    edit = {"m.relates_to": {"rel_type": "m.replace", "event_id": said}}
    alice.send(room_id, "* final", **edit, **{"m.new_content": {"body": "final"}})

    found = ask(alice, lists=window(9, limit=2))["rooms"][room_id]["timeline"]

    assert "m.replace" in found[0]["unsigned"]["m.relations"]
    assert found[0]["unsigned"]["membership"] == "join"


def test_a_room_that_was_left_is_shown_up_to_then_by_a_subscription_only(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id, never_in = room(alice, bob, name="Before"), room(alice)
    alice.send(room_id, "your last")
    act(bob, room_id, "leave")
    alice.set_state(room_id, "m.room.name", {"name": "After"})
    alice.send(room_id, "he is gone")
    wanted = {"timeline_limit": 2, "required_state": [["m.room.name", ""]]}
    subscriptions = dict.fromkeys([room_id, never_in], wanted)

    found = ask(bob, room_subscriptions=subscriptions)
    alice.send(room_id, "still gone")
    other = bob.create_room()
    then = ask(bob, found["pos"], room_subscriptions=subscriptions)
    act(bob, room_id, "join")
    back = ask(bob, then["pos"], room_subscriptions=subscriptions)

    entry = found["rooms"][room_id]
    assert (entry["membership"], entry["name"], entry["initial"]) == ("leave", "Before", True)
    assert bodies(found, room_id) == ["your last"]
    assert state(found, room_id)["m.room.name", ""]["name"] == "Before"
    assert members(found, room_id) == {bob.user_id}
    assert (list(found["rooms"]), found["lists"]["all"]["count"]) == ([room_id], 0)
    assert list(then["rooms"]) == [other]
    assert back["rooms"][room_id]["membership"] == "join"
    act(bob, room_id, "leave")
    gone = ask(bob, back["pos"], room_subscriptions=subscriptions)
    bob.send(other)
    assert gone["rooms"][room_id]["membership"] == "leave"
    assert list(ask(bob, gone["pos"], room_subscriptions=subscriptions)["rooms"]) == [other]
    act(bob, room_id, "forget")
    assert room_id not in ask(bob, room_subscriptions=subscriptions)["rooms"]


def test_members_of_a_room_with_a_kick_are_loaded_lazily(login: Login, room: MakeRoom) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)
    carol.send(room_id, "your last")
    act(alice, room_id, "kick", user_id=bob.user_id)

    def shown(*patterns: list[str]) -> set[str]:
        return members(ask(bob, lists=window(9, limit=2, required_state=[*patterns])), room_id)

    both = {bob.user_id, carol.user_id}
    assert shown() == {bob.user_id}
    assert shown(["m.room.member", "$LAZY"]) == {*both, alice.user_id}
    assert shown(["m.room.member", carol.user_id]) == both
    assert shown(["m.room.member", "*"]) == {*both, alice.user_id}


def test_a_room_that_was_purged_while_the_client_was_away_is_left(
    app: Application, login: Login, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "wait_for_clients", lambda: None)
    alice, bob = login("alice"), login("bob")
    room_id, other = room(alice, bob), room(alice, bob)
    pos = ask(bob)["pos"]
    purge.purge(app.homeserver.database, room_id, is_forced=True)

    found = ask(bob, pos)

    assert list(found["rooms"]) == [room_id]
    assert found["rooms"][room_id]["membership"] == "leave"
    assert state(found, room_id) == {("m.room.member", bob.user_id): {"membership": "leave"}}
    assert other not in found["rooms"]
    assert ask(bob, found["pos"])["rooms"] == {}
