"""Values of absurd size: nesting, IDs, headers, queries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.faults_clients import clients
from tests.faults_clients.clients import V3, Person, Process, Watch
from tests.helpers.server import RunningServer

DEPTH = 100_000
LONG = "x" * 1_000_000
TOO_LARGE = (431, "M_TOO_LARGE")
ALICE = "@alice:localhost"
WORD = {"msgtype": "m.text", "body": "hello"}


@pytest.fixture(scope="module", autouse=True)
def _quietly(server: RunningServer) -> Iterator[None]:
    """Check that the server logs no errors and its memory doesn't grow."""
    with Watch(Process(server)) as watch:
        yield
    assert watch.grown_bytes < 150_000_000


@pytest.fixture(scope="module")
def room_id(alice: Person) -> str:
    return quote(alice.ask("POST", "/createRoom", {})[1]["room_id"], safe="")


def refusal(answer: tuple[int, Any, Any]) -> tuple[int, str]:
    """Return (status, errcode) of a response, which must be short."""
    status, body, headers = answer
    assert int(headers["Content-Length"]) < 4_000
    return status, body["errcode"]


DEEP = {
    "arrays": b"[" * DEPTH + b"]" * DEPTH,
    "objects": b'{"a":' * DEPTH + b"1" + b"}" * DEPTH,
    "arrays without end": b"[" * DEPTH,
    "1,000 arrays": b"[" * 1_000 + b"]" * 1_000,
    "110 objects": b'{"a":' * 110 + b"1" + b"}" * 110,
}
PLACES = {
    "event": ("PUT", "/rooms/%b/send/m.room.message/t1", b'{"msgtype":"m.text","x":%b}'),
    "state": ("PUT", "/rooms/%b/state/m.room.power_levels", b'{"users":%b}'),
    "login": ("POST", "/login", b'{"type":"m.login.password","identifier":%b}'),
    "filter": ("POST", f"/user/{ALICE}/filter", b'{"room":{"timeline":%b}}'),
    "account data": ("PUT", f"/user/{ALICE}/account_data/x", b'{"x":%b}'),
    "keys": ("POST", "/keys/upload", b'{"device_keys":%b}'),
    "whole body": ("POST", "/createRoom", b"%b"),
}


@pytest.mark.parametrize("deep", DEEP)
@pytest.mark.parametrize("place", PLACES)
def test_nesting_without_end_is_refused(alice: Person, room_id: str, place: str, deep: str) -> None:
    # Protects: SAFE_DEPTH in client_server/http.py, check_depth in spec/canonical_json.py; for more
    # than 1,024 levels orjson's own limit, where another parser would exhaust the stack.
    method, path, body = PLACES[place]

    answer = alice.ask(method, path.replace("%b", room_id), body % DEEP[deep])

    assert refusal(answer) in {
        (400, "M_NOT_JSON"),
        (400, "M_BAD_JSON"),
        (413, "M_TOO_LARGE"),
    }


@pytest.mark.parametrize("path", ["/sync?filter=", "/rooms/%b/messages?dir=b&filter="])
@pytest.mark.parametrize("deep", ["1,000 arrays", "110 objects"])
def test_nesting_in_a_filter_of_the_query_is_refused(
    alice: Person, room_id: str, path: str, deep: str
) -> None:
    # Protects: the typed decoding in spec/filters.py: no part of a filter accepts nested values.
    text = '{"room":{"timeline":{"types":%s}},"types":%s}' % ((DEEP[deep].decode(),) * 2)

    answer = alice.ask("GET", path.replace("%b", room_id) + quote(text))

    assert refusal(answer) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * 2_600_000 + b"1]",
        b'{"type":' + b'[{"a":1}],' * 700_000 + b"1}",
        b"[" + b"[]," * 200 + b"1," * 3_900_000 + b"1]",
        b"[" + (b"[" * 90 + b"]" * 90 + b",") * 44_000 + b"1]",
    ],
    ids=["arrays", "objects", "numbers", "arrays in arrays"],
)
def test_eight_megabytes_of_tiny_values_hold_nobody_up(alice: Person, body: bytes) -> None:
    # Protects client_server/http.py: json_object; the last two bodies need MAX_COMMAS and
    # MAX_CONTAINERS. Without it the server was blocked for seven seconds. (Where no large body is
    # expected, such a body is not even read: MAX_BODY_BYTES.)
    process = Process(alice.server)
    before = process.cpu_seconds()

    answer = alice.ask("POST", "/keys/query", body)

    assert refusal(answer) == (413, "M_TOO_LARGE")
    assert process.cpu_seconds() - before < 0.7


