"""`make traffic`: an hour of mixed traffic without its pauses, to see whether the server grows.

Some twenty users in forty rooms send a real server the requests of clients, bots and phones, from a
fixed seed. Twelve times, every five minutes of the hour, they pause while the phones keep waiting,
and the server's memory is measured. Exits with 1 if a request failed unexpectedly, or if there was
more in the last quarter of the hour than in the second: memory except caches (which a setting
bounds), waiting requests, connections, threads or descriptors.
"""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from tests.bench import habits, samples, town
from tests.bench.habits import Habit
from tests.bench.phones import Phones
from tests.bench.samples import Sample
from tests.bench.town import Device, Faults, Person, Town, UnexpectedAnswerError
from tests.helpers import server
from tests.helpers.server import RunningServer

HOUR = 60
USERS = 20
SEED = 5
A_MINUTE = 20
"""Actions of each user per minute."""
REST_SECONDS = 0.3
"""In which responses end and phones wait again."""


@click.command(help=__doc__)
@click.option("--minutes", type=click.IntRange(1), default=HOUR, help="Of traffic; usual: 60.")
@click.option(
    "--users", type=click.IntRange(5), default=USERS, help="The number of users; default: 20."
)
@click.option("--seed", type=int, default=SEED, help="Of all choices.")
@click.option("--cache-bytes", help="The server's setting.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON instead of the table.")
def main(*, minutes: int, users: int, seed: int, cache_bytes: str | None, is_json: bool) -> None:
    settings = {"cache_bytes": cache_bytes} if cache_bytes else {}
    with tempfile.TemporaryDirectory() as folder:
        found, failed = run(Path(folder), minutes, users, seed, **settings)
    click.echo(
        json.dumps(samples.as_json(found, failed), indent=1) if is_json else samples.markdown(found)
    )
    wrong = samples.faults(found, failed)
    for sentence in wrong:
        click.echo(sentence, err=True)
    sys.exit(1 if wrong else 0)


def run(
    folder: Path, minutes: int, users: int, seed: int, **settings: str
) -> tuple[list[Sample], Faults]:
    """Run the traffic; return the samples and the failures."""
    running = server.start(folder, **settings)
    try:
        people = town.settle(running.url, users, seed)
        pockets = Phones(people)
        pockets.start()
        for person in people.people:
            habits.upload_keys(person.desk)
        with click.progressbar(
            _live(running, people, minutes), length=samples.COUNT, file=sys.stderr
        ) as bar:
            found = list(bar)
        pockets.stop()
        people.hang_up()
    finally:
        running.stop()
    return found, people.faults


def _live(running: RunningServer, people: Town, minutes: int) -> Iterator[Sample]:
    """Yield a sample after each twelfth of the time."""
    observer = Device(running.url)
    stretch = minutes / samples.COUNT
    with ThreadPoolExecutor(len(people.people)) as threads:
        for number in range(1, samples.COUNT + 1):
            times = round(stretch * A_MINUTE)
            done = [threads.submit(_act, people, person, times) for person in people.people]
            for it in done:
                it.result()
            time.sleep(REST_SECONDS)
            yield samples.take(stretch * number, observer, running.process.pid)
    observer.hang_up()


def _act(people: Town, person: Person, times: int) -> None:
    """Perform a number of random actions, one after the other."""
    often = habits.OFTEN
    for habit in person.random.choices(list(often), weights=list(often.values()), k=times):
        do(people, person, habit)


def do(people: Town, person: Person, habit: Habit) -> None:
    """Perform one action, and note a failure."""
    try:
        habit(people, person)
    except (UnexpectedAnswerError, OSError, http.client.HTTPException) as error:
        person.desk.hang_up()
        people.faults.note(f"{habit.__name__}: {error!r}")


if __name__ == "__main__":
    main()
