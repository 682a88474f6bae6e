"""The command `homebody user devices`."""

from __future__ import annotations

import click

from homebody import errors
from homebody.cli import as_json, print_list
from homebody.cli.accounts import find_account, seen, user
from homebody.cli.database import open_database
from homebody.core import audit
from homebody.core.accounts.access_tokens import LastSeen
from homebody.core.administration import user_devices
from homebody.spec.events import Json
from homebody.storage.database import Tx

_BY = audit.COMMAND_LINE


@user.command("devices")
@click.argument("name")
@click.option("--device", metavar="DEVICE", help="Print only this one.")
@click.option("--add", "added", metavar="DEVICE", help="Create a device without an access token.")
@click.option("--rename", nargs=2, metavar="DEVICE NAME", help="Give a device another name.")
@click.option("--delete", "ending", multiple=True, metavar="DEVICE", help="Log this device out.")
@click.option("--delete-all", is_flag=True, help="Log all devices out.")
@as_json
@click.pass_context
def list_devices(
    ctx: click.Context,
    name: str,
    *,
    device: str | None,
    added: str | None,
    rename: tuple[str, str] | None,
    ending: tuple[str, ...],
    delete_all: bool,
    is_json: bool,
) -> None:
    """Print the devices of a user, change them, or end their sessions."""
    with open_database(ctx) as database:
        with database.read() as tx:
            user_id = find_account(tx, name).user_id
            known = {it["device_id"] for it in user_devices.all_of(tx, user_id, LastSeen(database))}
        for it in ending:
            if it not in known:
                raise errors.not_found(f"{user_id} has no device {it}")
        if added is not None or rename is not None:
            with database.write() as tx:
                _change(tx, user_id, added, rename)
        if delete_all:
            user_devices.delete_all(database, _BY, user_id)
        elif ending:
            user_devices.delete(database, _BY, user_id, ending)
        with database.read() as tx:
            found = user_devices.all_of(tx, user_id, LastSeen(database))
    if device is not None:
        found = [it for it in found if it["device_id"] == device]
        if not found:
            raise errors.not_found(f"{user_id} has no device {device}")
    print_list(found, _device_line, is_json=is_json)


def _change(tx: Tx, user_id: str, added: str | None, rename: tuple[str, str] | None) -> None:
    if added == "":
        raise errors.invalid_param("The ID of a device is not empty")
    if added is not None:
        user_devices.create(tx, _BY, user_id, added)
    if rename is not None:
        user_devices.rename(tx, _BY, user_id, *rename)


def _device_line(device: Json) -> str:
    used = {"ip": device["last_seen_ip"], "last_seen": device["last_seen_ts"]}
    return f"{device['device_id']}  {device['display_name'] or '(no name)'}  {seen(used)}"
