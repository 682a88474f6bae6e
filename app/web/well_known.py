"""What the server says of itself under /.well-known/matrix/.

Spec: client-server-api#well-known-uris
"""

from __future__ import annotations

from flask import Blueprint

from app import context, errors
from app.core import well_known
from app.spec.events import Json

bp = Blueprint("well_known", __name__, url_prefix="/.well-known/matrix")


@bp.get("/client")
def get_wellknown() -> Json:
    """Where clients find the server.

    Spec: client-server-api#getwell-knownmatrixclient
    """
    return well_known.client(context.server().config)


@bp.get("/support")
def get_wellknown_support() -> Json:
    """Whom to write to: nobody has been named.

    Spec: client-server-api#getwell-knownmatrixsupport
    """
    raise errors.not_found("This server names no contacts")


@bp.get("/policy_server")
def get_wellknown_policy() -> Json:
    """The keys of a policy server: this is none.

    Spec: client-server-api#getwell-knownmatrixpolicy_server
    """
    raise errors.not_found("This server is no policy server")
