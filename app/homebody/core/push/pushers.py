"""Pushers: the destinations of users' notifications, and their rows in the outbox.

Each pusher is a destination of the outbox. A row has only the event's position and the tweaks of
the user's rules. The rest is read when the gateway is called, so that the counts are current and
nothing is sent about a message that was redacted or read meanwhile.

A pusher of the kind email has at most one row, which says when to look for unread messages of its
user; see mail_notices.py.

Each message needs the pushers of its recipients, so those of all users are cached.

This module alone writes the table pushers.
Spec: client-server-api#push-notifications
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from sqlalchemy import ColumnElement, Row, bindparam, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from homebody import errors, outside
from homebody.core import outbox
from homebody.core.accounts import threepids
from homebody.models.accounts import Account
from homebody.models.push import Pusher
from homebody.outside.client import Client
from homebody.spec.events import Json
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Reader, Tx

KIND: Final = "push"
"""The kind of rows in the outbox for push gateways."""
MAIL_KIND: Final = "mail"
"""The kind of rows in the outbox for mailboxes."""
MAIL_APP_ID: Final = "m.email"
HTTP: Final = "http"
EMAIL: Final = "email"
GATEWAY_PATH: Final = "/_matrix/push/v1/notify"
MAX_APP_ID_CHARACTERS: Final = 64
MAX_PUSHKEY_BYTES: Final = 512
MAX_NAME_CHARACTERS: Final = 1024
MAX_DATA_BYTES: Final = 16_384
MAX_PUSHERS: Final = 100


class PusherPlaces:
    """The destinations in the outbox of a user's pushers."""

    __slots__ = ("gateways", "mailboxes")

    def __init__(self) -> None:
        self.gateways: list[str] = []
        self.mailboxes: list[str] = []

    @property
    def count(self) -> int:
        """Their number."""
        return len(self.gateways) + len(self.mailboxes)


PUSHERS: CacheKind[str, dict[str, PusherPlaces]] = declare(
    "pushers", 2, lambda users: sum(300 * it.count for it in users.values())
)
"""All users who have pushers, as one cached value."""
EVERYBODY: Final = ""
"""The only key of the cache."""
_COLUMNS = (
    Pusher.user_id,
    Pusher.app_id,
    Pusher.pushkey,
    Pusher.device_id,
    Pusher.kind,
    Pusher.app_display_name,
    Pusher.device_display_name,
    Pusher.profile_tag,
    Pusher.lang,
    Pusher.data,
    Pusher.pushkey_ts,
)
_KEYS = select(Pusher.user_id, Pusher.app_id, Pusher.pushkey, Pusher.kind)
_OF_USER = select(*_COLUMNS).where(Pusher.user_id == bindparam("user_id"))
# A locked account may have been taken over: its messages are not sent
_ONE = _OF_USER.join(Account, Account.user_id == Pusher.user_id).where(
    Pusher.app_id == bindparam("app_id"),
    Pusher.pushkey == bindparam("pushkey"),
    Account.is_locked.is_(False),
)
_URL = Pusher.data["url"].as_string()
_URLS = select(_URL).where(Pusher.kind == HTTP).group_by(_URL).order_by(func.count().desc(), _URL)
_INSERT = insert(Pusher)
_SET = _INSERT.on_conflict_do_update(
    index_elements=["user_id", "app_id", "pushkey"],
    set_={column.key: _INSERT.excluded[column.key] for column in _COLUMNS[3:]},
)


@dataclass(frozen=True, slots=True)
class Gateway:
    """The data of a pusher that its gateway needs."""

    user_id: str
    app_id: str
    pushkey: str
    data: Json
    """From the client, including `url`."""
    pushkey_ts: int
    """ms"""

    @property
    def url(self) -> str:
        """The URL to POST to."""
        return str(self.data["url"])


@dataclass(frozen=True, slots=True)
class PusherRequest:
    """The body of POST /pushers/set."""

    app_id: str
    pushkey: str
    app_display_name: str
    device_display_name: str
    lang: str
    data: Json
    profile_tag: str | None = None
    kind: str = HTTP


@dataclass(frozen=True, slots=True)
class Mailbox:
    """The mailbox of a pusher of the kind email."""

    user_id: str
    app_id: str
    address: str
    brand: str | None
    """The name of the client."""


