"""The numbers in docs/security.md are those of the source."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from homebody.config import settings, values
from homebody.core.ratelimits import RateLimits

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "security.md"


def table(heading: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the table under a heading."""
    _, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    lines = rest.partition("\n## ")[0].splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) > 2
    for row in rows[1:]:
        yield [cell.strip() for cell in row.strip("|").split(" | ")]


BOUNDS = list(table("Fixed bounds"))


def test_it_names_every_rate_limit() -> None:
    named = {name.strip("`") for name, *_ in table("Rate limits")}

    assert named == set(RateLimits(settings.load(None, {}, {})).names())


def test_it_names_every_quota() -> None:
    named = {name.strip("`") for name, *_ in table("Quotas and switches")}

    quotas = set(re.findall(r"^#(quotas\.\w+) = ", settings.example(), re.MULTILINE))
    assert quotas
    assert quotas <= named


def test_its_rate_limits_are_the_defaults() -> None:
    example = settings.example()

    for name, per_second, burst, _ in table("Rate limits"):
        numbers = f"per_second = {float(per_second)}, burst_count = {burst}"
        assert f"#{name.strip('`')} = {{ {numbers} }}" in example


def test_its_settings_have_these_defaults() -> None:
    example = settings.example()

    for name, default, _ in table("Quotas and switches"):
        assert f"#{name.strip('`')} = {default.strip('`')}\n" in example


@pytest.mark.parametrize(("most", "_what", "where"), BOUNDS, ids=[row[2] for row in BOUNDS])
def test_its_fixed_bounds_are_in_the_source(most: str, _what: str, where: str) -> None:
    found = re.fullmatch(r"`app/([a-z_/]+)\.py` ([A-Z_]+)", where)
    assert found is not None

    module = importlib.import_module(found[1].replace("/", "."))

    number = most.replace(",", "")
    expected = int(number) if number.isdecimal() else values.size(0).parse(number)
    assert getattr(module, found[2]) == expected
