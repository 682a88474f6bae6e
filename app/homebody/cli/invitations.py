"""The commands `homebody invite …` and `homebody user reset-link`: links that let a person in."""

from __future__ import annotations

import io
import time

import click
import segno

from homebody.cli import DURATION, as_json, format_minute, print_lines, print_list, print_result
from homebody.cli.accounts import find_account, localpart, user
from homebody.cli.database import open_database
from homebody.core import audit
from homebody.core.events import state
from homebody.core.rooms import aliases
from homebody.core.sessions import invitations
from homebody.spec.events import Json

without_code = click.option("--no-qr", is_flag=True, help="Print no QR code.")


class Invitations(click.Group):
    """The group, in which `homebody invite bob` is `homebody invite create bob`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the name of the command where there is none."""
        if not args or args[0] not in {*self.commands, "--help"}:
            args = ["create", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Invitations)
def invite() -> None:
    """Invite a person by a link, with which they choose a name and a password.

    `homebody invite` and `homebody invite NAME` are short for `homebody invite create`.
    """


@invite.command("create")
@click.argument("name", required=False)
@click.option(
    "--expires", type=DURATION, default="7 d", help='How long it is valid; by default "7 d".'
)
@click.option(
    "--room",
    "rooms",
    multiple=True,
    metavar="ROOM",
    help="A room that the person joins, by ID or alias; by default those of newcomer_rooms.",
)
@without_code
@as_json
@click.pass_context
def create(
    ctx: click.Context,
    name: str | None,
    expires: int,
    rooms: tuple[str, ...],
    *,
    no_qr: bool,
    is_json: bool,
) -> None:
    """Print a link by which one person can register, also where registration is closed.

    NAME is kept for them until the link expires; without it they choose one.
    """
    with open_database(ctx) as database, database.write() as tx:
        if name is not None:
            name = localpart(name, database.server.name)
        for room in rooms:
            state.head(tx, aliases.resolve(tx, room))  # raises M_NOT_FOUND for an unknown room
        chosen = list(rooms) or None
        link = invitations.invite(tx, audit.COMMAND_LINE, name, expires, chosen)
    _print_link(link, expires, {"name": name}, is_json=is_json, no_qr=no_qr)


@invite.command("list")
@as_json
@click.pass_context
def list_invitations(ctx: click.Context, *, is_json: bool) -> None:
    """Print all links of the last weeks, without what lets somebody in."""
    with open_database(ctx) as database, database.read() as tx:
        found = [invitations.described(it) for it in invitations.all_of(tx)]
    print_list(found, _line, is_json=is_json)


@invite.command("revoke")
@click.argument("invitation", metavar="ID_OR_LINK")
@as_json
@click.pass_context
def revoke(ctx: click.Context, invitation: str, *, is_json: bool) -> None:
    """Revoke a link, by the id that `homebody invite list` shows or by the link itself."""
    with open_database(ctx) as database, database.write() as tx:
        invitations.revoke(tx, audit.COMMAND_LINE, invitation)
    print_result("Revoked the link", {}, is_json=is_json)


@user.command("reset-link")
@click.argument("name")
@click.option(
    "--expires", type=DURATION, default="1 d", help='How long it is valid; by default "1 d".'
)
@without_code
@as_json
@click.pass_context
def make_reset_link(
    ctx: click.Context, name: str, expires: int, *, no_qr: bool, is_json: bool
) -> None:
    """Print a link by which a user sets a new password once, and which logs out all devices."""
    with open_database(ctx) as database, database.write() as tx:
        user_id = find_account(tx, name).user_id
        link = invitations.reset_link(tx, audit.COMMAND_LINE, user_id, expires)
    _print_link(link, expires, {"user_id": user_id}, is_json=is_json, no_qr=no_qr)


def _print_link(link: str, lifetime_ms: int, of: Json, *, is_json: bool, no_qr: bool) -> None:
    expires_ts = time.time_ns() // 1_000_000 + lifetime_ms
    lines = [link, f"Valid once, until {format_minute(expires_ts)}"]
    if not no_qr:
        code = io.StringIO()
        segno.make_qr(link, error="l").terminal(code, compact=True, border=2)
        lines[1:1] = code.getvalue().rstrip("\n").split("\n")
    print_lines(lines, {**of, "link": link, "expires_ts": expires_ts}, is_json=is_json)


def _line(invitation: Json) -> str:
    what = "password of" if invitation["purpose"] == invitations.PASSWORD else "account for"
    until = f"valid until {format_minute(invitation['expires_ts'])}"
    if invitation["used_ts"] is not None:
        until = f"used {format_minute(invitation['used_ts'])}"
    elif invitation["expires_ts"] <= time.time_ns() // 1_000_000:
        until = f"expired {format_minute(invitation['expires_ts'])}"
    whom = invitation["user_id"] or "anybody"
    return f"{invitation['id']}  {what} {whom}  {until}  by {invitation['created_by']}"
