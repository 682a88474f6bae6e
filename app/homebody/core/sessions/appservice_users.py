"""The users of application services: identity assertion, registration, login, devices.

This module alone writes the table appservice_users.
Spec: application-service-api#identity-assertion,
application-service-api#server-admin-style-permissions
"""

from __future__ import annotations

from sqlalchemy import insert

from homebody import errors
from homebody.core.accounts import accounts
from homebody.core.sessions import devices, login, registration
from homebody.models.appservices import AppserviceUser
from homebody.spec import appservices, identifiers
from homebody.spec.appservices import Service
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Database, Reader, Server, Tx

TYPE = "m.login.application_service"


def act_as(
    db: Database,
    service: Service,
    user_id: str | None = None,
    device_id: str | None = None,
    *,
    may_be_locked: bool = False,
) -> Requester:
    """Return the requester as whom a service acts: the user that it names, or its own.

    The service's own account is created if necessary. Without a device ID it is "".
    Raises M_FORBIDDEN for a user outside of its namespaces or one that is not registered,
    M_USER_DEACTIVATED, M_USER_LOCKED, M_UNKNOWN_DEVICE.
    """
    user_id = user_id or service.sender
    if not db.server.appservices.has_user(service, user_id):
        raise errors.forbidden(f"{user_id} is not in the namespace of this application service")
    with db.read() as tx:
        account = accounts.find(tx, user_id)
        if device_id and not devices.exists(tx, user_id, device_id):
            raise errors.unknown_device(f"{user_id} has no device {device_id}")
        if account is not None and (not may_be_locked or account.deactivated_ts is not None):
            accounts.check_active(tx, account)
    if account is None:
        if user_id != service.sender:
            raise errors.forbidden(f"{user_id} has not been registered yet")
        _create_sender(db, service)
    return _requester(service, user_id, device_id or "", account)


def _requester(
    service: Service, user_id: str, device_id: str, account: accounts.AccountInfo | None
) -> Requester:
    return Requester(
        user_id,
        device_id,
        appservices.hash_of(service.as_token),
        is_admin=account is not None and account.is_admin,
        is_suspended=account is not None and account.is_suspended,
        is_shadow_banned=account is not None and account.is_shadow_banned,
        service=service,
    )


def refresh_requester(
    tx: Reader, service: Service, requester: Requester, *, may_be_locked: bool = False
) -> Requester:
    """Return a service's requester as it is now, inside the write transaction of its request.

    Raises M_USER_DEACTIVATED, M_USER_LOCKED.
    """
    account = accounts.find(tx, requester.user_id)
    if account is None:
        return requester
    if not may_be_locked or account.deactivated_ts is not None:
        accounts.check_active(tx, account)
    return _requester(service, requester.user_id, requester.device_id, account)


def register(tx: Tx, service: Service, username: str) -> str:
    """Create an account without a password in a service's namespace, and return its user ID.

    Raises M_EXCLUSIVE outside of the namespace, and as registration.free_user_id() does.
    """
    user_id = f"@{username}:{tx.server.name}"
    if not tx.server.appservices.has_user(service, user_id):
        raise errors.exclusive(f"{user_id} is not in the namespace of this application service")
    registration.register(tx, username, None, service=service)
    tx.sql.execute(insert(AppserviceUser), {"user_id": user_id, "service_id": service.id})
    return user_id


def log_in(tx: Tx, service: Service, name: str, request: login.SessionRequest) -> Json:
    """Start a session of a user of the service, and return what login.start_session() does.

    Raises M_EXCLUSIVE for a user outside of its namespace, M_FORBIDDEN for an unknown one,
    M_USER_DEACTIVATED, M_USER_LOCKED.
    """
    user_id = name if name.startswith("@") else identifiers.user_id(name, tx.server.name)
    if not tx.server.appservices.has_user(service, user_id):
        raise errors.exclusive(f"{user_id} is not in the namespace of this application service")
    account = accounts.find(tx, user_id)
    if account is None:
        raise errors.forbidden(f"{user_id} has not been registered yet")
    accounts.check_active(tx, account)
    return login.start_session(tx, user_id, request)


def put_device(tx: Tx, user_id: str, device_id: str, display_name: str | None) -> bool:
    """Create or rename a device of a user, and return whether it was created.

    Raises M_INVALID_PARAM for an id or a name that is too long.
    """
    is_new = not devices.exists(tx, user_id, device_id)
    if is_new:
        devices.start_session(tx, user_id, device_id)
    devices.rename(tx, user_id, device_id, display_name)
    return is_new


def check_alias(server: Server, alias: str, service: Service | None) -> None:
    """Raise M_EXCLUSIVE unless the requester (`service` or a user) may set or remove an alias.

    An exclusive alias belongs to its service, and a service has only aliases of its namespace.
    """
    owner = server.appservices.owner_of_alias(alias)
    if owner is not None and owner is not service:
        raise errors.exclusive(f"{alias} belongs to the application service {owner.id}")
    if service is not None and not any(it.has(alias) for it in service.aliases):
        raise errors.exclusive(f"{alias} is not in the namespace of this application service")


def _create_sender(db: Database, service: Service) -> None:
    """Create the service's own account; bridges expect it to exist, or register it themselves."""
    with db.write() as tx:
        if accounts.find(tx, service.sender) is None:
            row = {"user_id": service.sender, "service_id": service.id}
            tx.sql.execute(insert(AppserviceUser), row)
            registration.create(tx, service.sender, None, is_bridged=True)
