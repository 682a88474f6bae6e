"""The name and version of this server.

Spec: server-server-api#server-implementation
"""

from __future__ import annotations

import functools
from importlib import metadata

from flask import Blueprint

from homebody.client_server.authentication import unauthenticated
from homebody.spec.events import Json

bp = Blueprint("server_version", __name__)


@bp.get("/v1/version")
@unauthenticated
def get_version() -> Json:
    """Return the name and version, for administrators who look why a server does not answer."""
    return {"server": {"name": "homebody", "version": _version()}}


@functools.cache
def _version() -> str:
    return metadata.version("homebody")
