"""Where clients find the metadata of the authorization server."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.conftest import MakeApp
from tests.helpers.rooms import refusal

METADATA = "/_matrix/client/v1/auth_metadata"
DISCOVERY = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")


@pytest.mark.parametrize("path", DISCOVERY)
def test_libraries_find_the_metadata_below_the_issuer(client: FlaskClient, path: str) -> None:
    known = client.get(METADATA).get_json()

    found = client.get(path)

    assert found.get_json() == known
    assert known["issuer"].endswith("/")
    assert found.headers["Access-Control-Allow-Origin"] == "*"
    assert found.content_type == "application/json"


@pytest.mark.parametrize("path", [METADATA, *DISCOVERY])
def test_without_the_api_there_is_none(make_app: MakeApp, path: str) -> None:
    client = make_app(oauth="false").test_client()

    assert refusal(client.get(path)) == (404, "M_UNRECOGNIZED")
