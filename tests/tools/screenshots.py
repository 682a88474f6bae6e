"""Screenshots of the pages for docs/images: `make screenshots`.

A server with some users is started for them, and Chromium opens its pages.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import quote

from PIL import Image

from homebody.storage import last_backup
from tests.clients import js_client
from tests.clients.js_client import JsPerson
from tests.helpers import household
from tests.helpers.server import start

FOLDER: Final = Path(__file__).parents[2] / "docs" / "images"
SIZE: Final = (1000, 720)
ADMIN: Final = "/_homebody/admin/"
COLOURS: Final = 64
SETTINGS: Final = {
    "server_name": "example.org",
    "public_url": "https://example.org",
    "registration": "open",
    "server_notices_user": "notices",
    "registration_open_to_all": "true",
    "support_contacts": '[{ role = "m.role.admin", matrix_id = "@anna:example.org" }]',
}
SCREENSHOTS: Final = (
    ("landing-light", "/", "light"),
    ("status-light", ADMIN, "light"),
    ("user-light", f"{ADMIN}users/{{ben}}", "light"),
    ("deactivate-light", f"{ADMIN}users/{{ben}}/deactivate", "light"),
    ("report-dark", f"{ADMIN}reports/1", "dark"),
    ("room-light", f"{ADMIN}rooms/{{kitchen}}", "light"),
    ("purge-dark", f"{ADMIN}rooms/{{kitchen}}/purge-history", "dark"),
)
"""Names, paths with names of ids, and colour schemes."""


async def take(url: str, ids: dict[str, str], folder: Path) -> None:
    """Write all screenshots into a folder."""
    async with js_client.person(url, "anna", "pages.mjs", js_client.chromium()) as window:
        await window.ask("resize", width=SIZE[0], height=SIZE[1])
        await _log_in(window)
        for name, path, scheme in SCREENSHOTS:
            await window.ask("colours", scheme=scheme)
            await window.ask("open", url=url + path.format(**ids))
            await window.ask("screenshot", path=str(folder / f"{name}.png"))
            _shrink(folder / f"{name}.png")


async def _log_in(window: JsPerson) -> None:
    await window.ask("open", url=window.url + ADMIN)
    await window.ask("fill", label="User name or e-mail address", text="anna")
    await window.ask("fill", label="Password", text=household.PASSWORD)
    await window.ask("press", button="Log in")
    await window.ask("waitFor", text="Log out")


def _shrink(path: Path) -> None:
    """Reduce the colours of a screenshot: text needs few."""
    image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
    image.quantize(COLOURS).save(path, optimize=True)


def main(folder: Path) -> None:
    """Start a server, and take the screenshots."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data_dir:
        server = start(Path(data_dir), **SETTINGS)
        try:
            ids = {key: quote(it, safe="") for key, it in household.furnish(server).items()}
            last_backup.note(Path(data_dir), Path("/mnt/disk/homebody.tar"))
            asyncio.run(take(server.url, ids, folder))
        finally:
            server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
