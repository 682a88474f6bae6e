"""Rules for events of local users that are stricter than the authorization rules.

The authorization rules say which events a server must accept from other servers. They leave it to
each server to prevent its own users from the rest: redacting each other's messages, inviting on
behalf of a banned user, locking out the whole server. `sending.send` applies these rules to every
event that a local user sends, whichever endpoint it came by, so that the stricter of both decides.

A rule checks an event that the authorization rules allow; it gets the state that they asked for.
It raises M_FORBIDDEN, M_NOT_FOUND for a redaction of what is not there, M_USER_SUSPENDED,
M_MISSING_PARAM and M_BAD_JSON for content that makes no sense.

Spec: client-server-api#room-events, client-server-api#size-limits
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select

from homebody import errors
from homebody.core.events import relations, state
from homebody.models.events import StoredEvent
from homebody.spec import event_auth, room_state, server_acl
from homebody.spec.events import Event, Json, StateKey

if TYPE_CHECKING:
    from homebody.core.timeline.sending import Draft
    from homebody.storage.database import Reader

REDACTION: Final = "m.room.redaction"
SERVER_ACL: Final = "m.room.server_acl"
ENCRYPTION: StateKey = ("m.room.encryption", "")
THIRD_PARTY_INVITE: Final = "third_party_invite"
"""The key in a member event that proves ownership of an invited address."""
KICKABLE: Final = frozenset({"join", "invite", "knock", "ban"})
"""Memberships that another user can end; the end of a ban is a leave as well."""
NEVER_REDACTED: Final = {
    room_state.CREATE[0]: "Without its first event the room would be broken",
    SERVER_ACL: "An access control list without its content denies every server",
    ENCRYPTION[0]: "Encryption can't be turned off again",
}

State = dict[StateKey, Event]
"""The entries of the room's state that the authorization rules need."""

# without the room, as SQLite would go through all of it instead of the index of reactions
_ANNOTATIONS = select(StoredEvent.room_id).where(
    StoredEvent.relates_to == bindparam("relates_to"),
    StoredEvent.sender == bindparam("sender"),
    StoredEvent.type == bindparam("event_type"),
    StoredEvent.annotation_key == bindparam("annotation_key"),
)
_REL_TYPE = select(StoredEvent.rel_type).where(
    StoredEvent.event_id == bindparam("event_id"),
    StoredEvent.room_id == bindparam("room_id"),
    StoredEvent.redacted_by.is_(None),
)


def check_relation(tx: Reader, draft: Draft, relation: Json) -> None:
    """Check that a reaction is the first of its kind, and that a thread may begin at its root.

    Raises M_DUPLICATE_ANNOTATION, M_UNKNOWN (400) for a root that is related to an event itself.
    Spec: client-server-api#avoiding-duplicate-annotations,
    client-server-api#validation-of-mthread-relationships
    """
    target_id, rel_type = str(relation.get("event_id")), relation.get("rel_type")
    if rel_type == relations.ANNOTATION:
        asked = {
            "relates_to": target_id,
            "sender": draft.sender,
            "event_type": draft.type,
            "annotation_key": relations.key_digest(relation.get("key")),
        }
        if draft.room_id in tx.sql.execute(_ANNOTATIONS, asked).scalars():
            raise errors.duplicate_annotation()
    elif rel_type == relations.THREAD:
        root = {"event_id": target_id, "room_id": draft.room_id}
        if tx.sql.execute(_REL_TYPE, root).scalar() is not None:
            raise errors.unknown("An event that is related to another can't begin a thread")


def _check_redaction(tx: Reader, draft: Draft, known: State) -> None:
    """Check that a redaction is of the sender's own event, or that the sender has the power.

    By the rules between servers, the users of one server may redact each other's events, and since
    version 11 a state event can look like a redaction.
    """
    if draft.state_key is not None:
        raise errors.forbidden("A redaction is not a state event")
    if draft.redacts is None:
        raise errors.missing_param("A redaction says in `redacts` which event it is about")
    requester = draft.requester
    target = _target(tx, draft.room_id, draft.redacts)
    if target is not None:
        if target.state_key is not None and target.type in NEVER_REDACTED:
            raise errors.forbidden(NEVER_REDACTED[target.type])
        if target.sender == draft.sender:
            return
    if requester is not None and requester.is_suspended:
        raise errors.user_suspended()
    is_admin = requester is not None and requester.is_admin
    if target is not None and is_admin and tx.server.is_local(target.sender):
        return  # administrators of the server may redact what its users have sent
    levels = event_auth.power_levels(known)
    if levels.of_user(draft.sender) < levels.to_redact:
        raise errors.forbidden(f"You need power level {levels.to_redact} to redact this event")


