"""Permissions in the admin API: the same answers on all of its paths."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from homebody import admin_api
from homebody.web import Application
from tests.conftest import Person
from tests.helpers.rooms import refusal, unchanged
from tests.tools import routes, spec_index

WITHOUT_TOKEN = {"/v1/register", "/v1/server_version"}
METHODS = ("GET", "POST", "PUT", "DELETE")


def is_of_admin_api(path: str) -> bool:
    return path.startswith(admin_api.PREFIX)


ROUTES = [
    (route.method, route.path)
    for route in routes.routes(spec_index.server())
    if is_of_admin_api(route.path)
]
OURS = [
    (method, path)
    for method, path in ROUTES
    if path.removeprefix(admin_api.PREFIX) not in WITHOUT_TOKEN
]


def filled(path: str, value: str = "x") -> str:
    """A path of a route with all parameters set."""
    return "/".join(value if part.startswith("<") else part for part in path.split("/"))


def test_there_are_routes_to_check() -> None:
    assert len(OURS) > 30


@pytest.mark.parametrize(("method", "path"), OURS, ids=str)
def test_a_request_needs_the_token_of_an_administrator(
    app: Application, client: FlaskClient, alice: Person, method: str, path: str
) -> None:
    url = filled(path)
    wrong = {"Authorization": "Bearer wrong"}

    with unchanged(app):
        answers = [
            client.open(url, method=method),
            client.open(url, method=method, headers=wrong),
            client.open(url, method=method, query_string={"access_token": "wrong"}),
        ]
        # neither the ids of the path nor the body are looked at
        refused = alice.request(method, url, data=b"{")

    assert [refusal(answer) for answer in answers] == [
        (401, "M_MISSING_TOKEN"),
        (401, "M_UNKNOWN_TOKEN"),
        (401, "M_UNKNOWN_TOKEN"),
    ]
    assert refusal(refused) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("path", sorted({path for _, path in ROUTES}))
def test_another_method_is_405_and_all_answers_have_cors_headers(
    app: Application, client: FlaskClient, admin: Person, path: str
) -> None:
    known = {method for method, it in ROUTES if it == path}
    url = filled(path)
    # "/v1/media/localhost/delete" is also the path of a file
    allowed = app.url_map.bind("localhost").allowed_methods(url)
    other = next((it for it in METHODS if it not in allowed), "PATCH")  # "…/new" is also a token

    answers = [
        admin.request(other, url),
        client.open(url, method=next(iter(known))),
        client.options(url),
        client.options(url, headers={"Access-Control-Request-Method": other}),
    ]

    assert refusal(answers[0]) == (405, "M_UNRECOGNIZED")
    assert answers[2].status_code == answers[3].status_code == 200
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "DELETE" in answer.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]


@pytest.mark.parametrize("path", ["/v1/nothing", "/v9/users", "/v2/users/@a:b/nothing", ""])
def test_an_unknown_path_is_404(admin: Person, path: str) -> None:
    answer = admin.get(admin_api.PREFIX + path)

    assert refusal(answer) == (404, "M_UNRECOGNIZED")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_a_right_holds_from_the_next_request_of_the_same_token_on(
    admin: Person, alice: Person
) -> None:
    url = f"{admin_api.PREFIX}/v2/users"
    path = f"{admin_api.PREFIX}/v1/users/{alice.user_id}/admin"

    def status() -> Any:
        return alice.get(url).status_code

    before = status()
    assert admin.put(path, json={"admin": True}).get_json() == {}
    given = status()
    assert admin.put(path, json={"admin": False}).get_json() == {}

    assert (before, given, status()) == (403, 200, 403)


def test_the_token_may_be_in_the_query(client: FlaskClient, admin: Person) -> None:
    query = {"access_token": admin.access_token}

    assert client.get(f"{admin_api.PREFIX}/v2/users", query_string=query).status_code == 200


def test_an_id_may_be_escaped_or_not(admin: Person, alice: Person) -> None:
    paths = [f"{admin_api.PREFIX}/v2/users/{it}" for it in (alice.user_id, "%40alice%3Alocalhost")]

    assert [admin.get(path).get_json()["name"] for path in paths] == [alice.user_id] * 2


def test_unknown_query_parameters_are_passed_over(admin: Person, alice: Person) -> None:
    query = {"from": "0", "limit": "10", "order_by": "id", "dir": "ASC", "whatever": "1"}

    for path in ("v1/users/{}/pushers", "v2/users/{}/devices", "v1/users/{}/joined_rooms"):
        url = f"{admin_api.PREFIX}/{path.format(alice.user_id)}"
        assert admin.get(url, query_string=query).status_code == 200, path
