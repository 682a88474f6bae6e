"""User-interactive authentication: confirming the user's identity before sensitive requests.

A request without `auth` gets a 401 response with a session and the possible `flows` of stages; the
client repeats it with the key `auth`. A session is bound to one request: method, path, requester
and the rest of the body must stay what they were when it began, so that nobody can make a user
confirm one thing and do another. This module alone writes the table uia_sessions.

Spec: client-server-api#user-interactive-authentication-api
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson
from sqlalchemy import Row, bindparam, delete, insert, select, update

from homebody import errors
from homebody.core.accounts import accounts, validation
from homebody.core.sessions import login, registration, registration_tokens
from homebody.errors import MatrixError, UiaRequiredError
from homebody.models.accounts import UiaSession
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx

PASSWORD = "m.login.password"  # noqa: S105 - the name of a stage
SSO = "m.login.sso"
LIFETIME_MS = registration_tokens.PENDING_MS

Flows = Sequence[Sequence[str]]

_FIND = select(
    UiaSession.endpoint,
    UiaSession.user_id,
    UiaSession.params_mac,
    UiaSession.completed,
    UiaSession.registration_token,
    UiaSession.threepid,
).where(
    UiaSession.session_hash == bindparam("session_hash"),
    UiaSession.created_ts > bindparam("born_after"),
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that requires authentication."""

    endpoint: str  # method and path
    body: Json
    user_id: str | None = None
    may_change: bool = False
    """Whether the body may differ between the requests of a session: clients often ask for the
    flows of registration first, and send a name and a password afterwards."""

    purpose: validation.Purpose | None = None
    """The purpose of an address that the stage m.login.email.identity validates."""

    @property
    def auth(self) -> Json:
        """The request's `auth` object. Raises M_BAD_JSON when it is not an object."""
        auth = self.body.get("auth")
        if auth is not None and not isinstance(auth, dict):
            raise errors.bad_json("auth must be an object")
        return auth or {}

    def params_mac(self, session_id: str) -> bytes | None:
        """Return the MAC by which a session recognises the body."""
        if self.may_change:
            return None
        params = {key: value for key, value in self.body.items() if key != "auth"}
        text = orjson.dumps(params, option=orjson.OPT_SORT_KEYS)
        return hmac.digest(session_id.encode(), text, "sha256")


@dataclass(frozen=True, slots=True)
class Progress:
    """The stages that a session has completed."""

    session_id: str | None = None
    completed: list[str] = field(default_factory=list)
    registration_token: str | None = None
    email: validation.Validated | None = None
    """The address that was validated, if any, with its validation session."""
    account: accounts.AccountInfo | None = None
    """The account whose password was verified in this request, as it was then."""


def require(db: Database, flows: Flows, attempt: Attempt) -> Progress:
    """Return what was completed once one of the flows is, and end the session.

    Waits for password hashing, so it must not be called inside a write transaction.
    Raises UiaRequiredError (401) until a flow is complete, M_FORBIDDEN for a session of another
    request or for the password of another user.
    """
    auth = attempt.auth
    stage = login.text_of(auth, "type")
    before, failure = _resume(db, attempt, login.text_of(auth, "session"))
    progress = before
    if failure is None and stage is not None and stage not in progress.completed:
        if stage == PASSWORD:
            _check_same_user(db, attempt)
        try:
            progress = _try_stage(db, flows, attempt, progress, stage)
        except MatrixError as error:
            if error.status not in {401, 403}:
                raise
            failure = error
    if failure is None and any(list(flow) == progress.completed for flow in flows):
        if _end(db, progress):
            return progress
        before = progress = Progress()
        failure = _no_such_session()
    progress = _save(db, attempt, before, progress)
    challenge: Json = {
        "session": progress.session_id,
        "flows": [{"stages": list(flow)} for flow in flows],
        "params": _params(db, flows),
        "completed": progress.completed,
    }
    raise UiaRequiredError(challenge, failure)


