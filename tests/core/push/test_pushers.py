from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema  # type: ignore[import-untyped]  # it has no types of its own
import pytest

from homebody.web import Application
from tests.conftest import PASSWORD, Login, MakeApp, Person
from tests.helpers.deliveries import delivering, tries, waiting
from tests.helpers.gateway import Gateway, running
from tests.helpers.rooms import read, refusal
from tests.helpers.server import free_port
from tests.helpers.waiting import wait_for

Json = dict[str, Any]
Room = Callable[..., str]
SCHEMA = Path(__file__).parents[2] / "vectors/push_gateway_schema.json"
PUBLIC = "https://8.8.8.8/_matrix/push/v1/notify"


@pytest.fixture
def app(make_app: MakeApp) -> Iterator[Application]:
    with delivering(make_app(outside_allowed="127.0.0.1")) as app:
        yield app


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    """A gateway that does not run yet."""
    return Gateway(free_port(), tmp_path / "told.jsonl")


@pytest.fixture
def open_gateway(gateway: Gateway) -> Iterator[Gateway]:
    with running(gateway):
        yield gateway


def pusher(url: str, pushkey: str = "key", **changes: Any) -> Json:
    return {
        "app_id": "org.example.app",
        "pushkey": pushkey,
        "kind": "http",
        "app_display_name": "App",
        "device_display_name": "Phone",
        "lang": "en",
        "data": {"url": url},
        **changes,
    }


def set_pusher(person: Person, url: str, pushkey: str = "key", **changes: Any) -> None:
    answer = person.post("pushers/set", json=pusher(url, pushkey, **changes))
    assert (answer.status_code, answer.get_json()) == (200, {})


def pushers_of(person: Person) -> list[Json]:
    answer = person.get("pushers")
    assert answer.status_code == 200
    shown: list[Json] = answer.get_json()["pushers"]
    return shown


def test_a_pusher_is_listed_as_it_was_set(login: Login) -> None:
    alice = login("alice")
    data = {"url": PUBLIC, "format": "event_id_only", "org.example.more": [1]}

    set_pusher(alice, PUBLIC, data=data, profile_tag="work")
    set_pusher(alice, PUBLIC, "other")

    first, second = sorted(pushers_of(alice), key=lambda it: str(it["pushkey"]))
    assert first == {**pusher(PUBLIC, data=data), "profile_tag": "work"}
    assert second == pusher(PUBLIC, "other")


def test_setting_it_again_changes_it(login: Login) -> None:
    alice = login("alice")
    set_pusher(alice, PUBLIC, profile_tag="work")

    set_pusher(alice, PUBLIC, lang="de")

    assert pushers_of(alice) == [pusher(PUBLIC, lang="de")]


