"""The commands in docs/ run as they are written there: all blocks that are marked `sh`.

Each page gets a server with accounts, a room and a file, and its blocks run one after another. What
is only different on a test machine is replaced: the address of the server, and capital names such
as MXC_URI that stand for a value.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import server
from tests.helpers.live import Person
from tests.helpers.server import ROOT, RunningServer

BLOCK = re.compile(r"^( *)```sh\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
PAGES = sorted(
    page for page in (ROOT / "docs").glob("*.md") if BLOCK.search(page.read_text(encoding="utf-8"))
)
SECONDS = 300
PASSWORD = "kettle-and-teapot-3"


PRELUDE = f"""\
homebody() {{
    case "$* " in
    *--password-stdin*) command homebody "$@" ;;
    "user add "* | "user passwd "*) command homebody "$@" --password-stdin <<<'{PASSWORD}' ;;
    doctor*) command homebody "$@" --long-poll 1 ;;
    *) command homebody "$@" ;;
    esac
}}
"""
"""Commands that ask for a password read it from the input, and doctor does not wait for 22 s."""


def blocks(page: Path) -> list[str]:
    """Return the blocks of a page that can run."""
    return [block for _, block in BLOCK.findall(page.read_text(encoding="utf-8"))]


def populate(running: RunningServer) -> dict[str, str]:
    """Make accounts, a room and a file; return what stands for them in the pages."""
    alice, bob, mallory = (Person(running, name) for name in ("alice", "bob", "mallory"))
    room = alice.create_room(preset="public_chat", room_alias_name="kitchen", name="Kitchen")
    for person in (bob, mallory):
        person.ask("POST", f"/join/{room}")
        person.ask(
            "PUT", f"/rooms/{room}/send/m.room.message/1", {"msgtype": "m.text", "body": "x"}
        )
    uri = bob.ask("POST", "/_matrix/media/v3/upload?filename=tea.txt", b"tea")["content_uri"]
    for person in (alice, bob, mallory):
        person.close()
    return {"MXC_URI": uri, "365 d": "1 ms"}


def script_of(page: Path, running: RunningServer, values: dict[str, str]) -> str:
    """Return what the shell executes."""
    text = "\n".join(blocks(page))
    text = re.sub(r"(?:127\.0\.0\.1|localhost):8008", running.url.removeprefix("http://"), text)
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def run(script: str, folder: Path, running: RunningServer) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder, in which the commands find the server."""
    environ = {key: it for key, it in os.environ.items() if not key.startswith("HOMEBODY_")}
    environ |= settings_of(running)
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    (folder / "disk").mkdir()
    script = script.replace("/mnt/disk", str(folder / "disk"))
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", PRELUDE + script],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def settings_of(running: RunningServer) -> dict[str, str]:
    """Return the settings of the server, as environment variables."""
    return {
        "HOMEBODY_DATA_DIR": str(running.log.parent),
        "HOMEBODY_BIND": running.url.removeprefix("http://"),
        "HOMEBODY_SERVER_NAME": "example.org",
        "HOMEBODY_PUBLIC_URL": running.url,
        "HOMEBODY_FEDERATION": "false",
        "HOMEBODY_PASSWORD_HASHING": "cheap",
        "HOMEBODY_SERVER_NOTICES_USER": "notices",
    }


@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_the_commands_of_a_page_succeed(page: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    running = server.start_in(
        tmp_path,
        data_dir,
        server_name="example.org",
        federation="false",
        registration="open",
        registration_open_to_all="true",
        server_notices_user="notices",
    )
    try:
        script = script_of(page, running, populate(running))
        done = run(script, tmp_path, running)
    finally:
        running.stop()

    assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_a_command_that_does_not_exist_is_found(tmp_path: Path) -> None:
    running = RunningServer(None, "http://127.0.0.1:1", tmp_path / "log")  # type: ignore[arg-type] # none is started

    done = run("homebody no-such-command\n", tmp_path, running)

    assert done.returncode == 2
    assert "No such command" in done.stderr
