"""Bring a database up to date with Alembic: `python -m homebody.storage.migrate URL`.

The migrations are the folder alembic/ of the source, which the package holds as `migrations`.
"""

from __future__ import annotations

import sys

from alembic import command
from alembic.config import Config

from homebody.storage.schema import MIGRATIONS


def main(url: str) -> None:
    """Run the migrations that the database has not gone through yet."""
    config = Config(cmd_opts=None)
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["url"] = url
    command.upgrade(config, "head")


if __name__ == "__main__":
    main(*sys.argv[1:])
