"""The files for proxies are those of the documentation, and the real programs read them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.helpers.server import ROOT

NGINX = ROOT / "packaging/nginx/homebody.conf"
CADDY = ROOT / "packaging/caddy/Caddyfile"


@pytest.mark.parametrize(("path", "language"), [(NGINX, "nginx"), (CADDY, "caddy")])
def test_the_documentation_shows_the_file(path: Path, language: str) -> None:
    text = (ROOT / "docs/proxy.md").read_text()

    shown = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)

    assert shown is not None
    assert path.read_text().endswith(f"\n\n{shown[1]}")


@pytest.mark.clients
def test_caddy_accepts_its_file(tmp_path: Path) -> None:
    command = ["caddy", "adapt", "--config", str(CADDY), "--adapter", "caddyfile"]

    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"HOME": str(tmp_path)}
    )

    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower(), done.stderr


@pytest.mark.clients
def test_nginx_accepts_its_file(tmp_path: Path) -> None:
    text = NGINX.read_text().replace("listen [::]:443 ssl;", "")
    text = text.replace("listen 443 ssl;", f"listen unix:{tmp_path}/x;", 1)
    text = text.replace("listen 443 ssl;", f"listen unix:{tmp_path}/y;")
    log, pid = tmp_path / "nginx.log", tmp_path / "nginx.pid"
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"pid {pid}; error_log {log}; events {{}}\nhttp {{ access_log off;\n{text}}}\n"
    )

    done = subprocess.run(
        ["nginx", "-t", "-e", str(log), "-c", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr, done.stderr
