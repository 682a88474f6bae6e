"""nginx and Caddy with the configurations in docs/proxy.md, in front of a real server.

Only what a test machine lacks is changed: certificates, port 443, and the server's own port. A test
may break the text on purpose.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers import programs, server
from tests.helpers.server import ROOT

NAMES = ("matrix.example.org", "example.org")

Edit = Callable[[str], str]


def unchanged(text: str) -> str:
    """Return a configuration as it is."""
    return text


def replacing(*pairs: tuple[str, str]) -> Edit:
    """Return an edit that replaces texts, each of which has to be there."""

    def edit(text: str) -> str:
        for old, new in pairs:
            assert old in text, f"the configuration in docs/proxy.md has no {old}"
            text = text.replace(old, new)
        return text

    return edit


def of_page(language: str) -> str:
    """Return the configuration in docs/proxy.md."""
    block = re.search(rf"```{language}\n(.*?)```", (ROOT / "docs/proxy.md").read_text(), re.DOTALL)
    assert block is not None
    return block.group(1)


@contextmanager
def nginx(
    folder: Path, backend: str, certificate: tuple[Path, Path], edit: Edit = unchanged
) -> Iterator[int]:
    """Run nginx within the block; yield the port of both its servers."""
    port, (cert, key) = server.free_port(), certificate
    text = of_page("nginx").replace("    listen [::]:443 ssl;\n", "")
    text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;")
    text = text.replace(
        "# ssl_certificate …", f"ssl_certificate {cert}; ssl_certificate_key {key};"
    )
    with nginx_with(folder, edit(text).replace("127.0.0.1:8008", backend), port):
        yield port


@contextmanager
def nginx_with(folder: Path, text: str, port: int) -> Iterator[None]:
    """Run nginx within the block, with these servers, one of which listens on the port."""
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # or its workers could not write bodies here
    config.write_text(
        f"{user} daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n"
        "events {}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body;\n"
        f"proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;\n"
        f"uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n{text}}}\n"
    )
    command = ["nginx", "-e", f"{folder}/nginx.log", "-c", str(config)]
    with programs.running(command, port, folder / "proxy.log"):
        yield


@contextmanager
def caddy(
    folder: Path, backend: str, certificate: tuple[Path, Path], edit: Edit = unchanged
) -> Iterator[int]:
    """Run Caddy within the block; yield the port of both its sites."""
    port, (cert, key) = server.free_port(), certificate
    text = edit(of_page("caddy")).replace("127.0.0.1:8008", backend)
    for name in NAMES:
        text = text.replace(f"\n{name} {{", f"\n{name} {{\n    tls {cert} {key}")
        text = re.sub(rf"\A{name} {{", f"{name} {{\n    tls {cert} {key}", text)
    config = folder / "Caddyfile"
    config.write_text(
        f"{{\n    admin off\n    https_port {port}\n    http_port {server.free_port()}\n"
        f"    default_bind 127.0.0.1\n    storage file_system {folder}/caddy\n}}\n{text}"
    )
    command = ["caddy", "run", "--config", str(config), "--adapter", "caddyfile"]
    environ = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with programs.running(command, port, folder / "proxy.log", env=environ):
        yield port
