"""Sliding sync as it is deployed: the unstable form of MSC4186, which Element X requests.

merged.py has a table of the differences to the proposal as it was merged.
Spec: client-server-api#syncing
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Final

import msgspec
import orjson

from homebody import errors
from homebody.core.events import state
from homebody.core.sliding_sync import requests
from homebody.core.sliding_sync.not_joined import GONE
from homebody.core.sliding_sync.requests import (
    ALL_BUT_MEMBERS,
    ANY,
    LAZY,
    MAX_TIMELINE,
    Extensions,
    Filters,
    ListName,
    Natural,
    RoomConfig,
    RoomList,
    SlidingSyncRequest,
)
from homebody.spec.events import Json, StateKey

MAX_RANGES: Final = 20
"""Per list."""
MAX_SUBSCRIPTIONS: Final = 1000


class BodyFilters(msgspec.Struct):
    """The filters of a list."""

    is_dm: bool | None = None
    spaces: list[str] | None = None
    is_encrypted: bool | None = None
    is_invite: bool | None = None
    room_types: list[str | None] | None = None
    not_room_types: list[str | None] = []
    room_name_like: str | None = None
    """From the older proposal (MSC3575); matrix-js-sdk still supports it."""
    tags: list[str] | None = None
    not_tags: list[str] = []


class BodySubscription(msgspec.Struct):
    """How much of a room the client wants."""

    timeline_limit: Natural = 0
    required_state: list[tuple[str, str]] = []


class BodyList(BodySubscription):
    """A window onto the sorted rooms; without ranges it includes all of them."""

    ranges: list[tuple[Natural, Natural]] | None = None
    filters: BodyFilters | None = None


class Body(msgspec.Struct):
    """The body of a request."""

    conn_id: str = ""
    lists: dict[ListName, BodyList] = {}
    room_subscriptions: dict[str, BodySubscription] = {}
    extensions: Extensions = msgspec.field(default_factory=Extensions)

    def request(self, user_id: str) -> SlidingSyncRequest:
        """Return what it wants. Raises M_INVALID_PARAM if a limit is exceeded."""
        subscriptions, wanted = self.room_subscriptions, self.extensions
        requests.check(self.conn_id, self.lists, subscriptions, max_subscriptions=MAX_SUBSCRIPTIONS)
        if any(len(one.ranges or ()) > MAX_RANGES for one in self.lists.values()):
            raise errors.invalid_param(f"A list may have {MAX_RANGES} ranges")
        requests.check_patterns(
            [it.required_state for it in (*self.lists.values(), *subscriptions.values())]
        )
        return SlidingSyncRequest(
            self.conn_id,
            {name: _list(user_id, one) for name, one in self.lists.items()},
            {room_id: _config(user_id, one) for room_id, one in subscriptions.items()},
            wanted,
            requests.digest("deployed", self.lists, subscriptions, wanted.about_rooms()),
        )


def _list(user_id: str, one: BodyList) -> RoomList:
    filters = None
    if (it := one.filters) is not None:
        filters = Filters(
            it.is_dm,
            it.spaces,
            it.is_encrypted,
            it.is_invite,
            it.room_types,
            it.not_room_types,
            it.room_name_like,
            it.tags,
            it.not_tags,
        )
    return RoomList(_config(user_id, one), one.ranges, filters)


def _config(user_id: str, subscription: BodySubscription) -> RoomConfig:
    required = frozenset(_patterns(user_id, subscription.required_state))
    return RoomConfig(min(subscription.timeline_limit, MAX_TIMELINE), required)


def _patterns(user_id: str, required_state: Iterable[tuple[str, str]]) -> Iterable[StateKey]:
    pairs = set(required_state)
    for event_type, state_key in pairs:
        if not requests.is_possible((event_type, state_key)):
            continue
        kind = ANY if event_type == "*" else event_type
        if state_key == "$LAZY":
            if event_type == state.MEMBER:
                yield LAZY
        elif (event_type, state_key) == ("*", "*") and (state.MEMBER, "$LAZY") in pairs:
            yield ALL_BUT_MEMBERS
        elif state_key == "*":
            yield kind, ANY
        else:
            yield kind, user_id if state_key == "$ME" else state_key


_NAMES: Final = {
    "stripped_state": "invite_state",
    "expanded_timeline": "unstable_expanded_timeline",
}


def room(entry: Json, _room_id: str, _windows: Mapping[str, Set[str]]) -> Json:
    """Return the entry of a room under the names of this dialect, without what it doesn't have."""
    found = {_NAMES.get(name, name): value for name, value in entry.items()}
    if entry.get("membership") in GONE:  # clients take a room with it for an invite
        found.pop("invite_state", None)
    if "required_state" in found:  # without stubs of deleted state
        found["required_state"] = [
            event for event in found["required_state"] if isinstance(event, orjson.Fragment)
        ]
    return found
