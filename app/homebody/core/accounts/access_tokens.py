"""Access and refresh tokens, which authenticate a device, and when each device used one last.

The database holds hashes only, so a stolen backup does not give access to sessions. This module
alone writes the tables access_tokens, refresh_tokens and superseded_tokens, and the cache TOKENS.

A refresh token is exchanged for a new pair of tokens. The response may get lost, so the old pair
stays valid until one of the new pair is used for the first time: "The old refresh token remains
valid until the new access token or refresh token is used".

A token that was replaced by a newer one is kept as superseded for as long as its device exists: a
request that still uses it gets a soft logout. Otherwise its client, or another process of the same
app, would conclude that the session was destroyed, and discard its keys.

Every request changes when its device was last seen, and must not wait for the disk. So this is kept
in memory (LastSeen) and written every few minutes; a crash loses those minutes.

Spec: client-server-api#client-authentication, client-server-api#refreshing-access-tokens,
client-server-api#soft-logout, client-server-api#device-management
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import threading
import time
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from sqlalchemy import Row, and_, bindparam, delete, insert, select, update
from sqlalchemy.orm import aliased

from homebody import errors
from homebody.core.accounts import accounts
from homebody.errors import MatrixError
from homebody.models.accounts import Account
from homebody.models.devices import AccessToken, Device, RefreshToken, SupersededToken
from homebody.models.moderation import RateLimitOverride
from homebody.models.oauth import OAuthSession
from homebody.spec.events import Json
from homebody.storage.caches import CacheKind, Requester, declare
from homebody.storage.database import Database, Reader, Tx

LOG = logging.getLogger(__name__)

TOKENS: CacheKind[bytes, Requester] = declare("tokens", 5, lambda _: 200)
"""The requester of each access token, by the token's hash."""

WRITE_EVERY_SECONDS = 300.0
"""How often it is written when devices were last seen."""
MAX_SUPERSEDED = 200
"""Superseded tokens kept per device, the newest: four days with the default lifetime."""

_OLDER, _MINE = aliased(RefreshToken), aliased(RefreshToken)
_FIND = (
    select(
        AccessToken.user_id,
        AccessToken.device_id,
        AccessToken.expires_ts,
        Account.is_guest,
        Account.is_admin,
        Account.is_suspended,
        Account.is_locked,
        Account.is_shadow_banned,
        Account.deactivated_ts,
        Account.expires_ts.label("account_expires_ts"),
        RateLimitOverride.messages_per_second,
        RateLimitOverride.burst_count,
        # Whether an older pair stays valid until the first use of this one
        select(_OLDER.token_hash)
        .join(_MINE, _MINE.token_hash == _OLDER.replaced_by)
        .where(
            _OLDER.user_id == AccessToken.user_id,
            _OLDER.device_id == AccessToken.device_id,
            _MINE.access_token_hash == AccessToken.token_hash,
        )
        .exists()
        .label("has_older"),
    )
    .join(Account, Account.user_id == AccessToken.user_id)
    .outerjoin(RateLimitOverride, RateLimitOverride.user_id == AccessToken.user_id)
    .where(AccessToken.token_hash == bindparam("token_hash"))
)
_FIND_REFRESH = (
    select(
        RefreshToken.user_id,
        RefreshToken.device_id,
        RefreshToken.access_token_hash,
        Account.is_locked,
        OAuthSession.client_id,
    )
    .join(Account, Account.user_id == RefreshToken.user_id)
    .outerjoin(
        OAuthSession,
        and_(
            OAuthSession.user_id == RefreshToken.user_id,
            OAuthSession.device_id == RefreshToken.device_id,
        ),
    )
    .where(RefreshToken.token_hash == bindparam("token_hash"))
)
_HOLDERS = [
    select(table.user_id, table.device_id).where(table.token_hash == bindparam("token_hash"))
    for table in (AccessToken, RefreshToken)
]
_EXCHANGED = select(SupersededToken.user_id, SupersededToken.device_id).where(
    SupersededToken.token_hash == bindparam("token_hash"), SupersededToken.was_exchanged
)

_OF_ONE_DEVICE = (
    SupersededToken.user_id == bindparam("of_user"),
    SupersededToken.device_id == bindparam("of_device"),
)
_FORGET_OLDEST = delete(SupersededToken).where(
    SupersededToken.token_hash.in_(
        select(SupersededToken.token_hash)
        .where(*_OF_ONE_DEVICE)
        .order_by(SupersededToken.superseded_ts.desc())
        .offset(MAX_SUPERSEDED)
    )
)


