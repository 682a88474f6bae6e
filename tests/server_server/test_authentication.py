"""Requests from other servers are accepted by their signatures alone."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask import request
from werkzeug.test import TestResponse

from homebody.server_server import authentication
from homebody.server_server.authentication import from_server
from homebody.web import Application
from tests.conftest import MakeApp
from tests.helpers.signing_server import FEDERATION, SigningServer

URI = f"{FEDERATION}v1/version"


def outcome(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json()["errcode"]


@from_server
def who_are_you() -> dict[str, Any]:
    """Return the origin, and what it sent."""
    body = authentication.content() if request.method == "PUT" else None
    return {"origin": authentication.origin(), "content": body}


def app_with(make_app: MakeApp, **settings: str) -> Application:
    app = make_app(federation="true", **settings)
    # in place of views that no other server signs
    for name in ("server_version.get_version", "server_keys.bulk_perspectives_key_query"):
        app.view_functions = {**app.view_functions, name: who_are_you}
    return app


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    return app_with(make_app)


@pytest.fixture
def peer(app: Application) -> SigningServer:
    return SigningServer(app).introduce()


def test_a_signed_request_is_accepted(peer: SigningServer) -> None:
    response = peer.get("v1/version")

    assert response.status_code == 200
    assert response.get_json() == {"origin": "peer.test", "content": None}


def test_path_and_query_are_verified_as_they_were_sent(peer: SigningServer) -> None:
    uri = f"{FEDERATION}v1/%76ersion?a=%21b&a=c%2Fd&%7b"

    response = peer.app.test_client().get(uri, headers={"Authorization": peer.sign("GET", uri)})

    assert response.status_code == 200


def test_the_signature_covers_the_query(peer: SigningServer) -> None:
    header = peer.sign("GET", f"{URI}?a=1")

    assert outcome(peer.request("GET", f"{URI}?a=2", header=header)) == (401, "M_UNAUTHORIZED")


def test_a_body_is_verified_and_passed_to_the_view(peer: SigningServer) -> None:
    body = {"b": [1, "ü"], "a": {"z": None}}

    response = peer.post("/_matrix/key/v2/query", body)

    assert response.status_code == 200


def test_another_body_than_the_signed_one_is_refused(peer: SigningServer) -> None:
    header = peer.sign("POST", "/_matrix/key/v2/query", {"a": 1})

    response = peer.request("POST", "/_matrix/key/v2/query", {"a": 2}, header=header)

    assert outcome(response) == (401, "M_UNAUTHORIZED")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
def test_a_body_that_is_no_json_object_is_refused(peer: SigningServer, body: bytes) -> None:
    uri = "/_matrix/key/v2/query"

    response = peer.app.test_client().post(
        uri, data=body, headers={"Authorization": peer.sign("POST", uri)}
    )

    assert response.status_code == 400
    assert response.get_json()["errcode"] in {"M_NOT_JSON", "M_BAD_JSON"}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer abc",
        "X-Matrix",
        "X-Matrix origin=peer.test",
        'X-Matrix origin="peer.test",key="ed25519:p1",sig="AAAA"',
        'X-Matrix origin="not a name",key="ed25519:p1",sig="AAAA"',
    ],
)
def test_a_request_without_a_valid_signature_is_refused(peer: SigningServer, header: str) -> None:
    assert outcome(peer.request("GET", URI, header=header)) == (401, "M_UNAUTHORIZED")


def test_a_request_for_another_destination_is_refused(peer: SigningServer) -> None:
    header = peer.sign("GET", URI, destination="elsewhere.test")

    assert outcome(peer.request("GET", URI, header=header)) == (401, "M_UNAUTHORIZED")


def test_the_destination_may_be_missing_in_the_header_but_is_signed(peer: SigningServer) -> None:
    right, wrong = peer.sign("GET", URI), peer.sign("GET", URI, destination="elsewhere.test")

    accepted = peer.request("GET", URI, header=right.replace('destination="localhost",', ""))
    refused = peer.request("GET", URI, header=wrong.replace('destination="elsewhere.test",', ""))

    assert accepted.status_code == 200
    assert outcome(refused) == (401, "M_UNAUTHORIZED")


def test_the_servers_own_name_is_refused_as_origin(app: Application) -> None:
    mirror = SigningServer(app, name="localhost")
    mirror.key = app.homeserver.server.signing_key

    assert outcome(mirror.get("v1/version")) == (401, "M_UNAUTHORIZED")


def test_one_valid_signature_of_several_is_enough(peer: SigningServer) -> None:
    unknown = peer.sign("GET", URI).replace("ed25519:p1", "ed25519:p0")

    response = peer.request("GET", URI, header=f"{unknown}, {peer.sign('GET', URI)}")

    assert response.status_code == 200


def test_the_key_of_another_server_does_not_count(peer: SigningServer) -> None:
    other = SigningServer(peer.app, "other.test", b"o" * 32).introduce()

    header = other.sign("GET", URI, origin="peer.test")

    assert outcome(other.request("GET", URI, header=header)) == (401, "M_UNAUTHORIZED")


def test_an_expired_key_does_not_count(app: Application) -> None:
    late = SigningServer(app).introduce(valid_ms=-1000)

    assert outcome(late.get("v1/version")) == (401, "M_UNAUTHORIZED")


@pytest.mark.parametrize(
    ("settings", "is_allowed"),
    [
        ({"federation_deny_servers": "*.test"}, False),
        ({"federation_deny_servers": "PEER.test,x.test"}, False),
        ({"federation_deny_servers": "other.test"}, True),
        ({"federation_allow_servers": "peer.tes?"}, True),
        ({"federation_allow_servers": "other.test"}, False),
        ({"federation_allow_servers": ""}, False),
        ({"federation_allow_servers": "*", "federation_deny_servers": "peer.test"}, False),
    ],
)
def test_the_settings_exclude_servers(
    make_app: MakeApp, settings: dict[str, str], is_allowed: bool
) -> None:
    peer = SigningServer(app_with(make_app, **settings)).introduce()

    response = peer.get("v1/version")

    assert response.status_code == (200 if is_allowed else 403)


def test_requests_of_one_server_are_limited(make_app: MakeApp) -> None:
    limit = {"rc_federation.per_second": "0.01", "rc_federation.burst_count": "2"}
    app = app_with(make_app, rate_limits="true", **limit)
    peer, other = SigningServer(app).introduce(), SigningServer(app, "other.test").introduce()

    codes = [peer.get("v1/version").status_code for _ in range(3)]

    assert codes == [200, 200, 429]
    assert other.get("v1/version").status_code == 200


def test_nobody_else_can_use_up_the_limit_of_a_server(make_app: MakeApp) -> None:
    limit = {"rc_federation.per_second": "0.01", "rc_federation.burst_count": "1"}
    peer = SigningServer(app_with(make_app, rate_limits="true", **limit)).introduce()

    forged = [peer.request("GET", URI, header=peer.sign("GET", "/")).status_code for _ in range(3)]

    assert forged == [401] * 3
    assert peer.get("v1/version").status_code == 200


def test_requests_above_the_limit_wait_before_they_are_refused(make_app: MakeApp) -> None:
    limit = {"rc_federation.per_second": "4", "rc_federation.burst_count": "1"}
    peer = SigningServer(app_with(make_app, rate_limits="true", **limit)).introduce()
    began = time.monotonic()

    codes = [peer.get("v1/version").status_code for _ in range(3)]

    assert codes == [200] * 3
    assert 0.4 < time.monotonic() - began < 5


def test_a_transaction_of_legal_events_never_has_too_many_values(peer: SigningServer) -> None:
    pdu = {"type": "m.test", "room_id": "!a:b", "content": {"a": [[]] * 21_000}}

    response = peer.put("v1/send/t1", {"pdus": [pdu] * 50, "edus": []})

    assert response.status_code == 200


def test_there_is_no_federation_unless_the_settings_say_so(make_app: MakeApp) -> None:
    client = make_app().test_client()

    for path in (URI, "/_matrix/key/v2/server"):
        assert outcome(client.get(path)) == (404, "M_UNRECOGNIZED")


def test_the_access_log_names_the_server(
    peer: SigningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    peer.get("v1/version")

    assert any("peer.test" in it.getMessage() for it in caplog.records if "access" in it.name)
