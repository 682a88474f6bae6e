"""homebody, a Matrix homeserver: `create_app` is the whole server on one screen.

Reading starts here. A request goes through `web/middleware.py`, one view of a blueprint below, one
function of `core/` and its SQL; the law of Matrix that it asks is in `spec/`.
"""

from __future__ import annotations

from flask import Flask

from homebody import client_server, web
from homebody.background import appservices as bridges
from homebody.background import delivery, mail, push
from homebody.client_server import http
from homebody.config.settings import Config
from homebody.core import server_key
from homebody.core.accounts.last_seen import LastSeen
from homebody.core.appservices import files as registrations
from homebody.core.media import files
from homebody.core.ratelimits import RateLimits
from homebody.core.sessions import lifetimes
from homebody.core.sliding_sync.connections import Connections
from homebody.core.sync.state_sections import LazyMembers
from homebody.outside.client import Client
from homebody.runtime.metrics import Metrics
from homebody.runtime.single_flight import Repeats
from homebody.runtime.wakeups import Wakeups
from homebody.storage import database as db
from homebody.storage.caches import Caches


def create_app(config: Config) -> Flask:
    """The server for this configuration, on the database of its data folder (migrated before).

    Raises ConfigError when the folder or the database can't be used.
    """
    app = web.Application(__name__, static_folder=None, template_folder="web/templates")
    wakeups, metrics = Wakeups(), Metrics()
    key, services = server_key.load_or_make(config), registrations.load(config)
    server = db.Server(config.server_name, key, config, services)
    database = db.Database(config.database_url, server, Caches(config.cache_bytes), wakeups.wake)
    database.committed, database.admit = metrics.note_commit, http.admit
    files.sweep(config.data_dir)
    outside = Client(config)
    app.extensions["db"] = database
    app.extensions["outside"] = outside
    app.extensions["metrics"] = metrics
    kinds = {"push": push.kind(outside), "mail": mail.KIND, "appservice": bridges.KIND}
    app.extensions["delivery"] = delivery.Delivery(database, kinds)  # the worker starts it
    app.extensions["wakeups"] = wakeups
    app.extensions["ephemeral"] = lifetimes.start(database, wakeups.wake)
    app.extensions["last_seen"] = LastSeen(database)
    app.extensions["lazy_members"] = LazyMembers()
    app.extensions["repeats"] = Repeats()
    app.extensions["sliding_connections"] = Connections()
    app.extensions["rate_limits"] = RateLimits(config)
    web.register(app, config)
    client_server.register(app)
    return app
