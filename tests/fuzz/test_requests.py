"""Every endpoint gets invalid requests: it must respond with a message, never with 500."""

from __future__ import annotations

import itertools
import json

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from homebody.web import Application, middleware
from tests.conftest import Login
from tests.fuzz import LARGE, examples, requests
from tests.fuzz.requests import GONE, JSON_TEXTS, URL_TEXTS, Good, Made, Place, World

GOOD = requests.good_requests()
EVERY = 101 // LARGE + 1
"""Of the changes of one value in a request, only every n-th is tested."""


@pytest.fixture
def world(client: FlaskClient, login: Login) -> World:
    return World(client, login)


def values_for(place: Place) -> tuple[str | bytes, ...]:
    """Return the values to try at a place, without those that make a long poll wait."""
    if place[0] == "body":
        return (*JSON_TEXTS, GONE)
    if place[0] == "path":
        return URL_TEXTS
    return tuple(it for it in (*URL_TEXTS, GONE) if not requests.may_wait(place, it))


def single_changes() -> list[tuple[Good, Place, str | bytes]]:
    return [
        (good, place, value)
        for good in GOOD
        for place in requests.places(good)
        for value in values_for(place)
    ]


FORMS = "/_homebody/"
"""Pages with forms: test_forms.py."""


def test_there_is_a_good_request_for_every_endpoint(app: Application) -> None:
    edge = EnvironBuilder(path="/").get_environ()
    adapter = app.url_map.bind("localhost")
    names = {"user": "@a:b", "room": "!a:b"}
    matched = set()
    for good in GOOD:
        url = requests.made(good, {}, names).url
        path = middleware.routing_path({**edge, "RAW_URI": url}).encode("latin-1").decode()
        if adapter.test(path, good.method):
            rule, _values = adapter.match(path, good.method, return_rule=True)
            matched.add((rule.endpoint, good.method))

    served = {
        (rule.endpoint, method)
        for rule in app.url_map.iter_rules()
        if not rule.rule.startswith(FORMS)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    missing = sorted(served - matched)
    assert not missing, "a new endpoint needs a request in tests/fuzz/requests.json"


@pytest.mark.parametrize("with_token", [True, False], ids=["with token", "without"])
def test_good_requests_are_answered(world: World, *, with_token: bool) -> None:
    for good in GOOD:
        world.ask(good, {}, with_token=with_token)


def test_no_request_with_one_odd_value_is_a_fault(world: World) -> None:
    for good, place, value in single_changes()[::EVERY]:
        world.ask(good, {place: value})


@st.composite
def changed_requests(draw: st.DrawFn) -> tuple[Good, dict[Place, str | bytes]]:
    """Draw a request with several odd values, some of them arbitrary JSON."""
    good = draw(st.sampled_from(GOOD))
    found = list(requests.places(good)) or [("query", "limit")]
    changes: dict[Place, str | bytes] = {}
    for place in draw(st.lists(st.sampled_from(found), min_size=1, max_size=3, unique=True)):
        value = st.sampled_from(values_for(place))
        if place[0] == "body":
            value |= json_texts
        changes[place] = draw(value)
    return good, changes


json_texts: st.SearchStrategy[bytes] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())


@examples(300)
@given(changed=changed_requests(), with_token=st.sampled_from([True, True, True, False]))
def test_no_request_with_some_odd_values_is_a_fault(
    world: World, changed: tuple[Good, dict[Place, str | bytes]], *, with_token: bool
) -> None:
    good, changes = changed

    world.ask(good, changes, with_token=with_token)


def test_no_path_is_a_fault(app: Application, world: World) -> None:
    """Send odd values for every part of a path, with an unexpected body."""
    texts = itertools.cycle(text for text in URL_TEXTS if len(text) < 1000)
    bodies = itertools.cycle([b"", b"{}", b"[]", b"null", b"\xff", b"{" * 200, b'{"timeout": 0}'])
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"OPTIONS"}):
            if "logout" in rule.rule or "deactivate" in rule.rule:
                continue
            path = "".join(
                next(texts) if is_variable else text for is_variable, text in parts_of(rule.rule)
            )
            query = f"?timeout=0&{next(texts)}={next(texts)}&limit={next(texts)}"
            body = next(bodies) if method in {"POST", "PUT"} else None
            world.send(Made(method, path + query, body))


def parts_of(rule: str) -> list[tuple[bool, str]]:
    """Return (whether it is a variable, text) of each part of a rule."""
    return [
        (number % 2 == 1, text)
        for number, text in enumerate(rule.replace("<", "\n").replace(">", "\n").split("\n"))
    ]


@examples(60)
@given(
    header=st.sampled_from(
        [
            *("Authorization", "Content-Type", "Range", "If-None-Match", "If-Range", "User-Agent"),
            *("X-Forwarded-For", "Content-Encoding", "Accept", "Cookie", "Origin", "Host"),
        ]
    ),
    value=st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=30)
    | st.sampled_from(
        [
            *("Bearer \x00", "bytes=0-", "bytes=-0", "bytes=5-1", "bytes=0-1,2-3", "bytes=-99999"),
            *(
                "bytes=" + "9" * 100 + "-",
                '"',
                'W/"',
                "*",
                "gzip",
                "multipart/form-data; boundary=",
            ),
            *("application/json; charset=utf-16", "[::1", "1.2.3.4:", "a" * 5000),
        ]
    ),
    number=st.integers(0, 3),
)
def test_no_header_is_a_fault(world: World, header: str, value: str, number: int) -> None:
    path = [
        "/_matrix/client/v3/account/whoami",
        f"/_matrix/client/v1/media/download/localhost/{world.names['media']}",
        "/_matrix/media/v3/upload?filename=a",
        "/_matrix/client/v3/login",
    ][number]
    method = "POST" if number > 1 else "GET"
    headers = {"Authorization": f"Bearer {world.me.access_token}", header: value}

    answer = world.client.open(path, method=method, data=b"{}", headers=headers)

    requests.check(Made(method, path, b"{}"), answer, f"{path} {header}: {value!r}")
    answer.close()
