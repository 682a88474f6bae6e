"""001: the API as the administrator sees it, who sets it up and checks it with curl.

The commands are the document's, with a token of the test's own in the place of YOUR_TOKEN.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from tests.conftest import Person
from tests.seeds.conftest import HOST, MakeServer
from tests.seeds.printed import Answer, Curl, InProcess, answer_of, request_in

Json = dict[str, Any]

VERSIONS = f"curl {HOST}/_matrix/client/versions"
WELL_KNOWN = "curl https://example.com/.well-known/matrix/client"
LOGIN = f"""
curl -X POST {HOST}/_matrix/client/v3/login \\
  -H "Content-Type: application/json" \\
  -d '{{
    "type": "m.login.password",
    "identifier": {{
      "type": "m.id.user",
      "user": "alice"
    }},
    "password": "secretpassword"
  }}'
"""
SYNC = f'curl {HOST}/_matrix/client/v3/sync -H "Authorization: Bearer YOUR_TOKEN"'
TEST_SYNC = f"""
curl {HOST}/_matrix/client/v3/sync?timeout=0 \\
  -H "Authorization: Bearer YOUR_TOKEN"
"""
MEDIA_UPLOAD = "/_matrix/media/v3/upload"
MEDIA_DOWNLOAD = "/_matrix/media/v3/download/{serverName}/{mediaId}"

PRINTED_VERSIONS = """
{
  "versions": [
    "r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0",
    "v1.1", "v1.2", "v1.3", "v1.4", "v1.5"
  ],
  "unstable_features": {
    "org.matrix.e2e_cross_signing": true,
    "org.matrix.msc2285.stable": true
  }
}
"""
PRINTED_CORS = """
Access-Control-Allow-Origin: *
Access-Control-Allow-Methods: GET, POST, PUT, DELETE, OPTIONS
Access-Control-Allow-Headers: Origin, X-Requested-With, Content-Type, Accept, Authorization
"""
PRINTED_LIMITS = {
    "rc_message.per_second": "0.2",
    "rc_message.burst_count": "10",
    "rc_registration.per_second": "0.17",
    "rc_registration.burst_count": "3",
    "rc_login.address.per_second": "0.17",
    "rc_login.address.burst_count": "3",
    "rc_login.account.per_second": "0.17",
    "rc_login.account.burst_count": "3",
}


@pytest.fixture
def server(make_server: MakeServer) -> FlaskClient:
    return make_server()


@pytest.fixture
def owner(server: FlaskClient) -> Curl:
    """The owner's curl."""
    return InProcess(server)


@pytest.fixture
def alice(server: FlaskClient) -> Person:
    return register(server, "alice")


def register(client: FlaskClient, name: str) -> Person:
    """An account with the document's password."""
    body = {"username": name, "password": "secretpassword", "auth": {"type": "m.login.dummy"}}
    answer = client.post("/_matrix/client/v3/register", json=body).get_json()
    return Person(client, answer["user_id"], answer["access_token"], answer["device_id"])


def check_cors(answer: Answer) -> None:
    """All the headers that the document requires, with all the words that it has in them."""
    for line in PRINTED_CORS.strip().splitlines():
        name, _, value = line.partition(": ")
        assert set(value.split(", ")) <= set(answer.headers[name].split(", ")), name


# --- API Versioning


def test_the_versions(owner: Curl) -> None:
    answer = owner(VERSIONS)

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    printed = json.loads(PRINTED_VERSIONS)
    told = [version for version in answer.json["versions"] if version in printed["versions"]]
    assert told == printed["versions"]
    assert answer.json["unstable_features"].items() >= printed["unstable_features"].items()


# --- Key Endpoints


def test_registration_login_and_logout(server: FlaskClient, alice: Person) -> None:
    session = InProcess(server)(LOGIN).json
    on_telephone = Person(server, "@alice:example.com", session["access_token"], "")
    assert on_telephone.get("account/whoami").status_code == 200

    answer = on_telephone.post("/_matrix/client/v3/logout")

    assert (answer.status_code, answer.get_json()) == (200, {})
    assert on_telephone.get("account/whoami").status_code == 401
    assert alice.get("account/whoami").status_code == 200


