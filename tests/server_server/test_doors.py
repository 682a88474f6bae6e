"""What the settings and rooms keep out: servers, users, and everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.remote import Remote, Remotes
from tests.helpers.rooms import refusal
from tests.helpers.shared_rooms import shared_room, wait_for_bodies

Json = dict[str, Any]
CAROL = "@carol:b.test"
FORBIDDEN = (403, "M_FORBIDDEN")


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def sending(app: Application) -> Iterator[None]:
    app.homeserver.sender.start()
    yield
    app.homeserver.sender.stop()


def invite(person: Person, room_id: str, user_id: str) -> Any:
    return person.post(f"rooms/{quote(room_id)}/invite", json={"user_id": user_id})


@pytest.mark.usefixtures("app")
class TestWithoutFederation:
    @pytest.fixture
    def app(self, make_app: MakeApp, remote: Remotes) -> Application:
        app = make_app(**{**remote.settings, "federation": "false"})
        remote.talk_to(app)
        return app

    @pytest.mark.parametrize(
        "path",
        [
            "/_matrix/federation/v1/version",
            "/_matrix/federation/v1/query/profile?user_id=@alice:localhost",
            "/_matrix/federation/v1/publicRooms",
            "/_matrix/key/v2/server",
            "/_matrix/key/v2/query/localhost",
            "/.well-known/matrix/server",
        ],
    )
    def test_other_servers_find_nothing(self, b: Remote, path: str) -> None:
        assert b.request("GET", path).status == 404

    def test_they_send_nothing(self, b: Remote) -> None:
        assert b.try_to_send().status == 404

    def test_they_are_asked_nothing(self, b: Remote, alice: Person, sending: None) -> None:
        room_id = alice.create_room()
        answers = [
            alice.get(f"profile/{CAROL}"),
            alice.get("directory/room/%23room:b.test"),
            alice.get("publicRooms?server=b.test"),
            alice.get("/_matrix/client/v1/media/download/b.test/file"),
            alice.post("join/%23room:b.test"),
            alice.post("join/!room:b.test?via=b.test"),
            invite(alice, room_id, CAROL),
        ]

        assert all(it.status_code in {403, 404} for it in answers)
        queried = alice.post("keys/query", json={"device_keys": {CAROL: []}}).get_json()
        assert queried["device_keys"] == {}
        assert not b.received("")


@pytest.mark.usefixtures("app")
class TestWithAServerThatIsExcluded:
    @pytest.fixture
    def app(self, make_app: MakeApp, remote: Remotes) -> Application:
        app = make_app(**remote.settings, federation_deny_servers='["b.*"]')
        remote.talk_to(app)
        return app

    def test_it_is_refused_and_others_are_not(self, remote: Remotes, b: Remote) -> None:
        assert b.try_to_send().refusal == FORBIDDEN
        assert b.get("v1", "publicRooms").refusal == FORBIDDEN
        assert remote("c.test").get("v1", "publicRooms").status == 200

    def test_it_is_not_asked(self, b: Remote, alice: Person) -> None:
        assert refusal(alice.get(f"profile/{CAROL}")) == FORBIDDEN
        assert refusal(alice.post("join/!room:b.test?via=b.test")) == FORBIDDEN
        assert invite(alice, alice.create_room(), CAROL).status_code == 403
        assert not b.received("")

    def test_it_gets_no_events_and_edus(
        self, app: Application, remote: Remotes, b: Remote, alice: Person, sending: None
    ) -> None:
        c = remote("c.test")
        room_id = shared_room(app, alice, b, c)

        alice.send(room_id, "hello")
        alice.put(f"rooms/{quote(room_id)}/typing/{alice.user_id}", json={"typing": True})

        wait_for_bodies(c, ["hello"])
        assert not b.received("/send/")


def test_only_servers_that_are_allowed_are_talked_to(
    make_app: MakeApp, remote: Remotes, b: Remote
) -> None:
    remote.talk_to(make_app(**remote.settings, federation_allow_servers='["c.test"]'))

    assert b.get("v1", "publicRooms").refusal == FORBIDDEN
    assert remote("c.test").get("v1", "publicRooms").status == 200


def test_a_room_that_is_not_federated_stays_on_this_server(
    b: Remote, alice: Person, room: Callable[..., str]
) -> None:
    room_id = room(alice, creation_content={"m.federate": False}, visibility="public")

    assert refusal(invite(alice, room_id, CAROL)) == FORBIDDEN
    query = {"ver": "11"}
    assert b.get("v1", "make_join", room_id, CAROL, query=query).refusal == FORBIDDEN
    assert b.get("v1", "make_knock", room_id, CAROL, query=query).refusal == FORBIDDEN
    assert b.get("v1", "publicRooms").json["chunk"] == []
    assert not b.received("/invite/")


def test_a_room_of_another_server_that_is_not_federated_is_not_joined(
    b: Remote, alice: Person
) -> None:
    closed = b.room(create={"m.federate": False})

    answer = alice.post(f"join/{quote(closed.id)}?via=b.test")

    assert answer.status_code >= 400
    assert alice.get("joined_rooms").get_json() == {"joined_rooms": []}


def test_users_see_no_invites_of_users_that_they_ignore(b: Remote, alice: Person) -> None:
    path = f"user/{alice.user_id}/account_data/m.ignored_user_list"
    alice.put(path, json={"ignored_users": {CAROL: {}}})

    assert b.invite(b.room(), alice.user_id).status == 200

    assert alice.sync()["rooms"]["invite"] == {}


def test_a_server_joins_no_more_users_than_the_rate_limit_allows(
    make_app: MakeApp, remote: Remotes, b: Remote
) -> None:
    limit = {
        "rc_joins.per_server.per_second": "0.001",
        "rc_joins.per_server.burst_count": "1",
    }
    app = make_app(**remote.settings, **limit, rate_limits="true")
    remote.talk_to(app)
    client = app.test_client()
    body = {"username": "alice", "password": "wonderland-7", "auth": {"type": "m.login.dummy"}}
    session = client.post("/_matrix/client/v3/register", json=body).get_json()
    alice = Person(client, session["user_id"], session["access_token"], session["device_id"])
    room_id = alice.create_room(preset="public_chat")
    joined = b.join(room_id, "carol")

    event = joined.member("dave", "join", add=False)
    answer = b.put("v2", "send_join", room_id, event.event_id, json=event.pdu)

    assert answer.refusal == (429, "M_LIMIT_EXCEEDED")
    assert answer.json["retry_after_ms"] > 0
    b.leave(room_id, "carol")  # is never refused
