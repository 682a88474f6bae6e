"""How the server is: memory, disk, database, waiting requests, queues, backups; and the doctor."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from typing import Any

from flask import Blueprint, Response

from homebody.context import homeserver
from homebody.core import audit, outbox
from homebody.core.administration import disk_usage
from homebody.runtime import memory
from homebody.storage import last_backup
from homebody.web import browser_sessions
from homebody.web.admin_pages import PREFIX, layout
from homebody.web.browser_sessions import signed_in

bp = Blueprint("admin_status", __name__)


@bp.get("/")
@signed_in(admins_only=True)
def show_status() -> Response:
    """Return the page that shows how the server is."""
    database = homeserver.database
    with database.read() as tx:
        waiting = outbox.backlog(tx)
        now_ms = tx.now_ms
        entries = audit.latest(tx, 5)
    backup = last_backup.read(homeserver.server.config.data_dir)
    return layout.page(
        "status.html",
        config=homeserver.server.config,
        versions={"homebody": version("homebody"), "Python": platform.python_version()},
        process=_process(),
        sizes=disk_usage.overview(database),
        queues=[(kind, count, (now_ms - since) / 1000) for kind, count, since in waiting],
        destinations=homeserver.sender.counts(),
        backup=backup,
        is_backup_old=backup is None or backup.is_old,
        checked=homeserver.checkups.latest(),
        entries=entries,
    )


@bp.get("/doctor")
@signed_in(admins_only=True)
def show_doctor() -> Response:
    """Return the page with what the doctor has found last."""
    checkups = homeserver.checkups
    return layout.page("doctor.html", checked=checkups.latest(), is_running=checkups.is_running)


@bp.post("/doctor")
@signed_in(admins_only=True)
def run_doctor() -> Response:
    """Check the server as `homebody doctor` does, and show what was found."""
    homeserver.checkups.run(os.environ, layout.actor())
    return browser_sessions.see_other(f"{PREFIX}/doctor")


def _process() -> dict[str, Any]:
    metrics = homeserver.metrics
    counts = metrics.stalls.cumulated()
    return {
        "uptime_s": time.time() - metrics.started_at,
        "memory_bytes": memory.resident_bytes(),
        "connections": len(metrics.connections),
        "waiting": len(homeserver.wakeups),
        "stalls": counts[-1],
        "stalled_s": metrics.stalls.sum,
        "requests": sum(metrics.responses.values()),
        "faults": sum(count for (_, status), count in metrics.responses.items() if status >= 500),
        "commits": metrics.commits.cumulated()[-1],
        "commit_ms": 1000 * metrics.commits.sum / max(1, metrics.commits.cumulated()[-1]),
    }
