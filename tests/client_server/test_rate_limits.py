"""Rate limits where clients meet them: each limit of the settings, over HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.config import settings as config
from homebody.core import ratelimits
from homebody.core.ratelimits import RateLimits
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.tools import routes

APP = Path(ratelimits.__file__).parents[1]
ONLY_READ = {
    "directory.query_public_rooms",
    "keys.query_keys",
    "search.search",
    "sliding_sync.sliding_sync",
    "sliding_sync_v4.sync_v4",
    "profile.search_user_directory",
}
"""What clients POST only to ask: limited by other means."""
ALICE = {"type": "m.id.user", "user": "alice"}

Limited = Callable[..., FlaskClient]


@pytest.fixture
def limited(make_app: MakeApp) -> Limited:
    """A server on which one thing, or several, can be done twice and then not for long."""

    def make(*names: str, **settings: str) -> FlaskClient:
        for name in names:
            usual = {f"{name}.burst_count": "2", f"{name}.per_second": "0.01"}
            settings = usual | settings
        return make_app(rate_limits="true", **settings).test_client()

    return make


def register(client: FlaskClient, name: str = "alice") -> Person:
    body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    session = client.post(f"{V3}register", json=body).get_json()
    return Person(client, session["user_id"], session["access_token"], session["device_id"])


def log_in(
    client: FlaskClient, password: str = PASSWORD, user: str = "alice", **kwargs: Any
) -> int:
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": password,
    }
    return client.post(f"{V3}login", json=body, **kwargs).status_code


def is_limited(answer: TestResponse) -> bool:
    """Whether this is the refusal that the specification describes; else it is a success."""
    if answer.status_code == 200:
        return False
    body = answer.get_json()
    assert (answer.status_code, body["errcode"]) == (429, "M_LIMIT_EXCEEDED")
    assert 90_000 < body["retry_after_ms"] <= 200_001
    assert answer.headers["Retry-After"] == str(-(-body["retry_after_ms"] // 1000))
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    return True


def test_every_limit_of_the_settings_is_asked_somewhere() -> None:
    names = set(RateLimits(config.load(None, {}, {})).names())
    modules = [path for path in APP.rglob("*.py") if path.parent.name != "config"]
    code = "\n".join(path.read_text(encoding="utf-8") for path in modules)

    asked = set(re.findall(r'"(rc_[a-z0-9_.]+)"', code))

    assert asked == names


def test_registering_is_limited_by_address(limited: Limited) -> None:
    client = limited("rc_registration")
    body = {"auth": {"type": "m.login.dummy"}}

    def answers(address: str) -> list[bool]:
        base = {"REMOTE_ADDR": address}
        return [
            is_limited(client.post(f"{V3}register", json=body, environ_base=base)) for _ in range(3)
        ]

    assert answers("2001:db8::1") == [False, False, True]
    assert answers("2001:db8::2") == [True, True, True]  # the same household
    assert answers("2001:db8:0:1::1") == [False, False, True]


def test_guessing_registration_tokens_is_limited(limited: Limited) -> None:
    client = limited("rc_registration_token_validity", registration="token")
    path = "/_matrix/client/v1/register/m.login.registration_token/validity?token=guess"

    answers = [is_limited(client.get(path)) for _ in range(3)]

    assert answers == [False, False, True]


def test_logging_in_is_limited_by_address(limited: Limited) -> None:
    client = limited("rc_login.address")
    register(client)

    answers = [log_in(client) for _ in range(3)]
    elsewhere = log_in(client, environ_base={"REMOTE_ADDR": "192.0.2.1"})

    assert (answers, elsewhere) == ([200, 200, 429], 200)


def test_the_address_is_that_of_the_client_behind_the_proxy(limited: Limited) -> None:
    client = limited("rc_login.address")
    register(client)

    answers = [
        log_in(client, headers={"X-Forwarded-For": f"192.0.2.{host}"}) for host in (1, 1, 1, 2)
    ]

    assert answers == [200, 200, 429, 200]


def test_logging_in_is_limited_by_account_however_it_is_written(limited: Limited) -> None:
    client = limited("rc_login.account")
    register(client)
    register(client, "bob")

    answers = [log_in(client, user=name) for name in ("Alice", "@alice:localhost", "alice", "bob")]

    assert answers == [200, 200, 429, 200]


def test_wrong_passwords_are_limited_and_right_ones_are_not(limited: Limited) -> None:
    client = limited("rc_login.failed_attempts")
    register(client)

    right = [log_in(client) for _ in range(4)]
    wrong = [log_in(client, "guess") for _ in range(2)]
    after_that = log_in(client)

    assert (right, wrong, after_that) == ([200] * 4, [403] * 2, 429)


def test_who_holds_a_token_guesses_the_password_no_faster(limited: Limited) -> None:
    alice = register(limited("rc_login.failed_attempts"))

    def change(password: str) -> int:
        auth = {"type": "m.login.password", "identifier": ALICE, "password": password}
        body = {"new_password": PASSWORD, "auth": auth}
        return alice.post("account/password", json=body).status_code

    asked_only = [alice.post("account/password", json={"new_password": "x" * 12}) for _ in range(4)]
    right = [change(PASSWORD) for _ in range(4)]
    wrong = [change("guess") for _ in range(3)]

    assert [answer.status_code for answer in asked_only] == [401] * 4
    assert right == [200] * 4
    assert wrong == [401, 401, 429]
    assert log_in(alice.client) == 429


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"{V3}user_directory/search", {"search_term": "bob"}),
        ("GET", "/_matrix/client/v1/rooms/{room}/hierarchy", None),
        ("GET", f"{V3}thirdparty/protocols", None),
    ],
)
def test_what_takes_the_server_some_work_to_find_is_limited(
    limited: Limited, method: str, path: str, body: dict[str, Any] | None
) -> None:
    alice = register(limited("rc_lookups"))
    path = path.format(room=quote(alice.create_room()))

    answers = [is_limited(alice.request(method, path, json=body)) for _ in range(3)]

    assert answers == [False, False, True]


PUBLIC = [
    f"{V3}profile/@alice:localhost",
    f"{V3}profile/@alice:localhost/displayname",
    f"{V3}publicRooms",
    f"{V3}directory/list/room/{{room}}",
    f"{V3}directory/room/%23tea:localhost",
    "/_matrix/client/v1/room_summary/{room}",
]


@pytest.mark.parametrize("path", PUBLIC)
def test_what_needs_no_account_is_limited_by_address_for_those_without_one(
    limited: Limited, path: str
) -> None:
    client = limited("rc_strangers")
    alice = register(client)
    path = path.format(room=quote(alice.create_room(preset="public_chat", room_alias_name="tea")))

    strangers = [is_limited(client.get(path)) for _ in range(3)]
    with_account = [is_limited(alice.get(path)) for _ in range(4)]
    gone = client.get(path, headers={"Authorization": "Bearer made-up"}).status_code
    elsewhere = client.get(path, environ_base={"REMOTE_ADDR": "198.51.100.7"})

    assert strangers == [False, False, True]
    assert with_account == [False] * 4
    assert gone == (401 if "room_summary" in path else 429)
    assert is_limited(elsewhere) is False


CHEAP = {
    "/",
    "/.well-known/matrix/client",
    "/.well-known/matrix/policy_server",
    "/.well-known/matrix/server",
    "/.well-known/matrix/support",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/_homebody/login",
    "/_homebody/oauth/account",
    "/_homebody/oauth/authorize",
    "/_homebody/oauth/register",
    "/_homebody/sign-on/finish",  # for one login, which its browser alone can continue
    "/_homebody/start",
    "/_matrix/client/v1/auth_metadata",
    "/_matrix/client/v3/auth/<auth_type>/fallback/web",
    "/_matrix/client/v3/auth/m.login.sso/fallback/web",  # for one session of a client
    "/_matrix/client/v3/homebody.doctor/<path:_rest>",
    "/_matrix/client/v3/io.element.msc4388/rendezvous",
    "/_matrix/client/v3/io.element.msc4388/rendezvous/<rendezvous_id>",
    "/_matrix/client/v3/login",
    "/_matrix/client/v3/login/fallback",
    "/_matrix/client/v3/login/sso/redirect",
    "/_matrix/client/v3/org.matrix.msc2965/auth_metadata",
    "/_matrix/client/v3/org.matrix.msc4108/rendezvous/<rendezvous_id>",
    "/_matrix/federation/v1/openid/userinfo",  # its sender was given a token for it
    "/_matrix/federation/v1/version",
    "/_matrix/key/v2/server",
    "/_matrix/key/v2/server/<key_id>",
    "/_matrix/static/client/email",
    "/_matrix/static/client/login",
    "/_synapse/admin/v1/register",
    "/_synapse/admin/v1/server_version",
    "/health",
    "/matrix/client/api/v1/login",
    "/matrix/client/api/v1/login/fallback",
    "/metrics",
}
"""What anybody may GET as often as they like: pages and settings, nothing of users and rooms."""
LIMITED = {
    "/_homebody/invite/<token>",
    "/_homebody/reset/<token>",
    "/_homebody/sign-on/again/<provider_id>",
    "/_homebody/sign-on/callback/<provider_id>",
    "/_homebody/sign-on/confirm/<provider_id>",
    "/_homebody/sign-on/link/<provider_id>",
    "/_homebody/sign-on/start/<provider_id>",
    "/_matrix/client/v1/register/m.login.registration_token/validity",
    "/_matrix/client/v3/directory/list/room/<room_id>",
    "/_matrix/client/v3/directory/room/<room_alias>",
    "/_matrix/client/v3/login/sso/redirect/<idp_id>",
    "/_matrix/client/v3/profile/<user_id>",
    "/_matrix/client/v3/profile/<user_id>/<key_name>",
    "/_matrix/client/v3/publicRooms",
    "/_matrix/client/v3/register/available",
    "/_matrix/key/v2/query/<server_name>",
    "/_matrix/key/v2/query/<server_name>/<key_id>",
}
"""What has a limit by address; the tests of this file meet each, and those in
server_server/test_keys.py and web/sign_on_pages/test_journey.py."""


def test_every_question_that_needs_no_account_is_limited_or_costs_nothing(
    make_app: MakeApp,
) -> None:
    anonymous = {
        route.path
        for route in routes.routes(make_app(federation="true"))
        if route.method == "GET" and route.access.authentication == "none"
    }

    assert anonymous == CHEAP | LIMITED


def test_searching_for_words_has_a_limit_of_its_own(limited: Limited) -> None:
    alice = register(limited("rc_search"))
    body = {"search_categories": {"room_events": {"search_term": "tea"}}}

    answers = [is_limited(alice.post("search", json=body)) for _ in range(3)]

    assert answers == [False, False, True]


def test_sending_is_limited_but_not_the_repetition_of_what_was_sent(limited: Limited) -> None:
    alice = register(limited("rc_message"))
    room_id = quote(alice.create_room())

    def send(txn_id: str) -> TestResponse:
        path = f"rooms/{room_id}/send/m.room.message/{txn_id}"
        return alice.put(path, json={"msgtype": "m.text", "body": "hello"})

    first, second, third = send("a"), send("b"), send("c")
    repeated = [send(txn_id).get_json() for txn_id in ("a", "b")]

    assert [is_limited(answer) for answer in (first, second, third)] == [False, False, True]
    assert repeated == [first.get_json(), second.get_json()]
    assert is_limited(alice.post(f"rooms/{room_id}/send/m.room.message", json={"body": "x"}))
    assert is_limited(send("c"))


def test_the_api_of_2014_has_the_same_limit(limited: Limited) -> None:
    alice = register(limited("rc_message"))
    room_id = quote(alice.create_room())

    def send(msg_id: str) -> TestResponse:
        path = f"/matrix/client/api/v1/rooms/{room_id}/messages/{alice.user_id}/{msg_id}"
        return alice.put(path, json={"msgtype": "m.text", "body": "hello"})

    answers = [is_limited(send(msg_id)) for msg_id in ("a", "b", "c", "a")]

    assert answers == [False, False, True, False]


def test_redacting_is_limited_but_not_the_repetition(limited: Limited) -> None:
    alice = register(limited("rc_admin_redaction"))
    room_id = alice.create_room()
    events = [alice.send(room_id) for _ in range(3)]

    def redact(event_id: str) -> TestResponse:
        return alice.put(f"rooms/{quote(room_id)}/redact/{event_id}/t{event_id}", json={})

    answers = [redact(event_id) for event_id in events]

    assert [is_limited(answer) for answer in answers] == [False, False, True]
    assert redact(events[0]).get_json() == answers[0].get_json()


def test_changing_ones_profile_counts_as_sending(limited: Limited) -> None:
    alice = register(limited("rc_message"))
    path = f"profile/{alice.user_id}/displayname"

    answers = [is_limited(alice.put(path, json={"displayname": name})) for name in "abc"]

    assert answers == [False, False, True]
    assert alice.get(path).get_json() == {"displayname": "b"}


def test_creating_rooms_is_limited(limited: Limited) -> None:
    alice = register(limited("rc_room_creation"))

    answers = [is_limited(alice.post("createRoom")) for _ in range(3)]

    assert answers == [False, False, True]
    assert len(alice.get("joined_rooms").get_json()["joined_rooms"]) == 2


def test_joining_is_limited(limited: Limited) -> None:
    client = limited("rc_joins.local")
    alice, bob = register(client), register(client, "bob")
    rooms = [alice.create_room(preset="public_chat") for _ in range(3)]

    answers = [is_limited(bob.post(f"rooms/{quote(room_id)}/join")) for room_id in rooms]

    assert answers == [False, False, True]


@pytest.mark.parametrize(
    ("limit", "is_one_room", "is_one_guest"),
    [
        ("rc_invites.per_issuer", False, False),
        ("rc_invites.per_room", True, False),
        ("rc_invites.per_user", False, True),
    ],
)
def test_inviting_is_limited(
    limited: Limited, limit: str, is_one_room: bool, is_one_guest: bool
) -> None:
    alice = register(limited(limit))
    rooms = [alice.create_room()] * 3 if is_one_room else [alice.create_room() for _ in range(3)]
    guests = [f"@guest{0 if is_one_guest else number}:localhost" for number in range(3)]

    answers = [
        alice.post(f"rooms/{quote(room_id)}/invite", json={"user_id": guest})
        for room_id, guest in zip(rooms, guests, strict=True)
    ]

    assert [is_limited(answer) for answer in answers] == [False, False, True]


def test_the_invites_of_a_new_room_count(limited: Limited) -> None:
    alice = register(limited("rc_invites.per_issuer"))

    first = alice.post("createRoom", json={"invite": ["@a:localhost", "@b:localhost"]})
    second = alice.post("createRoom", json={"invite": ["@c:localhost"]})

    assert [is_limited(answer) for answer in (first, second)] == [False, True]


@pytest.mark.parametrize(
    ("limit", "guests"),
    [("rc_invites.per_issuer", "abc"), ("rc_invites.per_user", "aaa")],
)
def test_the_invites_in_a_new_rooms_initial_state_count(
    limited: Limited, limit: str, guests: str
) -> None:
    alice = register(limited(limit))
    invites = [
        {
            "type": "m.room.member",
            "state_key": f"@{guest}:localhost",
            "content": {"membership": "invite"},
        }
        for guest in guests
    ]

    answers = [alice.post("createRoom", json={"initial_state": [it]}) for it in invites]

    assert [is_limited(answer) for answer in answers] == [False, False, True]


def test_changing_ones_presence_is_limited(limited: Limited) -> None:
    alice = register(limited("rc_presence.per_user"))
    path = f"presence/{alice.user_id}/status"

    answers = [is_limited(alice.put(path, json={"presence": "online"})) for _ in range(3)]

    assert answers == [False, False, True]


def test_typing_is_limited_whether_it_begins_or_ends(limited: Limited) -> None:
    alice = register(limited("rc_typing"))
    rooms = [alice.create_room() for _ in range(3)]

    answers = [
        is_limited(alice.put(f"rooms/{quote(it)}/typing/{alice.user_id}", json={"typing": typing}))
        for it, typing in zip(rooms, (True, False, True), strict=True)
    ]

    assert answers == [False, False, True]


def test_new_versions_of_a_key_backup_are_limited_and_changes_of_them_are_not(
    limited: Limited,
) -> None:
    alice = register(limited("rc_key_backup"))
    body = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {}}

    made = [alice.post("room_keys/version", json=body) for _ in range(3)]
    path = f"room_keys/version/{made[1].get_json()['version']}"
    changes = [alice.put(path, json=body).status_code for _ in range(3)]

    answers = [is_limited(it) for it in made]
    assert answers == [False, False, True]
    assert changes == [200] * 3


def test_reserving_media_ids_is_limited(limited: Limited) -> None:
    alice = register(limited("rc_media_create"))

    answers = [is_limited(alice.post("/_matrix/media/v1/create")) for _ in range(3)]

    assert answers == [False, False, True]


def writing_routes(app: Flask) -> list[tuple[str, str, str]]:
    """(endpoint, method, path) of everything that clients may PUT, POST or DELETE."""
    found = []
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/_homebody/"):  # tests/web/test_browser_sessions.py
            continue
        path = re.sub("<[^>]+>", "x", rule.rule)
        methods = {"PUT", "POST", "DELETE", "PATCH"} & (rule.methods or set())
        found += [(rule.endpoint, method, path) for method in methods]
    return found


def test_no_route_that_changes_something_is_without_a_limit(limited: Limited) -> None:
    client = limited("rc_writes")
    alice = register(client)
    client.post(f"{V3}login", json={})  # the second of this address
    for _ in range(2):
        alice.put("pushrules/global/room/x", json={})
    routes = writing_routes(client.application)

    of_account = {it: alice.request(method, path, json={}) for it, method, path in routes}
    of_address = {it: client.open(path, method=method, json={}) for it, method, path in routes}

    passed = {endpoint for endpoint, answer in of_account.items() if answer.status_code != 429}
    assert passed == ONLY_READ
    refusals = {answer.status_code for answer in of_address.values()}
    assert refusals == {401, 429}  # without a token most do nothing
    assert is_limited(of_address["login.login"])


def test_all_changes_of_an_account_count_together_from_whatever_device(limited: Limited) -> None:
    client = limited("rc_writes", **{"rc_writes.burst_count": "3"})
    alice, bob = register(client), register(client, "bob")
    room_id = quote(alice.create_room())
    wish = {"type": "m.login.password", "identifier": ALICE, "password": PASSWORD}
    session = client.post(f"{V3}login", json=wish).get_json()
    other = Person(client, alice.user_id, session["access_token"], session["device_id"])

    first = alice.put(f"user/{alice.user_id}/account_data/org.example.a", json={"a": 1})
    second = other.put(f"user/{alice.user_id}/rooms/{room_id}/tags/u.work", json={})
    third = other.put(f"devices/{alice.device_id}", json={"display_name": "desk"})
    reading = alice.get(f"user/{alice.user_id}/account_data/org.example.a")
    others = bob.put(f"user/{bob.user_id}/account_data/org.example.a", json={})

    assert [is_limited(answer) for answer in (first, second, third)] == [False, False, True]
    assert (reading.status_code, others.status_code) == (200, 200)


def test_a_large_body_counts_as_several_changes(limited: Limited) -> None:
    alice = register(limited("rc_writes", **{"rc_writes.burst_count": "4"}))
    path = f"user/{alice.user_id}/account_data/org.example."

    small = [is_limited(alice.put(f"{path}a", json={"a": "x" * 1000})) for _ in range(1)]
    large = [alice.post("keys/query", json={"a": "x" * 2 * 2**20}).status_code for _ in range(2)]
    after = is_limited(alice.put(f"{path}b", json={}))

    assert small == [False]
    assert large == [400, 429]
    assert not after


def test_the_right_password_given_again_and_again_is_limited_as_logging_in(
    limited: Limited,
) -> None:
    alice = register(limited("rc_login.account"))
    auth = {"type": "m.login.password", "identifier": ALICE, "password": PASSWORD}

    asked_only = [alice.post("account/password", json={"new_password": "y" * 12}) for _ in range(3)]
    answers = [
        is_limited(alice.post("account/password", json={"new_password": PASSWORD, "auth": auth}))
        for _ in range(3)
    ]

    assert [answer.status_code for answer in asked_only] == [401] * 3
    assert answers == [False, False, True]


def test_nothing_is_limited_where_limits_are_off(make_app: MakeApp) -> None:
    tight = {"rc_message.burst_count": "1", "rc_message.per_second": "0.01"}
    alice = register(make_app(rate_limits="false", **tight).test_client())
    room_id = alice.create_room()

    for _ in range(5):
        alice.send(room_id)


def test_fifty_members_of_a_call_send_their_keys_to_all_at_once(
    make_app: MakeApp, login: Login
) -> None:
    """Each sends its key to each other one, when it joins and again when somebody leaves.

    With the membership of the call, its delayed end, and heart-beats meanwhile.
    """
    people = [login(f"user{number}") for number in range(50)]
    room_id = people[0].create_room(
        invite=[it.user_id for it in people[1:]],
        power_level_content_override={"events": {"org.matrix.msc3401.call.member": 0}},
    )
    for person in people[1:]:
        assert person.post(f"rooms/{room_id}/join").status_code == 200
    limited = make_app(rate_limits="true").test_client()
    some = people[:5]
    for person in some:
        person.client = limited

    refused = []
    for person in some:
        at = f"rooms/{room_id}/state/org.matrix.msc3401.call.member/_{person.user_id}_D"
        delay = {"org.matrix.msc4140.delay": "8000"}
        scheduled = person.put(at, json={}, query_string=delay)
        delay_id = scheduled.get_json()["delay_id"]
        answers = [person.put(at, json={"application": "m.call"})]
        for round_ in range(3):
            for number, other in enumerate(people):
                key = {other.user_id: {other.device_id: {"algorithm": "m.olm.v1"}}}
                path = f"sendToDevice/m.room.encrypted/t{round_}-{number}"
                answers.append(person.put(path, json={"messages": key}))
            beat = f"/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay_id}/restart"
            answers.append(person.post(beat))
        refused += [it.get_json() for it in answers if it.status_code != 200]

    assert refused == []