def check_mailbox(tx: Reader, user_id: str, wanted: PusherRequest) -> PusherRequest:
    """Check a pusher of the kind email; return it with its address in canonical form.

    Raises M_INVALID_PARAM for an app_id other than m.email, for values that are too long, and if
    the server sends no mail; M_THREEPID_NOT_FOUND for an address that is not the user's.
    """
    if tx.server.config.smtp.host is None:
        raise errors.invalid_param("This server sends no mail: pushers must be of the kind http")
    if wanted.app_id != MAIL_APP_ID:
        raise errors.invalid_param(f"The app_id of a pusher by e-mail is {MAIL_APP_ID}")
    _check_sizes(wanted)
    if threepids.owner(tx, wanted.pushkey) != user_id:
        raise errors.threepid_not_found("The pushkey is not an e-mail address of your account")
    return replace(wanted, pushkey=threepids.canonical(wanted.pushkey))


def check(client: Client, wanted: PusherRequest) -> None:
    """Check a pusher of the kind http. Resolves the gateway's name, so not inside a write.

    Raises M_INVALID_PARAM, also for a gateway on a private address that the administrator has not
    allowed, and M_MISSING_PARAM without a URL.
    """
    _check_sizes(wanted)
    if wanted.app_id == MAIL_APP_ID:
        raise errors.invalid_param(f"The app_id {MAIL_APP_ID} is for pushers of the kind email")
    if "url" not in wanted.data:
        raise errors.missing_param("data.url is missing")
    _check_url(client, wanted.data["url"])


def _check_sizes(wanted: PusherRequest) -> None:
    check_key(wanted.app_id, wanted.pushkey)
    for text in (wanted.app_display_name, wanted.device_display_name, wanted.lang):
        if len(text) > MAX_NAME_CHARACTERS:
            raise errors.invalid_param(f"A name has more than {MAX_NAME_CHARACTERS} characters")
    if len(orjson.dumps(wanted.data)) > MAX_DATA_BYTES:
        raise errors.invalid_param(f"data has more than {MAX_DATA_BYTES} bytes")


def check_key(app_id: str, pushkey: str) -> None:
    """Raise M_INVALID_PARAM for an app_id or a pushkey that is too long."""
    if len(app_id) > MAX_APP_ID_CHARACTERS:
        raise errors.invalid_param(f"app_id has more than {MAX_APP_ID_CHARACTERS} characters")
    if len(pushkey.encode()) > MAX_PUSHKEY_BYTES:
        raise errors.invalid_param(f"pushkey has more than {MAX_PUSHKEY_BYTES} bytes")


def put(tx: Tx, user_id: str, device_id: str, wanted: PusherRequest, *, append: bool) -> None:
    """Make or change a pusher. Without `append`, other users' pushers of the same key are removed.

    Raises M_INVALID_PARAM if the user has too many.
    """
    _check_number(tx, user_id, wanted)
    if not append:
        _remove(
            tx,
            Pusher.app_id == wanted.app_id,
            Pusher.pushkey == wanted.pushkey,
            # the key of a gateway may be taken over by its next user, a mailbox never
            Pusher.kind == wanted.kind,
            Pusher.user_id != user_id,
        )
    row = {
        "user_id": user_id,
        "device_id": device_id,
        "kind": wanted.kind,
        "app_id": wanted.app_id,
        "pushkey": wanted.pushkey,
        "app_display_name": wanted.app_display_name,
        "device_display_name": wanted.device_display_name,
        "profile_tag": wanted.profile_tag,
        "lang": wanted.lang,
        "data": wanted.data,
        "pushkey_ts": tx.now_ms,
    }
    tx.sql.execute(_SET, row)
    tx.forget(PUSHERS, EVERYBODY)


def _check_number(tx: Reader, user_id: str, wanted: PusherRequest) -> None:
    places = _by_user(tx).get(user_id)
    if places is None or places.count < MAX_PUSHERS:
        return
    same = _destination(user_id, wanted.app_id, wanted.pushkey)
    if same not in (*places.gateways, *places.mailboxes):
        raise errors.invalid_param(f"You have {MAX_PUSHERS} pushers: delete some of them first")


def all_of(tx: Reader, user_id: str) -> list[Json]:
    """Return a user's pushers, as GET /pushers does."""
    rows = tx.sql.execute(_OF_USER, {"user_id": user_id})
    return [_described(row) for row in rows]


def remove(tx: Tx, user_id: str, app_id: str, pushkey: str) -> None:
    """Delete a pusher, if it exists, and its rows in the outbox."""
    _remove(tx, Pusher.user_id == user_id, Pusher.app_id == app_id, Pusher.pushkey == pushkey)


def remove_mailbox(tx: Tx, user_id: str, address: str) -> None:
    """Delete the pusher of an address that the user has removed."""
    remove(tx, user_id, MAIL_APP_ID, address.strip().lower())


