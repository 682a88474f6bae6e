"""The files for containers, as far as they can be checked without running one."""

from __future__ import annotations

import re
from typing import Any

import yaml

from homebody.config import settings
from tests.helpers.server import ROOT

FOLDER = ROOT / "packaging/docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())


def test_the_last_stage_runs_as_a_user_and_is_checked() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]

    assert re.search(r"^USER homebody$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*\\\n +CMD \[", last, re.MULTILINE)
    assert last.rstrip().endswith('CMD ["homebody", "serve"]')
    assert ":latest" not in DOCKERFILE


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
