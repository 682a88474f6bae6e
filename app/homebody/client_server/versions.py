"""Supported versions of the specification, and capabilities.

Spec: client-server-api#api-versions, client-server-api#capabilities-negotiation
"""

from __future__ import annotations

from flask import Blueprint

from homebody.client_server import interactive
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.spec.events import Json
from homebody.spec.room_versions import VERSIONS

bp = Blueprint("versions", __name__, url_prefix="/_matrix/client")

SPEC_VERSIONS = [
    *("r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1"),
    *(f"v1.{minor}" for minor in range(1, 20)),
]
UNSTABLE_FEATURES = {
    "org.matrix.e2e_cross_signing": True,  # older clients check for it
    "org.matrix.msc2285.stable": True,  # private read receipts
    "org.matrix.msc3391": True,  # deleting account data
    "org.matrix.msc3771": True,  # threaded read receipts
    "org.matrix.msc3773": True,  # notification counts by thread
    "org.matrix.msc3814": True,  # dehydrated devices; stable nowhere yet
    "org.matrix.msc3874": True,  # filters by type of relation
    "org.matrix.msc3890": True,  # settings of local notifications, which end with their device
    "org.matrix.msc3916.stable": True,  # authenticated media
    "org.matrix.msc4140": True,  # delayed events
    "org.matrix.msc4140.stable": True,
    "org.matrix.msc4143": True,  # transports of calls
    "org.matrix.msc4155": True,  # filtering invites
    "org.matrix.msc4262": True,  # profiles in sliding sync
    "org.matrix.msc4306": True,  # thread subscriptions
    "org.matrix.msc4354": True,  # sticky events
    "org.matrix.simplified_msc3575": True,  # sliding sync; Element X needs it
    "uk.half-shot.msc2666.query_mutual_rooms": True,  # mutual rooms, for matrix-js-sdk
    "uk.half-shot.msc2666.query_mutual_rooms.stable": True,
}

OAUTH_FEATURES = ("org.matrix.msc4108", "io.element.msc4388")
"""Login by QR code, by one dialect or the other."""


@bp.get("/versions")
@authenticated(optional=True, guests=True)
def get_versions() -> Json:
    """Return the supported versions of the specification, and unstable features."""
    by_oauth = dict.fromkeys(OAUTH_FEATURES, homeserver.server.config.oauth)
    return {"versions": SPEC_VERSIONS, "unstable_features": {**UNSTABLE_FEATURES, **by_oauth}}


@bp.get("/v3/capabilities")
@authenticated(guests=True)
def get_capabilities() -> Json:
    """Return what the account may do, and the supported room versions.

    Clients of the OAuth 2.0 API send their users to the pages of the account for what needs
    user-interactive authentication.
    """
    moderation = {"suspend": True, "lock": True}
    is_by_password = not interactive.is_by_oauth()
    config = homeserver.server.config
    limits = config.delayed_events
    delayed = {"max_delay_ms": limits.max_delay_ms, "max_scheduled": limits.max_scheduled}
    return {
        "capabilities": {
            **({"m.account_moderation": moderation} if requester().is_admin else {}),
            "m.change_password": {"enabled": is_by_password},
            "m.3pid_changes": {"enabled": is_by_password and config.smtp.host is not None},
            "m.get_login_token": {"enabled": is_by_password},
            "m.set_avatar_url": {"enabled": True},
            "m.set_displayname": {"enabled": True},
            "m.profile_fields": {"enabled": True},
            "m.delayed_events": delayed,
            "org.matrix.msc4140.delayed_events": delayed,
            "m.room_versions": {
                "default": config.default_room_version,
                "available": dict.fromkeys(VERSIONS, "stable"),
            },
        }
    }
