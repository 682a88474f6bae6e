"""Registration: the stages to pass, the user ID, terms of service, guests.

This module alone writes the table accepted_terms.

Spec: client-server-api#account-registration,
client-server-api#terms-of-service-at-registration, client-server-api#guest-access,
appendices#user-identifiers
"""

from __future__ import annotations

import secrets
import string

from sqlalchemy import bindparam, insert, select

from homebody import errors
from homebody.config.settings import Config
from homebody.core.accounts import access_tokens, accounts
from homebody.core.profiles import profiles
from homebody.core.sessions import registration_tokens
from homebody.models.accounts import AcceptedTerms, Invitation
from homebody.spec import identifiers
from homebody.spec.appservices import Service
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Database, Reader, Tx

DUMMY = "m.login.dummy"
EMAIL = "m.login.email.identity"
TERMS = "m.login.terms"
TOKEN = "m.login.registration_token"  # noqa: S105 - the name of a stage
GUEST_PREFIX = "guest-"

_KEPT = select(Invitation.user_id).where(
    Invitation.purpose == "register",
    Invitation.user_id == bindparam("user_id"),
    Invitation.used_ts.is_(None),
    Invitation.expires_ts > bindparam("now"),
)


def flows(config: Config) -> list[list[str]]:
    """Return the flows (lists of stages) by which a user may register.

    Raises M_FORBIDDEN when registration is closed.
    """
    if config.registration == "closed":
        raise errors.forbidden("Registration is closed on this server")
    stage = DUMMY if config.registration == "open" else TOKEN
    # The address is optional, and comes first: a flow is complete with its last stage
    found = [[stage]] if config.smtp.host is None else [[stage], [EMAIL, stage]]
    return [[*flow, TERMS] for flow in found] if config.terms else found


def free_user_id(
    tx: Reader, username: str | None, service: Service | None = None, *, is_invited: bool = False
) -> str:
    """Return the user ID that an account of this name would have; without a name, a random one.

    Raises M_INVALID_USERNAME, M_USER_IN_USE also for the names of deactivated accounts and, unless
    the user `is_invited`, for names kept for somebody who is; and M_EXCLUSIVE for the names of an
    application service other than `service`.
    """
    name = _random_name() if username is None else folded(username, service)
    if not identifiers.is_valid_localpart_for_registration(name):
        raise errors.invalid_username(
            "A user name consists of a to z, 0 to 9 and the characters . _ = - / +"
        )
    user_id = f"@{name}:{tx.server.name}"
    if not identifiers.has_at_most_255_bytes(user_id):
        raise errors.invalid_username("The user name is too long")
    owner = tx.server.appservices.owner_of_user(user_id)
    if owner is not None and owner != service:
        raise errors.exclusive(f"The name {name} belongs to the application service {owner.id}")
    if name == tx.server.config.server_notices_user or accounts.find(tx, user_id) is not None:
        raise errors.user_in_use()
    asked = {"user_id": user_id, "now": tx.now_ms}
    if not is_invited and tx.sql.execute(_KEPT, asked).first() is not None:
        raise errors.user_in_use()
    return user_id


def folded(username: str, service: Service | None = None) -> str:
    """Return a user name in lowercase, unless it comes from an application service.

    Phones capitalize the first letter, and accounts.find_by_name() ignores that at logins, too.
    """
    return username.lower() if service is None and username.isascii() else username


def register(
    tx: Tx,
    username: str | None,
    password_hash: str | None,
    *,
    token: str | None = None,
    is_admin: bool = False,
    user_type: str | None = None,
    service: Service | None = None,
    guest: str | None = None,
    is_invited: bool = False,
) -> str:
    """Create an account and return its user ID. Without a password nobody can log in to it later.

    `token` is the registration token that was used for it. `user_type`: what the account is for, if
    not for a person. `service` is the application service
    that creates the account. `guest` is the user ID of a guest who registers: their sessions
    continue, with the rights of a user. `is_invited`: by a link, see invitations.py.
    Raises as `free_user_id`, and M_FORBIDDEN when the token has become invalid meanwhile.
    """
    user_id = guest
    if user_id is None:
        user_id = free_user_id(tx, username, service, is_invited=is_invited)
    if token is not None:
        registration_tokens.use_up(tx, token)
    if guest is not None:
        _upgrade_guest(tx, guest, password_hash)
        return guest
    is_bridged = service is not None
    create(
        tx, user_id, password_hash, is_admin=is_admin, is_bridged=is_bridged, user_type=user_type
    )
    return user_id


def create(
    tx: Tx, user_id: str, password_hash: str | None, *, user_type: str | None = None, **kind: bool
) -> None:
    """Create an account with an initial profile; arguments and errors as of accounts.create()."""
    accounts.create(tx, user_id, password_hash, user_type=user_type, **kind)
    profiles.create(tx, user_id)


def _upgrade_guest(tx: Tx, user_id: str, password_hash: str | None) -> None:
    if not accounts.is_guest(tx, user_id):  # a concurrent request has upgraded it
        raise errors.user_in_use()
    accounts.upgrade_guest(tx, user_id, password_hash)
    access_tokens.drop_cached(tx, user_id)


def register_guest(tx: Tx) -> str:
    """Create a guest account and return its user ID.

    Raises M_GUEST_ACCESS_FORBIDDEN where the configuration allows no guests.
    """
    if not tx.server.config.allow_guests:
        raise errors.guest_access_forbidden("This server has no guest accounts")
    user_id = free_user_id(tx, GUEST_PREFIX + secrets.token_hex(6))
    create(tx, user_id, None, is_guest=True)
    return user_id


def guest_by_token(db: Database, username: str | None, token: str) -> Requester:
    """Return the guest with this access token, who is to become a user of the same name.

    Raises M_UNKNOWN_TOKEN, M_FORBIDDEN for the token of another kind of user or of another name.
    """
    guest = access_tokens.authenticate(db, token)
    if not guest.is_guest:
        raise errors.forbidden("guest_access_token does not belong to a guest")
    if username is None or guest.user_id != f"@{folded(username)}:{db.server.name}":
        raise errors.forbidden("username must be the guest's name")
    return guest


def terms(config: Config) -> Json:
    """Return the parameters of the stage m.login.terms.

    `policies`: {id: {version, language: {name, url}}}.
    """
    policies: dict[str, Json] = {}
    for document in config.terms:
        policy = policies.setdefault(document.id, {"version": document.version})
        policy[document.language] = {"name": document.name, "url": document.url}
    return {"policies": policies}


def accept_terms(tx: Tx, user_id: str) -> None:
    """Record that a new user has accepted the current version of every document."""
    rows = [
        {
            "user_id": user_id,
            "document_id": document_id,
            "version": policy["version"],
            "accepted_ts": tx.now_ms,
        }
        for document_id, policy in terms(tx.server.config)["policies"].items()
    ]
    if rows:
        tx.sql.execute(insert(AcceptedTerms), rows)


def _random_name() -> str:
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(12))
