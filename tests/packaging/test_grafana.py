"""The Grafana board shows metrics that there are."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.conftest import MakeApp
from tests.helpers.server import ROOT

BOARD: dict[str, Any] = json.loads((ROOT / "packaging/grafana/homebody.json").read_text())
EXPRESSIONS = [it["expr"] for panel in BOARD["panels"] for it in panel["targets"]]
METRIC = re.compile(r"\b(?:homebody|process)_\w+")
LABEL = re.compile(r"by \((\w+)\)|\{\{(\w+)\}\}")


@pytest.fixture
def served(make_app: MakeApp) -> str:
    """The text of /metrics of a server that has answered something."""
    client = make_app(server_name="hs.example.org").test_client()
    client.get("/_matrix/client/versions")
    return client.get("/metrics").get_data(as_text=True)


def test_each_metric_exists(served: str) -> None:
    families = dict(re.findall(r"^# TYPE (\w+) (\w+)$", served, re.MULTILINE))
    samples = {
        f"{name}{suffix}"
        for name, kind in families.items()
        for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }

    used = {name for it in EXPRESSIONS for name in METRIC.findall(it)}

    assert len(used) > 12
    assert used <= samples


def test_counters_are_shown_by_their_rates(served: str) -> None:
    counters = re.findall(r"^# TYPE (\w+) counter$", served, re.MULTILINE)

    for expression in EXPRESSIONS:
        for name in set(METRIC.findall(expression)) & set(counters):
            assert re.search(rf"rate\({name}\{{", expression), expression


def test_each_label_of_a_legend_exists(served: str) -> None:
    labels = {*re.findall(r'[{,](\w+)="', served), "file", "kind", "is", "le"}
    texts = [
        it["legendFormat"] + it["expr"] for panel in BOARD["panels"] for it in panel["targets"]
    ]

    used = {name for text in texts for pair in LABEL.findall(text) for name in pair if name}

    assert used <= labels


def test_panels_do_not_overlap_and_parentheses_close() -> None:
    places = [(it["gridPos"]["x"], it["gridPos"]["y"]) for it in BOARD["panels"]]

    assert len(set(places)) == len(places) == len({it["id"] for it in BOARD["panels"]})
    for expression in EXPRESSIONS:
        for opening, closing in ("()", "[]", "{}"):
            assert expression.count(opening) == expression.count(closing), expression