def test_a_room_is_created_joined_talked_in_and_left(server: FlaskClient, alice: Person) -> None:
    bob = register(server, "bob")

    created = alice.post("/_matrix/client/v3/createRoom", json={"preset": "public_chat"})
    room_id = quote(created.get_json()["room_id"])
    joined = bob.post(f"/_matrix/client/v3/join/{room_id}")
    sent = bob.put(
        f"/_matrix/client/v3/rooms/{room_id}/send/m.room.message/1",
        json={"msgtype": "m.text", "body": "hi"},
    )
    left = bob.post(f"/_matrix/client/v3/rooms/{room_id}/leave")

    answers = [created, joined, sent, left]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert left.get_json() == {}
    (room,) = alice.sync()["rooms"]["join"].values()
    *_, message, leave = room["timeline"]["events"]
    assert (message["event_id"], message["content"]["body"]) == (sent.get_json()["event_id"], "hi")
    assert (leave["sender"], leave["content"]["membership"]) == ("@bob:example.com", "leave")


def test_media_is_uploaded_and_downloaded(alice: Person) -> None:
    upload = alice.post(
        f"{MEDIA_UPLOAD}?filename=a.txt", data=b"content", content_type="text/plain", json=None
    )
    assert upload.status_code == 200
    server_name, media_id = upload.get_json()["content_uri"].removeprefix("mxc://").split("/")
    assert server_name == "example.com"

    path = MEDIA_DOWNLOAD.replace("{serverName}", server_name).replace("{mediaId}", media_id)
    download = alice.get(path)

    assert (download.status_code, download.data) == (200, b"content")
    assert download.headers["Content-Type"].startswith("text/plain")
    assert "a.txt" in download.headers["Content-Disposition"]


def test_uploads_have_a_reasonable_limit(make_server: MakeServer) -> None:
    alice = register(make_server(max_upload_bytes="10"), "alice")

    answer = alice.post(MEDIA_UPLOAD, data=b"x" * 11, content_type="text/plain", json=None)

    assert (answer.status_code, answer.get_json()["errcode"]) == (413, "M_TOO_LARGE")


# --- Client Discovery


def test_the_server_itself_tells_where_it_is(owner: Curl) -> None:
    answer = owner(WELL_KNOWN)

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.json == {"m.homeserver": {"base_url": HOST}}


def test_it_names_an_identity_server_where_one_is_set(make_server: MakeServer) -> None:
    owner = InProcess(make_server(identity_server="https://vector.im"))

    assert owner(WELL_KNOWN).json == {
        "m.homeserver": {"base_url": HOST},
        "m.identity_server": {"base_url": "https://vector.im"},
    }


# --- CORS Requirements


@pytest.mark.parametrize(
    "path", ["/_matrix/client/versions", "/_matrix/client/v3/login", "/.well-known/matrix/client"]
)
def test_answers_have_the_headers_that_browsers_require(server: FlaskClient, path: str) -> None:
    answer = InProcess(server).send(request_in(f"GET {path}", host=HOST))

    assert answer.status == 200
    check_cors(answer)


def test_errors_have_them_too(owner: Curl) -> None:
    answer = owner(SYNC, {"YOUR_TOKEN": "wrong"})

    assert answer.status == 401
    check_cors(answer)


@pytest.mark.parametrize(
    "path",
    [
        "/_matrix/client/v3/login",
        "/_matrix/client/v3/sync",
        "/_matrix/client/v3/rooms/!a:b/send/m.room.message/1",
        "/_matrix/media/v3/upload",
        "/_matrix/client/v3/what/is/not/there",
    ],
)
def test_preflight_requests_are_handled(server: FlaskClient, path: str) -> None:
    answer = InProcess(server).send(request_in(f"OPTIONS {path}", host=HOST))

    assert answer.status in {200, 204}
    check_cors(answer)


# --- Authentication


