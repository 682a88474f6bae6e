"""Measure how much of the specification the server implements:

    python -m tests.tools.coverage_of_spec TOOL [options of TOOL]

TOOL is a script `spec_coverage.py`, which gets the URL of a new `homebody serve` and sends requests
to it. Exits with the tool's exit code, after the last lines of the server's log if that isn't 0.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.helpers import server

LAST_LINES = 50


def main(tool: str, options: list[str]) -> int:
    """Start a server, measure it and stop it; return the exit code of the tool."""
    # SIGTERM must also stop the server, which is in a process group of its own
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as folder:
        running = server.start(
            # the tool has a push gateway of its own, on this machine
            Path(folder),
            registration="open",
            outside_allowed="127.0.0.1",
        )
        try:
            command = [sys.executable, tool, running.url, *options]
            failed = subprocess.run(command, check=False).returncode
        finally:
            running.stop()
        if failed:
            print(
                "The server's last lines:", *running.output().splitlines()[-LAST_LINES:], sep="\n"
            )
    return failed


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
