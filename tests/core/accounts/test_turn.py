"""Passwords for TURN servers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

from tests.conftest import V3, Login, MakeApp, Person

URI = "turn:turn.example.org?transport=udp"


def person(make_app: MakeApp, **settings: str) -> Person:
    client = make_app(**settings).test_client()
    body = {"username": "alice", "password": "cold tea", "auth": {"type": "m.login.dummy"}}
    session = client.post(V3 + "register", json=body).get_json()
    return Person(client, session["user_id"], session["access_token"], session["device_id"])


def test_the_password_is_what_the_turn_server_will_compute(make_app: MakeApp) -> None:
    alice = person(make_app, turn_uris=URI, turn_shared_secret="north", turn_user_lifetime="10 min")

    answer = alice.get("voip/turnServer").get_json()

    until, user_id = answer["username"].split(":", 1)
    mac = hmac.new(b"north", answer["username"].encode(), hashlib.sha1).digest()
    assert 590 <= int(until) - time.time() <= 600
    assert user_id == alice.user_id
    assert answer["password"] == base64.b64encode(mac).decode()
    assert (answer["uris"], answer["ttl"]) == ([URI], 600)


def test_without_a_turn_server_the_answer_is_empty(login: Login) -> None:
    answer = login("alice").get("voip/turnServer")

    assert (answer.status_code, answer.get_json()) == (200, {})


def test_without_a_secret_the_answer_is_empty(make_app: MakeApp) -> None:
    alice = person(make_app, turn_uris=URI)

    answer = alice.get("voip/turnServer")

    assert (answer.status_code, answer.get_json()) == (200, {})
