"""The server to which a scripted remote server sends its requests."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from homebody.spec.signing import SigningKey, VerifyKey
from homebody.web import Application


@dataclass(frozen=True)
class Answer:
    """The response of the server under test."""

    status: int
    json: Any

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and errcode."""
        return self.status, self.json["errcode"]


Call = Callable[[str, str, Mapping[str, str], bytes], tuple[int, bytes]]


@dataclass(frozen=True)
class Peer:
    """The server to which a remote sends its requests."""

    name: str
    verify_keys: Mapping[str, VerifyKey]
    call: Call


def in_process(app: Application) -> Peer:
    """Return a server in the test's own process."""
    server = app.homeserver.server

    def call(method: str, uri: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        answer = app.test_client().open(uri, method=method, headers=dict(headers), data=body)
        return answer.status_code, answer.data

    return Peer(server.name, {server.signing_key.key_id: server.signing_key.verify_key}, call)


def at(url: str, name: str, key: SigningKey) -> Peer:
    """Return a server in another process, from its URL, server name and signing key."""

    def call(method: str, uri: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        try:
            connection.request(method, uri, body or None, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return Peer(name, {key.key_id: key.verify_key}, call)


def nowhere() -> Peer:
    """Raise AssertionError, as the test has no server under test yet."""
    raise AssertionError("Set `remotes.peer`: this test has no server under test yet")
