"""The commands `homebody user …` that print what a user does and has set."""

from __future__ import annotations

import click
import orjson

from homebody.cli import DURATION, as_json, print_lines, print_list, print_result
from homebody.cli.accounts import find_account, localpart, user, user_id_of
from homebody.cli.database import open_database
from homebody.core import audit
from homebody.core.accounts import experimental_features
from homebody.core.administration import user_activity as activity
from homebody.core.push import pushers
from homebody.core.sessions import registration
from homebody.core.user_data import account_data
from homebody.spec.events import Json


@user.command("available")
@click.argument("name")
@as_json
@click.pass_context
def check_available(ctx: click.Context, name: str, *, is_json: bool) -> None:
    """Check whether an account can be created with a name; the exit code is 1 if not."""
    with open_database(ctx) as database, database.read() as tx:
        user_id = registration.free_user_id(tx, localpart(name, database.server.name))
    result = {"user_id": user_id, "available": True}
    print_result(f"{user_id} is available", result, is_json=is_json)


@user.command("activity")
@click.argument("name")
@click.option("--since", type=DURATION, default="7 d", help='Such as "30 d"; a week by default.')
@as_json
@click.pass_context
def show_activity(ctx: click.Context, name: str, since: int, *, is_json: bool) -> None:
    """Print how many rooms a user has joined, and how many invites were sent, since a time."""
    with open_database(ctx) as database, database.read() as tx:
        user_id = user_id_of(tx, name)
        from_ts = max(0, tx.now_ms - since)
        joined = activity.count_of_joined_rooms(tx, user_id, from_ts)
        invited = activity.count_of_sent_invites(tx, user_id, from_ts)
    text = f"{user_id}: joined {joined} rooms, sent {invited} invites"
    result = {"from_ts": from_ts, "joined_rooms": joined, "sent_invites": invited}
    print_result(text, {"user_id": user_id, **result}, is_json=is_json)


@user.command("account-data")
@click.argument("name")
@click.option("--type", "event_type", help="Only of this type, such as m.direct.")
@as_json
@click.pass_context
def show_account_data(
    ctx: click.Context, name: str, event_type: str | None, *, is_json: bool
) -> None:
    """Print the account data of a user, without push rules."""
    with open_database(ctx) as database, database.read() as tx:
        found = account_data.everything(tx, find_account(tx, name).user_id)
    if event_type is not None:
        found = {
            room: {event_type: it[event_type]} for room, it in found.items() if event_type in it
        }
    lines = [
        f"{f'{room_id}  ' if room_id else ''}{kind}  {orjson.dumps(content).decode()}"
        for room_id, by_type in sorted(found.items())
        for kind, content in sorted(by_type.items())
    ]
    result = {"global": found.pop("", {}), "rooms": found}
    print_lines(lines, result, is_json=is_json)


@user.command("pushers")
@click.argument("name")
@as_json
@click.pass_context
def list_pushers(ctx: click.Context, name: str, *, is_json: bool) -> None:
    """Print to where notifications of a user are sent."""
    with open_database(ctx) as database, database.read() as tx:
        found = pushers.all_of(tx, find_account(tx, name).user_id)
    print_list(found, _pusher_line, is_json=is_json)


@user.command("features")
@click.argument("name")
@click.option("--on", multiple=True, type=click.Choice(experimental_features.NAMES))
@click.option("--off", multiple=True, type=click.Choice(experimental_features.NAMES))
@as_json
@click.pass_context
def set_features(
    ctx: click.Context, name: str, on: tuple[str, ...], off: tuple[str, ...], *, is_json: bool
) -> None:
    """Print or set the experimental features of an account, as tools for Synapse do.

    They change nothing here: this server has what they name on for all accounts.
    """
    changes = {**dict.fromkeys(on, True), **dict.fromkeys(off, False)}
    if len(changes) < len(on) + len(off):
        raise click.UsageError("A feature is named twice")
    with open_database(ctx) as database, database.write() as tx:
        user_id = find_account(tx, name).user_id
        if changes:
            experimental_features.put(tx, audit.COMMAND_LINE, user_id, changes)
        found = experimental_features.of_user(tx, user_id)
    lines = [f"{feature}  {'on' if is_on else 'off'}" for feature, is_on in found.items()]
    print_lines(lines, {"user_id": user_id, "features": found}, is_json=is_json)


def _pusher_line(it: Json) -> str:
    where = it["data"].get("url") or it["pushkey"]
    return f"{it['app_display_name']} on {it['device_display_name']}  {it['kind']} {where}"
