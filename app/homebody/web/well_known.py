"""What the server says of itself under /.well-known/matrix/.

Spec: client-server-api#well-known-uris
"""

from __future__ import annotations

from flask import Blueprint

from homebody import context, errors
from homebody.client_server.authentication import unauthenticated
from homebody.core import well_known
from homebody.spec.events import Json

bp = Blueprint("well_known", __name__, url_prefix="/.well-known/matrix")


@bp.get("/client")
@unauthenticated
def get_wellknown() -> Json:
    """Where clients find the server.

    Spec: client-server-api#getwell-knownmatrixclient
    """
    return well_known.client(context.server().config)


@bp.get("/support")
@unauthenticated
def get_wellknown_support() -> Json:
    """Whom to write to. Raises M_NOT_FOUND where nobody is named.

    Spec: client-server-api#getwell-knownmatrixsupport
    """
    found = well_known.support(context.server().config)
    if found is None:
        raise errors.not_found("This server names no contacts")
    return found


@bp.get("/policy_server")
@unauthenticated
def get_wellknown_policy() -> Json:
    """The keys of the policy server of this name. Raises M_NOT_FOUND where there is none.

    Spec: client-server-api#getwell-knownmatrixpolicy_server
    """
    found = well_known.policy_server(context.server().config)
    if found is None:
        raise errors.not_found("There is no policy server of this name")
    return found
