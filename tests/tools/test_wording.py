"""The check of the words finds what it is for, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools import wording

PLAIN = [
    "Return the room's current state.",
    "Who may join? Users with an invite.",
    "Clients who retry get the same response.",
    "There is no limit, and it is no longer counted.",
    "There are none yet.",
    "Raises M_FORBIDDEN when the user has left.",
    "GitHub hosts it; gevent's hub runs the event loop.",
    "Scale the avatar of the room, and wake waiting requests.",
    "Never decode an image on the event loop.",
    'The specification says: "clients shall be told".',
]


@pytest.mark.parametrize("pattern", wording.PATTERNS, ids=lambda pattern: str(pattern.instead))
def test_each_pattern_finds_its_example(pattern: wording.Pattern) -> None:
    passage = wording.Passage(Path("example.py"), 1, pattern.example)

    found = list(wording.findings(passage))

    assert pattern.instead in [finding.instead for finding in found]


@pytest.mark.parametrize("sentence", PLAIN)
def test_a_plain_sentence_passes(sentence: str) -> None:
    assert not list(wording.findings(wording.Passage(Path("example.py"), 1, sentence)))


def found_in(path: Path, source: str) -> list[tuple[int, str]]:
    path.write_text(source, encoding="utf-8")
    return [
        (finding.line, finding.phrase)
        for passage in wording.passages(path)
        for finding in wording.findings(passage)
    ]


def test_it_reads_docstrings_comments_and_messages(tmp_path: Path) -> None:
    source = '''"""Return the room.

Who has left it gets nothing.
"""

# A comment for
# who reads slowly.
told = f"Nobody {1} was told of it"  # anew
'''

    found = found_in(tmp_path / "example.py", source)

    assert sorted(found) == [(3, "Who"), (6, "for who"), (8, "anew"), (8, "told")]


def test_of_tests_it_reads_docstrings_and_comments_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wording, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    path = tmp_path / "tests" / "test_people.py"
    source = '''"""Serve people."""
WORD = "It was told of it."  # anew
class Case:
    told: bool = True
    """Who has left."""
'''

    found = found_in(path, source)
    exit_code = wording.main(["tests"])

    assert sorted(found) == [(1, "people"), (2, "anew"), (5, "Who")]
    assert exit_code == 1
    assert "Phrases to replace: 3" in capsys.readouterr().out


def test_it_leaves_code_alone(tmp_path: Path) -> None:
    assert found_in(tmp_path / "example.py", 'told = hub.people["parked"]\n') == []
    assert found_in(tmp_path / "example.md", "```\nmake parked\n```\nIn `people.py`.") == []


def test_it_finds_words_in_names(tmp_path: Path) -> None:
    path = tmp_path / "people.py"
    path.write_text("class ToldRoom: ...\n\n\ntold_of = toldo = pictures = 1\n", encoding="utf-8")

    found = [(finding.line, finding.phrase) for finding in wording.wrong_names(path)]

    assert found == [(1, "ToldRoom"), (1, "people"), (4, "pictures"), (4, "told_of")]


def test_it_reads_documents_by_paragraph(tmp_path: Path) -> None:
    text = "# Title\n\nThe request is\nparked.\n\n| a | Who asks |\n\n- Who has left\n"

    found = found_in(tmp_path / "example.md", text)

    assert sorted(found) == [(4, "parked"), (6, "Who"), (6, "Who asks"), (8, "Who")]


def test_a_wrong_phrase_ends_it_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wording, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text("Serves people.\n", encoding="utf-8")

    assert wording.main(["README.md"]) == 1
    assert 'README.md:1: "people": write users' in capsys.readouterr().out

    (tmp_path / "README.md").write_text("Serves users.\n", encoding="utf-8")

    assert wording.main(["README.md"]) == 0
