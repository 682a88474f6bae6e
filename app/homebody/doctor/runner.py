"""Run all checks side by side."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from homebody.config.settings import Config
from homebody.doctor import choices, clients, delegation, findings, inside, proxy, services, tls
from homebody.doctor.examination import Examination, Options
from homebody.doctor.fetching import UnreachableError
from homebody.doctor.findings import Finding

LOG = logging.getLogger(__name__)

Check = Callable[[Examination], Iterator[Finding]]

CHECKS: Final[dict[str, Check]] = {
    "server": inside.process,
    "signing-key": inside.signing_key,
    "database": inside.database,
    "file-modes": inside.files,
    "disk-space": inside.disk,
    "backup": inside.backup,
    "open-registration": choices.settings,
    "dns": tls.names,
    "tls": tls.certificate,
    "tls-name": tls.certificate_of_name,
    "well-known-client": delegation.client_file,
    "federation": delegation.federation,
    "livekit": delegation.livekit,
    "smtp": services.smtp,
    "turn": services.turn,
    "push-gateway": services.push_gateways,
    "login-provider": services.login_providers,
}
"""By the id for an error of the check itself."""

BEHIND_THE_URL: Final[dict[str, Check]] = {
    "login-flows": clients.login,
    "oauth": clients.oauth,
    "cors": clients.cors,
    "cors-errors": clients.errors,
    "cors-preflight": clients.preflight,
    "metrics-public": clients.metrics,
}
"""Those that need an answer at the public URL."""

BY_THE_PROBE: Final[dict[str, Check]] = {
    "authorization": clients.access_tokens,
    "forwarded-for": proxy.forwarded,
    "http-version": proxy.http_version,
    "path-decoded": proxy.paths,
    "body-limit": proxy.body_limit,
    "long-poll": proxy.long_poll,
    "buffering": proxy.buffering,
}
"""Those that need this server there."""

SENSITIVE: Final = (BEHIND_THE_URL.keys() | BY_THE_PROBE.keys()) - {"body-limit", "long-poll"}
"""Those that an upload over a slow connection could disturb: it waits for them."""

Progress = Callable[[int, int], object]
"""Called with the numbers of checks that are done, and of all."""


def run(
    config: Config, options: Options | None = None, on_progress: Progress | None = None
) -> list[Finding]:
    """Run all checks, and return what they find, the important findings first."""
    ex = Examination(config, options or Options())
    work = _Work(ex, on_progress or (lambda _done, _all: None))
    work.start(CHECKS)
    reached = list(_guarded(ex, "reachable", clients.reach))
    work.found += reached
    ends = {(it.id, it.severity) for it in reached}
    work.start_or_skip(BEHIND_THE_URL, is_possible=("versions", "ok") in ends)
    work.start_or_skip(BY_THE_PROBE, is_possible=("other-server", "ok") in ends)
    work.wait()
    return findings.in_order(work.found)


@dataclass
class _Work:
    """The checks that are running, and what they have found."""

    ex: Examination
    on_progress: Progress
    found: list[Finding] = field(default_factory=list)
    running: dict[str, threading.Thread] = field(default_factory=dict)

    def start(self, checks: dict[str, Check]) -> None:
        """Start checks, each in a thread that the process does not wait for."""
        for id_, check in checks.items():
            thread = threading.Thread(target=self._run, args=(id_, check), daemon=True)
            self.running[id_] = thread
            thread.start()

    def start_or_skip(self, checks: dict[str, Check], *, is_possible: bool) -> None:
        """Start checks, or say that they make no sense."""
        if is_possible:
            self.start(checks)
        else:
            why = "not before the server answers at the public URL"
            self.found += (self.ex.report.skipped(id_, why) for id_ in checks)

    def wait(self) -> None:
        """Wait for all checks, or until the time is over."""
        count = len(self.running)
        left = dict(self.running)
        while left and self.ex.left_s() > 0:
            left = {id_: thread for id_, thread in left.items() if thread.is_alive()}
            if not left.keys() & SENSITIVE:
                self.ex.is_quiet.set()
            self.on_progress(count - len(left), count)
            time.sleep(0.05)
        self.found += (self.ex.report.skipped(id_, "took too long") for id_ in left)

    def _run(self, id_: str, check: Check) -> None:
        self.found += _guarded(self.ex, id_, check)


def _guarded(ex: Examination, id_: str, check: Check) -> Iterator[Finding]:
    """Yield what a check finds; an error of its own must not hide the findings of others."""
    try:
        yield from check(ex)
    except UnreachableError as error:
        yield ex.report.skipped(id_, str(error))
    except Exception as error:
        LOG.debug("the check %s failed", id_, exc_info=True)
        yield ex.report.warning("doctor", f"{id_}: {type(error).__name__}: {error}")
