"""The command `homebody`.

Commands work while the server runs: they change its database themselves, and it notices. Errors are
one line on stderr, with --json an object; the exit code is 2 for errors in the configuration or the
command line, and 1 for others.
"""

from __future__ import annotations

import importlib
import itertools
import json
import logging
import os
import platform
import sqlite3
import sys
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import orjson

from homebody.config import settings as config
from homebody.config import values
from homebody.config.settings import Config, ConfigError
from homebody.errors import MatrixError
from homebody.server import privacy, startup
from homebody.spec.events import Json
from homebody.storage.data_folder import StartError

# Errors that these log are in the error message of the command
for _logger in ("homebody.storage.disk_errors", "homebody.storage.writer"):
    logging.getLogger(_logger).addHandler(logging.NullHandler())

LAZY_COMMANDS = {
    "appservices": "homebody.cli.appservices",
    "backup": "homebody.cli.backup",
    "disk": "homebody.cli.disk",
    "doctor": "homebody.cli.doctor",
    "federation": "homebody.cli.federation",
    "invite": "homebody.cli.invitations",
    "media": "homebody.cli.media",
    "restore": "homebody.cli.restore",
    "audit": "homebody.cli.audit",
    "user": "homebody.cli.users",
    "tasks": "homebody.cli.tasks",
    "token": "homebody.cli.tokens",
    "reports": "homebody.cli.moderation",
    "rooms": "homebody.cli.room_events",
    "notice": "homebody.cli.moderation",
    "trace": "homebody.cli.trace",
    "upgrade": "homebody.cli.upgrade",
    "upkeep": "homebody.cli.upkeep",
}
"""Commands that need the database: imported when they run, so that the others start quickly."""

MIN_MS = 10**11
"""Times in ms are greater, those in seconds less."""
_IS_JSON = "homebody.is_json"
_CONTROLS = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_KEPT = "\n\t\u200c\u200d"
"""The last two join letters and emoji."""


