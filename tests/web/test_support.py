"""What /.well-known/matrix tells of the configuration: contacts, and the key of a policy server."""

from __future__ import annotations

import pytest

from homebody.config import settings
from homebody.config.settings import ConfigError
from tests.conftest import MakeApp

PATH = "/.well-known/matrix"
KEY = "6yhHGKhCiXTSEN2ksjV7kX_N6rBQZ3Xb-M7LlC6NS-s".replace("_", "/").replace("-", "+")


def test_contacts_and_a_page_are_told(make_app: MakeApp) -> None:
    contacts = (
        '[{ role = "m.role.admin", matrix_id = "@me:example.org" },'
        ' { role = "org.example.cook", email_address = "cook@example.org" }]'
    )
    page = "https://example.org/help?topic=matrix"
    client = make_app(support_contacts=contacts, support_page=page).test_client()

    answer = client.get(f"{PATH}/support")

    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.get_json() == {
        "contacts": [
            {"role": "m.role.admin", "matrix_id": "@me:example.org"},
            {"role": "org.example.cook", "email_address": "cook@example.org"},
        ],
        "support_page": page,
    }


def test_either_of_them_is_enough(make_app: MakeApp) -> None:
    client = make_app(support_page="https://example.org/help").test_client()

    assert client.get(f"{PATH}/support").get_json() == {"support_page": "https://example.org/help"}


def test_the_key_of_a_policy_server_is_told(make_app: MakeApp) -> None:
    client = make_app(policy_server_public_key=KEY).test_client()

    answer = client.get(f"{PATH}/policy_server")

    assert answer.get_json() == {"public_keys": {"ed25519": KEY}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("support_contacts", '[{ role = "m.role.admin" }]'),
        ("support_contacts", '[{ matrix_id = "@me:example.org" }]'),
        ("support_contacts", '[{ role = "m.role.cook", matrix_id = "@me:example.org" }]'),
        ("support_contacts", '[{ role = "m.role.admin", matrix_id = "me" }]'),
        ("support_contacts", '[{ role = "m.role.admin", email_address = "me" }]'),
        ("support_contacts", '[{ role = "m.role.admin", telephone = "1" }]'),
        ("support_contacts", '{ role = "m.role.admin" }'),
        ("support_page", "example.org/help"),
        ("policy_server_public_key", "short"),
        ("policy_server_public_key", KEY + "="),
        ("terms", '[{ id = "a b", version = "1", name = "N", url = "https://a.example" }]'),
        ("terms", '[{ id = "a", version = "1", name = "N", url = "javascript:alert(1)" }]'),
        ("terms", '[{ id = "a", version = 1, name = "N", url = "https://a.example" }]'),
        ("turn_uris", "https://turn.example.org"),
        ("server_notices_user", "@server:example.org"),
    ],
)
def test_settings_that_make_no_sense_are_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"option {key}: must be"):
        settings.load(None, {}, {key: value})
