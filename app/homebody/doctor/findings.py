"""What a check finds, and the order in which findings are shown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from homebody.doctor import advice

Severity = Literal["broken", "warning", "skipped", "ok"]
SEVERITIES: Final[tuple[Severity, ...]] = ("broken", "warning", "skipped", "ok")
"""From the most to the least important. A check is skipped if the settings or an earlier finding
leave nothing to check."""


WIDTH: Final = 90
"""Of the text below a finding, in characters."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check."""

    id: str
    """A key of `advice.ADVICE`; docs/doctor.md has a section for each."""
    severity: Severity
    seen: str
    meaning: str = ""
    """What it means for users; empty for what is ok or skipped."""
    change: Mapping[str, str] = field(default_factory=dict)
    """The lines to change, by where: nginx, Caddy, homebody.toml, or shell for commands."""


class Reporter:
    """Makes findings, with the names of this server in the lines to change."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def ok(self, id_: str, seen: str) -> Finding:
        """Return that something is as it should be."""
        return self._made(id_, "ok", seen)

    def skipped(self, id_: str, why: str) -> Finding:
        """Return that something was not checked."""
        return self._made(id_, "skipped", why)

    def warning(self, id_: str, seen: str, **names: str) -> Finding:
        """Return that something is not as it should be, although users can use the server."""
        return self._made(id_, "warning", seen, names)

    def broken(self, id_: str, seen: str, **names: str) -> Finding:
        """Return that something keeps users from using the server, or is dangerous."""
        return self._made(id_, "broken", seen, names)

    def _made(
        self, id_: str, severity: Severity, seen: str, names: Mapping[str, str] | None = None
    ) -> Finding:
        known = advice.ADVICE[id_]
        if names is None:
            return Finding(id_, severity, seen)
        filled = {**self._names, **names}
        change = {where: _filled(lines, filled) for where, lines in known.change.items()}
        return Finding(id_, severity, seen, _filled(known.meaning, filled), change)


def _filled(text: str, names: Mapping[str, str]) -> str:
    """Return the text with names such as @host@ replaced. nginx has $ and braces of its own."""
    for name, value in names.items():
        text = text.replace(f"@{name}@", value)
    return text


def in_order(found: Iterable[Finding]) -> list[Finding]:
    """Return findings, the important ones first, and those of a kind as in the list of advice."""
    places = {id_: place for place, id_ in enumerate(advice.ADVICE)}
    return sorted(found, key=lambda it: (SEVERITIES.index(it.severity), places[it.id]))


def to_lines(found: Iterable[Finding], *, with_ok: bool) -> Iterator[str]:
    """Yield findings as text for users."""
    marks = {"broken": "BROKEN", "warning": "warning", "skipped": "skipped", "ok": "ok"}
    for it in found:
        if it.severity in {"skipped", "ok"} and not with_ok:
            continue
        yield f"{marks[it.severity]:8} {it.id}: {it.seen}"
        yield from (f"{'':8} {line}" for line in textwrap.wrap(it.meaning, WIDTH))
        for where, lines in it.change.items():
            yield f"{'':8} {where}:"
            yield from (f"{'':12} {line}" for line in lines.splitlines())
