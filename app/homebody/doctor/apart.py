"""Run the command `homebody doctor` in a process of its own, for the running server.

Its checks wait for hashes, sockets and the disk, none of which may block the event loop; and they
see what a new process sees, such as the settings as they are in the file now.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Final

import msgspec

from homebody.doctor.findings import Finding

TIMEOUT_S: Final = 45.0
"""The command takes less than 30 seconds, and the start of Python."""
LONG_POLL_S: Final = 10
"""Somebody waits for the page."""


class DoctorError(Exception):
    """The command did not say what it has found; the text says why."""


class _Output(msgspec.Struct):
    findings: list[Finding]


class _Failure(msgspec.Struct):
    error: str


def run(environ: Mapping[str, str]) -> list[Finding]:
    """Return what the command finds with this environment. Raises DoctorError."""
    command = [sys.executable, "-P", "-m", "homebody", "doctor", "--json"]
    command += ["--long-poll", str(LONG_POLL_S)]
    try:
        done = subprocess.run(  # noqa: S603 - our own words
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return msgspec.json.decode(done.stdout, type=_Output).findings
    except subprocess.TimeoutExpired:
        raise DoctorError("homebody doctor takes too long") from None
    except OSError as error:
        raise DoctorError(f"homebody doctor failed: {error}") from error
    except msgspec.DecodeError as error:
        raise DoctorError(f"homebody doctor failed: {_said(done.stderr)}") from error


def _said(stderr: bytes) -> str:
    """Return the error of a command, which is JSON unless Python itself has failed."""
    lines = stderr.decode(errors="replace").strip().splitlines()
    try:
        return msgspec.json.decode(lines[-1], type=_Failure).error
    except (IndexError, msgspec.DecodeError):
        return lines[-1] if lines else "it says nothing"
