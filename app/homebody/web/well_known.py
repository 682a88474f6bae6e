"""The files under /.well-known/matrix/.

Spec: client-server-api#well-known-uris
"""

from __future__ import annotations

from flask import Blueprint

from homebody import errors
from homebody.client_server.authentication import unauthenticated
from homebody.context import homeserver
from homebody.core import well_known
from homebody.spec.events import Json

bp = Blueprint("well_known", __name__, url_prefix="/.well-known/matrix")


@bp.get("/client")
@unauthenticated
def get_wellknown() -> Json:
    """Return where clients find the server.

    Spec: client-server-api#getwell-knownmatrixclient
    """
    return well_known.client(homeserver.server.config)


@bp.get("/server")
@unauthenticated
def get_well_known() -> Json:
    """Return where other servers find this one. Raises M_NOT_FOUND where its name is enough.

    Spec: server-server-api#getwell-knownmatrixserver
    """
    found = well_known.server(homeserver.server.config)
    if found is None:
        raise errors.not_found("Other servers find this one by its name, or not at all")
    return found


@bp.get("/support")
@unauthenticated
def get_wellknown_support() -> Json:
    """Return the contacts of the server. Raises M_NOT_FOUND when none are configured.

    Spec: client-server-api#getwell-knownmatrixsupport
    """
    contacts = well_known.support(homeserver.server.config)
    if contacts is None:
        raise errors.not_found("No contacts are configured")
    return contacts


@bp.get("/policy_server")
@unauthenticated
def get_wellknown_policy() -> Json:
    """Return the keys of the policy server of this name. Raises M_NOT_FOUND when there is none.

    Spec: client-server-api#getwell-knownmatrixpolicy_server
    """
    keys = well_known.policy_server(homeserver.server.config)
    if keys is None:
        raise errors.not_found("There is no policy server of this name")
    return keys
