"""Where the migrations are: beside the package's modules, in a wheel as in a checkout."""

from pathlib import Path
from typing import Final

MIGRATIONS: Final = Path(__file__).parents[1] / "migrations"
