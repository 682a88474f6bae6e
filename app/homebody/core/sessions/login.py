"""Login: from a user's name and password to a session.

Spec: client-server-api#login
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from homebody import errors
from homebody.core.accounts import access_tokens, accounts, login_tokens, oauth_sessions, threepids
from homebody.core.sessions import browser_sessions, devices, invitations, sign_on_sessions
from homebody.spec.events import Json
from homebody.storage.database import Database, Tx

WRONG = "Unknown user name or wrong password"
NO_PHONE_LOGIN = "This server does not support login by telephone number"


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """The parameters of a new session."""

    device_id: str | None = None
    display_name: str | None = None
    refresh_token: bool = False


def name_of(db: Database, body: Json) -> str | None:
    """Return the user ID or localpart in `identifier`, or in the older key `user`, or None.

    Raises M_FORBIDDEN for telephone numbers, which can't be registered here; M_UNKNOWN for other
    types; M_BAD_JSON, M_MISSING_PARAM.
    """
    identifier = body.get("identifier")
    if identifier is None:
        is_address = body.get("user") is None and body.get("address") is not None
        return _name_of_address(db, body) if is_address else text_of(body, "user")
    if not isinstance(identifier, dict):
        raise errors.bad_json("identifier must be an object")
    kind = text_of(identifier, "type")
    # an example of the specification omits the type
    if kind == "m.id.thirdparty" or (kind is None and "medium" in identifier):
        return _name_of_address(db, identifier)
    if kind == "m.id.phone":
        raise errors.forbidden(NO_PHONE_LOGIN)
    if kind != "m.id.user":
        raise errors.unknown(f"Unknown type of identifier: {kind}")
    name = text_of(identifier, "user")
    if name is None:
        raise errors.missing_param("identifier has no user")
    return name


def _name_of_address(db: Database, identifier: Json) -> str:
    """Return the user with this address; else the address itself, which no account has as its name.

    So a wrong address reveals as little, and takes as much time, as a wrong name.
    """
    medium, address = text_of(identifier, "medium"), text_of(identifier, "address")
    if medium is None or address is None:
        raise errors.missing_param("identifier needs medium and address")
    if medium != threepids.EMAIL:
        raise errors.forbidden(NO_PHONE_LOGIN)
    with db.read() as tx:
        return threepids.owner(tx, address) or address


def account_key(server_name: str, name: str) -> str:
    """Return the key of an account for rate limits, however its name was typed."""
    return (name if name.startswith("@") else f"@{name}:{server_name}").lower()


def by_password(db: Database, name: str, password: str) -> accounts.AccountInfo:
    """Return the account with this name (a user ID or its localpart) and password.

    Raises M_FORBIDDEN for a wrong one, M_USER_LOCKED. A deactivated account has no password, so all
    are wrong: guesses do not reveal who has left. M_USER_DEACTIVATED is for users who have proved
    by other means that the account was theirs.
    """
    with db.read() as tx:
        account = accounts.find_by_name(tx, name)
    is_right = accounts.has_password(db.server, account, password)
    if account is None or account.deactivated_ts is not None or not is_right:
        raise errors.forbidden(WRONG)
    if account.is_locked:
        raise errors.user_locked()
    if accounts.wants_rehash(db.server, account):
        new_hash = accounts.rehash_password(db.server, password)
        with db.write() as tx:
            accounts.renew_hash(tx, account, new_hash)
        return replace(account, password_hash=new_hash)
    return account


def begin(tx: Tx, account: accounts.AccountInfo, request: SessionRequest) -> Json:
    """Start a session after a password was verified, and return what `start_session` does.

    Raises M_FORBIDDEN when the account was changed since: verifying a password is slow, and a new
    password must also keep out logins that began with the old one. ORG_MATRIX_EXPIRED_ACCOUNT.
    """
    if accounts.find(tx, account.user_id) != account:
        raise errors.forbidden(WRONG)
    accounts.check_active(tx, account)
    return start_session(tx, account.user_id, request)


def begin_by_token(tx: Tx, token: str, request: SessionRequest) -> Json:
    """Start a session with a login token, and return what `start_session` does.

    Raises as `login_tokens.redeem` does, and M_FORBIDDEN if the user has logged out of the browser
    that got the token.
    """
    user_id, browser_hash = login_tokens.redeem(tx, token)
    if browser_hash is not None and not browser_sessions.is_open(tx, browser_hash):
        raise errors.forbidden("You have logged out of the browser meanwhile")
    session = start_session(tx, user_id, request)
    sign_on_sessions.note_device(tx, user_id, browser_hash, session["device_id"])
    return session


def change_password(tx: Tx, user_id: str, password_hash: str) -> None:
    """Replace the user's password; end login tokens, reset links, and the sessions of browsers.

    The caller decides whether the sessions of clients end.
    """
    accounts.set_password_hash(tx, user_id, password_hash)
    browser_sessions.end_all(tx, user_id)
    login_tokens.revoke_all(tx, user_id)
    oauth_sessions.forget_consents(tx, user_id)
    invitations.end_reset_links(tx, user_id)


def reset_password(tx: Tx, token: str, password_hash: str) -> str:
    """Set a new password of the user who has the link, end all sessions, and return the user ID.

    Raises as `invitations.find`, M_USER_DEACTIVATED, M_USER_LOCKED, ORG_MATRIX_EXPIRED_ACCOUNT.
    """
    user_id = invitations.use(tx, invitations.PASSWORD, token).user_id
    account = accounts.find(tx, user_id) if user_id is not None else None
    if account is None:
        raise errors.user_deactivated()
    accounts.check_active(tx, account)
    change_password(tx, account.user_id, password_hash)
    devices.remove_all(tx, account.user_id)
    return account.user_id


def start_session(tx: Tx, user_id: str, request: SessionRequest) -> Json:
    """Start a session and return its tokens, as in the responses to /login and /register."""
    device_id = devices.start_session(tx, user_id, request.device_id, request.display_name)
    tokens = access_tokens.issue(tx, user_id, device_id, with_refresh_token=request.refresh_token)
    return {
        "user_id": user_id,
        "device_id": device_id,
        "home_server": tx.server.name,
        **tokens,
    }


def text_of(body: Json, key: str) -> str | None:
    """Return a string in a JSON object, or None. Raises M_BAD_JSON for another type."""
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise errors.bad_json(f"{key} must be a string")
    return value
