"""Rooms that bridges publish for their networks: each network has a directory of its own.

A network is known to clients by its instance id, which is made of the ids of the service and of the
network. This module alone writes the table network_rooms.
Spec: application-service-api#published-room-directories
"""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, select

from homebody.core.events import state
from homebody.models.appservices import NetworkRoom
from homebody.spec.appservices import Service
from homebody.storage.database import Reader, Tx

_ADD = insert(NetworkRoom)
_REMOVE = delete(NetworkRoom).where(
    NetworkRoom.service_id == bindparam("of_service"),
    NetworkRoom.network_id == bindparam("of_network"),
    NetworkRoom.room_id == bindparam("the_room"),
)
_REMOVE_ROOM = delete(NetworkRoom).where(NetworkRoom.room_id == bindparam("the_room"))
_OF_NETWORK = select(NetworkRoom.room_id).where(
    NetworkRoom.service_id == bindparam("service_id"),
    NetworkRoom.network_id == bindparam("network_id"),
)
_ALL = select(NetworkRoom.room_id).distinct()


def instance_id(service: Service, network_id: str) -> str:
    """What clients call a network of a service."""
    return f"{service.id}|{network_id}"


def set_visibility(
    tx: Tx, service: Service, network_id: str, room_id: str, *, is_published: bool
) -> None:
    """Put a room into the directory of a network, or take it out. Raises M_NOT_FOUND."""
    state.head(tx, room_id)
    key = {"of_service": service.id, "of_network": network_id, "the_room": room_id}
    tx.sql.execute(_REMOVE, key)
    if is_published:
        row = {"service_id": service.id, "network_id": network_id, "room_id": room_id}
        tx.sql.execute(_ADD, row)


def rooms(tx: Reader, instance: str) -> frozenset[str]:
    """The rooms of a network, by its instance id; none for one that nobody knows."""
    found: set[str] = set()
    for service in tx.server.appservices.all:  # either part of the id may have a | in it
        if instance.startswith(prefix := instance_id(service, "")):
            key = {"service_id": service.id, "network_id": instance.removeprefix(prefix)}
            found.update(tx.sql.execute(_OF_NETWORK, key).scalars())
    return frozenset(found)


def all_rooms(tx: Reader) -> frozenset[str]:
    """The rooms of all networks."""
    return frozenset(tx.sql.execute(_ALL).scalars())


def remove_room(tx: Tx, room_id: str) -> None:
    """Let nothing of a room be left here; called by rooms/purge.py alone."""
    tx.sql.execute(_REMOVE_ROOM, {"the_room": room_id})
