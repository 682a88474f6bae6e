"""Every endpoint of the admin API gets wrong values at each place: that is never a fault."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from homebody import admin_api
from tests.conftest import Login
from tests.fuzz import LARGE, requests, test_requests
from tests.fuzz.requests import Good, Place, World

GOOD = [it for it in requests.good_requests() if it.path.startswith(admin_api.PREFIX)]
EVERY = 13 // LARGE + 1
"""Of the changes of one value, only every n-th is tested."""


@pytest.fixture
def world(client: FlaskClient, login: Login) -> World:
    return World(client, login)


def changes(good: Good) -> list[tuple[Place, str | bytes]]:
    return [
        (place, value)
        for place in requests.places(good)
        for value in test_requests.values_for(place)
    ]


def test_there_are_requests_for_all_endpoints() -> None:
    assert len(GOOD) > 100


def test_no_value_in_a_request_is_a_fault(world: World) -> None:
    for good in GOOD:
        for place, value in changes(good)[::EVERY]:
            world.ask(good, {place: value})


def test_no_value_at_two_places_of_a_request_is_a_fault(world: World) -> None:
    for good in GOOD:
        found = changes(good)[:: 7 * EVERY]
        for first, second in zip(found, found[len(found) // 2 :], strict=False):
            if first[0] != second[0]:
                world.ask(good, dict((first, second)))


@pytest.mark.parametrize("value", ["", "-1", "x", "%00", "9" * 30, "%ED%A0%80", "%F0%9F%A6%8A"])
def test_no_parameter_of_other_endpoints_is_a_fault(world: World, value: str) -> None:
    names = ("from", "limit", "order_by", "dir", "id", "user_id")

    for good in GOOD:
        if good.method == "GET":
            for some in (names, names[:2], names[2:]):  # else the first one is refused
                asked = good._replace(query={**good.query, **dict.fromkeys(some, "1")})
                world.ask(asked, {("query", it): value for it in some})
