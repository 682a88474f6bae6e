"""The memory that the states of a connection take, together.

States of a connection share most of what they consist of. Each object is counted once, as long as
one of the states has it. For each response only what is new in its state is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from homebody.core.sliding_sync.requests import RoomConfig
from homebody.core.sliding_sync.states import ConnectionState, SentRoom

_STATE_BYTES: Final = 1000
"""The memory of a state without its parts."""
_ROOM_BYTES: Final = 300
_SLOT_BYTES: Final = 110
"""The memory of an element of a dict or frozenset."""
_TEXT_BYTES: Final = 80
"""The memory of a string without its characters."""

Part = tuple[object, Callable[[], int]]
"""An object, and what returns its size in bytes."""


class Sizes:
    """What the states of one connection take."""

    __slots__ = ("_refs", "_rooms", "_sent", "size_bytes")

    def __init__(self) -> None:
        self.size_bytes = 0
        self._refs: dict[int, tuple[int, int]] = {}
        """{object: (how many have it, its size)}"""
        self._rooms: dict[int, frozenset[int]] = {}
        """{`rooms` of a state: the objects in it}"""
        self._sent: dict[int, SentRoom] = {}
        """Those objects, of all states."""

    def add(self, state: ConnectionState) -> None:
        """Count a state that is kept from now on."""
        self.size_bytes += _STATE_BYTES
        is_new = id(state.rooms) not in self._refs
        for part in _parts(state):
            self._refer(part)
        if is_new:
            members = frozenset(map(id, state.rooms.values()))
            self._rooms[id(state.rooms)] = members
            if new := members.difference(self._sent):
                for room in state.rooms.values():
                    if id(room) in new and id(room) not in self._sent:
                        self._add_room(room)

    def drop(self, state: ConnectionState) -> None:
        """Count a state no longer."""
        self.size_bytes -= _STATE_BYTES
        for part in _parts(state):
            self._release(part[0])
        if id(state.rooms) not in self._refs:
            members = self._rooms.pop(id(state.rooms))
            for room in members.difference(*self._rooms.values()):
                self._drop_room(self._sent.pop(room))

    def _add_room(self, room: SentRoom) -> None:
        self._sent[id(room)] = room
        self.size_bytes += _ROOM_BYTES
        for part in _parts_of_room(room):
            self._refer(part)

    def _drop_room(self, room: SentRoom) -> None:
        self.size_bytes -= _ROOM_BYTES
        for part in _parts_of_room(room):
            self._release(part[0])

    def _refer(self, part: Part) -> None:
        count, size = self._refs.get(id(part[0]), (0, 0))
        if not count:
            size = part[1]()
            self.size_bytes += size
        self._refs[id(part[0])] = count + 1, size

    def _release(self, part: object) -> None:
        count, size = self._refs.pop(id(part))
        if count > 1:
            self._refs[id(part)] = count - 1, size
        else:
            self.size_bytes -= size


def _parts(state: ConnectionState) -> list[Part]:
    order = state.order
    room_id_bytes = _TEXT_BYTES + max(map(len, order.ids[:1]), default=0)
    return [
        (order, lambda: (250 + room_id_bytes) * len(order.rooms)),
        (state.rooms, lambda: _SLOT_BYTES * len(state.rooms)),
        (
            state.properties,
            lambda: sum(_SLOT_BYTES + it.size_bytes for it in state.properties.values()),
        ),
        (state.direct, lambda: _of_texts(state.direct)),
        (state.lists, lambda: sum(400 + 4 * len(name) for name in state.lists)),
        *((rooms, _slots_of(rooms)) for rooms in state.extension_rooms.values()),
    ]


def _parts_of_room(room: SentRoom) -> list[Part]:
    members, config = room.members, room.config
    return [(members, lambda: _of_texts(members)), (config, lambda: _of_patterns(config))]


def _slots_of(rooms: frozenset[str]) -> Callable[[], int]:
    return lambda: _SLOT_BYTES * len(rooms)


def _of_texts(texts: Iterable[str]) -> int:
    return sum(_SLOT_BYTES + len(text) for text in texts)


def _of_patterns(config: RoomConfig) -> int:
    every = [config.required]
    for selection in config.selections:
        every += selection
    return sum(
        _SLOT_BYTES + 2 * _TEXT_BYTES + 4 * (len(event_type) + len(state_key))
        for patterns in every
        for event_type, state_key in patterns
    )
