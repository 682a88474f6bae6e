"""synadm, the command-line tool for Synapse's admin API: all of its commands succeed.

Those that fail with Synapse as well are in FAIL.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click
import pytest
import requests

from tests.helpers.server import RunningServer, start
from tests.helpers.waiting import wait_for

FAIL: Final = {
    # communities ended with Synapse 1.61; it answers 404 as well
    "group delete",
}
PASSWORD: Final = "a password that nobody guesses"
MATRIX: Final = "/_matrix/client/v3"


class Client:
    """A user of the server, by plain requests."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        answer = requests.post(f"{url}{MATRIX}/register", json=body, timeout=30).json()
        self.user_id, self.token = answer["user_id"], answer["access_token"]

    def ask(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        answer = requests.request(method, self.url + path, headers=headers, timeout=30, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def log_in(self, password: str = PASSWORD) -> int:
        body = {"type": "m.login.password", "user": self.user_id, "password": password}
        return requests.post(f"{self.url}{MATRIX}/login", json=body, timeout=30).status_code

    def create_room(self, **options: Any) -> str:
        options = {"preset": "public_chat", **options}
        return str(self.ask("POST", f"{MATRIX}/createRoom", json=options)["room_id"])

    def send(self, room_id: str, **content: Any) -> str:
        path = f"{MATRIX}/rooms/{quote(room_id)}/send/m.room.message/{time.monotonic_ns()}"
        content = {"msgtype": "m.text", "body": "hello", **content}
        return str(self.ask("PUT", path, json=content)["event_id"])

    def upload(self) -> str:
        path = "/_matrix/media/v3/upload?filename=notes.txt"
        headers = {"Content-Type": "text/plain"}
        return str(self.ask("POST", path, data=b"x" * 5000, headers=headers)["content_uri"])


class Synadm:
    """The command, with the configuration of an administrator."""

    def __init__(self, folder: Path, admin: Client) -> None:
        self.config = folder / "synadm.yaml"
        self.used: set[str] = set()
        self._env = {**os.environ, "HOME": str(folder)}
        settings = {
            "user": admin.user_id,
            "token": admin.token,
            "base_url": admin.url,
            "protocol": "http",
            "admin_path": "/_synapse/admin",
            "matrix_path": "/_matrix",
            "timeout": 30,
            "server_discovery": "dns",
            "homeserver": "localhost",
            "format": "json",
            "ssl_verify": True,
        }
        self.config.write_text(json.dumps(settings))  # which is YAML as well

    def run(self, *words: str, output: str = "json") -> str:
        """Return what a command prints. Fail if it does."""
        self.used.add(next(it for it in COMMANDS if it in {words[0], " ".join(words[:2])}))
        command = [str(Path(sys.executable).parent / "synadm"), "-c", str(self.config)]
        command += ["--yes", "-o", output, *words]
        done = subprocess.run(command, capture_output=True, text=True, env=self._env, check=False)
        problems = [it for it in done.stderr.splitlines() if it.startswith(("WARNING", "ERROR"))]
        assert (done.returncode, problems) == (0, []), (words, done.stdout, done.stderr)
        assert '"errcode"' not in done.stdout, words
        return done.stdout

    def json(self, *words: str) -> Any:
        """Return the JSON that a command prints, after what it says otherwise."""
        text = self.run(*words)
        start_of_json = min(
            it for it in (text.find("{"), text.find("["), text.find('"')) if it >= 0
        )
        return json.loads(text[start_of_json:])


def _commands() -> Iterator[str]:
    """Yield all commands, such as "user list"."""
    root: click.Group = importlib.import_module("synadm.cli").root
    for name, command in root.commands.items():
        if isinstance(command, click.Group):
            yield from (f"{name} {it}" for it in command.commands)
        else:
            yield name


COMMANDS: Final = sorted(_commands())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of its own: commands for all users would disturb other tests."""
    server = start(tmp_path_factory.mktemp("server"), server_notices_user="notices")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def admin(running: RunningServer) -> Client:
    return Client(running.url, "owner")


@pytest.fixture(scope="module")
def alice(admin: Client) -> Client:
    return Client(admin.url, "alice")


@pytest.fixture(scope="module")
def synadm(tmp_path_factory: pytest.TempPathFactory, admin: Client) -> Synadm:
    return Synadm(tmp_path_factory.mktemp("synadm"), admin)


def test_all_commands_of_synadm_succeed(synadm: Synadm, admin: Client, alice: Client) -> None:
    for part in (_general, _tokens, _notices, _rooms, _media, _history, _users, _endings):
        part(synadm, admin, alice)

    assert {*COMMANDS} - synadm.used == FAIL
    assert len(synadm.used) > 45


@pytest.mark.parametrize("output", ["human", "yaml", "pprint", "minified"])
def test_lists_can_be_printed_in_all_forms(synadm: Synadm, alice: Client, output: str) -> None:
    room_id = alice.create_room(name="Kitchen")
    alice.upload()
    commands = [
        ("user", "list"),
        ("user", "whois", "alice"),
        ("user", "media", "alice"),
        ("room", "list"),
        ("room", "members", room_id),
        ("regtok", "list"),
    ]

    printed = [synadm.run(*it, output=output) for it in commands]

    assert alice.user_id in printed[0]
    assert "127.0.0.1" in printed[1]
    assert "notes.txt" in printed[2]
    assert "Kitchen" in printed[3]
    assert alice.user_id in printed[4]


def test_what_synapse_does_not_have_any_more_is_not_found(synadm: Synadm) -> None:
    with pytest.raises(AssertionError, match="status code 404"):
        synadm.run("group", "delete", "+cats:localhost")


def _general(synadm: Synadm, admin: Client, alice: Client) -> None:
    assert "homebody" in synadm.json("version")["server_version"]
    where = ("-b", admin.url, "--protocol", "http", "-p", "/_synapse/admin", "-m", "/_matrix")
    how = ("-w", "30", "-o", "json", "-d", "dns", "-n", "localhost", "--ssl-verify")
    synadm.run("config", "-u", admin.user_id, "-t", admin.token, *where, *how)
    assert "homebody" in synadm.json("raw", "v1/server_version")["server_version"]
    path = f"v1/suspend/{alice.user_id}"
    suspended = synadm.json("raw", "-m", "put", "-d", '{"suspend": false}', path)
    assert suspended == {f"user_{alice.user_id}_suspended": False}
    session = synadm.json("matrix", "login", "alice", "-p", PASSWORD)
    assert session["user_id"] == alice.user_id
    assert synadm.json("matrix", "raw", "client/versions")["versions"]


def _tokens(synadm: Synadm, _admin: Client, _alice: Client) -> None:
    made = synadm.json("regtok", "new", "-n", "family", "-u", "3")
    assert made["uses_allowed"] == 3
    ends = synadm.json("regtok", "new", "-l", "20", "-e", "2100-01-01")
    assert (len(ends["token"]), ends["expiry_time"] > 4 * 10**12) == (20, True)
    listed = synadm.json("regtok", "list", "--valid")["registration_tokens"]
    assert [it["token"] for it in listed] == ["family", ends["token"]]
    assert synadm.json("regtok", "details", "family") == made
    assert synadm.json("regtok", "update", "family", "-u", "-1")["uses_allowed"] is None
    assert "deleted" in synadm.run("regtok", "delete", "family")
    assert len(synadm.json("regtok", "list")["registration_tokens"]) == 1


def _notices(synadm: Synadm, _admin: Client, alice: Client) -> None:
    (sent,) = synadm.json("notice", "send", alice.user_id, "hello", "<b>hello</b>")
    assert sent["event_id"].startswith("$")
    assert len(synadm.json("notice", "send", "-r", "@a.*:localhost", "again")) == 1
    invites = alice.ask("GET", f"{MATRIX}/sync")["rooms"]["invite"]
    assert len(invites) == 1


def _rooms(synadm: Synadm, admin: Client, alice: Client) -> None:
    room_id = alice.create_room(name="Garden", room_alias_name="garden")
    bob = Client(admin.url, "bob")

    found = synadm.json("room", "list", "-n", "Garden", "-s", "joined_members", "-r")
    assert [it["room_id"] for it in found["rooms"]] == [room_id]
    assert "Garden" in synadm.run("room", "search", "Garden")
    assert synadm.json("room", "details", room_id)["name"] == "Garden"
    assert synadm.json("room", "members", room_id)["members"] == [alice.user_id]
    types = {it["type"] for it in synadm.json("room", "state", room_id)["state"]}
    assert {"m.room.create", "m.room.name"} <= types
    levels = synadm.json("room", "power-levels", "-i", room_id, "-a")["rooms"][0]
    assert levels["power_levels"] == {alice.user_id: 100}
    assert synadm.json("room", "resolve", "#garden:localhost") == room_id
    assert "#garden:localhost" in synadm.run("room", "resolve", "-r", room_id)
    assert synadm.json("room", "join", room_id, bob.user_id) == {"room_id": room_id}
    assert synadm.json("room", "make-admin", room_id, "-u", bob.user_id) == {}
    assert synadm.json("room", "block", room_id, "--block") == {"block": True}
    status = synadm.json("room", "block-status", room_id)
    assert status == {"block": True, "user_id": admin.user_id}
    assert synadm.json("room", "block", room_id, "--unblock") == {"block": False}


def _media(synadm: Synadm, _admin: Client, alice: Client) -> None:
    room_id, uri = alice.create_room(), alice.upload()
    media_id = uri.rpartition("/")[2]
    alice.send(room_id, msgtype="m.file", url=uri)

    assert synadm.json("media", "list", "-r", room_id) == {"local": [uri], "remote": []}
    assert media_id in synadm.run("media", "list", "-u", "alice")
    assert media_id in synadm.run("user", "media", "alice")
    assert synadm.json("media", "quarantine", "-i", media_id, "-s", "localhost") == {}
    assert synadm.json("media", "unquarantine", "-i", media_id, "-s", "localhost") == {}
    assert synadm.json("media", "quarantine", "-r", room_id) == {"num_quarantined": 1}
    assert synadm.json("media", "unquarantine", "-U", uri) == {}
    assert synadm.json("media", "protect", media_id) == {}
    assert synadm.json("media", "quarantine", "-u", "alice") == {"num_quarantined": 0}
    assert synadm.json("media", "purge", "-d", "1") == {"deleted": 0}
    other = alice.upload().rpartition("/")[2]
    assert synadm.json("media", "delete", "-i", other)["deleted_media"] == [other]
    assert synadm.json("media", "delete", "-d", "1", "--size", "1")["total"] == 0


def _history(synadm: Synadm, _admin: Client, alice: Client) -> None:
    room_id = alice.create_room()
    events = [alice.send(room_id) for _ in range(3)]

    purge_id = synadm.json("history", "purge", room_id, "-i", events[1], "--delete-local")[
        "purge_id"
    ]
    wait_for(lambda: synadm.json("history", "purge-status", purge_id)["status"] == "complete")
    wanted = synadm.json("user", "redact", alice.user_id, "-r", room_id, "-l", "10")["redact_id"]
    wait_for(lambda: synadm.json("user", "redact-status", wanted)["status"] == "complete")

    event = alice.ask("GET", f"{MATRIX}/rooms/{quote(room_id)}/event/{quote(events[2])}")
    assert event["content"] == {}


def _users(synadm: Synadm, admin: Client, alice: Client) -> None:
    carol = Client(admin.url, "carol")

    assert {alice.user_id, carol.user_id} <= _names(synadm, "-L", "--sort-by", "displayname")
    assert _names(synadm, "-n", "car") == {carol.user_id}
    assert carol.user_id in synadm.run("user", "search", "car")
    assert synadm.json("user", "details", "carol")["name"] == carol.user_id
    assert synadm.json("user", "whois", "carol")["user_id"] == carol.user_id
    assert synadm.json("user", "membership", "alice")["total"] > 0
    synadm.run("user", "modify", "carol", "-n", "Caro", "-t", "email", "c@example.org", "--admin")
    shown = synadm.json("user", "details", "carol")
    assert (shown["displayname"], shown["admin"]) == ("Caro", True)
    assert synadm.json("user", "3pid", "c@example.org") == {"user_id": carol.user_id}
    identity = '{"external_ids": [{"auth_provider": "oidc", "external_id": "c1"}]}'
    synadm.run("raw", "-m", "put", "-d", identity, f"v2/users/{carol.user_id}")
    assert synadm.json("user", "auth-provider", "c1", "-p", "oidc") == {"user_id": carol.user_id}
    synadm.run("user", "modify", "carol", "--no-admin", "--clear-threepids", "--lock")
    shown = synadm.json("user", "details", "carol")
    assert (shown["admin"], shown["threepids"], shown["locked"]) == (False, [], True)
    synadm.run("user", "modify", "carol", "--unlock")
    synadm.run("user", "modify", "carol", "--user-type", "bot")
    assert carol.user_id not in _names(synadm, "--exclude-user-type", "bot")
    synadm.run("user", "password", "carol", "-p", f"new {PASSWORD}")
    assert (carol.log_in(), carol.log_in(f"new {PASSWORD}")) == (403, 200)
    for options in ((), ("--expire-never",)):
        assert synadm.json("user", "login", "carol", *options)["access_token"]
    for options, suspended in (((), True), (("--unsuspend",), False)):
        synadm.run("user", "suspend", "carol", *options)
        assert synadm.json("user", "details", "carol")["suspended"] == suspended
    for options, banned in (((), True), (("--unban",), False)):
        synadm.run("user", "shadow-ban", "carol", *options)
        assert synadm.json("user", "details", "carol")["shadow_banned"] == banned
    carol.log_in(f"new {PASSWORD}")
    assert len(synadm.json("user", "prune-devices", "carol", "-l", "-d", "-1")) == 1
    # it needs the whole ID here, unlike elsewhere
    synadm.run("user", "prune-devices", carol.user_id, "-d", "-1", "-s", "0")
    assert synadm.json("raw", f"v2/users/{carol.user_id}/devices")["total"] == 0


def _endings(synadm: Synadm, admin: Client, alice: Client) -> None:
    first, second, empty = (alice.create_room() for _ in range(3))
    alice.ask("POST", f"{MATRIX}/rooms/{quote(empty)}/leave", json={})

    synadm.run("room", "delete", first, "-u", admin.user_id, "-n", "New", "-m", "It ends.")
    status = ("room", "delete-status", "-r", first)
    wait_for(lambda: synadm.json(*status)["results"][0]["status"] == "complete")
    result = synadm.json(*status)["results"][0]["shutdown_room"]
    assert result["kicked_users"] == [alice.user_id]
    assert result["new_room_id"].startswith("!")
    synadm.run("room", "delete", second, "--v1", "--block")
    assert synadm.json("room", "block-status", second)["block"] is True
    assert empty in synadm.run("room", "purge-empty", "--dry-run")
    synadm.run("room", "purge-empty")  # with --v1 it asks to keep them
    status = ("room", "delete-status", "-r", empty)
    wait_for(lambda: synadm.json(*status)["results"][0]["status"] == "complete")
    left = {it["room_id"] for it in synadm.json("room", "list")["rooms"]}
    assert (first in left, second in left, empty in left) == (False, False, False)

    for name in ("dave", "erin1", "erin2"):
        Client(admin.url, name)
    synadm.run("user", "deactivate", "dave", "--gdpr-erase")
    erased = synadm.json("user", "details", "dave")
    assert (erased["deactivated"], erased["erased"]) == (True, True)
    assert "@erin1:localhost" in synadm.run("user", "deactivate-regex", "@erin.*", "--dry-run")
    synadm.run("user", "deactivate-regex", "@erin.*")
    assert synadm.json("user", "details", "erin2")["deactivated"] is True
    assert not {"@dave:localhost", "@erin1:localhost"} & _names(synadm)
    assert {"@dave:localhost", "@erin1:localhost"} <= _names(synadm, "--deactivated")


def _names(synadm: Synadm, *options: str) -> set[str]:
    return {it["name"] for it in synadm.json("user", "list", *options)["users"]}
