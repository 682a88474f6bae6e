"""What belongs to the running server, for views: the database, who waits, who has asked how often.

Views take these by name from here, and pass values on: nothing below the views knows Flask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import current_app, g

if TYPE_CHECKING:
    from homebody.core.accounts.last_seen import LastSeen
    from homebody.core.ephemeral.ephemeral import Ephemeral
    from homebody.core.ratelimits import RateLimits
    from homebody.outside.client import Client
    from homebody.runtime.metrics import Metrics
    from homebody.runtime.wakeups import Wakeups
    from homebody.storage.caches import Requester
    from homebody.storage.database import Database, Server


def db() -> Database:
    """The database of the server that answers this request."""
    return cast("Database", current_app.extensions["db"])


def server() -> Server:
    """Its name, keys and settings."""
    return db().server


def wakeups() -> Wakeups:
    """Who waits for news."""
    return cast("Wakeups", current_app.extensions["wakeups"])


def ephemeral() -> Ephemeral:
    """Who is typing, who is online."""
    return cast("Ephemeral", current_app.extensions["ephemeral"])


def outside() -> Client:
    """The guarded way out."""
    return cast("Client", current_app.extensions["outside"])


def last_seen() -> LastSeen:
    """When which device made its last request."""
    return cast("LastSeen", current_app.extensions["last_seen"])


def metrics() -> Metrics:
    """What is counted."""
    return cast("Metrics", current_app.extensions["metrics"])


def rate_limits() -> RateLimits:
    """Who has done what how often; for most application services, nothing is too often.

    "Whether requests from masqueraded users are rate-limited. The sender is excluded."
    Spec: application-service-api#registration
    """
    limits: RateLimits = current_app.extensions["rate_limits"]
    who: Requester | None = g.get("requester")
    if who is None or who.service is None:
        return limits
    is_limited = who.service.is_rate_limited and who.user_id != who.service.sender
    return limits if is_limited else limits.without()
