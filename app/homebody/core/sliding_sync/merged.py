"""Sliding sync as MSC4186 was merged: POST /_matrix/client/v4/sync.

The core is the same as that of the deployed form. These are the differences, of which all but the
first three are made here and in deployed.py:

    | as merged                              | as deployed                               |
    |----------------------------------------|-------------------------------------------|
    | entries of state that was deleted      | nothing                                   |
    | no unread counts, nor rooms for them   | `notification_count`, `highlight_count`   |
    | `pos`, `timeout`, `set_presence` in    | in the query                              |
    | the body                               |                                           |
    | `range`, one for each list             | `ranges`                                  |
    | `required_state` with `include`,       | pairs of type and state key, with `*`,    |
    | `exclude`, `lazy_members`              | `$ME`, `$LAZY`                            |
    | `timeline_limit` and `required_state`  | may be missing                            |
    | are required                           |                                           |
    | the filter `is_invited`                | `is_invite`, and `room_name_like`         |
    | names of lists are opaque identifiers  | have up to 255 characters                 |
    | 100 subscriptions                      | 1,000                                     |
    | `stripped_state`, also of an invite    | `invite_state`, `name` and `avatar`; a    |
    | that was rejected                      | rejected invite has `required_state`      |
    | `expanded_timeline`                    | `unstable_expanded_timeline`              |
    | `lists` of each room                   | nothing                                   |

In both, `membership` is part of a room, `name` is null if it was removed, and a `pos` is a token
for /messages and /relations.

Spec: client-server-api#syncing
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from typing import Final

import msgspec

from homebody import errors
from homebody.core.ephemeral import presence
from homebody.core.events import state
from homebody.core.sliding_sync import requests
from homebody.core.sliding_sync.requests import (
    ALL,
    ALL_BUT_MEMBERS,
    ANY,
    LAZY,
    MAX_TIMELINE,
    Extensions,
    Filters,
    Natural,
    RoomConfig,
    RoomList,
    Selection,
    SlidingSyncRequest,
)
from homebody.spec.events import Json, StateKey

MAX_SUBSCRIPTIONS: Final = 100
"""As in the proposal."""
_OF_JOINED: Final = {"name", "avatar", "required_state", "timeline", "prev_batch", "limited"}
"""Fields of rooms that the user is or was in; others have `stripped_state` in their place."""
_OPAQUE_IDENTIFIER: Final = re.compile(r"[0-9A-Za-z._~-]{1,255}")


class Element(msgspec.Struct, frozen=True):
    """A pattern of state; what is missing matches everything."""

    type: str | None = None
    state_key: str | None = None

    @property
    def pattern(self) -> StateKey:
        """The pattern as a pair."""
        key = ANY if self.state_key is None else self.state_key
        return ANY if self.type is None else self.type, key


class RequiredState(msgspec.Struct):
    """The state that the client wants of a room."""

    include: list[Element] = []
    exclude: list[Element] = []
    lazy_members: bool = False


class BodyFilters(msgspec.Struct):
    """The filters of a list."""

    is_dm: bool | None = None
    spaces: list[str] | None = None
    is_encrypted: bool | None = None
    is_invited: bool | None = None
    room_types: list[str | None] | None = None
    not_room_types: list[str | None] = []
    tags: list[str] | None = None
    not_tags: list[str] = []


class BodySubscription(msgspec.Struct, kw_only=True):
    """How much of a room the client wants."""

    timeline_limit: Natural
    required_state: RequiredState


class BodyList(BodySubscription, kw_only=True):
    """A window onto the sorted rooms; without a range it includes all of them."""

    range: tuple[Natural, Natural] | None = None
    filters: BodyFilters | None = None


class Body(msgspec.Struct):
    """The body of a request."""

    conn_id: str = ""
    pos: str | None = None
    timeout: Natural = 0
    set_presence: str = "online"
    lists: dict[str, BodyList] = {}
    room_subscriptions: dict[str, BodySubscription] = {}
    extensions: Extensions = msgspec.field(default_factory=Extensions)

    def request(self) -> SlidingSyncRequest:
        """Return what it wants. Raises M_INVALID_PARAM for what the proposal does not allow."""
        subscriptions, wanted = self.room_subscriptions, self.extensions
        requests.check(self.conn_id, self.lists, subscriptions, max_subscriptions=MAX_SUBSCRIPTIONS)
        if not all(_OPAQUE_IDENTIFIER.fullmatch(name) for name in self.lists):
            raise errors.invalid_param("The name of a list is not an opaque identifier")
        if self.set_presence not in presence.STATES:
            raise errors.invalid_param(f"set_presence must be one of {sorted(presence.STATES)}")
        requests.check_patterns(
            [
                [*it.required_state.include, *it.required_state.exclude]
                for it in (*self.lists.values(), *subscriptions.values())
            ]
        )
        return SlidingSyncRequest(
            self.conn_id,
            {name: _list(one) for name, one in self.lists.items()},
            {room_id: _config(one) for room_id, one in subscriptions.items()},
            wanted,
            requests.digest("merged", self.lists, subscriptions, wanted.about_rooms()),
            is_merged=True,
        )


def _list(one: BodyList) -> RoomList:
    filters = None
    if (it := one.filters) is not None:
        filters = Filters(
            it.is_dm,
            it.spaces,
            it.is_encrypted,
            it.is_invited,
            it.room_types,
            it.not_room_types,
            tags=it.tags,
            not_tags=it.not_tags,
        )
    return RoomList(_config(one), None if one.range is None else [one.range], filters)


def _config(one: BodySubscription) -> RoomConfig:
    wanted = one.required_state
    include = frozenset(_patterns(wanted.include, is_lazy=wanted.lazy_members))
    exclude = frozenset(_patterns(wanted.exclude, is_lazy=False))
    lazy = frozenset([LAZY] if wanted.lazy_members else [])
    limit = min(one.timeline_limit, MAX_TIMELINE)
    if exclude and include:
        return RoomConfig(limit, lazy, frozenset([Selection(include, exclude)]))
    return RoomConfig(limit, lazy | include)


def _patterns(elements: Iterable[Element], *, is_lazy: bool) -> Iterable[StateKey]:
    """Yield the patterns. With lazy-loading, none matches all members."""
    for element in elements:
        pattern = element.pattern
        if is_lazy and pattern == ALL:
            yield ALL_BUT_MEMBERS
        elif requests.is_possible(pattern) and not (is_lazy and pattern == (state.MEMBER, ANY)):
            yield pattern


def room(entry: Json, room_id: str, windows: Mapping[str, Set[str]]) -> Json:
    """Return the entry of a room with the names of the lists that it is in."""
    names = [name for name, room_ids in windows.items() if room_id in room_ids]
    found = {**entry, "lists": names} if names else entry
    if "stripped_state" in found:
        return {name: value for name, value in found.items() if name not in _OF_JOINED}
    return found
