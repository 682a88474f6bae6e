"""The path by which `homebody doctor` sees how its requests arrive."""

from __future__ import annotations

import time

from homebody.doctor import proof
from homebody.spec.signing import SigningKey
from homebody.web import Application
from tests.helpers.rooms import refusal

PATH = f"{proof.PATH}/a%2Fb//c/"


def with_proof(app: Application, seconds: float = 0.0) -> dict[str, str]:
    key = app.homeserver.server.signing_key
    return {proof.HEADER: proof.make(key, time.time() + seconds)}


def test_the_path_does_not_exist_for_others(app: Application) -> None:
    another = SigningKey.from_seed("a_0001", bytes(32))
    headers = [
        {},
        {proof.HEADER: ""},
        {proof.HEADER: "1.x"},
        {proof.HEADER: f"{int(time.time())}.{'A' * 86}"},
        {proof.HEADER: f"{'9' * 30}.x"},
        {proof.HEADER: proof.make(another, time.time())},
        with_proof(app, -70),
        with_proof(app, 70),
    ]

    answers = [app.test_client().get(PATH, headers=it) for it in headers]

    assert {refusal(it) for it in answers} == {(404, "M_UNRECOGNIZED")}


def test_it_says_how_a_request_has_arrived(app: Application) -> None:
    headers = {
        **with_proof(app),
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Proto": "https",
        "Authorization": "Bearer x",
    }

    answer = app.test_client().post(PATH, headers=headers, data=bytes(100_000))

    assert answer.get_json() == {
        "path": PATH,
        "protocol": "HTTP/1.1",
        "address": "192.0.2.1",
        "peer": "127.0.0.1",
        "is_trusted": True,
        "scheme": "https",
        "forwarded_for": "192.0.2.1",
        "forwarded_proto": "https",
        "has_token": True,
        "body_bytes": 100_000,
    }


def test_it_waits_and_responds_in_parts_if_asked_to(app: Application) -> None:
    client, headers = app.test_client(), with_proof(app)
    began = time.monotonic()

    waited = client.get(f"{PATH}?wait=1", headers=headers)
    seconds = time.monotonic() - began
    parts = client.get(f"{PATH}?stream=true", headers=headers)

    assert waited.status_code == 200
    assert 1 <= seconds < 5
    assert parts.data == b"first\nsecond\n"
