"""mautrix-telegram, a whole bridge of mautrix, set up as docs/bridges.md says.

It does not talk to Telegram: before a user has logged in there, it has no reason to.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clients.bridges import INSTALL_SECONDS, Chat, installed
from tests.helpers import server
from tests.helpers.live import Person
from tests.helpers.programs import running

BOT = "@telegrambot:localhost"

pytestmark = pytest.mark.timeout(INSTALL_SECONDS)


@pytest.fixture(scope="session")
def python() -> Path:
    """Install the bridge; return the interpreter that has it."""
    return installed("mautrix-telegram", "mautrix-telegram>=0.15.3", "aiosqlite")


def example(python: Path) -> dict[str, Any]:
    """Return the configuration that comes with the bridge."""
    print_it = "from importlib import resources; import mautrix_telegram as it; "
    print_it += "print((resources.files(it) / 'example-config.yaml').read_text())"
    text = subprocess.run([str(python), "-c", print_it], check=True, capture_output=True, text=True)
    config: dict[str, Any] = yaml.safe_load(text.stdout)
    return config


def configure(python: Path, folder: Path, port: int, url: str) -> None:
    """Write bridge.yaml."""
    config = example(python)
    config["homeserver"] |= {"address": url, "domain": "localhost"}
    of_bridge = {"address": f"http://127.0.0.1:{port}", "hostname": "127.0.0.1", "port": port}
    config["appservice"] |= {**of_bridge, "database": f"sqlite:{folder}/bridge.db"}
    config["bridge"]["permissions"] = {"@alice:localhost": "admin"}
    for of_other_servers in ("double_puppet_server_map", "login_shared_secret_map"):
        config["bridge"][of_other_servers] = {}
    config["telegram"] |= {"api_id": 123456, "api_hash": "0" * 31 + "1"}
    (folder / "bridge.yaml").write_text(yaml.safe_dump(config))


@contextmanager
def bridged(python: Path, folder: Path) -> Iterator[server.RunningServer]:
    """Run homeserver and bridge; yield the homeserver."""
    port, own_port = server.free_port(), server.free_port()
    url = f"http://127.0.0.1:{own_port}"
    configure(python, folder, port, url)
    bridge = [str(python), "-m", "mautrix_telegram", "-c", str(folder / "bridge.yaml")]
    registration = folder / "registration.yaml"
    subprocess.run([*bridge, "-g", "-r", str(registration)], check=True, cwd=folder)
    homeserver = server.start(
        folder, appservices=f'["{registration}"]', bind=f"127.0.0.1:{own_port}", public_url=url
    )
    try:
        with running(bridge, port, folder / "bridge.log", cwd=folder):
            yield homeserver
    finally:
        homeserver.stop()


def test_the_bot_of_a_bridge_answers_in_a_direct_chat(python: Path, tmp_path: Path) -> None:
    with bridged(python, tmp_path) as homeserver, closing(Person(homeserver, "alice")) as person:
        alice = Chat(person)
        control = person.create_room(invite=[BOT], is_direct=True)
        alice.wait_for(control, "I'm a Telegram bridge bot")
        alice.say(control, "help")
        alice.wait_for(control, "Check if you're logged into Telegram")
        alice.say(control, "ping")
        answer = alice.wait_for(control, "not logged in")
        profile = person.ask("GET", f"/profile/{BOT}")

    assert answer == "You're not logged in."
    assert profile["displayname"] == "Telegram bridge bot"
