"""The parts of the running server, for views.

Views take these by name from here, and pass values on: nothing below the views knows Flask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

from flask import current_app
from werkzeug.local import LocalProxy

from homebody.background.backups import Backups
from homebody.background.delayed_events import DelayedEvents
from homebody.background.delivery import Delivery
from homebody.background.federation.sender import Sender
from homebody.background.tasks import Tasks
from homebody.background.upkeep import Upkeep
from homebody.core.accounts.access_tokens import LastSeen
from homebody.core.ephemeral.ephemeral import Ephemeral
from homebody.core.ephemeral.sent_receipts import SentReceipts
from homebody.core.federation.backfill import Backfill
from homebody.core.federation.device_resync import DeviceResync
from homebody.core.federation.edus import Edus
from homebody.core.federation.gap_filler import GapFiller
from homebody.core.federation.inbound import Inbound
from homebody.core.federation.invites import Invites
from homebody.core.federation.joins import Joins
from homebody.core.federation.keys import ServerKeys
from homebody.core.federation.partial_joins import PartialJoins
from homebody.core.federation.queries import RemoteQueries
from homebody.core.federation.remote_keys import RemoteKeys
from homebody.core.federation.remote_media import RemoteMedia
from homebody.core.federation.remote_rooms import RemoteRooms
from homebody.core.federation.transactions import Transactions
from homebody.core.media.last_used import LastUsed
from homebody.core.ratelimits import RateLimits
from homebody.core.sessions.rendezvous import Rendezvous
from homebody.core.sessions.shared_secret import Nonces
from homebody.core.sign_on.providers import Providers
from homebody.core.sliding_sync.connections import Connections
from homebody.core.sync.state_sections import LazyMembers
from homebody.doctor.checkups import Checkups
from homebody.outside.client import Client
from homebody.outside.federation import FederationClient
from homebody.runtime.event_loop import Wakeups
from homebody.runtime.locks import Locks
from homebody.runtime.metrics import Metrics
from homebody.runtime.single_flight import Repeats
from homebody.runtime.traces import Traces
from homebody.storage.database import Database, Server


@dataclass(frozen=True)
class Homeserver:
    """The parts of one running server, except its routes."""

    server: Server
    database: Database
    outside: Client
    federation: FederationClient
    metrics: Metrics
    sender: Sender
    delivery: Delivery
    tasks: Tasks
    delayed_events: DelayedEvents
    upkeep: Upkeep
    backups: Backups
    wakeups: Wakeups
    ephemeral: Ephemeral
    sent_receipts: SentReceipts
    last_seen: LastSeen
    nonces: Nonces
    rendezvous: Rendezvous
    lazy_members: LazyMembers
    repeats: Repeats
    sliding_connections: Connections
    rate_limits: RateLimits
    login_providers: Providers
    server_keys: ServerKeys
    remote_queries: RemoteQueries
    remote_media: RemoteMedia
    media_used: LastUsed
    remote_keys: RemoteKeys
    remote_rooms: RemoteRooms
    device_resync: DeviceResync
    edus: Edus
    transactions: Transactions
    inbound: Inbound
    invites: Invites
    joins: Joins
    partial_joins: PartialJoins
    backfill: Backfill
    gap_filler: GapFiller
    locks: Locks
    checkups: Checkups
    traces: Traces


# _get_current_object, as asking current_app itself would be a second proxy: twice the time
_application: Any = current_app
homeserver: Final = cast(
    "Homeserver",
    LocalProxy(lambda: _application._get_current_object().homeserver),  # noqa: SLF001 - documented
)
"""The server that answers the current request."""
