"""The setting oidc_providers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from homebody.config import login_providers, secret_files, settings
from homebody.config.settings import ConfigError
from homebody.core.sign_on.providers import Providers
from homebody.outside.client import Client
from tests.helpers.openid_provider import inline
from tests.helpers.settings import complaint, write

GOOD = {
    "id": "keycloak",
    "name": "Our accounts",
    "issuer": "https://keycloak.example.org/realms/family",
    "client_id": "homebody",
    "client_secret": "hush",
}


def written(folder: Path, **more: Any) -> Path:
    """A file with one provider."""
    table = {key: it for key, it in {**GOOD, **more}.items() if it is not None}
    return write(folder, f"oidc_providers = [{inline(table)}]\n".replace("True", "true"))


def test_a_provider_is_a_table(tmp_path: Path) -> None:
    lines = [f'{key} = "{value}"' for key, value in GOOD.items()]
    path = write(tmp_path, "\n".join(["[[oidc_providers]]", *lines]))

    (provider,) = settings.load(path, {}).oidc_providers

    assert (provider.id, provider.issuer) == ("keycloak", GOOD["issuer"])
    assert provider.client_secret == "hush"
    assert provider.scopes == ("openid", "profile", "email")


def test_its_secret_is_shown_nowhere(tmp_path: Path) -> None:
    config = settings.load(written(tmp_path), {})

    shown = settings.describe(config) + repr(config.oidc_providers) + str(config)

    assert 'client_secret = "(not shown)"' in shown
    assert "hush" not in shown


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"issuer": "http://keycloak.example.org"}, "issuer has to begin with https://"),
        ({"issuer": "keycloak"}, "Expected `str` matching regex"),
        ({"id": "Not/an id"}, "Expected `str` matching regex"),
        ({"id": None}, "Object missing required field `id`"),
        ({"client_secert": "hush"}, "Object contains unknown field `client_secert`"),
        ({"client_secret_file": "x"}, "there is a client_secret and a client_secret_file"),
        ({"client_secret": 7}, "Expected `str | null`, got `int`"),
        ({"scopes": ["profile"]}, "scopes have to include openid"),
        ({"scopes": ["openid", "a b"]}, "Expected `str` matching regex"),
        ({"localpart_template": "{user.name!r}"}, "a template consists of"),
        ({"email_template": "{email"}, "a template consists of"),
        ({"registration": "sure"}, "Invalid enum value 'sure'"),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(
    tmp_path: Path, more: dict[str, Any], sentence: str
) -> None:
    text = complaint(written(tmp_path, **more))

    assert sentence in text
    assert "hush" not in text


def test_two_need_different_ids(tmp_path: Path) -> None:
    path = write(tmp_path, f"oidc_providers = [{inline(GOOD)}, {inline(GOOD)}]\n")

    assert "two have the same id" in complaint(path)


@pytest.mark.parametrize("issuer", ["http://localhost:9998/", "http://192.168.1.2/x"])
def test_a_provider_of_ones_own_network_needs_no_https(tmp_path: Path, issuer: str) -> None:
    (provider,) = settings.load(written(tmp_path, issuer=issuer), {}).oidc_providers

    assert provider.issuer == issuer  # with the slash at its end


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush\n")
    more = {"client_secret": None, "client_secret_file": str(tmp_path / "secret")}
    path = written(tmp_path, **more)

    (provider,) = settings.load(path, {}).oidc_providers
    files = list(secret_files.in_force({"HOMEBODY_CONFIG": str(path)}))

    assert provider.client_secret is None
    assert files == [tmp_path / "secret"]


def test_the_file_of_settings_is_secret_if_the_secret_is_in_it(tmp_path: Path) -> None:
    path = written(tmp_path)

    assert list(secret_files.in_force({"HOMEBODY_CONFIG": str(path)})) == [path]


def test_a_file_that_can_not_be_read_stops_the_start(tmp_path: Path) -> None:
    more = {"client_secret": None, "client_secret_file": str(tmp_path / "missing")}
    config = settings.load(written(tmp_path, **more), {}, {"data_dir": str(tmp_path)})

    with pytest.raises(ConfigError, match="missing cannot be read"):
        Providers(config, Client(config))


def test_an_empty_file_is_not_a_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    more = {"client_secret": None, "client_secret_file": str(tmp_path / "secret")}
    config = settings.load(written(tmp_path, **more), {}, {"data_dir": str(tmp_path)})

    with pytest.raises(ConfigError, match="secret is empty"):
        Providers(config, Client(config))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{name}", "Alice"),
        ("{email|localpart}", "alice"),
        ("u-{id}", "u-7"),
        ("{missing}", None),
        ("{empty}", None),
        ("{list}", None),
        ("plain", "plain"),
        (None, None),
    ],
)
def test_templates_are_filled_with_claims(template: str | None, expected: str | None) -> None:
    claims = {"name": "Alice", "email": "alice@example.org", "id": 7, "empty": "", "list": []}

    assert login_providers.filled(template, dict(claims)) == expected
