"""The command `homebody`.

Commands work while the server runs: they write to its database themselves, and it notices.
Whatever is wrong is one line on stderr, with --json an object; the exit code is 2 for the
configuration or a wrong command, and 1 for the rest.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import os
import sqlite3
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import orjson

from homebody.config import settings as config
from homebody.config.settings import Config, ConfigError
from homebody.errors import MatrixError
from homebody.server import privacy, startup
from homebody.storage.data_folder import StartError

# What these log when the database refuses is in the line with which the command ends
for _logger in ("homebody.storage.disk_errors", "homebody.storage.database"):
    logging.getLogger(_logger).addHandler(logging.NullHandler())

ELSEWHERE = {
    "appservices": "homebody.cli.appservices",
    "backup": "homebody.cli.backup",
    "restore": "homebody.cli.backup",
    "user": "homebody.cli.accounts",
    "token": "homebody.cli.accounts",
    "reports": "homebody.cli.administrator",
    "rooms": "homebody.cli.rooms",
    "notice": "homebody.cli.administrator",
}
"""Commands that need the database: imported when they run, so that the others start at once."""

_IS_JSON = "homebody.is_json"

as_json = click.option(
    "--json",
    "is_json",
    is_flag=True,
    help="For scripts; what goes wrong is JSON as well, on stderr.",
)


class Commands(click.Group):
    """The commands, those of ELSEWHERE among them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return sorted({*super().list_commands(ctx), *ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        if cmd_name not in ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        found: click.Command = getattr(importlib.import_module(ELSEWHERE[cmd_name]), cmd_name)
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the options of `homebody` itself, and note whether the output is for scripts."""
        is_json = "--json" in itertools.takewhile(lambda it: it != "--", args)
        with _failures(is_json=is_json):
            found = super().parse_args(ctx, args)
        ctx.meta[_IS_JSON] = is_json
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. What it raises for people becomes a line, not a stack trace."""
        with _failures(is_json=ctx.meta[_IS_JSON]):
            return super().invoke(ctx)


class Failure(click.ClickException):
    """Ends a command with a line on stderr and exit code 1."""

    def show(self, file: Any = None) -> None:
        """Say it as every program of the shell does."""
        click.echo(f"homebody: {self.message}", file=file, err=True)


class _CannotStart(Failure):
    exit_code = 2


class _FailureForScripts(click.ClickException):
    """Any failure of a command that was called with --json."""

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
    """Turn what is raised for people into what click shows."""
    try:
        with _failures_for_people():
            yield
    except click.ClickException as error:
        if not is_json:
            raise
        message = error.format_message()
        raise _FailureForScripts(message, error.exit_code, error.__cause__) from error
    except click.Abort as error:  # Ctrl-C, or the answer no
        if not is_json:
            raise
        raise _FailureForScripts("Aborted", 1, None) from error


@contextmanager
def _failures_for_people() -> Iterator[None]:
    try:
        yield
    except (ConfigError, StartError) as error:
        raise _CannotStart(str(error)) from error
    except BrokenPipeError:
        raise  # `homebody user list | head -1`: click ends quietly
    except OSError as error:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        raise Failure(f"{where}{error.strerror or error}") from error
    except MatrixError as error:
        cause = error.__cause__  # where the database refuses, it says more than clients get
        cause = getattr(cause, "orig", None) or cause
        why = f": {cause}" if isinstance(cause, sqlite3.Error) else ""
        raise Failure(f"{error}{why}") from error


def print_json(value: object) -> None:
    """Print a value for scripts."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def load_config(ctx: click.Context) -> Config:
    """Return the configuration for a command. Raises ConfigError."""
    path: Path | None = ctx.obj
    return config.load(path, os.environ)


@click.group(cls=Commands)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="The configuration; homebody.toml in the data folder unless given.",
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
    """Print the settings that are in force, without secrets."""
    described = config.describe(load_config(ctx))
    if is_json:
        print_json(tomllib.loads(described))
    else:
        click.echo(described, nl=False)


@main.command()
@as_json
@click.pass_context
def init(ctx: click.Context, *, is_json: bool) -> None:
    """Make a new server's database and signing key, without starting it.

    The name in the setting server_name can't change once there are accounts.
    """
    settings = load_config(ctx)
    startup.init(settings)
    if is_json:
        print_json({"server_name": settings.server_name, "data_dir": str(settings.data_dir)})
    else:
        click.echo(f"A new server, {settings.server_name}, was made in {settings.data_dir}")


@main.command()
@click.pass_context
def serve(ctx: click.Context) -> None:
    """Serve until interrupted; brings the database up to date first."""
    load_config(ctx)  # so that a mistake is told before anything starts
    environ = dict(os.environ)
    if ctx.obj is not None:
        environ["HOMEBODY_CONFIG"] = str(ctx.obj.absolute())
    startup.run(environ)