def complete(db: Database, session_id: str, stage: str, auth: Json) -> None:
    """Complete a stage on a fallback page; the client then repeats its request with the session.

    For stages that need no account: m.login.dummy, m.login.registration_token, m.login.terms.
    Raises M_UNRECOGNIZED for other stages, M_UNKNOWN for an unknown session, and as the stage does.
    Spec: client-server-api#fallback
    """
    with db.read() as tx:
        before = _find(tx, session_id)
    if before is None:
        raise _no_such_session()
    if stage in before.completed:
        return
    token = before.registration_token
    if stage == registration.TOKEN:
        token = _check_registration_token(db, auth)
    elif stage not in {registration.DUMMY, registration.TERMS}:
        raise errors.unrecognized(f"{stage} can't be completed on a page")
    completed = [*before.completed, stage]
    _keep(db, before, replace(before, completed=completed, registration_token=token))


def asked_by(tx: Reader, session_hash: bytes) -> tuple[str, str | None]:
    """Return the endpoint that a session is for, and the user. Raises M_UNKNOWN (401)."""
    row = _row(tx, session_hash)
    if row is None:
        raise _no_such_session()
    return row.endpoint, row.user_id


def complete_by_sign_on(tx: Tx, session_hash: bytes, user_id: str) -> None:
    """Complete the stage m.login.sso, as this user has logged in at another provider.

    Raises M_FORBIDDEN if the session is another user's, M_UNKNOWN (401) if there is none.
    """
    row = _row(tx, session_hash)
    if row is None:
        raise _no_such_session()
    if row.user_id != user_id:
        raise errors.forbidden("This login belongs to another account")
    if SSO not in row.completed:
        done = update(UiaSession).where(UiaSession.session_hash == session_hash)
        tx.sql.execute(done.values(completed=[*row.completed, SSO]))


def hash_of(session_id: str) -> bytes:
    """Return the hash by which the database knows a session."""
    return hashlib.sha256(session_id.encode()).digest()


def _params(db: Database, flows: Flows) -> Json:
    """Return the parameters of the stages of these flows."""
    if any(registration.TERMS in flow for flow in flows):
        return {registration.TERMS: registration.terms(db.server.config)}
    return {}


def _no_such_session() -> MatrixError:
    return errors.unknown("This session is unknown or has expired", 401)


def _row(tx: Reader, session_hash: bytes) -> Row[Any] | None:
    """Return a session that has not expired, or None."""
    key = {"session_hash": session_hash, "born_after": tx.now_ms - LIFETIME_MS}
    row: Row[Any] | None = tx.sql.execute(_FIND, key).first()
    return row


def _find(tx: Reader, session_id: str) -> Progress | None:
    """Return the progress of a session that has not expired, or None."""
    row = _row(tx, hash_of(session_id))
    return None if row is None else _progress(session_id, row)


def _progress(session_id: str, row: Row[Any]) -> Progress:
    email = None if row.threepid is None else validation.Validated(**row.threepid)
    return Progress(session_id, row.completed, row.registration_token, email)


def _resume(
    db: Database, attempt: Attempt, session_id: str | None
) -> tuple[Progress, MatrixError | None]:
    """Return the session's progress; or an empty one, and why the session can't be used."""
    if session_id is None:
        return Progress(), None
    with db.read() as tx:
        row = _row(tx, hash_of(session_id))
    if row is None:
        return Progress(), _no_such_session()
    if (row.endpoint, row.user_id, row.params_mac) != (
        attempt.endpoint,
        attempt.user_id,
        attempt.params_mac(session_id),
    ):
        raise errors.forbidden("This session was begun for another request")
    return _progress(session_id, row), None


def _try_stage(
    db: Database, flows: Flows, attempt: Attempt, progress: Progress, stage: str
) -> Progress:
    """Return the progress with this stage completed.

    Raises M_UNRECOGNIZED (401) when another stage comes next, and as the stage itself does.
    """
    done = len(progress.completed)
    turns = {flow[done] for flow in flows if list(flow[:done]) == progress.completed}
    if stage not in turns:
        raise errors.unrecognized(f"{stage} is not a stage that comes next", 401)
    if stage == PASSWORD:
        progress = replace(progress, account=_check_password(db, attempt))
    elif stage == registration.TOKEN:
        token = _check_registration_token(db, attempt.auth)
        progress = replace(progress, registration_token=token)
    elif stage == registration.EMAIL:
        progress = replace(progress, email=_check_email(db, attempt))
    elif stage == SSO:
        raise errors.forbidden("Log in on the page of this stage first")
    return replace(progress, completed=[*progress.completed, stage])


