"""Third-party networks: their users, locations and published rooms, as their bridges report them.

Each request goes to the services that have the protocol, and their responses are merged. Failed and
invalid responses are left out. Each network has a room directory of its own; clients know a network
by its instance ID, made of the ids of the service and of the network.

This module alone writes the table network_rooms.
Spec: client-server-api#third-party-networks, application-service-api#third-party-networks,
application-service-api#published-room-directories
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, Literal

import msgspec
from sqlalchemy import bindparam, delete, insert, select

from homebody import errors
from homebody.core.events import state
from homebody.models.appservices import NetworkRoom
from homebody.outside import RemoteError, appservice
from homebody.spec.appservices import Service
from homebody.spec.events import Json
from homebody.storage.database import Reader, Server, Tx

LOG = logging.getLogger(__name__)

Kind = Literal["user", "location"]

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


class FieldType(msgspec.Struct):
    """The format of the value of a field."""

    regexp: str
    placeholder: str


class Instance(msgspec.Struct, omit_defaults=True):
    """A network that is reached by a protocol."""

    desc: str
    fields: dict[str, Any]
    network_id: str
    icon: str | None = None
    instance_id: str | None = None


class Protocol(msgspec.Struct):
    """A protocol as a bridge describes it."""

    user_fields: list[str]
    location_fields: list[str]
    icon: str
    field_types: dict[str, FieldType]
    instances: list[Instance]


class Location(msgspec.Struct):
    """A location on a third-party network, and the alias of its room here."""

    alias: str
    protocol: str
    fields: dict[str, Any]


class User(msgspec.Struct):
    """A user of a third-party network, and their user ID here."""

    userid: str
    protocol: str
    fields: dict[str, Any]


_KINDS: dict[Kind, type[list[Location]] | type[list[User]]] = {
    "location": list[Location],
    "user": list[User],
}


def protocols(server: Server) -> Json:
    """Return {protocol: its metadata} for all protocols."""
    names = dict.fromkeys(name for service in server.appservices.all for name in service.protocols)
    found = {name: _metadata(server, name) for name in names}
    return {name: metadata for name, metadata in found.items() if metadata is not None}


def protocol(server: Server, name: str) -> Json:
    """Return the metadata of a protocol. Raises M_NOT_FOUND."""
    metadata = _metadata(server, name)
    if metadata is None:
        raise errors.not_found(f"No bridge has the protocol {name}")
    return metadata


def search(server: Server, kind: Kind, name: str, fields: Mapping[str, str]) -> list[Json]:
    """Return the users or locations of a protocol with these fields.

    An empty list where no bridge has the protocol. Raises M_NOT_FOUND where the bridges know none.
    """
    return _all(server, kind, _with(server, name), f"{kind}/{name}", fields)


def reverse(server: Server, kind: Kind, query: Mapping[str, str]) -> list[Json]:
    """Return the users or locations to which a user ID or alias belongs.

    An empty list where no bridge has any protocol. Raises M_NOT_FOUND where the bridges know none.
    """
    serving = [service for service in server.appservices.all if service.protocols]
    return _all(server, kind, serving, kind, query)


def instance_id(service: Service, network_id: str) -> str:
    """Return the instance ID of a network of a service."""
    return f"{service.id}|{network_id}"


def set_visibility(
    tx: Tx, service: Service, network_id: str, room_id: str, *, is_published: bool
) -> None:
    """Add a room to the directory of a network, or remove it. Raises M_NOT_FOUND."""
    state.head(tx, room_id)
    key = {"of_service": service.id, "of_network": network_id, "the_room": room_id}
    tx.sql.execute(_REMOVE, key)
    if is_published:
        row = {"service_id": service.id, "network_id": network_id, "room_id": room_id}
        tx.sql.execute(_ADD, row)


def rooms(tx: Reader, instance: str) -> frozenset[str]:
    """Return the rooms of a network, by its instance ID; nothing for an unknown one."""
    found: set[str] = set()
    for service in tx.server.appservices.all:  # either part of the id may have a | in it
        if instance.startswith(prefix := instance_id(service, "")):
            key = {"service_id": service.id, "network_id": instance.removeprefix(prefix)}
            found.update(tx.sql.execute(_OF_NETWORK, key).scalars())
    return frozenset(found)


def all_rooms(tx: Reader) -> frozenset[str]:
    """Return the rooms of all networks."""
    return frozenset(tx.sql.execute(_ALL).scalars())


def remove_room(tx: Tx, room_id: str) -> None:
    """Remove the room from all directories; called by rooms/purge.py alone."""
    tx.sql.execute(_REMOVE_ROOM, {"the_room": room_id})


def _with(server: Server, name: str) -> list[Service]:
    return [service for service in server.appservices.all if name in service.protocols]


def _metadata(server: Server, name: str) -> Json | None:
    """Return the response of the first service, with the networks of all."""
    found: Protocol | None = None
    for service in _with(server, name):
        response = _request(server, service, f"protocol/{name}", {}, Protocol)
        if response is None:
            continue
        for instance in response.instances:
            instance.instance_id = instance_id(service, instance.network_id)
        if found is None:
            found = response
        else:
            found.instances += response.instances
    return None if found is None else msgspec.to_builtins(found)


def _all(
    server: Server, kind: Kind, services: Collection[Service], path: str, query: Mapping[str, str]
) -> list[Json]:
    # Deviates: the specification has only "not found" for an empty result. Clients look up every
    # number that users dial in telephony protocols, and would report an error on most servers
    if not services:
        return []
    responses = [_request(server, it, path, query, _KINDS[kind]) for it in services]
    found = [msgspec.to_builtins(it) for response in responses for it in response or ()]
    if not found:
        raise errors.not_found("No bridge has found any")
    return found


def _request(
    server: Server, service: Service, path: str, query: Mapping[str, str], shape: Any
) -> Any:
    """Return the response of a service as this type; None where it has none."""
    if service.url is None:
        return None
    try:
        response = appservice.third_party(server.config, service, path, query)
        return None if response is None else msgspec.convert(response, shape)
    except (RemoteError, msgspec.ValidationError) as error:
        LOG.warning("%s: no valid response for %s: %s", service.id, path, error)
        return None
