"""What application services get to know, and what they are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core import outbox
from homebody.core.appservices import transactions
from homebody.web import Application
from tests.client_server.test_appservices import BOT, GHOST, Irc
from tests.conftest import Login, MakeApp, Person
from tests.helpers import bridge
from tests.helpers.bridge import AS_TOKEN, HS_TOKEN, Bridge
from tests.helpers.rooms import act, refusal

Room = Callable[..., str]
UNSTABLE_404 = (404, {"errcode": "M_UNRECOGNIZED"})


@pytest.fixture
def irc_server() -> Iterator[Bridge]:
    with bridge.running() as running:
        yield running


@pytest.fixture
def start(make_app: MakeApp, tmp_path: Path) -> Iterator[Callable[..., Application]]:
    """A server that knows a bridge at this address, and delivers what there is for it."""
    started: list[Application] = []

    def begin(
        url: str | None, settings: dict[str, str] | None = None, /, **changes: Any
    ) -> Application:
        path = bridge.write(tmp_path, bridge.registration(url, receive_ephemeral=True, **changes))
        app = make_app(appservices=f'["{path}"]', **(settings or {}))
        app.homeserver.delivery.start()
        started.append(app)
        return app

    yield begin
    for app in started:
        app.homeserver.delivery.stop()


@pytest.fixture
def client(start: Callable[..., Application], irc_server: Bridge) -> Any:
    return start(irc_server.url).test_client()


@pytest.fixture
def irc(client: Any) -> Irc:
    irc = Irc(client, BOT, AS_TOKEN, "")
    irc.make_ghost()
    return irc


def join_as_ghost(irc: Irc, room_id: str) -> None:
    answer = irc.as_user(GHOST, "POST", f"rooms/{quote(room_id)}/join", json={})
    assert answer.status_code == 200, answer.get_json()


def test_it_hears_all_of_the_rooms_of_its_users_in_order(
    irc: Irc, irc_server: Bridge, login: Login, room: Room
) -> None:
    alice = login("alice")
    room_id, elsewhere = room(alice), room(alice)
    alice.send(room_id, "too early")
    join_as_ghost(irc, room_id)

    sent = [alice.send(room_id, str(number)) for number in range(5)]
    alice.send(elsewhere, "not for you")
    last = alice.send(room_id, "last")
    irc_server.wait_until(
        lambda: irc_server.events()[-1:] and irc_server.events()[-1]["event_id"] == last
    )

    told = irc_server.events()
    assert [event["event_id"] for event in told] == [*sent, last]
    assert {event["room_id"] for event in told} == {room_id}
    (join,) = irc_server.events("m.room.member")
    assert (join["state_key"], join["content"]["membership"]) == (GHOST, "join")
    call = irc_server.asked("/transactions/")[0]
    assert call.path.startswith("/_matrix/app/v1/transactions/")
    assert (call.token, call.query) == (HS_TOKEN, {})


def test_an_invite_and_a_kick_are_told_as_their_target_is_its_user(
    irc: Irc, irc_server: Bridge, login: Login, room: Room
) -> None:
    alice = login("alice")
    room_id = room(alice)
    act(alice, room_id, "invite", user_id=GHOST)
    join_as_ghost(irc, room_id)
    act(alice, room_id, "kick", user_id=GHOST)
    alice.send(room_id, "it is gone")

    irc_server.wait_until(lambda: len(irc_server.events("m.room.member")) == 3)

    told = [event["content"]["membership"] for event in irc_server.events("m.room.member")]
    assert told == ["invite", "join", "leave"]
    assert irc_server.events() == []


def test_rooms_and_aliases_of_its_namespaces_are_told_too(
    start: Callable[..., Application], irc_server: Bridge
) -> None:
    namespaces = {"aliases": [{"regex": "#cats:", "exclusive": False}], "rooms": []}
    app = start(irc_server.url, namespaces=namespaces)
    client = app.test_client()
    body = {"username": "alice", "password": "x" * 12, "auth": {"type": "m.login.dummy"}}
    session = client.post("/_matrix/client/v3/register", json=body).get_json()
    alice = Person(client, session["user_id"], session["access_token"], session["device_id"])
    room_id = alice.create_room(room_alias_name="cats")

    event_id = alice.send(room_id)
    irc_server.wait_until(irc_server.events)

    assert [event["event_id"] for event in irc_server.events()] == [event_id]


def test_what_could_not_be_delivered_comes_again_as_it_was(
    irc: Irc, irc_server: Bridge, login: Login, room: Room
) -> None:
    alice = login("alice")
    room_id = room(alice)
    join_as_ghost(irc, room_id)
    irc_server.wait_until(lambda: irc_server.asked("/transactions/"))
    irc_server.calls.clear()
    irc_server.answers["transactions"] = (500, {})
    first = alice.send(room_id, "first")
    irc_server.wait_until(lambda: irc_server.asked("/transactions/"))
    second = alice.send(room_id, "second")
    irc_server.answers.clear()
    irc_server.wait_until(lambda: len(irc_server.events()) >= 3)

    failed, again, then = irc_server.asked("/transactions/")
    assert failed.path == again.path != then.path
    told = [[event["event_id"] for event in call.body["events"]] for call in (failed, again, then)]
    assert told == [[first], [first], [second]]


def test_a_bridge_that_pings_gets_at_once_what_it_has_refused(
    start: Callable[..., Application], irc_server: Bridge
) -> None:
    app = start(irc_server.url)
    irc = Irc(app.test_client(), BOT, AS_TOKEN, "")
    irc_server.answers["transactions"] = (500, {})
    event_id = irc.send(irc.create_room())
    irc_server.wait_until(lambda: irc_server.asked("/transactions/"))
    with app.homeserver.database.write() as tx:
        rows = outbox.first(tx, "appservice", "irc", 50)
        outbox.record_failure(tx, transactions.first_of(rows), tx.now_ms + 60_000, "it is off")
    irc_server.calls.clear()
    irc_server.answers.clear()

    answer = ping(irc)
    irc_server.wait_until(lambda: event_id in {it["event_id"] for it in irc_server.events()})

    assert answer.status_code == 200


def test_what_waits_when_the_server_stops_comes_after_its_next_start(
    start: Callable[..., Application], make_app: MakeApp, tmp_path: Path
) -> None:
    with bridge.running() as stopped:
        port = stopped.port
    app = start(f"http://127.0.0.1:{port}")
    irc = Irc(app.test_client(), BOT, AS_TOKEN, "")
    event_id = irc.send(irc.create_room())
    app.homeserver.delivery.stop()
    with bridge.running(port) as revived:
        start(f"http://127.0.0.1:{port}")
        revived.wait_until(revived.events)

        assert [event["event_id"] for event in revived.events()] == [event_id]


def test_a_bridge_of_old_is_spoken_to_by_older_paths(
    irc: Irc, irc_server: Bridge, login: Login, room: Room
) -> None:
    irc_server.answers["transactions"] = UNSTABLE_404
    alice = login("alice")
    room_id = room(alice)
    join_as_ghost(irc, room_id)
    alice.send(room_id)

    irc_server.wait_until(lambda: len(irc_server.asked("/transactions/")) >= 2)

    new, old, *_ = [call.path for call in irc_server.asked("/transactions/")]
    assert new.startswith("/_matrix/app/v1/transactions/")
    assert old == new.removeprefix("/_matrix/app/v1")


def test_it_hears_who_types_reads_and_is_there(
    irc: Irc, irc_server: Bridge, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id, elsewhere = room(alice, bob), room(alice)
    join_as_ghost(irc, room_id)
    event_id = alice.send(room_id)

    for where in (elsewhere, room_id):
        path = f"rooms/{quote(where)}/typing/{quote(alice.user_id)}"
        alice.put(path, json={"typing": True, "timeout": 30000})
    bob.post(f"rooms/{quote(room_id)}/receipt/m.read.private/{quote(event_id)}")
    bob.post(f"rooms/{quote(room_id)}/receipt/m.read/{quote(event_id)}", json={"thread_id": "main"})
    alice.put(f"presence/{quote(alice.user_id)}/status", json={"presence": "online"})
    irc_server.wait_until(lambda: irc_server.ephemeral("m.presence"))

    typing = {"type": "m.typing", "room_id": room_id, "content": {"user_ids": [alice.user_id]}}
    assert irc_server.ephemeral("m.typing") == [typing]
    (receipt,) = irc_server.ephemeral("m.receipt")
    read = receipt["content"][event_id]["m.read"][bob.user_id]
    assert (receipt["room_id"], read["thread_id"]) == (room_id, "main")
    (presence,) = irc_server.ephemeral("m.presence")
    assert (presence["sender"], presence["content"]["presence"]) == (alice.user_id, "online")


def test_private_receipts_are_told_of_its_own_users_only(
    irc: Irc, irc_server: Bridge, login: Login, room: Room
) -> None:
    alice = login("alice")
    room_id = room(alice)
    join_as_ghost(irc, room_id)
    event_id = alice.send(room_id)

    path = f"rooms/{quote(room_id)}/receipt/m.read.private/{quote(event_id)}"
    irc.as_user(GHOST, "POST", path, json={})
    irc_server.wait_until(lambda: irc_server.ephemeral("m.receipt"))

    (receipt,) = irc_server.ephemeral("m.receipt")
    assert list(receipt["content"][event_id]["m.read.private"]) == [GHOST]


def test_a_user_that_it_could_make_is_asked_for_before_the_invite(
    irc: Irc, irc_server: Bridge, login: Login, room: Room
) -> None:
    alice = login("alice")
    room_id = room(alice)

    for user_id in (GHOST, "@_irc_new:localhost", "@bob:localhost"):
        assert act(alice, room_id, "invite", user_id=user_id).status_code == 200
    alice.create_room(invite=["@_irc_other:localhost"])

    asked = [call.path.rpartition("/")[2] for call in irc_server.asked("/users/")]
    assert asked == ["@_irc_new:localhost", "@_irc_other:localhost"]


def test_a_room_that_it_could_make_is_asked_for_when_somebody_wants_to_join(
    irc: Irc, irc_server: Bridge, login: Login
) -> None:
    alias = "#_irc_cats:localhost"
    made: list[str] = []

    class Making(dict[str, Any]):
        def __contains__(self, path: object) -> bool:
            if path == f"/_matrix/app/v1/rooms/{alias}" and not made:
                made.append(irc.create_room(room_alias_name="_irc_cats", preset="public_chat"))
            return False

    irc_server.answers = Making()
    alice = login("alice")

    answer = alice.post(f"join/{quote(alias)}")

    assert answer.get_json() == {"room_id": made[0]}


def test_an_alias_that_it_does_not_know_is_unknown(irc: Irc, irc_server: Bridge) -> None:
    irc_server.answers["rooms"] = (404, {})

    answer = irc.client.get("/_matrix/client/v3/directory/room/%23_irc_x:localhost")
    other = irc.client.get("/_matrix/client/v3/directory/room/%23cats:localhost")

    assert refusal(answer) == refusal(other) == (404, "M_NOT_FOUND")
    assert {call.path.rpartition("/")[2] for call in irc_server.asked("/rooms/")} == {
        "#_irc_x:localhost"
    }


def test_a_bridge_that_is_silent_is_asked_for_one_of_the_invited_only(
    irc: Irc, irc_server: Bridge, login: Login
) -> None:
    irc_server.answers["users"] = (500, {})
    ghosts = [f"@_irc_{name}:localhost" for name in "abc"]

    login("alice").create_room(invite=ghosts)

    asked = [call.path.rpartition("/")[2] for call in irc_server.asked("/users/")]
    assert asked == ghosts[:1]


def test_nobody_lets_a_bridge_make_one_room_after_the_other(
    start: Callable[..., Application], irc_server: Bridge
) -> None:
    limits = {"rc_lookups.burst_count": "2", "rc_lookups.per_second": "0.01"}
    client = start(irc_server.url, {"rate_limits": "true", **limits}).test_client()
    irc_server.answers["rooms"] = (404, {})

    def ask(alias: str) -> int:
        path = f"/_matrix/client/v3/directory/room/%23{alias}:localhost"
        return client.get(path).status_code

    others = [ask("cats") for _ in range(5)]
    of_bridge = [ask(f"_irc_{name}") for name in "abc"]

    assert others == [404] * 5
    assert of_bridge == [404, 404, 429]
    assert len(irc_server.asked("/rooms/")) == 4  # each by two paths


def ping(person: Person, service_id: str = "irc") -> Any:
    path = f"/_matrix/client/v1/appservice/{service_id}/ping"
    return person.post(path, json={"transaction_id": "meow"})


def test_a_ping_goes_there_and_back(irc: Irc, irc_server: Bridge) -> None:
    answer = ping(irc)

    assert answer.get_json()["duration_ms"] >= 0
    (call,) = irc_server.asked("/ping")
    assert (call.method, call.path) == ("POST", "/_matrix/app/v1/ping")
    assert (call.body, call.token) == ({"transaction_id": "meow"}, HS_TOKEN)


def test_a_ping_is_for_the_service_itself(irc: Irc, login: Login) -> None:
    assert refusal(ping(irc, "other")) == (403, "M_FORBIDDEN")
    assert refusal(ping(login("alice"))) == (403, "M_FORBIDDEN")


def test_a_ping_tells_what_is_wrong(irc: Irc, irc_server: Bridge) -> None:
    irc_server.answers["ping"] = (403, {"errcode": "M_FORBIDDEN"})

    refused = ping(irc)
    irc_server.close()
    unreachable = ping(irc)

    assert refusal(refused) == (502, "M_BAD_STATUS")
    assert refused.get_json()["status"] == 403
    assert refused.get_json()["body"] == '{"errcode": "M_FORBIDDEN"}'
    assert refusal(unreachable) == (502, "M_CONNECTION_FAILED")


def test_a_ping_of_a_service_without_address_is_refused(start: Callable[..., Application]) -> None:
    irc = Irc(start(None).test_client(), BOT, AS_TOKEN, "")
    irc.send(irc.create_room())  # is not kept for anybody

    assert refusal(ping(irc)) == (400, "M_URL_NOT_SET")


@pytest.mark.parametrize("network", ["freenode", "free|node"])
def test_a_network_has_a_directory_of_its_own(
    irc: Irc, login: Login, room: Room, network: str
) -> None:
    alice = login("alice")
    bridged, published = room(alice), room(alice, visibility="public")
    path = f"directory/list/appservice/{quote(network)}/{quote(bridged)}"

    assert refusal(alice.put(path, json={"visibility": "public"})) == (403, "M_FORBIDDEN")
    assert refusal(irc.put(path, json={})) == (400, "M_MISSING_PARAM")
    assert irc.put(path, json={"visibility": "public"}).status_code == 200

    def listed(**body: Any) -> set[str]:
        chunk = alice.post("publicRooms", json=body).get_json()["chunk"]
        return {found["room_id"] for found in chunk}

    assert listed() == {published}
    assert listed(third_party_instance_id=f"irc|{network}") == {bridged}
    assert listed(third_party_instance_id="irc|oftc") == set()
    assert listed(include_all_networks=True) == {bridged, published}
    irc.put(path, json={"visibility": "private"})
    assert listed(include_all_networks=True) == {published}


PROTOCOL = {
    "user_fields": ["nick"],
    "location_fields": ["channel"],
    "icon": "mxc://localhost/irc",
    "field_types": {"nick": {"regexp": ".+", "placeholder": "neil"}},
    "instances": [{"desc": "Freenode", "fields": {}, "network_id": "freenode"}],
}
NEIL = {"userid": GHOST, "protocol": "irc", "fields": {"nick": "neil"}}
CATS = {"alias": "#_irc_cats:localhost", "protocol": "irc", "fields": {"channel": "#cats"}}


def test_what_bridges_know_of_networks_is_passed_on(irc: Irc, irc_server: Bridge) -> None:
    for path, answer in {
        "protocol/irc": PROTOCOL,
        "user/irc": [NEIL],
        "user": [NEIL],
        "location/irc": [CATS],
        "location": [CATS],
    }.items():
        irc_server.answers[f"/_matrix/app/v1/thirdparty/{path}"] = (200, answer)

    known = irc.get("thirdparty/protocols").get_json()
    assert list(known) == ["irc"]
    assert known["irc"]["instances"][0]["instance_id"] == "irc|freenode"
    assert irc.get("thirdparty/protocol/irc").get_json() == known["irc"]
    assert irc.get("thirdparty/user/irc?nick=neil").get_json() == [NEIL]
    assert irc.get(f"thirdparty/user?userid={GHOST}").get_json() == [NEIL]
    assert irc.get("thirdparty/location/irc?channel=%23cats").get_json() == [CATS]
    assert irc.get("thirdparty/location?alias=%23cats:localhost").get_json() == [CATS]
    (asked,) = irc_server.asked("thirdparty/user/irc")
    assert asked.query == {"nick": "neil"}


def test_what_no_bridge_knows_is_not_found(irc: Irc, irc_server: Bridge, login: Login) -> None:
    alice = login("alice")
    irc_server.answers["thirdparty"] = (200, {"nonsense": True})

    assert alice.get("thirdparty/protocols").get_json() == {}
    for path in ("protocol/irc", "protocol/x", "user/irc", "location/irc", "user?userid=@a:b"):
        assert refusal(alice.get(f"thirdparty/{path}")) == (404, "M_NOT_FOUND"), path
    assert refusal(alice.get("thirdparty/location")) == (400, "M_MISSING_PARAM")


def test_where_no_bridge_has_the_protocol_a_search_finds_nothing(irc: Irc) -> None:
    answers = [irc.get(f"thirdparty/{kind}/x?nick=neil") for kind in ("user", "location")]

    assert [(it.status_code, it.get_json()) for it in answers] == [(200, [])] * 2


def test_a_registration_may_ask_for_the_token_in_the_url(
    start: Callable[..., Application], irc_server: Bridge
) -> None:
    client = start(irc_server.url, use_legacy_authorization=True).test_client()
    irc_server.answers["/_matrix/app/v1/thirdparty/user/irc"] = (200, [NEIL])

    Irc(client, BOT, AS_TOKEN, "").get("thirdparty/user/irc?nick=neil")

    (asked,) = irc_server.asked("thirdparty/user/irc")
    assert (asked.token, asked.query) == (HS_TOKEN, {"nick": "neil", "access_token": HS_TOKEN})
