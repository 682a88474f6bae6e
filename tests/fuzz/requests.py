"""Valid requests, changes to make to them, and the server that receives them."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import PASSWORD, V3, Login, Person

FOLDER = Path(__file__).parent
SLOWEST_SECONDS = 10
"""The limit for any request; most take some milliseconds."""

Place = tuple[str | int, ...]
"""A place in a request: ("path", 2), ("query", "limit"), ("body", "filter", "types", 0)."""

ERROR = {"errcode", "error"}
"""What each error of the Matrix API has."""

GONE = "(gone)"
"""Stands for a missing key."""

JSON_TEXTS: tuple[bytes, ...] = (
    *(b"null", b"true", b"0", b"-1", b"0.5", b"-0.0", b"1e308", b"1e999", b"-1e999", b"NaN"),
    *(str(number).encode() for number in (2**31, 2**53, 2**63 - 1, 2**63, -(2**63) - 1, 2**64)),
    b"9" * 5000,
    *(b'""', b'"\\u0000"', b'"\\ud800"', b'"a\\udfff\\ud800"', b'"\xff"', b'"\xed\xa0\x80"'),
    *(b'"' + b"a" * 300 + b'"', b'"' + "ä".encode() * 200 + b'"', b'"' + b"a" * 70_000 + b'"'),
    *(b'"@:"', b'"@\\u0000:localhost"', b'"!"', b'"$"', b'"#"', b'"*"', b'"../.."', b'"%"'),
    *(b'"s9223372036854775808"', b'"9223372036854775808"', b'"\\u202e\xf0\x9f\xa6\x8a"', b"'"),
    *(b"[]", b"{}", b"[[]]", b"[null]", b"[1]", b'["a"]', b'{"": null}', b'{"a": {}}'),
    *(b'{"a": 1, "a": []}', b'{"\\ud800": 1}', b'{"\\u0000": {"\\u0000": []}}', b"[", b"", b"{,}"),
    *(b"[" * 3000 + b"]" * 3000, b'{"a":' * 3000 + b"1" + b"}" * 3000, b"[" * 90 + b"]" * 90),
    b"[" + b'"a",' * 20_000 + b'"a"]',
)
"""Values to put where a JSON value is expected."""

URL_TEXTS: tuple[str, ...] = (
    *(
        "",
        ".",
        "..",
        "%00",
        "%FF",
        "%ED%A0%80",
        "%2F",
        "%2E%2E%2F",
        "%25",
        "%",
        "%0A",
        "%0D%0AX:%20y",
    ),
    *("a" * 300, "%C3%A4" * 200, "a" * 70_000, "%F0%9F%A6%8A", "%D9%A3", "true", "null", "NaN"),
    *("-1", "0", "0.5", "1e999", "9223372036854775807", "9223372036854775808", "9" * 5000),
    *(
        "@",
        "@:localhost",
        "@%00:localhost",
        "!",
        "!:",
        "$",
        "%23",
        "%23:localhost",
        "*",
        "'",
        "%22",
    ),
    *("{}", "[]", "%7B", "%7B%22limit%22:1e999%7D", "%7B%22types%22:[%22%5Cud800%22]%7D"),
    *("s", "s-1", "s0", "s1_2_3", "s999999999999999999", "s9223372036854775808", "s1_9" + "9" * 30),
    *("@%F0%9F%A6%8A:localhost", "nobody", "m.room.message", "localhost", "[::1]", "http://[", "b"),
)
"""Values to put into a path or query, already escaped."""

_MARKED = re.compile(r"<([^>]*)>")
_MAY_END_THE_GAME = re.compile(
    r"logout|deactivate|leave|forget|password|device|upgrade|power_levels|/ban|m\.room\.member|"
    r"members/|kick|lock|suspend|tombstone|join_rules|push_rules|encryption|redact|ignored"
)
_OAUTH = re.compile(r"^/_homebody/oauth/(clients|token|revoke|device_authorization)\b")
"""Endpoints whose errors are those of the RFCs of OAuth 2.0."""
_PAGES = re.compile(r"^/_homebody/|/static/|/fallback/|^/$")


class Good(NamedTuple):
    """A valid request. `<…>` in its path may be replaced."""

    method: str
    path: str
    query: dict[str, str | None]
    """None: a parameter that the valid request lacks."""
    body: Any


class Made(NamedTuple):
    """The parts of a request as sent."""

    method: str
    url: str
    body: bytes | None


def good_requests() -> list[Good]:
    """Return one request for each operation, and several for complicated ones."""
    return [Good(**it) for it in json.loads((FOLDER / "requests.json").read_text())]


def places(good: Good) -> Iterator[Place]:
    """Yield every place in a request whose value can be replaced."""
    for number in range(len(_MARKED.findall(good.path))):
        yield ("path", number)
    for key in good.query:
        yield ("query", key)
    if good.body is not None:
        yield from _places(good.body, ("body",))


def _places(value: Any, place: Place) -> Iterator[Place]:
    yield place
    members: Any = ()
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    for key, member in members:
        yield from _places(member, (*place, key))


def made(good: Good, changes: Mapping[Place, str | bytes], names: Mapping[str, str]) -> Made:
    """Return the request with other values at some places and `{names}` replaced."""
    numbers = itertools.count()

    def segment(match: re.Match[str]) -> str:
        changed = changes.get(("path", next(numbers)))
        return quote(_named(match[1], names), safe="") if changed is None else _text(changed)

    url = _MARKED.sub(segment, good.path)
    query = []
    for key, value in good.query.items():
        changed = changes.get(("query", key))
        if changed is not None and changed != GONE:
            query.append(f"{key}={_text(changed)}")
        elif changed is None and value is not None:
            query.append(f"{key}={quote(_named(value, names), safe='')}")
    body = None if good.body is None else _encoded(good.body, ("body",), changes, names)
    return Made(good.method, f"{url}?{'&'.join(query)}" if query else url, body)


def _encoded(
    value: Any, place: Place, changes: Mapping[Place, str | bytes], names: Mapping[str, str]
) -> bytes:
    changed = changes.get(place)
    if changed is not None and changed != GONE:
        return changed.encode() if isinstance(changed, str) else changed
    if isinstance(value, dict):
        members = [
            orjson.dumps(_named(key, names)) + b":" + _encoded(it, (*place, key), changes, names)
            for key, it in value.items()
            if changes.get((*place, key)) != GONE
        ]
        return b"{" + b",".join(members) + b"}"
    if isinstance(value, list):
        elements = [_encoded(it, (*place, n), changes, names) for n, it in enumerate(value)]
        return b"[" + b",".join(elements) + b"]"
    return orjson.dumps(_named(value, names) if isinstance(value, str) else value)


def _named(text: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else quote(value, safe="")


class World:
    """A server with a user in a room, both replaced if a request may have removed them."""

    _numbers = itertools.count()

    def __init__(self, client: FlaskClient, login: Login) -> None:
        self.client = client
        self._login = login
        self.admin = login("admin")  # the first account is one
        self.other = login("other")
        media = self.admin.post("/_matrix/media/v3/upload", json=None, data=b"text").get_json()
        self.media = media["content_uri"].rpartition("/")[2]
        self.renew()

    def renew(self) -> None:
        """Create another user in another room."""
        self.me: Person = self._login(f"fuzz{next(self._numbers)}")
        room = self.me.create_room(preset="public_chat")
        later = {"delay_ms": 3_600_000, "content": {}}
        delayed = self.me.put(f"rooms/{quote(room)}/delayed_event/m.room.message/t", json=later)
        self.names = {
            "user": self.me.user_id,
            "other": self.other.user_id,
            "room": room,
            "event": self.me.send(room),
            "media": self.media,
            "device": self.me.device_id,
            "password": PASSWORD,
            "token": "s1",
            "delayed": delayed.get_json()["delay_id"],
        }

    def ask(
        self, good: Good, changes: Mapping[Place, str | bytes], *, with_token: bool = True
    ) -> None:
        """Send the request with these changes. Raises AssertionError for an invalid response."""
        request = made(good, changes, {**self.names, "txn": f"t{next(self._numbers)}"})
        status = self.send(request, with_token=with_token)
        if status == 200 and good.method != "GET" and _MAY_END_THE_GAME.search(good.path):
            self.renew()

    def send(self, request: Made, *, with_token: bool = True) -> int:
        """Send the request and return the status of the response."""
        who = self.admin if "/admin/" in request.url else self.me
        headers = {"Authorization": f"Bearer {who.access_token}"} if with_token else {}
        started = time.monotonic()
        answer = self.client.open(
            request.url, method=request.method, data=request.body, headers=headers
        )
        seconds = time.monotonic() - started
        told = f"{request.method} {request.url[:500]} {(request.body or b'')[:500]!r}"
        check(request, answer, told)
        answer.close()
        assert seconds < SLOWEST_SECONDS, f"{told}: took {seconds:.1f} s"
        return answer.status_code


def check(request: Made, answer: TestResponse, told: str) -> None:
    """Raise AssertionError unless the response is a valid one for clients."""
    told = f"{told}: {answer.status_code}"
    assert answer.status_code < 500, f"{told} {answer.get_data()[:500]!r}"
    if request.method == "HEAD" or answer.status_code == 304:
        return
    if answer.mimetype == "application/json":
        body = orjson.loads(answer.get_data())  # strict: no NaN and no lone surrogates
        if answer.status_code >= 400:
            is_challenge = answer.status_code == 401 and "flows" in body
            of_error = {"error", "error_description"} if _OAUTH.match(request.url) else ERROR
            assert is_challenge or of_error <= body.keys(), f"{told} {body}"
    elif answer.status_code >= 400:
        assert _PAGES.search(request.url), f"{told} {answer.mimetype}"


def may_wait(place: Place, value: str | bytes) -> bool:
    """Return whether a long poll would wait for this long."""
    if place not in {("query", "timeout"), ("query", "timeout_ms")}:
        return False
    return value == GONE or (isinstance(value, str) and value.isdecimal())


__all__ = ["GONE", "JSON_TEXTS", "URL_TEXTS", "V3", "Good", "Made", "World"]
