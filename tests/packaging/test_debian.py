"""The Debian package installs in an empty Debian; as root, with debootstrap (make deb-test).

What needs a running systemd is left out: a root that one changes into has none.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.server import ROOT

NEEDED = "python3,adduser,ca-certificates"
START_SECONDS = 60.0

pytestmark = [
    pytest.mark.debian,
    pytest.mark.timeout(1200),
]


def mirror() -> str:
    """The address from which this machine has its packages of Debian 12."""
    listing = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)"]
    lines = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.splitlines()
    return next(line.split()[1] for line in lines if line.split()[0] == "bookworm")


class Debian:
    """An empty Debian in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, text: str = "", is_checked: bool = True) -> str:
        done = subprocess.run(
            ["chroot", str(self.root), *command],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"},
        )
        assert done.returncode == 0 or not is_checked, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    root = tmp_path_factory.mktemp("debian") / "root"
    command = ["debootstrap", "--variant=minbase", f"--include={NEEDED}", "bookworm"]
    subprocess.run([*command, str(root), mirror()], check=True, capture_output=True)
    (package,) = (ROOT / "dist").glob("homebody_*.deb")
    shutil.copy(package, root / "srv/homebody.deb")
    yield Debian(root)
    shutil.rmtree(root)


def test_it_installs_serves_stays_when_removed_and_goes_when_purged(debian: Debian) -> None:
    answer = "homebody homebody/server_name string example.org\n"
    debian.run("debconf-set-selections", text=answer)
    debian.run("dpkg", "-i", "/srv/homebody.deb")
    settings = debian.root / "etc/homebody/homebody.toml"
    data = debian.root / "var/lib/homebody"

    assert 'server_name = "example.org"' in settings.read_text()
    assert oct(settings.stat().st_mode & 0o777) == "0o640"
    assert debian.run("stat", "-c", "%U %a", "/var/lib/homebody") == "homebody 700\n"
    assert "homebody, version" in debian.run("homebody", "--version")
    serves(debian)

    settings.write_text('server_name = "kept.example.org"\n')
    debian.run("dpkg", "-i", "/srv/homebody.deb")
    assert settings.read_text() == 'server_name = "kept.example.org"\n'

    debian.run("dpkg", "-r", "homebody")
    assert not (debian.root / "usr/lib/homebody/bin").exists()
    assert settings.exists()
    assert (data / "homebody.db").exists()

    debian.run("dpkg", "-P", "homebody")
    assert not settings.exists()
    assert not data.exists()


def serves(debian: Debian) -> None:
    """Start the server as its user, and wait for its line in the log."""
    command = ["chroot", "--userspec=homebody:homebody", str(debian.root), "/usr/bin/homebody"]
    environ = {
        "PATH": "/usr/sbin:/usr/bin:/bin",
        "HOMEBODY_CONFIG": "/etc/homebody/homebody.toml",
        "HOMEBODY_BIND": "127.0.0.1:0",
    }
    log = debian.root / "srv/server.log"
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "serve"], env=environ, stderr=output)
    until = time.monotonic() + START_SECONDS
    while "homebody serves example.org" not in log.read_text() and time.monotonic() < until:
        time.sleep(0.1)
    process.terminate()
    assert process.wait(20) == 0, log.read_text()
    assert "homebody serves example.org" in log.read_text()
