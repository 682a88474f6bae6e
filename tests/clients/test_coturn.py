"""coturn relays with the credentials that clients get, as docs/calls.md says."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

from tests.helpers import coturn, server
from tests.helpers.live import Person

SECRET = "a secret of the TURN server"
MESSAGES = 5


def relay(port: int, username: str, password: str) -> str:
    """Send messages to oneself by way of the relay; return what coturn's client prints."""
    command = ["turnutils_uclient", "-y", "-c", "-n", str(MESSAGES), "-p", str(port)]
    command += ["-u", username, "-w", password, "127.0.0.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def test_a_call_is_relayed_with_the_credentials_of_a_user_and_not_with_others(
    tmp_path: Path,
) -> None:
    port = server.free_port()
    uris = f'["turn:127.0.0.1:{port}?transport=udp"]'
    homeserver = server.start(tmp_path, turn_uris=uris, turn_shared_secret=SECRET)
    try:
        with closing(Person(homeserver, "alice")) as alice, coturn.running(tmp_path, port, SECRET):
            given = alice.ask("GET", "/voip/turnServer")
            good = relay(port, given["username"], given["password"])
            wrong = relay(port, given["username"], "another")
    finally:
        homeserver.stop()

    assert given["uris"] == [f"turn:127.0.0.1:{port}?transport=udp"]
    # two clients, each of which sends all messages to the other
    assert f"tot_send_msgs={2 * MESSAGES}, tot_recv_msgs={2 * MESSAGES}" in good, good
    assert "tot_recv_msgs" not in wrong
