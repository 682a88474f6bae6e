"""`make bench`: fill a database, measure it, print a table; exit with 1 on growth beyond limits."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.bench import fill, measure, storage, table
from tests.bench.fill import Home, Sizes, Step

LARGE = Sizes(rooms=1000, events=500_000, members=5000, steps=(1, 10, 100))
SMALL = Sizes(rooms=60, events=12_000, members=300, steps=(10, 100))


@click.command(help=__doc__)
@click.option("--small", is_flag=True, help="Sizes that take less than a minute.")
@click.option("--rooms", type=click.IntRange(fill.NARROW_ROOMS), help="Besides the big one.")
@click.option("--events", type=click.IntRange(1), help="In all rooms together.")
@click.option("--members", type=click.IntRange(100), help="Of the big room.")
@click.option("--steps", help="Percentages of the history, from small to 100: 1,10,100")
@click.option("--json", "is_json", is_flag=True, help="Print JSON instead of the table.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Keep the databases in this folder."
)
def main(
    *,
    small: bool,
    rooms: int | None,
    events: int | None,
    members: int | None,
    steps: str | None,
    is_json: bool,
    folder: Path | None,
) -> None:
    usual = SMALL if small else LARGE
    sizes = Sizes(
        rooms or usual.rooms,
        events or usual.events,
        members or usual.members,
        percents(steps) if steps else usual.steps,
    )
    with tempfile.TemporaryDirectory() as temporary:
        rows = _rows(sizes, folder or Path(temporary))
    shown = json.dumps(table.as_json(rows, sizes.steps), indent=1)
    click.echo(shown if is_json else table.markdown(rows, sizes.steps))
    wrong = table.faults(rows)
    for sentence in wrong:
        click.echo(sentence, err=True)
    sys.exit(1 if wrong else 0)


def _rows(sizes: Sizes, folder: Path) -> list[table.Row]:
    began = time.monotonic()
    home, copies = _fill(sizes, folder)
    click.echo(f"filled in {time.monotonic() - began:.0f} s", err=True)
    limit = table.may_grow_to(sizes.steps)
    subjects, starts = measure.start_all(copies, home)
    try:
        fresh = [measure.memory_mb(it.running) for it in subjects]
        times = measure.run(subjects, home, limit)
        used = [measure.memory_mb(it.running) for it in subjects]
    finally:
        for it in subjects:
            it.running.stop()
    rows = table.storage_rows([step for _, step in copies])
    rows += [table.Row(name, "ms", values, limit) for name, values in times]
    rows.append(table.Row("start, up to the first answer", "ms", starts, limit))
    if all(fresh):
        rows.append(table.Row("memory after the start", "MB", fresh, limit))
        rows.append(table.Row("memory after all of this", "MB", used, limit))
    return rows


def _fill(sizes: Sizes, folder: Path) -> tuple[Home, list[tuple[Path, Step]]]:
    """Fill a database; return its users and rooms, and (data folder, step) of each step."""
    data_dir = folder / "filled"
    data_dir.mkdir(parents=True)
    with fill.opened(data_dir) as db:
        home = fill.move_in(db, sizes)
    copies = []
    for at, percent in enumerate(sizes.steps):
        with fill.opened(data_dir) as db:
            step = fill.live(db, data_dir / storage.NAME, home, sizes, at)
        copy = folder / f"at-{percent}"
        shutil.copytree(data_dir, copy)  # closed, so that all of it is in the one file
        copies.append((copy, step))
    return home, copies


def percents(text: str) -> tuple[int, ...]:
    """Parse the percentages. Raises UsageError unless they rise to 100."""
    parts = text.split(",")
    found = tuple(int(part) for part in parts if part.isdecimal())
    if len(found) != len(parts) or len(found) < 2:
        raise click.UsageError("--steps takes two percentages or more: 1,10,100")
    if found != tuple(sorted({*found, 100})) or not found[0]:
        raise click.UsageError("--steps rise from 1 or more to 100")
    return found


if __name__ == "__main__":
    main()
