"""The command `homebody tasks`."""

from __future__ import annotations

import dataclasses

import click

from homebody.cli import as_json, format_second, print_list, print_result
from homebody.cli.database import open_database
from homebody.core import audit
from homebody.core import tasks as ordered
from homebody.spec.events import Json


@click.group(invoke_without_command=True)
@click.option("--action", "actions", multiple=True, help="Only of this kind; may be repeated.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(ordered.STATUSES),
    help="Only with this status; may be repeated.",
)
@click.option("--subject", help="Only about this room or user.")
@as_json
@click.pass_context
def tasks(
    ctx: click.Context,
    actions: tuple[str, ...],
    statuses: tuple[str, ...],
    subject: str | None,
    *,
    is_json: bool,
) -> None:
    """Print what runs in the background by order of administrators, and what came of it."""
    if ctx.invoked_subcommand is not None:
        return
    with open_database(ctx) as database, database.read() as tx:
        found = ordered.select_tasks(tx, actions=actions, statuses=statuses, resource_id=subject)
    print_list([dataclasses.asdict(it) for it in found], _line, is_json=is_json)


@tasks.command("cancel")
@click.argument("task_id", metavar="ID")
@as_json
@click.pass_context
def cancel_task(ctx: click.Context, task_id: str, *, is_json: bool) -> None:
    """Cancel a task. It ends within a second, and what it has done so far stays done."""
    with open_database(ctx) as database, database.write() as tx:
        found = ordered.cancel(tx, audit.COMMAND_LINE, task_id)
    what = f"{found.action} {found.resource_id}" if found.resource_id else found.action
    print_result(f"Cancelled: {what}", dataclasses.asdict(found), is_json=is_json)


def _line(task: Json) -> str:
    when = format_second(task["created_ts"])
    problem = "" if task["error"] is None else f"failed: {task['error']}"
    words = (when, task["action"], task["resource_id"] or "", problem or task["status"], task["id"])
    return "  ".join(word for word in words if word)
