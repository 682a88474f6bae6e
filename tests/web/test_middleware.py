"""What holds for every path: CORS, OPTIONS, unknown endpoints, escapes, proxies, tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder, TestResponse
from werkzeug.wrappers import Request

from homebody.config import settings as config
from homebody.spec.signing import SigningKey
from homebody.storage.database import Server
from homebody.web import Application, middleware
from tests.conftest import V3, Login, MakeApp, Person

ALLOWED_HEADERS = {"X-Requested-With", "Content-Type", "Authorization"}
PATHS = [
    f"{V3}sync",
    f"{V3}login",
    f"{V3}rooms/%21room%3Alocalhost/state/m.room.name/",
    "/_matrix/client/versions",
    "/_matrix/media/v3/upload",
    "/_matrix/client/v1/media/download/localhost/abc",
    "/.well-known/matrix/client",
    "/matrix/client/api/v1/login",
    "/_matrix/client/v9/nowhere",
    "/nowhere",
    "/%FF",
    "/",
]


def has_cors(answer: TestResponse) -> bool:
    """Whether a page of any origin may send the request and read this answer."""
    headers = answer.headers
    assert headers.getlist("Access-Control-Allow-Origin") == ["*"]
    methods = set(headers["Access-Control-Allow-Methods"].split(", "))
    allowed = set(headers["Access-Control-Allow-Headers"].split(", "))
    return methods == {"GET", "POST", "PUT", "DELETE", "OPTIONS"} and allowed >= ALLOWED_HEADERS


def error_of(answer: TestResponse) -> tuple[int, str]:
    assert answer.content_type == "application/json"
    body = answer.get_json()
    assert isinstance(body["error"], str)
    return answer.status_code, body["errcode"]


@pytest.mark.parametrize("path", PATHS)
def test_options_is_answered_for_every_path_without_a_token(client: FlaskClient, path: str) -> None:
    preflight = {
        "Origin": "https://client.example.org",
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "authorization,content-type",
    }

    answer = client.options(path, headers=preflight)

    assert answer.status_code == 200
    assert has_cors(answer)


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_may_be_read_by_any_page(client: FlaskClient, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"):
        assert has_cors(client.open(path, method=method))


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/_matrix/client/versions", 200),
        ("GET", f"{V3}account/whoami", 401),
        ("GET", f"{V3}profile/@nobody:localhost", 404),
        ("DELETE", f"{V3}sync", 405),
        ("POST", f"{V3}login", 400),
        ("GET", f"{V3}capabilities", 500),
    ],
)
def test_cors_goes_with_every_status(
    app: Application, method: str, path: str, expected: int
) -> None:
    app.view_functions["versions.get_capabilities"] = lambda: str(1 // 0)

    answer = app.test_client().open(path, method=method)

    assert answer.status_code == expected
    assert has_cors(answer)


def test_a_body_too_large_is_refused_with_cors(client: FlaskClient) -> None:
    answer = client.post(f"{V3}login", data=b" " * (2**20 + 1))

    assert error_of(answer) == (413, "M_TOO_LARGE")
    assert has_cors(answer)


def test_only_what_holds_much_by_its_nature_may_be_large(login: Login) -> None:
    # nobody else is served while a body is parsed
    alice = login("alice")
    large = {"a": "x" * 2**20}
    escaped = {"a": "é" * 2**18}  # half a mebibyte once it is read, three times as much before

    refused = [
        alice.put("pushrules/global/override/a", json=large),
        alice.post(f"user/{alice.user_id}/filter", json=large),
        alice.post("keys/upload", json=large),
        alice.post("search", json=large),
        alice.put(f"presence/{alice.user_id}/status", json=large),
        alice.post("publicRooms", json=large),
    ]
    taken = [
        alice.put("sendToDevice/m.a/1", json={**large, "messages": {}}),
        alice.post("keys/query", json={**large, "device_keys": {}}),
        alice.put(f"user/{alice.user_id}/account_data/org.example.a", json=escaped),
    ]

    assert {error_of(answer) for answer in refused} == {(413, "M_TOO_LARGE")}
    assert {answer.status_code for answer in taken} == {200}


def test_a_body_of_too_many_values_is_refused(login: Login) -> None:
    alice = login("alice")

    answer = alice.post("keys/query", json={"device_keys": {}, "a": [1] * 200_001})

    assert error_of(answer) == (413, "M_TOO_LARGE")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        "/_matrix/client/v3/nowhere",
        "/_matrix/client/v99/sync",
        "/_matrix/client",
        "/_matrix/client/v3%2Fsync",
        "/_matrix/client/v3/rooms/!a:b/send/too/many/parts/here",
        "/nowhere",
        "/.well-known/matrix/nothing",
    ],
)
def test_an_unknown_path_is_unrecognized(client: FlaskClient, method: str, path: str) -> None:
    assert error_of(client.open(path, method=method)) == (404, "M_UNRECOGNIZED")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", f"{V3}login", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("PATCH", f"{V3}createRoom", {"POST", "OPTIONS"}),
        ("POST", "/_matrix/client/versions", {"GET", "HEAD", "OPTIONS"}),
        ("BREW", f"{V3}login", {"GET", "HEAD", "POST", "OPTIONS"}),
    ],
)
def test_a_known_path_with_the_wrong_method_is_unrecognized(
    client: FlaskClient, method: str, path: str, allowed: set[str]
) -> None:
    answer = client.open(path, method=method)

    assert error_of(answer) == (405, "M_UNRECOGNIZED")
    assert set(answer.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    "path", ["/%FF", f"{V3}profile/%C3", f"{V3}rooms/%ED%A0%80/state", f"{V3}%80?a=b"]
)
def test_a_path_that_is_no_utf_8_is_refused(client: FlaskClient, path: str) -> None:
    assert error_of(client.get(path)) == (400, "M_INVALID_PARAM")


def test_a_query_that_is_no_utf_8_is_no_fault(login: Login) -> None:
    answer = login("alice").get("sync?timeout=0&filter=%FF%ED%A0%80&%FE=%FE")

    assert answer.status_code == 400


@pytest.mark.parametrize("prefix", ["r0", "v3", "unstable", "v2_alpha", "api/v1"])
def test_older_prefixes_lead_to_the_same_views(login: Login, prefix: str) -> None:
    alice = login("alice")

    answer = alice.get(f"/_matrix/client/{prefix}/account/whoami")

    assert answer.get_json()["user_id"] == alice.user_id


STATE_KEYS = [
    "",
    "a/b",
    "/",
    "//",
    "%2F",
    "%",
    "%25",
    "100% a/b?c#d&e=f+g h",
    "..",
    "grün/🍋",
    "line\nbreak",
    "\x00",
    "https://example.org/a",
]


@pytest.mark.parametrize("state_key", STATE_KEYS)
def test_a_state_key_comes_through_the_path_as_it_is(login: Login, state_key: str) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    path = f"rooms/{quote(room_id)}/state/org.example/{quote(state_key, safe='')}"

    alice.put(path, json={"key": state_key})

    assert alice.get(path).get_json() == {"key": state_key}
    events = alice.get(f"rooms/{quote(room_id)}/state").get_json()
    keys = [event["state_key"] for event in events if event["type"] == "org.example"]
    assert keys == [state_key]


def test_an_unescaped_slash_parts_a_path(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    answer = alice.put(f"rooms/{quote(room_id)}/state/org.example/a/b", json={})

    assert error_of(answer) == (404, "M_UNRECOGNIZED")


def test_letters_of_an_escape_may_be_small(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    alice.put(f"rooms/{quote(room_id)}/state/org.example/a%2fb", json={"small": True})

    answer = alice.get(f"rooms/{quote(room_id)}/state/org%2Eexample/a%2Fb")

    assert answer.get_json() == {"small": True}


def test_a_token_in_the_query_counts_where_there_is_no_header(
    login: Login, client: FlaskClient
) -> None:
    alice, bob = login("alice"), login("bob")
    path = f"{V3}account/whoami?access_token={alice.access_token}"

    by_query = client.get(path)
    by_header = bob.get(path)

    assert by_query.get_json()["user_id"] == alice.user_id
    assert by_header.get_json()["user_id"] == bob.user_id


@pytest.mark.parametrize(
    "query", ["", "?access_token=", "?access_token=nobody", "?access_token=%FF"]
)
def test_without_a_valid_token_nothing_is_told(client: FlaskClient, query: str) -> None:
    answer = client.get(f"{V3}account/whoami{query}")

    errcode = "M_UNKNOWN_TOKEN" if query else "M_MISSING_TOKEN"
    assert error_of(answer) == (401, errcode)


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer nobody", "Basic YTpi", "bearer \xff"]
)
def test_no_header_makes_a_fault(client: FlaskClient, header: str) -> None:
    answer = client.get(f"{V3}account/whoami", headers={"Authorization": header})

    assert answer.status_code == 401
    assert answer.get_json()["errcode"] in {"M_MISSING_TOKEN", "M_UNKNOWN_TOKEN"}


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/x-www-form-urlencoded",  # what curl -d sends
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "text/plain; charset=utf-16",
        "nonsense",
        "",
    ],
)
def test_the_type_of_a_body_does_not_matter(login: Login, content_type: str) -> None:
    alice = login("alice")
    body = '{"name": "Tea & cake = ☕"}'.encode()

    answer = alice.post("createRoom", json=None, data=body, content_type=content_type)

    assert answer.status_code == 200
    room_id = quote(answer.get_json()["room_id"])
    name = alice.get(f"rooms/{room_id}/state/m.room.name").get_json()
    assert name == {"name": "Tea & cake = ☕"}


def server_with(settings: config.Config) -> Server:
    return Server("localhost", SigningKey.from_seed("a_0", bytes(32)), settings)


Through = Callable[..., str]


@pytest.fixture
def through() -> Through:
    """The client's address as a view sees it, for a connection from `peer` with these headers."""

    def seen(peer: str, forwarded: str | None, proxies: str = "127.0.0.1") -> str:
        found: list[str] = []

        def application(environ: dict[str, Any], _start: object) -> Iterable[bytes]:
            found.append(environ["REMOTE_ADDR"])
            return []

        headers = [] if forwarded is None else [("X-Forwarded-For", forwarded)]
        environ = EnvironBuilder(path="/", headers=headers).get_environ()
        settings = config.load(None, {"HOMEBODY_TRUSTED_PROXIES": proxies}, {})
        edge = middleware.Edge(application, server_with(settings))
        edge({**environ, "REMOTE_ADDR": peer}, lambda *_: lambda _: None)
        return found[0]

    return seen


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "198.51.100.1, 192.0.2.7", "192.0.2.7"),  # the first one is the client's word
        ("127.0.0.1", "198.51.100.1, 192.0.2.7, 127.0.0.1", "192.0.2.7"),
        ("192.0.2.7", "198.51.100.1", "192.0.2.7"),  # no proxy of ours
        ("::ffff:127.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "192.0.2.7:41234", "192.0.2.7"),
        ("127.0.0.1", "[2001:db8::1]:41234", "2001:db8::1"),
        ("127.0.0.1", "2001:DB8::1", "2001:db8::1"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "x" * 10_000 + ", 127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
    ],
)
def test_only_a_trusted_proxy_says_who_the_client_is(
    through: Through, peer: str, forwarded: str | None, client: str
) -> None:
    assert through(peer, forwarded) == client


