"""Registration tokens: listing, creating, changing and deleting them."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, request

from homebody import errors
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.sessions import registration_tokens
from homebody.spec.events import Json

bp = Blueprint("admin_registration_tokens", __name__)

_COLUMNS: Final = {"uses_allowed": "uses_allowed", "expiry_time": "expires_ts"}
"""{key of a body: name of the limit}."""


@bp.get("/v1/registration_tokens")
@authenticated(admins_only=True)
def list_registration_tokens() -> Json:
    """Return all tokens, or those that are valid, or those that are not."""
    valid = http.query_boolean("valid") if "valid" in request.args else None
    with homeserver.database.read() as tx:
        found = registration_tokens.every(tx, valid=valid)
    return {"registration_tokens": [_described(it) for it in found]}


@bp.post("/v1/registration_tokens/new")
@authenticated(admins_only=True)
def create_registration_token() -> Json:
    """Create a token, random unless the body has one."""
    body = http.json_object()
    token, length = body.get("token"), body.get("length", registration_tokens.DEFAULT_LENGTH)
    if token is not None and not isinstance(token, str):
        raise errors.invalid_param("token must be a string")
    if type(length) is not int:
        raise errors.invalid_param("length must be an integer")
    limits = _limits(body)
    with homeserver.database.write() as tx:
        token = registration_tokens.add(tx, requester().user_id, token, length=length, **limits)
        return _described(registration_tokens.find(tx, token))


@bp.get("/v1/registration_tokens/<token>")
@authenticated(admins_only=True)
def get_registration_token(token: str) -> Json:
    """Return a token with its limits, and how often it was used."""
    with homeserver.database.read() as tx:
        return _described(registration_tokens.find(tx, token))


@bp.put("/v1/registration_tokens/<token>")
@authenticated(admins_only=True)
def change_registration_token(token: str) -> Json:
    """Change the limits that the body has; null takes one away."""
    limits = _limits(http.json_object())
    with homeserver.database.write() as tx:
        registration_tokens.change(tx, requester().user_id, token, limits)
        return _described(registration_tokens.find(tx, token))


@bp.delete("/v1/registration_tokens/<token>")
@authenticated(admins_only=True)
def delete_registration_token(token: str) -> Json:
    """Delete a token."""
    with homeserver.database.write() as tx:
        registration_tokens.remove(tx, requester().user_id, token)
    return {}


def _limits(body: Json) -> dict[str, int | None]:
    """Return the limits in a body. Raises M_INVALID_PARAM, as Synapse does for wrong types."""
    found: dict[str, int | None] = {}
    for key, name in _COLUMNS.items():
        if key in body:
            value = body[key]
            if value is not None and type(value) is not int:
                raise errors.invalid_param(f"{key} must be an integer or null")
            found[name] = value
    return found


def _described(token: Json) -> Json:
    return {
        "token": token["token"],
        "uses_allowed": token["uses_allowed"],
        "pending": token["pending"],
        "completed": token["uses"],
        "expiry_time": token["expires_ts"],
    }
