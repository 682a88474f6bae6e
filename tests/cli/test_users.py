"""The commands by which administrators see and restrict users, and the audit log."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from homebody.cli import format_day, main
from homebody.core import audit
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, Person
from tests.helpers.encryption import Identity
from tests.helpers.rooms import refusal

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("user", "show", "bob")`: what the command prints."""
    env: dict[str, str | None] = {key: None for key in os.environ if key.startswith("HOMEBODY_")}
    env |= {"HOMEBODY_DATA_DIR": str(tmp_path), "HOMEBODY_PASSWORD_HASHING": "cheap"}

    def call(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = CliRunner().invoke(main, words, stdin, env=env, catch_exceptions=False)
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)

    return call


@pytest.fixture
def result(app: Application, run: Run) -> Callable[..., Any]:
    """The JSON that a command prints; the server has noticed what it wrote."""

    def call(*words: str, stdin: str = "") -> Any:
        done = run(*words, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        app.homeserver.database.notice_other_writers()
        return json.loads(done.stdout)

    return call


Result = Callable[..., Any]


@pytest.fixture
def bob(login: Login) -> Person:
    login("owner")
    return login("bob")


def log_in(client: FlaskClient, password: str) -> int:
    body = {"type": "m.login.password", "user": "bob", "password": password}
    return client.post(V3 + "login", json=body).status_code


def test_an_account_is_shown(app: Application, bob: Person, result: Result, run: Run) -> None:
    app.homeserver.last_seen.write()

    shown, printed = result("user", "show", "bob"), run("user", "show", "@bob:localhost").stdout

    assert (shown["name"], shown["admin"], shown["user_type"]) == (bob.user_id, False, None)
    assert "name: @bob:localhost" in printed.splitlines()
    assert "locked: no" in printed.splitlines()
    assert f"creation_ts: {format_day(time.time_ns() // 1_000_000)}" in printed.splitlines()


@pytest.mark.parametrize(
    ("on", "off", "flag", "status"),
    [("lock", "unlock", "locked", 401), ("suspend", "unsuspend", "suspended", 403)],
)
def test_a_restriction_begins_and_ends(
    bob: Person, result: Result, on: str, off: str, flag: str, status: int
) -> None:
    def create() -> int:
        return bob.post("createRoom").status_code

    begun = result("user", on, "bob"), create()
    ended = result("user", off, "bob"), create()

    assert begun == ({"user_id": bob.user_id, f"is_{flag}": True}, status)
    assert ended == ({"user_id": bob.user_id, f"is_{flag}": False}, 200)
    assert [it["action"] for it in result("audit")] == [f"user.{off}", f"user.{on}"]


def test_a_shadow_ban_begins_and_ends(bob: Person, result: Result, run: Run) -> None:
    room_id = bob.create_room()

    banned = result("user", "shadow-ban", "bob")
    hidden = bob.send(room_id)
    ended = run("user", "unshadow-ban", "bob").stdout

    assert banned == {"user_id": bob.user_id, "is_shadow_banned": True}
    assert refusal(bob.get(f"rooms/{room_id}/event/{hidden}"))[0] == 404
    assert ended == "@bob:localhost is not shadow-banned any more\n"


def test_rights_are_given_and_taken(bob: Person, result: Result, run: Run) -> None:
    path = "/_synapse/admin/v2/users"

    given = result("user", "admin", "bob"), bob.get(path).status_code
    taken = result("user", "admin", "bob", "--remove"), bob.get(path).status_code

    assert given == ({"user_id": bob.user_id, "is_admin": True}, 200)
    assert taken == ({"user_id": bob.user_id, "is_admin": False}, 403)
    assert run("user", "admin", "bob").stdout == "@bob:localhost is an administrator\n"


def test_devices_are_listed_and_logged_out(
    app: Application, bob: Person, login: Login, result: Result, run: Run
) -> None:
    second = login("bob")
    app.homeserver.last_seen.write()

    listed = result("user", "devices", "bob")
    whois = result("user", "whois", "bob")
    text = run("user", "whois", "bob").stdout
    left = result("user", "devices", "bob", "--delete", bob.device_id)

    assert {it["device_id"] for it in listed} == {bob.device_id, second.device_id}
    assert whois["devices"].keys() == {bob.device_id, second.device_id}
    assert "from 127.0.0.1" in text
    assert [it["device_id"] for it in left] == [second.device_id]
    assert refusal(bob.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")


def test_an_administrator_acts_as_a_user(
    client: FlaskClient, bob: Person, result: Result, run: Run
) -> None:
    made = result("user", "login-as", "bob", "--lifetime", "1 h")
    puppet = Person(client, bob.user_id, made["access_token"], "")

    assert puppet.get("account/whoami").get_json()["user_id"] == bob.user_id
    assert made["expires_ts"] > 0
    assert run("user", "login-as", "bob", "--lifetime", "7").returncode == 2
    assert made["access_token"] not in run("audit").stdout


def test_fields_are_set_and_others_stay(bob: Person, result: Result, run: Run) -> None:
    words = ["--displayname", "Bobby", "--type", "bot", "--email", "Bob@Example.org"]
    changed = result("user", "set", "bob", *words, "--external-id", "oidc", "17")
    again = result("user", "set", "bob", "--type", "person", "--avatar-url", "mxc://localhost/b")

    assert (changed["displayname"], changed["user_type"]) == ("Bobby", "bot")
    assert (again["displayname"], again["user_type"]) == ("Bobby", None)
    assert again["avatar_url"] == "mxc://localhost/b"
    assert [it["address"] for it in again["threepids"]] == ["bob@example.org"]
    assert again["external_ids"] == [{"auth_provider": "oidc", "external_id": "17"}]
    assert result("user", "find", "--email", "bob@example.org") == {"user_id": bob.user_id}
    assert run("user", "find", "--external-id", "oidc", "17").stdout == "@bob:localhost\n"
    assert run("user", "find", "--external-id", "oidc", "18").returncode == 1
    assert run("user", "find").returncode == 2


def test_a_link_to_a_login_elsewhere_is_removed(bob: Person, result: Result, run: Run) -> None:
    result("user", "set", "bob", "--external-id", "oidc", "17", "--external-id", "oidc", "18")

    removed = result("user", "unlink", "bob", "oidc", "17")
    again = run("user", "unlink", "bob", "oidc", "17")

    assert removed == {"user_id": bob.user_id}
    kept = result("user", "show", "bob")["external_ids"]
    assert kept == [{"auth_provider": "oidc", "external_id": "18"}]
    assert (again.returncode, "no such link" in again.stderr) == (1, True)


def test_an_account_expires(bob: Person, result: Result, run: Run) -> None:
    later = result("user", "expire", "bob", "--lifetime", "1 d")["expires_ts"]
    before = bob.get("account/whoami").status_code
    result("user", "expire", "bob", "--lifetime", "1 ms")
    after = bob.get("account/whoami")
    never = run("user", "expire", "bob", "--never").stdout

    assert (before, later > 0) == (200, True)
    assert refusal(after) == (403, "ORG_MATRIX_EXPIRED_ACCOUNT")
    assert never == "@bob:localhost never expires\n"
    assert run("user", "expire", "bob").returncode == 2


def test_keys_may_be_replaced(bob: Person, result: Result, run: Run) -> None:
    without = run("user", "replace-keys", "bob")
    bob.post("keys/device_signing/upload", json=Identity(bob.user_id).upload())

    assert without.returncode == 1
    assert result("user", "replace-keys", "bob")["until_ts"] > 0
    second = Identity(bob.user_id, "second").upload()
    assert bob.post("keys/device_signing/upload", json=second).status_code == 200


def test_rooms_are_listed(bob: Person, result: Result, run: Run) -> None:
    room_id = bob.create_room()

    assert result("user", "rooms", "bob") == {room_id: "join"}
    assert run("user", "rooms", "bob").stdout == f"{room_id}  join\n"
    assert result("user", "rooms", "@x:elsewhere.example") == {}


def test_limits_are_set_and_removed(bob: Person, result: Result, run: Run) -> None:
    own = {"user_id": bob.user_id}

    assert result("user", "limit", "bob") == own
    limit = {**own, "per_second": 3, "burst": 9}
    assert result("user", "limit", "bob", "--per-second", "3", "--burst", "9") == limit
    assert run("user", "limit", "bob").stdout == "@bob:localhost: 3 events a second, 9 at once\n"
    assert (
        run("user", "limit", "bob", "--per-second", "0").stdout == "@bob:localhost has no limits\n"
    )
    assert result("user", "limit", "bob", "--remove") == own


def test_a_deactivated_account_is_opened_again(
    client: FlaskClient, bob: Person, result: Result, run: Run
) -> None:
    too_early = run("user", "reactivate", "bob", "--no-password")
    result("user", "deactivate", "bob", "--yes")
    closed = log_in(client, PASSWORD)

    opened = result("user", "reactivate", "bob", "--password-stdin", stdin=f"{PASSWORD}\n")

    assert (too_early.returncode, too_early.stderr) == (
        *(1, "homebody: @bob:localhost is not deactivated\n"),
    )
    assert opened == {"user_id": bob.user_id}
    assert (closed, log_in(client, PASSWORD)) == (403, 200)


@pytest.mark.parametrize(
    "words",
    [
        *(("show",), ("whois",), ("devices",), ("rooms",), ("lock",), ("unlock",), ("suspend",)),
        *(("unsuspend",), ("shadow-ban",), ("unshadow-ban",), ("admin",), ("login-as",)),
        *(("limit",), ("reactivate", "--no-password")),
    ],
)
def test_an_unknown_user_is_an_error(bob: Person, run: Run, words: tuple[str, ...]) -> None:
    done = run("user", *words, "nobody")
    as_json = run("user", *words, "nobody", "--json")

    assert (done.returncode, done.stdout) == (1, "")
    assert "nobody" in done.stderr
    assert json.loads(as_json.stderr)["errcode"] == "M_NOT_FOUND"


def test_the_audit_log_tells_who_did_what(bob: Person, result: Result, run: Run) -> None:
    run("user", "passwd", "bob", "--password-stdin", stdin=PASSWORD)
    run("user", "add", "carol", "--no-password")
    run("user", "lock", "carol")

    entries = result("audit")
    one = result("audit", "--subject", "@carol:localhost", "--limit", "1")

    assert [(it["actor"], it["action"], it["subject"]) for it in entries] == [
        (audit.COMMAND_LINE, "user.lock", "@carol:localhost"),
        (audit.COMMAND_LINE, "user.create", "@carol:localhost"),
        (audit.COMMAND_LINE, "user.password", bob.user_id),
    ]
    assert [it["action"] for it in one] == ["user.lock"]
    lines = run("audit").stdout.splitlines()
    assert lines[0].endswith("command line  user.lock  @carol:localhost")
    assert lines[2].endswith('user.password  @bob:localhost  {"logout_devices":true}')
    assert run("audit", "--limit", "0").returncode == 2


@pytest.mark.parametrize("character", ["\x1b", "\x07", "\r", "\x9b", "\x7f", "\u202e", "\u2028"])
def test_a_name_has_no_effect_on_the_terminal(bob: Person, run: Run, character: str) -> None:
    name = f"Bob{character}]0;root{character}[2J"
    url = f"profile/{bob.user_id}/displayname"
    assert bob.put(url, json={"displayname": name}).status_code == 200

    shown = run("user", "show", "bob")

    assert shown.returncode == 0
    assert character not in shown.stdout
    assert "Bob\\" in shown.stdout
    assert character not in run("user", "show", f"b{character}b").stderr


@pytest.mark.parametrize("character", ["\x9b", "\xad", "\u202e", "\U000e0067", "👩"])
def test_json_stays_json_whatever_a_name_contains(
    bob: Person, result: Result, character: str
) -> None:
    name = f"Bob{character}"
    url = f"profile/{bob.user_id}/displayname"
    assert bob.put(url, json={"displayname": name}).status_code == 200

    assert result("user", "show", "bob")["displayname"] == name


def test_a_name_forges_no_line_of_a_list(bob: Person, run: Run) -> None:
    url = f"devices/{bob.device_id}"
    assert bob.put(url, json={"display_name": "x\n@eve:localhost admin"}).status_code == 200

    lines = run("user", "devices", "bob").stdout.splitlines()

    assert not any(it.startswith("@eve") for it in lines)
    assert any("x\\n@eve" in it for it in lines)


def test_a_name_forges_no_line_about_an_account(bob: Person, run: Run) -> None:
    url = f"profile/{bob.user_id}/displayname"
    assert bob.put(url, json={"displayname": "Bob\nadmin: yes"}).status_code == 200

    lines = run("user", "show", "bob").stdout.splitlines()

    assert "admin: no" in lines
    assert "admin: yes" not in lines


def test_letters_and_emoji_are_printed_as_they_are(bob: Person, run: Run) -> None:
    name = "Zoë 👩‍👩‍👧 می‌خواهم"
    bob.put(f"profile/{bob.user_id}/displayname", json={"displayname": name})

    assert name in run("user", "show", "bob").stdout
