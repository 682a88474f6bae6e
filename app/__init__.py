"""homebody, a Matrix homeserver: `create_app` is the whole server on one screen.

Reading starts here. A request goes through `web/wsgi.py`, one view of a blueprint below, one
function of `core/` and its SQL; the law of Matrix that it asks is in `spec/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.config import Config


def create_app(config: Config) -> Flask:
    """The server for this configuration, on the database of its data folder (migrated before).

    Raises ConfigError when the folder or the database can't be used.
    """
    # Imported here, as alembic/env.py and gunicorn.conf.py need parts of the package without Flask
    from app import client_server, db, web  # noqa: PLC0415 - see above
    from app.background import appservices as bridges  # noqa: PLC0415 - see above
    from app.background import delivery, mail, push  # noqa: PLC0415 - see above
    from app.caches import Caches  # noqa: PLC0415 - see above
    from app.client_server import http  # noqa: PLC0415 - see above
    from app.core import server_key  # noqa: PLC0415 - see above
    from app.core.appservices import files as registrations  # noqa: PLC0415 - see above
    from app.core.media import files  # noqa: PLC0415 - see above
    from app.core.people.last_seen import LastSeen  # noqa: PLC0415 - see above
    from app.core.ratelimits import RateLimits  # noqa: PLC0415 - see above
    from app.core.sync import lifetimes  # noqa: PLC0415 - see above
    from app.core.sync.repeats import Repeats  # noqa: PLC0415 - see above
    from app.core.sync.sliding_connections import Connections  # noqa: PLC0415 - see above
    from app.core.sync.state_sections import LazyMembers  # noqa: PLC0415 - see above
    from app.core.sync.wakeups import Wakeups  # noqa: PLC0415 - see above
    from app.metrics import Metrics  # noqa: PLC0415 - see above
    from app.outside.client import Client  # noqa: PLC0415 - see above

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
