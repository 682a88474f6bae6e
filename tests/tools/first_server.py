"""Follow docs/first-server.md in an empty Debian, and write down what happens. As root:

    debootstrap --variant=minbase bookworm ROOT
    python -m tests.tools.first_server ROOT dist/homebody_0.1.0_amd64.deb

The commands are those of the page, as a shell of root's executes them in ROOT, in a network of its
own that has only loopback (but for apt-get). What a machine has and a folder lacks is put there
first: a systemctl that starts the three services without systemd, and a DNS server that knows the
name of the example. Two persons then open the links of the page by HTTPS, register and talk. The
result is docs/first-server-transcript.md.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "first-server.md"
TRANSCRIPT = ROOT / "docs" / "first-server-transcript.md"
NAME = "family.home.arpa"
SECONDS = 600
ANSWERS = {
    r"Name of this Matrix server: *$": NAME,
    r"assword[^\n]*: *$": "seven-teapots-1",
    r"epeat for confirmation: *$": "seven-teapots-1",
    r"Do you want to continue\? \[Y/n\] *$": "y",
}
"""What the administrator types where a command asks."""
BLOCK = re.compile(r"^```console\n(.*?)^```$|^## ([^\n]+)$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^[█▀▄ ]+$\n?", re.MULTILINE)
SYSTEMCTL = """\
#!/bin/sh
# Stands in for systemd: starts a service as its unit says, but without a sandbox
for service; do :; done
case "$1" in daemon-reload) exit ;; esac
if [ -e "/run/$service.pid" ]; then
    kill "$(cat "/run/$service.pid")"
    while [ -e "/proc/$(cat "/run/$service.pid")" ]; do sleep 0.1; done
fi
case "$service" in
homebody*)
    service=homebody
    set -- env HOMEBODY_CONFIG=/etc/homebody/homebody.toml HOMEBODY_DATA_DIR=/var/lib/homebody \\
        /usr/lib/homebody/bin/homebody serve ;;
caddy*) set -- caddy run --config /etc/caddy/Caddyfile ;;
esac
cd "$(getent passwd "$service" | cut -d: -f6)"
setsid setpriv --reuid "$service" --regid "$service" --init-groups --reset-env \\
    --inh-caps +net_bind_service --ambient-caps +net_bind_service "$@" \\
    >"/run/$service.log" 2>&1 </dev/null &
echo $! >"/run/$service.pid"
sleep 6
"""


def commands(page: str) -> Iterator[tuple[str, str]]:
    """Yield the headings of a page as ("##", text), and its commands as ("#", command)."""
    for block, heading in BLOCK.findall(page):
        if heading:
            yield "##", heading
        for command in re.findall(r"^# (.*?)(?=^# |\Z)", block, re.DOTALL | re.MULTILINE):
            yield "#", command.rstrip("\n")


def in_network(process: int, *command: str) -> list[str]:
    """Return a command that runs in the network of a process."""
    return ["nsenter", f"--net=/proc/{process}/ns/net", *command]


def in_root(root: Path, command: str) -> list[str]:
    """Return a command that runs in the new system."""
    environ = ["HOME=/root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    environ += ["TERM=dumb", "LANG=C.UTF-8", "DEBIAN_FRONTEND=readline"]
    shell = f"cd /root && {command}"
    return ["chroot", str(root), "/usr/bin/env", "-i", *environ, "/bin/bash", "-c", shell]


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
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    os.close(terminal)
    assert code == 0, f"{shlex.join(command)}: exit code {code}\n{seen}"
    return seen.replace("\r\n", "\n")


@contextmanager
def network(root: Path) -> Iterator[int]:
    """Yield a process in a network that has only loopback, and a DNS server for the name."""
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as holder:
        time.sleep(0.5)
        subprocess.run(in_network(holder.pid, "ip", "link", "set", "lo", "up"), check=True)
        names = [sys.executable, "-m", "tests.tools.first_server", "--names"]
        with subprocess.Popen(in_network(holder.pid, *names), cwd=ROOT) as server:
            try:
                yield holder.pid
            finally:
                for pid in sorted((root / "run").glob("*.pid")):
                    subprocess.run(["kill", pid.read_text().strip()], check=False)
                server.terminate()
                holder.terminate()


@contextmanager
def mounted(root: Path) -> Iterator[None]:
    """Mount what programs expect below /proc and /dev."""
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    subprocess.run(["mount", "--rbind", "/dev", root / "dev"], check=True)
    subprocess.run(["mount", "--make-rslave", root / "dev"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", "--recursive", root / "dev", root / "proc"], check=True)


def prepare(root: Path, package: Path) -> None:
    """Put the package into the new system, and what stands in for the rest of the machine."""
    shutil.copy(package, root / "root")
    shutil.copy(Path(__file__).with_name("first_users.py"), root / "root")
    stand_in = root / "usr/local/bin/systemctl"
    stand_in.write_text(SYSTEMCTL, encoding="utf-8")
    stand_in.chmod(0o755)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n", encoding="utf-8")
    subprocess.run(in_root(root, "apt-get update -qq"), check=True)


def shortened(output: str, most: int = 24) -> str:
    """Return an output without what is the same everywhere: progress, QR codes, long lists."""
    output = CODE.sub("", re.sub(r"[^\n]*\r(?!\n)", "", re.sub(r"\x1b\[[\d;?]*\w", "", output)))
    lines = [line.rstrip() for line in output.splitlines()]
    if len(lines) > most:
        lines = [*lines[: most // 2], f"… ({len(lines) - most} lines)", *lines[-most // 2 :]]
    return "\n".join(lines)


def follow(root: Path, package: Path) -> str:
    """Run everything; return the transcript."""
    prepare(root, package)
    text, links, begin = "", [], time.monotonic()
    with mounted(root), network(root) as net:
        for kind, it in commands(PAGE.read_text(encoding="utf-8")):
            if kind == "##":
                text += f"\n## {it} ({time.monotonic() - begin:.0f} s)\n"
                continue
            command = in_root(root, it)
            if not it.startswith("apt-get"):
                (root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n", encoding="utf-8")
                command = in_network(net, *command)
            output = typed(command)
            links += re.findall(r"https://\S+/invite/\S+", output)
            text += f"\n```text\n# {it}\n{shortened(output)}\n```\n"
        persons = in_root(root, shlex.join(["python3", "/root/first_users.py", *links]))
        output = typed(in_network(net, *persons)).rstrip()
        text += f"\n## The two persons\n\n```text\n{output}\n```\n"
    return f"{text}\nAll together: {time.monotonic() - begin:.0f} s.\n"


def serve_names() -> None:
    """Answer for the name of the example, as the router of the family would."""
    from tests.helpers.dns_server import DnsServer  # noqa: PLC0415 - in a process of its own

    DnsServer({f"{NAME} A": ["127.0.0.1"]}, port=53)
    time.sleep(SECONDS * 3)


HEAD = """\
# A first server: what was printed

<!-- Written by tests/tools/first_server.py, which follows first-server.md. -->

The commands of [A first server](first-server.md), run in a system that
`debootstrap --variant=minbase bookworm` had just made. It has no systemd, so a script stood in for
`systemctl`; and the name was known to a DNS server on this machine, as it would be to a router. The
time since the beginning stands behind each heading. QR codes and long lists are cut.
"""

if __name__ == "__main__":
    if sys.argv[1:] == ["--names"]:
        serve_names()
    else:
        made = follow(Path(sys.argv[1]), Path(sys.argv[2]))
        TRANSCRIPT.write_text(f"{HEAD}{made}", encoding="utf-8")