def remove_of_devices(tx: Tx, user_id: str, device_ids: Collection[str]) -> None:
    """Delete the pushers made by these devices, which are logged out."""
    if user_id in _by_user(tx):
        _remove(tx, Pusher.user_id == user_id, Pusher.device_id.in_(device_ids))


def gateway(tx: Reader, destination: str) -> Gateway | None:
    """Return the pusher of a destination; None if it was deleted, or its user is locked."""
    user_id, app_id, pushkey = orjson.loads(destination)
    key = {"user_id": user_id, "app_id": app_id, "pushkey": pushkey}
    row = tx.sql.execute(_ONE, key).first()
    if row is None or row.kind != HTTP:
        return None
    return Gateway(user_id, app_id, pushkey, row.data, row.pushkey_ts)


def gateway_urls(tx: Reader) -> list[str]:
    """Return the URLs of all push gateways, that with the most pushers first."""
    return list(tx.sql.execute(_URLS).scalars())


def mailbox(tx: Reader, destination: str) -> Mailbox | None:
    """Return a pusher of the kind email likewise; None also if the user has removed the address."""
    user_id, app_id, address = orjson.loads(destination)
    key = {"user_id": user_id, "app_id": app_id, "pushkey": address}
    row = tx.sql.execute(_ONE, key).first()
    if row is None or row.kind != EMAIL or threepids.owner(tx, address) != user_id:
        return None
    brand = row.data.get("brand")
    return Mailbox(user_id, app_id, address, brand if isinstance(brand, str) and brand else None)


def queue(tx: Tx, user_ids: Iterable[str], payload: Json) -> None:
    """Add a notification to the outbox for every pusher of these users."""
    known = _by_user(tx)
    if not known:
        return
    users = [known[user_id] for user_id in user_ids if user_id in known]
    outbox.add_for(tx, KIND, [place for it in users for place in it.gateways], payload)
    mailboxes = [place for it in users for place in it.mailboxes]
    if mailboxes and "position" in payload:
        position = payload["position"]
        payload = {"after": position - 1, "upto": position}
        at = tx.now_ms + tx.server.config.push.mail_delay_ms
        outbox.add_where_none(tx, MAIL_KIND, mailboxes, payload, at)


def _by_user(tx: Reader) -> dict[str, PusherPlaces]:
    """Return {user_id: destinations of the pushers} of all users who have any."""
    known = tx.cached(PUSHERS, EVERYBODY)
    if known is None:
        known = {}
        for user_id, app_id, pushkey, kind in tx.sql.execute(_KEYS):
            places = known.setdefault(user_id, PusherPlaces())
            of_kind = places.mailboxes if kind == EMAIL else places.gateways
            of_kind.append(_destination(user_id, app_id, pushkey))
        tx.fill(PUSHERS, EVERYBODY, known)
    return known


def _remove(tx: Tx, *which: ColumnElement[bool]) -> None:
    gone = delete(Pusher).where(*which).returning(Pusher.user_id, Pusher.app_id, Pusher.pushkey)
    for user_id, app_id, pushkey in tx.sql.execute(gone).all():
        for kind in (KIND, MAIL_KIND):
            outbox.drop(tx, kind, _destination(user_id, app_id, pushkey))
        tx.forget(PUSHERS, EVERYBODY)


def _destination(user_id: str, app_id: str, pushkey: str) -> str:
    return orjson.dumps([user_id, app_id, pushkey]).decode()


def _check_url(client: Client, url: object) -> None:
    # Deviates: "MUST be an HTTPS URL". A gateway in the administrator's network (often
    # UnifiedPush's ntfy) has no certificate, and only the administrator can allow such an address.
    if not isinstance(url, str) or not _is_of_gateway(url):
        raise errors.invalid_param(f"data.url must be https://, a host, and {GATEWAY_PATH}")
    try:
        client.check(url)
    except outside.RemoteError as problem:
        if problem.kind == "refused":
            raise errors.invalid_param(f"data.url: {problem}") from None
        # the name can't be resolved at the moment: deliveries are retried


def _is_of_gateway(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets without a valid address
        return False
    return parts.scheme in {"https", "http"} and parts.path == GATEWAY_PATH


def _described(row: Row[*tuple[Any, ...]]) -> Json:
    shown = {
        "pushkey": row.pushkey,
        "kind": row.kind,
        "app_id": row.app_id,
        "app_display_name": row.app_display_name,
        "device_display_name": row.device_display_name,
        "lang": row.lang,
        "data": row.data,
    }
    return shown if row.profile_tag is None else {**shown, "profile_tag": row.profile_tag}
