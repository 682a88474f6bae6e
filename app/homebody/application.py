"""`create_app`: the whole server on one screen. Reading starts here.

A request passes `web/middleware.py`, a view in `client_server/`, a function of `core/` and its SQL;
the protocol rules are in `spec/`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from homebody import admin_api, client_server, server_server, web
from homebody.background import appservices as bridges
from homebody.background import departures, mail, push, upkeep
from homebody.background.backups import Backups
from homebody.background.delayed_events import DelayedEvents
from homebody.background.delivery import Delivery
from homebody.background.federation.sender import Sender
from homebody.background.tasks import KIND as TASK
from homebody.background.tasks import Run, Tasks
from homebody.background.upkeep import Upkeep
from homebody.client_server import authentication
from homebody.config.settings import Config
from homebody.context import Homeserver
from homebody.core import outgoing, server_key
from homebody.core.accounts.access_tokens import LastSeen
from homebody.core.administration import export, notices_to_all
from homebody.core.appservices import files as registrations
from homebody.core.ephemeral import lifetimes
from homebody.core.ephemeral.sent_receipts import SentReceipts
from homebody.core.federation.backfill import Backfill
from homebody.core.federation.device_resync import DeviceResync
from homebody.core.federation.edus import Edus
from homebody.core.federation.gap_filler import GapFiller
from homebody.core.federation.inbound import Inbound
from homebody.core.federation.invites import Invites
from homebody.core.federation.joins import Joins
from homebody.core.federation.keys import ServerKeys
from homebody.core.federation.missing_events import MissingEvents
from homebody.core.federation.partial_joins import PartialJoins
from homebody.core.federation.queries import RemoteQueries
from homebody.core.federation.remote_keys import RemoteKeys
from homebody.core.federation.remote_media import RemoteMedia
from homebody.core.federation.remote_rooms import RemoteRooms
from homebody.core.federation.resolver import Resolver
from homebody.core.federation.transactions import Transactions
from homebody.core.media import files
from homebody.core.media.last_used import LastUsed
from homebody.core.ratelimits import RateLimits
from homebody.core.rooms import deletion, history_purge, user_redaction
from homebody.core.sessions.rendezvous import Rendezvous
from homebody.core.sessions.shared_secret import Nonces
from homebody.core.sign_on.providers import Providers
from homebody.core.sliding_sync.connections import Connections
from homebody.core.sync.state_sections import LazyMembers
from homebody.core.timeline import outside_rooms
from homebody.doctor.checkups import Checkups
from homebody.outside.client import Client
from homebody.outside.federation import FederationClient
from homebody.runtime.event_loop import Wakeups
from homebody.runtime.locks import Locks
from homebody.runtime.metrics import Metrics
from homebody.runtime.single_flight import Repeats
from homebody.runtime.traces import Traces
from homebody.storage import scratch
from homebody.storage.caches import Caches
from homebody.storage.database import Database, Server
from homebody.web import admin_pages, blueprints, oauth, sign_on_pages

ACTIONS: Final[dict[str, Run]] = {
    deletion.ACTION: deletion.run,
    history_purge.ACTION: history_purge.run,
    user_redaction.ACTION: user_redaction.run,
    export.ACTION: export.run,
    notices_to_all.ACTION: notices_to_all.run,
    upkeep.VACUUM: upkeep.run_vacuum,
}
"""The tasks that administrators may order, by name."""


def create_app(config: Config) -> web.Application:
    """Return the server for this configuration, on the migrated database of its data folder.

    Raises ConfigError when the folder, the database or another file can't be used.
    """
    wakeups, metrics, outside = Wakeups(), Metrics(), Client(config)
    database = _database(config, wakeups, metrics)
    server = database.server
    files.sweep(config.data_dir)
    scratch.clear(config.data_dir)
    federation = FederationClient(config, config.server_name, server.signing_key)
    sender, tasks = Sender(database, federation, metrics), Tasks(database, ACTIONS)
    keys, locks, limits = ServerKeys(database, federation), Locks(), RateLimits(config)
    inbound = _Inbound.connected(database, federation, keys, locks)
    resync = DeviceResync(database, federation)
    ephemeral = lifetimes.start(database, wakeups.wake)
    media_used, connections = LastUsed(database), Connections()
    app = web.Application(__name__, static_folder=None, template_folder="web/templates")
    app.homeserver = Homeserver(
        server=server,
        database=database,
        outside=outside,
        federation=federation,
        metrics=metrics,
        sender=sender,  # the worker starts it, and delivery
        delivery=_delivery(database, federation, outside, sender, tasks),
        tasks=tasks,
        upkeep=Upkeep(upkeep.jobs(database, media_used, connections), config.data_dir),
        delayed_events=DelayedEvents(database, federation, limits),
        backups=Backups(config.backup, metrics),
        wakeups=wakeups,
        ephemeral=ephemeral,
        sent_receipts=SentReceipts(database, ephemeral.timers),
        last_seen=LastSeen(database),
        nonces=Nonces(),
        rendezvous=Rendezvous(),
        lazy_members=LazyMembers(),
        repeats=Repeats(),
        sliding_connections=connections,
        rate_limits=limits,
        login_providers=Providers(config, outside),
        remote_queries=RemoteQueries(federation),
        remote_media=RemoteMedia(database, federation, outside),
        media_used=media_used,
        remote_keys=RemoteKeys(database, federation),
        remote_rooms=RemoteRooms(database, federation),
        device_resync=resync,
        edus=Edus(database, ephemeral, resync),
        server_keys=keys,
        transactions=inbound.transactions,
        inbound=inbound.events,
        invites=inbound.invites,
        joins=inbound.joins,
        partial_joins=inbound.partial_joins,
        backfill=inbound.backfill,
        gap_filler=inbound.gap_filler,
        locks=locks,
        checkups=Checkups(config.data_dir),
        traces=Traces(config.data_dir),
    )
    web.register(app, server)
    for package in (client_server, admin_api, admin_pages, oauth, sign_on_pages):
        blueprints.register(app, package)
    if config.federation:
        blueprints.register(app, server_server)
    return app


def _database(config: Config, wakeups: Wakeups, metrics: Metrics) -> Database:
    key, services = server_key.load_or_create(config), registrations.load(config)
    server = Server(config.server_name, key, config, services, metrics)
    database = Database(config.database_url, server, Caches(config.cache_bytes), wakeups.wake)
    database.writer.committed, database.admit = metrics.note_commit, authentication.admit
    return database


def _delivery(
    database: Database,
    federation: FederationClient,
    outside: Client,
    sender: Sender,
    tasks: Tasks,
) -> Delivery:
    kinds = {
        "push": push.kind(outside),
        "mail": mail.KIND,
        "appservice": bridges.KIND,
        outside_rooms.DEPARTURE: departures.kind(federation),
    }
    return Delivery(database, kinds, {outgoing.KIND: sender.note_rows, TASK: tasks.notify})


class _Inbound(NamedTuple):
    """What takes in the events of other servers; these parts call each other."""

    transactions: Transactions
    events: Inbound
    invites: Invites
    backfill: Backfill
    gap_filler: GapFiller
    partial_joins: PartialJoins
    joins: Joins

    @classmethod
    def connected(
        cls, database: Database, federation: FederationClient, keys: ServerKeys, locks: Locks
    ) -> _Inbound:
        """Return the parts, each with those that it calls."""
        transactions, resolver = Transactions(), Resolver(database, locks)
        events = Inbound(database, keys, locks, federation, resolver)
        missing = MissingEvents(database, keys, federation, locks, transactions, resolver)
        backfill, invites = Backfill(database, keys, federation), Invites(database, keys)
        gap_filler = GapFiller(database, backfill)
        events.queues.fill_gap = missing.fetch
        events.gap_opened = gap_filler.begin
        events.receive_elsewhere = invites.receive_end
        partial_joins = PartialJoins(database, federation, keys, locks, events)
        joins = Joins(database, federation, keys, locks, events, partial_joins, gap_filler)
        return cls(transactions, events, invites, backfill, gap_filler, partial_joins, joins)
