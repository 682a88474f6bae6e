"""The command `homebody audit`."""

from __future__ import annotations

import click
import orjson

from homebody.cli import as_json, format_second, print_list
from homebody.cli.database import open_database
from homebody.core import audit as audit_log
from homebody.spec.events import Json


@click.command()
@click.option("--subject", help="Only what concerns this user, room, file or token.")
@click.option("--by", "actor", metavar="USER_ID", help="Only what this administrator has done.")
@click.option("--limit", type=click.IntRange(1), default=100, help="How many entries; 100.")
@as_json
@click.pass_context
def audit(
    ctx: click.Context, subject: str | None, *, actor: str | None, limit: int, is_json: bool
) -> None:
    """Print what administrators have done, the newest first."""
    with open_database(ctx) as database, database.read() as tx:
        found = audit_log.latest(tx, limit, subject=subject, actor=actor)
    print_list(found, _line, is_json=is_json)


def _line(entry: Json) -> str:
    when = format_second(entry["ts"])
    details = orjson.dumps(entry["details"]).decode() if entry["details"] else ""
    words = (when, entry["actor"], entry["action"], entry["subject"] or "", details)
    return "  ".join(word for word in words if word)
