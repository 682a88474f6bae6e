"""Which events other servers are sent, and in which order."""

from __future__ import annotations

import time
from urllib.parse import quote

from homebody.background.federation.sender import Sender
from homebody.core.timeline import sending
from homebody.core.timeline.sending import Draft
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.helpers.remote import Remotes
from tests.helpers.sent import (
    SEND,
    logged,
    sent,
)
from tests.helpers.shared_rooms import join, leave, shared_room, wait_for_bodies


def registered(app: Application) -> Person:
    """Register Alice."""
    body = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    client = app.test_client()
    session = client.post(V3 + "register", json=body).get_json()
    return Person(client, session["user_id"], session["access_token"], session["device_id"])


def test_a_message_reaches_the_other_servers_of_the_room(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b, c, stranger = remote("b.test"), remote("c.test"), remote("d.test")
    room_id = shared_room(app, alice, b, c)

    event_id = alice.send(room_id, "hello")
    wait_for_bodies(b, ["hello"])
    wait_for_bodies(c, ["hello"])

    assert not stranger.transactions
    (pdu,) = b.pdus
    assert (pdu["room_id"], pdu["sender"]) == (room_id, alice.user_id)
    assert "unsigned" not in pdu
    assert "event_id" not in pdu
    assert event_id.startswith("$")
    transaction = b.transactions[0]
    assert transaction["origin"] == "localhost"
    assert transaction["edus"] == []
    assert abs(transaction["origin_server_ts"] - time.time() * 1000) < 60_000


def test_a_room_of_local_users_logs_nothing(
    app: Application, remote: Remotes, sender: Sender, alice: Person, login: Login
) -> None:
    room_id = alice.create_room(preset="public_chat")
    login("bob").post(f"rooms/{quote(room_id)}/join")

    alice.send(room_id)

    assert logged(app) == 0


def test_without_federation_nothing_is_logged(make_app: MakeApp) -> None:
    app = make_app(federation="false")
    alice = registered(app)
    room_id = alice.create_room(preset="public_chat")
    join(app, room_id, "@carol:b.test")

    alice.send(room_id)

    assert logged(app) == 0


def test_events_of_other_servers_are_not_sent_on(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b, c = remote("b.test"), remote("c.test")
    room_id = shared_room(app, alice, b, c)

    join(app, room_id, b.user_id("dave"))
    alice.send(room_id, "hello")
    wait_for_bodies(c, ["hello"])

    assert len(c.pdus) == 1


def test_events_come_in_order_and_several_in_a_transaction(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    b.delay(SEND, 0.5, times=1)

    texts = [str(number) for number in range(120)]
    for text in texts:
        alice.send(room_id, text)
    wait_for_bodies(b, texts)

    sizes = [len(it["pdus"]) for it in b.transactions]
    assert len(sizes) <= 10
    assert max(sizes) <= 50
    paths = [path for path, _ in sent(b)]
    assert len(set(paths)) == len(paths)


def test_a_server_that_loses_its_last_member_gets_that_event_and_none_after_it(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b, c = remote("b.test"), remote("c.test")
    room_id = shared_room(app, alice, b, c)

    kicked = {"user_id": b.user_id("carol")}
    assert alice.post(f"rooms/{quote(room_id)}/kick", json=kicked).status_code == 200
    alice.send(room_id, "after")
    wait_for_bodies(c, ["after"])
    b.wait_until(lambda: b.pdus)

    assert [it["content"]["membership"] for it in b.pdus] == ["leave"]


def test_an_invite_that_is_taken_back_is_sent_to_a_server_that_is_not_in_the_room(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b, c = remote("b.test"), remote("c.test")
    room_id = alice.create_room(preset="public_chat")
    with app.homeserver.database.write() as tx:
        for it in (b, c):
            content, user_id = {"membership": "invite"}, it.user_id("carol")
            sending.send(tx, Draft(room_id, alice.user_id, "m.room.member", content, user_id))

    kicked = {"user_id": b.user_id("carol")}
    assert alice.post(f"rooms/{quote(room_id)}/kick", json=kicked).status_code == 200
    b.wait_until(lambda: b.pdus)

    assert [it["content"]["membership"] for it in b.pdus] == ["leave"]
    assert not sent(c)


def test_a_ban_of_a_user_who_was_not_there_is_no_business_of_their_server(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b, c = remote("b.test"), remote("c.test")
    room_id = shared_room(app, alice, c)

    banned = {"user_id": b.user_id("mallory")}
    assert alice.post(f"rooms/{quote(room_id)}/ban", json=banned).status_code == 200
    alice.send(room_id, "after")
    wait_for_bodies(c, ["after"])

    assert not sent(b)


def test_a_server_with_another_member_left_gets_all(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    join(app, room_id, b.user_id("dave"))

    leave(app, room_id, b.user_id("carol"))
    alice.send(room_id, "after")

    wait_for_bodies(b, ["after"])


def test_a_server_that_the_settings_exclude_gets_nothing(
    make_app: MakeApp, remote: Remotes
) -> None:
    b, c = remote("b.test"), remote("c.test")
    app = make_app(**remote.settings, federation_deny_servers='["b.test"]')
    app.homeserver.sender.start()
    alice = registered(app)
    room_id = shared_room(app, alice, b, c)
    remote.talk_to(app)

    alice.send(room_id, "hello")
    wait_for_bodies(c, ["hello"])

    app.homeserver.sender.stop()
    assert not sent(b)


def test_twenty_servers_get_everything(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    remotes = [remote() for _ in range(20)]
    room_id = shared_room(app, alice, *remotes)

    texts = [str(number) for number in range(20)]
    for text in texts:
        alice.send(room_id, text)

    for it in remotes:
        wait_for_bodies(it, texts)


def test_a_join_is_sent_to_the_others_and_what_follows_also_to_the_new_server(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b, c = remote("b.test"), remote("c.test")
    room_id = shared_room(app, alice, c)

    room = b.join(room_id, "carol")
    event_id = alice.send(room_id, "welcome")
    b.wait_for_event(event_id)
    wait_for_bodies(c, ["welcome"])

    assert [it["type"] for it in b.pdus] == ["m.room.message"]
    assert [it["type"] for it in c.pdus] == ["m.room.member", "m.room.message"]
    assert c.pdus[0]["state_key"] == b.user_id("carol")
    assert room.id == room_id
