"""The command `homebody appservices …`: how the bridges are, and what to do with one that is stuck.

A bridge that refuses a transaction hears of nothing else until it takes it. The server asks again
for ever, as the specification wants it; only the owner can say that an event is to be lost.
"""

from __future__ import annotations

from datetime import datetime

import click

from homebody import cli
from homebody.cli import as_json, print_json
from homebody.cli.accounts import open_database, print_list
from homebody.core import outbox
from homebody.core.appservices import files, transactions
from homebody.core.outbox import Queue
from homebody.spec.appservices import Service
from homebody.spec.events import Json


@click.group()
def appservices() -> None:
    """See how bridges and bots are, and help one that is stuck."""


@appservices.command("list")
@as_json
@click.pass_context
def list_appservices(ctx: click.Context, *, is_json: bool) -> None:
    """Print all application services, and what waits for them."""
    config = cli.load_config(ctx)
    with open_database(config) as database, database.read() as tx:
        queues = {queue.destination: queue for queue in outbox.queues(tx, transactions.KIND)}
    found = [_described(service, queues.get(service.id)) for service in files.load(config).all]
    print_list(found, _line, is_json=is_json)


@appservices.command("skip")
@click.argument("service_id", metavar="ID")
@as_json
@click.pass_context
def skip_transaction(ctx: click.Context, service_id: str, *, is_json: bool) -> None:
    """Give up the transaction that a service refuses, so that it gets the next one.

    The service will never hear of its events.
    """
    with open_database(cli.load_config(ctx)) as database, database.write() as tx:
        skipped = transactions.skip(tx, service_id)
        event_ids = transactions.event_ids(tx, skipped)
        queues = outbox.queues(tx, transactions.KIND)
    left = next((it.count for it in queues if it.destination == service_id), 0)
    if is_json:
        print_json({"skipped": len(skipped), "event_ids": event_ids, "waiting": left})
        return
    click.echo(f"{service_id} will not hear of {len(skipped)} events; {left} wait for it")
    for event_id in event_ids:
        click.echo(event_id)


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
    told = f"{it['id']}  {it['url'] or 'no address'}  {it['waiting']} waiting"
    if it["failing_since_ts"] is None:
        return told
    since = datetime.fromtimestamp(it["failing_since_ts"] / 1000).astimezone()
    times = "once" if it["tries"] == 1 else f"{it['tries']} times"
    return f"{told}, refused {times} since {since:%Y-%m-%d %H:%M}: {it['problem']}"
