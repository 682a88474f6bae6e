"""Subscriptions to threads: of whose replies a user is notified."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.rooms import purge
from homebody.core.user_data import thread_subscriptions
from homebody.spec.predefined_push_rules import THREAD_SUBSCRIPTION
from homebody.web import Application
from tests.conftest import PASSWORD, Login, Person
from tests.helpers import sliding
from tests.helpers.rooms import Json, in_thread, refusal, unchanged

Room = Callable[..., str]
UNSTABLE = "/_matrix/client/unstable/"
PAGES = UNSTABLE + "io.element.msc4308/thread_subscriptions"
SLIDING = "io.element.msc4308.thread_subscriptions"
BY_THREAD: Json = {"filter": '{"room":{"timeline":{"unread_thread_notifications":true}}}'}
NOT_FOUND = (404, "M_NOT_FOUND")
NOT_IN_THREAD = (400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD")
CONFLICT = (409, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION")


def path(room_id: str, thread: str) -> str:
    room, root = quote(room_id, safe=""), quote(thread, safe="")
    return f"{UNSTABLE}io.element.msc4306/rooms/{room}/thread/{root}/subscription"


def subscribe(person: Person, room_id: str, thread: str, **body: Any) -> None:
    answer = person.put(path(room_id, thread), json=body)
    assert (answer.status_code, answer.get_json()) == (200, {})


def unsubscribe(person: Person, room_id: str, thread: str) -> None:
    answer = person.delete(path(room_id, thread))
    assert (answer.status_code, answer.get_json()) == (200, {})


def automatic(person: Person, room_id: str, thread: str) -> bool | None:
    """Whether the subscription is automatic; None: there is none."""
    answer = person.get(path(room_id, thread))
    if answer.status_code == 404:
        assert refusal(answer) == NOT_FOUND
        return None
    return bool(answer.get_json()["automatic"])


def page(person: Person, **query: Any) -> Json:
    answer = person.get(PAGES, query_string={"dir": "b", **query})
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def test_a_user_subscribes_to_a_thread_and_unsubscribes(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    root = alice.send(room_id)
    before = automatic(alice, room_id, root)

    subscribe(alice, room_id, root)
    subscribed = automatic(alice, room_id, root)
    unsubscribe(alice, room_id, root)

    assert (before, subscribed, automatic(alice, room_id, root)) == (None, False, None)


def test_subscriptions_are_each_users_own(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    root = alice.send(room_id)

    subscribe(alice, room_id, root)

    assert automatic(bob, room_id, root) is None
    assert page(bob) == {}


def test_an_automatic_subscription_names_a_reply_of_the_thread(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    root, other = alice.send(room_id), alice.send(room_id)
    reply, elsewhere = in_thread(alice, room_id, root), in_thread(alice, room_id, other)

    wrong = [
        alice.put(path(room_id, root), json={"automatic": it})
        for it in (root, elsewhere, "$nothing", "")
    ]
    subscribe(alice, room_id, root, automatic=reply)

    assert [refusal(it) for it in wrong] == [NOT_IN_THREAD] * 4
    assert automatic(alice, room_id, root) is True


def test_a_reply_that_the_user_cannot_see_causes_nothing(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    root = alice.send(room_id)
    assert bob.post(f"rooms/{room_id}/leave").status_code == 200
    reply = in_thread(alice, room_id, root)

    answer = bob.put(path(room_id, root), json={"automatic": reply})

    assert refusal(answer) == NOT_IN_THREAD


def test_a_manual_subscription_stays_manual(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    root = alice.send(room_id)
    reply = in_thread(alice, room_id, root)
    subscribe(alice, room_id, root, automatic=reply)

    subscribe(alice, room_id, root)
    made_manual = automatic(alice, room_id, root)
    subscribe(alice, room_id, root, automatic=reply)

    assert (made_manual, automatic(alice, room_id, root)) == (False, False)


def test_an_event_from_before_the_unsubscription_does_not_subscribe_again(
    login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    root = alice.send(room_id)
    first = in_thread(bob, room_id, root)
    subscribe(alice, room_id, root, automatic=first)
    second = in_thread(bob, room_id, root)
    unsubscribe(alice, room_id, root)
    third = in_thread(bob, room_id, root)

    refused = [alice.put(path(room_id, root), json={"automatic": it}) for it in (first, second)]
    between = automatic(alice, room_id, root)
    subscribe(alice, room_id, root, automatic=third)

    assert [refusal(it) for it in refused] == [CONFLICT] * 2
    assert (between, automatic(alice, room_id, root)) == (None, True)


def test_the_user_may_subscribe_again_at_any_time(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    root = alice.send(room_id)
    subscribe(alice, room_id, root)
    unsubscribe(alice, room_id, root)

    subscribe(alice, room_id, root)

    assert automatic(alice, room_id, root) is False


def test_the_latest_unsubscription_counts(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    root = alice.send(room_id)
    unsubscribe(alice, room_id, root)
    reply = in_thread(alice, room_id, root)
    subscribe(alice, room_id, root)
    unsubscribe(alice, room_id, root)

    answer = alice.put(path(room_id, root), json={"automatic": reply})

    assert refusal(answer) == CONFLICT


def test_an_unsubscription_counts_also_before_the_first_subscription(
    login: Login, room: Room
) -> None:
    alice = login("alice")
    room_id = room(alice)
    root = alice.send(room_id)
    reply = in_thread(alice, room_id, root)

    unsubscribe(alice, room_id, root)

    answer = alice.put(path(room_id, root), json={"automatic": reply})
    assert refusal(answer) == CONFLICT


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_threads_that_the_user_cannot_see_are_not_found(
    app: Application, login: Login, room: Room, method: str
) -> None:
    alice, mallory = login("alice"), login("mallory")
    room_id, other_room = room(alice), room(alice)
    root = alice.send(room_id)
    reply = in_thread(alice, room_id, root)
    subscribe(alice, room_id, root)

    with unchanged(app):
        answers = [
            mallory.request(method, path(room_id, root), json={}),
            alice.request(method, path(room_id, "$nothing"), json={}),
            alice.request(method, path(other_room, root), json={}),
            alice.request(method, path(room_id, reply), json={}),
        ]

    assert [refusal(it) for it in answers] == [NOT_FOUND] * 4


@pytest.mark.parametrize("body", [b"", b"[]", b'{"automatic":true}', b'{"automatic":{}}'])
def test_a_malformed_subscription_changes_nothing(
    app: Application, login: Login, room: Room, body: bytes
) -> None:
    alice = login("alice")
    room_id = room(alice)
    root = alice.send(room_id)

    with unchanged(app):
        answer = alice.put(path(room_id, root), data=body)

    assert refusal(answer)[0] == 400


def test_pages_go_back_through_the_changes_to_where_the_client_was(
    app: Application, login: Login, room: Room
) -> None:
    alice = login("alice")
    room_id = room(alice)
    roots = [alice.send(room_id) for _ in range(5)]
    subscribe(alice, room_id, roots[0])
    seen = alice.sync()["next_batch"]
    for root in roots[1:]:
        subscribe(alice, room_id, root)
    unsubscribe(alice, room_id, roots[2])

    latest = page(alice, limit=2, to=seen)
    older = page(alice, limit=2, to=seen, **{"from": latest["end"]})
    everything = page(alice)

    assert list(latest["subscribed"][room_id]) == [roots[4]]
    assert list(latest["unsubscribed"][room_id]) == [roots[2]]
    assert list(older["subscribed"][room_id]) == [roots[3], roots[1]]
    assert "end" not in older
    assert "unsubscribed" not in older
    assert len(everything["subscribed"][room_id]) == 4
    assert all(not it["automatic"] for it in everything["subscribed"][room_id].values())


def test_pages_go_on_where_sliding_sync_has_stopped(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    roots = [alice.send(room_id) for _ in range(6)]
    extensions = {SLIDING: {"enabled": True, "limit": 2}}
    subscribe(alice, room_id, roots[0])
    before = sliding.ask(alice, extensions=extensions)["pos"]
    for root in roots[1:]:
        subscribe(alice, room_id, root)

    latest = sliding.ask(alice, before, extensions=extensions)["extensions"][SLIDING]
    older = page(alice, to=before, **{"from": latest["prev_batch"]})

    assert [*latest["subscribed"][room_id], *older["subscribed"][room_id]] == roots[:0:-1]
    assert "end" not in older


def test_the_bump_stamp_grows_with_each_change_of_a_thread(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    root = alice.send(room_id)
    reply = in_thread(alice, room_id, root)
    stamps = []

    for body in ({"automatic": reply}, {}, None, {}):
        if body is None:
            unsubscribe(alice, room_id, root)
        else:
            subscribe(alice, room_id, root, **body)
        found = page(alice)
        part = found.get("subscribed") or found["unsubscribed"]
        stamps.append(part[room_id][root]["bump_stamp"])

    assert stamps == sorted(set(stamps))


def test_what_changes_nothing_is_not_a_change(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    root = alice.send(room_id)
    subscribe(alice, room_id, root)
    before = page(alice)

    subscribe(alice, room_id, root)

    assert page(alice) == before


@pytest.mark.parametrize(
    "query",
    [{"dir": "f"}, {"limit": "0"}, {"limit": "x"}, {"from": "x"}, {"to": "s99999999"}],
    ids=str,
)
def test_malformed_pages_are_refused(login: Login, query: Json) -> None:
    answer = login("alice").get(PAGES, query_string=query)

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_a_user_has_a_limited_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, app: Application, login: Login, room: Room
) -> None:
    alice = login("alice")
    room_id = room(alice)
    roots = [alice.send(room_id) for _ in range(3)]
    monkeypatch.setattr(thread_subscriptions, "MAX_THREADS", 2)
    for root in roots[:2]:
        subscribe(alice, room_id, root)

    with unchanged(app):
        answers = [
            alice.put(path(room_id, roots[2]), json={}),
            alice.delete(path(room_id, roots[2])),
        ]
    unsubscribe(alice, room_id, roots[0])

    assert [refusal(it) for it in answers] == [(403, "M_USER_LIMIT_EXCEEDED")] * 2


def unread(person: Person, room_id: str) -> dict[str, tuple[int, int]]:
    """{thread: (notifications, highlights)} of a first sync."""
    found = person.sync(**BY_THREAD)["rooms"]["join"][room_id].get(
        "unread_thread_notifications", {}
    )
    return {
        thread: (it["notification_count"], it["highlight_count"]) for thread, it in found.items()
    }


def test_replies_notify_the_subscribed_users(login: Login, room: Room) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)
    root, other = alice.send(room_id), alice.send(room_id)
    subscribe(bob, room_id, root)
    subscribe(carol, room_id, other)

    in_thread(alice, room_id, root)

    assert unread(bob, room_id) == {root: (1, 0)}
    assert unread(carol, room_id) == {}


def test_a_subscription_outranks_the_settings_of_the_room(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    root, other = alice.send(room_id), alice.send(room_id)
    subscribe(bob, room_id, root)
    rule = f"pushrules/global/room/{quote(room_id, safe='')}"

    assert bob.put(rule, json={"actions": []}).status_code == 200
    in_thread(alice, room_id, root)
    assert bob.put(rule, json={"actions": ["notify"]}).status_code == 200
    in_thread(alice, room_id, other)

    assert unread(bob, room_id) == {root: (1, 0)}


def test_mentions_notify_in_any_thread(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    root, other = alice.send(room_id), alice.send(room_id)
    subscribe(bob, room_id, other)
    reply: Json = {
        "m.relates_to": {"rel_type": "m.thread", "event_id": root},
        "m.mentions": {"user_ids": [bob.user_id]},
    }

    alice.send(room_id, **reply)

    assert unread(bob, room_id) == {root: (1, 1)}


def test_users_who_never_subscribe_are_notified_as_before(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    root = alice.send(room_id)
    subscribe(alice, room_id, root)

    in_thread(alice, room_id, root)

    assert unread(bob, room_id) == {root: (1, 0)}


def test_the_rule_about_unsubscribed_threads_can_be_switched_off(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    root, other = alice.send(room_id), alice.send(room_id)
    subscribe(bob, room_id, other)
    rule = "pushrules/global/postcontent/.io.element.msc4306.rule.unsubscribed_thread"

    assert bob.put(f"{rule}/enabled", json={"enabled": False}).status_code == 200
    in_thread(alice, room_id, root)

    assert unread(bob, room_id) == {root: (1, 0)}


def test_the_rules_about_threads_stand_between_those_of_content_and_of_rooms(login: Login) -> None:
    found = login("alice").get("pushrules/").get_json()["global"]

    assert list(found) == ["override", "content", "postcontent", "room", "sender", "underride"]
    assert [
        (it["rule_id"], it["conditions"][0]["subscribed"], it["actions"])
        for it in found["postcontent"]
    ] == [
        (".io.element.msc4306.rule.unsubscribed_thread", False, []),
        (
            ".io.element.msc4306.rule.subscribed_thread",
            True,
            ["notify", {"set_tweak": "sound", "value": "default"}],
        ),
    ]


def test_users_have_no_rules_of_their_own_between_content_and_rooms(
    app: Application, login: Login
) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.put("pushrules/global/postcontent/mine", json={"actions": []})

    assert refusal(answer) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("condition", [{}, {"subscribed": 1}, {"subscribed": "true"}], ids=str)
def test_a_malformed_condition_about_subscriptions_is_refused(
    app: Application, login: Login, condition: Json
) -> None:
    alice = login("alice")
    rule = {"actions": [], "conditions": [{"kind": THREAD_SUBSCRIPTION, **condition}]}

    with unchanged(app):
        answer = alice.put("pushrules/global/override/mine", json=rule)

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_subscriptions_end_with_the_room_and_with_the_account(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    purged, kept = room(alice, bob), room(alice, bob)
    for room_id in (purged, kept):
        root = alice.send(room_id)
        subscribe(alice, room_id, root)
        subscribe(bob, room_id, root)

    purge.purge(app.homeserver.database, purged, is_forced=True)
    auth = {"type": "m.login.password", "user": "bob", "password": PASSWORD}
    assert bob.post("account/deactivate", json={"auth": auth}).status_code == 200

    with app.homeserver.database.read() as tx:
        found = [
            thread_subscriptions.changes(tx, it.user_id, 0, tx.position, 10).subscribed
            for it in (alice, bob)
        ]
    assert [list(it) for it in found] == [[kept], []]
