"""Credentials for the TURN servers that relay calls through firewalls.

The TURN server has the same secret and verifies them itself: the user name contains the expiry
time, and the password is its HMAC. TURN servers expect SHA-1.
Spec: client-server-api#voice-over-ip
"""

from __future__ import annotations

import base64
import hmac

from homebody.config.settings import Config
from homebody.spec.events import Json


def credentials(config: Config, user_id: str, now_ms: int) -> Json | None:
    """Return `username`, `password`, `uris` and `ttl` (seconds); None where none is configured."""
    if not config.turn_uris or config.turn_shared_secret is None:
        return None
    ttl = config.turn_user_lifetime_ms // 1000
    username = f"{now_ms // 1000 + ttl}:{user_id}"
    mac = hmac.digest(config.turn_shared_secret.encode(), username.encode(), "sha1")
    return {
        "username": username,
        "password": base64.b64encode(mac).decode(),
        "uris": list(config.turn_uris),
        "ttl": ttl,
    }
