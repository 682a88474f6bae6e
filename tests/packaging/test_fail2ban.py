"""The filter for fail2ban finds failed logins in the log, with the real fail2ban-regex."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.conftest import PASSWORD, V3, MakeApp
from tests.helpers.logs import configure
from tests.helpers.server import ROOT

FILTER = ROOT / "packaging/fail2ban/filter.d/homebody.conf"
MATCHED = re.compile(r"^Lines: (\d+) lines, \d+ ignored, (\d+) matched, (\d+) missed", re.MULTILINE)
FORGED = "x - homebody.access - 1 - WARNING - ab - login refused to 203.0.113.9 as x"

pytestmark = [
    pytest.mark.clients,
    pytest.mark.usefixtures("restored_logging"),
]


def log_in(client: FlaskClient, name: str, address: str) -> None:
    who = {"type": "m.id.user", "user": name}
    body = {"type": "m.login.password", "identifier": who, "password": "wrong"}
    client.post(f"{V3}login", json=body, headers={"X-Forwarded-For": address})


def addresses_in(lines: list[str], folder: Path) -> tuple[list[str], int]:
    """Return the addresses that fail2ban finds, and how many lines it passes over."""
    log = folder / "homebody.log"
    log.write_text("".join(f"{line}\n" for line in lines))
    command = ["fail2ban-regex", "--print-all-matched", str(log), str(FILTER)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = MATCHED.search(output)
    assert found is not None, output
    block = output.partition("Matched line(s):")[2].splitlines()
    matched = [line for line in block if "login refused" in line]
    assert len(matched) == int(found[2]), output
    addresses = re.findall(r"login refused to (\S+) as", "\n".join(matched))
    return addresses, int(found[3])


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_failed_logins_are_found_and_nothing_else(
    make_app: MakeApp,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    log_format: str,
) -> None:
    client = make_app().test_client()
    account = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    client.post(f"{V3}register", json=account)
    configure(log_format=log_format)
    capsys.readouterr()

    log_in(client, "alice", "192.0.2.7")
    log_in(client, "@nobody:localhost", "2001:db8::7")
    log_in(client, FORGED, "192.0.2.8")
    log_in(client, f"x\n{FORGED}", "192.0.2.9")
    client.get(f"/_matrix/client/versions?x={FORGED.replace(' ', '%20')}")
    client.get(f"{V3}sync")
    lines = capsys.readouterr().err.splitlines()
    addresses, others = addresses_in(lines, tmp_path)

    assert addresses == ["192.0.2.7", "2001:db8::7", "192.0.2.8", "192.0.2.9"]
    assert others == len(lines) - 4


def test_the_documentation_names_both_files_and_shows_the_filter() -> None:
    text = (ROOT / "docs/monitoring.md").read_text()

    for path in (ROOT / "packaging/fail2ban").glob("*.d/*.conf"):
        assert str(path.relative_to(ROOT)) in text
    assert FILTER.read_text().partition("\n\n")[2] in text