class Duration(click.ParamType):  # type: ignore[type-arg] # not generic before click 8.5
    """A duration such as "7 d", in milliseconds. A unit is required, as 7 would be 7 ms."""

    name = "time"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the milliseconds. Raises UsageError."""
        text = str(value).strip()
        named = self.name if param is None else param.human_readable_name
        if isinstance(param, click.Option):
            named = param.opts[0]
        if text.isdecimal():
            raise click.UsageError(f'{named} needs a unit, such as "{text} d"', ctx)
        try:
            return _DURATION.parse(text)
        except ValueError:
            raise click.UsageError(f"{named} must be {_DURATION.what}", ctx) from None


_DURATION = values.duration(1)
DURATION = Duration()

as_json = click.option(
    "--json",
    "is_json",
    is_flag=True,
    help="Print JSON, for scripts; errors are JSON as well, on stderr.",
)


class Commands(click.Group):
    """The commands, including LAZY_COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *LAZY_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name."""
        if cmd_name not in LAZY_COMMANDS:
            return super().get_command(ctx, cmd_name)
        found: click.Command = getattr(importlib.import_module(LAZY_COMMANDS[cmd_name]), cmd_name)
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options of `homebody` itself, and note whether there is a --json."""
        is_json = "--json" in itertools.takewhile(lambda it: it != "--", args)
        with _failures(is_json=is_json):
            found = super().parse_args(ctx, args)
        ctx.meta[_IS_JSON] = is_json
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, and turn expected exceptions into error messages."""
        with _failures(is_json=ctx.meta[_IS_JSON]):
            return super().invoke(ctx)


class Failure(click.ClickException):
    """An error that ends a command with a line on stderr and exit code 1."""

    def show(self, file: Any = None) -> None:
        """Print the message after the name of the program."""
        click.echo(plain(f"homebody: {self.message}"), file=file, err=True)


class _CannotStart(Failure):
    exit_code = 2


class _JsonFailure(click.ClickException):
    """Any error of a command that was called with --json."""

    def __init__(self, message: str, exit_code: int, cause: BaseException | None) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc] # click reads it from the object
        self.body = {"error": message}
        if isinstance(cause, MatrixError):
            self.body = {"errcode": cause.errcode, **self.body}

    def show(self, file: Any = None) -> None:
        """Print an object on stderr."""
        click.echo(orjson.dumps(self.body), file=file, err=True)


@contextmanager
def _failures(*, is_json: bool) -> Iterator[None]:
    """Turn expected exceptions into those that click prints."""
    try:
        with _plain_failures():
            yield
    except click.ClickException as error:
        if not is_json:
            raise
        message = error.format_message()
        raise _JsonFailure(message, error.exit_code, error.__cause__) from error
    except click.Abort as error:  # Ctrl-C, or the confirmation was refused
        if not is_json:
            raise
        raise _JsonFailure("Aborted", 1, None) from error


@contextmanager
def _plain_failures() -> Iterator[None]:
    try:
        yield
    except (ConfigError, StartError) as error:
        raise _CannotStart(str(error)) from error
    except BrokenPipeError:
        raise  # `homebody user list | head -1`: click exits silently
    except OSError as error:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        raise Failure(f"{where}{error.strerror or error}") from error
    except MatrixError as error:
        cause = error.__cause__  # SQLite's error says more than the response for clients
        cause = getattr(cause, "orig", None) or cause
        why = f": {cause}" if isinstance(cause, sqlite3.Error) else ""
        raise Failure(f"{error}{why}") from error


def print_result(text: str, value: object, *, is_json: bool) -> None:
    """Print the result of a command, as a text or as JSON."""
    if is_json:
        text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    if text:
        click.echo(plain(text))


def print_lines(lines: Iterable[str], value: object, *, is_json: bool) -> None:
    """Print lines, or a value as JSON. Line breaks are escaped: a name could forge a line."""
    print_result("\n".join(it.replace("\n", "\\n") for it in lines), value, is_json=is_json)


def print_list(items: list[Json], format_line: Callable[[Json], str], *, is_json: bool) -> None:
    """Print one line for each item, or all of them as JSON."""
    print_lines(map(format_line, items), items, is_json=is_json)


def fields_of(found: Json) -> list[str]:
    """Return an object as a line for each of its fields that is not empty."""
    return [f"{key}: {_shown(key, it)}" for key, it in found.items() if it not in (None, "", [])]


def _shown(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.endswith("_ts") and isinstance(value, int) and value > 0:
        # creation_ts of an account has seconds, as in Synapse's API
        return format_day(value if value > MIN_MS else 1000 * value)
    if isinstance(value, list):
        return ", ".join(str(it.get("address") or it.get("external_id")) for it in value)
    return str(value)


def plain(text: str) -> str:
    """Return a text with the control characters escaped that a terminal would obey.

    Names, reasons and file names come from users, also of other servers: what they write could move
    the cursor, rename the window, or show an ID as another one. The escapes are those of JSON, so
    that JSON stays JSON.
    """
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(map(_without_effect, text))


def _without_effect(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _CONTROLS:
        return character
    return json.dumps(character)[1:-1]


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr, if that is a terminal; the function takes (done, of all)."""
    with click.progressbar(length=1, label=label, file=sys.stderr, hidden=not os.isatty(2)) as bar:

        def show(done: int, total: int) -> None:
            bar.length = total
            bar.update(max(0, done - bar.pos))

        yield show


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar as `progress_bar` does; the function takes how much of all is done."""
    with progress_bar(label) as show:
        yield lambda done: show(done, total)


def format_day(ts: int) -> str:
    """Return the local date of a time in ms."""
    return _formatted(ts, "%Y-%m-%d")


def format_minute(ts: int) -> str:
    """Return the local date and time of a time in ms."""
    return _formatted(ts, "%Y-%m-%d %H:%M")


def format_second(ts: int) -> str:
    """Return the local date and time of a time in ms, with seconds."""
    return _formatted(ts, "%Y-%m-%d %H:%M:%S")


def _formatted(ts: int, pattern: str) -> str:
    try:
        return datetime.fromtimestamp(ts / 1000).astimezone().strftime(pattern)
    except (ValueError, OverflowError, OSError):  # a tool or another server may give any number
        return "an impossible time"


def load_config(ctx: click.Context) -> Config:
    """Return the configuration of a command. Raises ConfigError."""
    path: Path | None = ctx.obj
    return config.load(path, os.environ)


@click.group(cls=Commands)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="The configuration file; by default homebody.toml in the data folder.",
)
@click.version_option(package_name="homebody")
@click.pass_context
def main(ctx: click.Context, config_path: Path | None) -> None:
    """Homebody, a Matrix homeserver."""
    ctx.obj = config_path
    umask = privacy.restrict_new_files()
    ctx.call_on_close(lambda: os.umask(umask))


@main.command("config")
@as_json
@click.pass_context
def show_config(ctx: click.Context, *, is_json: bool) -> None:
    """Print the settings in effect, without secrets."""
    described = config.describe(load_config(ctx))
    print_result(described.rstrip("\n"), tomllib.loads(described), is_json=is_json)


@main.command("version")
@as_json
def show_versions(*, is_json: bool) -> None:
    """Print the versions of homebody, and of what it runs on."""
    found = {
        "homebody": metadata.version("homebody"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    lines = [f"{name} {version}" for name, version in found.items()]
    print_lines(lines, found, is_json=is_json)


@main.command()
@as_json
@click.pass_context
def init(ctx: click.Context, *, is_json: bool) -> None:
    """Create a new server's database and signing key without starting it.

    The setting server_name can't be changed once there are accounts.
    """
    settings = load_config(ctx)
    startup.init(settings)
    created = {"server_name": settings.server_name, "data_dir": str(settings.data_dir)}
    text = f"Created the server {settings.server_name} in {settings.data_dir}"
    print_result(text, created, is_json=is_json)


@main.command()
@click.pass_context
def serve(ctx: click.Context) -> None:
    """Start the server; brings the database up to date first."""
    load_config(ctx)  # to report errors in it before anything starts
    environ = dict(os.environ)
    if ctx.obj is not None:
        environ["HOMEBODY_CONFIG"] = str(ctx.obj.absolute())
    startup.run(environ)
