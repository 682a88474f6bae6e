"""Queries to application services for users and aliases that do not exist yet.

The request that needs one waits, as the service creates the user or room before it answers.
Spec: application-service-api#querying
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from homebody import errors
from homebody.core.accounts import accounts
from homebody.core.rooms import aliases
from homebody.outside import RemoteError, appservice
from homebody.spec import identifiers
from homebody.spec.appservices import Service
from homebody.storage.database import Database

LOG = logging.getLogger(__name__)


def _always() -> None:
    """Allow every query: the default of `may_ask`."""


def ensure_users(db: Database, user_ids: Collection[str]) -> None:
    """Let services create users of their namespaces who are about to be invited.

    The result does not matter: users without an account may be invited, too. As the invite waits
    for each response, a service that did not respond is not asked about the other users.
    """
    silent: set[Service] = set()
    for user_id in dict.fromkeys(user_ids):
        _ensure_user(db, user_id, silent)


def ensure_alias(db: Database, alias: str, may_ask: Callable[[], None] = _always) -> None:
    """Let a service create the room of an alias in its namespace before the alias is resolved.

    `may_ask` is called before a service is queried, to raise the error of a rate limit.
    Raises 408 M_UNKNOWN when the service does not respond in time.
    """
    services = [
        it
        for it in db.server.appservices.all
        if it.url is not None and any(namespace.has(alias) for namespace in it.aliases)
    ]
    if not services or not _is_ours(db, alias):
        return
    with db.read() as tx:
        if aliases.is_taken(tx, alias):
            return
    may_ask()
    for service in services:
        try:
            if appservice.has_alias(db.server.config, service, alias):
                return
        except RemoteError as error:
            if error.kind == "timeout":
                raise errors.unknown("The bridge did not respond in time", 408) from error
            LOG.warning("query to %s for %s failed: %s", service.id, alias, error)


def _ensure_user(db: Database, user_id: str, silent: set[Service]) -> None:
    services = [it for it in db.server.appservices.of_user(user_id) if it.url is not None]
    if not services or not identifiers.is_user_id(user_id):
        return
    with db.read() as tx:
        if accounts.find(tx, user_id) is not None:
            return
    for service in services:
        if service in silent:
            continue
        try:
            if appservice.has_user(db.server.config, service, user_id):
                return
        except RemoteError as error:
            LOG.warning("query to %s for %s failed: %s", service.id, user_id, error)
            silent.add(service)


def _is_ours(db: Database, alias: str) -> bool:
    return identifiers.is_room_alias(alias) and identifiers.server_name(alias) == db.server.name
