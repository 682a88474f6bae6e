"""What the process holds, and what the garbage collector leaves alone."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

from homebody.runtime import memory


def test_what_was_made_to_last_is_not_collected_again() -> None:
    before = gc.get_freeze_count()

    with memory.frozen():
        made: list[list[int]] = [[] for _ in range(1000)]

    try:
        assert gc.get_freeze_count() >= before + len(made)
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_holes_between_what_stays_are_given_back() -> None:
    asked = """
from pathlib import Path
from homebody.runtime import memory

def resident_kb():
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])

memory.tune_allocator()
stays, goes = [], []
for _ in range(200):
    goes.append(bytearray(200_000))
    stays.append(bytes(2000))
goes.clear()
before = resident_kb()
memory.trim()
print(before - resident_kb())
"""

    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)

    assert int(done.stdout) > 30_000  # of 39,000


def test_the_server_loads_no_dialect_that_it_does_not_speak() -> None:
    asked = (
        "import sys, pkgutil, homebody.core, homebody.models, importlib\n"
        "for module in pkgutil.walk_packages(homebody.models.__path__, 'homebody.models.'):\n"
        "    importlib.import_module(module.name)\n"
        "print([it for it in sys.modules if it.startswith('sqlalchemy.dialects.postgresql')])"
    )

    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def modules_of(code: str, tmp_path: Path) -> set[str]:
    """Which libraries a process has loaded after this code, with a data folder of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        env={**os.environ, "HOMEBODY_DATA_DIR": str(tmp_path), "HOMEBODY_BIND": "127.0.0.1:0"},
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_process_that_only_forks_loads_no_more_than_it_takes(tmp_path: Path) -> None:
    loaded = modules_of(
        "from gunicorn.app.wsgiapp import WSGIApplication\n"
        "import sys; sys.argv = ['gunicorn', '-c', 'gunicorn.conf.py', 'wsgi:app']\n"
        "print(WSGIApplication().cfg.worker_class)",
        tmp_path,
    )

    assert "gunicorn" in loaded
    assert not loaded & {"gevent", "flask", "sqlalchemy"}


def test_what_pictures_and_links_need_is_loaded_with_the_first_of_them(tmp_path: Path) -> None:
    loaded = modules_of(
        "from homebody.storage import migrations\nfrom homebody.config import settings\nimport os\n"
        "migrations.upgrade(settings.load(None, os.environ))\nimport wsgi",
        tmp_path,
    )

    assert "flask" in loaded
    assert not loaded & {"PIL", "selectolax"}
