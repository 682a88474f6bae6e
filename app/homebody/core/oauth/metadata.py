"""The metadata of the authorization server, by which clients find all of its endpoints.

Spec: client-server-api#server-metadata-discovery,
client-server-api#account-management-url-discovery
"""

from __future__ import annotations

from typing import Final

from homebody import errors
from homebody.config.settings import Config
from homebody.core.oauth import client_metadata
from homebody.spec.events import Json

PREFIX: Final = "/_homebody/oauth/"
"""The path of the endpoints, and of the pages for users."""
ACCOUNT: Final = f"{PREFIX}account"
DEVICE: Final = f"{PREFIX}device"
RESPONSE_MODES: Final = {"query": "?", "fragment": "#"}
"""The values of response_mode, and what stands before the parameters of the response."""
_STABLE: Final = {
    "org.matrix.profile": "profile",
    "org.matrix.devices_list": "devices_list",
    "org.matrix.device_view": "device_view",
    "org.matrix.device_delete": "device_delete",
    "org.matrix.account_deactivate": "account_deactivate",
    "org.matrix.cross_signing_reset": "cross_signing_reset",
}
_UNSTABLE: Final = {
    "org.matrix.sessions_list": "devices_list",
    "org.matrix.session_view": "device_view",
    "org.matrix.session_end": "device_delete",
}
"""What clients from before MSC4191 was accepted call some of them."""
ACTIONS: Final = _STABLE | _UNSTABLE
"""The actions of the account's pages, and what they mean."""


def check_on(config: Config) -> None:
    """Raise M_UNRECOGNIZED where the configuration does without the API."""
    if not config.oauth:
        raise errors.unrecognized("This server does not support the OAuth 2.0 API")


def of_server(config: Config) -> Json:
    """Return the metadata, as in RFC 8414. Raises M_UNRECOGNIZED where the API is switched off."""
    check_on(config)
    base = config.public_url.rstrip("/")
    account = account_uri(config)
    # RFC 8414, section 3.2: "Claims with zero elements MUST be omitted"
    prompts = {} if config.registration == "closed" else {"prompt_values_supported": ["create"]}
    return {
        "issuer": issuer(config),
        "authorization_endpoint": f"{base}{PREFIX}authorize",
        "token_endpoint": f"{base}{PREFIX}token",
        "revocation_endpoint": f"{base}{PREFIX}revoke",
        "registration_endpoint": f"{base}{PREFIX}clients",
        "device_authorization_endpoint": f"{base}{PREFIX}device_authorization",
        "response_types_supported": list(client_metadata.RESPONSE_TYPES),
        "response_modes_supported": list(RESPONSE_MODES),
        "grant_types_supported": list(client_metadata.GRANT_TYPES),
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "authorization_response_iss_parameter_supported": True,
        **prompts,
        "account_management_uri": account,
        "account_management_actions_supported": list(_STABLE),
        "org.matrix.msc4191.account_management_uri": account,
        "org.matrix.msc4191.account_management_actions_supported": list(ACTIONS),
    }


def issuer(config: Config) -> str:
    """Return the identifier of the authorization server."""
    return f"{config.public_url.rstrip('/')}/"


def account_uri(config: Config) -> str:
    """Return the page of the user's account."""
    return f"{config.public_url.rstrip('/')}{ACCOUNT}"


def cross_signing_reset_uri(config: Config) -> str:
    """Return the page on which a user allows other cross-signing keys."""
    return f"{account_uri(config)}?action=org.matrix.cross_signing_reset"
