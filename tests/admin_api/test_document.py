"""docs/admin-api.md lists every endpoint, and commands that exist."""

from __future__ import annotations

import re

import click

from homebody import admin_api, cli
from tests.conftest import ROOT
from tests.tools import routes, spec_index

DOCUMENT = (ROOT / "docs/admin-api.md").read_text(encoding="utf-8")
WITHOUT_COMMAND = {"POST v1/background_updates/start_job"}
"""It accepts the names of jobs that have nothing to do here."""
ROW = re.compile(r"^\| `([A-Z]+) (\S+)` \| (.+) \| (.*) \|$", re.MULTILINE)


def test_every_endpoint_is_listed_and_no_other() -> None:
    served = {
        f"{it.method} {it.path.removeprefix(admin_api.PREFIX + '/')}"
        for it in routes.routes(spec_index.server())
        if it.path.startswith(admin_api.PREFIX)
    }

    found = ROW.findall(DOCUMENT)
    listed = [f"{method} {path.replace('{', '<').replace('}', '>')}" for method, path, *_ in found]

    assert sorted(listed) == sorted(served)


def test_every_endpoint_has_a_command() -> None:
    without = {
        f"{method} {path}" for method, path, _, command in ROW.findall(DOCUMENT) if not command
    }

    assert without == WITHOUT_COMMAND


def test_the_commands_exist() -> None:
    context = click.Context(cli.main)
    named = {name for *_, last in ROW.findall(DOCUMENT) for name in re.findall("`([^`]+)`", last)}

    assert len(named) > 30
    for name in named:
        command: click.Command | None = cli.main
        for word in name.split():
            assert isinstance(command, click.Group), name
            command = command.get_command(context, word)
        assert command is not None, name
        assert any("--json" in it.opts for it in command.params), name
