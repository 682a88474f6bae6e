"""The table of room versions and their rules.

A room version is fixed when a room is created. It defines the format and ids of events, redaction,
authorization and state resolution. Other code never compares version numbers but reads the fields
of `RoomVersion`, so that all differences between versions are in this table.

Spec: rooms#feature-matrix, and the pages rooms/v1 to rooms/v12
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

EventIds = Literal["given", "reference_hash", "url_safe_reference_hash"]
StateResolution = Literal["v1", "v2", "v2.1"]


@dataclass(frozen=True, slots=True)
class RoomVersion:
    """The rules of one room version. Each field says which version introduced it."""

    name: str
    event_ids: EventIds = "given"
    """v1: the sender sets `event_id` in the event; v3: the hash of the event; v4: URL-safe."""
    state_resolution: StateResolution = "v1"
    enforces_key_validity: bool = False
    """v5: a signature counts only if made within the key's `valid_until_ts`."""
    is_canonical_json_strict: bool = False
    """v6: integers beyond 2^53 - 1 and floats are refused everywhere in an event."""
    has_alias_events_rule: bool = True
    """Up to v5 `m.room.aliases` has special rules for authorization and redaction."""
    checks_notification_levels: bool = False
    """v6: changing a level in `notifications` requires that level."""
    may_knock: bool = False
    """v7: `knock` as membership and join rule."""
    may_restrict_joins: bool = False
    """v8: join rule `restricted`, with `join_authorised_via_users_server`."""
    redaction_keeps_join_authorised: bool = False
    """v9: redaction of a member event keeps `join_authorised_via_users_server`."""
    may_knock_restricted: bool = False
    """v10: join rule `knock_restricted`."""
    has_integer_power_levels: bool = False
    """v10: power levels are integers; strings that look like integers are refused."""
    has_new_redaction_rules: bool = False
    """v11: what redaction keeps (create, member, power levels, top-level keys)."""
    has_creator_in_sender: bool = False
    """v11: the creator is the sender of `m.room.create`, not `content.creator`."""
    has_redacts_in_content: bool = False
    """v11: `redacts` moved into the content of `m.room.redaction`."""
    has_privileged_creators: bool = False
    """v12: creators (`additional_creators` too) have infinite power; the room's id is the hash of
    its create event and names no server; auth_events leave the create event out."""

    def __post_init__(self) -> None:
        VERSIONS[self.name] = self


VERSIONS: dict[str, RoomVersion] = {}

V1 = RoomVersion("1")
V2 = replace(V1, name="2", state_resolution="v2")
V3 = replace(V2, name="3", event_ids="reference_hash")
V4 = replace(V3, name="4", event_ids="url_safe_reference_hash")
V5 = replace(V4, name="5", enforces_key_validity=True)
V6 = replace(
    V5,
    name="6",
    is_canonical_json_strict=True,
    has_alias_events_rule=False,
    checks_notification_levels=True,
)
V7 = replace(V6, name="7", may_knock=True)
V8 = replace(V7, name="8", may_restrict_joins=True)
V9 = replace(V8, name="9", redaction_keeps_join_authorised=True)
V10 = replace(V9, name="10", may_knock_restricted=True, has_integer_power_levels=True)
V11 = replace(
    V10,
    name="11",
    has_new_redaction_rules=True,
    has_creator_in_sender=True,
    has_redacts_in_content=True,
)
V12 = replace(V11, name="12", has_privileged_creators=True, state_resolution="v2.1")
