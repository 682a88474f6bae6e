"""Account data: what clients store on the server for their user, including the tags of rooms.

This module alone writes the table account_data. `put` is for types that clients may set; the
modules of server-managed types (the read marker, push rules) call `store`.

An empty object is deleted account data (MSC3391). Its row is kept, for incremental syncs to send
the deletion; but only of the latest deletions of a user.

Push rules, ignored users and the filter of invites decide which events a user is notified of. They
are compiled together and cached for push/counts.py; users who have changed nothing share one
object. Messages of ignored users are omitted, the state events that they send are not.
Spec: client-server-api#client-config, client-server-api#room-tagging,
client-server-api#ignoring-users
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol, TypeVar

import orjson
from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from homebody import errors
from homebody.core import quotas
from homebody.models.account_data import AccountData
from homebody.spec import identifiers, invite_filter, push_rules, push_rulesets
from homebody.spec.events import Json
from homebody.spec.invite_filter import ALL_ALLOWED, Decision, InviteFilter
from homebody.spec.push_rules import Ruleset
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import batches

PUSH_RULES: Final = "m.push_rules"
FULLY_READ: Final = "m.fully_read"
IGNORED_USERS: Final = "m.ignored_user_list"
TAGS: Final = "m.tag"
SERVER_MANAGED: Final = frozenset({PUSH_RULES, FULLY_READ})
PUSH_SETTINGS: Final = (PUSH_RULES, IGNORED_USERS, invite_filter.TYPE)
"""The types that are compiled as PushSettings."""

MAX_BYTES: Final = 2**20
"""Per object, as JSON: m.direct of a bridge's user is long."""
DELETED: Final = "{}"
MAX_DELETED: Final = 1000
"""The deletions of a user that incremental syncs send, the latest ones."""

_UPSERT = insert(AccountData)
_UPSERT = _UPSERT.on_conflict_do_update(
    index_elements=["user_id", "room_id", "type"],
    set_={name: _UPSERT.excluded[name] for name in ("content", "position", "size_bytes")},
)
_CONTENT = select(AccountData.content).where(
    AccountData.user_id == bindparam("user_id"),
    AccountData.room_id == bindparam("room_id"),
    AccountData.type == bindparam("type"),
)
_IS_DELETED = AccountData.size_bytes == len(DELETED)
_EXISTS = AccountData.size_bytes > len(DELETED)
_USED = select(func.count(), func.coalesce(func.sum(AccountData.size_bytes), 0)).where(
    AccountData.user_id == bindparam("user_id"), _EXISTS
)
_OLD_DELETED = (
    select(AccountData.position)
    .where(AccountData.user_id == bindparam("of_user"), _IS_DELETED)
    .order_by(AccountData.position.desc())
    .offset(MAX_DELETED)
    .limit(1)
)
_DROP_OLD_DELETED = delete(AccountData).where(
    AccountData.user_id == bindparam("of_user"),
    _IS_DELETED,
    AccountData.position <= _OLD_DELETED.scalar_subquery(),
)
_SINCE = (
    select(AccountData.room_id, AccountData.type, AccountData.content)
    .where(
        AccountData.user_id == bindparam("user_id"),
        AccountData.position > bindparam("since"),
        AccountData.position <= bindparam("upto"),
    )
    .order_by(AccountData.position)
)
_ALL = _SINCE.where(_EXISTS)
_OF_ROOMS = (
    select(AccountData.room_id, AccountData.type, AccountData.content)
    .where(
        AccountData.user_id == bindparam("user_id"),
        AccountData.room_id.in_(bindparam("room_ids", expanding=True)),
    )
    .order_by(AccountData.position)
)
_NOW_OF_ROOMS = _OF_ROOMS.where(_EXISTS)
_OF_USERS = select(AccountData.user_id, AccountData.type, AccountData.content).where(
    AccountData.user_id.in_(bindparam("user_ids", expanding=True)),
    AccountData.room_id == "",
    AccountData.type.in_(PUSH_SETTINGS),
)


