"""The scripted remote servers themselves: two of them talk to each other."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from urllib.parse import quote

import pytest

from homebody.spec import event_auth, events, signing
from homebody.spec.room_versions import VERSIONS
from homebody.web import Application
from tests.helpers import certificates, remote_room
from tests.helpers.peers import Peer
from tests.helpers.remote import Remote, Remotes, edu
from tests.helpers.scripted_server import Response


def between(one: Remote, other: Remote) -> None:
    """Have two remotes send their requests to each other."""
    one.peer, other.peer = lambda: of(other), lambda: of(one)


def of(remote: Remote, timeout_s: float = 5) -> Peer:
    def call(method: str, uri: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(
            "127.0.0.1",
            remote.listener.port,
            timeout=timeout_s,
            context=certificates.client_context(),
        )
        try:
            connection.request(method, uri, body or None, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return Peer(remote.name, {remote.key.key_id: remote.key.verify_key}, call)


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def c(remote: Remotes, b: Remote) -> Remote:
    made = remote()
    between(b, made)
    return made


@pytest.mark.parametrize("version", list(VERSIONS))
def test_rooms_of_all_versions_have_valid_events(b: Remote, version: str) -> None:
    room = b.room(version)
    create = room.state["m.room.create", ""]

    room.message("hello")

    for event in room.events.values():
        events.check_format(event.pdu, room.version)
        before = room.state_after(event.prev_event_ids)
        event_auth.check_auth_events(event, [room.events[it] for it in event.auth_event_ids])
        event_auth.check(event, before, None if event is create else create)
        key = b.key.verify_key
        signing.verify_event(event.pdu, room.version, b.name, b.key.key_id, key)


@pytest.mark.parametrize("version", list(VERSIONS))
def test_one_joins_a_room_of_the_other_and_they_talk(b: Remote, c: Remote, version: str) -> None:
    there = b.room(version)

    here = c.join(there.id, "dave")
    said = here.message("hello")
    results = c.send(said, edus=[edu("m.typing", {"room_id": here.id})])

    assert results == {said.event_id: {}}
    assert there.membership(c.user_id("dave")) == "join"
    assert there.servers() == {b.name, c.name}
    assert b.wait_for_event(said.event_id).content["body"] == "hello"
    assert b.wait_for_edu("m.typing") == {"room_id": there.id}
    assert there.heads == here.heads == [said.event_id]
    assert here.state.keys() == there.state.keys()


def test_a_private_room_takes_the_invited_and_those_who_knock_wait(b: Remote, c: Remote) -> None:
    there = b.room("10", join_rule="knock")

    refused = c.get("v1", "make_join", there.id, c.user_id("erin"), query={"ver": "10"})
    shown = c.knock(there.id, "erin")
    invited = b.invite(there, c.user_id("dave"))
    c.join(there.id, "dave")

    assert refused.refusal == (403, "M_FORBIDDEN")
    assert {it["type"] for it in shown} == {"m.room.create", "m.room.join_rules"}
    assert there.membership(c.user_id("erin")) == "knock"
    assert invited.status == 200
    assert c.name in invited.json["event"]["signatures"]
    assert c.invites[0]["room_version"] == "10"
    assert there.membership(c.user_id("dave")) == "join"


def test_a_large_room_is_joined_with_all_members_or_without(b: Remote, c: Remote) -> None:
    there = b.room()
    users = there.crowd(200)
    there.message("welcome")

    here = c.join(there.id, "dave")
    b.omits_members = True
    query = {"omit_members": "true"}
    join = here.member("erin", "join")
    answer = c.put("v2", "send_join", there.id, join.event_id, json=join.pdu, query=query)

    assert here.servers() == {b.name, c.name}
    assert all(here.membership(user) == "join" for user in users)
    assert answer.json["members_omitted"]
    assert "m.room.member" not in {pdu["type"] for pdu in answer.json["state"]}
    assert answer.json["servers_in_room"] == sorted([b.name, c.name])


def test_a_restricted_join_is_signed_by_both(b: Remote, c: Remote) -> None:
    there = b.room("11", join_rule="restricted")

    here = c.join(there.id, "dave")

    signed = here.state["m.room.member", c.user_id("dave")].pdu["signatures"]
    assert signed.keys() == {b.name, c.name}


def test_a_fork_is_merged_by_the_next_event(b: Remote) -> None:
    room = b.room()
    (base,) = room.heads

    left = room.message("left")
    right = room.message("right", prev=[base])
    heads = list(room.heads)
    merge = room.message("merge")

    assert heads == merge.prev_event_ids == [left.event_id, right.event_id]
    assert room.heads == [merge.event_id]


@pytest.mark.parametrize("version", ["2", "11", "12"])
def test_branches_are_resolved_where_they_merge(b: Remote, version: str) -> None:
    levels = {"users": {b.user_id("dave"): 50}}
    if version != "12":
        levels["users"][b.user_id("carol")] = 100
    room = b.room(version, state=[("m.room.power_levels", "", levels)])
    base = room.member("dave", "join")

    ban = room.member("dave", "ban", sender="carol")
    topic = room.event("m.room.topic", {"topic": "dogs"}, "", sender="dave", prev=[base])
    name = room.event("m.room.name", {"name": "Cats"}, "", prev=[base])
    merge = room.message()

    assert merge.prev_event_ids == [ban.event_id, topic.event_id, name.event_id]
    assert room.membership("dave") == "ban"
    assert room.content("m.room.name") == {"name": "Cats"}
    assert room.content("m.room.topic") is None


def test_what_lies_between_is_found_by_missing_events_and_backfill(b: Remote, c: Remote) -> None:
    room = b.room()
    first, *between_them, last = [room.message(str(number)) for number in range(5)]
    room.hidden.add(between_them[0].event_id)

    body = {"earliest_events": [first.event_id], "latest_events": [last.event_id], "limit": 10}
    missing = c.post("v1", "get_missing_events", room.id, json=body)
    page = c.get("v1", "backfill", room.id, query={"v": last.event_id, "limit": 2})
    gone = c.get("v1", "event", between_them[0].event_id)

    bodies = [pdu["content"]["body"] for pdu in missing.json["events"]]
    assert bodies == ["2", "3"]
    assert [pdu["content"]["body"] for pdu in page.json["pdus"]] == ["4", "3"]
    assert gone.refusal == (404, "M_NOT_FOUND")


def test_the_state_before_an_event_is_served(b: Remote, c: Remote) -> None:
    room = b.room()
    topic = room.set_state("m.room.topic", {"topic": "cats"})
    query = {"event_id": topic.event_id}

    ids = c.get("v1", "state_ids", room.id, query=query).json
    whole = c.get("v1", "state", room.id, query=query).json
    single = c.get("v1", "event", topic.event_id).json

    assert topic.event_id not in ids["pdu_ids"]
    assert len(ids["pdu_ids"]) == len(whole["pdus"]) == 5
    assert len(ids["auth_chain_ids"]) == len(whole["auth_chain"]) == 3
    assert single["pdus"] == [topic.pdu]


def test_events_can_be_wrong(b: Remote) -> None:
    room = b.room()
    version, key = room.version, b.key

    deep = room.message(depth=2**53, add=False)
    wide = room.message(prev=["$" + "x" * 43] * 21, add=False)
    altered = remote_room.with_wrong_hash(room.message("said"), body="not said")
    forged = remote_room.with_wrong_signature(room.message(), b.name)

    for event in (deep, wide, room.message(n=1.5, add=False)):
        with pytest.raises(ValueError, match=r"Event|integer|beyond"):
            events.check_format(event.pdu, version)
    assert not signing.has_valid_content_hash(altered, version)
    signing.verify_event(altered, version, b.name, key.key_id, key.verify_key)
    with pytest.raises(signing.SignatureError):
        signing.verify_event(forged, version, b.name, key.key_id, key.verify_key)


def test_the_published_keys_are_signed_and_keep_the_old_one(b: Remote, c: Remote) -> None:
    old = b.rotate_key()

    keys = c.request("GET", "/_matrix/key/v2/server").json

    signing.verify_json(keys, b.name, b.key.key_id, b.key.verify_key)
    assert keys["verify_keys"].keys() == {b.key.key_id}
    assert keys["old_verify_keys"].keys() == {old.key_id}


def test_devices_and_one_time_keys_are_served_each_key_once(b: Remote, c: Remote) -> None:
    b.add_device("carol", "LAPTOP", "one")
    carol = b.user_id("carol")
    claim = {"one_time_keys": {carol: {"LAPTOP": "signed_curve25519"}}}

    devices = c.get("v1", "user/devices", carol).json
    query = c.post("v1", "user/keys/query", json={"device_keys": {carol: []}}).json
    first = c.post("v1", "user/keys/claim", json=claim).json
    second = c.post("v1", "user/keys/claim", json=claim).json

    assert devices["devices"][0]["keys"] == query["device_keys"][carol]["LAPTOP"]
    assert first["one_time_keys"][carol]["LAPTOP"].keys() == {"signed_curve25519:one"}
    assert second["one_time_keys"] == {}


def test_profiles_aliases_and_files_are_served(b: Remote, c: Remote) -> None:
    b.profiles[b.user_id("carol")] = {"displayname": "Carol"}
    b.aliases["#cats:b.test"] = "!cats:b.test"
    b.media["kitten"] = ("image/png", b"\x89PNG")

    profile = c.get("v1", "query/profile", query={"user_id": b.user_id("carol")})
    alias = c.get("v1", "query/directory", query={"room_alias": "#cats:b.test"})
    file = c.get("v1", "media/download", "kitten")
    nobody = c.get("v1", "query/profile", query={"user_id": b.user_id("nobody")})

    assert profile.json == {"displayname": "Carol"}
    assert alias.json == {"room_id": "!cats:b.test", "servers": [b.name]}
    assert b"Content-Type: image/png\r\n\r\n\x89PNG\r\n--split--" in file.json
    assert nobody.refusal == (404, "M_NOT_FOUND")


def test_requests_that_are_not_signed_are_refused_and_noted(b: Remote, c: Remote) -> None:
    room = b.room()
    query = {"event_id": room.heads[0]}

    unsigned = c.get("v1", "state_ids", room.id, query=query, authorization="")
    other_place = c.get("v1", "state_ids", room.id, query=query, destination="elsewhere.test")
    other_uri = c.get("v1", "state_ids", room.id, query=query, uri="/")

    for answer in (unsigned, other_place, other_uri):
        assert answer.refusal == (401, "M_UNAUTHORIZED")
    assert len(b.unsigned) == 3
    b.unsigned.clear()  # or the end of the test would complain


def test_faults_last_as_long_as_they_should(b: Remote, c: Remote) -> None:
    room = b.room()
    b.fail("/make_join/", 429, times=1, errcode="M_LIMIT_EXCEEDED")
    b.fail("/version")

    refused = c.get("v1", "make_join", room.id, c.user_id("dave"), query={"ver": "11"})
    broken = [c.request("GET", "/_matrix/federation/v1/version").status for _ in range(2)]
    b.recover("/version")
    healed = c.request("GET", "/_matrix/federation/v1/version").status
    c.join(room.id, "dave")

    assert refused.refusal == (429, "M_LIMIT_EXCEEDED")
    assert (broken, healed) == ([500, 500], 200)
    assert len(b.received(f"/make_join/{room.id}")) == 2
    assert b.received(f"/send_join/{room.id}")[0].uri.startswith(
        f"/_matrix/federation/v2/send_join/{quote(room.id, safe='')}/"
    )


def test_responses_can_be_slow_cut_or_never_come(b: Remote, c: Remote) -> None:
    slow_one = of(b, timeout_s=0.5)
    b.delay("/version", 0.2, times=1)
    late = slow_one.call("GET", "/_matrix/federation/v1/version", {}, b"")
    b.cut("/version", times=1)
    with pytest.raises(http.client.IncompleteRead):
        slow_one.call("GET", "/_matrix/federation/v1/version", {}, b"")
    b.hang("/version", times=1)
    with pytest.raises(TimeoutError):
        slow_one.call("GET", "/_matrix/federation/v1/version", {}, b"")

    assert late[0] == slow_one.call("GET", "/_matrix/federation/v1/version", {}, b"")[0] == 200
    assert c.name.startswith("127.0.0.1:")


def test_the_server_under_test_reaches_remotes_and_they_reach_it(
    remote: Remotes, app: Application
) -> None:
    by_name, by_address = remote("b.test"), remote()
    room = by_name.room()
    federation = app.homeserver.federation

    state = federation.request(
        "b.test",
        "GET",
        f"/_matrix/federation/v1/state_ids/{quote(room.id, safe='')}",
        query={"event_id": room.heads[0]},
    )
    version = federation.request(by_address.name, "GET", "/_matrix/federation/v1/version")
    unsigned = by_name.get("v1", "query/profile", query={"user_id": "@x:y"}, authorization="")
    signed = by_name.get("v1", "query/profile", query={"user_id": "@x:localhost"})

    assert len(state["pdu_ids"]) == 4
    assert version["server"]["name"] == "scripted"
    assert unsigned.refusal == (401, "M_UNAUTHORIZED")
    assert signed.status != 401


def test_events_that_others_would_not_accept_are_noted(b: Remote, c: Remote) -> None:
    there = b.room()
    here = c.join(there.id, "dave")

    c.send(remote_room.with_wrong_hash(here.message("said", sender="dave"), body="not said"))
    c.send(remote_room.with_wrong_signature(here.message("said", sender="dave"), c.name))
    members = [event.event_id for event in here.events.values() if event.type == "m.room.member"]
    c.send(here.message(sender="dave", auth_events=members))
    c.send(*[here.message(sender="dave") for _ in range(51)])

    hash_, signature, auth, size = b.complaints
    assert "hash does not match" in hash_
    assert "signature does not match" in signature
    assert "does not belong there" in auth
    assert "more than 50" in size
    b.complaints.clear()  # or the end of the test would complain


@pytest.mark.parametrize("body", [b'{"n": 1e999}', b'{"text": "\\ud800"}', b"{", b"\xff"])
def test_bytes_that_are_not_proper_json_are_sent_as_they_are(
    b: Remote, c: Remote, body: bytes
) -> None:
    b.answer("/send/", Response(200, {}))

    c.put("v1", "send", "t1", body=body)

    assert b.listener.requests[-1].body == body
    b.unsigned.clear()
