"""A real server named example.org, which is reached at matrix.example.org through a proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from homebody.config import settings
from homebody.config.settings import Config
from homebody.doctor import runner
from homebody.doctor.examination import Options
from homebody.doctor.findings import Finding
from homebody.storage import last_backup
from tests.helpers import certificates, server
from tests.helpers.dns_server import DnsServer
from tests.helpers.proxies import NAMES, Edit, unchanged
from tests.helpers.server import RunningServer

LONG_POLL_S = 2
Proxy = Callable[..., AbstractContextManager[int]]


@dataclass
class Clinic:
    """The server, and where the doctor runs."""

    running: RunningServer
    config: Config
    environ: dict[str, str]
    ca_file: Path
    folder: Path
    """For the files of proxies; of this test alone."""

    @property
    def backend(self) -> str:
        """The address of the server."""
        return self.config.bind[0]

    def certificate(self) -> tuple[Path, Path]:
        """Return a certificate for both names, by an intermediate authority."""
        return certificates.write_certificate_of(self.folder, *NAMES)

    def examine(
        self,
        proxy: Proxy,
        edit: Edit = unchanged,
        *,
        certificate: tuple[Path, Path] | None = None,
        backend: str | None = None,
        config: Config | None = None,
    ) -> list[Finding]:
        """Run a proxy with an edited configuration, and all checks."""
        files = certificate or self.certificate()
        with proxy(self.folder, backend or self.backend, files, edit) as port:
            return self.run({f"{name}:443": ("127.0.0.1", port) for name in NAMES}, config)

    def run(
        self, connect_to: dict[str, tuple[str, int]], config: Config | None = None
    ) -> list[Finding]:
        """Run all checks."""
        options = Options(None, self.ca_file, connect_to, LONG_POLL_S, self.environ)
        return runner.run(config or self.config, options)


@pytest.fixture(scope="session")
def patient(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RunningServer, dict[str, str]]]:
    """Start the server; yield it with the environment of its settings."""
    folder = tmp_path_factory.mktemp("patient")
    data_dir = folder / "data"
    data_dir.mkdir(mode=0o700)
    addresses = {f"{name} A": ["127.0.0.1"] for name in NAMES}
    with closing(DnsServer(addresses)) as names:
        chosen = {
            "data_dir": str(data_dir),
            "bind": f"127.0.0.1:{server.free_port()}",
            "server_name": "example.org",
            "public_url": "https://matrix.example.org",
            "dns_servers": names.address,
            "rate_limits": "true",
            "password_hashing": "argon2id",
        }
        running = server.launch(data_dir, **chosen)
        running.url = f"http://{chosen['bind']}"
        server.wait_until_it_answers(running)
        last_backup.note(data_dir, folder)
        yield running, {f"HOMEBODY_{key.upper()}": value for key, value in chosen.items()}
        running.stop()


@pytest.fixture
def clinic(patient: tuple[RunningServer, dict[str, str]], tmp_path: Path) -> Clinic:
    """Return the server with a folder for a proxy."""
    running, environ = patient
    config = settings.load(None, environ)
    ca_file = certificates.write_authority(tmp_path)
    return Clinic(running, config, environ, ca_file, tmp_path)
