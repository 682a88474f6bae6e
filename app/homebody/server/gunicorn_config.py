"""gunicorn's settings: one process with greenlets, on the address of the configuration.

The checks before the start run here, so that `homebody serve` and
`gunicorn -c gunicorn.conf.py wsgi:app` both make them.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from gunicorn.errors import HaltServer

from homebody.config.settings import ConfigError, load
from homebody.runtime import logs
from homebody.server import listeners, privacy, startup, systemd
from homebody.storage.data_folder import StartError

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter

signal.signal(signal.SIGINT, signal.SIG_DFL)  # no stack trace for Ctrl-C during the checks
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the settings are being read anyway
privacy.restrict_new_files()
notifier = systemd.take_over(os.environ)
activated = listeners.activated(os.environ)
try:
    settings = load(None, os.environ)
    logs.configure(settings.log_level, settings.log_format)
    notifier.starting("Checking the data, and bringing the database up to date")
    # locks: open, and so locked, while the master or a worker runs
    locks, opened = startup.prepare(settings, os.environ, is_activated=bool(activated))
except (ConfigError, StartError) as error:
    sys.stderr.write(f"homebody: {error}\n")
    sys.exit(2)

addresses = activated or [listeners.address_of(it) for it in opened.main]
if addresses != list(settings.bind):
    # What port 0 has become, for the worker: public_url may follow from it
    os.environ["HOMEBODY_BIND"] = ",".join(addresses)
bind = [f"fd://{it.detach()}" for it in opened.main]
workers = 1
worker_class = "homebody.server.starter.Starter"
worker_connections = 20_000  # the default is 1,000; the limit of descriptors is the real one
http_parser = "auto"  # the one in C where it is installed
limit_request_line = 0  # connection.py has a limit; inline filters exceed 4,094 bytes
limit_request_field_size = 65_536  # for tokens and cookies of proxies; "0" would mean 8,190
timeout = 120
graceful_timeout = 4
keepalive = 75
loglevel = "warning"
umask = privacy.UMASK
forwarded_allow_ips = ""  # web/middleware.py decides which headers to trust


def on_starting(arbiter: Arbiter) -> None:
    """Let SIGHUP reload the settings: gunicorn would start a second worker beside the first."""
    vars(arbiter)["handle_hup"] = partial(arbiter.kill_workers, signal.SIGHUP)


def pre_fork(_arbiter: Arbiter, worker: Any) -> None:
    """Give the worker what is not gunicorn's, and a byte that it sets when it listens."""
    worker.has_served = mmap.mmap(-1, 1)
    worker.is_reload_due = False
    worker.notifier = notifier
    worker.metrics_listener = opened.metrics


def child_exit(arbiter: Arbiter, worker: Any) -> None:
    """Stop when a worker has exited before it listened: gunicorn would start more forever."""
    is_stopping = not arbiter.LISTENERS
    if not worker.has_served[0] and not is_stopping:
        raise HaltServer("the server can't start; the lines above say why", 1)


def on_exit(_arbiter: Arbiter) -> None:
    """Remove the socket that gunicorn doesn't know."""
    if settings.metrics_bind is not None:
        listeners.remove(settings.metrics_bind)
