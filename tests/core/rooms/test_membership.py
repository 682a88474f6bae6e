"""Joining, inviting, leaving, kicking, banning, knocking, forgetting."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.rooms import Json, act, membership, refusal, state_of, unchanged

ALICE, BOB, CAROL = "@alice:localhost", "@bob:localhost", "@carol:localhost"
ADDRESS = {"id_server": "id.example.org", "medium": "email", "address": "a@b.example"}


def room_with_rule(creator: Person, join_rule: str, *allowed: str, **options: Any) -> str:
    """A room whose join rule is this; `allowed` are rooms whose members may come in."""
    content: Json = {"join_rule": join_rule}
    if allowed:
        content["allow"] = [{"type": "m.room_membership", "room_id": room} for room in allowed]
    initial_state = [{"type": "m.room.join_rules", "content": content}]
    return creator.create_room(initial_state=initial_state, **options)


def test_an_invite_is_accepted_by_joining(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room()

    invited = act(alice, room_id, "invite", user_id=BOB, reason="Welcome!")

    assert (invited.status_code, invited.get_json()) == (200, {})
    assert membership(alice, room_id, BOB) == {
        "membership": "invite",
        "displayname": "bob",
        "reason": "Welcome!",
    }
    joined = act(bob, room_id, "join")
    assert (joined.status_code, joined.get_json()) == (200, {"room_id": room_id})
    assert membership(bob, room_id, BOB)["membership"] == "join"
    assert bob.get("joined_rooms").get_json() == {"joined_rooms": [room_id]}


def test_one_joins_by_alias_and_says_why(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(preset="public_chat", room_alias_name="tutorial")

    path = "join/%23tutorial:localhost?via=elsewhere.example&server_name=elsewhere.example"
    answer = bob.post(path, json={"reason": "Looking for support"})

    assert answer.get_json() == {"room_id": room_id}
    assert membership(bob, room_id, BOB)["reason"] == "Looking for support"


@pytest.mark.parametrize("path", ["join/{}", "rooms/{}/join", "join/%23attic:localhost"])
def test_all_of_the_body_of_a_join_goes_into_the_event(login: Login, path: str) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(preset="public_chat", room_alias_name="attic")
    body = {"foo": "bar", "reason": "tea", "displayname": "Bobby", "membership": "ban"}
    made_up = {"join_authorised_via_users_server": alice.user_id, "third_party_invite": {}}

    answer = bob.post(path.format(quote(room_id)), json=body | made_up)

    assert answer.status_code == 200
    assert membership(alice, room_id, bob.user_id) == {**body, "membership": "join"}


def test_joining_again_changes_nothing(app: Application, login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    with unchanged(app):
        answer = act(alice, room_id, "join", reason="again")

    assert answer.get_json() == {"room_id": room_id}


def test_inviting_again_changes_nothing(app: Application, login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(invite=[BOB])

    with unchanged(app):
        answer = act(alice, room_id, "invite", user_id=BOB)

    assert answer.status_code == 200


def test_somebody_without_an_account_finds_the_invite_later(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(invite=[BOB])

    bob = login("bob")

    assert act(bob, room_id, "join").status_code == 200


@pytest.mark.parametrize("before", ["join", "invite"])
def test_one_leaves_or_rejects_an_invite(login: Login, before: str) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(invite=[BOB])
    if before == "join":
        act(bob, room_id, "join")

    answer = act(bob, room_id, "leave", reason="Farewell")

    assert (answer.status_code, answer.get_json()) == (200, {})
    assert membership(alice, room_id, BOB) == {"membership": "leave", "reason": "Farewell"}
    assert bob.get("joined_rooms").get_json() == {"joined_rooms": []}


def test_an_invite_to_a_room_that_all_have_left_is_rejected_by_an_event(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(invite=[BOB])
    before = bob.sync()["next_batch"]
    act(alice, room_id, "leave")

    assert act(bob, room_id, "leave").status_code == 200

    left = bob.sync(since=before)["rooms"]["leave"][room_id]
    assert [it["content"]["membership"] for it in left["timeline"]["events"]] == ["leave"]


def test_leaving_twice_changes_nothing(app: Application, login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    assert act(alice, room_id, "leave").status_code == 200

    with unchanged(app):
        answer = act(alice, room_id, "leave", reason="again")

    assert answer.status_code == 200


def test_the_last_one_out_can_come_back_to_a_public_room(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(preset="public_chat")
    act(alice, room_id, "leave")

    answer = act(alice, room_id, "join")

    assert answer.status_code == 200


@pytest.mark.parametrize("before", ["join", "invite", "knock"])
def test_a_moderator_kicks_whoever_is_in_invited_or_knocking(login: Login, before: str) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room_with_rule(alice, {"join": "public", "invite": "invite"}.get(before, "knock"))
    if before == "invite":
        act(alice, room_id, "invite", user_id=BOB)
    else:
        assert bob.post(f"{before}/{room_id}").status_code == 200
    assert membership(alice, room_id, BOB)["membership"] == before

    answer = act(alice, room_id, "kick", user_id=BOB, reason="Spam")

    assert (answer.status_code, answer.get_json()) == (200, {})
    assert membership(alice, room_id, BOB) == {"membership": "leave", "reason": "Spam"}


def test_a_ban_keeps_out_until_it_is_ended(login: Login, room: Any) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)

    assert act(alice, room_id, "ban", user_id=BOB, reason="Spam").status_code == 200

    assert membership(alice, room_id, BOB) == {"membership": "ban", "reason": "Spam"}
    assert refusal(act(bob, room_id, "join")) == (403, "M_FORBIDDEN")
    assert refusal(act(alice, room_id, "invite", user_id=BOB)) == (403, "M_FORBIDDEN")
    assert refusal(act(bob, room_id, "leave")) == (403, "M_FORBIDDEN")
    assert act(alice, room_id, "unban", user_id=BOB, reason="Sorry").status_code == 200
    assert membership(alice, room_id, BOB) == {"membership": "leave", "reason": "Sorry"}
    assert act(bob, room_id, "join").status_code == 200


def test_somebody_can_be_banned_who_never_was_there(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(preset="public_chat")

    for user_id in (BOB, "@spam:elsewhere.example"):
        assert act(alice, room_id, "ban", user_id=user_id).status_code == 200

    assert refusal(act(bob, room_id, "join")) == (403, "M_FORBIDDEN")


def test_one_knocks_and_is_let_in(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room_with_rule(alice, "knock", room_alias_name="door")

    answer = bob.post("knock/%23door:localhost?via=x.example", json={"reason": "It is cold"})

    assert (answer.status_code, answer.get_json()) == (200, {"room_id": room_id})
    assert membership(alice, room_id, BOB) == {
        "membership": "knock",
        "displayname": "bob",
        "reason": "It is cold",
    }
    assert refusal(act(bob, room_id, "join")) == (403, "M_FORBIDDEN")
    assert act(alice, room_id, "invite", user_id=BOB).status_code == 200
    assert act(bob, room_id, "join").status_code == 200


def test_a_knock_can_be_taken_back(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room_with_rule(alice, "knock")
    bob.post(f"knock/{room_id}")

    answer = act(bob, room_id, "leave")

    assert answer.status_code == 200
    assert membership(alice, room_id, BOB) == {"membership": "leave"}


@pytest.mark.parametrize("join_rule", ["restricted", "knock_restricted"])
def test_members_of_an_allowed_room_may_join_a_restricted_one(login: Login, join_rule: str) -> None:
    alice, bob = login("alice"), login("bob")
    space = alice.create_room(preset="public_chat")
    room_id = room_with_rule(alice, join_rule, space)
    act(bob, space, "join")

    answer = act(bob, room_id, "join")

    assert answer.status_code == 200
    content = membership(bob, room_id, BOB)
    assert content == {
        "membership": "join",
        "displayname": "bob",
        "join_authorised_via_users_server": ALICE,
    }


def test_only_who_could_invite_vouches_for_a_restricted_join(login: Login) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    space = alice.create_room(preset="public_chat")
    room_id = room_with_rule(
        alice, "restricted", space, invite=[BOB], power_level_content_override={"invite": 50}
    )
    act(bob, room_id, "join")
    act(carol, space, "join")

    assert act(carol, room_id, "join").status_code == 200

    assert membership(carol, room_id, CAROL)["join_authorised_via_users_server"] == ALICE
    act(carol, room_id, "leave")
    act(alice, room_id, "leave")
    assert refusal(act(carol, room_id, "join")) == (403, "M_FORBIDDEN")


def test_who_is_invited_needs_nobody_to_vouch(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room_with_rule(alice, "restricted", "!nowhere:localhost", invite=[BOB])

    answer = act(bob, room_id, "join")

    assert answer.status_code == 200
    assert membership(bob, room_id, BOB) == {"membership": "join", "displayname": "bob"}


def test_a_client_can_not_choose_who_vouches(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    space = alice.create_room()
    room_id = room_with_rule(alice, "restricted", space)
    content = {"membership": "join", "join_authorised_via_users_server": ALICE}

    with unchanged(app):
        answer = bob.set_state(room_id, "m.room.member", content, BOB)

    assert refusal(answer) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    "allow",
    [None, "x", [None], [{"type": "org.example"}], [{"type": "m.room_membership", "room_id": 5}]],
)
def test_conditions_that_nobody_understands_let_nobody_in(
    app: Application, login: Login, allow: object
) -> None:
    alice, bob = login("alice"), login("bob")
    content = {"join_rule": "restricted", "allow": allow}
    initial_state = [{"type": "m.room.join_rules", "content": content}]
    room_id = alice.create_room(initial_state=initial_state)

    with unchanged(app):
        answer = act(bob, room_id, "join")

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_the_profile_is_shown_in_the_room(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    bob.put(f"profile/{BOB}/displayname", json={"displayname": "Bob the Builder"})
    bob.put(f"profile/{BOB}/avatar_url", json={"avatar_url": "mxc://localhost/bob"})
    shown = {"displayname": "Bob the Builder", "avatar_url": "mxc://localhost/bob"}

    room_id = alice.create_room(invite=[BOB])

    assert membership(alice, room_id, BOB) == {"membership": "invite", **shown}
    act(bob, room_id, "join")
    assert membership(alice, room_id, BOB) == {"membership": "join", **shown}
    act(bob, room_id, "leave")
    assert membership(alice, room_id, BOB) == {"membership": "leave"}


def test_one_may_have_another_name_in_a_room_but_give_none_to_others(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    own = {"membership": "join", "displayname": "Al"}
    assert alice.set_state(room_id, "m.room.member", own, ALICE).status_code == 200
    others = {"membership": "invite", "displayname": "Bobby", "reason": "x"}
    assert alice.set_state(room_id, "m.room.member", others, BOB).status_code == 200

    assert membership(alice, room_id, ALICE) == own
    assert membership(alice, room_id, BOB) == {"membership": "invite", "reason": "x"}


def test_member_events_set_as_state_obey_the_same_rules(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room()

    def set_member(who: Person, target: str, kind: str) -> int:
        return who.set_state(room_id, "m.room.member", {"membership": kind}, target).status_code

    assert set_member(bob, BOB, "join") == 403
    assert set_member(alice, BOB, "invite") == 200
    assert set_member(alice, BOB, "join") == 403
    assert set_member(bob, BOB, "join") == 200
    assert set_member(bob, ALICE, "leave") == 403
    assert set_member(alice, BOB, "ban") == 200
    assert set_member(alice, BOB, "leave") == 200
    assert membership(alice, room_id, BOB) == {"membership": "leave"}


def test_who_blocks_invites_gets_none(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room()
    path = f"user/{BOB}/account_data/m.invite_permission_config"
    assert bob.put(path, json={"default_action": "block"}).status_code == 200

    with unchanged(app):
        answers = [
            act(alice, room_id, "invite", user_id=BOB),
            alice.post("createRoom", json={"invite": [BOB]}),
            alice.set_state(room_id, "m.room.member", {"membership": "invite"}, BOB),
        ]

    assert [refusal(answer) for answer in answers] == [(403, "M_INVITE_BLOCKED")] * 3
    bob.put(path, json={})
    assert act(alice, room_id, "invite", user_id=BOB).status_code == 200


def test_a_filter_blocks_the_invites_of_some(app: Application, login: Login) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = alice.create_room()
    path = f"user/{BOB}/account_data/org.matrix.msc4155.invite_permission_config"
    lists = {"blocked_users": ["@al*:localhost"], "blocked_servers": ["b.test"]}
    assert bob.put(path, json=lists).status_code == 200

    with unchanged(app):
        answers = [
            act(alice, room_id, "invite", user_id=BOB),
            alice.post("createRoom", json={"invite": [BOB]}),
            alice.set_state(room_id, "m.room.member", {"membership": "invite"}, BOB),
        ]
    by_carol = carol.create_room(invite=[BOB])

    assert [refusal(answer) for answer in answers] == [(403, "M_INVITE_BLOCKED")] * 3
    assert list(bob.sync()["rooms"]["invite"]) == [by_carol]


def test_a_knock_is_accepted_whoever_is_blocked(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room_with_rule(alice, "knock")
    path = f"user/{alice.user_id}/account_data/org.matrix.msc4155.invite_permission_config"
    alice.put(path, json={"blocked_users": [BOB]})

    assert bob.post(f"knock/{quote(room_id)}").status_code == 200
    assert act(alice, room_id, "invite", user_id=BOB).status_code == 200


def test_a_forgotten_room_shows_its_past_no_more(login: Login, room: Any) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    act(bob, room_id, "leave")
    assert "m.room.create" in {event_type for event_type, _ in state_of(bob, room_id)}

    answer = act(bob, room_id, "forget")

    assert (answer.status_code, answer.get_json()) == (200, {})
    assert refusal(bob.get(f"rooms/{room_id}/state")) == (403, "M_FORBIDDEN")
    assert act(bob, room_id, "forget").status_code == 200
    assert act(bob, room_id, "join").status_code == 200
    act(bob, room_id, "leave")
    assert bob.get(f"rooms/{room_id}/state").status_code == 200


@pytest.mark.parametrize("before", ["join", "invite"])
def test_one_has_to_leave_before_forgetting(app: Application, login: Login, before: str) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(invite=[BOB])
    if before == "join":
        act(bob, room_id, "join")

    with unchanged(app):
        answer = act(bob, room_id, "forget")

    assert refusal(answer) == (400, "M_UNKNOWN")


@pytest.mark.parametrize(
    ("verb", "body", "expected"),
    [
        ("join", {}, (403, "M_FORBIDDEN")),
        ("join", {"reason": 5}, (400, "M_BAD_JSON")),
        ("join", {"third_party_signed": {}}, (400, "M_MISSING_PARAM")),
        ("leave", {}, (403, "M_FORBIDDEN")),
        ("forget", {}, (403, "M_FORBIDDEN")),
        ("invite", {"user_id": CAROL}, (403, "M_FORBIDDEN")),
        ("invite", {}, (400, "M_MISSING_PARAM")),
        ("invite", {"user_id": None, **ADDRESS}, (400, "M_SERVER_NOT_TRUSTED")),
        ("invite", {"medium": "email", "address": "a@b.example"}, (400, "M_MISSING_PARAM")),
        ("invite", {**ADDRESS, "address": 5}, (400, "M_BAD_JSON")),
        ("kick", {"user_id": ALICE}, (403, "M_FORBIDDEN")),
        ("kick", {"user_id": CAROL}, (403, "M_FORBIDDEN")),
        ("kick", {}, (400, "M_MISSING_PARAM")),
        ("ban", {"user_id": ALICE}, (403, "M_FORBIDDEN")),
        ("ban", {"user_id": 5}, (400, "M_BAD_JSON")),
        ("unban", {"user_id": CAROL}, (403, "M_FORBIDDEN")),
    ],
)
def test_an_outsider_changes_nothing(
    app: Application, login: Login, verb: str, body: Json, expected: tuple[int, str]
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room()

    with unchanged(app):
        answer = act(bob, room_id, verb, **body)

    assert refusal(answer) == expected


@pytest.mark.parametrize(
    ("verb", "body", "expected"),
    [
        ("invite", {"user_id": "carol"}, (400, "M_INVALID_PARAM")),
        ("invite", {"user_id": "@carol:elsewhere.example"}, (403, "M_FORBIDDEN")),
        ("invite", {"user_id": BOB}, (403, "M_FORBIDDEN")),
        ("kick", {"user_id": CAROL}, (403, "M_FORBIDDEN")),
        ("kick", {"user_id": "carol"}, (403, "M_FORBIDDEN")),
        ("ban", {"user_id": "carol"}, (400, "M_INVALID_PARAM")),
        ("ban", {"user_id": ALICE}, (403, "M_FORBIDDEN")),
        ("unban", {"user_id": BOB}, (403, "M_FORBIDDEN")),
        ("forget", {}, (400, "M_UNKNOWN")),
    ],
)
def test_even_the_creator_can_not_do_this(
    app: Application, login: Login, room: Any, verb: str, body: Json, expected: tuple[int, str]
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)

    with unchanged(app):
        answer = act(alice, room_id, verb, **body)

    assert refusal(answer) == expected


@pytest.mark.parametrize("verb", ["invite", "kick", "ban", "unban"])
def test_members_without_power_change_nobody(
    app: Application, login: Login, room: Any, verb: str
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)

    with unchanged(app):
        answer = act(bob, room_id, verb, user_id="@dave:localhost" if verb == "invite" else CAROL)

    assert refusal(answer) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("join/%23nowhere:localhost", (404, "M_NOT_FOUND")),
        ("join/%23nowhere:elsewhere.example", (404, "M_NOT_FOUND")),
        ("join/!nowhere:localhost", (404, "M_NOT_FOUND")),
        ("join/nowhere", (400, "M_INVALID_PARAM")),
        ("knock/%23nowhere:localhost", (404, "M_NOT_FOUND")),
        ("knock/!nowhere:localhost", (404, "M_NOT_FOUND")),
        ("rooms/!nowhere:localhost/join", (404, "M_NOT_FOUND")),
        ("rooms/!nowhere:localhost/leave", (404, "M_NOT_FOUND")),
        ("rooms/%2F..%2F/join", (400, "M_INVALID_PARAM")),
    ],
)
def test_a_room_that_is_not_there_is_told_so(
    app: Application, login: Login, path: str, expected: tuple[int, str]
) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.post(path)

    assert refusal(answer) == expected


def test_one_knocks_only_where_that_is_allowed(app: Application, login: Login, room: Any) -> None:
    alice, bob = login("alice"), login("bob")
    public, old = room(alice), alice.create_room(room_version="6")

    with unchanged(app):
        answers = [bob.post(f"knock/{room_id}") for room_id in (public, old)]

    assert [refusal(answer) for answer in answers] == [(403, "M_FORBIDDEN")] * 2


@pytest.mark.parametrize("kind", ["joined", "", "JOIN", None, 5, ["join"]])
def test_an_unknown_membership_is_refused(app: Application, login: Login, kind: object) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    with unchanged(app):
        answer = alice.set_state(room_id, "m.room.member", {"membership": kind}, ALICE)

    assert refusal(answer) == (400, "M_BAD_JSON")


def test_invites_have_limits_of_their_own(make_app: MakeApp) -> None:
    limits = {"rc_invites.per_issuer.burst_count": "3", "rc_invites.per_issuer.per_second": "0.01"}
    app = make_app(rate_limits="true", **limits)
    client = app.test_client()
    body = {"username": "alice", "auth": {"type": "m.login.dummy"}}
    token = client.post("/_matrix/client/v3/register", json=body).get_json()["access_token"]
    alice = Person(client, ALICE, token, "")
    room_id = alice.create_room(invite=[BOB, CAROL])
    assert act(alice, room_id, "invite", user_id="@dave:localhost").status_code == 200

    with unchanged(app):
        invite = {"membership": "invite"}
        answers = [
            act(alice, room_id, "invite", user_id="@erin:localhost"),
            alice.set_state(room_id, "m.room.member", invite, "@erin:localhost"),
            alice.post("createRoom", json={"invite": ["@erin:localhost"]}),
        ]

    assert [refusal(answer) for answer in answers] == [(429, "M_LIMIT_EXCEEDED")] * 3
