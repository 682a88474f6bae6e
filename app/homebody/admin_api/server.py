"""The server itself: its version."""

from __future__ import annotations

from importlib import metadata

from flask import Blueprint

from homebody.client_server.authentication import unauthenticated
from homebody.spec.events import Json

bp = Blueprint("admin_server", __name__)


@bp.get("/v1/server_version")
@unauthenticated
def get_server_version() -> Json:
    """Return the version, which tools ask for before they have a token."""
    return {"server_version": f"{metadata.version('homebody')} (homebody)"}
