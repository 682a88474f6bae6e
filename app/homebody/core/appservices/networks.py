"""Third-party networks: what bridges tell of the people and places beyond them.

Each question goes to the services that have the protocol, and their answers are put together. One
that does not answer, or not as the specification has it, is left out.
Spec: client-server-api#third-party-networks, application-service-api#third-party-networks
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, Literal

import msgspec

from homebody import errors
from homebody.core.appservices import directory
from homebody.outside import RemoteError, appservice
from homebody.spec.appservices import Service
from homebody.spec.events import Json
from homebody.storage.database import Server

LOG = logging.getLogger(__name__)

Kind = Literal["user", "location"]


class FieldType(msgspec.Struct):
    """How the value of a field has to look."""

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
    """What a bridge tells of a protocol."""

    user_fields: list[str]
    location_fields: list[str]
    icon: str
    field_types: dict[str, FieldType]
    instances: list[Instance]


class Location(msgspec.Struct):
    """A place beyond a bridge, and the alias of its room here."""

    alias: str
    protocol: str
    fields: dict[str, Any]


class User(msgspec.Struct):
    """Somebody beyond a bridge, and their user id here."""

    userid: str
    protocol: str
    fields: dict[str, Any]


_KINDS: dict[Kind, type[list[Location]] | type[list[User]]] = {
    "location": list[Location],
    "user": list[User],
}


def protocols(server: Server) -> Json:
    """{protocol: what the services tell of it}, of all protocols."""
    names = dict.fromkeys(name for service in server.appservices.all for name in service.protocols)
    found = {name: _metadata(server, name) for name in names}
    return {name: metadata for name, metadata in found.items() if metadata is not None}


def protocol(server: Server, name: str) -> Json:
    """What the services tell of a protocol. Raises M_NOT_FOUND."""
    metadata = _metadata(server, name)
    if metadata is None:
        raise errors.not_found(f"No bridge has the protocol {name}")
    return metadata


def search(server: Server, kind: Kind, name: str, fields: Mapping[str, str]) -> list[Json]:
    """Return the users or locations of a protocol with these fields.

    None where no bridge serves the protocol. Raises M_NOT_FOUND when those that do know none.
    """
    return _all(server, kind, _with(server, name), f"{kind}/{name}", fields)


def reverse(server: Server, kind: Kind, query: Mapping[str, str]) -> list[Json]:
    """Return the users or locations that stand behind a user id or alias.

    None where no bridge serves any protocol. Raises M_NOT_FOUND when those that do know none.
    """
    serving = [service for service in server.appservices.all if service.protocols]
    return _all(server, kind, serving, kind, query)


def _with(server: Server, name: str) -> list[Service]:
    return [service for service in server.appservices.all if name in service.protocols]


def _metadata(server: Server, name: str) -> Json | None:
    """The answer of the first service, with the networks of all."""
    found: Protocol | None = None
    for service in _with(server, name):
        answer = _ask(server, service, f"protocol/{name}", {}, Protocol)
        if answer is None:
            continue
        for instance in answer.instances:
            instance.instance_id = directory.instance_id(service, instance.network_id)
        if found is None:
            found = answer
        else:
            found.instances += answer.instances
    return None if found is None else msgspec.to_builtins(found)


def _all(
    server: Server, kind: Kind, services: Collection[Service], path: str, query: Mapping[str, str]
) -> list[Json]:
    # Deviates: "not found" is all that the specification has for an empty result. Clients look up
    # every number they dial in protocols of telephony, and would report an error on most servers
    if not services:
        return []
    answers = [_ask(server, it, path, query, _KINDS[kind]) for it in services]
    found = [msgspec.to_builtins(it) for answer in answers for it in answer or ()]
    if not found:
        raise errors.not_found("No bridge knows of any")
    return found


def _ask(server: Server, service: Service, path: str, query: Mapping[str, str], shape: Any) -> Any:
    """What a service answers, in this shape; None when it has nothing to tell."""
    if service.url is None:
        return None
    try:
        answer = appservice.third_party(server.config, service, path, query)
        return None if answer is None else msgspec.convert(answer, shape)
    except (RemoteError, msgspec.ValidationError) as error:
        LOG.warning("%s does not tell of %s: %s", service.id, path, error)
        return None