def _target(tx: Reader, room_id: str, event_id: str) -> Event | None:
    """Return the event to redact, None for one that only other servers may have.

    Raises M_NOT_FOUND.
    """
    found = state.find_any(tx, event_id)
    if found is not None and found.event.room_id == room_id:
        return found.event
    has_others = len(state.joined(tx, room_id).servers) > 1
    if found is not None or not has_others or not event_id.startswith("$"):
        raise errors.not_found("There is no such event in this room")
    return None


def _check_aliases(_tx: Reader, draft: Draft, known: State) -> None:
    """Check m.room.aliases like any other state.

    Up to version 5 the rules let any user of a server list its aliases, even from outside the room.
    Servers did that for their users; there is nothing left for which clients would have to.
    """
    if event_auth.membership(known, draft.sender) != "join":
        raise errors.forbidden("You are not in this room")
    levels = event_auth.power_levels(known)
    required = levels.to_send(draft.type, is_state=draft.state_key is not None)
    if levels.of_user(draft.sender) < required:
        raise errors.forbidden(f"You need power level {required} for {draft.type}")


def _check_member(_tx: Reader, draft: Draft, known: State) -> None:
    membership, target = draft.content.get("membership"), draft.state_key or ""
    if membership == "invite" and THIRD_PARTY_INVITE in draft.content:
        _check_may_invite_now(draft, known)
    is_kick = membership == "leave" and target != draft.sender
    # the rules let a member with the power kick any user, even one who never was there
    if is_kick and event_auth.membership(known, target) not in KICKABLE:
        raise errors.forbidden(f"{target} is not in this room")


def _check_may_invite_now(draft: Draft, known: State) -> None:
    """Check that the user who invited an address could still invite its owner.

    The rules ask that only when the address is invited: a member could prepare an invite, be
    banned, and let a second account in by it.
    """
    levels = event_auth.power_levels(known)
    if event_auth.membership(known, draft.sender) != "join":
        raise errors.forbidden(f"{draft.sender}, who sent the invite, is not in this room any more")
    if levels.of_user(draft.sender) < levels.to_invite:
        raise errors.forbidden(f"{draft.sender}, who sent the invite, may not invite any more")


def _check_server_acl(tx: Reader, draft: Draft, _known: State) -> None:
    if draft.state_key == "" and not server_acl.allows(draft.content, tx.server.name):
        raise errors.bad_json(f"This would lock out {tx.server.name}, which is this server")


def _check_encryption(tx: Reader, draft: Draft, _known: State) -> None:
    """Check that encryption is not turned off: clients that forget would send in the clear."""
    before = state.current(tx, draft.room_id, *ENCRYPTION)
    if draft.state_key != "" or before is None:
        return
    was_on = isinstance(before.content.get("algorithm"), str)
    if was_on and not isinstance(draft.content.get("algorithm"), str):
        raise errors.forbidden(NEVER_REDACTED[draft.type])


def _check_tombstone(_tx: Reader, draft: Draft, _known: State) -> None:
    if draft.content.get("replacement_room") == draft.room_id:
        raise errors.bad_json("A room can't be replaced by itself")


RULES: Final[dict[str, Callable[[Reader, Draft, State], None]]] = {
    REDACTION: _check_redaction,
    "m.room.aliases": _check_aliases,
    state.MEMBER: _check_member,
    SERVER_ACL: _check_server_acl,
    ENCRYPTION[0]: _check_encryption,
    "m.room.tombstone": _check_tombstone,
}
"""By event type. For the other types, the authorization rules are strict enough:
m.room.create comes once, m.room.power_levels needs at least the power that it changes,
m.room.third_party_invite the power to invite, and everything else a level of its own."""
