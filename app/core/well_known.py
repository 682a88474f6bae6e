"""Where clients find this server, as /.well-known/matrix/client and the answer to /login say it.

Spec: client-server-api#getwell-knownmatrixclient
"""

from __future__ import annotations

from app.config import Config
from app.spec.events import Json


def client(config: Config) -> Json:
    """The object of both. Base URLs stand without a slash at the end: clients add paths to them."""
    found: Json = {"m.homeserver": {"base_url": config.public_url.rstrip("/")}}
    if config.identity_server is not None:
        found["m.identity_server"] = {"base_url": config.identity_server.rstrip("/")}
    return found
