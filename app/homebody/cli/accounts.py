"""The commands `homebody user …`, and what other commands need of them."""

from __future__ import annotations

import sys

import click

from homebody import cli, errors
from homebody.cli import as_json, format_day, print_list, print_result
from homebody.cli.database import open_database
from homebody.core import audit
from homebody.core.accounts import accounts
from homebody.core.administration import user_changes
from homebody.core.sessions import registration
from homebody.spec.events import Json
from homebody.storage.database import Reader

password_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input."
)


@click.group()
def user() -> None:
    """Manage accounts."""


@user.command("add")
@click.argument("name")
@click.option("--admin", "is_admin", is_flag=True, help="Make the user an administrator.")
@click.option("--no-password", is_flag=True, help="Create an account that nobody can log in to.")
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
    """Create an account. The first one of a server becomes administrator."""
    with open_database(ctx) as database:
        name = localpart(name, database.server.name)
        with database.read() as tx:
            registration.free_user_id(tx, name)  # before asking for a password
        password_hash = None
        if not no_password:
            password_hash = accounts.hash_password(
                database.server, ask_password(is_stdin=password_stdin)
            )
        with database.write() as tx:
            user_id = registration.register(tx, name, password_hash, is_admin=is_admin)
            audit.note(tx, audit.COMMAND_LINE, "user.create", user_id)
            account = find_account(tx, user_id)
    text = f"Created {user_id}{', an administrator' if account.is_admin else ''}"
    print_result(text, _described(account), is_json=is_json)


@user.command("passwd")
@click.argument("name")
@click.option("--keep-sessions", is_flag=True, help="Keep all devices logged in.")
@password_stdin
@as_json
@click.pass_context
def change_password(
    ctx: click.Context, name: str, *, keep_sessions: bool, password_stdin: bool, is_json: bool
) -> None:
    """Set a password, and log out all devices."""
    with open_database(ctx) as database:
        with database.read() as tx:
            user_id = find_active_account(tx, name).user_id
        password = ask_password(is_stdin=password_stdin)
        with database.read() as tx:
            find_active_account(tx, user_id)  # it may have changed since
        user_changes.reset_password(
            database, audit.COMMAND_LINE, user_id, password, logout_devices=not keep_sessions
        )
    print_result(f"Changed the password of {user_id}", {"user_id": user_id}, is_json=is_json)


@user.command("list")
@as_json
@click.pass_context
def list_users(ctx: click.Context, *, is_json: bool) -> None:
    """Print all accounts."""
    with open_database(ctx) as database, database.read() as tx:
        users = [_described(account) for account in accounts.all_accounts(tx)]
    print_list(users, _account_line, is_json=is_json)


@user.command("deactivate")
@click.argument("name")
@click.option("--erase", is_flag=True, help="Also delete profile and data, and hide messages.")
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
@as_json
@click.pass_context
def deactivate_user(
    ctx: click.Context, name: str, *, erase: bool, yes: bool, is_json: bool
) -> None:
    """Deactivate an account: its user leaves all rooms, and nobody else can have the name."""
    with open_database(ctx) as database:
        with database.read() as tx:
            user_id = find_active_account(tx, name).user_id
        if not yes:
            click.confirm(f"Deactivate {user_id}?", abort=True, err=True)
        with cli.progress_bar("Leaving rooms") as progress:
            user_changes.deactivate(
                database, audit.COMMAND_LINE, user_id, erase=erase, progress=progress
            )
    print_result(f"Deactivated {user_id}", {"user_id": user_id}, is_json=is_json)


def find_account(tx: Reader, name: str) -> accounts.AccountInfo:
    """Return the account of a user ID or localpart. Raises M_NOT_FOUND."""
    account = accounts.find_by_name(tx, name)
    if account is None:
        raise errors.not_found(f"There is no user {name}")
    return account


def user_id_of(tx: Reader, name: str) -> str:
    """Return a user ID as it is, also of another server, or that of a localpart. M_NOT_FOUND."""
    return name if ":" in name else find_account(tx, name).user_id


def find_active_account(tx: Reader, name: str) -> accounts.AccountInfo:
    """Return an account that is in use. Raises M_NOT_FOUND and M_USER_DEACTIVATED."""
    account = find_account(tx, name)
    if account.deactivated_ts is not None:
        raise errors.user_deactivated()
    return account


def ask_password(*, is_stdin: bool) -> str:
    """Ask for a password on the terminal, twice, or read it from the first line of stdin."""
    if is_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise cli.Failure("stdin is not a terminal: use --password-stdin")
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password


def localpart(name: str, server_name: str) -> str:
    """Return the localpart of a user ID or localpart. Raises M_INVALID_USERNAME."""
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
        "is_shadow_banned": account.is_shadow_banned,
        "is_deactivated": account.deactivated_ts is not None,
    }


def _account_line(account: Json) -> str:
    flags = ("admin", "locked", "suspended", "shadow_banned", "deactivated")
    marks = [flag.replace("_", "-") for flag in flags if account[f"is_{flag}"]]
    return f"{account['user_id']}  {format_day(account['created_ts'])}  {' '.join(marks)}".rstrip()


def seen(connection: Json) -> str:
    """Return when and from where something was used; `connection` has last_seen and ip."""
    if connection.get("last_seen") is None:
        return "never used"
    return f"{cli.format_minute(connection['last_seen'])} from {connection.get('ip')}"
