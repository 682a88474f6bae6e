"""docs/doctor.md explains each finding, and advice has the lines to change."""

from __future__ import annotations

import re

from homebody.doctor import advice, findings
from homebody.doctor.findings import Finding, Reporter
from tests.conftest import ROOT

DOCUMENT = ROOT / "docs/doctor.md"


def test_each_finding_has_a_section_and_each_section_a_finding() -> None:
    sections = re.findall(r"^### `([\w-]+)`$", DOCUMENT.read_text("utf-8"), re.MULTILINE)

    assert len(sections) == len(set(sections))
    assert set(sections) == set(advice.ADVICE)


def test_each_finding_is_made_by_some_check() -> None:
    sources = (ROOT / "app/homebody/doctor").glob("*.py")
    code = "".join(it.read_text("utf-8") for it in sources if it.name != "advice.py")

    assert [id_ for id_ in advice.ADVICE if f'"{id_}"' not in code] == []


def test_all_names_in_the_lines_to_change_are_replaced() -> None:
    given = dict.fromkeys(
        (
            "bind",
            "port",
            "url",
            "host",
            "server_name",
            "m.server",
            "data_dir",
            "max_mib",
            "tls_name",
            "owner",
            "path",
            "mode",
            "proxies",
        ),
        "VALUE",
    )

    made = [Reporter(given).broken(id_, "") for id_ in advice.ADVICE]

    texts = [text for it in made for text in (it.meaning, *it.change.values())]
    assert [text for text in texts if re.search(r"@[\w.]+@", text)] == []
    assert any("VALUE" in text for text in texts)


def test_what_is_broken_comes_first_and_what_is_in_order_is_left_out() -> None:
    report = Reporter({"bind": "127.0.0.1:8008"})
    found = [
        report.ok("tls", "all is well"),
        report.skipped("smtp", "no mail server is set"),
        report.warning("buffering", "late"),
        report.broken("long-poll", "ended"),
        report.broken("backend", "status 502"),
    ]

    ordered = findings.in_order(found)
    lines = list(findings.to_lines(ordered, with_ok=False))

    assert [it.id for it in ordered] == ["backend", "long-poll", "buffering", "smtp", "tls"]
    assert lines[:4] == [
        "BROKEN   backend: status 502",
        "         Nobody can use the server: the proxy does not reach it.",
        "         nginx:",
        "             proxy_pass http://127.0.0.1:8008;    # no path and no slash after the port",
    ]
    assert not any("all is well" in line or "mail" in line for line in lines)
    assert isinstance(ordered[0], Finding)
