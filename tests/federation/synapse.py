"""A Synapse on loopback, with SQLite, behind a relay that does TLS, and without limits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.helpers import certificates
from tests.helpers import server as real_server
from tests.helpers.live import Person
from tests.helpers.relay import Relay
from tests.helpers.server import RunningServer

PYTHON = Path(sys.prefix) / "synapse" / "bin" / "python"
"""Where `tests/federation/install` puts it."""
_NO_LIMIT = {"per_second": 1_000_000, "burst_count": 1_000_000}


class Synapse:
    """A Synapse process. Its attributes are those of `tests.helpers.network.Homebody`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.federation_port = real_server.free_port()
        context = certificates.server_context("127.0.0.1")
        self.relay = Relay(context, self.federation_port)
        self.name = f"127.0.0.1:{self.relay.port}"
        self.persons: list[Person] = []
        self._client_port = real_server.free_port()
        self._write_settings()
        self.running = self._start()

    def start(self) -> None:
        """Start it after a stop."""
        self.running = self._start()

    def stop(self) -> None:
        """Stop it."""
        self.running.stop()

    def close(self) -> None:
        """Stop it for good."""
        self.stop()
        self.relay.close()

    def _start(self) -> RunningServer:
        log = self.folder / "synapse.log"
        command = [str(PYTHON), "-m", "synapse.app.homeserver", "-c", "homeserver.yaml"]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = RunningServer(process, f"http://127.0.0.1:{self._client_port}", log)
        real_server.wait_until_it_answers(running)
        return running

    def _write_settings(self) -> None:
        ca_file = certificates.write_authority(self.folder)
        listener = {"type": "http", "bind_addresses": ["127.0.0.1"]}
        client = {"names": ["client"], "compress": False}
        federation = {"names": ["federation", "keys", "media"], "compress": False}
        settings = {
            "server_name": self.name,
            "pid_file": str(self.folder / "pid"),
            "signing_key_path": str(self.folder / "signing.key"),
            "media_store_path": str(self.folder / "media"),
            "log_config": str(self.folder / "log.yaml"),
            "macaroon_secret_key": "not a secret",
            "form_secret": "not a secret",
            "report_stats": False,
            "database": {"name": "sqlite3", "args": {"database": str(self.folder / "synapse.db")}},
            "listeners": [
                {**listener, "port": self._client_port, "tls": False, "resources": [client]},
                {**listener, "port": self.federation_port, "tls": False, "resources": [federation]},
            ],
            "federation_custom_ca_list": [str(ca_file)],
            "ip_range_blacklist": [],
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "registration_shared_secret": "not a secret",
            "bcrypt_rounds": 4,
            "allow_public_rooms_over_federation": True,
            "room_list_publication_rules": [{"action": "allow"}],
            "allow_device_name_lookup_over_federation": True,
            "federation": {
                "destination_min_retry_interval": "1s",
                "destination_retry_multiplier": 1,
            },
            **_limits(),
        }
        (self.folder / "homeserver.yaml").write_text(yaml.safe_dump(settings))
        (self.folder / "log.yaml").write_text(yaml.safe_dump(_logs()))
        key_of_tests = "ed25519 a_test " + "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"
        (self.folder / "signing.key").write_text(key_of_tests + "\n")


def _limits() -> dict[str, object]:
    names = ["rc_message", "rc_registration", "rc_registration_token_validity", "rc_profile"]
    names += ["rc_joins_per_room", "rc_key_requests", "rc_room_creation", "rc_media_create"]
    return {
        **dict.fromkeys(names, _NO_LIMIT),
        "rc_login": dict.fromkeys(("address", "account", "failed_attempts"), _NO_LIMIT),
        "rc_joins": dict.fromkeys(("local", "remote"), _NO_LIMIT),
        "rc_invites": dict.fromkeys(("per_room", "per_user", "per_issuer"), _NO_LIMIT),
        "rc_federation": {"sleep_limit": 1_000_000, "reject_limit": 1_000_000, "concurrent": 100},
        "federation_rr_transactions_per_room_per_second": 1_000_000,
    }


def _logs() -> dict[str, object]:
    line = "%(asctime)s %(name)s %(levelname)s %(message)s"
    return {
        "version": 1,
        "formatters": {"line": {"format": line}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": "WARNING", "handlers": ["console"]},
        "disable_existing_loggers": False,
    }
