"""Every endpoint for other servers gets invalid requests, signed as they should be."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from homebody.web import Application, middleware
from tests.conftest import Login, Person
from tests.fuzz import LARGE, examples, requests
from tests.fuzz.requests import GONE, JSON_TEXTS, SLOWEST_SECONDS, URL_TEXTS, Good, Place
from tests.fuzz.test_requests import json_texts
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom

EVERY = 7 // LARGE + 1
"""Of the changes of one value in a request, only every n-th is tested."""
FEDERATION = "/_matrix/federation/"
ALICE = "@alice:localhost"
CAROL = "@carol:b.test"


class World:
    """The server under test, and another one whose user is in a room with Alice."""

    def __init__(self, b: Remote, alice: Person) -> None:
        self.b = b
        self.room = b.join(alice.create_room(preset="public_chat"), "carol")
        self.event_id = alice.send(self.room.id)
        media = alice.post("/_matrix/media/v3/upload", json=None, data=b"text").get_json()
        self.media_id = media["content_uri"].rpartition("/")[2]
        self.good = [*reading(self), *writing(self.room), *asking()]

    def send(self, good: Good, changes: dict[Place, str | bytes]) -> None:
        """Send a request with these changes. Raises AssertionError for an invalid response."""
        method, url, body = requests.made(good, changes, {})
        started = time.monotonic()
        answer = self.b.request(method, url, body=body)
        seconds = time.monotonic() - started
        told = f"{method} {url[:500]} {(body or b'')[:500]!r}: {answer.status} after {seconds} s"
        assert answer.status < 500, f"{told} {answer.json}"
        assert seconds < SLOWEST_SECONDS, told
        if answer.status >= 400:
            assert {"errcode", "error"} <= answer.json.keys(), told


def reading(world: World) -> list[Good]:
    room, event = f"<{world.room.id}>", f"<{world.event_id}>"
    at_event: dict[str, str | None] = {"event_id": world.event_id}
    missing = {"earliest_events": [], "latest_events": [world.event_id], "limit": 10}
    return [
        get(f"v1/event/{event}"),
        get(f"v1/event_auth/{room}/{event}"),
        get(f"v1/state/{room}", **at_event),
        get(f"v1/state_ids/{room}", **at_event),
        get(f"v1/timestamp_to_event/{room}", ts="0", dir="f"),
        get(f"v1/backfill/{room}", v=world.event_id, limit="10"),
        post(f"v1/get_missing_events/{room}", {**missing, "min_depth": 0}),
        get(f"v1/hierarchy/{room}", suggested_only="false"),
        get(f"v1/media/download/<{world.media_id}>", timeout_ms="1"),
        get(f"v1/media/thumbnail/<{world.media_id}>", width="32", height="32", method="crop"),
    ]


def writing(room: RemoteRoom) -> list[Good]:
    pdu = room.message(sender="carol", add=False).pdu
    transaction = {"origin": "b.test", "origin_server_ts": 1, "pdus": [pdu], "edus": EDUS}
    found = [put("v1/send/<t1>", transaction)]
    for kind in ("join", "leave", "knock"):
        found.append(get(f"v1/make_{kind}/<{room.id}>/<@dave:b.test>", ver="11"))
        event = room.member("@dave:b.test", kind, add=False)
        for version in ("v1", "v2") if kind != "knock" else ("v1",):
            path = f"{version}/send_{kind}/<{room.id}>/<{event.event_id}>"
            found.append(put(path, event.pdu, omit_members="false"))
    invite = room.member(ALICE, "invite", sender=CAROL, add=False)
    path = f"invite/<!other:b.test>/<{invite.event_id}>"
    found.append(put(f"v1/{path}", invite.pdu))
    body = {"event": invite.pdu, "room_version": "11", "invite_room_state": [invite.pdu]}
    found.append(put(f"v2/{path}", body))
    return [*found, put(f"v1/exchange_third_party_invite/<{room.id}>", invite.pdu)]


def asking() -> list[Good]:
    search = {"limit": 3, "filter": {"generic_search_term": "a"}, "include_all_networks": False}
    signed = {"mxid": ALICE, "token": "t", "signatures": {"id.test": {"ed25519:0": "s"}}}
    bound = {"mxid": ALICE, "invites": [{"room_id": "!a:b", "sender": CAROL, "signed": signed}]}
    by_server = {"server_keys": {"localhost": {"ed25519:a": {"minimum_valid_until_ts": 1}}}}
    return [
        get("v1/version"),
        get("v1/query/profile", user_id=ALICE, field="displayname"),
        get("v1/query/<other>", a="b"),
        get("v1/query/directory", room_alias="#a:localhost"),
        get("v1/publicRooms", limit="3", since="s"),
        post("v1/publicRooms", search),
        get(f"v1/user/devices/<{ALICE}>"),
        post("v1/user/keys/query", {"device_keys": {ALICE: []}}),
        post("v1/user/keys/claim", {"one_time_keys": {ALICE: {"D": "signed_curve25519"}}}),
        get("v1/openid/userinfo", access_token="t"),
        put("v1/3pid/onbind", bound),
        Good("GET", "/_matrix/key/v2/server", {}, None),
        Good("GET", "/_matrix/key/v2/server/<ed25519:a>", {}, None),
        Good("GET", "/_matrix/key/v2/query/<localhost>", {"minimum_valid_until_ts": "1"}, None),
        Good("GET", "/_matrix/key/v2/query/<localhost>/<ed25519:a>", {}, None),
        Good("POST", "/_matrix/key/v2/query", {}, by_server),
    ]


EDUS: list[Any] = [
    {"edu_type": kind, "content": content}
    for kind, content in {
        "m.typing": {"room_id": "!a:b", "user_id": CAROL, "typing": True},
        "m.presence": {"push": [{"user_id": CAROL, "presence": "online", "last_active_ago": 1}]},
        "m.receipt": {"!a:b": {"m.read": {CAROL: {"event_ids": ["$a"], "data": {"ts": 1}}}}},
        "m.device_list_update": {
            "user_id": CAROL,
            "device_id": "D",
            "stream_id": 2,
            "prev_id": [1],
            "device_display_name": "d",
            "deleted": False,
            "keys": {"keys": {"a:D": "b"}},
        },
        "m.signing_key_update": {"user_id": CAROL, "master_key": {"keys": {}}},
        "m.direct_to_device": {
            "sender": CAROL,
            "type": "m.room_key",
            "message_id": "m",
            "messages": {ALICE: {"*": {"a": 1}}},
        },
    }.items()
]


def get(path: str, **query: str | None) -> Good:
    return Good("GET", FEDERATION + path, query, None)


def put(path: str, body: Any, **query: str | None) -> Good:
    return Good("PUT", FEDERATION + path, query, body)


def post(path: str, body: Any) -> Good:
    return Good("POST", FEDERATION + path, {}, body)


@pytest.fixture
def world(remote: Remotes, login: Login) -> World:
    return World(remote("b.test"), login("alice"))


def values_for(place: Place) -> tuple[str | bytes, ...]:
    return (*JSON_TEXTS, GONE) if place[0] == "body" else (*URL_TEXTS, GONE)


def test_there_is_a_good_request_for_every_endpoint(app: Application, world: World) -> None:
    edge = EnvironBuilder(path="/").get_environ()
    adapter = app.url_map.bind("localhost")
    matched = set()
    for good in world.good:
        url = requests.made(good, {}, {}).url
        path = middleware.routing_path({**edge, "RAW_URI": url}).encode("latin-1").decode()
        if adapter.test(path, good.method):
            rule, _values = adapter.match(path, good.method, return_rule=True)
            matched.add((rule.endpoint, good.method))

    served = {
        (rule.endpoint, method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint.startswith("server_")
    }
    assert not served - matched, "a new endpoint needs a request in this file"


def test_good_requests_are_answered(world: World) -> None:
    for good in world.good:
        world.send(good, {})


def test_no_request_with_one_odd_value_is_a_fault(world: World) -> None:
    changes = [
        (good, place, value)
        for good in world.good
        for place in requests.places(good)
        for value in values_for(place)
        if place[0] != "path" or value != GONE
    ]
    for good, place, value in changes[::EVERY]:
        world.send(good, {place: value})


@examples(150)
@given(data=st.data())
def test_no_request_with_some_odd_values_is_a_fault(world: World, data: st.DataObject) -> None:
    good = data.draw(st.sampled_from(world.good), label="request")
    found = list(requests.places(good)) or [("query", "limit")]
    changes: dict[Place, str | bytes] = {}
    for place in data.draw(st.lists(st.sampled_from(found), min_size=1, max_size=3, unique=True)):
        value: Any = st.sampled_from(values_for(place))
        changes[place] = data.draw(value | json_texts if place[0] == "body" else value)

    world.send(good, changes)


def test_no_authorization_is_a_fault(world: World) -> None:
    full = world.b.authorization("GET", FEDERATION + "v1/event/$x", None, "localhost")
    for cut in range(0, len(full), 3):
        for header in (full[:cut], full[cut:], f'{full[:cut]}"{full[cut:]}', full[:cut] + ",\\"):
            answer = world.b.request("GET", FEDERATION + "v1/event/$x", authorization=header or " ")
            assert answer.status in {401, 403, 404}, (header, json.dumps(answer.json))
