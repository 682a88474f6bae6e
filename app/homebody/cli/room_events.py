"""The commands `homebody rooms …` that print events and spaces.

They show all events that this server has, as the views for administrators do; with encryption, only
what is outside of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import click
import orjson

from homebody.cli import DURATION, as_json, format_second, print_lines, print_list, print_result
from homebody.cli.database import open_database
from homebody.cli.rooms import room_argument, rooms
from homebody.core.events import client_events, paging, state, unrestricted
from homebody.core.rooms import aliases, spaces
from homebody.core.sync.spans import SyncToken
from homebody.core.user_data import filters
from homebody.spec.events import Json
from homebody.spec.filters import EVERY_ROOM_EVENT
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader

# the group, with the commands of two modules
__all__ = ["rooms"]

CONTENT_SHOWN: Final = 200
"""Characters of the content on one line."""


@rooms.command("state")
@room_argument
@click.option("--type", "event_type", help="Only of this type, such as m.room.member.")
@as_json
@click.pass_context
def show_state(ctx: click.Context, room: str, *, event_type: str | None, is_json: bool) -> None:
    """Print the current state of a room."""
    with open_database(ctx) as database, database.read() as tx:
        room_id = aliases.resolve(tx, room)
        found = _decoded(tx, unrestricted.current_state(tx, room_id, event_type))
    print_list(found, _line, is_json=is_json)


@rooms.command("messages")
@room_argument
@click.option("--limit", type=click.IntRange(1, paging.MAX_LIMIT), default=20, help="How many; 20.")
@click.option("--oldest-first", is_flag=True, help="Begin with the room's first events.")
@click.option("--from", "start", metavar="TOKEN", help="Go on where the last page has ended.")
@click.option("--type", "types", multiple=True, help="Only of this type; may be repeated.")
@click.option("--sender", "senders", multiple=True, help="Only of this user; may be repeated.")
@as_json
@click.pass_context
def show_messages(
    ctx: click.Context,
    room: str,
    *,
    limit: int,
    oldest_first: bool,
    start: str | None,
    types: tuple[str, ...],
    senders: tuple[str, ...],
    is_json: bool,
) -> None:
    """Print a page of a room's events, the newest first."""
    lists = {"types": types, "senders": senders}
    only = orjson.dumps({name: listed for name, listed in lists.items() if listed})
    with open_database(ctx) as database, database.read() as tx:
        page = unrestricted.messages(
            tx,
            aliases.resolve(tx, room),
            start=None if start is None else SyncToken.parse(start, tx.position).position,
            stop=None,
            is_backwards=not oldest_first,
            limit=limit,
            wanted=filters.resolve_room_event_filter(only.decode()),
        )
        chunk = _decoded(tx, page.events)
    end = None if page.end is None else str(SyncToken(page.end))
    lines = [_line(it) for it in chunk]
    if end is not None:
        lines.append(f"More: --from {end}")
    result = {"chunk": chunk, "start": str(SyncToken(page.start)), "end": end}
    print_lines(lines, result, is_json=is_json)


@rooms.command("event")
@click.argument("event_id", metavar="EVENT_ID")
@click.option(
    "--context",
    "around",
    type=click.IntRange(0, paging.MAX_LIMIT),
    default=0,
    help="Also so many events around it.",
)
@as_json
@click.pass_context
def show_event(ctx: click.Context, event_id: str, *, around: int, is_json: bool) -> None:
    """Print an event, and events before and after it; with --json also the state after them."""
    with open_database(ctx) as database, database.read() as tx:
        event = unrestricted.event(tx, event_id)
        if not around:
            (shown,) = _decoded(tx, [event])
            text = orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode()
            print_result(text, {"event": shown}, is_json=is_json)
            return
        found = unrestricted.context(tx, event.room_id, event_id, around, EVERY_ROOM_EVENT)
        result: Json = {
            "events_before": _decoded(tx, found.before.events),
            "event": _decoded(tx, [found.event])[0],
            "events_after": _decoded(tx, found.after.events),
            "state": _decoded(tx, found.state),
        }
    listed = [*reversed(result["events_before"]), result["event"], *result["events_after"]]
    marked = (("> " if it["event_id"] == event_id else "  ") + _line(it) for it in listed)
    print_lines(marked, result, is_json=is_json)


@rooms.command("event-at")
@room_argument
@click.argument("ago", metavar="TIME", type=DURATION)
@click.option("--before", "is_backwards", is_flag=True, help="The last one before that time.")
@as_json
@click.pass_context
def find_event(
    ctx: click.Context, room: str, ago: int, *, is_backwards: bool, is_json: bool
) -> None:
    """Print the first event since a time, such as "7 d" ago."""
    with open_database(ctx) as database, database.read() as tx:
        room_id, ts = aliases.resolve(tx, room), tx.now_ms - ago
        event_id, found_ts = unrestricted.near(tx, room_id, ts, is_backwards=is_backwards)
    result = {"event_id": event_id, "origin_server_ts": found_ts}
    print_result(f"{event_id}  {format_second(found_ts)}", result, is_json=is_json)


@rooms.command("hierarchy")
@room_argument
@click.option(
    "--max-depth",
    type=click.IntRange(0, spaces.MAX_DEPTH),
    default=spaces.MAX_DEPTH,
    help="How many levels of spaces.",
)
@as_json
@click.pass_context
def show_hierarchy(ctx: click.Context, room: str, *, max_depth: int, is_json: bool) -> None:
    """Print the rooms of a space that this server knows, of the spaces in it, and so on."""
    with open_database(ctx) as database, database.read() as tx:
        room_id = aliases.resolve(tx, room)
        found = _whole_tree(tx, room_id, max_depth)
    depths = _depths(found, room_id)
    lines = [f"{'  ' * depths.get(it['room_id'], 0)}{_room_line(it)}" for it in found]
    print_lines(lines, {"rooms": found}, is_json=is_json)


def _whole_tree(tx: Reader, room_id: str, max_depth: int) -> list[Json]:
    """Return the rooms of a space, of all pages. Raises M_NOT_FOUND."""
    state.head(tx, room_id)
    found: list[Json] = []
    since = None
    while True:
        query = spaces.Query(spaces.MAX_LIMIT, max_depth, since=since)
        response = spaces.page(tx, None, room_id, query).response
        found += response["rooms"]
        since = response.get("next_batch")
        if since is None:
            return found


def _depths(found: list[Json], root: str) -> dict[str, int]:
    """Return {room ID: levels below the root}; a space is before its children in the list."""
    depths = {root: 0}
    for room in found:
        depth = depths.get(room["room_id"], 0) + 1
        for child in room["children_state"]:
            depths.setdefault(child["state_key"], depth)
    return depths


def _decoded(tx: Reader, events: Iterable[ClientEvent]) -> list[Json]:
    return [client_events.as_json(tx, None, it) for it in events]


def _line(event: Json) -> str:
    """Return an event on one line."""
    key = event.get("state_key")
    kind = event["type"] if not key else f"{event['type']} {key}"
    content = orjson.dumps(event["content"]).decode()
    if len(content) > CONTENT_SHOWN:
        content = f"{content[:CONTENT_SHOWN]}…"
    when = format_second(event["origin_server_ts"])
    return f"{when}  {event['sender']}  {kind}  {content}  {event['event_id']}"


def _room_line(room: Json) -> str:
    kind = "space, " if room.get("room_type") == spaces.SPACE else ""
    count = room["num_joined_members"]
    name = room.get("name") or room.get("canonical_alias") or "(no name)"
    return f"{room['room_id']}  {name}  {kind}{count} member{'s' * (count != 1)}"
