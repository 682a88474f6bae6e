"""The files for containers, as far as they can be checked without running one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from homebody.config import settings
from tests.helpers.server import ROOT

FOLDER = ROOT / "packaging/docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
CALLS: dict[str, Any] = yaml.safe_load((FOLDER / "calls.yaml").read_text())
LIVEKIT: dict[str, Any] = yaml.safe_load((FOLDER / "livekit.yaml").read_text())


def test_the_last_stage_runs_as_a_user_and_is_checked() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]

    assert re.search(r"^USER 8008$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*\\\n +CMD \[", last, re.MULTILINE)
    assert last.rstrip().endswith('CMD ["homebody", "serve"]')
    assert ":latest" not in DOCKERFILE


@pytest.mark.clients
def test_a_linter_finds_nothing_in_the_dockerfile() -> None:
    command = [str(Path(sys.executable).parent / "hadolint"), str(FOLDER / "Dockerfile")]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_the_data_of_a_server_in_the_checkout_stay_out_of_the_build() -> None:
    left_out = (ROOT / ".dockerignore").read_text().splitlines()

    assert {"data", "**/.env", "homebody.toml", ".git", ".venv", "build"} <= set(left_out)


def test_the_variables_are_settings_that_can_be_loaded() -> None:
    pairs = dict(re.findall(r"\b(HOMEBODY_\w+)=(\S+)", DOCKERFILE))
    pairs |= COMPOSE["services"]["homebody"]["environment"]

    config = settings.load(None, pairs)

    assert config.bind == ("0.0.0.0:8008",)
    assert config.is_trusted_proxy("172.30.8.2")


def test_what_services_refer_to_is_there() -> None:
    services = COMPOSE["services"]
    volumes = [it.split(":")[0] for service in services.values() for it in service["volumes"]]

    assert {it for it in volumes if not it.startswith(".")} == set(COMPOSE["volumes"])
    assert all((FOLDER / it).exists() for it in volumes if it.startswith("."))
    assert set(services["caddy"]["depends_on"]) <= set(services)


def test_what_the_services_for_calls_refer_to_is_there() -> None:
    services = CALLS["services"]
    together = {**COMPOSE["services"], **services}
    mounted = [it for service in services.values() for it in service.get("volumes", ())]
    caddyfile = (FOLDER / "Caddyfile.calls").read_text()

    assert all((FOLDER / it.split(":")[0]).exists() for it in mounted)
    assert set(services["jwt"]["depends_on"]) <= set(services)
    assert all(set(it.get("networks", ())) <= set(COMPOSE["networks"]) for it in services.values())
    assert set(re.findall(r"reverse_proxy (?:/\S+ )?(\w+):", caddyfile)) <= set(together)


def test_the_services_for_calls_agree_about_urls_ports_and_keys() -> None:
    homebody, livekit, jwt = (CALLS["services"][it] for it in ("homebody", "livekit", "jwt"))
    environ = {**COMPOSE["services"]["homebody"]["environment"], **homebody["environment"]}
    config = settings.load(None, environ)
    caddyfile = (FOLDER / "Caddyfile.calls").read_text()
    tcp, udp = LIVEKIT["rtc"]["tcp_port"], LIVEKIT["rtc"]["udp_port"]
    key = jwt["environment"]["LIVEKIT_KEY"]

    assert config.livekit_service_url == f"{config.public_url}/livekit/jwt"
    assert jwt["environment"]["LIVEKIT_URL"] == "wss://matrix.example.org/livekit/sfu"
    assert "/livekit/jwt/* {\n\t\treverse_proxy jwt:8080\n" in caddyfile
    assert f"/livekit/sfu/* {{\n\t\treverse_proxy livekit:{LIVEKIT['port']}\n" in caddyfile
    assert livekit["ports"] == [f"{tcp}:{tcp}", f"{udp}:{udp}/udp"]
    assert livekit["environment"]["LIVEKIT_KEYS"].startswith(f"{key}: ")
    assert LIVEKIT["webhook"]["api_key"] == key
    assert jwt["environment"]["LIVEKIT_FULL_ACCESS_HOMESERVERS"] == config.server_name
