"""The command `homebody doctor`, and running it for the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from homebody.doctor import apart, last_findings
from homebody.doctor.apart import DoctorError
from tests.doctor.conftest import Clinic
from tests.helpers import proxies
from tests.helpers.proxies import NAMES

Done = subprocess.CompletedProcess[str]


def doctor(environ: dict[str, str], *words: str) -> Done:
    command = [sys.executable, "-m", "homebody", "doctor", *words]
    inherited = {key: it for key, it in os.environ.items() if not key.startswith("HOMEBODY_")}
    return subprocess.run(
        command, env={**inherited, **environ}, capture_output=True, text=True, check=False
    )


@pytest.mark.clients
def test_a_server_in_order_gets_exit_code_0_within_half_a_minute(clinic: Clinic) -> None:
    with proxies.caddy(clinic.folder, clinic.backend, clinic.certificate()) as port:
        options = [f"--connect-to={name}:443=127.0.0.1:{port}" for name in NAMES]
        began = time.monotonic()
        done = doctor(clinic.environ, f"--ca-file={clinic.ca_file}", *options)
        seconds = time.monotonic() - began

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("0 broken, 0 warnings, ")
    assert done.stderr == ""
    assert seconds < 30


@pytest.mark.clients
def test_json_has_the_same_findings_and_the_exit_code_says_that_something_is_broken(
    clinic: Clinic,
) -> None:
    files = clinic.certificate()
    edit = proxies.replacing(("client_max_body_size 50m;", "client_max_body_size 1m;"))
    with proxies.nginx(clinic.folder, clinic.backend, files, edit) as port:
        options = [f"--connect-to={name}=127.0.0.1:{port}" for name in NAMES]
        options += [f"--ca-file={clinic.ca_file}", "--long-poll=1"]
        text = doctor(clinic.environ, *options)
        done = doctor(clinic.environ, "--json", *options)

    found = json.loads(done.stdout)
    (broken,) = [it for it in found["findings"] if it["severity"] == "broken"]
    assert (text.returncode, done.returncode, found["ok"]) == (1, 1, False)
    assert broken == {
        "id": "body-limit",
        "severity": "broken",
        "seen": "a file of 50 MiB does not get through: status 413 M_TOO_LARGE",
        "meaning": "Larger photos and videos can't be sent.",
        "change": {
            "nginx": "client_max_body_size 50m;",
            "Caddy": "request_body {\n    max_size 50MiB\n}",
        },
    }
    assert found["counts"]["broken"] == 1
    assert text.stdout.splitlines()[0] == f"BROKEN   body-limit: {broken['seen']}"
    assert "             client_max_body_size 50m;" in text.stdout.splitlines()


def test_another_url_can_be_checked(clinic: Clinic) -> None:
    done = doctor(clinic.environ, "--json", f"--url=http://{clinic.backend}", "--long-poll=1")

    severities = {it["id"]: it["severity"] for it in json.loads(done.stdout)["findings"]}
    assert severities["long-poll"] == severities["other-server"] == "ok"
    assert severities["forwarded-for"] == "skipped"


@pytest.mark.parametrize("value", ["x", "x=1", "x=:1", "=1.2.3.4:5", "x=1.2.3.4:y"])
def test_a_wrong_place_to_connect_to_is_refused(clinic: Clinic, value: str) -> None:
    done = doctor(clinic.environ, f"--connect-to={value}")

    assert done.returncode == 2
    assert "HOST:PORT=ADDRESS:PORT" in done.stderr


def test_the_running_server_can_have_it_run_apart(clinic: Clinic) -> None:
    found = apart.run({**os.environ, **clinic.environ})

    severities = {it.id: it.severity for it in found}
    assert severities["server"] == "ok"
    assert severities["reachable"] == "broken", "there is no proxy"
    noted = last_findings.read(Path(clinic.environ["HOMEBODY_DATA_DIR"]))
    assert noted is not None
    assert noted.findings == found
    assert noted.by.startswith("command line (")


def test_a_command_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DoctorError, match=r"(?i)homebody doctor failed: .*nonsense"):
        apart.run({**os.environ, "HOMEBODY_DATA_DIR": str(tmp_path), "HOMEBODY_NONSENSE": "1"})
