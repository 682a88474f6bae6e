"""GET /health, for whoever watches the server: Docker, Kubernetes, a load balancer, tests."""

from __future__ import annotations

from flask import Blueprint, Response

from homebody.client_server.authentication import unauthenticated

bp = Blueprint("health", __name__)


@bp.get("/health")
@unauthenticated
def health() -> Response:
    """200 "OK" while the server answers."""
    return Response("OK", mimetype="text/plain")
