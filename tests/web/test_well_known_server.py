"""Other servers find this one at /.well-known/matrix/server."""

from __future__ import annotations

import pytest

from tests.conftest import MakeApp
from tests.helpers.rooms import refusal

PATH = "/.well-known/matrix/server"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"well_known_server": "matrix.example.org:443"}, "matrix.example.org:443"),
        ({"well_known_server": "matrix.example.org"}, "matrix.example.org"),
        ({"public_url": "https://matrix.example.org"}, "matrix.example.org:443"),
        ({"public_url": "https://matrix.example.org:8443"}, "matrix.example.org:8443"),
        ({"server_name": "example.org", "registration": "closed"}, "example.org:443"),
        ({"public_url": "https://[2001:db8::1]"}, "[2001:db8::1]:443"),
    ],
)
def test_it_leads_to_the_setting_or_to_the_public_url(
    make_app: MakeApp, settings: dict[str, str], expected: str
) -> None:
    app = make_app(federation="true", **settings)

    response = app.test_client().get(PATH)

    assert response.get_json() == {"m.server": expected}
    assert response.content_type == "application/json"


@pytest.mark.parametrize(
    "settings",
    [
        {"federation": "true"},
        {"federation": "true", "public_url": "http://matrix.example.org"},
        {"federation": "true", "public_url": "https://matrix.example.org/below"},
        {"public_url": "https://matrix.example.org"},
        {"well_known_server": "matrix.example.org"},
    ],
)
def test_there_is_none_where_it_would_lead_nowhere(
    make_app: MakeApp, settings: dict[str, str]
) -> None:
    response = make_app(**settings).test_client().get(PATH)

    assert refusal(response) == (404, "M_NOT_FOUND")
