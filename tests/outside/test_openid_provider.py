"""What is asked of OpenID Connect providers, over HTTPS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from homebody.config import settings
from homebody.outside import RemoteError, openid_provider
from homebody.outside.client import Client
from homebody.outside.openid_provider import Tokens
from tests.helpers import certificates
from tests.helpers.scripted_server import Request, Response, ScriptedServer


class Issuer:
    """A provider at https://localhost:PORT/realm/, with metadata that the test changes."""

    def __init__(self) -> None:
        self.changes: dict[str, Any] = {}
        self.server = ScriptedServer(self.respond, certificates.server_context("localhost"))
        self.name = f"https://localhost:{self.server.port}/realm/"

    def respond(self, request: Request) -> Response:
        """Respond with metadata, wherever they are expected."""
        if request.path != "/realm/.well-known/openid-configuration":
            return Response(404)
        found = {
            "issuer": self.name,
            "authorization_endpoint": f"{self.name}authorize",
            "token_endpoint": f"{self.name}token",
            "jwks_uri": f"{self.name}keys",
            **self.changes,
        }
        return Response(body=found)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    found = Issuer()
    yield found
    found.server.close()
    assert found.server.errors == []


@pytest.fixture
def client(tmp_path: Path, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client that trusts the authority of the tests."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    return Client(settings.load(None, {}, {"data_dir": str(tmp_path)}))


def test_an_issuer_with_a_slash_at_its_end_is_found(issuer: Issuer, client: Client) -> None:
    found = openid_provider.discover(client, issuer.name)

    assert found.issuer == issuer.name
    assert found.userinfo_endpoint is None


def test_an_issuer_without_its_slash_is_another_one(issuer: Issuer, client: Client) -> None:
    with pytest.raises(RemoteError, match="is for another issuer"):
        openid_provider.discover(client, issuer.name.rstrip("/"))


@pytest.mark.parametrize(
    "name", ["authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"]
)
@pytest.mark.parametrize(
    "url",
    ["http://localhost/x", "ftp://localhost/x", "x", "", "https:x", "https://[x", "https://x/\ny"],
)
def test_no_endpoint_is_less_safe_than_the_issuer(
    issuer: Issuer, client: Client, name: str, url: str
) -> None:
    issuer.changes = {name: url}

    with pytest.raises(RemoteError, match=r"no https://"):
        openid_provider.discover(client, issuer.name)


@pytest.mark.parametrize(
    "changes", [{"token_endpoint": None}, {"jwks_uri": 7}, {"userinfo_endpoint": ["x"]}]
)
def test_metadata_in_another_form_are_refused(
    issuer: Issuer, client: Client, changes: dict[str, Any]
) -> None:
    issuer.changes = changes

    with pytest.raises(RemoteError) as raised:
        openid_provider.discover(client, issuer.name)

    assert raised.value.kind == "bad_response"


def test_an_issuer_with_another_certificate_is_not_believed(issuer: Issuer, tmp_path: Path) -> None:
    strict = Client(settings.load(None, {}, {"data_dir": str(tmp_path)}))

    with pytest.raises(RemoteError) as raised:
        openid_provider.discover(strict, issuer.name)

    assert raised.value.kind == "unreachable"


def test_tokens_show_nothing_of_themselves() -> None:
    assert repr(Tokens("secret", "secret")) == "Tokens()"
