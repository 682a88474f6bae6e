"""Asking application services for users and rooms that this server does not know yet.

Whoever needs one waits meanwhile: the service makes the user or the room before it answers.
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
    """Nobody is kept from asking."""


def ensure_users(db: Database, user_ids: Collection[str]) -> None:
    """Let services make the users of their namespaces who are about to be invited, if they want to.

    What they answer changes nothing: who has no account may be invited, as any unknown name. Who
    invites waits for each answer, so a service that gave none is not asked for the others.
    """
    silent: set[Service] = set()
    for user_id in dict.fromkeys(user_ids):
        _ensure_user(db, user_id, silent)


def ensure_alias(db: Database, alias: str, may_ask: Callable[[], None] = _always) -> None:
    """Let a service make the room of an alias in its namespace that somebody wants to resolve.

    `may_ask` is called before a service is asked, to raise what keeps people from asking too often.
    Raises 408 M_UNKNOWN when it does not answer in time.
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
                raise errors.unknown("The bridge did not answer in time", 408) from error
            LOG.warning("%s does not say whether it has %s: %s", service.id, alias, error)


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
            LOG.warning("%s does not say whether it has %s: %s", service.id, user_id, error)
            silent.add(service)


def _is_ours(db: Database, alias: str) -> bool:
    return identifiers.is_room_alias(alias) and identifiers.server_name(alias) == db.server.name
