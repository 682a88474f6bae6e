"""The units for systemd, with the real systemd-analyze."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from homebody.config import settings
from tests.helpers.server import ROOT

FOLDER = ROOT / "packaging/systemd"
UNITS = ("homebody.service", "homebody.socket")

pytestmark = pytest.mark.clients


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units with the command of this environment."""
    command = str(Path(sys.executable).parent / "homebody")
    for name in UNITS:
        text = (FOLDER / name).read_text()
        (tmp_path / name).write_text(text.replace("/usr/bin/homebody", command))
    return [tmp_path / name for name in UNITS]


def test_systemd_finds_nothing_wrong_with_them(units: list[Path]) -> None:
    command = ["systemd-analyze", "verify", "--man=no", *map(str, units)]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    named = [line for line in done.stderr.splitlines() if "homebody" in line]
    assert (done.returncode, named) == (0, []), done.stderr


def test_the_service_is_kept_away_from_the_system(units: list[Path]) -> None:
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(units[0])]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout  # at most 2.0
    assert "exposure level" in done.stdout


def test_its_environment_is_settings() -> None:
    text = (FOLDER / "homebody.service").read_text()
    pairs = re.findall(r"\b(HOMEBODY_\w+)=", text)

    keys = {tuple(it.removeprefix("HOMEBODY_").lower().split("__")) for it in pairs}

    assert keys - {("config",)} <= set(settings.known())
    assert ("smtp", "password_file") in keys
