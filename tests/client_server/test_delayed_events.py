"""Delayed events: scheduled, restarted, cancelled, sent at their time or at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.remote import Remotes
from tests.helpers.rooms import Json, act, refusal, unchanged
from tests.helpers.waiting import wait_for

Room = Callable[..., str]
STABLE = "/_matrix/client/v1/delayed_events"
UNSTABLE = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events"
MEMBER = "org.matrix.msc3401.call.member"
TEXT = {"msgtype": "m.text", "body": "I am offline now"}
HOUR = 3_600_000
FORBIDDEN = (403, "M_FORBIDDEN")


@pytest.fixture
def app(make_app: MakeApp, request: pytest.FixtureRequest) -> Iterator[Application]:
    """A server that sends delayed events."""
    remotes = "remote" in request.fixturenames
    found: Remotes | None = request.getfixturevalue("remote") if remotes else None
    app = make_app(**({} if found is None else found.settings))
    if found is not None:
        found.talk_to(app)
    app.homeserver.delayed_events.start()
    yield app
    app.homeserver.delayed_events.stop()


def schedule(person: Person, room_id: str, txn_id: str = "t", **body: object) -> str:
    """Schedule an event, a message if nothing else is given; return its delay_id."""
    event_type = str(body.pop("type", "m.room.message"))
    path = f"rooms/{quote(room_id)}/delayed_event/{event_type}/{txn_id}"
    answer = person.put(path, json={"delay_ms": HOUR, "content": TEXT, **body})
    assert answer.status_code == 200, answer.get_json()
    assert answer.get_json().keys() == {"delay_id"}
    return str(answer.get_json()["delay_id"])


def scheduled(person: Person) -> list[Json]:
    found: list[Json] = person.get(STABLE).get_json()["delayed_events"]
    return found


def looked_up(person: Person, delay_id: str) -> Json:
    found: Json = person.get(f"{STABLE}/{delay_id}").get_json()
    return found


def finalised(person: Person, delay_id: str) -> Json:
    """What became of an event, when it is over."""

    def look() -> Json:
        found = looked_up(person, delay_id)
        return found if "finalised_ts" in found else {}

    return wait_for(look, "the end of the event")


def timeline(person: Person, room_id: str) -> list[Json]:
    """The newest events of a room, oldest first."""
    answer = person.get(f"rooms/{quote(room_id)}/messages?dir=b&limit=20")
    found: list[Json] = answer.get_json()["chunk"]
    return found[::-1]


def manage(person: Person, delay_id: str, action: str, at: str = STABLE) -> tuple[int, str]:
    answer = person.post(f"{at}/{delay_id}/{action}")
    return (200, "") if answer.get_json() == {} else refusal(answer)


def registered(app: Application) -> Person:
    """A user of this server, where that of the fixture `login` is another."""
    body = {"username": "alice", "auth": {"type": "m.login.dummy"}}
    session = app.test_client().post("/_matrix/client/v3/register", json=body).get_json()
    return Person(app.test_client(), "@alice:localhost", session["access_token"], "")


def test_a_message_is_sent_after_its_delay_and_not_before(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    since = bob.sync()["next_batch"]

    delay_id = schedule(alice, room_id, delay_ms=150)
    before = timeline(bob, room_id)[-1]
    synced = bob.sync(since, timeout=5000)["rooms"]["join"][room_id]["timeline"]["events"]
    found = finalised(alice, delay_id)

    assert before["type"] == "m.room.member"
    assert [it["content"] for it in synced] == [TEXT]
    assert synced[0]["sender"] == alice.user_id
    assert found["event_id"] == synced[0]["event_id"]
    assert found["finalised_ts"] >= found["scheduled_at"] + 150
    assert synced[0]["origin_server_ts"] >= found["scheduled_at"] + 150
    assert scheduled(alice) == []


def test_state_is_set_after_its_delay(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    key = f"_{alice.user_id}_{alice.device_id}_m.call"
    alice.set_state(room_id, MEMBER, {"focus": 1}, key)

    delay_id = schedule(alice, room_id, type=MEMBER, state_key=key, content={}, delay_ms=20)
    event_id = finalised(alice, delay_id)["event_id"]

    assert timeline(alice, room_id)[-1]["event_id"] == event_id
    state = alice.get(f"rooms/{room_id}/state/{MEMBER}/{quote(key)}")
    assert (state.status_code, state.get_json()) == (200, {})


def test_what_is_scheduled_is_listed_in_the_order_of_its_times(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    late = schedule(alice, room_id, "t1", delay_ms=2 * HOUR)
    soon = schedule(alice, room_id, "t2", type="m.room.topic", state_key="", content={"topic": "x"})

    found = scheduled(alice)

    assert [it["delay_id"] for it in found] == [soon, late]
    at = found[0].pop("scheduled_at")
    assert abs(at - time.time() * 1000) < 60_000
    assert found[0] == {
        "delay_id": soon,
        "room_id": room_id,
        "type": "m.room.topic",
        "state_key": "",
        "delay_ms": HOUR,
        "content": {"topic": "x"},
    }
    assert found[1].keys() == {"delay_id", "room_id", "type", "delay_ms", "content", "scheduled_at"}
    assert alice.get(UNSTABLE).get_json()["delayed_events"] == scheduled(alice)
    assert scheduled(bob) == []
    assert refusal(bob.get(f"{STABLE}/{soon}")) == (404, "M_NOT_FOUND")


def test_clients_of_today_schedule_by_a_parameter_of_send_and_state(
    login: Login, room: Room
) -> None:
    alice = login("alice")
    path = f"rooms/{room(alice)}"
    delay = {"org.matrix.msc4140.delay": "900000"}

    sent = alice.put(f"{path}/send/m.room.message/t1", json=TEXT, query_string=delay)
    again = alice.put(f"{path}/send/m.room.message/t1", query_string=delay)
    state = alice.put(f"{path}/state/m.room.topic", json={"topic": "x"}, query_string=delay)

    assert sent.status_code == state.status_code == 200
    assert again.get_json() == sent.get_json()
    found = [(it["type"], it.get("state_key"), it["delay_ms"]) for it in scheduled(alice)]
    assert found == [("m.room.message", None, 900_000), ("m.room.topic", "", 900_000)]


def test_a_repeated_request_schedules_nothing_new_even_when_the_event_was_sent(
    login: Login, room: Room
) -> None:
    alice = login("alice")
    room_id = room(alice)
    delay_id = schedule(alice, room_id, delay_ms=10)
    finalised(alice, delay_id)

    again = schedule(alice, room_id, delay_ms=10)
    of_another_path = schedule(alice, room_id, type="m.other")

    assert again == delay_id
    assert of_another_path != delay_id
    assert [it["delay_id"] for it in scheduled(alice)] == [of_another_path]


def test_a_restart_lets_the_delay_begin_again(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    delay_id = schedule(alice, room_id, delay_ms=400)
    began = looked_up(alice, delay_id)["scheduled_at"]

    for path in (UNSTABLE, STABLE) * 3:
        time.sleep(0.1)
        assert manage(alice, delay_id, "restart", path) == (200, "")
    restarted = looked_up(alice, delay_id)
    found = finalised(alice, delay_id)

    assert restarted["scheduled_at"] >= began + 600
    assert "finalised_ts" not in restarted
    assert found["finalised_ts"] >= restarted["scheduled_at"] + 400


def test_what_is_cancelled_is_never_sent(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    delay_id = schedule(alice, room_id, delay_ms=100)
    last = timeline(alice, room_id)[-1]["event_id"]

    answers = [manage(alice, delay_id, "cancel"), manage(alice, delay_id, "cancel")]
    time.sleep(0.2)

    assert answers == [(200, "")] * 2
    found = looked_up(alice, delay_id)
    assert "finalised_ts" in found
    assert not {"event_id", "error"} & found.keys()
    assert timeline(alice, room_id)[-1]["event_id"] == last
    assert manage(alice, delay_id, "send") == (409, "M_UNKNOWN")
    assert manage(alice, delay_id, "restart") == (409, "M_UNKNOWN")
    for action in ("restart", "send"):
        assert manage(alice, delay_id, action, UNSTABLE) == (404, "M_NOT_FOUND")


def test_what_is_sent_at_once_is_sent_once(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    delay_id = schedule(alice, room_id)

    answers = [manage(alice, delay_id, "send"), manage(alice, delay_id, "send")]

    assert answers == [(200, "")] * 2
    found = looked_up(alice, delay_id)
    assert found["finalised_ts"] < found["scheduled_at"] + HOUR
    last = timeline(alice, room_id)
    assert [it["event_id"] for it in last if it["content"] == TEXT] == [found["event_id"]]
    assert manage(alice, delay_id, "cancel") == (409, "M_UNKNOWN")
    assert manage(alice, delay_id, "cancel", UNSTABLE) == (404, "M_NOT_FOUND")
    assert manage(alice, delay_id, "restart") == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("action", ["send", "cancel", "restart"])
def test_nobody_else_manages_an_event_by_the_stable_path(
    app: Application, login: Login, room: Room, action: str
) -> None:
    alice, bob = login("alice"), login("bob")
    delay_id = schedule(alice, room(alice, bob))

    with unchanged(app):
        answers = [manage(bob, delay_id, action), manage(bob, "delay_unknown", action)]
        stranger = app.test_client().post(f"{STABLE}/{delay_id}/{action}", json={})

    assert answers == [(404, "M_NOT_FOUND")] * 2
    assert refusal(stranger) == (401, "M_MISSING_TOKEN")


def test_whoever_knows_the_id_manages_an_event_by_the_unstable_path(
    app: Application, login: Login, room: Room
) -> None:
    """lk-jwt-service does, which has no account, when LiveKit notices that a client is gone."""
    alice, stranger = login("alice"), app.test_client()
    room_id = room(alice)
    sent, old = schedule(alice, room_id, "t1"), schedule(alice, room_id, "t2")

    answers = [
        stranger.post(f"{UNSTABLE}/{sent}/restart"),
        stranger.post(f"{UNSTABLE}/{sent}/send", json={}),
        stranger.post(f"{UNSTABLE}/{old}", json={"action": "cancel"}),
    ]

    assert [it.get_json() for it in answers] == [{}] * 3
    assert "event_id" in looked_up(alice, sent)
    assert scheduled(alice) == []
    unknown = [stranger.post(f"{UNSTABLE}/delay_x/{it}") for it in ("send", "cancel", "oops")]
    found = [refusal(it) for it in unknown]
    assert found == [(404, "M_NOT_FOUND")] * 2 + [(404, "M_UNRECOGNIZED")]
    assert refusal(stranger.post(f"{UNSTABLE}/{old}", json={})) == (400, "M_MISSING_PARAM")


def test_only_the_sender_sees_the_delay_id_of_an_event(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    delay_id = schedule(alice, room_id)
    state_id = schedule(alice, room_id, type="m.room.topic", state_key="", content={"topic": "x"})
    ban = {"membership": "ban"}
    ban_id = schedule(alice, room_id, type="m.room.member", state_key="@eve:x", content=ban)

    for it in (delay_id, state_id, ban_id):
        assert manage(alice, it, "send") == (200, "")

    by_alice = [it["unsigned"] for it in timeline(login("alice"), room_id)[-3:]]
    assert [it["delay_id"] for it in by_alice] == [delay_id, state_id, ban_id]
    assert [it["org.matrix.msc4140.delay_id"] for it in by_alice] == [delay_id, state_id, ban_id]
    assert not any("transaction_id" in it for it in by_alice)
    assert not any("delay_id" in str(it["unsigned"]) for it in timeline(bob, room_id))


def test_power_is_looked_at_when_the_event_is_sent(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    topic = {"type": "m.room.topic", "state_key": "", "content": {"topic": "x"}}
    refused = schedule(bob, room_id, "t1", **topic, delay_ms=10)
    found = finalised(bob, refused)
    allowed = schedule(bob, room_id, "t2", **topic)
    act(alice, room_id, "kick", user_id=bob.user_id)
    gone = manage(bob, allowed, "send")
    bob.post(f"rooms/{room_id}/join")
    levels = alice.get(f"rooms/{room_id}/state/m.room.power_levels").get_json()
    alice.set_state(room_id, "m.room.power_levels", {**levels, "events": {"m.room.topic": 0}})

    sent = manage(bob, allowed, "send")

    assert found["error"]["errcode"] == "M_FORBIDDEN"
    assert "event_id" not in found
    assert gone == FORBIDDEN
    assert sent == (200, "")


def test_who_left_the_room_sends_nothing(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    delay_id = schedule(bob, room_id, delay_ms=200)
    bob.post(f"rooms/{room_id}/leave")

    found = finalised(bob, delay_id)

    assert found["error"]["errcode"] == "M_FORBIDDEN"
    assert timeline(alice, room_id)[-1]["type"] == "m.room.member"


def test_an_own_leave_can_be_delayed_and_a_message_deletes_itself(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    event_id = bob.send(room_id, "read this quickly")
    redaction = {"type": "m.room.redaction", "content": {"redacts": event_id}, "delay_ms": 10}
    finalised(bob, schedule(bob, room_id, "t1", **redaction))
    leave = {"type": "m.room.member", "state_key": bob.user_id, "content": {"membership": "leave"}}

    found = finalised(bob, schedule(bob, room_id, "t2", **leave, delay_ms=10))

    assert timeline(alice, room_id)[-1]["event_id"] == found["event_id"]
    assert alice.get(f"rooms/{room_id}/event/{event_id}").get_json()["content"] == {}


@pytest.mark.parametrize("delay_ms", [10, HOUR], ids=["at its time", "at once"])
def test_a_delayed_tombstone_copies_settings_to_the_new_room(
    login: Login, room: Room, delay_ms: int
) -> None:
    alice = login("alice")
    old_id = room(alice)
    predecessor = {"predecessor": {"room_id": old_id, "event_id": "$unknown"}}
    new_id = alice.create_room(creation_content=predecessor)
    tags = f"user/{alice.user_id}/rooms/{{}}/tags"
    alice.put(tags.format(old_id) + "/u.work", json={"order": 0.5})
    content = {"body": "moved", "replacement_room": new_id}
    tombstone: Json = {"type": "m.room.tombstone", "state_key": "", "content": content}

    delay_id = schedule(alice, old_id, **tombstone, delay_ms=delay_ms)
    if delay_ms == HOUR:
        manage(alice, delay_id, "send")
    assert "event_id" in finalised(alice, delay_id)

    wait_for(
        lambda: alice.get(tags.format(new_id)).get_json() == {"tags": {"u.work": {"order": 0.5}}}
    )


def test_too_long_a_delay_is_refused_by_what_clients_know(
    make_app: MakeApp, login: Login, room: Room
) -> None:
    app = make_app(**{"delayed_events.max_delay": "1 h"})
    alice = login("alice")
    path = f"rooms/{room(alice)}"
    alice.client = app.test_client()

    with unchanged(app):
        stable = alice.put(
            f"{path}/delayed_event/m.x/t1", json={"delay_ms": HOUR + 1, "content": {}}
        )
        by_parameter = alice.put(f"{path}/send/m.x/t1?org.matrix.msc4140.delay=3600001", json={})

    assert refusal(stable) == FORBIDDEN
    assert refusal(by_parameter) == (400, "M_UNKNOWN")
    assert by_parameter.get_json()["org.matrix.msc4140.errcode"] == "M_MAX_DELAY_EXCEEDED"
    assert by_parameter.get_json()["org.matrix.msc4140.max_delay"] == HOUR


def test_an_account_has_a_limited_number_of_scheduled_events(
    make_app: MakeApp, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    alice.client = make_app(**{"delayed_events.max_scheduled": "2"}).test_client()
    path = f"rooms/{room_id}/delayed_event/m.room.message/t3"
    soon = schedule(alice, room_id, "t1", delay_ms=600_000)
    schedule(alice, room_id, "t2")

    refused = alice.put(path, json={"delay_ms": 1000, "content": TEXT})
    manage(alice, soon, "cancel")
    allowed = alice.put(path, json={"delay_ms": HOUR, "content": TEXT})
    bob.client = make_app(**{"delayed_events.max_scheduled": "0"}).test_client()
    never = bob.put(path, json={"delay_ms": HOUR, "content": TEXT})

    assert refusal(refused) == (429, "M_LIMIT_EXCEEDED")
    assert 500 < int(refused.headers["Retry-After"]) <= 600
    assert allowed.status_code == 200
    assert refusal(never) == FORBIDDEN


def test_the_limits_are_among_the_capabilities(login: Login) -> None:
    found = login("alice").get("capabilities").get_json()["capabilities"]

    assert found["m.delayed_events"] == {"max_delay_ms": 86_400_000, "max_scheduled": 100}
    assert found["org.matrix.msc4140.delayed_events"] == found["m.delayed_events"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"content": {}}, (400, "M_MISSING_PARAM")),
        ({"delay_ms": 1000}, (400, "M_MISSING_PARAM")),
        ({"delay_ms": 0, "content": {}}, (400, "M_BAD_JSON")),
        ({"delay_ms": -1, "content": {}}, (400, "M_BAD_JSON")),
        ({"delay_ms": 1.5, "content": {}}, (400, "M_BAD_JSON")),
        ({"delay_ms": "1000", "content": {}}, (400, "M_BAD_JSON")),
        ({"delay_ms": True, "content": {}}, (400, "M_BAD_JSON")),
        ({"delay_ms": 2**60, "content": {}}, (400, "M_BAD_JSON")),
        ({"delay_ms": 1000, "content": []}, (400, "M_BAD_JSON")),
        ({"delay_ms": 1000, "content": {"a": 1.5}}, (400, "M_BAD_JSON")),
        ({"delay_ms": 1000, "content": {}, "state_key": 1}, (400, "M_BAD_JSON")),
        ({"delay_ms": 1000, "content": {"a": "x" * 70_000}}, (413, "M_TOO_LARGE")),
        ({"delay_ms": 1000, "content": {}, "state_key": "x" * 256}, (413, "M_TOO_LARGE")),
    ],
)
def test_a_bad_body_schedules_nothing(
    app: Application, login: Login, room: Room, body: Json, expected: tuple[int, str]
) -> None:
    alice = login("alice")
    path = f"rooms/{room(alice)}/delayed_event/m.room.message/t1"

    with unchanged(app):
        answer = alice.put(path, json=body)

    assert refusal(answer) == expected


@pytest.mark.parametrize("delay", ["", "0", "-1", "x", "1.5", str(2**70)])
def test_a_bad_parameter_schedules_nothing(
    app: Application, login: Login, room: Room, delay: str
) -> None:
    alice = login("alice")
    path = f"rooms/{room(alice)}/send/m.room.message/t1"

    with unchanged(app):
        answer = alice.put(path, json=TEXT, query_string={"org.matrix.msc4140.delay": delay})

    assert refusal(answer) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("membership", ["invite", "join", "knock", None, 5, []])
def test_invites_and_joins_cannot_be_delayed(
    app: Application, login: Login, room: Room, membership: object
) -> None:
    alice = login("alice")
    path = f"rooms/{room(alice)}/delayed_event/m.room.member/t1"
    body = {"delay_ms": 1000, "state_key": "@bob:x", "content": {"membership": membership}}

    with unchanged(app):
        answer = alice.put(path, json=body)

    assert refusal(answer) == FORBIDDEN


def test_an_account_that_is_closed_sends_nothing_any_more(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    schedule(bob, room_id, delay_ms=300)
    auth = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "bob"}}
    closed = bob.post(
        "account/deactivate", json={"auth": {**auth, "password": "correct horse battery staple"}}
    )
    assert closed.status_code == 200

    time.sleep(0.4)

    with app.homeserver.database.read() as tx:
        query = "SELECT count(*) FROM delayed_events"
        assert tx.sql.connection.exec_driver_sql(query).scalar_one() == 0
    assert timeline(alice, room_id)[-1]["type"] == "m.room.member"


def test_logging_out_does_not_keep_an_event_from_being_sent(login: Login, room: Room) -> None:
    """A client that logs out has to leave the call as well."""
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    delay_id = schedule(bob, room_id, delay_ms=100)
    bob.post("logout")

    finalised(login("bob"), delay_id)

    assert timeline(alice, room_id)[-1]["content"] == TEXT


def test_an_event_of_a_device_that_is_logged_out_cannot_be_put_off(
    app: Application, login: Login, room: Room
) -> None:
    """A stolen session would otherwise keep its events for ever."""
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    delay_id = schedule(bob, room_id)
    stranger = app.test_client()
    before = stranger.post(f"{UNSTABLE}/{delay_id}/restart")
    bob.post("logout")

    after = stranger.post(f"{UNSTABLE}/{delay_id}/restart")

    assert before.get_json() == {}
    assert refusal(after) == (404, "M_NOT_FOUND")
    again = login("bob")
    assert manage(again, delay_id, "restart") == (200, "")
    assert [it["delay_id"] for it in scheduled(again)] == [delay_id]


def test_sending_counts_under_the_limit_of_messages(make_app: MakeApp) -> None:
    limits = {"rc_message.burst_count": "3", "rc_message.per_second": "0.01"}
    app = make_app(rate_limits="true", **limits)
    alice = registered(app)
    room_id = alice.create_room()
    some = [schedule(alice, room_id, f"t{number}", delay_ms=1000) for number in range(3)]

    refused = manage(alice, some[0], "send")
    with app.homeserver.database.write() as tx:  # their time comes
        tx.sql.connection.exec_driver_sql("UPDATE delayed_events SET due_ts = 1")
    app.homeserver.delayed_events.send_due()

    assert refused == (429, "M_LIMIT_EXCEEDED")
    assert [looked_up(alice, it)["error"]["errcode"] for it in some] == ["M_LIMIT_EXCEEDED"] * 3


def test_a_call_with_a_heart_beat_each_second_is_not_limited(make_app: MakeApp) -> None:
    app = make_app(rate_limits="true")
    alice = registered(app)
    delay_id = schedule(alice, alice.create_room())

    answers = {manage(alice, delay_id, "restart") for _ in range(150)}

    assert answers == {(200, "")}
    for _ in range(300):
        refused = manage(alice, delay_id, "restart")
    assert refused == (429, "M_LIMIT_EXCEEDED")


def test_a_list_counts_as_many_requests(make_app: MakeApp) -> None:
    app = make_app(rate_limits="true")
    alice = registered(app)

    answers = [alice.get(STABLE).status_code for _ in range(30)]

    assert answers[:10] == [200] * 10
    assert answers[-1] == 429


def test_suspended_users_cancel_but_send_nothing(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    first, second = schedule(bob, room_id, "t1"), schedule(bob, room_id, "t2")
    alice.put(f"/_matrix/client/v1/admin/suspend/{bob.user_id}", json={"suspended": True})

    new = bob.put(f"rooms/{room_id}/delayed_event/m.x/t3", json={"delay_ms": 1000, "content": {}})

    assert refusal(new) == (403, "M_USER_SUSPENDED")
    assert manage(bob, first, "send") == (403, "M_USER_SUSPENDED")
    assert manage(bob, second, "cancel") == (200, "")


def test_what_shadow_banned_users_schedule_reaches_nobody(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    alice.post(f"/_synapse/admin/v1/users/{bob.user_id}/shadow_ban")

    found = finalised(bob, schedule(bob, room_id, delay_ms=10))

    assert found["event_id"].startswith("$")
    assert timeline(alice, room_id)[-1]["type"] == "m.room.member"


def test_a_purged_room_takes_its_scheduled_events_along(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id = room(alice)
    schedule(alice, room_id)

    alice.delete(f"/_synapse/admin/v1/rooms/{room_id}", json={"purge": True})

    assert scheduled(alice) == []


def test_the_id_of_an_event_is_not_in_the_log(
    login: Login, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    alice = login("alice")
    delay_id = schedule(alice, room(alice))
    caplog.set_level("INFO", "homebody")

    for path in (STABLE, UNSTABLE):
        manage(alice, delay_id, "restart", path)
        alice.get(f"{path}/{delay_id}")

    assert caplog.text.count("delayed_events/***") == 4
    assert delay_id not in caplog.text


def test_other_servers_get_a_delayed_event_when_it_is_sent(
    app: Application, login: Login, room: Room, remote: Remotes
) -> None:
    alice = login("alice")
    room_id = room(alice)
    b = remote("b.test")
    b.join(room_id, "carol")
    app.homeserver.sender.start()

    found = finalised(alice, schedule(alice, room_id, delay_ms=50))

    event = b.wait_for_event(found["event_id"])
    app.homeserver.sender.stop()
    assert event.content == TEXT
    assert "unsigned" not in event.pdu
