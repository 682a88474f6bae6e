"""The command `homebody doctor`."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path

import click

from homebody import cli
from homebody.cli import as_json, print_lines
from homebody.config.sources import CONFIG_VARIABLE
from homebody.doctor import fetching, findings, last_findings, runner
from homebody.doctor.examination import LONG_POLL_S, Options
from homebody.doctor.findings import Finding


@click.command()
@click.option("--url", metavar="URL", help="Check this URL instead of public_url.")
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Trust these certificate authorities (PEM) as well.",
)
@click.option(
    "--connect-to",
    multiple=True,
    metavar="HOST[:PORT]=ADDRESS:PORT",
    help="Connect to this address instead, for example before the DNS leads there.",
)
@click.option(
    "--long-poll",
    "long_poll_s",
    type=click.FloatRange(1, LONG_POLL_S),
    default=LONG_POLL_S,
    show_default=True,
    help="How many seconds a request waits, to see whether the proxy waits as well.",
)
@click.option("--all", "with_ok", is_flag=True, help="Show also what is in order.")
@as_json
@click.pass_context
def doctor(
    ctx: click.Context,
    url: str | None,
    ca_file: Path | None,
    connect_to: tuple[str, ...],
    long_poll_s: float,
    *,
    with_ok: bool,
    is_json: bool,
) -> None:
    """Check the server from inside, and as clients and other servers see it.

    Run it on the server's machine, as its user, while the server runs; it takes up to half a
    minute, and changes nothing. Without --url, the pages for administrators show what it has found.
    The exit code is 1 if something is broken.
    """
    config = cli.load_config(ctx)
    environ = {**os.environ, **({CONFIG_VARIABLE: str(ctx.obj)} if ctx.obj else {})}
    try:
        targets = fetching.parse_connect_to(connect_to)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--connect-to") from error
    options = Options(url, ca_file, targets, long_poll_s, environ)
    with cli.progress_bar("Checking") as progress:
        found = runner.run(config, options, progress)
    if url is None:
        last_findings.note(config.data_dir, last_findings.command_line(), found)
    _print(found, with_ok=with_ok, is_json=is_json)
    if any(it.severity == "broken" for it in found):
        ctx.exit(1)


def _print(found: list[Finding], *, with_ok: bool, is_json: bool) -> None:
    counts = Counter(it.severity for it in found)
    summary = f"{counts['broken']} broken, {counts['warning']} warnings, {counts['ok']} ok"
    if counts["skipped"]:
        summary += f", {counts['skipped']} not checked"
    lines = [*findings.to_lines(found, with_ok=with_ok), summary]
    value = {
        "ok": not counts["broken"],
        "counts": {it: counts[it] for it in findings.SEVERITIES},
        "findings": [dataclasses.asdict(it) for it in found],
    }
    print_lines(lines, value, is_json=is_json)
