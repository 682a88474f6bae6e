"""The commands `homebody token …`."""

from __future__ import annotations

import time

import click

from homebody.cli import DURATION, as_json, format_day, print_list, print_result
from homebody.cli.database import open_database
from homebody.core import audit
from homebody.core.sessions import registration_tokens
from homebody.spec.events import Json


@click.group()
def token() -> None:
    """Manage registration tokens."""


@token.command("add")
@click.option("--token", "text", help="The token; by default a random one.")
@click.option(
    "--uses",
    type=click.IntRange(1),
    help="How many accounts can be registered with it; by default any number.",
)
@click.option(
    "--lifetime", type=DURATION, help='For example "7 d" or "12 h"; unlimited by default.'
)
@as_json
@click.pass_context
def add_token(
    ctx: click.Context, text: str | None, uses: int | None, lifetime: int | None, *, is_json: bool
) -> None:
    """Create a registration token and print it."""
    with open_database(ctx) as database, database.write() as tx:
        expires_ts = None if lifetime is None else tx.now_ms + lifetime
        text = registration_tokens.add(
            tx, audit.COMMAND_LINE, text, uses_allowed=uses, expires_ts=expires_ts
        )
        added = registration_tokens.find(tx, text)
    print_result(text, added, is_json=is_json)


@token.command("list")
@click.option("--valid/--invalid", "valid", default=None, help="Only those that are (not) valid.")
@as_json
@click.pass_context
def list_tokens(ctx: click.Context, *, valid: bool | None, is_json: bool) -> None:
    """Print all registration tokens."""
    with open_database(ctx) as database, database.read() as tx:
        tokens = registration_tokens.every(tx, valid=valid)
    print_list(tokens, _token_line, is_json=is_json)


@token.command("show")
@click.argument("text", metavar="TOKEN")
@as_json
@click.pass_context
def show_token(ctx: click.Context, text: str, *, is_json: bool) -> None:
    """Print a registration token with its limits, and how often it was used."""
    with open_database(ctx) as database, database.read() as tx:
        found = registration_tokens.find(tx, text)
    print_result(_token_line(found), found, is_json=is_json)


@token.command("set")
@click.argument("text", metavar="TOKEN")
@click.option(
    "--uses",
    type=click.IntRange(0),
    help="How many accounts can be registered with it, including those that were.",
)
@click.option("--any-uses", is_flag=True, help="It can be used any number of times.")
@click.option("--lifetime", type=DURATION, help='From now on, for example "7 d" or "12 h".')
@click.option("--no-end", is_flag=True, help="It does not expire.")
@as_json
@click.pass_context
def change_token(
    ctx: click.Context,
    text: str,
    *,
    uses: int | None,
    any_uses: bool,
    lifetime: int | None,
    no_end: bool,
    is_json: bool,
) -> None:
    """Change the limits of a registration token."""
    limits: dict[str, int | None] = {}
    if any_uses or uses is not None:
        limits["uses_allowed"] = None if any_uses else uses
    if no_end:
        limits["expires_ts"] = None
    elif lifetime is not None:
        limits["expires_ts"] = time.time_ns() // 1_000_000 + lifetime
    if not limits:
        raise click.UsageError("Give --uses, --any-uses, --lifetime or --no-end")
    with open_database(ctx) as database, database.write() as tx:
        registration_tokens.change(tx, audit.COMMAND_LINE, text, limits)
        changed = registration_tokens.find(tx, text)
    print_result(_token_line(changed), changed, is_json=is_json)


@token.command("revoke")
@click.argument("text", metavar="TOKEN")
@as_json
@click.pass_context
def revoke_token(ctx: click.Context, text: str, *, is_json: bool) -> None:
    """Revoke a registration token."""
    with open_database(ctx) as database, database.write() as tx:
        registration_tokens.remove(tx, audit.COMMAND_LINE, text)
    print_result(f"Revoked {text}", {"token": text}, is_json=is_json)


def _token_line(row: Json) -> str:
    allowed = "any number" if row["uses_allowed"] is None else row["uses_allowed"]
    pending = f", {row['pending']} pending" if row["pending"] else ""
    until = "" if row["expires_ts"] is None else f", until {format_day(row['expires_ts'])}"
    return f"{row['token']}  used {row['uses']} of {allowed}{pending}{until}"
