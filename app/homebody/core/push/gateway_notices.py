"""Notifications for push gateways: about an event, or only the number of unread messages.

Spec: push-gateway-api#post_matrixpushv1notify
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, distinct, exists, func, select

from homebody.core.events import client_events, state, stripped_state
from homebody.core.push.pushers import Gateway
from homebody.models.push import Notification, UnreadCount
from homebody.spec.events import Json, StateKey
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader

EVENT_ID_ONLY: Final = "event_id_only"
_NAME: Final[StateKey] = ("m.room.name", "")
_ALIAS: Final[StateKey] = ("m.room.canonical_alias", "")

_UNREAD = (UnreadCount.user_id == bindparam("user_id"), UnreadCount.notification_count > 0)
_MESSAGES = select(func.coalesce(func.sum(UnreadCount.notification_count), 0)).where(*_UNREAD)
_ROOMS = select(func.count(distinct(UnreadCount.room_id))).where(*_UNREAD)
_IS_UNREAD = select(
    exists().where(
        Notification.user_id == bindparam("user_id"),
        Notification.room_id == bindparam("room_id"),
        Notification.event_position == bindparam("position"),
        Notification.is_read.is_(False),
    )
)


def about(tx: Reader, gateway: Gateway, payload: Json) -> Json | None:
    """Return the `notification` for a row of the outbox, or None if it is no longer needed.

    A payload without `position` is for the counts alone.
    """
    if "position" not in payload:
        return _badge(tx, gateway)
    asked = {"user_id": gateway.user_id, **{key: payload[key] for key in ("room_id", "position")}}
    if not tx.sql.execute(_IS_UNREAD, asked).scalar():
        return None  # read on another device, or the user has left
    numbers = client_events.numbers_at(tx, [(payload["room_id"], payload["position"])])
    found = client_events.load(tx, list(numbers.values()))
    if not found or client_events.is_redacted(found[0]):
        return None
    tweaks: Json = payload["tweaks"]
    notification = {
        "event_id": found[0].event_id,
        "room_id": found[0].room_id,
        "prio": _priority(found[0], tweaks),
        "counts": {"unread": unread} if (unread := unread_count(tx, gateway.user_id)) else {},
        "devices": [_device(gateway, tweaks)],
    }
    if gateway.data.get("format") != EVENT_ID_ONLY:
        notification |= _described(tx, gateway, found[0])
    return notification


def unread_count(tx: Reader, user_id: str) -> int:
    """Return the number for a user's badge: of unread messages, or of rooms that have some."""
    query = _ROOMS if tx.server.config.push.group_unread_count_by_room else _MESSAGES
    return int(tx.sql.execute(query, {"user_id": user_id}).scalar_one())


def _badge(tx: Reader, gateway: Gateway) -> Json:
    # Deviates: "Counts whose value is zero should be omitted". The gateways in use take a missing
    # count as unchanged, so the number would stay on the badge forever.
    counts = {"unread": unread_count(tx, gateway.user_id)}
    return {"prio": "low", "counts": counts, "devices": [_device(gateway, {})]}


def _device(gateway: Gateway, tweaks: Json) -> Json:
    return {
        "app_id": gateway.app_id,
        "pushkey": gateway.pushkey,
        "pushkey_ts": gateway.pushkey_ts // 1000,
        "data": {key: value for key, value in gateway.data.items() if key != "url"},
        "tweaks": tweaks,
    }


def _priority(event: ClientEvent, tweaks: Json) -> str:
    """Return `high`, which wakes the phone at once, for sounds, highlights and encrypted events.

    Only the phone can decrypt an event, and then evaluate the push rules.
    """
    is_loud = tweaks.get("highlight") or "sound" in tweaks
    return "high" if is_loud or event.type == "m.room.encrypted" else "low"


def _described(tx: Reader, gateway: Gateway, event: ClientEvent) -> Json:
    """Return the properties of an event that a gateway may receive."""
    sender = (state.MEMBER, event.sender)
    known = state.current_many(tx, event.room_id, [_NAME, _ALIAS, sender])
    around = {key: it.content for key, it in known.items()}
    invited = stripped_state.find(tx, event.room_id, gateway.user_id)
    if invited is not None:  # to a room that this server is not in
        around = {(it["type"], it["state_key"]): it["content"] for it in invited.events}

    def named(key: StateKey, part: str) -> object:
        return around[key].get(part) if key in around else None

    names = {
        "sender_display_name": named(sender, "displayname"),
        "room_name": named(_NAME, "name"),
        "room_alias": named(_ALIAS, "alias"),
    }
    described: Json = {name: text for name, text in names.items() if isinstance(text, str) and text}
    described |= {"type": event.type, "sender": event.sender}
    if event.type == state.MEMBER:
        described["user_is_target"] = event.state_key == gateway.user_id
    if tx.server.config.push.include_content:
        described["content"] = event.content
    return described
