"""Where clients find the server."""

from __future__ import annotations

from flask.testing import FlaskClient

from tests.conftest import Login, MakeApp
from tests.helpers.rooms import refusal

PATH = "/.well-known/matrix"
RTC = "/_matrix/client/v1/rtc/transports"
UNSTABLE_RTC = "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports"


def test_clients_are_told_the_homeserver_address_without_a_slash(make_app: MakeApp) -> None:
    client = make_app(public_url="https://matrix.example.org/").test_client()

    answer = client.get(f"{PATH}/client")

    assert answer.status_code == 200
    assert answer.content_type == "application/json"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.get_json() == {"m.homeserver": {"base_url": "https://matrix.example.org"}}


def test_the_identity_server_is_named_where_one_is_set(make_app: MakeApp) -> None:
    client = make_app(identity_server="https://id.example.org/").test_client()

    answer = client.get(f"{PATH}/client")

    assert answer.get_json() == {
        "m.homeserver": {"base_url": "http://localhost:8008"},
        "m.identity_server": {"base_url": "https://id.example.org"},
    }


def test_logging_in_tells_the_same(make_app: MakeApp) -> None:
    client = make_app(public_url="https://example.org/").test_client()
    body = {"username": "alice", "password": "cold tea", "auth": {"type": "m.login.dummy"}}
    client.post("/_matrix/client/v3/register", json=body)

    answer = client.post(
        "/_matrix/client/v3/login",
        json={"type": "m.login.password", "user": "alice", "password": "cold tea"},
    )

    assert answer.get_json()["well_known"] == client.get(f"{PATH}/client").get_json()


def test_what_is_not_configured_is_not_found(client: FlaskClient) -> None:
    for name in ("support", "policy_server"):
        answer = client.get(f"{PATH}/{name}")

        assert (answer.status_code, answer.get_json()["errcode"]) == (404, "M_NOT_FOUND")
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_clients_are_told_where_group_calls_are(make_app: MakeApp, login: Login) -> None:
    alice = login("alice")
    none = alice.get(RTC).get_json()
    app = make_app(livekit_service_url="https://calls.example.org/jwt/")
    alice.client = app.test_client()
    transport = {"type": "livekit", "livekit_service_url": "https://calls.example.org/jwt"}

    found = [alice.get(it).get_json() for it in (RTC, UNSTABLE_RTC)]
    file = alice.client.get(f"{PATH}/client").get_json()

    assert none == {"rtc_transports": []}
    assert found == [{"rtc_transports": [transport]}] * 2
    assert file["org.matrix.msc4143.rtc_foci"] == [transport]
    assert refusal(alice.client.get(RTC)) == (401, "M_MISSING_TOKEN")


def test_services_for_calls_find_the_server_also_without_federation(
    make_app: MakeApp, login: Login
) -> None:
    """lk-jwt-service asks who has an OpenID token, and looks for the server as servers do."""
    alice = login("alice")
    public = {"public_url": "https://matrix.example.org", "federation": "false"}
    without = make_app(**public).test_client().get(f"{PATH}/server")
    url = "https://matrix.example.org/livekit/jwt"
    alice.client = make_app(**public, livekit_service_url=url).test_client()
    token = alice.post(f"user/{alice.user_id}/openid/request_token").get_json()["access_token"]

    found = alice.client.get(f"{PATH}/server")
    path = "/_matrix/federation/v1/openid/userinfo"
    user = alice.client.get(path, query_string={"access_token": token})

    assert refusal(without) == (404, "M_NOT_FOUND")
    assert found.get_json() == {"m.server": "matrix.example.org:443"}
    assert user.get_json() == {"sub": alice.user_id}