def _check_same_user(db: Database, attempt: Attempt) -> None:
    """Raise M_FORBIDDEN when `auth` names another user than the requester.

    A 403 and not a new challenge, as other servers do and clients expect: another password would
    not help. Neither the password nor the existence of the user is checked.
    """
    name = login.name_of(db, attempt.auth)
    if name is None:
        return
    with db.read() as tx:
        account = accounts.find_by_name(tx, name)
    if account is None or account.user_id != attempt.user_id:
        raise errors.forbidden("This is not your user name")


def _check_password(db: Database, attempt: Attempt) -> accounts.AccountInfo:
    """Return the account that has this password. Raises M_FORBIDDEN when it is wrong."""
    password = login.text_of(attempt.auth, "password")
    if password is None:
        raise errors.missing_param("auth has no password")
    return login.by_password(db, attempt.user_id or "", password)


def _check_registration_token(db: Database, auth: Json) -> str:
    token = login.text_of(auth, "token")
    if token is None:
        raise errors.missing_param("auth has no token")
    with db.read() as tx:
        if not registration_tokens.is_valid(tx, token):
            raise errors.forbidden("This registration token is not valid")
    return token


def _check_email(db: Database, attempt: Attempt) -> validation.Validated:
    """Return the validated address. Raises M_THREEPID_AUTH_FAILED until the link was opened."""
    auth = attempt.auth
    # early versions of r0 had the second name
    credentials = auth.get("threepid_creds") or auth.get("threepidCreds")
    if not isinstance(credentials, dict):
        raise errors.missing_param("auth has no threepid_creds")
    sid, client_secret = credentials.get("sid"), credentials.get("client_secret")
    if not isinstance(sid, str) or not isinstance(client_secret, str):
        raise errors.bad_json("threepid_creds must have the strings sid and client_secret")
    if attempt.purpose is None:
        raise errors.unrecognized("An e-mail address is not accepted here", 401)
    with db.read() as tx:
        return validation.check(tx, attempt.purpose, sid, client_secret)


def _email_to_keep(progress: Progress) -> Json | None:
    return None if progress.email is None else asdict(progress.email)


def _save(db: Database, attempt: Attempt, before: Progress, progress: Progress) -> Progress:
    """Store the progress, in a new session if there is none; delete expired sessions."""
    if progress.session_id is not None:
        return progress if progress == before else _keep(db, before, progress)
    session_id = secrets.token_urlsafe(24)
    with db.write() as tx:
        tx.sql.execute(delete(UiaSession).where(UiaSession.created_ts <= tx.now_ms - LIFETIME_MS))
        tx.sql.execute(
            insert(UiaSession),
            {
                "session_hash": hash_of(session_id),
                "created_ts": tx.now_ms,
                "endpoint": attempt.endpoint,
                "user_id": attempt.user_id,
                "params_mac": attempt.params_mac(session_id),
                "completed": progress.completed,
                "registration_token": progress.registration_token,
                "threepid": _email_to_keep(progress),
            },
        )
    return replace(progress, session_id=session_id)


def _keep(db: Database, before: Progress, progress: Progress) -> Progress:
    """Store the progress that a session has made since `before`, and return what is stored now.

    A fallback page and the client use a session concurrently. If another request has changed it
    meanwhile, that progress is kept, and the client of this one tries its stage again.
    """
    session_id = progress.session_id or ""
    change = update(UiaSession).where(UiaSession.session_hash == hash_of(session_id))
    with db.write() as tx:
        now = _find(tx, session_id)
        if now is not None and now.completed != before.completed:
            return now
        tx.sql.execute(
            change.values(
                completed=progress.completed,
                registration_token=progress.registration_token,
                threepid=_email_to_keep(progress),
            )
        )
    return progress


def _end(db: Database, progress: Progress) -> bool:
    """Delete the session; return False when another request has done so and used it."""
    if progress.session_id is None:
        return True
    kept = UiaSession.session_hash == hash_of(progress.session_id)
    with db.write() as tx:
        return bool(tx.sql.execute(delete(UiaSession).where(kept)).rowcount)
