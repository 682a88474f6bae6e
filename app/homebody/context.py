"""The parts of the running server, for views.

Views take these by name from here, and pass values on: nothing below the views knows Flask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

from flask import current_app, g

from homebody.background.delivery import Delivery
from homebody.core.accounts.last_seen import LastSeen
from homebody.core.ephemeral.ephemeral import Ephemeral
from homebody.core.ratelimits import RateLimits
from homebody.core.sliding_sync.connections import Connections
from homebody.core.sync.state_sections import LazyMembers
from homebody.outside.client import Client
from homebody.runtime.metrics import Metrics
from homebody.runtime.single_flight import Repeats
from homebody.runtime.wakeups import Wakeups
from homebody.storage.caches import Requester
from homebody.storage.database import Database, Server


@dataclass(frozen=True)
class Homeserver:
    """What one running server consists of, beside its routes."""

    database: Database
    outside: Client
    metrics: Metrics
    delivery: Delivery
    wakeups: Wakeups
    ephemeral: Ephemeral
    last_seen: LastSeen
    lazy_members: LazyMembers
    repeats: Repeats
    sliding_connections: Connections
    rate_limits: RateLimits


class _Application(Protocol):
    """What is needed here of web.Application."""

    homeserver: Homeserver


_application = cast("_Application", current_app)


def homeserver() -> Homeserver:
    """Return the server that answers this request."""
    return _application.homeserver


def db() -> Database:
    """Return its database."""
    return _application.homeserver.database


def server() -> Server:
    """Return its name, keys and settings."""
    return _application.homeserver.database.server


def ephemeral() -> Ephemeral:
    """Return what it keeps in memory of typing and presence."""
    return _application.homeserver.ephemeral


def rate_limits() -> RateLimits:
    """Return the rate limits that apply to the requester; most application services have none.

    "Whether requests from masqueraded users are rate-limited. The sender is excluded."
    Spec: application-service-api#registration
    """
    limits = _application.homeserver.rate_limits
    requester: Requester | None = g.get("requester")
    if requester is None or requester.service is None:
        return limits
    service = requester.service
    is_limited = service.is_rate_limited and requester.user_id != service.sender
    return limits if is_limited else limits.without()