PATHS = [
    # MAX_MESSAGE in errors.py, as the error messages quote it
    ("GET", "/directory/room/%23{}:localhost", 400),
    ("POST", "/join/!{}:localhost", 400),
    ("POST", "/knock/%23{}:localhost", 400),
    ("GET", "/thirdparty/protocol/{}", 404),
    # has_at_most_255_bytes in client_server/room_send.py: _send
    ("PUT", "/rooms/{room}/send/m.room.message/{}", 400),
    # either of the two limits in core/timeline/sending.py: check_form
    ("PUT", "/rooms/{room}/send/{}/t2", 413),
    ("PUT", "/rooms/{room}/state/m.room.topic/{}", 413),
    # core/user_data/filters.py: _json; unknown keys are ignored, or this would be a filter
    ("GET", "/sync?filter=%7B%22nonsense%22:%22{}%22%7D", 400),
    # has_at_most_255_bytes in core/user_data/account_data.py: put
    ("PUT", f"/user/{ALICE}/account_data/{{}}", 400),
    # only the limit of the head: they are only looked up, or not a number
    ("GET", "/rooms/!{}:localhost/state", 403),
    ("GET", "/rooms/{room}/event/${}", 404),
    ("GET", "/profile/@{}:localhost", 404),
    ("GET", "/devices/{}", 404),
    ("GET", f"/user/{ALICE}/filter/{{}}", 404),
    ("GET", "/sync?filter={}", 400),
    ("GET", "/sync?since={}", 400),
    ("GET", "/_matrix/client/v1/media/download/localhost/{}", 404),
    ("GET", "/_matrix/client/v1/media/thumbnail/localhost/{}?width=1&height=1", 404),
    ("GET", "/rooms/{room}/messages?dir=b&from={}", 400),
    ("GET", "/{}", 404),
]


@pytest.mark.parametrize(("method", "path", "expected"), PATHS)
def test_a_long_id_in_a_path_is_refused_in_a_short_sentence(
    alice: Person, room_id: str, method: str, path: str, expected: int
) -> None:
    # Protects: what is named above each path, and for the megabyte MAX_HEAD_BYTES in
    # server/connection.py: Connection._recv_head.
    body = WORD if method == "PUT" else {} if method == "POST" else None

    long = alice.ask(method, path.format(LONG[:200_000], room=room_id), body)

    assert refusal(long)[0] == expected
    with clients.connect(alice.server) as client:
        with contextlib.suppress(ConnectionError):
            target = V3 + path.format(LONG, room=room_id)
            client.sendall(clients.head(method, target, alice.token))
        status, answer = clients.answer_of(client)
        assert (status, answer["errcode"]) == TOO_LARGE


def password_login(**identifier: str) -> dict[str, Any]:
    return {"type": "m.login.password", "identifier": identifier, "password": "x" * 12}