@pytest.mark.parametrize(
    ("peer", "headers", "scheme"),
    [
        ("127.0.0.1", {}, "http"),
        ("127.0.0.1", {"Proto": "https"}, "https"),
        ("127.0.0.1", {"Proto": "https", "For": "192.0.2.7"}, "https"),
        ("127.0.0.1", {"Proto": "https, http", "For": "192.0.2.7"}, "http"),  # the client's word
        ("127.0.0.1", {"Proto": "https, http", "For": "192.0.2.7, 127.0.0.1"}, "https"),
        ("127.0.0.1", {"Proto": "HTTPS", "For": "192.0.2.7, 127.0.0.1"}, "https"),
        ("127.0.0.1", {"Proto": "javascript"}, "http"),
        ("192.0.2.7", {"Proto": "https"}, "http"),  # no proxy of ours
        ("192.0.2.7", {"Proto": "https", "For": "127.0.0.1"}, "http"),
    ],
)
def test_only_a_trusted_proxy_says_how_the_client_came(
    peer: str, headers: dict[str, str], scheme: str
) -> None:
    found: list[Request] = []

    def application(environ: dict[str, Any], _start: object) -> Iterable[bytes]:
        found.append(Request(environ))
        return []

    sent = {f"X-Forwarded-{name}": value for name, value in headers.items()}
    sent |= {"X-Forwarded-Host": "evil.example.org", "Host": "matrix.example.org"}
    environ = EnvironBuilder(path="/", headers=[*sent.items()]).get_environ()

    edge = middleware.Edge(application, server_with(config.load(None, {}, {})))
    edge({**environ, "REMOTE_ADDR": peer}, lambda *_: lambda _: None)

    assert (found[0].scheme, found[0].host) == (scheme, "matrix.example.org")


def test_a_whole_network_may_be_trusted(through: Through) -> None:
    seen = through("10.1.2.3", "192.0.2.7, 10.9.9.9", "10.0.0.0/8")

    assert seen == "192.0.2.7"


def test_the_address_in_the_list_of_devices_is_the_clients(make_app: MakeApp) -> None:
    client = make_app().test_client()
    body = {"username": "alice", "auth": {"type": "m.login.dummy"}}
    session = client.post(f"{V3}register", json=body).get_json()
    alice = Person(client, session["user_id"], session["access_token"], session["device_id"])

    answer = alice.get("devices", headers={"X-Forwarded-For": "192.0.2.7"})

    (device,) = answer.get_json()["devices"]
    assert device["last_seen_ip"] == "192.0.2.7"
