"""The command `homebody federation …`: connections, the signing key, what is yet to be sent."""

from __future__ import annotations

import dataclasses
import time
from datetime import datetime

import click
import msgspec

from homebody import cli, errors
from homebody.cli import as_json, print_list, print_result
from homebody.cli.database import open_database
from homebody.config import values
from homebody.core import outbox, outgoing, server_key
from homebody.core.federation import catch_up
from homebody.core.outgoing import Progress
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
            click.echo(_line(finding))
    is_good = not any(finding.status == "failed" for finding in findings)
    if is_json:
        steps = [dataclasses.asdict(finding) for finding in findings]
        print_result("", {"server": server_name, "ok": is_good, "steps": steps}, is_json=True)
    if not is_good:
        ctx.exit(1)


"""The command `homebody federation …`: connections, the signing key, what is yet to be sent."""


def _line(finding: Finding) -> str:
    line = f"{_MARKS[finding.status]:7} {finding.step:11} {finding.text}"
    return f"{line}\n{'':20}→ {finding.advice}" if finding.advice else line
