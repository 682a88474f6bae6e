"""The Debian package under a running systemd; as root, with systemd-nspawn (make deb-test)."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import debian
from tests.helpers.debian import Machine
from tests.helpers.server import ROOT
from tests.helpers.waiting import wait_for
from tests.tools import first_server

UNIT = "homebody.service"
DROP_IN = "etc/systemd/system/homebody.service.d/test.conf"
ASK = (
    "import json, sys, urllib.request as r\n"
    "it = r.Request(sys.argv[1], data=sys.stdin.buffer.read() or None)\n"
    "print(r.urlopen(it, timeout=30).read().decode())"
)
VERSIONS = "http://127.0.0.1:8008/_matrix/client/versions"
SECONDS = 40.0

pytestmark = [
    pytest.mark.debian,
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def machine(debian_root: Path) -> Iterator[Machine]:
    """A booted Debian in which the package was installed."""
    with debian.booted(debian_root) as machine:
        answer = "homebody homebody/server_name string example.org\n"
        machine.run("debconf-set-selections", text=answer)
        machine.run("dpkg", "-i", "/srv/homebody.deb")
        yield machine


def ask(machine: Machine, url: str = VERSIONS, body: str = "") -> str:
    return machine.run("python3", "-c", ASK, url, text=body)


def main_pid(machine: Machine) -> int:
    return int(machine.properties(UNIT, "MainPID")["MainPID"])


def worker_pid(machine: Machine) -> int:
    """The process that says it is alive: the child of the main one."""
    pid = main_pid(machine)
    children = machine.run("cat", f"/proc/{pid}/task/{pid}/children").split()
    return int(children[0])


def wait_for_another(machine: Machine, pid: int) -> None:
    """Wait until another process than this serves."""

    def is_there() -> bool:
        shown = machine.properties(UNIT, "ActiveState", "MainPID")
        return shown["ActiveState"] == "active" and shown["MainPID"] not in {"0", str(pid)}

    wait_for(is_there, lambda: machine.journal(UNIT), SECONDS)


def drop_in(machine: Machine, text: str) -> None:
    """Add to the unit, and restart it; without text, take back what was added."""
    file = machine.root / DROP_IN
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", UNIT)


def typed(machine: Machine, page: str, section: str) -> str:
    """Type what root types in a section of a page of docs/; return what is printed."""
    typed_here, script = "", ["set -e; cd /root"]
    for kind, it in first_server.commands((ROOT / "docs" / page).read_text(encoding="utf-8")):
        if kind == "##":
            typed_here = it
        elif typed_here == section:
            script.append(re.sub(r"homebody_[\d.]+_\w+\.deb", "/srv/homebody.deb", it))
    assert len(script) > 1
    return machine.run("bash", "-c", "\n".join(script))


def test_the_service_runs_as_soon_as_the_package_is_installed(machine: Machine) -> None:
    shown = machine.properties(UNIT, "ActiveState", "UnitFileState", "StatusText", "User")

    assert shown["ActiveState"] == "active"
    assert shown["UnitFileState"] == "enabled"
    assert shown["User"] == "homebody"
    assert "127.0.0.1:8008" in shown["StatusText"]
    assert '"v1.19"' in ask(machine)


def test_a_start_is_over_when_the_server_answers(machine: Machine) -> None:
    """Type=notify: what is ordered after the service needs not wait any more."""
    machine.run("systemctl", "restart", UNIT)

    assert '"v1.19"' in ask(machine)


def test_its_processes_have_no_rights(machine: Machine) -> None:
    for pid in (main_pid(machine), worker_pid(machine)):
        status = machine.run("cat", f"/proc/{pid}/status")
        facts = dict(re.findall(r"^(\w+):\t(.*)$", status, re.MULTILINE))
        assert facts["NoNewPrivs"] == "1"
        assert facts["Seccomp"] == "2"
        assert int(facts["CapEff"], 16) == 0
        assert int(facts["CapBnd"], 16) == 0
        assert facts["Uid"].split()[0] == machine.run("id", "-u", "homebody").strip()


@pytest.mark.parametrize(
    ("path", "is_writable"),
    [("/var/lib/homebody", True), ("/etc/homebody", False), ("/usr", False)],
)
def test_it_writes_its_own_folders_alone(machine: Machine, path: str, is_writable: bool) -> None:
    within = ["nsenter", f"--target={main_pid(machine)}", "--mount", "--"]
    as_user = ["setpriv", "--reuid=homebody", "--regid=homebody", "--init-groups"]
    command = machine.command(*within, *as_user, "touch", f"{path}/probe")
    done = subprocess.run(command, check=False, capture_output=True)

    assert (done.returncode == 0) == is_writable


def test_a_reload_is_over_when_the_settings_are_read(machine: Machine) -> None:
    settings = machine.root / "etc/homebody/homebody.toml"
    before = settings.read_text(encoding="utf-8")
    pid = main_pid(machine)

    settings.write_text(f'{before}log_level = "debug"\n', encoding="utf-8")
    machine.run("systemctl", "reload", UNIT)
    wait_for(lambda: "changed: log_level" in machine.journal(UNIT), lambda: machine.journal(UNIT))
    settings.write_text(before, encoding="utf-8")
    machine.run("systemctl", "reload", UNIT)

    assert main_pid(machine) == pid


def test_a_server_that_hangs_is_started_again(machine: Machine) -> None:
    drop_in(machine, "[Service]\nWatchdogSec=3s\n")
    pid = main_pid(machine)

    machine.run("sh", "-c", f"kill -STOP {worker_pid(machine)}")

    wait_for_another(machine, pid)
    assert '"v1.19"' in ask(machine)
    assert machine.properties(UNIT, "NRestarts")["NRestarts"] == "1"
    drop_in(machine, "")


def test_a_server_that_is_killed_is_started_again(machine: Machine) -> None:
    pid = main_pid(machine)

    machine.run("sh", "-c", f"kill -KILL {pid}")

    wait_for_another(machine, pid)
    assert '"v1.19"' in ask(machine)


def test_wrong_settings_do_not_start_it_again_and_again(machine: Machine) -> None:
    settings = machine.root / "etc/homebody/homebody.toml"
    before = settings.read_text(encoding="utf-8")
    settings.write_text(f"{before}no_such_setting = 1\n", encoding="utf-8")

    machine.run("systemctl", "restart", UNIT, is_checked=False)

    shown = machine.properties(UNIT, "ActiveState", "ExecMainStatus", "NRestarts")
    assert (shown["ActiveState"], shown["ExecMainStatus"]) == ("failed", "2")
    assert shown["NRestarts"] == "0"
    assert "no_such_setting" in machine.journal(UNIT)
    settings.write_text(before, encoding="utf-8")
    machine.run("systemctl", "start", UNIT)


def test_a_secret_that_only_root_can_read_is_a_credential(machine: Machine) -> None:
    secret = machine.root / "etc/homebody/secret"
    secret.write_text("seventeen-herrings\n", encoding="utf-8")
    secret.chmod(0o600)
    drop_in(
        machine,
        "[Service]\n"
        "LoadCredential=registration:/etc/homebody/secret\n"
        "Environment=HOMEBODY_REGISTRATION_SHARED_SECRET_FILE=%d/registration\n",
    )

    assert "nonce" in ask(machine, "http://127.0.0.1:8008/_synapse/admin/v1/register")
    assert "herrings" not in machine.run("cat", f"/proc/{main_pid(machine)}/environ")
    drop_in(machine, "")


def test_requests_wait_at_the_socket_while_the_server_restarts(machine: Machine) -> None:
    machine.run("systemctl", "stop", UNIT)
    machine.run("systemctl", "enable", "--now", "homebody.socket")

    assert '"v1.19"' in ask(machine)  # starts the service
    machine.run("systemctl", "restart", "--no-block", UNIT)
    assert '"v1.19"' in ask(machine)

    assert machine.properties(UNIT, "ActiveState")["ActiveState"] == "active"
    machine.run("systemctl", "disable", "--now", "homebody.socket", UNIT)
    machine.run("systemctl", "enable", "--now", UNIT)


def test_a_stop_is_orderly_and_an_upgrade_restarts_it(machine: Machine) -> None:
    pid = main_pid(machine)

    machine.run("dpkg", "-i", "/srv/homebody.deb")
    assert main_pid(machine) not in {0, pid}
    machine.run("systemctl", "stop", UNIT)

    shown = machine.properties(UNIT, "ActiveState", "Result", "ExecMainStatus")
    assert shown == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    machine.run("systemctl", "start", UNIT)


def test_the_sandbox_is_judged_as_tight(machine: Machine) -> None:
    judged = machine.run("systemd-analyze", "security", "--no-pager", UNIT)

    exposure = re.search(r"Overall exposure level[^\d]*([\d.]+)", judged)
    assert exposure
    assert float(exposure[1]) <= 2.0, judged


def test_a_backup_is_restored_as_the_page_says(machine: Machine) -> None:
    settings = machine.root / "etc/homebody/homebody.toml"
    own = f'{settings.read_text(encoding="utf-8")}log_level = "WARNING"\n'
    settings.write_text(own, encoding="utf-8")
    machine.run("install", "-d", "-o", "homebody", "/mnt/disk")
    machine.run("homebody", "user", "add", "dora", "--no-password")
    machine.run("homebody", "backup", "/mnt/disk/homebody.tar")
    settings.write_text(own.replace('log_level = "WARNING"', ""), encoding="utf-8")

    printed = typed(machine, "backup.md", "Restore")

    assert "Restored from /var/tmp/homebody.tar" in printed
    assert settings.read_text(encoding="utf-8") == own
    assert machine.run("stat", "-c", "%U %G %a", "/etc/homebody/homebody.toml").split() == [
        *("root", "homebody", "640")
    ]
    assert '"v1.19"' in ask(machine)
    assert "@dora:example.org" in machine.run("homebody", "user", "list")


def test_a_new_version_is_asked_as_the_page_says(machine: Machine) -> None:
    printed = typed(machine, "upgrade.md", "Before the restart")

    assert "The database is up to date" in printed
    assert "Nothing is in the way" in printed
    assert not (machine.root / "var/tmp/new").exists()


def test_it_leaves_when_the_package_is_removed(machine: Machine) -> None:
    commands = ("sh", "-c", "cat /proc/[0-9]*/cmdline")
    before = machine.run(*commands, is_checked=False)

    machine.run("dpkg", "-r", "homebody")

    assert "homebody" in before
    assert "homebody" not in machine.run(*commands, is_checked=False)
    assert Path(machine.root / "var/lib/homebody/homebody.db").exists()


def test_a_service_without_the_package_is_set_up_as_the_page_says(machine: Machine) -> None:
    # What pip makes of the wheel is in the package
    machine.run("dpkg", "-i", "/srv/homebody.deb")
    machine.run("cp", "-r", "/usr/lib/homebody", "/opt/homebody")
    machine.run("sed", "-i", "s|/usr/lib/homebody|/opt/homebody|", "/opt/homebody/bin/homebody")
    machine.run("dpkg", "-P", "homebody")
    shutil.copytree(ROOT / "packaging", machine.root / "root/packaging")

    printed = typed(machine, "install.md", "Service without the package")

    assert 'server_name = "example.org"' in printed
    assert '"v1.19"' in ask(machine)
    machine.run("homebody", "user", "add", "alice", "--no-password")
    assert "@alice:example.org" in machine.run("homebody", "user", "list")
    owner = machine.run("stat", "-c", "%U", "/var/lib/homebody/homebody.db")
    assert owner.strip() == "homebody"
