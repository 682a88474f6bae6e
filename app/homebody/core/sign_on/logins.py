"""What a login at another provider leads to: a session of an account that is linked to it.

An account is linked when it is made by such a login, or once its user has proved that it is theirs,
by its password or by being logged in. A name alone proves nothing: a user who has the name of an
account elsewhere does not get that account.

Spec: client-server-api#handling-the-callback-from-the-authentication-server
"""

from __future__ import annotations

from typing import Literal

from homebody import errors
from homebody.config.login_providers import OidcProvider
from homebody.config.settings import Config
from homebody.core.accounts import access_tokens, accounts, external_ids, threepids
from homebody.core.accounts.accounts import AccountInfo
from homebody.core.profiles import profiles
from homebody.core.sessions import (
    browser_sessions,
    devices,
    registration,
    registration_tokens,
    sign_on_sessions,
)
from homebody.core.sessions.sign_on_sessions import Origin
from homebody.core.sign_on import attempts
from homebody.core.sign_on.providers import Identity
from homebody.errors import MatrixError
from homebody.storage.database import Database, Reader, Tx

NOT_OPEN = "You have no account here that is linked to this login"
LINKED_ELSEWHERE = "This login is linked to another account"
LAST_WAY_IN = "Set a password first, or you could not log in any more"
NOT_LINKABLE = "Accounts that exist already can't be linked to this login"


def registration_policy(
    config: Config, provider: OidcProvider
) -> Literal["open", "token", "closed"]:
    """Return who may register by a login at this provider."""
    return config.registration if provider.registration is None else provider.registration


def account_of(tx: Reader, identity: Identity) -> AccountInfo | None:
    """Return the account that is linked to a login, None if there is none.

    Raises M_USER_DEACTIVATED, M_USER_LOCKED, ORG_MATRIX_EXPIRED_ACCOUNT.
    """
    user_id = external_ids.owner(tx, identity.provider, identity.subject)
    account = None if user_id is None else accounts.find(tx, user_id)
    if account is not None:
        accounts.check_active(tx, account)
    return account


def start_session(
    tx: Tx, account: AccountInfo, identity: Identity, *, ip: str, user_agent: str
) -> str:
    """Start the session of a browser, and return its token."""
    token = browser_sessions.start(tx, account.user_id, ip=ip, user_agent=user_agent)
    origin = Origin(identity.provider, identity.subject, identity.sid)
    sign_on_sessions.note_browser(tx, account.user_id, access_tokens.hash_of(token), origin)
    return token


def free_name(tx: Reader, identity: Identity) -> str | None:
    """Return the user name that the login suggests; None if it suggests none, or it is taken."""
    if identity.localpart is None:
        return None
    try:
        user_id = registration.free_user_id(tx, identity.localpart)
    except MatrixError:
        return None
    return user_id[1:].partition(":")[0]


def register(
    tx: Tx, provider: OidcProvider, identity: Identity, name: str, token: str | None
) -> AccountInfo:
    """Create an account for a login that has none, without a password.

    `token` is a registration token, where one is needed. Raises M_FORBIDDEN, also where nobody may
    register by this provider; otherwise as `registration.register` does.
    """
    policy = registration_policy(tx.server.config, provider)
    if policy == "closed":
        raise errors.forbidden(NOT_OPEN)
    if policy == "open":
        token = None
    elif token is None or not registration_tokens.is_valid(tx, token):
        raise errors.forbidden("This registration token is not valid")
    if external_ids.owner(tx, identity.provider, identity.subject) is not None:
        raise errors.forbidden(LINKED_ELSEWHERE)
    user_id = registration.register(tx, name, None, token=token)
    registration.accept_terms(tx, user_id)
    external_ids.add(tx, user_id, identity.provider, identity.subject)
    if identity.display_name is not None:
        shown = identity.display_name[: profiles.MAX_DISPLAYNAME]
        profiles.put(tx, user_id, "displayname", shown)
    if identity.email is not None:
        threepids.add_vouched(tx, user_id, identity.email)
    account = accounts.find(tx, user_id)
    if account is None:
        raise errors.unknown("The account could not be created", 500)
    return account


def has_proved(tx: Reader, browser: str, user_id: str) -> bool:
    """Return whether the user has logged in again in this browser just before, at a provider.

    That is as good as a password: a provider that lets somebody in without a question, as it does
    at an unlocked computer, does not count where it heeds `Login.is_again`.
    """
    found = attempts.again(tx, browser, user_id)
    return any(external_ids.owner(tx, it.provider, it.subject) == user_id for it in found)


def check_linkable(provider: OidcProvider) -> None:
    """Raise M_FORBIDDEN unless users may link the account that they have."""
    if not provider.allow_existing_users:
        raise errors.forbidden(NOT_LINKABLE)


def link(tx: Tx, identity: Identity, proved: AccountInfo) -> None:
    """Link a login to an account whose user has proved that it is theirs.

    Raises M_FORBIDDEN for a login of another account, or if the account was changed since; else as
    `accounts.check_active` does.
    """
    if accounts.find(tx, proved.user_id) != proved:
        raise errors.forbidden("The account was changed meanwhile")
    accounts.check_active(tx, proved)
    owner = external_ids.owner(tx, identity.provider, identity.subject)
    if owner == proved.user_id:
        return
    if owner is not None:
        raise errors.forbidden(LINKED_ELSEWHERE)
    external_ids.add(tx, proved.user_id, identity.provider, identity.subject)


def unlink(tx: Tx, user_id: str, provider: str) -> None:
    """End the link of an account to its logins at a provider.

    Raises M_FORBIDDEN if nobody could log in to the account any more.
    """
    account, linked = accounts.find(tx, user_id), external_ids.of_user(tx, user_id)
    others = {it.id for it in tx.server.config.oidc_providers} - {provider}
    has_other = any(it in others for it, _ in linked)
    if not has_other and (account is None or account.password_hash is None):
        raise errors.forbidden(LAST_WAY_IN)
    for subject in (subject for it, subject in linked if it == provider):
        sign_on_sessions.unlink(tx, user_id, provider, subject)


def log_out_at(db: Database, provider: str, subject: str | None, sid: str | None) -> int:
    """End the sessions that began with a login at this provider which has ended; return how many.

    Without `sid` all that began with one of this user.
    """
    with db.read() as reading:
        ended = sign_on_sessions.ended_at(reading, provider, subject, sid)
    for user_id, browser_hash, device_id in ended:
        if device_id is not None:
            devices.remove_most(db, user_id, [device_id])
        with db.write() as tx:
            if device_id is not None:
                devices.remove(tx, user_id, [device_id])
            elif browser_hash is not None:
                browser_sessions.end_by_hash(tx, browser_hash)
    return len(ended)