def authenticate(db: Database, token: str, *, may_be_locked: bool = False) -> Requester:
    """Return the requester who has this access token.

    Raises M_UNKNOWN_TOKEN, and M_USER_LOCKED or ORG_MATRIX_EXPIRED_ACCOUNT unless `may_be_locked`.
    """
    token_hash = hash_of(token)
    found = db.cached(TOKENS, token_hash)
    if found is None or found.expires_ts <= time.time() * 1000:
        found = _look_up(db, token_hash, may_be_locked=may_be_locked)
    return found


def is_still_valid(known: Database | Reader, requester: Requester) -> bool:
    """Return whether a requester's token is known to be valid still.

    Every change of a session removes it from the cache, so finding the same object there is proof.
    """
    has_expired = requester.expires_ts <= time.time() * 1000
    return known.cached(TOKENS, requester.token_hash) is requester and not has_expired


def reauthenticate(tx: Reader, requester: Requester, *, may_be_locked: bool = False) -> Requester:
    """Return the requester as they are now, inside the write transaction of their request.

    The session may have ended since the request was authenticated, as its body may have come
    slowly. Raises as `authenticate` does.
    """
    found = tx.cached(TOKENS, requester.token_hash)
    if found is None or found.expires_ts <= tx.now_ms:
        row = _row(tx, requester.token_hash, may_be_locked=may_be_locked)
        found = _cache(tx, requester.token_hash, row)
    return found


def issue(tx: Tx, user_id: str, device_id: str, *, with_refresh_token: bool = False) -> Json:
    """Issue an access token for a device, and return it as `access_token`.

    With a refresh token the result also has `refresh_token` and `expires_in_ms`.
    """
    lifetime_ms = tx.server.config.token_lifetime_ms if with_refresh_token else None
    of_device = {"user_id": user_id, "device_id": device_id}
    access_token = f"hb_{secrets.token_urlsafe(32)}"
    expires_ts = None if lifetime_ms is None else tx.now_ms + lifetime_ms
    access = {**of_device, "token_hash": hash_of(access_token), "expires_ts": expires_ts}
    tx.sql.execute(insert(AccessToken), access)
    if lifetime_ms is None:
        return {"access_token": access_token}
    refresh_token = f"hbr_{secrets.token_urlsafe(32)}"
    refresh = {**of_device, "token_hash": hash_of(refresh_token)}
    tx.sql.execute(insert(RefreshToken), {**refresh, "access_token_hash": access["token_hash"]})
    return {
        "access_token": access_token,
        "refresh_token": refresh_token,
        "expires_in_ms": lifetime_ms,
    }


def issue_to(tx: Tx, actor: str, user_id: str, expires_ts: int | None) -> str:
    """Return an access token by which an administrator acts as a user, without a device.

    It ends when the administrator logs out everywhere, not when the user does.
    `expires_ts` (ms): None for a token that is valid until then.
    """
    token = f"hb_{secrets.token_urlsafe(32)}"
    row = {"token_hash": hash_of(token), "user_id": user_id, "device_id": ""}
    tx.sql.execute(insert(AccessToken), {**row, "expires_ts": expires_ts, "issued_to": actor})
    return token


def revoke_issued(tx: Tx, *, to: str | None = None, of_user: str | None = None) -> None:
    """Revoke the tokens by which an administrator acts as users, or by which others act as one."""
    which = AccessToken.issued_to == to if of_user is None else AccessToken.user_id == of_user
    ended = delete(AccessToken).where(which, AccessToken.issued_to.is_not(None))
    rows = tx.sql.execute(ended.returning(AccessToken.token_hash, AccessToken.user_id))
    _forget(tx, (row.token_hash for row in rows))
    tx.wake(*{row.user_id for row in rows})  # a waiting /sync with one of them must end


def revoke_one(tx: Tx, requester: Requester) -> None:
    """Revoke the token of a requester that has no device."""
    tx.sql.execute(delete(AccessToken).where(AccessToken.token_hash == requester.token_hash))
    tx.forget(TOKENS, requester.token_hash)
    tx.wake(requester.user_id)  # a waiting /sync with it must end


