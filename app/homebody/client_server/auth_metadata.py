"""Where clients find the endpoints of the OAuth 2.0 API, which are in web/oauth/.

Spec: client-server-api#server-metadata-discovery
"""

from __future__ import annotations

from flask import Blueprint

from homebody.client_server.authentication import unauthenticated
from homebody.context import homeserver
from homebody.core.oauth import metadata
from homebody.spec.events import Json

bp = Blueprint("auth_metadata", __name__, url_prefix="/_matrix/client")
discovery = Blueprint("auth_discovery", __name__, url_prefix="/.well-known")


@bp.get("/v1/auth_metadata")
@bp.get("/v3/org.matrix.msc2965/auth_metadata")  # for clients /unstable: see middleware.py
@unauthenticated
def get_auth_metadata() -> Json:
    """Return the metadata of the authorization server. Raises M_UNRECOGNIZED if there is none.

    Spec: client-server-api#get_matrixclientv1auth_metadata
    """
    return metadata.of_server(homeserver.server.config)


@discovery.get("/openid-configuration")
@discovery.get("/oauth-authorization-server")
@unauthenticated
def get_discovery_document() -> Json:
    """Return the same metadata where OAuth libraries look for it, below the issuer.

    Clients that are built on such a library, as Ketesa is, know the issuer alone. The first path is
    of OpenID Connect, which this server does not offer: there are no ID tokens.
    See RFC 8414, section 3.
    """
    return get_auth_metadata()
