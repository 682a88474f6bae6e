"""More commands `homebody user …`: what administrators see and do beyond creating accounts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import click

from homebody import cli, errors
from homebody.cli import DURATION, as_json, fields_of, print_lines, print_result
from homebody.cli import accounts as account_commands
from homebody.cli.accounts import find_account, find_active_account, seen, user, user_id_of
from homebody.cli.database import open_database
from homebody.cli.export import export_user
from homebody.cli.invitations import make_reset_link
from homebody.cli.redactions import redact_user
from homebody.cli.user_activity import show_activity
from homebody.cli.user_devices import list_devices
from homebody.core import audit
from homebody.core.accounts import external_ids, moderation, overrides, threepids
from homebody.core.accounts.access_tokens import LastSeen
from homebody.core.administration import (
    user_activity,
    user_changes,
    users,
)

# the group, with the commands of seven modules
__all__ = [
    "export_user",
    "list_devices",
    "make_reset_link",
    "redact_user",
    "show_activity",
    "user",
]


@user.command("show")
@click.argument("name")
@as_json
@click.pass_context
def show_user(ctx: click.Context, name: str, *, is_json: bool) -> None:
    """Print all about an account."""
    with open_database(ctx) as database, database.read() as tx:
        user_id = find_account(tx, name).user_id
        found = users.described(tx, user_id, LastSeen(database))
    print_lines(fields_of(found), found, is_json=is_json)


@user.command("whois")
@click.argument("name")
@as_json
@click.pass_context
def whois(ctx: click.Context, name: str, *, is_json: bool) -> None:
    """Print from where an account was last used."""
    with open_database(ctx) as database, database.read() as tx:
        user_id = find_account(tx, name).user_id
        found = moderation.whois(tx, user_id, LastSeen(database))
    lines = []
    for device_id, device in found["devices"].items():
        connections = device["sessions"][0]["connections"] or [{}]
        lines.append(f"{device_id}  {seen(connections[0])}")
    print_lines(lines, found, is_json=is_json)


@user.command("rooms")
@click.argument("name")
@as_json
@click.pass_context
def list_rooms(ctx: click.Context, name: str, *, is_json: bool) -> None:
    """Print the rooms of a user, who may be of another server, with the membership."""
    with open_database(ctx) as database, database.read() as tx:
        found = user_activity.memberships(tx, user_id_of(tx, name))
    lines = [f"{room_id}  {membership}" for room_id, membership in found.items()]
    print_lines(lines, found, is_json=is_json)


Restrict = Callable[..., None]
"""A function that sets or ends one of the restrictions of an account."""

RESTRICTIONS: Final[dict[str, tuple[Restrict, str, bool, str]]] = {
    "lock": (moderation.set_locked, "is_locked", True, "Lock an account: it can only log out."),
    "unlock": (moderation.set_locked, "is_locked", False, "Unlock an account; sessions go on."),
    "suspend": (
        *(moderation.set_suspended, "is_suspended", True),
        "Suspend an account: its user can read, but not send.",
    ),
    "unsuspend": (
        *(moderation.set_suspended, "is_suspended", False),
        "End the suspension of an account.",
    ),
    "shadow-ban": (
        *(moderation.set_shadow_banned, "is_shadow_banned", True),
        "Shadow-ban an account: what its user sends seems to be sent, and reaches nobody.",
    ),
    "unshadow-ban": (
        *(moderation.set_shadow_banned, "is_shadow_banned", False),
        "End the shadow ban of an account.",
    ),
}
"""By command: what it calls, with which argument, and its help text."""


def _add_restriction(command: str) -> None:
    restrict, name_of_flag, is_on, text = RESTRICTIONS[command]

    @user.command(command, help=text)
    @click.argument("name")
    @as_json
    @click.pass_context
    def run(ctx: click.Context, name: str, *, is_json: bool) -> None:
        with open_database(ctx) as database, database.write() as tx:
            account = find_active_account(tx, name)
            restrict(tx, audit.COMMAND_LINE, account, **{name_of_flag: is_on})
        kind = name_of_flag.removeprefix("is_").replace("_", "-")
        state = kind if is_on else f"not {kind} any more"
        result = {"user_id": account.user_id, name_of_flag: is_on}
        print_result(f"{account.user_id} is {state}", result, is_json=is_json)


for _command in RESTRICTIONS:
    _add_restriction(_command)


@user.command("admin")
@click.argument("name")
@click.option("--remove", is_flag=True, help="Take the rights away.")
@as_json
@click.pass_context
def set_admin(ctx: click.Context, name: str, *, remove: bool, is_json: bool) -> None:
    """Make a user an administrator."""
    with open_database(ctx) as database, database.write() as tx:
        account = find_active_account(tx, name)
        moderation.set_admin(tx, audit.COMMAND_LINE, account, is_admin=not remove)
    text = f"{account.user_id} is {'not ' * remove}an administrator{' any more' * remove}"
    result = {"user_id": account.user_id, "is_admin": not remove}
    print_result(text, result, is_json=is_json)


@user.command("reactivate")
@click.argument("name")
@click.option("--no-password", is_flag=True, help="Set no password: nobody can log in with one.")
@account_commands.password_stdin
@as_json
@click.pass_context
def reactivate(
    ctx: click.Context, name: str, *, no_password: bool, password_stdin: bool, is_json: bool
) -> None:
    """Open a deactivated account again, with a new password."""
    with open_database(ctx) as database:
        with database.read() as tx:
            account = find_account(tx, name)
        user_id = account.user_id
        if account.deactivated_ts is None:
            raise cli.Failure(f"{user_id} is not deactivated")
        password = None if no_password else account_commands.ask_password(is_stdin=password_stdin)
        changes = user_changes.Changes(password=password, deactivated=False)
        user_changes.put(database, audit.COMMAND_LINE, user_id, changes)
    print_result(f"Opened {user_id} again", {"user_id": user_id}, is_json=is_json)


@user.command("set")
@click.argument("name")
@click.option("--displayname", help='The display name; "" removes it.')
@click.option("--avatar-url", help='An mxc:// URI; "" removes the avatar.')
@click.option("--type", "user_type", type=click.Choice(["bot", "support", "person"]))
@click.option("--email", "emails", multiple=True, help="All e-mail addresses of the account.")
@click.option(
    "--external-id",
    "ids",
    nargs=2,
    multiple=True,
    metavar="PROVIDER ID",
    help="All IDs of the account at identity providers.",
)
@as_json
@click.pass_context
def set_fields(
    ctx: click.Context,
    name: str,
    displayname: str | None,
    avatar_url: str | None,
    user_type: str | None,
    emails: tuple[str, ...],
    ids: tuple[tuple[str, str], ...],
    *,
    is_json: bool,
) -> None:
    """Change what is known of a user; what is not named stays."""
    changes = user_changes.Changes()
    if displayname is not None:
        changes.displayname = displayname
    if avatar_url is not None:
        changes.avatar_url = avatar_url
    if user_type is not None:
        changes.user_type = None if user_type == "person" else user_type
    if ids:
        changes.external_ids = [user_changes.ExternalId(*it) for it in ids]
    with open_database(ctx) as database:
        with database.read() as tx:
            user_id = find_account(tx, name).user_id
            if emails:
                changes.threepids = user_changes.with_emails(tx, user_id, emails)
        user_changes.put(database, audit.COMMAND_LINE, user_id, changes)
        with database.read() as tx:
            found = users.described(tx, user_id, LastSeen(database))
    print_result(f"Changed {user_id}", found, is_json=is_json)


@user.command("find")
@click.option("--email", help="The user with this e-mail address.")
@click.option("--external-id", nargs=2, metavar="PROVIDER ID", help="The user with this ID.")
@as_json
@click.pass_context
def find_user(
    ctx: click.Context, email: str | None, external_id: tuple[str, str] | None, *, is_json: bool
) -> None:
    """Print the user with an e-mail address, or with an ID at an identity provider."""
    if (email is None) == (external_id is None):
        raise click.UsageError("Either --email or --external-id is needed")
    with open_database(ctx) as database, database.read() as tx:
        found = None if email is None else threepids.owner(tx, email)
        if external_id is not None:
            found = external_ids.owner(tx, *external_id)
    if found is None:
        raise errors.not_found("No user has this identifier")
    print_result(found, {"user_id": found}, is_json=is_json)


@user.command("unlink")
@click.argument("name")
@click.argument("provider")
@click.argument("external_id", metavar="ID")
@as_json
@click.pass_context
def unlink(
    ctx: click.Context, name: str, provider: str, external_id: str, *, is_json: bool
) -> None:
    """Remove the link of an account to a login at a provider."""
    with open_database(ctx) as database, database.write() as tx:
        user_id = find_account(tx, name).user_id
        user_changes.unlink(tx, audit.COMMAND_LINE, user_id, provider, external_id)
    text = f"{user_id} is not linked to {external_id} at {provider} any more"
    print_result(text, {"user_id": user_id}, is_json=is_json)


@user.command("expire")
@click.argument("name")
@click.option(
    "--lifetime", type=DURATION, help='For example "30 d"; the account is locked out then.'
)
@click.option("--never", is_flag=True, help="Let the account be used without a limit.")
@as_json
@click.pass_context
def set_expiry(
    ctx: click.Context, name: str, lifetime: int | None, *, never: bool, is_json: bool
) -> None:
    """Set when an account expires: from then on it can't be used."""
    if (lifetime is None) != never:
        raise click.UsageError("Either --lifetime or --never is needed")
    with open_database(ctx) as database, database.write() as tx:
        account = find_active_account(tx, name)
        expires_ts = None if lifetime is None else tx.now_ms + lifetime
        moderation.set_expiry(tx, audit.COMMAND_LINE, account, expires_ts)
    when = "never expires" if expires_ts is None else f"expires on {cli.format_day(expires_ts)}"
    result = {"user_id": account.user_id, "expires_ts": expires_ts}
    print_result(f"{account.user_id} {when}", result, is_json=is_json)


