"""Check the words of docstrings, comments, messages, names and documents: `make wording`.

Prints each phrase to avoid with what to write instead, and exits with 1 when there is one. Paths as
arguments are checked instead of everything. Of tests, only docstrings and comments are checked:
their strings are what somebody else may send, and their names are sentences about it.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHECKED = (
    *("app", "alembic", "docs", "tests", ".ci", "Makefile", "ruff.toml", "setup.cfg"),
    *("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "README.md"),
)
GENERATED = {"__pycache__", "node_modules"}
TEXTS = {".md", ".toml", ".cfg", ".html", ".txt", ""}
"""Suffixes of files that are read paragraph by paragraph."""


QUOTED = re.compile(r"`[^`]+`|\"[^\"]+\"")
BETWEEN_SENTENCES = " .:;!?*|-"


@dataclass(frozen=True)
class Pattern:
    """A phrase to avoid: the regular expression, what to write instead, and a sentence with it."""

    wrong: str
    instead: str
    example: str


PATTERNS = (
    Pattern(
        r"(?:^|[.:;!?*|-] +)Who\b(?![^.:;!?|]*\?)",
        "a user who, clients that",
        "Close the session. Who repeats the request gets the same response.",
    ),
    Pattern(r"\b[Ww]hoever\b", "a client that, any user who", "Whoever sends it needs a token."),
    Pattern(r"\bfor who(?:m it is)?\b", "for users who", "Empty for who may not read it."),
    Pattern(
        r"(?<![Tt]here )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|later\b)[a-z]\w*",
        "is not a",
        "Raise M_BAD_JSON where the body is no object.",
    ),
    Pattern(
        r"(?<![Tt]here )\b(?:is|are|was|were) none\b",
        "is not one",
        "Ignore an avatar URL that is none.",
    ),
    Pattern(r"\blanded\b", "is not supported yet", "Federation has not landed yet."),
    Pattern(r"\b[Pp]rehistoric\b", "legacy, the 2014 API", "Serve the prehistoric API."),
    Pattern(r"(?<!gevent's )\bhub\b", "the event loop", "Never hash on the hub."),
    Pattern(r"\b[Tt]old\b", "sent, listed, notified", "Return the devices that were told."),
    Pattern(r"\blately\b", "recently, recent events", "Count what came lately."),
    Pattern(r"\b[Pp]arked\b", "waiting", "Wake the parked requests."),
    Pattern(
        r"\b[Aa]skers?\b|\b[Ww]ho asks?\b",
        "the requester, the client",
        "Return what the asker may see.",
    ),
    Pattern(r"\bThe same, but\b", "name the thing", "The same, but for all rooms at once."),
    Pattern(r"\b[Ll]aws?\b", "protocol rules, the specification", "Check it against the law."),
    Pattern(r"\bof old\b", "old, earlier", "Accept the paths of old."),
    Pattern(r"\b(?:let|lets|letting) go\b", "release, forget", "The worker lets go of its socket."),
    Pattern(r"\bto be had\b", "available", "Wait until the lock is to be had."),
    Pattern(r"\bst(?:and|ands|ood) still\b", "is blocked", "Log how long the loop stood still."),
    Pattern(r"\b[Nn]obody waits\b", "no request waits", "Drop it when nobody waits for it."),
    Pattern(r"\b[Pp]eople\b", "users", "List the people of a room."),
    Pattern(r"\banew\b", "again, new", "Build the index anew."),
    Pattern(r"\b[Pp]ictures?\b", "avatar, image", "Scale the picture of a profile."),
    Pattern(r"\b[Tt]roubles?\b", "disk error, problem", "Respond with 503 in case of trouble."),
    Pattern(
        r"\b[Oo]wners? of (?:the|this|a) server\b|\bserver's owners?\b",
        "the administrator",
        "Notify the owner of the server.",
    ),
    Pattern(r"\b[Ww]ords? with which\b", "a registration token", "A word with which to register."),
    Pattern(r"\b[Ss]hall\b", "must, should", "Users who shall hear it are woken."),
    Pattern(r"\bhears? of\b", "is notified of", "A bridge hears of every event."),
    Pattern(r"\b[Mm]end(?:s|ed|ing)?\b", "fix, repair", "Mend the file modes."),
    Pattern(r"\b[Ii]n vain\b", "without result, for nothing", "Do not search in vain."),
)

NAMES = {
    "asker": "requester",
    "lately": "recent",
    "parked": "waiting",
    "people": "users",
    "picture": "avatar, image",
    "prehistoric": "legacy",
    "told": "sent",
    "trouble": "disk_error",
    "wish": "request",
}
"""Words to avoid in names of functions, classes, variables and modules, singular or plural."""


@dataclass(frozen=True)
class Passage:
    """Prose that belongs together: a docstring, a message, adjacent comments, or a paragraph."""

    path: Path
    line: int
    text: str


@dataclass(frozen=True)
class Finding:
    """A phrase to avoid, and where it is."""

    path: Path
    line: int
    phrase: str
    instead: str

    def __str__(self) -> str:
        path = self.path.relative_to(ROOT)
        return f'{path}:{self.line}: "{self.phrase}": write {self.instead}'


def findings(passage: Passage) -> Iterator[Finding]:
    """Yield what a passage should not say outside of `code` and "quotations"; across lines."""
    lines = [" ".join(line.strip().lstrip("#").split()) for line in passage.text.splitlines()]
    text = QUOTED.sub(lambda quoted: "`" * len(quoted.group()), " ".join(lines))
    for pattern in PATTERNS:
        for match in re.finditer(pattern.wrong, text):
            phrase = match.group().lstrip(BETWEEN_SENTENCES)
            start = match.end() - len(phrase)
            ends = accumulate(len(line) + 1 for line in lines)
            number = passage.line + sum(end <= start for end in ends)
            yield Finding(passage.path, number, phrase, pattern.instead)


def wrong_names(path: Path) -> Iterator[Finding]:
    """Yield names in a module, and its own, that contain a word to avoid; once per line."""
    source = path.read_text(encoding="utf-8")
    names = {(1, path.stem)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            names.add((token.start[0], token.string))
    for line, name in sorted(names):
        for word in map(str.lower, re.findall(r"[A-Z]?[a-z]+", name)):
            singular = {word, word.removesuffix("s"), word.removesuffix("es")}
            for known in singular & NAMES.keys():
                yield Finding(path, line, name, NAMES[known])


def passages(path: Path) -> Iterator[Passage]:
    """Yield the prose of a file."""
    source = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".py":
        yield from _docstrings(path, source) if is_test(path) else _strings(path, source)
        yield from _comments(path, source)
    else:
        yield from _paragraphs(path, source)


def is_test(path: Path) -> bool:
    """Return whether a file is below the folder of tests."""
    return path.is_relative_to(ROOT / "tests")


def _docstrings(path: Path, source: str) -> Iterator[Passage]:
    """Yield docstrings, also those below fields of classes and below constants."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield Passage(path, node.lineno, str(node.value.value))


