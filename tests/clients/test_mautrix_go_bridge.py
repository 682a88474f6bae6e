"""A bridge with mautrix in Go that encrypts: tests/clients/go/bridge.go says what it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import bridge
from tests.helpers.server import free_port, start

PROGRAM = Path(sys.prefix) / "go" / "bridge"
SECONDS = 100  # the program gives up after 90


@pytest.mark.skipif(not PROGRAM.exists(), reason="the bridge needs Go 1.26 or later")
def test_a_bridge_encrypts_notices_devices_and_does_not_run_out_of_keys(tmp_path: Path) -> None:
    port = free_port()
    told = bridge.registration(
        f"http://127.0.0.1:{port}", receive_ephemeral=True, **{"org.matrix.msc3202": True}
    )
    server = start(tmp_path, appservices=f'["{bridge.write(tmp_path, told)}"]')
    command = [str(PROGRAM), server.url, str(port), bridge.AS_TOKEN, bridge.HS_TOKEN]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    finally:
        server.stop()

    assert done.stdout.splitlines() == [
        "the bridge reads and writes",
        "the bridge notices a new device",
        "the bridge has keys again",
    ], done.stdout + done.stderr
    assert done.returncode == 0
