"""An empty Debian for the package."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import debian
from tests.helpers.server import ROOT

NEEDED = "python3,adduser,ca-certificates,systemd,systemd-sysv,dbus"


@pytest.fixture(scope="package")
def debian_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty Debian in a folder, and in it the package as /srv/homebody.deb."""
    root = tmp_path_factory.mktemp("debian") / "root"
    debian.bootstrap(root, NEEDED)
    (package,) = (ROOT / "dist").glob("homebody_*.deb")
    shutil.copy(package, root / "srv/homebody.deb")
    yield root
    shutil.rmtree(root)