@user.command("replace-keys")
@click.argument("name")
@as_json
@click.pass_context
def allow_key_replacement(ctx: click.Context, name: str, *, is_json: bool) -> None:
    """Let a user replace the cross-signing keys without a password, once, within ten minutes."""
    with open_database(ctx) as database, database.write() as tx:
        user_id = find_active_account(tx, name).user_id
        until_ts = user_changes.allow_key_replacement(tx, audit.COMMAND_LINE, user_id)
    text = f"{user_id} can replace the cross-signing keys within the next ten minutes"
    print_result(text, {"user_id": user_id, "until_ts": until_ts}, is_json=is_json)


@user.command("login-as")
@click.argument("name")
@click.option(
    "--lifetime", type=DURATION, help='For example "1 h"; by default until it is logged out.'
)
@as_json
@click.pass_context
def log_in_as(ctx: click.Context, name: str, lifetime: int | None, *, is_json: bool) -> None:
    """Print an access token by which you act as a user, without a device."""
    with open_database(ctx) as database, database.write() as tx:
        user_id = find_active_account(tx, name).user_id
        expires_ts = None if lifetime is None else tx.now_ms + lifetime
        token = user_changes.log_in_as(tx, audit.COMMAND_LINE, user_id, expires_ts)
    result = {"user_id": user_id, "access_token": token, "expires_ts": expires_ts}
    print_result(token, result, is_json=is_json)


