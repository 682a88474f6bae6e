"""Events and EDUs that other servers are sent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from homebody.background.federation.sender import Sender
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers import remote_members
from tests.helpers.remote import Remote, Remotes

SEND = "/send/"


@pytest.fixture
def sender(app: Application) -> Iterator[Sender]:
    found = app.homeserver.sender
    found.start()
    yield found
    found.stop()


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def bodies(remote: Remote) -> list[str]:
    """The texts of the messages that a server has got, in order."""
    return [it["content"]["body"] for it in remote.pdus if it["type"] == "m.room.message"]


def shared_room(app: Application, alice: Person, *remotes: Remote) -> str:
    """Return a room with Alice and a user of each server."""
    room_id = alice.create_room(preset="public_chat")
    remote_members.join(app, room_id, *(it.user_id("carol") for it in remotes))
    return room_id


def test_a_message_reaches_the_other_servers_of_the_room(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b, c, stranger = remote("b.test"), remote("c.test"), remote("d.test")
    room_id = shared_room(app, alice, b, c)

    alice.send(room_id, "hello")

    b.wait_until(lambda: bodies(b) == ["hello"])
    c.wait_until(lambda: bodies(c) == ["hello"])
    assert not stranger.transactions
