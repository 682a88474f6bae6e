"""Build the site of the documentation into build/site: `make docs`.

Sphinx reads a copy of what the pages are made of, so that README.md is the front page and links
between files lead to the same places on the site. Each warning is an error: a link to a page, file
or heading that does not exist, and a page that is not in the navigation.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE")


def copy_sources(target: Path) -> None:
    """Copy the pages, and what they link to, into a new folder."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "docs", target / "docs")
    for name in PAGES:
        shutil.copy(ROOT / name, target)


def build(source: Path, target: Path) -> int:
    """Run Sphinx; return its exit code."""
    options = ["--fail-on-warning", "--keep-going", "--nitpicky", "--quiet", "--fresh-env"]
    command = [sys.executable, "-m", "sphinx", *options, "-c", str(ROOT / "docs")]
    return subprocess.run([*command, str(source), str(target)], check=False).returncode


def main() -> int:
    """Build the site; return the exit code."""
    copy_sources(BUILD / "site-source")
    return build(BUILD / "site-source", BUILD / "site")


if __name__ == "__main__":
    sys.exit(main())
