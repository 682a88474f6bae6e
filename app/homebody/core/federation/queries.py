"""What other servers know: profiles, aliases and published rooms, asked for when users name them.

Profiles are kept for an hour, as clients request them again and again; failures for a minute.

Spec: server-server-api#querying-for-information, server-server-api#published-room-directory
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import orjson

from homebody import errors
from homebody.core.federation import asking, remote_summaries
from homebody.core.profiles.profiles import IN_ROOMS
from homebody.core.rooms import directory
from homebody.errors import MatrixError
from homebody.outside.expiring import Expiring
from homebody.outside.federation import FederationClient, path_of
from homebody.runtime.single_flight import Repeats
from homebody.spec import identifiers
from homebody.spec.events import Json

PROFILE_SECONDS: Final = 3600.0
FAILURE_SECONDS: Final = 60.0
MAX_PROFILES: Final = 5_000
MAX_PROFILE_BYTES: Final = 80 * 1024
"""The specification's limit is 64 KiB, in canonical JSON."""
MAX_KEPT_BYTES: Final = 8 * 1024
"""Larger profiles are asked for each time."""
MAX_ALIAS_BYTES: Final = 512 * 1024
MAX_SERVERS: Final = 1000
MAX_DIRECTORY_BYTES: Final = 4 * 2**20


class Resolved(NamedTuple):
    """The room of an alias, and servers by which it may be joined."""

    room_id: str
    servers: list[str]


class RemoteQueries:
    """Asks other servers. Its methods wait, so none may be called inside a transaction."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client
        self._profiles: Expiring[str, bytes | MatrixError] = Expiring(MAX_PROFILES)
        self._under_way = Repeats()

    def profile(self, user_id: str, may_ask: Callable[[], None]) -> Json:
        """Return the profile of a user of another server.

        `may_ask` is called before the server is asked, to raise the error of a rate limit.
        Raises M_NOT_FOUND for an unknown user, and as `asking.error_of` says.
        """
        found = self._profiles.get(user_id)
        if found is None:
            may_ask()
            found = self._under_way.once(user_id, lambda: self._fetch_profile(user_id))
        if isinstance(found, MatrixError):
            raise MatrixError(found.status, found.errcode, found.message)  # each its own traceback
        profile: Json = orjson.loads(found)
        return profile

    def profile_field(self, user_id: str, name: str, may_ask: Callable[[], None]) -> Json:
        """Return an object with one field of a profile. Raises as `profile` does."""
        profile = self.profile(user_id, may_ask)
        if name not in profile:
            raise errors.not_found("The profile has no such field")
        return {name: profile[name]}

    def _fetch_profile(self, user_id: str) -> bytes | MatrixError:
        """Return a profile as JSON, or why there is none: all who wait for it get the same."""
        server = identifiers.server_name(user_id)
        try:
            found = asking.ask(
                self._client,
                server,
                "GET",
                path_of("query", "profile"),
                query={"user_id": user_id},
                max_bytes=MAX_PROFILE_BYTES,
            )
        except MatrixError as error:
            self._profiles.put(user_id, error, FAILURE_SECONDS)
            return error
        profile = orjson.dumps({name: it for name, it in found.items() if _is_field(name, it)})
        if len(profile) <= MAX_KEPT_BYTES:
            self._profiles.put(user_id, profile, PROFILE_SECONDS)
        return profile

    def alias(self, alias: str) -> Resolved:
        """Return the room of an alias of another server.

        Raises M_NOT_FOUND for an unknown alias, and as `asking.error_of` says.
        """
        server = identifiers.server_name(alias)
        found = asking.ask(
            self._client,
            server,
            "GET",
            path_of("query", "directory"),
            query={"room_alias": alias},
            max_bytes=MAX_ALIAS_BYTES,
        )
        room_id, servers = found.get("room_id"), found.get("servers")
        if not identifiers.is_room_id(room_id):
            raise errors.unknown(f"{server} names no valid room for this alias", 502)
        listed = servers if isinstance(servers, list) else []
        valid = list(dict.fromkeys(filter(identifiers.is_server_name, listed)))[:MAX_SERVERS]
        return Resolved(room_id, valid or [server])

    def public_rooms(self, server: str, query: directory.Query) -> Json:
        """Return a page of another server's directory, without what is not valid in it.

        Raises as `asking.error_of` says.
        """
        parameters: Json = {
            "limit": query.limit,
            "since": query.since or None,
            "include_all_networks": query.has_all_networks or None,
            "third_party_instance_id": query.network,
        }
        parameters = {name: value for name, value in parameters.items() if value is not None}
        wanted = {
            "generic_search_term": query.search_term or None,
            "room_types": None if query.room_types is None else list(query.room_types),
        }
        wanted = {name: value for name, value in wanted.items() if value is not None}
        if wanted:
            options: dict[str, Any] = {"json": {**parameters, "filter": wanted}}
        else:
            options = {"query": {name: _text(value) for name, value in parameters.items()}}
        page = asking.ask(
            self._client,
            server,
            "POST" if wanted else "GET",
            path_of("publicRooms"),
            max_bytes=MAX_DIRECTORY_BYTES,
            **options,
        )
        return _checked_page(server, page)


def _is_field(name: str, value: object) -> bool:
    """Return whether a client can take this as a field; some servers send null for no avatar."""
    return name not in IN_ROOMS or isinstance(value, str)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _checked_page(server: str, page: Json) -> Json:
    """Return a page of a directory without what is not valid. Raises 502 if it is not a page."""
    chunk = page.get("chunk")
    if not isinstance(chunk, list):
        raise errors.unknown(f"{server} responds with something else than its directory", 502)
    rooms = [remote_summaries.checked(it) for it in chunk]
    checked: Json = {"chunk": [room for room in rooms if room is not None]}
    for name in ("next_batch", "prev_batch"):
        if isinstance(page.get(name), str):
            checked[name] = page[name]
    total = page.get("total_room_count_estimate")
    if isinstance(total, int) and not isinstance(total, bool) and total >= 0:
        checked["total_room_count_estimate"] = total
    return checked
