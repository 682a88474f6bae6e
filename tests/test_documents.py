"""What the documents name exists: files, folders, functions, targets of make, and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.test_imports import ORDER

ROOT = Path(__file__).parents[1]
NAMES = ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"]
DOCUMENTS = [
    *(ROOT / name for name in NAMES if (ROOT / name).exists()),
    *sorted((ROOT / "docs").rglob("*.md")),
]
BASES = ("", "app", "app/homebody", "app/homebody/core", "tests")
"""The folders from which documents name files."""
PATH = re.compile(
    r"""(?<![\w./:-])(
        (?:app|alembic|docs|tests|\.ci)/[\w./-]*\w/?  # also in blocks of code
        | (?<=`)[\w.-]+(?:/[\w.-]+)*(?:\.(?:py|md|toml|cfg|tsv)|/)(?=`)
    )""",
    re.VERBOSE,
)
ELSEWHERE = re.compile(r"(?:\.venv|build|dist|data|homebody\.toml$|src/$)")
"""What is made by installing and running."""
SYMBOLS = re.compile(r"`([\w/]+\.py)` \(((?:`[^`]+`[, and]*)+)\)")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(params=DOCUMENTS, ids=ids)
def document(request: pytest.FixtureRequest) -> Path:
    assert isinstance(request.param, Path)
    return request.param


def found(name: str) -> Path | None:
    """Return the file or folder that a document names."""
    return next((ROOT / base / name for base in BASES if (ROOT / base / name).exists()), None)


def missing_paths(text: str) -> list[str]:
    """Return the paths in a document that don't exist."""
    named = [name for name in PATH.findall(text) if not ELSEWHERE.match(name)]
    return [name for name in named if found(name) is None]


def missing_symbols(text: str) -> Iterator[str]:
    """Yield what stands in brackets behind a module and is not in it: "`http.py` (`view`)"."""
    for module, symbols in SYMBOLS.findall(text):
        path = found(module)
        source = path.read_text(encoding="utf-8") if path else ""
        for symbol in re.findall(r"`([^`]+)`", symbols):
            last = symbol.rpartition(".")[2]
            if not re.search(rf"\b{re.escape(last)}\b", source):
                yield f"{module}: {symbol}"


def test_the_paths_that_it_names_exist(document: Path) -> None:
    assert missing_paths(document.read_text(encoding="utf-8")) == []


def test_the_functions_that_it_names_exist(document: Path) -> None:
    assert list(missing_symbols(document.read_text(encoding="utf-8"))) == []


def test_its_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))

    inside = [link for link in links if "://" not in link]

    assert [link for link in inside if not (document.parent / link).exists()] == []


def test_the_targets_of_make_that_it_names_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))

    named = re.findall(r"(?:`|^ {4})make ([a-z-]+)", document.read_text("utf-8"), re.MULTILINE)

    assert set(named) <= targets


def test_the_architecture_lists_all_folders_in_their_order() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")

    assert re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE) == ORDER


def test_each_image_is_shown_by_a_page() -> None:
    pages = "".join(it.read_text(encoding="utf-8") for it in DOCUMENTS)

    images = {it.name for it in (ROOT / "docs/images").iterdir()}

    assert {it for it in images if f"images/{it})" not in pages} == set()


def test_what_is_missing_is_seen() -> None:
    text = "`core/sync/no_such_file.py` in `app/homebody/no_such_folder/`, not `README.md`"

    assert missing_paths(text) == ["core/sync/no_such_file.py", "app/homebody/no_such_folder/"]
    assert missing_paths("    touch tests/no_such_file") == ["tests/no_such_file"]
    assert list(missing_symbols("`errors.py` (`no_such_name`, `MatrixError`)")) == [
        "errors.py: no_such_name"
    ]


def test_the_pages_name_the_wheel_and_the_package_of_this_version() -> None:
    metadata = ConfigParser()
    metadata.read(ROOT / "setup.cfg", encoding="utf-8")
    files = [it for it in (ROOT / "docs").glob("*.md") if "transcript" not in it.name]
    pages = "".join(it.read_text(encoding="utf-8") for it in files)

    named = re.findall(r"homebody-([\d.]+)-py3|homebody_([\d.]+)_\w+\.deb", pages)

    assert {wheel or package for wheel, package in named} == {metadata["metadata"]["version"]}
