"""Follow docs/first-server.md in an empty Debian, and write down what happens (make first-server).

The commands are those of the page, as a shell of root's executes them in a Debian that debootstrap
has just made. It runs in a container with its own systemd, and a network of its own that has only
loopback (but for apt-get, which needs the mirror of this machine). A DNS server in that network
knows the name of the example, as a router would. Two persons then open the links of the page by
HTTPS, register and talk. The result is docs/first-server-transcript.md.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers import debian
from tests.helpers.debian import Machine
from tests.helpers.dns_server import DnsServer

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "first-server.md"
TRANSCRIPT = ROOT / "docs" / "first-server-transcript.md"
NAME = "family.home.arpa"
SECONDS = 600
OWN_DNS = "nameserver 127.0.0.1\n"
ANSWERS = {
    r"Name of this Matrix server: *$": NAME,
    r"assword[^\n]*: *$": "seven-teapots-1",
    r"epeat for confirmation: *$": "seven-teapots-1",
    r"Do you want to continue\? \[Y/n\] *$": "y",
}
"""What the administrator types where a command asks."""
BLOCK = re.compile(r"^```console\n(.*?)^```$|^## ([^\n]+)$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^[█▀▄ ]+$\n?", re.MULTILINE)


def commands(page: str) -> Iterator[tuple[str, str]]:
    """Yield the headings of a page as ("##", text), and its commands as ("#", command)."""
    for block, heading in BLOCK.findall(page):
        if heading:
            yield "##", heading
        for command in re.findall(r"^# (.*?)(?=^# |\Z)", block, re.DOTALL | re.MULTILINE):
            yield "#", command.rstrip("\n")


def in_machine(machine: Machine, command: str, *, has_network_of_host: bool = False) -> list[str]:
    """Return a command that root's shell runs in the new system."""
    environ = ["HOME=/root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    environ += ["TERM=dumb", "LANG=C.UTF-8", "DEBIAN_FRONTEND=readline"]
    shell = ["/usr/bin/env", "-i", *environ, "/bin/bash", "-c", f"cd /root && {command}"]
    return machine.command(*shell, has_network_of_host=has_network_of_host)


def typed(command: list[str]) -> str:
    """Run a command on a terminal, answer what it asks for, and return what was to be seen.

    Raises AssertionError for an exit code that is not 0.
    """
    process, terminal = pty.fork()
    if process == 0:
        os.execvp(command[0], command)  # noqa: S606 - no shell is needed
    seen, answered, end = "", 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            try:
                seen += os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # the last process has closed it
                break
        for question, answer in ANSWERS.items():
            if re.search(question, seen[answered:]):
                os.write(terminal, f"{answer}\n".encode())
                answered = len(seen)
    else:
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    os.close(terminal)
    assert code == 0, f"{shlex.join(command)}: exit code {code}\n{seen}"
    return seen.replace("\r\n", "\n")


@contextmanager
def names(machine: Machine) -> Iterator[None]:
    """Run a DNS server in the network of the machine that knows the name."""
    server = [sys.executable, "-m", "tests.tools.first_server", "--names"]
    network = ["nsenter", f"--net=/proc/{machine.leader}/ns/net", "--"]
    with subprocess.Popen([*network, *server], cwd=ROOT) as process:
        try:
            yield
        finally:
            process.terminate()


def prepare(root: Path, package: Path) -> None:
    """Make the new system, and put the package into it."""
    debian.bootstrap(root, "systemd,systemd-sysv,dbus,procps")
    shutil.copy(package, root / "root")
    shutil.copy(Path(__file__).with_name("first_users.py"), root / "root")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n", encoding="utf-8")


def shortened(output: str, most: int = 24) -> str:
    """Return an output without what is the same everywhere: progress, QR codes, long lists."""
    output = CODE.sub("", re.sub(r"[^\n]*\r(?!\n)", "", re.sub(r"\x1b\[[\d;?]*\w", "", output)))
    lines = [line.rstrip() for line in output.splitlines()]
    if len(lines) > most:
        lines = [*lines[: most // 2], f"… ({len(lines) - most} lines)", *lines[-most // 2 :]]
    return "\n".join(lines)


def follow(machine: Machine) -> str:
    """Run everything; return the transcript."""
    text, links, begin = "", [], time.monotonic()
    for kind, it in commands(PAGE.read_text(encoding="utf-8")):
        if kind == "##":
            text += f"\n## {it} ({time.monotonic() - begin:.0f} s)\n"
            continue
        output = typed(run_by_root(machine, it))
        links += re.findall(r"https://\S+/invite/\S+", output)
        text += f"\n```text\n# {it}\n{shortened(output)}\n```\n"
    persons = shlex.join(["python3", "/root/first_users.py", *links])
    output = typed(in_machine(machine, persons)).rstrip()
    text += f"\n## The two persons\n\n```text\n{output}\n```\n"
    return f"{text}\nAll together: {time.monotonic() - begin:.0f} s.\n"


def run_by_root(machine: Machine, command: str) -> list[str]:
    """Return a command that runs one of the page, with the network of this machine for packages."""
    needs_mirror = command.startswith("apt-get")
    servers = Path("/etc/resolv.conf").read_text(encoding="utf-8") if needs_mirror else OWN_DNS
    (machine.root / "etc/resolv.conf").write_text(servers, encoding="utf-8")
    return in_machine(machine, command, has_network_of_host=needs_mirror)


def serve_names() -> None:
    """Answer for the name of the example, as the router of the family would."""
    DnsServer({f"{NAME} A": ["127.0.0.1"]}, port=53)
    time.sleep(SECONDS * 3)


HEAD = """\
# A first server: what was printed

<!-- Written by tests/tools/first_server.py, which follows first-server.md. -->

The commands of [A first server](first-server.md), run in a Debian that `debootstrap` had just made,
with its own systemd, in a container. The name was known to a DNS server on this machine, as it
would be to a router. The time since the beginning stands behind each heading. QR codes and long
lists are cut.
"""


def main(package: Path) -> None:
    """Follow the page in a new system, and write the transcript."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        prepare(root, package)
        with debian.booted(root) as machine:
            machine.run("apt-get", "update", "-qq", has_network_of_host=True)
            with names(machine):
                made = follow(machine)
    TRANSCRIPT.write_text(f"{HEAD}{made}", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["--names"]:
        serve_names()
    else:
        main(Path(sys.argv[1]))
