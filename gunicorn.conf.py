"""How gunicorn runs homebody: one process of greenlets, on the address of the configuration."""

import os

from app import config

settings = config.load(None, os.environ)

bind = settings.bind
workers = settings.workers
worker_class = "gevent"
worker_connections = 10_000
timeout = 60
graceful_timeout = 5
keepalive = 75
