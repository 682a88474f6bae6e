"""Mails about unread messages: their content, and when they are due.

The outbox has one row for each mailbox that may be due a mail. The row is due when a message has
been unread for a while (`push.mail_delay_ms`); then one mail lists all unread messages, and the row
is replaced by one that is due when the next mail may be sent (`push.mail_interval_ms`). While there
is a row, new messages need none of their own. It is removed when no unread message is found.

    after   messages up to this position were in a mail, or were read before the row was made
    upto    messages up to this position existed when the row was made, so they have waited

Spec: client-server-api#post_matrixclientv3pushersset (kind "email")
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, func, select

from homebody.core.events import client_events, state
from homebody.core.push.pushers import Mailbox
from homebody.models.push import Notification
from homebody.outside.mail import Message
from homebody.spec.events import Json, StateKey
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader

MAX_MESSAGES: Final = 20
"""Listed in one mail; of the rest only the number is given."""
MAX_LINE: Final = 200
"""Characters."""
_NAME: Final[StateKey] = ("m.room.name", "")
_ALIAS: Final[StateKey] = ("m.room.canonical_alias", "")

_UNREAD_AFTER = (
    Notification.user_id == bindparam("user_id"),
    Notification.event_position > bindparam("after"),
    Notification.is_read.is_(False),
)
_UNREAD = (
    select(Notification.room_id, Notification.event_position)
    .where(*_UNREAD_AFTER)
    .order_by(Notification.event_position)
    .limit(MAX_MESSAGES)
)
_SUM = select(
    func.count().label("number"), func.max(Notification.event_position).label("newest")
).where(*_UNREAD_AFTER)


@dataclass(frozen=True, slots=True)
class News:
    """A mail, and whether it is due."""

    message: Message
    newest: int
    """The position of the last message in it."""
    is_due: bool
    """Whether one of its messages has been unread for long enough."""


def news(tx: Reader, mailbox: Mailbox, look: Json) -> News | None:
    """Return the mail about a user's unread messages, or None if there are none."""
    asked = {"user_id": mailbox.user_id, "after": look["after"]}
    found = tx.sql.execute(_SUM, asked).first()
    unread = [(room_id, position) for room_id, position in tx.sql.execute(_UNREAD, asked)]
    if found is None or not unread:
        return None
    numbers = client_events.numbers_at(tx, unread)
    events = [numbers[place] for place in unread if place in numbers]
    shown = [it for it in client_events.load(tx, events) if not client_events.is_redacted(it)]
    waited_since = tx.now_ms - tx.server.config.push.mail_delay_ms
    return News(
        _composed(tx, mailbox, shown, found.number),
        found.newest,
        # a bridge may set timestamps in the future
        is_due=unread[0][1] <= look["upto"]
        or any(it.origin_server_ts <= waited_since for it in shown),
    )


def _composed(tx: Reader, mailbox: Mailbox, events: list[ClientEvent], number: int) -> Message:
    by_room: dict[str, list[ClientEvent]] = {}
    for event in events:
        by_room.setdefault(event.room_id, []).append(event)
    parts = [(_room(tx, room_id, mailbox), _lines(tx, some)) for room_id, some in by_room.items()]
    brand = _one_line(mailbox.brand or tx.server.name)
    messages = "1 unread message" if number == 1 else f"{number} unread messages"
    where = f"in {parts[0][0]}" if len(parts) == 1 else f"in {len(parts)} rooms or more"
    if len(parts) > 1 and number <= MAX_MESSAGES:
        where = f"in {len(parts)} rooms"
    title = f"{messages} {where}" if parts else messages
    more = [f"And {number - MAX_MESSAGES} more."] if number > MAX_MESSAGES else []
    footer = (
        f"{mailbox.user_id} gets these mails at {mailbox.address} because a client asked for them;"
        " its settings end them."
    )
    return Message(
        f"[{brand}] {title}",
        _text(title, parts, [*more, footer]),
        _html(title, parts, [*more, footer]),
    )


def _room(tx: Reader, room_id: str, mailbox: Mailbox) -> str:
    """Return the name of a room, or one made from its other members."""
    known = state.current_many(tx, room_id, [_NAME, _ALIAS])
    for key, part in ((_NAME, "name"), (_ALIAS, "alias")):
        text = known[key].content.get(part) if key in known else None
        if isinstance(text, str) and text.strip():
            return _one_line(text)
    joined = set(state.joined_users(tx, room_id))
    others = sorted(joined - {mailbox.user_id})
    if not others or mailbox.user_id not in joined:  # an invite must not reveal the members
        return "a room"
    first = _name(tx, room_id, others[0])
    return f"a conversation with {first}" + (" and others" if len(others) > 1 else "")


def _lines(tx: Reader, events: Iterable[ClientEvent]) -> list[str]:
    return [f"{_name(tx, event.room_id, event.sender)}{_said(tx, event)}" for event in events]


def _said(tx: Reader, event: ClientEvent) -> str:
    """Return the line about an event, without the name of its sender."""
    if event.type == state.MEMBER:
        return " invites you" if event.content.get("membership") == "invite" else " came or went"
    if event.type == "m.room.encrypted":
        return " sent an encrypted message"
    body = event.content.get("body")
    if not tx.server.config.push.include_content or not isinstance(body, str) or not body.strip():
        return " sent a message"
    return f": {_one_line(body)}"


def _name(tx: Reader, room_id: str, user_id: str) -> str:
    member = state.current(tx, room_id, state.MEMBER, user_id)
    name = None if member is None else member.content.get("displayname")
    return _one_line(name) if isinstance(name, str) and name.strip() else user_id


def _one_line(text: str) -> str:
    """Return a text without line breaks and control characters, which could begin a header."""
    shown = " ".join("".join(it if it.isprintable() else " " for it in text).split())
    return shown if len(shown) <= MAX_LINE else f"{shown[: MAX_LINE - 1]}…"


def _text(title: str, parts: list[tuple[str, list[str]]], footer: list[str]) -> str:
    rooms = ["\n".join([room, *(f"    {line}" for line in lines)]) for room, lines in parts]
    return "\n\n".join([title, *rooms, *footer]) + "\n"


def _html(title: str, parts: list[tuple[str, list[str]]], footer: list[str]) -> str:
    rooms = [
        f"<h2>{html.escape(room)}</h2>\n"
        + "\n".join(f"<p>{html.escape(line)}</p>" for line in lines)
        for room, lines in parts
    ]
    ends = [f"<p>{html.escape(line)}</p>" for line in footer]
    heading = html.escape(title)
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">',
            f"<title>{heading}</title></head>\n<body>\n<h1>{heading}</h1>",
            *rooms,
            *ends,
            "</body>\n</html>\n",
        ]
    )
