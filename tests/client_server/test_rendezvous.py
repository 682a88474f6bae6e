"""Where two devices meet that log one of them in by a QR code, in both dialects."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.core.sessions import rendezvous
from tests.conftest import MakeApp

NEW = "/_matrix/client/unstable/io.element.msc4388/rendezvous"
OLD = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous"
BASE = "http://localhost:8008"
HEADERS = ("ETag", "Expires", "Last-Modified")


def begin(client: FlaskClient, data: str = "hello") -> dict[str, Any]:
    """Begin a session in the newer dialect."""
    answer = client.post(NEW, json={"data": data})
    assert answer.status_code == 200, answer.get_json()
    found: dict[str, Any] = answer.get_json()
    return found


def write(client: FlaskClient, begun: dict[str, Any], data: str, token: str) -> TestResponse:
    body = {"data": data, "sequence_token": token}
    return client.put(f"{NEW}/{begun['id']}", json=body)


def begin_2024(client: FlaskClient, data: bytes = b"") -> tuple[str, str]:
    """Begin a session in the older dialect, and return its path and ETag."""
    answer = client.post(OLD, data=data, content_type="text/plain")
    assert answer.status_code == 201, answer.get_json()
    return answer.get_json()["url"].removeprefix(BASE), answer.headers["ETag"]


def write_2024(client: FlaskClient, path: str, data: bytes, etag: str) -> TestResponse:
    headers = {"If-Match": etag, "Content-Type": "text/plain"}
    return client.put(path, data=data, headers=headers)


def test_two_devices_write_in_turn(client: FlaskClient) -> None:
    begun = begin(client)

    read = client.get(f"{NEW}/{begun['id']}").get_json()
    written = write(client, begun, "answer", read["sequence_token"])
    again = client.get(f"{NEW}/{begun['id']}").get_json()

    assert client.get(NEW).get_json() == {"create_available": True}
    assert read["data"] == "hello"
    assert read["sequence_token"] == begun["sequence_token"]
    assert 290_000 < read["expires_in_ms"] <= begun["expires_in_ms"] <= 300_000
    assert written.status_code == 200
    assert again["data"] == "answer"
    assert again["sequence_token"] == written.get_json()["sequence_token"]
    assert again["sequence_token"] != read["sequence_token"]


def test_nobody_overwrites_what_they_have_not_read(client: FlaskClient) -> None:
    begun = begin(client)
    first = write(client, begun, "one", begun["sequence_token"])

    late = write(client, begun, "two", begun["sequence_token"])
    repeated = write(client, begun, "one", begun["sequence_token"])

    assert (late.status_code, late.get_json()["errcode"]) == (
        409,
        "IO_ELEMENT_MSC4388_CONCURRENT_WRITE",
    )
    assert repeated.get_json() == first.get_json()
    assert client.get(f"{NEW}/{begun['id']}").get_json()["data"] == "one"


def test_the_same_text_is_a_new_write(client: FlaskClient) -> None:
    begun = begin(client)

    again = write(client, begun, "hello", begun["sequence_token"])

    assert again.get_json()["sequence_token"] != begun["sequence_token"]


def test_the_older_dialect(client: FlaskClient) -> None:
    path, etag = begin_2024(client)

    unchanged = client.get(path, headers={"If-None-Match": etag})
    written = write_2024(client, path, b"hello", etag)
    read = client.get(path, headers={"If-None-Match": etag})
    late = write_2024(client, path, b"late", etag)
    without = client.put(path, data=b"x", content_type="text/plain")

    for answer in (unchanged, written, read):
        assert all(name in answer.headers for name in HEADERS), answer.headers
        assert answer.headers["Cache-Control"] == "no-store"
    ends = parsedate_to_datetime(read.headers["Expires"]).timestamp()
    assert 290 < ends - time.time() < 301
    assert (unchanged.status_code, unchanged.data) == (304, b"")
    assert (written.status_code, written.headers["ETag"]) == (202, read.headers["ETag"])
    assert (read.status_code, read.data) == (200, b"hello")
    assert read.headers["Content-Type"] == "text/plain"
    assert late.status_code == 412
    assert late.get_json()["org.matrix.msc4108.errcode"] == "M_CONCURRENT_WRITE"
    assert (without.status_code, without.get_json()["errcode"]) == (400, "M_MISSING_PARAM")


def test_an_etag_that_a_proxy_has_made_weak_is_known(client: FlaskClient) -> None:
    path, etag = begin_2024(client)

    unchanged = client.get(path, headers={"If-None-Match": f"W/{etag}"})
    written = write_2024(client, path, b"hello", f"W/{etag}")

    assert (unchanged.status_code, written.status_code) == (304, 202)


def test_browsers_may_send_and_read_the_tokens(client: FlaskClient) -> None:
    answer = client.options(OLD)

    assert "If-Match" in answer.headers["Access-Control-Allow-Headers"]
    assert "ETag" in answer.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("dialect", ["old", "new"])
def test_a_session_ends(client: FlaskClient, dialect: str) -> None:
    path = begin_2024(client)[0] if dialect == "old" else f"{NEW}/{begin(client)['id']}"

    ended = client.delete(path)

    assert ended.status_code == (204 if dialect == "old" else 200)
    for answer in (client.get(path), client.delete(path)):
        assert (answer.status_code, answer.get_json()["errcode"]) == (404, "M_NOT_FOUND")


def test_a_session_expires(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "LIFETIME_SECONDS", 0.0)

    begun = begin(client)
    path, etag = begin_2024(client)

    assert client.get(f"{NEW}/{begun['id']}").status_code == 404
    assert write(client, begun, "x", begun["sequence_token"]).status_code == 404
    assert client.get(path).status_code == 404
    assert write_2024(client, path, b"x", etag).status_code == 404


def test_a_text_is_small(client: FlaskClient) -> None:
    begun, (path, etag) = begin(client, "é" * 2048), begin_2024(client, b"x" * 4096)

    answers = [
        client.post(NEW, json={"data": "x" * 4097}),
        client.post(NEW, json={"data": "é" * 2049}),
        write(client, begun, "x" * 4097, begun["sequence_token"]),
        client.post(OLD, data=b"x" * 4097, content_type="text/plain"),
        write_2024(client, path, b"x" * 4097, etag),
    ]

    for answer in answers:
        assert (answer.status_code, answer.get_json()["errcode"]) == (413, "M_TOO_LARGE")
    assert client.get(f"{NEW}/{begun['id']}").get_json()["data"] == "é" * 2048
    assert client.get(path).data == b"x" * 4096


@pytest.mark.parametrize("body", [{}, {"data": 1}, {"data": None}, {"sequence_token": "x"}])
def test_a_bad_body_changes_nothing(client: FlaskClient, body: dict[str, Any]) -> None:
    begun = begin(client)

    created, written = client.post(NEW, json=body), client.put(f"{NEW}/{begun['id']}", json=body)

    for answer in (created, written):
        assert answer.status_code == 400
        assert answer.get_json()["errcode"] in {"M_MISSING_PARAM", "M_BAD_JSON"}
    assert client.get(f"{NEW}/{begun['id']}").get_json()["data"] == "hello"


def test_a_text_is_not_shown_as_a_page(client: FlaskClient) -> None:
    path, _ = begin_2024(client, b"<script>alert(1)</script>")
    begun = begin(client)

    for it in (path, f"{NEW}/{begun['id']}"):
        answer = client.get(it, headers={"Sec-Fetch-Mode": "navigate"})
        assert (answer.status_code, answer.get_json()["errcode"]) == (403, "M_FORBIDDEN")
    assert client.get(path).headers["X-Content-Type-Options"] == "nosniff"


def test_sessions_are_limited(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "MAX_SESSIONS", 2)
    first = begin(client)
    begin_2024(client)

    refused = client.post(NEW, json={"data": "x"})
    client.delete(f"{NEW}/{first['id']}")

    assert (refused.status_code, refused.get_json()["errcode"]) == (429, "M_LIMIT_EXCEEDED")
    assert begin(client)


def test_each_address_is_limited(make_app: MakeApp) -> None:
    settings = {"rc_registration.burst_count": "2"}
    client = make_app(rate_limits="true", **settings).test_client()

    answers = [client.post(NEW, json={"data": ""}).status_code for _ in range(3)]

    assert answers == [200, 200, 429]


def test_without_oauth_there_is_nothing_to_log_in_by(make_app: MakeApp) -> None:
    client = make_app(oauth="false").test_client()

    for answer in (
        client.get(NEW),
        client.post(NEW, json={"data": ""}),
        client.get(f"{NEW}/x"),
        client.post(OLD),
        client.get(f"{OLD}/x"),
        client.put(f"{OLD}/x", headers={"If-Match": "x"}),
        client.delete(f"{OLD}/x"),
    ):
        assert (answer.status_code, answer.get_json()["errcode"]) == (404, "M_UNRECOGNIZED")
    features = client.get("/_matrix/client/versions").get_json()["unstable_features"]
    assert features["org.matrix.msc4108"] is False


def test_versions_announce_it(client: FlaskClient) -> None:
    features = client.get("/_matrix/client/versions").get_json()["unstable_features"]

    assert features["org.matrix.msc4108"] is True
    assert features["io.element.msc4388"] is True
