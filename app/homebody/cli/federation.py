"""The command `homebody federation …`: connections, the signing key, what is yet to be sent."""

from __future__ import annotations

import dataclasses
import time

import click
import msgspec

from homebody import cli
from homebody.cli import as_json, print_list, print_result
from homebody.cli.database import open_database
from homebody.config import values
from homebody.core import audit, server_key
from homebody.core.administration import destinations
from homebody.outside.federation_check import Check, Finding
from homebody.spec import signing
from homebody.spec.events import Json
from homebody.storage import data_folder

_MARKS = {"ok": "ok", "note": "note", "failed": "FAILED"}


@click.group()
def federation() -> None:
    """Check connections to other servers, show what they lack, replace the signing key."""


@federation.command()
@click.argument("server_name", metavar="NAME")
@as_json
@click.pass_context
def check(ctx: click.Context, server_name: str, *, is_json: bool) -> None:
    """Look a server up and connect to it, step by step, and print what each step finds.

    NAME is a server name, the part after the colon in @alice:example.org. Give your own to see what
    other servers find; the exit code is 1 if something fails.
    """
    config = cli.load_config(ctx)
    findings = []
    for finding in Check(config, server_name, server_key.load_or_create(config)).run():
        findings.append(finding)
        if not is_json:  # at once, as a step may take seconds
            click.echo(cli.plain(_line(finding)))
    is_good = not any(finding.status == "failed" for finding in findings)
    if is_json:
        steps = [dataclasses.asdict(finding) for finding in findings]
        print_result("", {"server": server_name, "ok": is_good, "steps": steps}, is_json=True)
    if not is_good:
        ctx.exit(1)


@federation.command()
@as_json
@click.pass_context
def replace_key(ctx: click.Context, *, is_json: bool) -> None:
    """Replace the signing key, for example after somebody else has read it.

    Stop the server first. The command prints what to add to its settings: with it, other servers
    can still verify the events that were signed with the old key.
    """
    config = cli.load_config(ctx)
    with data_folder.locked(config):
        key, kept = server_key.replace(config)
    old = {
        "key_id": key.key_id,
        "key": signing.verify_key_to_base64(key.verify_key),
        "expired_ts": time.time_ns() // 1_000_000,
    }
    listed = [*msgspec.to_builtins(config.old_verify_keys), old]
    text = (
        f"{config.signing_key_path} contains a new key, {kept} the old one. Put this into the"
        f" settings before you start the server:\n\nold_verify_keys = {values.to_toml(listed)}"
    )
    print_result(text, {"old_verify_keys": listed, "old_file": str(kept)}, is_json=is_json)


@federation.command("list")
@as_json
@click.pass_context
def list_destinations(ctx: click.Context, *, is_json: bool) -> None:
    """Print the servers that this one sends to, what they lack, and why they fail."""
    with open_database(ctx) as database:
        found = destinations.waiting(database)
    print_list(found, _destination_line, is_json=is_json)


@federation.command("retry")
@click.argument("server_name", metavar="NAME")
@as_json
@click.pass_context
def retry_destination(ctx: click.Context, server_name: str, *, is_json: bool) -> None:
    """Have the running server try at once to send to a server that failed."""
    with open_database(ctx) as database, database.write() as tx:
        destinations.retry(tx, audit.COMMAND_LINE, server_name)
    print_result(f"{server_name} is tried again", {"server": server_name}, is_json=is_json)


@federation.command("rooms")
@click.argument("server_name", metavar="NAME")
@as_json
@click.pass_context
def list_shared_rooms(ctx: click.Context, server_name: str, *, is_json: bool) -> None:
    """Print the rooms in which a server that this one sends to has users."""
    with open_database(ctx) as database, database.read() as tx:
        found = destinations.shared_rooms(tx, server_name)
    print_list(found, lambda it: str(it["room_id"]), is_json=is_json)


def _destination_line(it: Json) -> str:
    """Return what a server lacks, and since when and why it fails."""
    line = f"{it['server']}  {it['events']} events and {it['edus']} EDUs waiting"
    if it["oldest_edu_ts"] is not None:
        line += f" since {cli.format_day(it['oldest_edu_ts'])}"
    if it["last_sent_ts"] is not None:
        line += f", last sent {cli.format_day(it['last_sent_ts'])}"
    if it["failing_since_ts"] is None:
        return line
    times = "once" if it["tries"] == 1 else f"{it['tries']} times"
    line += f", failed {times} since {cli.format_minute(it['failing_since_ts'])}"
    if it["next_try_ts"] is None:
        line += ", not tried again until it makes a request"
    else:
        line += f", next attempt {cli.format_minute(it['next_try_ts'])}"
    return f"{line}: {it['problem']}"


def _line(finding: Finding) -> str:
    text = finding.text.replace("\n", "\\n")  # the other server may be quoted in it
    line = f"{_MARKS[finding.status]:7} {finding.step:11} {text}"
    return f"{line}\n{'':20}→ {finding.advice}" if finding.advice else line