def exchange(
    tx: Tx, refresh_token: str, *, of_client: str | None = None, may_be_locked: bool = False
) -> Json:
    """Return a new pair of tokens for the device that has this refresh token, as `issue` does.

    `of_client`: the client of the OAuth 2.0 API that has logged in the device, None for a device
    that was logged in by POST /login. Raises M_UNKNOWN_TOKEN for a token that was never issued, was
    revoked or used, or belongs to another client, M_USER_LOCKED.
    """
    token_hash = hash_of(refresh_token)
    row = tx.sql.execute(_FIND_REFRESH, {"token_hash": token_hash}).first()
    if row is None or row.client_id != of_client:
        is_soft = _is_superseded(tx, token_hash)
        raise errors.unknown_token(
            "The refresh token is not known, or was used before", soft_logout=is_soft
        )
    if row.is_locked and not may_be_locked:
        raise errors.user_locked()
    # A client that uses the device's newest token has received it, so the pair before it ends. One
    # that uses the token before has not received the newest, so that pair ends. Either way this
    # pair stays valid for now.
    supersede(tx, row.user_id, row.device_id, but=row.access_token_hash)
    pair = issue(tx, row.user_id, row.device_id, with_refresh_token=True)
    tx.sql.execute(
        update(RefreshToken)
        .where(RefreshToken.token_hash == token_hash)
        .values(replaced_by=hash_of(pair["refresh_token"]))
    )
    return pair


def holder_of(tx: Reader, token: str) -> tuple[str, str] | None:
    """Return the user and the device that have this access or refresh token, if it is valid.

    An access token may have expired.
    """
    for holder in _HOLDERS:
        row = tx.sql.execute(holder, {"token_hash": hash_of(token)}).first()
        if row is not None and row.device_id:
            return row.user_id, row.device_id
    return None


def former_holder_of(tx: Reader, refresh_token: str) -> tuple[str, str] | None:
    """Return the user and the device that had this refresh token, and have exchanged it.

    A client that sends it now is not the one that has received its successor. A token that was
    issued but never exchanged, as its response was lost, says nothing like that.
    """
    row = tx.sql.execute(_EXCHANGED, {"token_hash": hash_of(refresh_token)}).first()
    return None if row is None else (row.user_id, row.device_id)


def revoke(tx: Tx, user_id: str, device_ids: Collection[str]) -> None:
    """Revoke all tokens of these devices, effective with the next request."""
    access = delete(AccessToken).where(
        AccessToken.user_id == user_id, AccessToken.device_id.in_(device_ids)
    )
    _forget(tx, tx.sql.execute(access.returning(AccessToken.token_hash)).scalars())
    for table in (RefreshToken, SupersededToken):
        of_devices = (table.user_id == user_id, table.device_id.in_(device_ids))
        tx.sql.execute(delete(table).where(*of_devices))
    tx.note_departure(user_id, device_ids=frozenset(device_ids))


def supersede(tx: Tx, user_id: str, device_id: str, *, but: bytes = b"") -> None:
    """Revoke the tokens of a device that stays logged in, except the pair with the token `but`.

    A client that still uses one of them gets a soft logout.
    """
    access = delete(AccessToken).where(
        AccessToken.user_id == user_id,
        AccessToken.device_id == device_id,
        AccessToken.token_hash != but,
    )
    ended = dict.fromkeys(tx.sql.execute(access.returning(AccessToken.token_hash)).scalars(), False)
    _forget(tx, ended)
    refresh = delete(RefreshToken).where(
        RefreshToken.user_id == user_id,
        RefreshToken.device_id == device_id,
        RefreshToken.access_token_hash != but,
    )
    for it in tx.sql.execute(refresh.returning(RefreshToken.token_hash, RefreshToken.replaced_by)):
        ended[it.token_hash] = it.replaced_by is not None
    row = {"user_id": user_id, "device_id": device_id, "superseded_ts": tx.now_ms}
    rows = [{**row, "token_hash": it, "was_exchanged": ended[it]} for it in ended]
    if rows:
        tx.sql.execute(insert(SupersededToken), rows)
        tx.sql.execute(_FORGET_OLDEST, {"of_user": user_id, "of_device": device_id})


def drop_cached(tx: Tx, user_id: str) -> None:
    """Make the next request with any of the user's tokens read the account again."""
    tokens = select(AccessToken.token_hash).where(AccessToken.user_id == user_id)
    _forget(tx, tx.sql.execute(tokens).scalars())