def test_kind_null_deletes_it_and_a_second_time_changes_nothing(login: Login) -> None:
    alice = login("alice")
    set_pusher(alice, PUBLIC)
    key = {"app_id": "org.example.app", "pushkey": "key", "kind": None}

    answers = [alice.post("pushers/set", json=key) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert pushers_of(alice) == []


def test_another_user_with_the_same_key_takes_it_over(login: Login) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    set_pusher(alice, PUBLIC)
    set_pusher(bob, PUBLIC, append=True)
    kept = [len(pushers_of(it)) for it in (alice, bob)]

    set_pusher(carol, PUBLIC)

    assert kept == [1, 1]
    assert [len(pushers_of(it)) for it in (alice, bob, carol)] == [0, 0, 1]


@pytest.mark.parametrize(
    "url",
    [
        "https://push.example.org/",
        "https://push.example.org/_matrix/push/v1/notify/",
        "https://push.example.org/_matrix/push/r0/notify",
        "ftp://push.example.org/_matrix/push/v1/notify",
        "https:///_matrix/push/v1/notify",
        "https://[::1/_matrix/push/v1/notify",
        "/_matrix/push/v1/notify",
        7,
    ],
)
def test_a_url_that_is_none_of_a_gateway_is_refused(login: Login, url: object) -> None:
    answer = login("alice").post("pushers/set", json=pusher("", data={"url": url}))

    assert refusal(answer) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("host", ["127.0.0.2", "10.0.0.1:8080", "[::1]", "169.254.169.254"])
def test_a_private_gateway_is_refused_with_the_name_of_the_setting(login: Login, host: str) -> None:
    url = f"http://{host}/_matrix/push/v1/notify"

    answer = login("alice").post("pushers/set", json=pusher(url))

    assert refusal(answer) == (400, "M_INVALID_PARAM")
    assert "outside_allowed" in answer.get_json()["error"]


@pytest.mark.parametrize(
    ("changes", "errcode"),
    [
        ({"kind": "email"}, "M_INVALID_PARAM"),
        ({"kind": "pigeon"}, "M_INVALID_PARAM"),
        ({"kind": 1}, "M_BAD_JSON"),
        ({"app_id": "x" * 65}, "M_INVALID_PARAM"),
        ({"pushkey": "ü" * 257}, "M_INVALID_PARAM"),
        ({"data": {}}, "M_MISSING_PARAM"),
        ({"data": []}, "M_BAD_JSON"),
        ({"data": {"url": PUBLIC, "x": "x" * 20_000}}, "M_INVALID_PARAM"),
        ({"lang": None}, "M_BAD_JSON"),
        ({"app_display_name": "x" * 2000}, "M_INVALID_PARAM"),
        ({"append": "yes"}, "M_BAD_JSON"),
        ({"app_id": "m.email"}, "M_INVALID_PARAM"),
    ],
)
def test_what_makes_no_pusher_is_refused(login: Login, changes: Json, errcode: str) -> None:
    alice = login("alice")

    answer = alice.post("pushers/set", json=pusher(PUBLIC) | changes)

    assert refusal(answer) == (400, errcode)
    assert pushers_of(alice) == []


@pytest.mark.parametrize("name", ["app_id", "pushkey", "kind", "lang", "data", "app_display_name"])
def test_a_part_that_is_missing_is_named(login: Login, name: str) -> None:
    body = pusher(PUBLIC)
    del body[name]

    answer = login("alice").post("pushers/set", json=body)

    assert refusal(answer) == (400, "M_MISSING_PARAM")
    assert name in answer.get_json()["error"]


def test_nobody_collects_pushers(login: Login) -> None:
    alice = login("alice")
    answers = [alice.post("pushers/set", json=pusher(PUBLIC, str(n))) for n in range(101)]

    assert answers[99].status_code == 200
    assert refusal(answers[100]) == (400, "M_INVALID_PARAM")
    assert len(pushers_of(alice)) == 100


def test_the_last_pusher_that_fits_can_still_be_changed_and_replaced(login: Login) -> None:
    alice = login("alice")
    for number in range(100):
        set_pusher(alice, PUBLIC, str(number))

    set_pusher(alice, PUBLIC, "7", lang="fr")
    alice.post("pushers/set", json={"app_id": "org.example.app", "pushkey": "8", "kind": None})
    set_pusher(alice, PUBLIC, "new")

    langs = {it["pushkey"]: it["lang"] for it in pushers_of(alice)}
    assert (len(langs), langs["7"], langs["new"]) == (100, "fr", "en")


def test_a_pusher_goes_with_the_session_that_made_it(login: Login) -> None:
    phone, laptop = login("alice"), login("alice")
    set_pusher(phone, PUBLIC, "phone")
    set_pusher(laptop, PUBLIC, "laptop")

    phone.post("logout")

    assert [it["pushkey"] for it in pushers_of(laptop)] == ["laptop"]


def test_a_new_password_ends_the_pushers_of_the_other_sessions(login: Login) -> None:
    phone, laptop = login("alice"), login("alice")
    set_pusher(phone, PUBLIC, "phone")
    set_pusher(laptop, PUBLIC, "laptop")
    who = {"type": "m.id.user", "user": "alice"}
    auth = {"type": "m.login.password", "identifier": who, "password": PASSWORD}

    answer = laptop.post("account/password", json={"new_password": "another one", "auth": auth})

    assert answer.status_code == 200
    assert [it["pushkey"] for it in pushers_of(laptop)] == ["laptop"]


def test_a_gateway_is_told_all_about_an_event(
    login: Login, room: Room, open_gateway: Gateway
) -> None:
    alice, bob = login("alice"), login("bob")
    alice.put(f"profile/{alice.user_id}/displayname", json={"displayname": "Alice A."})
    room_id = room(alice, bob, name="Kitchen", room_alias_name="kitchen")
    data = {"url": open_gateway.url, "org.example.more": 1}
    set_pusher(bob, open_gateway.url, data=data)

    event_id = alice.send(room_id, "dinner!")

    told = open_gateway.wait_for(event_id)
    (device,) = told.pop("devices")
    assert told == {
        "event_id": event_id,
        "room_id": room_id,
        "type": "m.room.message",
        "sender": alice.user_id,
        "sender_display_name": "Alice A.",
        "room_name": "Kitchen",
        "room_alias": "#kitchen:localhost",
        "prio": "high",
        "content": {"msgtype": "m.text", "body": "dinner!"},
        "counts": {"unread": 1},
    }
    assert device.pop("pushkey_ts") > 1_600_000_000
    assert device == {
        "app_id": "org.example.app",
        "pushkey": "key",
        "data": {"org.example.more": 1},
        "tweaks": {"sound": "default"},
    }


def test_what_is_sent_is_what_the_specification_describes(
    login: Login, room: Room, open_gateway: Gateway
) -> None:
    schema = json.loads(SCHEMA.read_text())
    alice, bob = login("alice"), login("bob")
    set_pusher(bob, open_gateway.url)
    room_id = alice.create_room(invite=[bob.user_id])

    (invite,) = open_gateway.wait(bool)
    bob.post(f"rooms/{quote(room_id)}/join")
    event_id = alice.send(room_id, "one")
    open_gateway.wait_for(event_id)
    read(bob, room_id, event_id)

    told = open_gateway.wait(lambda all_: "event_id" not in all_[-1])
    for notification in told:
        jsonschema.validate({"notification": notification}, schema)
    assert (invite["type"], invite["user_is_target"]) == ("m.room.member", True)


def test_event_id_only_says_no_more_than_that(
    login: Login, room: Room, open_gateway: Gateway
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, name="Kitchen")
    set_pusher(bob, "", data={"url": open_gateway.url, "format": "event_id_only"})

    event_id = alice.send(room_id)

    told = open_gateway.wait_for(event_id)
    assert set(told) == {"event_id", "room_id", "prio", "counts", "devices"}
    assert told["devices"][0]["data"] == {"format": "event_id_only"}


def test_without_include_content_the_message_stays_here(
    make_app: MakeApp, open_gateway: Gateway, room: Room
) -> None:
    options = {"outside_allowed": "127.0.0.1", "push.include_content": "false"}
    with delivering(make_app(**options)) as app:
        alice, bob = person(app, "alice"), person(app, "bob")
        room_id = room(alice, bob)
        set_pusher(bob, open_gateway.url)

        event_id = alice.send(room_id)
        told = open_gateway.wait_for(event_id)

    assert "content" not in told
    assert told["sender"] == alice.user_id


def person(app: Application, name: str) -> Person:
    client = app.test_client()
    body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    session = client.post("/_matrix/client/v3/register", json=body).get_json()
    return Person(client, session["user_id"], session["access_token"], session["device_id"])


def test_encrypted_events_and_mentions_are_urgent_and_chatter_is_not(
    login: Login, room: Room, open_gateway: Gateway
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)
    set_pusher(bob, open_gateway.url)
    cipher = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x"}

    chatter = alice.send(room_id)
    mentions = {"m.mentions": {"user_ids": [bob.user_id]}, "msgtype": "m.text", "body": "hi"}
    sent = f"rooms/{quote(room_id)}/send"
    mention = alice.put(f"{sent}/m.room.message/1", json=mentions).get_json()["event_id"]
    encrypted = alice.put(f"{sent}/m.room.encrypted/2", json=cipher).get_json()["event_id"]

    told = [open_gateway.wait_for(it) for it in (chatter, mention, encrypted)]
    assert [it["prio"] for it in told] == ["low", "high", "high"]
    assert told[1]["devices"][0]["tweaks"] == {"highlight": True, "sound": "default"}


def test_what_does_not_notify_is_not_told(login: Login, room: Room, open_gateway: Gateway) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    set_pusher(bob, open_gateway.url)
    set_pusher(alice, open_gateway.url, "alice")

    alice.send(room_id, msgtype="m.notice")
    last = alice.send(room_id)

    open_gateway.wait_for(last)
    assert [it["event_id"] for it in open_gateway.told()] == [last]


def test_the_badge_counts_messages_and_follows_what_is_read(
    login: Login, room: Room, open_gateway: Gateway
) -> None:
    alice, bob = login("alice"), login("bob")
    one, other = room(alice, bob), room(alice, bob)
    set_pusher(bob, open_gateway.url)
    alice.send(one)
    last = alice.send(one)
    third = alice.send(other)
    full = open_gateway.wait_for(third)

    read(bob, one, last)
    open_gateway.wait(lambda all_: "event_id" not in all_[-1])
    read(bob, other, third)

    told = open_gateway.wait(lambda all_: sum("event_id" not in it for it in all_) == 2)
    badges = [it for it in told if "event_id" not in it]
    assert full["counts"] == {"unread": 3}
    assert [it["counts"] for it in badges] == [{"unread": 1}, {"unread": 0}]
    assert all("room_id" not in it for it in badges)


def badges(told: list[Json]) -> list[Json]:
    """The counts of those notifications that are about the badge alone."""
    return [it["counts"] for it in told if "event_id" not in it]


@pytest.mark.parametrize("how", ["leave", "kick", "ban"])
def test_the_badge_follows_when_its_user_is_no_longer_in_the_room(
    login: Login, room: Room, open_gateway: Gateway, how: str
) -> None:
    alice, bob = login("alice"), login("bob")
    one, other = room(alice, bob), room(alice, bob)
    set_pusher(bob, open_gateway.url)
    alice.send(one)
    open_gateway.wait_for(alice.send(other))

    if how == "leave":
        bob.post(f"rooms/{one}/leave")
    else:
        alice.post(f"rooms/{one}/{how}", json={"user_id": bob.user_id})

    told = open_gateway.wait(lambda all_: bool(badges(all_)))
    assert badges(told) == [{"unread": 1}]


def test_the_badge_follows_when_an_unread_message_is_redacted(
    login: Login, room: Room, open_gateway: Gateway
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    set_pusher(bob, open_gateway.url)
    first = alice.send(room_id)
    open_gateway.wait_for(alice.send(room_id))

    alice.put(f"rooms/{room_id}/redact/{first}/t1", json={})

    told = open_gateway.wait(lambda all_: bool(badges(all_)))
    assert badges(told) == [{"unread": 1}]


def test_leaving_a_room_without_unread_messages_pushes_nothing(
    login: Login, room: Room, open_gateway: Gateway
) -> None:
    alice, bob = login("alice"), login("bob")
    one, other = room(alice, bob), room(alice, bob)
    set_pusher(bob, open_gateway.url)

    bob.post(f"rooms/{one}/leave")
    last = alice.send(other)

    open_gateway.wait_for(last)
    assert badges(open_gateway.told()) == []


def test_the_badge_counts_rooms_where_the_owner_wants_that(
    make_app: MakeApp, open_gateway: Gateway, room: Room
) -> None:
    options = {"outside_allowed": "127.0.0.1", "push.group_unread_count_by_room": "true"}
    with delivering(make_app(**options)) as app:
        alice, bob = person(app, "alice"), person(app, "bob")
        one, other = room(alice, bob), room(alice, bob)
        set_pusher(bob, open_gateway.url)

        for room_id in (one, one, other):
            event_id = alice.send(room_id)
        told = open_gateway.wait_for(event_id)

    assert told["counts"] == {"unread": 2}


def test_a_rejected_key_loses_its_pusher(
    login: Login, room: Room, open_gateway: Gateway, app: Application
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    set_pusher(bob, open_gateway.url, "gone-1")
    set_pusher(bob, open_gateway.url, "good")

    for _ in range(3):
        event_id = alice.send(room_id)
    keys = open_gateway.wait(
        lambda all_: [it["devices"][0]["pushkey"] for it in all_].count("good") == 3
    )
    app.homeserver.delivery.stop()

    assert [it["pushkey"] for it in pushers_of(bob)] == ["good"]
    assert [it["devices"][0]["pushkey"] for it in keys].count("gone-1") == 1
    assert keys[-1]["event_id"] == event_id
    assert waiting(app) == []


def test_a_gateway_that_was_down_is_told_in_order_when_it_is_back(
    login: Login, room: Room, gateway: Gateway, app: Application
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    set_pusher(bob, gateway.url)
    sent = [alice.send(room_id, str(n)) for n in range(3)]
    wait_for(lambda: tries(app) > 0)

    with running(gateway):
        told = gateway.wait(lambda all_: len(all_) >= 3)
    app.homeserver.delivery.stop()

    assert [it["event_id"] for it in told] == sent
    assert waiting(app) == []


def test_a_restart_loses_nothing_that_waits(
    make_app: MakeApp, room: Room, gateway: Gateway
) -> None:
    with delivering(make_app(outside_allowed="127.0.0.1")) as app:
        alice, bob = person(app, "alice"), person(app, "bob")
        room_id = room(alice, bob)
        set_pusher(bob, gateway.url)
        event_id = alice.send(room_id)
    app.homeserver.database.close()

    with running(gateway), delivering(make_app(outside_allowed="127.0.0.1")):
        told = gateway.wait_for(event_id)

    assert told["room_id"] == room_id


def test_what_waits_for_a_pusher_goes_with_it(
    login: Login, room: Room, gateway: Gateway, app: Application
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    set_pusher(bob, gateway.url)
    alice.send(room_id)
    before = waiting(app)

    bob.post("pushers/set", json={"app_id": "org.example.app", "pushkey": "key", "kind": None})
    alice.send(room_id)

    assert len(before) == 1
    assert waiting(app) == []


def test_what_was_read_or_redacted_before_it_could_be_told_is_not_told(
    login: Login, room: Room, gateway: Gateway
) -> None:
    alice, bob = login("alice"), login("bob")
    one, other = room(alice, bob), room(alice, bob)
    set_pusher(bob, gateway.url)
    read(bob, one, alice.send(one, "read elsewhere"))
    mistake = alice.send(other, "a mistake")
    alice.put(f"rooms/{quote(other)}/redact/{quote(mistake)}/1", json={})
    last = alice.send(other, "better")

    with running(gateway):
        gateway.wait_for(last)

    assert [it["event_id"] for it in gateway.told() if "event_id" in it] == [last]


def test_a_locked_account_is_pushed_nothing(
    app: Application, login: Login, room: Room, open_gateway: Gateway
) -> None:
    alice, bob = login("alice"), login("bob")  # the first is administrator
    room_id = room(alice, bob)
    set_pusher(bob, open_gateway.url)
    path = f"/_matrix/client/v1/admin/lock/{bob.user_id}"
    assert alice.put(path, json={"locked": True}).status_code == 200

    unsent = alice.send(room_id, "not for whoever has taken it over")
    wait_for(lambda: not waiting(app))
    assert alice.put(path, json={"locked": False}).status_code == 200
    last = alice.send(room_id, "welcome back")
    open_gateway.wait_for(last)

    assert unsent not in [it.get("event_id") for it in open_gateway.told()]


def test_without_pushers_nothing_is_queued(login: Login, room: Room, app: Application) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    app.homeserver.delivery.stop()

    alice.send(room_id)

    assert waiting(app) == []
