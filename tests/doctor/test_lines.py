"""The lines that the doctor prints are understood by nginx and Caddy, where they belong."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from homebody.doctor import advice
from homebody.doctor.findings import Reporter
from tests.helpers import certificates, server
from tests.helpers.proxies import NAMES

pytestmark = pytest.mark.clients

IN_LINES = {
    "bind": "127.0.0.1:8008",
    "url": "https://matrix.example.org",
    "host": "matrix.example.org",
    "tls_name": "matrix.example.org",
    "server_name": "example.org",
    "m.server": "matrix.example.org:443",
    "max_mib": "50",
}
LIVE = "/etc/letsencrypt/live/matrix.example.org"


def lines_for(where: str) -> dict[str, str]:
    """Return the lines to change in a proxy's configuration, by id."""
    made = [Reporter(IN_LINES).broken(id_, "") for id_ in advice.ADVICE]
    return {it.id: it.change[where] for it in made if where in it.change}


def said_of(*command: str) -> str | None:
    """Return what a program that fails has said; None if it succeeds."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else None


@pytest.mark.parametrize("id_", lines_for(advice.NGINX))
def test_nginx_understands_the_lines(id_: str, tmp_path: Path) -> None:
    cert, key = certificates.write_certificate_of(tmp_path, *NAMES)
    port = server.free_port()
    lines = lines_for(advice.NGINX)[id_]
    for real, here in (
        (f"{LIVE}/fullchain.pem", str(cert)),
        (f"{LIVE}/privkey.pem", str(key)),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port};"),
        ("listen [::]:443 ssl;", f"listen [::1]:{port};"),
    ):
        lines = lines.replace(real, here)
    config = tmp_path / "nginx.conf"
    problems = []
    for block in (f"listen 127.0.0.1:{port}; location / {{\n{lines}\n}}", lines):
        config.write_text(f"pid {tmp_path}/pid; events {{}} http {{ server {{\n{block}\n}} }}")
        problems.append(said_of("nginx", "-t", "-e", f"{tmp_path}/log", "-c", str(config)))

    assert None in problems, problems


@pytest.mark.parametrize("id_", lines_for(advice.CADDY))
def test_caddy_understands_the_lines(id_: str, tmp_path: Path) -> None:
    lines = lines_for(advice.CADDY)[id_]
    is_site = lines.startswith("matrix.example.org {")
    config = tmp_path / "Caddyfile"
    config.write_text(f"{lines}\n}}\n" if is_site else f"example.org {{\n{lines}\n}}\n")

    problem = said_of("caddy", "adapt", "--config", str(config), "--adapter", "caddyfile")

    assert problem is None, problem
