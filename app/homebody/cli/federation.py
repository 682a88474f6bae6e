"""The command `homebody federation …`: connections to other servers, and the signing key."""

from __future__ import annotations

import dataclasses
import time

import click
import msgspec

from homebody import cli
from homebody.cli import as_json, print_result
from homebody.config import values
from homebody.core import server_key
from homebody.outside.federation_check import Check, Finding
from homebody.spec import signing
from homebody.storage import data_folder

_MARKS = {"ok": "ok", "note": "note", "failed": "FAILED"}


@click.group()
def federation() -> None:
    """Check connections to other servers, and replace the signing key."""


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


def _line(finding: Finding) -> str:
    line = f"{_MARKS[finding.status]:7} {finding.step:11} {finding.text}"
    return f"{line}\n{'':20}→ {finding.advice}" if finding.advice else line
