"""The objects under /.well-known/matrix, made from the configuration.

Spec: client-server-api#getwell-knownmatrixclient,
client-server-api#getwell-knownmatrixsupport, client-server-api#getwell-knownmatrixpolicy_server,
server-server-api#getwell-knownmatrixserver
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from homebody.config.settings import Config
from homebody.spec.events import Json


def client(config: Config) -> Json:
    """Return the URLs of the servers, for /login as well."""
    found: Json = {"m.homeserver": {"base_url": config.public_url}}
    if config.identity_server is not None:
        found["m.identity_server"] = {"base_url": config.identity_server}
    if transports := rtc_transports(config):
        found["org.matrix.msc4143.rtc_foci"] = transports
    return found


def rtc_transports(config: Config) -> list[Json]:
    """Return the servers for group calls (MSC4143), each with the service that lets users in.

    MSC4195 has the homeserver let them in, and no URL; clients need one so far.
    """
    if config.livekit_service_url is None:
        return []
    return [{"type": "livekit", "livekit_service_url": config.livekit_service_url}]


def server(config: Config) -> Json | None:
    """Return where other servers reach this one; None if that is port 8448 of its name, or nowhere.

    The proxy at `public_url` passes on the requests of servers as well as those of clients. Without
    federation, services for calls still ask here who a user is.
    """
    if not config.federation and config.livekit_service_url is None:
        return None
    if config.well_known_server is not None:
        return {"m.server": config.well_known_server}
    url = urlsplit(config.public_url)
    if url.scheme != "https" or url.path:
        return None
    return {"m.server": url.netloc if url.port else f"{url.netloc}:443"}


def support(config: Config) -> Json | None:
    """Return `contacts` and `support_page`, as far as they are set; None if neither is."""
    found: Json = {}
    if config.support_contacts:
        found["contacts"] = msgspec.to_builtins(config.support_contacts)
    if config.support_page is not None:
        found["support_page"] = config.support_page
    return found or None


def policy_server(config: Config) -> Json | None:
    """Return the keys of the policy server of this name; None if there is none."""
    if config.policy_server_public_key is None:
        return None
    return {"public_keys": {"ed25519": config.policy_server_public_key}}