def hash_of(token: str) -> bytes:
    """Return the hash of a token for the database; its 256 random bits need no salt."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _look_up(db: Database, token_hash: bytes, *, may_be_locked: bool) -> Requester:
    """Read the requester from the database. The first use of a new pair ends the one before it."""
    with db.read() as tx:
        row = _row(tx, token_hash, may_be_locked=may_be_locked)
        if not row.has_older:
            return _cache(tx, token_hash, row)
    with db.write() as tx:
        # Read again: this pair may have been refreshed in between, and the client then keeps
        # nothing but the newer one.
        row = _row(tx, token_hash, may_be_locked=may_be_locked)
        if row.has_older:
            supersede(tx, row.user_id, row.device_id, but=token_hash)
        return _cache(tx, token_hash, row)


def _row(tx: Reader, token_hash: bytes, *, may_be_locked: bool = False) -> Row[*tuple[Any, ...]]:
    row: Row[*tuple[Any, ...]] | None
    row = tx.sql.execute(_FIND, {"token_hash": token_hash}).first()
    if row is None or row.deactivated_ts is not None:
        raise errors.unknown_token(soft_logout=_is_superseded(tx, token_hash))
    if row.is_locked and not may_be_locked:
        raise errors.user_locked()
    if not may_be_locked and _has_passed(tx, row.account_expires_ts):
        raise errors.expired_account()
    if _has_passed(tx, row.expires_ts):
        raise errors.unknown_token("The access token has expired", soft_logout=True)
    return row


def _has_passed(tx: Reader, ts: int | None) -> bool:
    return ts is not None and ts <= tx.now_ms


def _cache(tx: Reader, token_hash: bytes, row: Row[*tuple[Any, ...]]) -> Requester:
    limit = (row.messages_per_second, row.burst_count)
    ends = [ts for ts in (row.expires_ts, row.account_expires_ts) if ts is not None]
    found = Requester(
        row.user_id,
        row.device_id,
        token_hash,
        is_guest=row.is_guest,
        is_admin=row.is_admin,
        is_suspended=row.is_suspended,
        is_shadow_banned=row.is_shadow_banned,
        message_limit=None if row.messages_per_second is None else limit,
        expires_ts=min(ends, default=math.inf),
    )
    if not row.is_locked:  # a cached requester passes every check
        tx.fill(TOKENS, token_hash, found)
    return found


def _is_superseded(tx: Reader, token_hash: bytes) -> bool:
    """Return whether this token was replaced and its device is still logged in."""
    known = SupersededToken.token_hash
    return tx.sql.execute(select(known).where(known == token_hash)).first() is not None


def _forget(tx: Tx, token_hashes: Iterable[bytes]) -> None:
    for token_hash in token_hashes:
        tx.forget(TOKENS, token_hash)


_WRITE_LAST_SEEN = (
    update(Device)
    .where(Device.user_id == bindparam("of_user"), Device.device_id == bindparam("device"))
    .values(
        last_seen_ts=bindparam("ts"),
        last_seen_ip=bindparam("ip"),
        last_seen_user_agent=bindparam("user_agent"),
    )
)


class Seen(NamedTuple):
    """The last request of a device."""

    ts: int  # ms
    ip: str
    user_agent: str


class LastSeen:
    """Requests that are not in the database yet."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._new: dict[tuple[str, str], Seen] = {}
        self._being_written: dict[tuple[str, str], Seen] = {}
        self._write_at = time.monotonic() + WRITE_EVERY_SECONDS

    def note(self, user_id: str, device_id: str, ip: str, user_agent: str) -> None:
        """Record a request, and every WRITE_EVERY_SECONDS start writing in the background."""
        self._new[user_id, device_id] = Seen(time.time_ns() // 1_000_000, ip, user_agent)
        if time.monotonic() >= self._write_at:
            self._write_at = time.monotonic() + WRITE_EVERY_SECONDS
            threading.Thread(target=self.write, daemon=True).start()

    def of(self, user_id: str, device_id: str) -> Seen | None:
        """Return the last request of a device, if it is not in the database yet."""
        key = (user_id, device_id)
        return self._new.get(key) or self._being_written.get(key)

    def latest(self, user_id: str) -> int | None:
        """Return when a user made the last request (ms), if it is not in the database yet."""
        every = [*self._new.items(), *self._being_written.items()]
        found = [seen.ts for (its_user, device), seen in every if its_user == user_id and device]
        return max(found, default=None)

    def write(self) -> None:
        """Write what is new to the database; also called when the server stops."""
        if not self._new:
            return
        self._being_written, self._new = self._new, {}
        values = [
            {"of_user": key[0], "device": key[1], **seen._asdict()}
            for key, seen in self._being_written.items()
        ]
        times: dict[str, int] = {}
        for (user_id, device_id), seen in self._being_written.items():
            if device_id:  # else a bridge, or an administrator who acts as the user
                times[user_id] = max(seen.ts, times.get(user_id, 0))
        try:
            with self._database.write() as tx:
                tx.sql.execute(_WRITE_LAST_SEEN, values)
                accounts.note_seen(tx, times)
        except MatrixError as error:  # a full disk: no request should fail because of this
            LOG.warning("could not write when devices were last seen: %s", error)
        self._being_written = {}