@user.command("limit")
@click.argument("name")
@click.option(
    "--per-second",
    type=click.IntRange(0),
    help="Events a second; 0 for no limit at all.",
)
@click.option("--burst", type=click.IntRange(0), default=0, help="Events at once.")
@click.option("--remove", is_flag=True, help="Have rc_message apply again.")
@as_json
@click.pass_context
def set_limit(
    ctx: click.Context,
    name: str,
    per_second: int | None,
    burst: int,
    *,
    remove: bool,
    is_json: bool,
) -> None:
    """Print or set how many events a user may send, in place of rc_message."""
    with open_database(ctx) as database, database.write() as tx:
        user_id = find_account(tx, name).user_id
        if remove:
            overrides.remove(tx, audit.COMMAND_LINE, user_id)
        elif per_second is not None:
            limit = overrides.Override(per_second, burst)
            overrides.put(tx, audit.COMMAND_LINE, user_id, limit)
        found = overrides.find(tx, user_id)
    shown = {} if found is None else {"per_second": found.messages_per_second}
    shown |= {} if found is None else {"burst": found.burst_count}
    print_result(_limit_text(user_id, found), {"user_id": user_id, **shown}, is_json=is_json)


def _limit_text(user_id: str, limit: overrides.Override | None) -> str:
    if limit is None:
        return f"rc_message applies to {user_id}"
    if not limit.messages_per_second:
        return f"{user_id} has no limits"
    return f"{user_id}: {limit.messages_per_second} events a second, {limit.burst_count} at once"
