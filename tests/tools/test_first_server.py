"""The page of a first server, and what was printed when it was followed."""

from __future__ import annotations

from tests.tools import first_server


def test_the_transcript_has_the_commands_of_the_page_in_their_order() -> None:
    page = first_server.PAGE.read_text(encoding="utf-8")
    transcript = first_server.TRANSCRIPT.read_text(encoding="utf-8")

    found = [it for kind, it in first_server.commands(page) if kind == "#"]

    places = [transcript.find(f"\n```text\n# {it}\n") for it in found]
    assert len(found) > 10
    assert [it for it, place in zip(found, places, strict=True) if place < 0] == []
    assert places == sorted(places)
