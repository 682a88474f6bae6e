"""The commands `homebody user …` and `homebody token …`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import click
from sqlalchemy.exc import DBAPIError

from homebody import cli, errors
from homebody.cli import as_json, print_json
from homebody.config import values
from homebody.config.settings import Config
from homebody.core import server_key
from homebody.core.accounts import accounts
from homebody.core.sessions import deactivation, devices, login, registration
from homebody.errors import MatrixError
from homebody.server import startup
from homebody.spec.events import Json
from homebody.storage import data_folder, migrations
from homebody.storage import database as db
from homebody.storage.caches import Caches
from homebody.storage.database import Database, Reader

CACHE_BYTES = 8 * 2**20
LIFETIME = values.duration(1)

password_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input."
)


@click.group()
def user() -> None:
    """Make and manage accounts."""


@user.command("add")
@click.argument("name")
@click.option("--admin", "is_admin", is_flag=True, help="Make an administrator.")
@click.option("--no-password", is_flag=True, help="Let nobody log in to it.")
@password_stdin
@as_json
@click.pass_context
def add_user(
    ctx: click.Context,
    name: str,
    *,
    is_admin: bool,
    no_password: bool,
    password_stdin: bool,
    is_json: bool,
) -> None:
    """Make an account. The first one of a server becomes its administrator."""
    with open_database(cli.load_config(ctx)) as database:
        name = _localpart(name, database.server.name)
        with database.read() as tx:
            registration.free_user_id(tx, name)  # before somebody types a password in vain
        password_hash = None
        if not no_password:
            password_hash = accounts.hash_password(
                database.server, ask_password(is_stdin=password_stdin)
            )
        with database.write() as tx:
            user_id = registration.register(tx, name, password_hash, is_admin=is_admin)
            made = find_account(tx, user_id)
    is_made = f"{user_id} was made{', an administrator' if made.is_admin else ''}"
    say(is_made, _described(made), is_json=is_json)


@user.command("passwd")
@click.argument("name")
@click.option("--keep-sessions", is_flag=True, help="Leave the devices logged in.")
@password_stdin
@as_json
@click.pass_context
def change_password(
    ctx: click.Context, name: str, *, keep_sessions: bool, password_stdin: bool, is_json: bool
) -> None:
    """Set a password, and log all devices out."""
    with open_database(cli.load_config(ctx)) as database:
        with database.read() as tx:
            found = find_active_account(tx, name)
        password_hash = accounts.hash_password(
            database.server, ask_password(is_stdin=password_stdin)
        )
        with database.write() as tx:
            find_active_account(tx, found.user_id)  # typing a password takes its time
            login.change_password(tx, found.user_id, password_hash)
            if not keep_sessions:
                devices.remove_all(tx, found.user_id)
    say(f"{found.user_id} has a new password", {"user_id": found.user_id}, is_json=is_json)


@user.command("list")
@as_json
@click.pass_context
def list_users(ctx: click.Context, *, is_json: bool) -> None:
    """Print all accounts."""
    with open_database(cli.load_config(ctx)) as database, database.read() as tx:
        found = [_described(account) for account in accounts.all_accounts(tx)]
    print_list(found, _account_line, is_json=is_json)


@user.command("deactivate")
@click.argument("name")
@click.option("--erase", is_flag=True, help="Delete profile and account data as well.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@click.pass_context
def deactivate_user(
    ctx: click.Context, name: str, *, erase: bool, yes: bool, is_json: bool
) -> None:
    """Close an account for ever: it leaves all rooms, and its name is never free again."""
    with open_database(cli.load_config(ctx)) as database:
        with database.read() as tx:
            found = find_active_account(tx, name)
        if not yes:
            click.confirm(f"Close {found.user_id} for ever?", abort=True, err=True)
        deactivation.deactivate(database, found.user_id, erase=erase)
    say(f"{found.user_id} is closed", {"user_id": found.user_id}, is_json=is_json)


@click.group()
def token() -> None:
    """Manage registration tokens, the words with which people may register."""


@token.command("add")
@click.option("--token", "word", help="The word; a random one unless given.")
@click.option("--uses", type=click.IntRange(1), help="How many accounts it is good for.")
@click.option("--lifetime", help='Such as "7 d" or "12 h"; for ever unless given.')
@as_json
@click.pass_context
def add_token(
    ctx: click.Context, word: str | None, uses: int | None, lifetime: str | None, *, is_json: bool
) -> None:
    """Make a registration token and print it."""
    lifetime_ms = None if lifetime is None else _parse_lifetime(lifetime)
    with open_database(cli.load_config(ctx)) as database, database.write() as tx:
        word = registration.add_token(tx, word, uses=uses, lifetime_ms=lifetime_ms)
        made = next(row for row in registration.all_tokens(tx) if row["token"] == word)
    say(word, made, is_json=is_json)


@token.command("list")
@as_json
@click.pass_context
def list_tokens(ctx: click.Context, *, is_json: bool) -> None:
    """Print all registration tokens."""
    with open_database(cli.load_config(ctx)) as database, database.read() as tx:
        found = registration.all_tokens(tx)
    print_list(found, _token_line, is_json=is_json)


@token.command("revoke")
@click.argument("word", metavar="TOKEN")
@as_json
@click.pass_context
def revoke_token(ctx: click.Context, word: str, *, is_json: bool) -> None:
    """Let nobody register with this token any more."""
    with open_database(cli.load_config(ctx)) as database, database.write() as tx:
        registration.revoke_token(tx, word)
    say(f"{word} is not valid any more", {"token": word}, is_json=is_json)


@contextmanager
def open_database(config: Config) -> Iterator[Database]:
    """Open the database of the configuration, brought up to date where no server has done so.

    Raises ConfigError, StartError, also when there is none, and MatrixError for what the database
    refuses.
    """
    data_folder.check_restored(config.data_dir)
    migrations.check_existence(config)
    if migrations.current(config.database_url) != migrations.known()[-1]:
        with data_folder.locked(config):  # not under a running server of another version
            migrations.upgrade(config)
    with open_migrated(config) as database:
        yield database


@contextmanager
def open_migrated(config: Config) -> Iterator[Database]:
    """Open the database of the configuration as it is. Raises as `open_database` does."""
    startup.check_server_name(config)
    server = db.Server(config.server_name, server_key.load_or_create(config), config)
    try:
        database = Database(config.database_url, server, Caches(CACHE_BYTES), lambda _: None)
        try:
            yield database
        finally:
            database.close()
    except DBAPIError as error:
        raise MatrixError(503, "M_UNKNOWN", f"The database can't be used: {error.orig}") from error


def find_account(tx: Reader, name: str) -> accounts.AccountInfo:
    """The account that somebody means by a user id or localpart. Raises M_NOT_FOUND."""
    found = accounts.find_by_name(tx, name)
    if found is None:
        raise errors.not_found(f"There is no user {name}")
    return found


def find_active_account(tx: Reader, name: str) -> accounts.AccountInfo:
    """The same; raises M_USER_DEACTIVATED as well."""
    found = find_account(tx, name)
    if found.deactivated_ts is not None:
        raise errors.user_deactivated()
    return found


def ask_password(*, is_stdin: bool) -> str:
    """A password from the terminal, typed twice and not shown, or the first line of stdin."""
    if is_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise cli.Failure("there is no terminal to ask at: use --password-stdin")
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password


def say(text: str, value: Json, *, is_json: bool) -> None:
    """Print what was done, for people or for scripts."""
    if is_json:
        print_json(value)
    else:
        click.echo(text)


def print_list(found: list[Json], line_of: Callable[[Json], str], *, is_json: bool) -> None:
    """Print what there is, each in a line of its own, or all of it for scripts."""
    if is_json:
        print_json(found)
        return
    for it in found:
        click.echo(line_of(it))


def day(ts: int) -> str:
    """The date of a time in ms, where this machine is."""
    return f"{datetime.fromtimestamp(ts / 1000).astimezone():%Y-%m-%d}"


def _localpart(name: str, server_name: str) -> str:
    """Return the user name that a user id or a localpart means. Raises M_INVALID_USERNAME."""
    if not name.startswith("@"):
        return name
    localpart, _, its_server = name.removeprefix("@").partition(":")
    if its_server != server_name:
        raise errors.invalid_username(f"{name} is not of this server, which is {server_name}")
    return localpart


def _described(account: accounts.AccountInfo) -> Json:
    return {
        "user_id": account.user_id,
        "created_ts": account.created_ts,
        "is_admin": account.is_admin,
        "is_locked": account.is_locked,
        "is_suspended": account.is_suspended,
        "is_deactivated": account.deactivated_ts is not None,
    }


def _account_line(account: Json) -> str:
    words = ("admin", "locked", "suspended", "deactivated")
    marks = [word for word in words if account[f"is_{word}"]]
    return f"{account['user_id']}  {day(account['created_ts'])}  {' '.join(marks)}".rstrip()


def _token_line(row: Json) -> str:
    allowed = "any number" if row["uses_allowed"] is None else row["uses_allowed"]
    until = "" if row["expires_ts"] is None else f", until {day(row['expires_ts'])}"
    return f"{row['token']}  used {row['uses']} of {allowed}{until}"


def _parse_lifetime(text: str) -> int:
    """Return a lifetime in milliseconds. One without a unit would be gone at once."""
    if text.strip().isdecimal():
        raise click.UsageError(f'--lifetime needs a unit, such as "{text.strip()} d"')
    try:
        return LIFETIME.parse(text)
    except ValueError:
        raise click.UsageError(f"--lifetime must be {LIFETIME.what}") from None
