"""The Debian package installs in an empty Debian; as root, with debootstrap (make deb-test).

What needs a running systemd is in test_running_systemd.py.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.helpers import debian
from tests.helpers.waiting import wait_for

START_SECONDS = 60.0
STOP_SECONDS = 30.0

pytestmark = [
    pytest.mark.debian,
    pytest.mark.timeout(1200),
]


class Debian:
    """An empty Debian in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, text: str = "", is_checked: bool = True) -> str:
        return debian.output_of(["chroot", str(self.root), *command], text, is_checked=is_checked)


@pytest.fixture(scope="module")
def system(debian_root: Path) -> Debian:
    return Debian(debian_root)


def test_it_installs_serves_stays_when_removed_and_goes_when_purged(system: Debian) -> None:
    answer = "homebody homebody/server_name string example.org\n"
    system.run("debconf-set-selections", text=answer)
    system.run("dpkg", "-i", "/srv/homebody.deb")
    settings = system.root / "etc/homebody/homebody.toml"
    data = system.root / "var/lib/homebody"

    assert 'server_name = "example.org"' in settings.read_text()
    assert oct(settings.stat().st_mode & 0o777) == "0o640"
    assert system.run("stat", "-c", "%U %a", "/var/lib/homebody") == "homebody 700\n"
    assert "homebody, version" in system.run("homebody", "--version")
    serves(system)

    settings.write_text('server_name = "kept.example.org"\n')
    system.run("dpkg", "-i", "/srv/homebody.deb")
    assert settings.read_text() == 'server_name = "kept.example.org"\n'

    system.run("dpkg", "-r", "homebody")
    assert not (system.root / "usr/lib/homebody/bin").exists()
    assert settings.exists()
    assert (data / "homebody.db").exists()

    system.run("dpkg", "-P", "homebody")
    assert not settings.exists()
    assert not data.exists()


def serves(system: Debian) -> None:
    """Start the server as its user, and wait for its line in the log."""
    command = ["chroot", "--userspec=homebody:homebody", str(system.root), "/usr/bin/homebody"]
    environ = {
        "PATH": "/usr/sbin:/usr/bin:/bin",
        "HOMEBODY_CONFIG": "/etc/homebody/homebody.toml",
        "HOMEBODY_BIND": "127.0.0.1:0",
    }
    log = system.root / "srv/server.log"
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "serve"], env=environ, stderr=output)
    try:
        wait_for(
            lambda: "homebody serves example.org" in log.read_text(), log.read_text, START_SECONDS
        )
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
