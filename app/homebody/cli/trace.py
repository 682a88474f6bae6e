"""The command `homebody trace`."""

from __future__ import annotations

import shlex
import socket
import time
from collections.abc import Iterator
from typing import Final

import click
import orjson

from homebody import cli
from homebody.cli import DURATION, as_json
from homebody.cli.accounts import find_account
from homebody.cli.database import open_database
from homebody.core import audit
from homebody.runtime import traces
from homebody.spec.events import Json

SECONDS_TO_GREET: Final = 3.0
"""A running server greets within a second; beyond this, the command says that there is none."""
_UNTIL_NOTED: Final = 0.2


@click.command()
@click.argument("name", metavar="USER")
@click.option(
    *("--for", "for_ms"),
    type=DURATION,
    default="5 min",
    help='How long, for example "30s" or "1 h"; 5 minutes.',
)
@click.option("--no-bodies", is_flag=True, help="Leave out what the requests contain.")
@as_json
@click.pass_context
def trace(ctx: click.Context, name: str, for_ms: int, *, no_bodies: bool, is_json: bool) -> None:
    """Print the requests of a user as they come, as curl commands.

    Passwords, tokens and other secrets are masked; what messages say is not. With --json, each line
    is an object. Ctrl-C ends it.
    """
    config = cli.load_config(ctx)
    with open_database(ctx) as database, database.read() as tx:
        user_id = find_account(tx, name).user_id
    with traces.listening(config.data_dir, user_id) as bound:
        # The server looks for sockets because of this write
        with open_database(ctx) as database, database.write() as tx:
            audit.note(tx, audit.COMMAND_LINE, "user.trace", user_id, for_ms=for_ms)
        try:
            for seen in _messages(bound, user_id, for_ms / 1000):
                shown = {**seen, "body": None} if no_bodies else seen
                text = orjson.dumps(shown).decode() if is_json else _curl(shown, config.public_url)
                click.echo(cli.plain(text))
        except KeyboardInterrupt:
            click.echo("", err=True)


def _messages(bound: socket.socket, user_id: str, seconds: float) -> Iterator[Json]:
    """Yield what the server sends about requests, and say on stderr whether there is a server."""
    began, was_greeted, is_warned = time.monotonic(), False, False
    while (left := began + seconds - time.monotonic()) > 0:
        bound.settimeout(min(left, _UNTIL_NOTED))
        try:
            message = orjson.loads(bound.recv(traces.MAX_BYTES))
        except TimeoutError:
            if not was_greeted and not is_warned and time.monotonic() > began + SECONDS_TO_GREET:
                is_warned = True
                click.echo("No server answers: it is not running, or has no access", err=True)
            continue
        if dropped := message.pop("dropped"):
            click.echo(f"{dropped} requests were too quick to be shown", err=True)
        if "is_greeting" in message:
            again = "again " if was_greeted else ""
            click.echo(f"The server {again}reports the requests of {user_id}", err=True)
            was_greeted = True
        else:
            yield message


def _curl(seen: Json, public_url: str) -> str:
    """Return a request as a command, and its outcome as a comment."""
    method, body = seen["method"], seen["body"]
    url = seen["path"] if "://" in seen["path"][:8] else public_url.rstrip("/") + seen["path"]
    words = ["curl"]
    if method == "HEAD":
        words.append("-I")
    elif method != "GET":
        words += ["-X", shlex.quote(method)]
    words.append(shlex.quote(url))
    if seen["has_token"]:
        words.append('-H "Authorization: Bearer $TOKEN"')
    if body is not None:
        words += ["--data", shlex.quote(orjson.dumps(body).decode())]
    elif seen["body_bytes"]:
        words.append(f"# and {seen['body_bytes']} bytes that are not shown")
    clock = time.strftime("%H:%M:%S", time.localtime(seen["time_ms"] / 1000))
    parts = [f"{seen['status']} in {seen['seconds']:.3f} s", clock, f"request {seen['request_id']}"]
    if seen["device_id"]:
        parts.append(f"device {seen['device_id']}")
    outcome = ", ".join(parts).replace("\n", " ")
    return f"{' '.join(words)}\n# {outcome}"