class PushSettings:
    """The part of a user's account data that decides which events notify them."""

    __slots__ = ("has_name_rule", "ignored", "invites", "ruleset", "size_bytes")

    def __init__(
        self,
        ruleset: Ruleset,
        ignored: frozenset[str],
        size_bytes: int,
        *,
        has_name_rule: bool,
        invites: InviteFilter = ALL_ALLOWED,
    ) -> None:
        self.ruleset = ruleset
        self.ignored = ignored
        """The users whose events never notify."""
        self.has_name_rule = has_name_rule
        """Whether a rule needs the user's display name."""
        self.invites = invites
        self.size_bytes = size_bytes


class SentEvent(Protocol):
    """An event whose sender may be ignored: a ClientEvent, or a row with these columns."""

    @property
    def state_key(self) -> str | None:
        """Its state key, or None for a message event."""

    @property
    def sender(self) -> str:
        """The user who sent it."""


COMPILED: CacheKind[str, PushSettings] = declare(
    "push_settings", 10, lambda settings: settings.size_bytes
)
"""Compiled push rules and ignored users, by user_id."""
DEFAULT_SETTINGS: Final = PushSettings(push_rules.DEFAULTS, frozenset(), 0, has_name_rule=False)
"""Settings of users who have changed nothing."""
_READ_AT_ONCE: Final = 500
E = TypeVar("E", bound=SentEvent)


def get(tx: Reader, user_id: str, event_type: str, room_id: str = "") -> Json:
    """Return the object of this type. Raises M_NOT_FOUND when there is none."""
    content = find(tx, user_id, event_type, room_id)
    if (event_type, room_id) == (PUSH_RULES, ""):
        return push_rulesets.full(user_id, content or {})
    if not content:
        raise errors.not_found("There is no account data of this type")
    return content


def find(tx: Reader, user_id: str, event_type: str, room_id: str = "") -> Json | None:
    """Return the stored object; of m.push_rules these are the user's changes.

    None: there never was one; {}: it was deleted.
    """
    key = {"user_id": user_id, "room_id": room_id, "type": event_type}
    text = tx.sql.execute(_CONTENT, key).scalar()
    if text is None:
        return None
    content: Json = orjson.loads(text)
    return content


def put(tx: Tx, user_id: str, event_type: str, content: Json, room_id: str = "") -> None:
    """Replace the object of this type, and wake the user's other devices.

    Raises M_BAD_JSON (405) for a type that the server manages, M_TOO_LARGE, M_INVALID_PARAM, and
    M_USER_LIMIT_EXCEEDED above the user's quota.
    """
    _check_is_for_clients(event_type)
    if not identifiers.has_at_most_255_bytes(event_type):
        raise errors.invalid_param("The type is longer than 255 bytes")
    if len(orjson.dumps(content)) > MAX_BYTES:
        raise errors.too_large(f"Account data of one type has at most {MAX_BYTES} bytes")
    store(tx, user_id, event_type, content, room_id, has_quota=True)


def remove(tx: Tx, user_id: str, event_type: str, room_id: str = "") -> None:
    """Delete the object of this type, if there is one, and wake the user's other devices.

    Raises M_BAD_JSON (405) for a type that the server manages.
    """
    _check_is_for_clients(event_type)
    store(tx, user_id, event_type, {}, room_id)


def store(
    tx: Tx,
    user_id: str,
    event_type: str,
    content: Json,
    room_id: str = "",
    *,
    has_quota: bool = False,
) -> None:
    """Replace the object of a type, including server-managed ones; an empty one deletes it.

    An unchanged object wakes no device. Raises M_USER_LIMIT_EXCEEDED with `has_quota`; a read
    marker, and data that the server copies to an upgraded room, must not fail because of a quota.
    """
    key = {"user_id": user_id, "room_id": room_id, "type": event_type}
    text = orjson.dumps(content).decode()
    before = tx.sql.execute(_CONTENT, key).scalar()
    if before == text or (before is None and text == DELETED):
        return
    size = len(text.encode())
    if has_quota:
        _check_quota(tx, user_id, before, size)
    position = tx.caches.recent.account_data = tx.next_position()
    tx.sql.execute(_UPSERT, {**key, "content": text, "position": position, "size_bytes": size})
    if room_id == "" and event_type in PUSH_SETTINGS:
        tx.forget(COMPILED, user_id)
    if text == DELETED:
        tx.sql.execute(_DROP_OLD_DELETED, {"of_user": user_id})
    tx.wake(user_id)


