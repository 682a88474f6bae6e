"""The command `homebody federation …`: whether servers can find and reach each other."""

from __future__ import annotations

import dataclasses

import click

from homebody import cli
from homebody.cli import as_json, print_result
from homebody.core import server_key
from homebody.outside.federation_check import Check, Finding

_MARKS = {"ok": "ok", "note": "note", "failed": "FAILED"}


@click.group()
def federation() -> None:
    """Check connections to other servers."""


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


def _line(finding: Finding) -> str:
    line = f"{_MARKS[finding.status]:7} {finding.step:11} {finding.text}"
    return f"{line}\n{'':20}→ {finding.advice}" if finding.advice else line