def _strings(path: Path, source: str) -> Iterator[Passage]:
    """Yield docstrings and messages: strings of three words and more."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant):
            text = str(node.value)
            if len(text.split()) > 2:
                yield Passage(path, node.lineno, text)


def _comments(path: Path, source: str) -> Iterator[Passage]:
    """Yield comments; those on lines of their own that follow each other are one passage."""
    first, last = 0, -1
    lines: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        number = token.start[0]
        is_alone = token.line.strip() == token.string
        if number != last + 1 or not is_alone:
            yield Passage(path, first, "\n".join(lines))
            first, lines = number, []
        lines.append(token.string)
        last = number if is_alone else -1
    yield Passage(path, first, "\n".join(lines))


def _paragraphs(path: Path, source: str) -> Iterator[Passage]:
    """Yield paragraphs, table rows and list items, without fenced code."""
    first, is_code = 1, False
    lines: list[str] = []
    for number, line in enumerate([*source.splitlines(), ""], 1):
        is_fence = line.strip().startswith("```")
        is_code ^= is_fence
        begins = re.match(r"\s*(?:$|\||[-*] |\d+\. |#|```)", line)
        if begins or is_code:
            yield Passage(path, first, "\n".join(lines))
            first, lines = number, []
        if not is_code and not is_fence:
            lines.append(line)


def files(names: list[str]) -> Iterator[Path]:
    """Yield the files to check below these paths, without generated ones."""
    for name in names:
        start = ROOT / name
        for path in [start] if start.is_file() else sorted(start.rglob("*")):
            is_link = any(parent.is_symlink() for parent in (path, *path.parents))
            is_generated = GENERATED.intersection(path.parts) or path.parent.suffix == ".egg-info"
            is_text = path.suffix in TEXTS or path.suffix == ".py"
            if path.is_file() and is_text and not (is_link or is_generated):
                yield path


def main(names: list[str]) -> int:
    """Print what the files below these paths should not say; return the exit code."""
    found: list[Finding] = []
    for path in files(names or list(CHECKED)):
        for passage in passages(path):
            found += findings(passage)
        if path.suffix == ".py" and not is_test(path):
            found += wrong_names(path)
    for finding in found:
        print(finding)
    print(f"Phrases to replace: {len(found)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
