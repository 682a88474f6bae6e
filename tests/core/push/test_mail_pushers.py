"""Pushers by e-mail: when a mail comes, what it says, and that there are not too many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.accounts import accounts
from homebody.core.push import mail_notices
from homebody.web import Application
from tests.conftest import PASSWORD, Login, MakeApp, Person
from tests.core.accounts.test_threepids import add
from tests.helpers import mail_server
from tests.helpers.deliveries import delivering, tries, waiting
from tests.helpers.mail_server import Mailbox, body_of
from tests.helpers.rooms import act, read, refusal
from tests.helpers.server import free_port
from tests.helpers.waiting import wait_for

Json = dict[str, Any]
Room = Callable[..., str]
ADDRESS = "alice@example.org"
DELAY, INTERVAL = {"push.mail_delay": "300 ms"}, {"push.mail_interval": "1500 ms"}
SUBJECT = "Confirm your e-mail address"


@pytest.fixture(scope="module")
def mailbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailbox]:
    with mail_server.running(tmp_path_factory.mktemp("mail")) as running:
        yield running


@pytest.fixture
def settings(mailbox: Mailbox) -> dict[str, str]:
    mailbox.empty()
    return {**mailbox.settings, **DELAY, **INTERVAL}


@pytest.fixture
def app(make_app: MakeApp, settings: dict[str, str]) -> Iterator[Application]:
    with delivering(make_app(**settings)) as app:
        yield app


@pytest.fixture
def bob(login: Login) -> Person:
    bob = login("bob")
    bob.put(f"profile/{bob.user_id}/displayname", json={"displayname": "Bob"})
    return bob


@pytest.fixture
def alice(login: Login, mailbox: Mailbox) -> Person:
    """Has an address, and a pusher for it."""
    alice = login("alice")
    add(alice, mailbox, ADDRESS)
    answer = alice.post("pushers/set", json=pusher())
    assert (answer.status_code, answer.get_json()) == (200, {})
    return alice


def pusher(**changes: Any) -> Json:
    return {
        "app_id": "m.email",
        "pushkey": ADDRESS,
        "kind": "email",
        "app_display_name": "Email Notifications",
        "device_display_name": ADDRESS,
        "lang": "en",
        "data": {"brand": "Element"},
        **changes,
    }


def mails(mailbox: Mailbox) -> list[Any]:
    """Those about messages, the oldest first."""
    return [it for it in mailbox.messages(ADDRESS) if SUBJECT not in it["Subject"]]


def once_come(mailbox: Mailbox, count: int) -> list[Any]:
    """Return the mails about messages, once there are so many."""
    wait_for(lambda: len(mails(mailbox)) >= count, "the mail")
    return mails(mailbox)


def test_a_mail_tells_of_all_that_is_unread_after_a_while(
    bob: Person, alice: Person, room: Room, mailbox: Mailbox
) -> None:
    room_id = room(bob, alice, name="Tea <party>")
    began = time.monotonic()
    bob.send(room_id, "is anybody there?")
    bob.send(room_id, "the <kettle>\r\nBcc: eve@example.org")

    (mail,) = once_come(mailbox, 1)

    assert time.monotonic() - began > 0.3
    assert mail["Subject"] == "[Element] 2 unread messages in Tea <party>"
    assert mail["Bcc"] is None
    text, page = body_of(mail, "plain"), body_of(mail, "html")
    assert "Bob: is anybody there?" in text
    assert "Bob: the <kettle> Bcc: eve@example.org" in text
    assert alice.user_id in text
    assert "the &lt;kettle&gt;" in page
    assert "<kettle>" not in page


def test_the_next_mail_comes_not_too_soon_and_tells_what_is_new(
    app: Application, bob: Person, alice: Person, room: Room, mailbox: Mailbox
) -> None:
    room_id = room(bob, alice)
    bob.send(room_id, "first")
    once_come(mailbox, 1)
    began = time.monotonic()

    for number in range(3):
        bob.send(room_id, f"later {number}")
    *_, second = once_come(mailbox, 2)
    took = time.monotonic() - began
    wait_for(lambda: not waiting(app))

    assert took > 1
    text = body_of(second, "plain")
    assert [f"later {number}" in text for number in range(3)] == [True] * 3
    assert "first" not in text
    assert len(mails(mailbox)) == 2


def test_who_has_read_it_in_time_gets_no_mail(
    app: Application, bob: Person, alice: Person, room: Room, mailbox: Mailbox
) -> None:
    room_id = room(bob, alice)
    read(alice, room_id, bob.send(room_id))
    assert [kind for kind, _ in waiting(app)] == ["mail"]

    wait_for(lambda: not waiting(app))

    assert mails(mailbox) == []


def test_what_came_after_the_reading_has_its_own_time(
    app: Application, bob: Person, alice: Person, room: Room, mailbox: Mailbox
) -> None:
    room_id = room(bob, alice)
    read(alice, room_id, bob.send(room_id, "was read"))
    time.sleep(0.2)
    bob.send(room_id, "was not")
    began = time.monotonic()

    (mail,) = once_come(mailbox, 1)

    assert time.monotonic() - began > 0.25
    assert mail["Subject"].startswith("[Element] 1 unread message in ")
    assert "was not" in body_of(mail, "plain")


def test_a_restart_changes_nothing(
    make_app: MakeApp,
    settings: dict[str, str],
    app: Application,
    bob: Person,
    alice: Person,
    room: Room,
    mailbox: Mailbox,
) -> None:
    room_id = room(bob, alice)
    app.homeserver.delivery.stop()
    bob.send(room_id, "before the restart")
    assert waiting(app) == [("mail", f'["{alice.user_id}","m.email","{ADDRESS}"]')]

    with delivering(make_app(**settings)) as restarted:
        found = once_come(mailbox, 1)
        wait_for(lambda: not waiting(restarted))

    assert ["before the restart" in body_of(mail, "plain") for mail in found] == [True]


def test_the_mail_waits_for_a_mail_server_that_is_away(
    make_app: MakeApp,
    settings: dict[str, str],
    app: Application,
    bob: Person,
    alice: Person,
    room: Room,
    mailbox: Mailbox,
) -> None:
    room_id = room(bob, alice)
    app.homeserver.delivery.stop()
    bob.send(room_id, "wait for it")
    with delivering(make_app(**{**settings, "smtp.port": str(free_port())})) as away:
        wait_for(lambda: tries(away) > 0)

    with delivering(make_app(**settings)):
        (mail,) = once_come(mailbox, 1)

    assert "wait for it" in body_of(mail, "plain")


def test_invites_and_encrypted_messages_are_told_without_what_they_say(
    bob: Person, alice: Person, room: Room, mailbox: Mailbox
) -> None:
    room_id = room(bob, alice)
    content = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AwgA", "session_id": "s"}
    path = f"rooms/{quote(room_id)}/send/m.room.encrypted/1"
    assert bob.put(path, json=content).status_code == 200
    act(bob, bob.create_room(name="Den"), "invite", user_id=alice.user_id)

    (mail,) = once_come(mailbox, 1)

    assert mail["Subject"] == "[Element] 2 unread messages in 2 rooms"
    text = body_of(mail, "plain")
    assert "a conversation with Bob" in text
    assert "Bob sent an encrypted message" in text
    assert "Den" in text
    assert "Bob invites you" in text


def test_a_locked_account_gets_no_mail(
    app: Application, bob: Person, alice: Person, room: Room, mailbox: Mailbox
) -> None:
    room_id = room(bob, alice)
    with app.homeserver.database.write() as tx:
        accounts.set_locked(tx, alice.user_id, is_locked=True)
    bob.send(room_id, "while she is locked out")
    wait_for(lambda: not waiting(app))

    assert mails(mailbox) == []


def test_an_invite_tells_nobody_who_else_is_in_the_room(
    login: Login, bob: Person, alice: Person, mailbox: Mailbox
) -> None:
    anna = login("anna")
    room_id = bob.create_room(invite=[anna.user_id])
    act(anna, room_id, "join")
    act(bob, room_id, "invite", user_id=alice.user_id)

    (mail,) = once_come(mailbox, 1)

    assert mail["Subject"] == "[Element] 1 unread message in a room"
    assert "Bob invites you" in body_of(mail, "plain")
    assert "anna" not in body_of(mail, "plain") + body_of(mail, "html")


def test_an_owner_who_keeps_messages_in_keeps_them_out_of_mails(
    make_app: MakeApp,
    settings: dict[str, str],
    app: Application,
    bob: Person,
    alice: Person,
    room: Room,
    mailbox: Mailbox,
) -> None:
    room_id = room(bob, alice)
    app.homeserver.delivery.stop()
    bob.send(room_id, "between us")

    with delivering(make_app(**settings, **{"push.include_content": "false"})):
        (mail,) = once_come(mailbox, 1)

    assert "Bob sent a message" in body_of(mail, "plain")
    assert "between us" not in mail.as_string()


def test_it_is_listed_deleted_and_gone_with_its_address(
    bob: Person, alice: Person, room: Room, app: Application, mailbox: Mailbox
) -> None:
    listed = alice.get("pushers").get_json()["pushers"]
    room_id = room(bob, alice)
    bob.send(room_id)
    with_address = waiting(app)
    alice.post("account/3pid/delete", json={"medium": "email", "address": ADDRESS})

    assert listed == [pusher()]
    assert [kind for kind, _ in with_address] == ["mail"]
    assert waiting(app) == []
    assert alice.get("pushers").get_json()["pushers"] == []
    bob.send(room_id)
    assert waiting(app) == []
    assert mails(mailbox) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"app_id": "org.example.app"}, (400, "M_INVALID_PARAM")),
        ({"pushkey": "eve@example.org"}, (400, "M_THREEPID_NOT_FOUND")),
        ({"pushkey": "no address"}, (400, "M_THREEPID_NOT_FOUND")),
        ({"lang": "x" * 2000}, (400, "M_INVALID_PARAM")),
        ({"kind": "pigeon"}, (400, "M_INVALID_PARAM")),
    ],
)
def test_it_takes_an_address_of_ones_own(
    alice: Person, changes: Json, expected: tuple[int, str]
) -> None:
    assert refusal(alice.post("pushers/set", json=pusher(**changes))) == expected


def test_a_push_gateway_of_another_user_takes_no_mail_pusher_away(
    alice: Person, bob: Person
) -> None:
    data = {"url": "https://push.example.org/_matrix/push/v1/notify"}

    refused = bob.post("pushers/set", json=pusher(kind="http", data=data))
    own = alice.post("pushers/set", json=pusher(kind="http", data=data))
    bob.post("pushers/set", json={"app_id": "m.email", "pushkey": ADDRESS, "kind": None})

    assert [refusal(it) for it in (refused, own)] == [(400, "M_INVALID_PARAM")] * 2
    assert [it["kind"] for it in alice.get("pushers").get_json()["pushers"]] == ["email"]


def test_the_address_may_be_written_in_capitals(alice: Person) -> None:
    assert alice.post("pushers/set", json=pusher(pushkey="Alice@Example.ORG")).status_code == 200

    assert [it["pushkey"] for it in alice.get("pushers").get_json()["pushers"]] == [ADDRESS]


def test_without_a_mail_server_it_is_refused(make_app: MakeApp, tmp_path: Path) -> None:
    client = make_app().test_client()
    body = {"username": "carol", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    session = client.post("/_matrix/client/v3/register", json=body).get_json()
    carol = Person(client, session["user_id"], session["access_token"], session["device_id"])

    assert refusal(carol.post("pushers/set", json=pusher())) == (400, "M_INVALID_PARAM")


def test_what_becomes_unread_during_the_last_look_is_not_forgotten(
    app: Application,
    bob: Person,
    alice: Person,
    room: Room,
    mailbox: Mailbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room_id = room(bob, alice)
    look, looks = mail_notices.news, list[object]()

    def and_then_a_message_comes(*asked: Any) -> Any:
        found = look(*asked)
        looks.append(found)
        if len(looks) == 1:
            bob.send(room_id, "just in time")
        return found

    monkeypatch.setattr(mail_notices, "news", and_then_a_message_comes)
    read(alice, room_id, bob.send(room_id, "was read"))

    (mail,) = once_come(mailbox, 1)

    assert looks[0] is None
    assert "just in time" in body_of(mail, "plain")


def test_an_address_that_takes_no_mail_is_not_pestered(
    app: Application, bob: Person, alice: Person, room: Room, mailbox: Mailbox
) -> None:
    nobody = "nobody@example.org"
    with app.homeserver.database.write() as tx:
        tx.sql.raw.execute("UPDATE threepids SET address = ?", (nobody,))
    assert alice.post("pushers/set", json=pusher(pushkey=nobody)).status_code == 200
    room_id = room(bob, alice)

    bob.send(room_id)
    wait_for(lambda: not waiting(app))

    assert mails(mailbox) == []
    assert nobody in [it["pushkey"] for it in alice.get("pushers").get_json()["pushers"]]
