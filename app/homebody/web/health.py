"""GET /health, for Docker, Kubernetes, load balancers and tests."""

from __future__ import annotations

from flask import Blueprint, Response

from homebody.client_server.authentication import unauthenticated

bp = Blueprint("health", __name__)


@bp.get("/health")
@unauthenticated
def health() -> Response:
    """Return 200 "OK" while the server responds."""
    return Response("OK", mimetype="text/plain")
