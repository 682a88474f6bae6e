"""The Dockerfile builds an image that serves, with podman's tools; as root (make deb-test).

No registry of images is needed: an empty Debian with Python takes the name of the base image.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers import debian
from tests.helpers.server import ROOT
from tests.helpers.waiting import wait_for

FOLDER = ROOT / "packaging/docker"
DOCKERFILE = FOLDER / "Dockerfile"
NEEDED = "python3,python3-venv,python-is-python3,ca-certificates"
START_SECONDS = 60.0
SERVICE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"][
    "homebody"
]

pytestmark = [pytest.mark.debian, pytest.mark.timeout(1200)]


class Containers:
    """Images and containers in a folder of their own."""

    def __init__(self, folder: Path, namespace: int) -> None:
        self._options = ["--root", str(folder / "images"), "--runroot", str(folder / "run")]
        self._options += ["--storage-driver", "overlay"]
        self._enter = ["nsenter", f"--target={namespace}", "--mount"]

    def podman(self, *command: str, is_checked: bool = True) -> str:
        options = [*self._options, "--cgroup-manager", "cgroupfs"]
        whole = [*self._enter, "podman", *options, *command]
        return debian.output_of(whole, is_checked=is_checked)

    def build(self, *options: str) -> str:
        command = ["build", "--isolation", "chroot", "--pull=never", "--format", "docker"]
        return debian.output_of(
            [*self._enter, "buildah", *self._options, *command, *options, str(ROOT)]
        )

    def run(self, *options: str) -> None:
        """Start homebody from the image as compose.yaml does, with a network of only loopback."""
        environ = [f"--env={key}={value}" for key, value in SERVICE["environment"].items()]
        limits = ["--read-only", "--read-only-tmpfs=false", "--init"]
        limits += [f"--tmpfs={it}" for it in SERVICE["tmpfs"]]
        limits += [f"--cap-drop={it}" for it in SERVICE["cap_drop"]]
        limits += [f"--security-opt={it.split(':')[0]}" for it in SERVICE["security_opt"]]
        # For machines without systemd, which would run the checks, and with limits of their own
        machine = ["--cgroups=disabled", "--ulimit=nofile=1024:4096", "--ulimit=nproc=1024:1024"]
        machine += ["--network=none", "--log-driver=k8s-file", "--no-healthcheck"]
        volumes = [f"--volume={it}" for it in SERVICE["volumes"]]
        self.podman(
            *("run", "--detach", "--name=homebody", *machine, *limits, *environ, *volumes),
            *(*options, "localhost/homebody"),
        )

    def wait(self) -> None:
        """Run the image's check of health until it passes."""
        inspected = json.loads(self.podman("image", "inspect", "localhost/homebody"))
        check = inspected[0]["Healthcheck"]["Test"]
        assert check[0] == "CMD"
        command = ["exec", "homebody", "sh", "-c", '"$@" && echo passed', "check", *check[1:]]
        wait_for(
            lambda: "passed\n" in self.podman(*command, is_checked=False),
            lambda: self.podman("logs", "homebody"),
            START_SECONDS,
        )


@contextmanager
def mounts() -> Iterator[int]:
    """Start a process with mounts of its own; yield its number.

    Version 2 of cgroups is not mounted there: crun refuses to work beside both versions.
    """
    script = "umount /sys/fs/cgroup/unified 2>/dev/null; echo ready; exec sleep infinity"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process.pid
        finally:
            process.kill()


def settings_of_pip() -> tuple[str, list[str]]:
    """Return pip's settings in this environment as a file, and what they name as volumes."""
    known = {
        key.removeprefix("PIP_").lower().replace("_", "-"): value
        for key, value in os.environ.items()
        if key.startswith("PIP_") and "CONSTRAINT" not in key
    }
    lines = [f"{key} = {value}" for key, value in known.items()]
    paths = [Path(value) for value in known.values() if value.startswith("/")]
    folders = {path if path.is_dir() else path.parent for path in paths if path.exists()}
    return "\n".join(["[global]", *lines, ""]), [f"--volume={it}:{it}:ro" for it in folders]


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Build the image from the Dockerfile."""
    folder = tmp_path_factory.mktemp("containers")
    debian.bootstrap(folder / "base", NEEDED)
    pip, volumes = settings_of_pip()
    (folder / "base/etc/pip.conf").write_text(pip)
    subprocess.run(["tar", "-C", "base", "-cf", "base.tar", "."], check=True, cwd=folder)
    with mounts() as namespace:
        found = Containers(folder, namespace)
        (base,) = set(re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE))
        found.podman("import", str(folder / "base.tar"), f"docker.io/library/{base}")
        found.build(*volumes, "--file", str(DOCKERFILE), "--tag", "homebody")
        yield found
        found.podman("rm", "--force", "--all", is_checked=False)
    shutil.rmtree(folder)


def test_the_image_serves_read_only_and_without_rights_and_keeps_its_data(
    containers: Containers,
) -> None:
    containers.run()
    containers.wait()
    add = "echo a-long-password-1 | homebody user add alice --password-stdin"
    containers.podman("exec", "homebody", "sh", "-c", add)
    status = containers.podman("exec", "homebody", "cat", "/proc/1/status")
    written = containers.podman("exec", "homebody", "touch", "/opt/x", is_checked=False)
    containers.podman("stop", "--time=20", "homebody")
    ended = json.loads(containers.podman("inspect", "homebody"))[0]["State"]["ExitCode"]
    containers.podman("rm", "homebody")
    containers.run()
    containers.wait()
    users = containers.podman("exec", "homebody", "homebody", "user", "list", "--json")

    assert re.search(r"^Uid:\s+8008\s", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    assert "Read-only file system" in written
    assert ended == 0
    assert "@alice:example.org" in users