BODIES: list[tuple[str, str, dict[str, Any], int]] = [
    # MAX_MESSAGE in errors.py, as the error messages quote it
    ("POST", "/login", {"type": LONG}, 400),
    # MAX_BODY_BYTES in client_server/http.py
    ("POST", "/login", password_login(type=LONG, user=LONG), 413),
    ("POST", "/createRoom", {"room_version": LONG}, 400),
    # the sizes of events, checked before the write: core/rooms/creation.py, local_rules.py
    ("POST", "/createRoom", {"room_alias_name": LONG}, 413),
    ("POST", "/createRoom", {"invite": [f"@{LONG}:localhost"]}, 413),
    ("POST", "/rooms/{room}/invite", {"user_id": f"@{LONG}:localhost"}, 413),
    ("POST", "/rooms/{room}/kick", {"user_id": LONG}, 413),
    # core/sessions/devices.py: start_session
    ("POST", "/login", {**password_login(type="m.id.user", user="alice"), "device_id": LONG}, 400),
    # core/sessions/registration.py, spec/identifiers.py: is_valid_localpart_for_registration
    ("POST", "/register", {"username": LONG, "auth": {"type": "m.login.dummy"}}, 400),
    # core/accounts/accounts.py: check_new_password
    ("POST", "/register", {"username": "a2", "password": LONG}, 400),
    # MAX_BYTES in spec/events.py
    ("POST", "/createRoom", {"initial_state": [{"type": LONG, "content": {}}]}, 413),
    ("PUT", "/rooms/{room}/send/m.room.message/t3", {"body": LONG}, 413),
    # is_user_id for to-device messages
    ("PUT", "/sendToDevice/m.x/t1", {"messages": {f"@{LONG}:localhost": {"*": {}}}}, 400),
    # MAX_BYTES in core/encryption/to_device.py
    ("PUT", "/sendToDevice/m.x/t2", {"messages": {ALICE: {"*": {"a": LONG}}}}, 413),
    # client_server/keys.py: _check_users
    ("POST", "/keys/query", {"device_keys": {f"@{LONG}:localhost": []}}, 400),
    # core/encryption/one_time_keys.py: _split
    ("POST", "/keys/upload", {"fallback_keys": {f"{LONG}:a": "key"}}, 400),
    # the length of the search term in the user directory
    ("POST", "/user_directory/search", {"search_term": "a b " * 250_000}, 400),
    # MAX_BYTES in core/user_data/filters.py
    ("POST", f"/user/{ALICE}/filter", {"room": {"rooms": [f"!{LONG}"]}}, 413),
    # spec/push_rulesets.py: _checked_pattern, and after it MAX_RULE_BYTES
    ("PUT", "/pushrules/global/content/a", {"actions": ["notify"], "pattern": LONG}, 400),
    # core/profiles/profiles.py: _check_value, and after it _check_size
    ("PUT", f"/profile/{ALICE}/displayname", {"displayname": LONG}, 400),
    # core/ephemeral/presence.py: set_status
    ("PUT", f"/presence/{ALICE}/status", {"presence": "online", "status_msg": LONG}, 400),
    # ListName in client_server/sliding_sync.py
    (
        "POST",
        "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync",
        {"lists": {LONG: {"ranges": [[0, 1]], "timeline_limit": 1, "required_state": []}}},
        400,
    ),
    # nothing: it is only looked up
    ("POST", "/login", password_login(type="m.id.user", user=LONG), 403),
]


@pytest.mark.parametrize(("method", "path", "body", "expected"), BODIES)
def test_a_long_id_in_a_body_is_refused_in_a_short_sentence(
    alice: Person, room_id: str, method: str, path: str, body: dict[str, Any], expected: int
) -> None:
    # Protects: what is named above each body.
    answer = alice.ask(method, path.replace("{room}", room_id), body)

    assert refusal(answer)[0] == expected


@pytest.mark.parametrize(
    "extra",
    [
        {"X_Long": LONG},
        {"Authorization": f"Bearer {LONG}"},
        {"X_Long": LONG[:70_000]},
        {f"X_{number}": "y" for number in range(10_000)},
        {f"X_{number}": "y" for number in range(200)},
    ],
    ids=["a megabyte", "a token of a megabyte", "70 kB", "10,000 of them", "200 of them"],
)
def test_headers_beyond_measure_are_refused(server: RunningServer, extra: dict[str, str]) -> None:
    # Protects: limit_request_field_size in server/gunicorn_config.py (a megabyte is also more than
    # MAX_HEAD_BYTES in server/connection.py), the default of limit_request_fields, and for more
    # headers than the parser supports Worker._has_too_many_headers.
    with clients.connect(server) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(clients.head("GET", "/_matrix/client/versions", **extra))

        status, answer = clients.answer_of(client)

        assert (status, answer["errcode"]) == TOO_LARGE


def test_a_header_that_is_only_long_is_taken(alice: Person) -> None:
    # Protects: limit_request_field_size in server/gunicorn_config.py; the default is 8,190 bytes.
    with clients.connect(alice.server) as client:
        client.sendall(
            clients.head("GET", f"{V3}/account/whoami", alice.token, Cookie=LONG[:60_000])
        )

        status, answer = clients.answer_of(client)

        assert (status, answer["user_id"]) == (200, ALICE)


def test_a_query_of_very_many_parameters_is_refused(alice: Person) -> None:
    # Protects: MAX_PARAMETERS in web/middleware.py.
    query = "&".join(f"a{number}=1" for number in range(40_000))

    answer = alice.ask("GET", f"/sync?{query}")

    assert refusal(answer) == (400, "M_INVALID_PARAM")
