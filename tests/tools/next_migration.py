"""Write the next numbered migration from changes of the models: `make migration m="what"`.

With `--check`: exit with 1 if models and migrations differ.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def alembic(url: str, *arguments: str) -> int:
    """Run alembic on a temporary database; return its exit code."""
    command = [str(BIN / "alembic"), "-c", "alembic/alembic.ini", "-x", f"url={url}", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main(message: str) -> int:
    """Upgrade a temporary database, compare it with the models, and write the difference."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/scratch.db"
        number = f"{len(list((ROOT / 'alembic/versions').glob('0*.py'))) + 1:04d}"
        if number != "0001" and (failed := alembic(url, "upgrade", "head")):
            return failed
        if message == "--check":
            return alembic(url, "check")
        failed = alembic(url, "revision", "--autogenerate", "--rev-id", number, "-m", message)
    subprocess.run(
        [str(BIN / "ruff"), "check", "--fix-only", "-q", "alembic"], cwd=ROOT, check=False
    )
    subprocess.run([str(BIN / "ruff"), "format", "-q", "alembic"], cwd=ROOT, check=False)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
