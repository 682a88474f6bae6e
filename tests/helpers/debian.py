"""Empty Debian systems in folders, and one booted with systemd in a container. As root."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ENVIRON = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
BOOT_SECONDS = 120.0
STOP_SECONDS = 60.0


def release() -> str:
    """Return the code name of this machine's Debian, for which the package is built."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def mirror() -> str:
    """Return the address from which this machine has its packages."""
    listing = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)"]
    lines = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.splitlines()
    return next(line.split()[1] for line in lines if line.split()[0] == release())


def bootstrap(root: Path, packages: str) -> None:
    """Make an empty Debian with these packages, separated by commas."""
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", release()]
    subprocess.run([*command, str(root), mirror()], check=True, capture_output=True)


def output_of(command: list[str], text: str = "", *, is_checked: bool = True) -> str:
    """Run a command with the environment of an empty system; return its output and errors."""
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, env=ENVIRON
    )
    assert done.returncode == 0 or not is_checked, done.stdout + done.stderr
    return done.stdout + done.stderr


class Machine:
    """A Debian that runs in namespaces of its own, with systemd and a network of only loopback."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self.leader = leader
        """The process that is 1 in the machine."""

    def command(self, *command: str, has_network_of_host: bool = False) -> list[str]:
        """Return a command that runs in the machine, or in it but for its network."""
        of_its_own = ["--mount", "--uts", "--ipc", "--pid", f"--root=/proc/{self.leader}/root"]
        if not has_network_of_host:
            of_its_own.append("--net")
        return [
            "nsenter",
            f"--target={self.leader}",
            *of_its_own,
            f"--wd=/proc/{self.leader}/root",
            *command,
        ]

    def run(
        self,
        *command: str,
        text: str = "",
        is_checked: bool = True,
        has_network_of_host: bool = False,
    ) -> str:
        """Run a command in the machine; return its output and errors."""
        whole = self.command(*command, has_network_of_host=has_network_of_host)
        return output_of(whole, text, is_checked=is_checked)

    def properties(self, unit: str, *names: str) -> dict[str, str]:
        """Return what systemd says of a unit."""
        shown = self.run("systemctl", "show", unit, *(f"--property={name}" for name in names))
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)

    def journal(self, unit: str) -> str:
        """Return the log of a unit."""
        return self.run("journalctl", "--unit", unit, "--output=cat", "--no-pager")


@contextmanager
def booted(root: Path) -> Iterator[Machine]:
    """Boot a Debian that has systemd, and stop it in the end."""
    # Without a line to log in on, and what waits for a network that never comes
    for unit in ("console-getty.service", "systemd-networkd-wait-online.service"):
        (root / "etc/systemd/system" / unit).unlink(missing_ok=True)
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    options = ["--quiet", "--boot", "--register=no", "--keep-unit", "--private-network"]
    options += ["--console=pipe", "--resolv-conf=off", "--timezone=off", "--link-journal=no"]
    with subprocess.Popen(
        ["systemd-nspawn", *options, f"--directory={root}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            machine = Machine(root, _leader(process.pid))
            state = machine.run("systemctl", "is-system-running", "--wait", is_checked=False)
            assert state.strip() in {"running", "degraded"}, state
            yield machine
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()


def _leader(pid: int) -> int:
    """Wait for the first process of the machine, once systemd runs in it; return its number."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    until = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < until:
        for child in children.read_text(encoding="ascii").split():
            if Path(f"/proc/{child}/root/run/systemd/private").exists():
                return int(child)
        time.sleep(0.1)
    raise TimeoutError("systemd did not start")
