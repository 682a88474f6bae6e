"""The command `homebody appservices …`: the status of application services, and skipping.

An application service that fails on a transaction gets nothing else until it accepts it. The server
retries forever, as the specification requires; only an administrator can decide to lose events.
"""

from __future__ import annotations

import click

from homebody import cli
from homebody.cli import as_json, print_lines, print_list
from homebody.cli.database import open_database
from homebody.core import audit, outbox
from homebody.core.appservices import files, transactions
from homebody.core.outbox import Queue
from homebody.spec.appservices import Service
from homebody.spec.events import Json


@click.group()
def appservices() -> None:
    """Show the status of bridges and bots, and skip what one refuses."""


@appservices.command("list")
@as_json
@click.pass_context
def list_appservices(ctx: click.Context, *, is_json: bool) -> None:
    """Print all application services and the transactions that wait for them."""
    with open_database(ctx) as database, database.read() as tx:
        queues = {queue.destination: queue for queue in outbox.queues(tx, transactions.KIND)}
    services = files.load(cli.load_config(ctx)).all
    found = [_described(service, queues.get(service.id)) for service in services]
    print_list(found, _line, is_json=is_json)


@appservices.command("skip")
@click.argument("service_id", metavar="ID")
@as_json
@click.pass_context
def skip_transaction(ctx: click.Context, service_id: str, *, is_json: bool) -> None:
    """Drop the transaction that a service refuses, so that it gets the next one.

    The service will never get its events.
    """
    with open_database(ctx) as database, database.write() as tx:
        skipped = transactions.skip(tx, audit.COMMAND_LINE, service_id)
        event_ids = transactions.event_ids(tx, skipped)
        queues = outbox.queues(tx, transactions.KIND)
    left = next((it.count for it in queues if it.destination == service_id), 0)
    text = f"Skipped {len(skipped)} events for {service_id}; {left} are waiting"
    result = {"skipped": len(skipped), "event_ids": event_ids, "waiting": left}
    print_lines([text, *event_ids], result, is_json=is_json)


def _described(service: Service, queue: Queue | None) -> Json:
    return {
        "id": service.id,
        "url": service.url,
        "waiting": queue.count if queue else 0,
        "tries": queue.first.tries if queue else 0,
        "failing_since_ts": queue.first.failing_since_ts if queue else None,
        "problem": queue.first.problem if queue else None,
    }


def _line(it: Json) -> str:
    line = f"{it['id']}  {it['url'] or 'no URL'}  {it['waiting']} waiting"
    if it["failing_since_ts"] is None:
        return line
    since = cli.format_minute(it["failing_since_ts"])
    times = "once" if it["tries"] == 1 else f"{it['tries']} times"
    return f"{line}, refused {times} since {since}: {it['problem']}"