def tags(tx: Reader, user_id: str, room_id: str) -> Json:
    """Return {tag: its information} of a room, including tags that the server has not checked."""
    content = find(tx, user_id, TAGS, room_id) or {}
    kept = content.get("tags")  # clients may also write m.tag as a whole, with any content
    return kept if isinstance(kept, dict) else {}


def put_tag(tx: Tx, user_id: str, room_id: str, tag: str, information: Json) -> None:
    """Add a tag to the room, or replace its information. Raises M_INVALID_PARAM, M_BAD_JSON."""
    if not identifiers.has_at_most_255_bytes(tag):
        raise errors.invalid_param("A tag has at most 255 bytes")
    order = information.get("order", 0)
    if not isinstance(order, int | float) or isinstance(order, bool) or not 0 <= order <= 1:
        raise errors.bad_json("order is a number from 0 to 1")
    put(tx, user_id, TAGS, {"tags": tags(tx, user_id, room_id) | {tag: information}}, room_id)


def remove_tag(tx: Tx, user_id: str, room_id: str, tag: str) -> None:
    """Remove a tag from the room, if it has it."""
    left = tags(tx, user_id, room_id)
    if tag in left:
        del left[tag]
        put(tx, user_id, TAGS, {"tags": left}, room_id)


def everything(tx: Reader, user_id: str) -> dict[str, dict[str, Json]]:
    """Return {room_id: {type: content}} of a user, without push rules; "" is global."""
    found: dict[str, dict[str, Json]] = {}
    asked = {"user_id": user_id, "since": 0, "upto": tx.position}
    for room_id, event_type, content in tx.sql.execute(_ALL, asked):
        if event_type != PUSH_RULES:
            found.setdefault(room_id, {})[event_type] = orjson.loads(content)
    return found


def erase(tx: Tx, user_id: str) -> None:
    """Delete all account data of a user who is deactivated."""
    tx.sql.execute(delete(AccountData).where(AccountData.user_id == user_id))
    tx.forget(COMPILED, user_id)


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete all account data of a room; called by rooms/purge.py alone."""
    tx.sql.execute(delete(AccountData).where(AccountData.room_id == room_id))


def since(tx: Reader, user_id: str, since: int, upto: int) -> dict[str, list[Json]]:
    """Return {room_id: events {type, content}} that changed; "" is global, since 0 gives all.

    What was deleted is empty, and not in the first sync.
    Push rules are complete, and included in the first sync even where the user has changed none.
    """
    found: dict[str, list[Json]] = {}
    recent = tx.caches.recent
    if since and recent.knows(since, upto) and recent.account_data <= since:
        return found
    changes: Json | None = {} if since == 0 else None
    params = {"user_id": user_id, "since": since, "upto": upto}
    event: Json
    for room_id, event_type, content in tx.sql.execute(_SINCE if since else _ALL, params):
        if (event_type, room_id) == (PUSH_RULES, ""):
            changes = orjson.loads(content)
            continue
        event = {"type": event_type, "content": orjson.Fragment(content)}
        found.setdefault(room_id, []).append(event)
    if changes is not None:
        event = {"type": PUSH_RULES, "content": push_rulesets.full(user_id, changes)}
        found.setdefault("", []).append(event)
    return found


def of_rooms(
    tx: Reader, user_id: str, room_ids: Collection[str], *, with_deleted: bool = False
) -> dict[str, list[Json]]:
    """Return {room_id: events {type, content}} with all account data of these rooms."""
    found: dict[str, list[Json]] = {}
    params = {"user_id": user_id, "room_ids": sorted(room_ids)}
    for room_id, event_type, content in tx.sql.execute(
        _OF_ROOMS if with_deleted else _NOW_OF_ROOMS, params
    ):
        event = {"type": event_type, "content": orjson.Fragment(content)}
        found.setdefault(room_id, []).append(event)
    return found


def settings_of(tx: Reader, user_ids: Collection[str]) -> dict[str, PushSettings]:
    """Return {user_id: settings} of all these users, with a query for those not cached."""
    found, missing = tx.cached_many(COMPILED, user_ids)
    for some in batches(missing, _READ_AT_ONCE):
        stored: dict[str, dict[str, str]] = {}
        for user_id, event_type, content in tx.sql.execute(_OF_USERS, {"user_ids": some}):
            stored.setdefault(user_id, {})[event_type] = content
        for user_id in some:
            settings = _compiled(stored[user_id]) if user_id in stored else DEFAULT_SETTINGS
            found[user_id] = settings
            tx.fill(COMPILED, user_id, settings)
    return found


def ignored_users(tx: Reader, user_id: str) -> frozenset[str]:
    """Return the users whom this user ignores; users can't ignore themselves."""
    settings = tx.cached(COMPILED, user_id)
    if settings is None:
        settings = settings_of(tx, [user_id])[user_id]
    ignored = settings.ignored
    return ignored - {user_id} if user_id in ignored else ignored


