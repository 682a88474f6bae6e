"""Full-text search of room events.

Spec: client-server-api#server-side-search
"""

from __future__ import annotations

import base64
from typing import Annotated, Final, Literal

import msgspec
import orjson
from flask import Blueprint, request

from homebody import errors
from homebody.client_server import authentication, http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.events import aggregations, client_events, history, search, search_index
from homebody.core.events.search import After, SearchRequest, SearchResult, SearchResults
from homebody.core.sync.spans import SyncToken
from homebody.core.user_data import filters
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Reader

bp = Blueprint("search", __name__)

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 100
MAX_CONTEXT: Final = 50
MAX_TERM: Final = 1000
"""Characters of a search term."""

Natural = Annotated[int, msgspec.Meta(ge=0)]
GroupKey = Literal["room_id", "sender"]


class EventContext(msgspec.Struct):
    """How many events around a result are wanted."""

    before_limit: Natural = 5
    after_limit: Natural = 5
    include_profile: bool = False


class Group(msgspec.Struct):
    """A key by which results are grouped."""

    key: GroupKey | None = None


class Groupings(msgspec.Struct):
    """The keys by which results are grouped."""

    group_by: list[Group] = []


class Criteria(msgspec.Struct):
    """A search for room events."""

    search_term: Annotated[str, msgspec.Meta(max_length=MAX_TERM)]
    keys: list[Literal["content.body", "content.name", "content.topic"]] | None = None
    filter: Json = {}
    order_by: search.Order = "rank"
    event_context: EventContext | None = None
    include_state: bool = False
    groupings: Groupings | None = None


class Categories(msgspec.Struct):
    """The categories of a search; there is only one."""

    room_events: Criteria | None = None


class Search(msgspec.Struct):
    """The body of /search."""

    search_categories: Categories


@bp.post("/search", endpoint="search")
@authenticated(suspended=True, only_reads=True)
def search_() -> Json:
    """Return the visible events that contain the words of the search term."""
    criteria = http.body_as(Search).search_categories.room_events
    if criteria is None:
        return {"search_categories": {}}
    wanted = _search_request(criteria)
    user_id = requester().user_id
    authentication.rate_limits().check("rc_search", user_id)
    with search.turn(user_id):  # before the snapshot: waiting must not hold one
        search_index.catch_up(homeserver.database)
        with homeserver.database.read() as tx:
            results = search.find(tx, user_id, wanted)
            response = _response(tx, requester(), criteria, wanted, results)
    return {"search_categories": {"room_events": response}}


def _search_request(criteria: Criteria) -> SearchRequest:
    try:
        wanted = filters.parse_room_event_filter(criteria.filter)
    except ValueError as error:
        raise errors.bad_json(f"filter: {error}") from None
    keys = search.COLUMNS if criteria.keys is None else criteria.keys
    limit = DEFAULT_LIMIT if wanted.limit is None else max(1, wanted.limit)
    text = request.args.get("next_batch")
    return SearchRequest(
        words=search_index.words(criteria.search_term)[: search.MAX_WORDS],
        columns=sorted({search.COLUMNS[key] for key in keys}),
        order=criteria.order_by,
        limit=min(limit, MAX_LIMIT),
        wanted=wanted,
        after=_parse(text) if text else None,
    )


def _response(
    tx: Reader, me: Requester, criteria: Criteria, wanted: SearchRequest, found: SearchResults
) -> Json:
    events = [hit.event for hit in found.results]
    shown = aggregations.encode_all(tx, me, events)
    results: list[Json] = [
        {"rank": hit.rank, "result": event} for hit, event in zip(found.results, shown, strict=True)
    ]
    if criteria.event_context is not None:
        for hit, result in zip(found.results, results, strict=True):
            result["context"] = _context(tx, me, hit, criteria.event_context)
    response: Json = {
        "count": max(found.total, len(results)),
        "highlights": list(wanted.words),
        "results": results,
    }
    if found.end is not None:
        response["next_batch"] = _token(found.end)
    if criteria.groupings is not None:
        response["groups"] = _groups(criteria.groupings, found)
    if criteria.include_state:
        room_ids = sorted({event.room_id for event in events})
        response["state"] = {
            room_id: client_events.encode_state(tx, me, history.state_of(tx, me.user_id, room_id))
            for room_id in tx.pausing(room_ids, every=1)
        }
    return response


def _context(tx: Reader, me: Requester, hit: SearchResult, wanted: EventContext) -> Json:
    """Return the events around a result."""
    around = search.context_of(
        tx,
        me.user_id,
        hit.event,
        min(wanted.before_limit, MAX_CONTEXT),
        min(wanted.after_limit, MAX_CONTEXT),
        with_profiles=wanted.include_profile,
    )
    older = around.before.events
    at = hit.event.position
    end = around.after.events[-1].position if around.after.events else at
    context: Json = {
        "start": str(SyncToken((older[-1].position if older else at) - 1)),
        "end": str(SyncToken(end)),
        "events_before": aggregations.encode_all(tx, me, older, {}),
        "events_after": aggregations.encode_all(tx, me, around.after.events, {}),
    }
    if wanted.include_profile:
        context["profile_info"] = around.profiles
    return context


def _groups(groupings: Groupings, found: SearchResults) -> Json:
    """Return {key: {room or user ID: its results}}, in the order of their first results."""
    groups: Json = {}
    for key in sorted({group.key for group in groupings.group_by if group.key is not None}):
        members: dict[str, list[SearchResult]] = {}
        for hit in found.results:
            members.setdefault(getattr(hit.event, key), []).append(hit)
        groups[key] = {
            name: _group(order, (key, name), hits, found)
            for order, (name, hits) in enumerate(members.items())
        }
    return groups


def _group(
    order: int, key: tuple[str, str], hits: list[SearchResult], found: SearchResults
) -> Json:
    group: Json = {"order": order, "results": [hit.event.event_id for hit in hits]}
    if found.end is not None:  # there may be more results of this group as well
        group["next_batch"] = _token(found.end._replace(group=key))
    return group


def _token(after: After) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(after)).decode().rstrip("=")


def _parse(token: str) -> After:
    """Return the position of a `next_batch`. Raises M_INVALID_PARAM for anything else."""
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        after = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=After)
    except (ValueError, orjson.JSONDecodeError):
        raise errors.invalid_param("next_batch is not a token of this server") from None
    if not all(0 <= number <= http.MAX_INTEGER for number in (after.number, after.total)):
        raise errors.invalid_param("next_batch is not a token of this server")
    return after
