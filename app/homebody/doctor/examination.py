"""What all checks share: the settings, how to make requests, and what the probe has answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from homebody.config.settings import Config, ConfigError
from homebody.config.values import is_unix_socket
from homebody.core import server_key, well_known
from homebody.doctor import proof
from homebody.doctor.fetching import PORTS, RESPONSE_S, Answer, Fetcher
from homebody.doctor.findings import Reporter
from homebody.outside.resolver import Resolver
from homebody.spec import identifiers
from homebody.spec.signing import SigningKey

MAX_S: Final = 30.0
"""The whole run takes less."""
LONG_POLL_S: Final = 22.0


@dataclass(frozen=True, slots=True)
class Options:
    """How to check."""

    url: str | None = None
    """In place of `public_url`."""
    ca_file: Path | None = None
    """Certificate authorities to trust besides those of the system."""
    connect_to: Mapping[str, tuple[str, int]] | None = None
    """Where to connect instead, by host or host:port: before the DNS leads there."""
    long_poll_s: float = LONG_POLL_S
    environ: Mapping[str, str] | None = None
    """The environment from which the settings come."""


class Examination:
    """One run of all checks."""

    def __init__(self, config: Config, options: Options) -> None:
        self.config = config
        self.options = options
        self.until = time.monotonic() + MAX_S - 1
        self.url = (options.url or config.public_url).rstrip("/")
        parts = urlsplit(self.url)
        self.scheme, self.host = parts.scheme, parts.hostname or ""
        self.port = parts.port or PORTS.get(parts.scheme, 443)
        ca_file = options.ca_file or config.federation_ca_file
        self.fetcher = Fetcher(Resolver(config), options.connect_to or {}, ca_file, self.until)
        self.report = Reporter(self._names())
        self.is_quiet = threading.Event()
        """Set once the checks are done whose times an upload would change."""

    @cached_property
    def key(self) -> SigningKey | None:
        """The server's signing key; None if it can't be read. It is never created here."""
        try:
            return server_key.load(self.config)
        except ConfigError:
            return None

    @property
    def name_host(self) -> str:
        """The host of the server name, without the port."""
        return identifiers.split_server_name(self.config.server_name).host

    @property
    def is_local(self) -> bool:
        """Whether the public URL is one of this machine, for trying things out."""
        return self.host in {"localhost", "127.0.0.1", "::1"}

    def left_s(self) -> float:
        """Return the seconds that are left."""
        return self.until - time.monotonic()

    def proof(self) -> dict[str, str]:
        """Return the header that the probe needs; none without a key."""
        return {} if self.key is None else {proof.HEADER: proof.make(self.key, time.time())}

    def probe_url(self, rest: str) -> str:
        """Return a URL at which the server shows how a request arrives."""
        return f"{self.url}{proof.PATH}/{rest}"

    def probe(
        self,
        rest: str,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = RESPONSE_S,
    ) -> Answer:
        """Make a request to the probe. Raises UnreachableError."""
        sent = {**self.proof(), **(headers or {})}
        return self.fetcher.fetch(self.probe_url(rest), headers=sent, timeout_s=timeout_s)

    @staticmethod
    def arrival(answer: Answer) -> dict[str, Any] | None:
        """Return what the probe says; None if something else answered."""
        found = answer.object
        return found if answer.status == 200 and "forwarded_for" in found else None

    def _names(self) -> dict[str, str]:
        config = self.config
        delegated = (well_known.server(config) or {}).get("m.server", f"{self.host}:443")
        return {
            "bind": local_address(config),
            "port": local_address(config).rpartition(":")[2],
            "url": self.url,
            "host": self.host,
            "server_name": config.server_name,
            "m.server": str(delegated),
            "data_dir": str(config.data_dir),
            "max_mib": str(-(-config.max_upload_bytes // 2**20)),
            "tls_name": self.host,
        }


def local_address(config: Config) -> str:
    """Return the address at which programs on this machine reach the server."""
    # Todo: a server that listens at Unix sockets alone
    address = next((it for it in config.bind if not is_unix_socket(it)), "127.0.0.1:8008")
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host in {"0.0.0.0", "[::]", ""} else address  # noqa: S104 - compared
