"""Programs that run beside the server in a test, such as proxies and bridges."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.helpers.waiting import wait_for

STOP_SECONDS = 10.0


@contextmanager
def running(
    command: Sequence[str | Path], port: int, log: Path, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program within the block, from when it listens on a port of loopback.

    Raises AssertionError with the logs of the folder if the program ends before, or takes too long.
    `options` are those of Popen.
    """

    def said() -> str:
        logs = [it.read_text("utf-8", errors="replace") for it in log.parent.glob("*.log")]
        return "\n".join([f"{process.args!r} did not start:", *logs])

    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options
        )
    try:
        wait_for(lambda: process.poll() is not None or _listens(port), said)
        assert process.poll() is None, said()
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