def test_the_login_flow(owner: Curl, alice: Person) -> None:
    answer = owner(LOGIN)

    assert answer.status == 200
    session = answer.json
    assert session["user_id"] == alice.user_id == "@alice:example.com"
    assert session["access_token"] != alice.access_token
    assert isinstance(session["device_id"], str)
    synced = owner(SYNC, {"YOUR_TOKEN": session["access_token"]})
    assert synced.status == 200
    assert isinstance(synced.json["next_batch"], str)


@pytest.mark.parametrize(("printed", "wrong"), [("secretpassword", "x"), ('"alice"', '"bob"')])
def test_a_wrong_password_and_a_user_who_does_not_exist_are_refused_alike(
    owner: Curl, alice: Person, printed: str, wrong: str
) -> None:
    assert alice.user_id == "@alice:example.com"

    answer = owner(LOGIN.replace(printed, wrong))

    assert (answer.status, answer.json["errcode"]) == (403, "M_FORBIDDEN")
    assert answer.json["error"] == "Unknown user name or wrong password"


# --- Rate Limiting


def limited(answer: Answer) -> None:
    """The answer of the document."""
    assert answer.status == 429
    assert (answer.json["errcode"], answer.json["error"]) == (
        "M_LIMIT_EXCEEDED",
        "Too many requests",
    )
    assert isinstance(answer.json["retry_after_ms"], int)
    assert 0 < answer.json["retry_after_ms"] <= 6000


def test_the_printed_limit_of_messages(make_server: MakeServer) -> None:
    alice = register(make_server(rate_limits="true", **PRINTED_LIMITS), "alice")
    path = f"rooms/{quote(alice.create_room())}/send/m.room.message"
    content = {"msgtype": "m.text", "body": "hi"}

    answers = [alice.put(f"{path}/{number}", json=content) for number in range(11)]

    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    limited(answer_of(answers[-1]))


def test_the_printed_limit_of_registrations(make_server: MakeServer) -> None:
    client = make_server(rate_limits="true", **PRINTED_LIMITS)
    body = {"auth": {"type": "m.login.dummy"}}

    answers = [client.post("/_matrix/client/v3/register", json=body) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    limited(answer_of(answers[-1]))


def test_the_printed_limit_of_logins(make_server: MakeServer) -> None:
    client = make_server(rate_limits="true", **PRINTED_LIMITS)
    register(client, "alice")

    answers = [InProcess(client)(LOGIN) for _ in range(4)]

    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    limited(answers[-1])


# --- Testing the Client-Server API


def test_the_sync_endpoint_requires_authentication(owner: Curl, alice: Person) -> None:
    refused = owner(TEST_SYNC, {"YOUR_TOKEN": "not a token"})
    answer = owner(TEST_SYNC, {"YOUR_TOKEN": alice.access_token})

    assert (refused.status, refused.json["errcode"]) == (401, "M_UNKNOWN_TOKEN")
    assert answer.status == 200
    assert isinstance(answer.json["next_batch"], str)


def test_a_client_finds_the_server_and_logs_in(owner: Curl, alice: Person) -> None:
    """What Element does between "Edit" and the password."""
    base_url = owner(WELL_KNOWN).json["m.homeserver"]["base_url"]
    assert owner(VERSIONS.replace(HOST, base_url)).status == 200
    flows = owner(f"curl {base_url}/_matrix/client/v3/login").json["flows"]
    assert {"type": "m.login.password"} in flows

    assert owner(LOGIN.replace(HOST, base_url)).json["user_id"] == alice.user_id


# --- Advanced Features


@pytest.mark.parametrize("is_on", [True, False])
def test_presence_can_be_disabled(make_server: MakeServer, is_on: bool) -> None:
    alice = register(make_server(presence=str(is_on).lower()), "alice")

    events = alice.sync()["presence"]["events"]

    assert [event["sender"] for event in events] == ([alice.user_id] if is_on else [])


def test_push_rules_are_there_from_the_start(alice: Person) -> None:
    answer = alice.get("pushrules/")

    assert answer.status_code == 200
    assert {"override", "underride"} <= answer.get_json()["global"].keys()