def decide_on_invite(tx: Reader, user_id: str, inviter: str) -> Decision:
    """Return whether an invite reaches a user, by whom they ignore and the filter of invites."""
    settings = settings_of(tx, [user_id])[user_id]
    return "ignore" if inviter in settings.ignored else settings.invites.decide(inviter)


def without_ignored(tx: Reader, user_id: str, events: Sequence[E]) -> list[E]:
    """Return the events without messages of ignored users, in the same order.

    "State events will still be sent to the client, even if the user is ignored."
    """
    ignored = ignored_users(tx, user_id) if events else frozenset[str]()
    if not ignored:
        return list(events)
    return [it for it in events if it.state_key is not None or it.sender not in ignored]


def _check_is_for_clients(event_type: str) -> None:
    if event_type in SERVER_MANAGED:
        raise errors.bad_json(f"{event_type} has its own endpoint", status=405)


def _check_quota(tx: Tx, user_id: str, before: str | None, size: int) -> None:
    """Raise M_USER_LIMIT_EXCEEDED when this object exceeds the user's number or size limit."""
    before = None if before == DELETED else before
    size_before = 0 if before is None else len(before.encode())
    if before is not None and size <= size_before:
        return
    number, used = tx.sql.execute(_USED, {"user_id": user_id}).one()
    allowed, what = tx.server.config.quotas, "account data"
    if before is None:
        limit = allowed.account_data_objects
        quotas.check(tx, what, used=number + 1, limit=limit, unit="objects")
    quotas.check(tx, what, used=used - size_before + size, limit=allowed.account_data_bytes)


def _compiled(stored: dict[str, str]) -> PushSettings:
    changes = orjson.loads(stored.get(PUSH_RULES, "{}"))
    ignored = _ignored(orjson.loads(stored.get(IGNORED_USERS, "{}")))
    return PushSettings(
        push_rules.compiled(changes),
        ignored,
        2 * sum(map(len, stored.values())),
        has_name_rule=_has_name_rule(changes),
        invites=InviteFilter(orjson.loads(stored.get(invite_filter.TYPE, "{}"))) or ALL_ALLOWED,
    )


def _ignored(content: Json) -> frozenset[str]:
    users = content.get("ignored_users")
    return frozenset(users) if isinstance(users, dict) else frozenset()


def _has_name_rule(changes: Json) -> bool:
    rules: list[Any] = [rule for kind in changes.get("rules", {}).values() for rule in kind]
    return any(
        condition["kind"] == "contains_display_name"
        for rule in rules
        for condition in rule.get("conditions", ())
    )
