"""The keys of this server, and what it knows of those of others.

Spec: server-server-api#retrieving-server-keys
"""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody.client_server import authentication, http
from homebody.client_server.authentication import unauthenticated
from homebody.context import homeserver
from homebody.core.federation import keys, notary
from homebody.core.federation.notary import Query
from homebody.spec.events import Json

bp = Blueprint("server_keys", __name__, url_prefix="/_matrix/key/v2")


class KeyQuery(msgspec.Struct):
    """The body of a query for the keys of several servers."""

    server_keys: dict[str, dict[str, notary.Criteria]]


@bp.get("/server")
@bp.get("/server/<key_id>")
@unauthenticated
def get_server_key(key_id: str | None = None) -> Json:
    """Return this server's keys."""
    with homeserver.database.read() as tx:
        return keys.own_keys(tx)


@bp.get("/query/<server_name>")
@bp.get("/query/<server_name>/<key_id>")
@unauthenticated
def perspectives_key_query(server_name: str, key_id: str | None = None) -> Json:
    """Return the keys of another server, signed by this one too."""
    minimum = http.query_integer("minimum_valid_until_ts", -1, most=2**63 - 1)
    since = None if minimum < 0 else minimum
    return _answer({server_name: {key_id: since} if key_id else {}}, since)


@bp.post("/query")
@unauthenticated
def bulk_perspectives_key_query() -> Json:
    """Return the keys of several servers, signed by this one too."""
    body = http.body_as(KeyQuery)
    return _answer(
        {
            name: {key_id: it.minimum_valid_until_ts for key_id, it in wanted.items()}
            for name, wanted in body.server_keys.items()
        }
    )


def _answer(wanted: Query, minimum_ts: int | None = None) -> Json:
    """Respond to a query. Raises M_LIMIT_EXCEEDED: each server may have to be asked."""
    address = authentication.address_key()
    authentication.rate_limits().check("rc_strangers", address, max(len(wanted), 1))
    found = notary.answer(homeserver.database, homeserver.server_keys, wanted, minimum_ts)
    return {"server_keys": found}
