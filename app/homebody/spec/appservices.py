"""Registration files of application services, and the namespaces they claim.

In an exclusive namespace only the service itself may create users and aliases. Regular expressions
are anchored at the start of a name but not at its end, as existing bridges expect.

Spec: application-service-api#registration
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from homebody.spec import identifiers

MAX_CACHED: Final = 20_000
"""Users whose services are cached: a message in a room of 200 looks up 200 users."""

_POSIX_CLASSES: Final = {
    "[:alnum:]": "a-zA-Z0-9",
    "[:alpha:]": "a-zA-Z",
    "[:blank:]": r" \t",
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:punct:]": r"!-/:-@\[-`{-~",
    "[:space:]": r"\s",
    "[:upper:]": "A-Z",
    "[:word:]": r"\w",
    "[:xdigit:]": "0-9A-Fa-f",
}


class NamespaceFile(msgspec.Struct):
    """A namespace in a registration file."""

    regex: str
    exclusive: bool


class NamespacesFile(msgspec.Struct):
    """The `namespaces` of a registration file."""

    users: list[NamespaceFile] | None = None
    aliases: list[NamespaceFile] | None = None
    rooms: list[NamespaceFile] | None = None


class RegistrationFile(msgspec.Struct):
    """The contents of a registration file; unknown keys are ignored."""

    id: str
    url: str | None
    as_token: str
    hs_token: str
    sender_localpart: str
    namespaces: NamespacesFile
    rate_limited: bool = True
    receive_ephemeral: bool = False
    # the name used by bridges before version 1.13 of the specification
    push_ephemeral: bool = msgspec.field(default=False, name="de.sorunome.msc2409.push_ephemeral")
    msc3202: bool = msgspec.field(default=False, name="org.matrix.msc3202")
    protocols: list[str] | None = None
    use_legacy_authorization: bool = False
    """An extension, named after Synapse's setting: also send the hs_token in the URL."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A pattern of user IDs, aliases or room IDs."""

    pattern: re.Pattern[str]
    is_exclusive: bool

    def has(self, name: str) -> bool:
        """Return whether the name is in the namespace."""
        return self.pattern.match(name) is not None


@dataclass(frozen=True, slots=True, eq=False)  # there is one object per service
class Service:
    """An application service: a bridge or bot that the administrator has registered."""

    id: str
    url: str | None
    """Without a trailing slash. None if the service wants no traffic."""
    as_token: str
    hs_token: str
    sender: str
    """The user ID of the service's own user."""
    users: tuple[Namespace, ...]
    aliases: tuple[Namespace, ...]
    rooms: tuple[Namespace, ...]
    is_rate_limited: bool
    wants_ephemeral: bool
    wants_encryption: bool
    """It wants what concerns the devices of its users."""
    protocols: tuple[str, ...]
    wants_token_in_query: bool
    """It predates version 1.4 of the specification and expects its hs_token in the URL."""


def parse(raw: Any, server_name: str) -> Service:
    """Return the service that a registration file describes. Raises ValueError with a message."""
    try:
        file = msgspec.convert(raw, RegistrationFile)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    for key in ("id", "as_token", "hs_token", "sender_localpart"):
        value = getattr(file, key)
        if not value or not value.isprintable() or not value.isascii():
            raise ValueError(f"{key} must be printable ASCII text, and not empty")
    sender = f"@{file.sender_localpart}:{server_name}"
    if not identifiers.is_user_id(sender):
        raise ValueError("sender_localpart must be the localpart of a user ID")
    return Service(
        file.id,
        _url(file.url),
        file.as_token,
        file.hs_token,
        sender,
        _namespaces("users", file.namespaces.users),
        _namespaces("aliases", file.namespaces.aliases),
        _namespaces("rooms", file.namespaces.rooms),
        file.rate_limited,
        file.receive_ephemeral or file.push_ephemeral,
        file.msc3202,
        tuple(file.protocols or ()),
        file.use_legacy_authorization,
    )


