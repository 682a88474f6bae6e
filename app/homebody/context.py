"""The parts of the running server, for views.

Views take these by name from here, and pass values on: nothing below the views knows Flask.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import Final, cast

from flask import current_app
from werkzeug.local import LocalProxy

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
from homebody.storage.database import Database, Server


@dataclass(frozen=True)
class Homeserver:
    """The parts of one running server, except its routes."""

    server: Server
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


homeserver: Final = cast(
    "Homeserver", LocalProxy(functools.partial(operator.attrgetter("homeserver"), current_app))
)
"""The server that answers the current request."""