class Services:
    """All application services of a server, with look-ups by token and by name."""

    def __init__(self, services: Iterable[Service] = (), server_name: str = "") -> None:
        """Index the services. Raises ValueError when two share an id or a token."""
        self.all: Final = tuple(services)
        self._domain = f":{server_name}"
        self._by_token = {hash_of(service.as_token): service for service in self.all}
        self._by_id = {service.id: service for service in self.all}
        if len(self._by_id) < len(self.all):
            raise ValueError("two application services have the same id")
        if len(self._by_token) < len(self.all):
            raise ValueError("two application services have the same as_token")
        self._of_user: dict[str, tuple[Service, ...]] = {}
        self._owners: dict[str, Service | None] = {}
        self.wants_ephemeral = any(service.wants_ephemeral for service in self.all)
        self.wants_encryption = any(service.wants_encryption for service in self.all)

    def by_id(self, service_id: str) -> Service | None:
        """Return the service with this id."""
        return self._by_id.get(service_id)

    def by_token(self, token: str) -> Service | None:
        """Return the service with this as_token; compares hashes, so timing reveals nothing."""
        return self._by_token.get(hash_of(token))

    def of_user(self, user_id: str) -> tuple[Service, ...]:
        """Return the services interested in a local user or whose own user it is."""
        if not self.all:
            return ()
        known = self._of_user.get(user_id)
        if known is None:
            known = tuple(it for it in self.all if self.has_user(it, user_id))
            _make_room(self._of_user)
            self._of_user[user_id] = known
        return known

    def has_user(self, service: Service, user_id: str) -> bool:
        """Return whether a service may act as a user: its own user, or one in its namespaces."""
        if not user_id.endswith(self._domain):
            return False  # "application services can only register interest in local users"
        return user_id == service.sender or any(it.has(user_id) for it in service.users)

    def owner_of_user(self, user_id: str) -> Service | None:
        """Return the service that claims this user exclusively."""
        if not self.all:
            return None
        if user_id not in self._owners:
            owners = (
                service
                for service in self.of_user(user_id)
                if user_id == service.sender or _claims_exclusively(service.users, user_id)
            )
            _make_room(self._owners)
            self._owners[user_id] = next(owners, None)
        return self._owners[user_id]

    def with_encryption(self, user_id: str) -> Service | None:
        """Return the service that claims this user exclusively, if it wants what its devices get.

        A service without a URL gets nothing.
        """
        owner = self.owner_of_user(user_id) if self.wants_encryption else None
        return None if owner is None or not owner.wants_encryption or not owner.url else owner

    def owner_of_alias(self, alias: str) -> Service | None:
        """Return the service that claims this alias exclusively."""
        return next((it for it in self.all if _claims_exclusively(it.aliases, alias)), None)


def hash_of(token: str) -> bytes:
    """Return the hash under which a token is stored."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _make_room(cache: dict[str, Any]) -> None:
    if len(cache) >= MAX_CACHED:
        cache.clear()


def _claims_exclusively(namespaces: tuple[Namespace, ...], name: str) -> bool:
    return any(it.is_exclusive and it.has(name) for it in namespaces)


def _url(url: str | None) -> str | None:
    if url is None or not url:
        return None
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise ValueError("url must begin with http:// or https://, or be null")
    if parts.port == 0:  # above 65535, `port` itself raises ValueError
        raise ValueError("url must have a port from 1 to 65535")
    return url.rstrip("/")


def _namespaces(kind: str, given: list[NamespaceFile] | None) -> tuple[Namespace, ...]:
    found = []
    for namespace in given or ():
        regex = namespace.regex
        for name, characters in _POSIX_CLASSES.items():
            regex = regex.replace(name, characters)
        try:
            found.append(Namespace(re.compile(regex), namespace.exclusive))
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"namespaces.{kind}: {namespace.regex!r}: {error}") from None
    return tuple(found)
