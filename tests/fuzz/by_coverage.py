"""Bytes that atheris makes up for the parsers, guided by the lines that they reach.

    python -m tests.fuzz.by_coverage [SECONDS]

Ends with exit code 77 and the bytes when one of them raises what it does not say. What was found
becomes an `@example` of the test of that parser.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["homebody", "tomllib", "yaml"]):
    from homebody.config import sources
    from homebody.core.appservices import files
    from homebody.core.media import open_graph
    from homebody.spec import (
        canonical_json,
        filters,
        globs,
        identifiers,
        property_paths,
        push_rulesets,
    )
    from homebody.web import middleware
    from tests.fuzz import test_identifiers

LONGEST_BYTES = 400
SLOWEST_SECONDS = 5


def page(data: bytes) -> None:
    open_graph.read(data, "text/html", "http://a.example/")


def registration(data: bytes) -> None:
    files._yaml(data)  # noqa: SLF001 - the reader itself, without a file


def configuration(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        sources.from_file(Path(file.name))


def identifier(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    has_server = test_identifiers.has_server
    assert identifiers.is_user_id(text) == has_server("@", text, may_be_empty=True)
    assert identifiers.is_room_alias(text) == has_server("#", text)


def event_filter(data: bytes) -> None:
    it = filters.parse(canonical_json.decode(data))
    filters.matches(it.room.timeline, "m.x", None, "!a:b", {})


def push_rule(data: bytes) -> None:
    rule = canonical_json.decode(data)
    if isinstance(rule, dict):
        push_rulesets.with_rule({}, "override", "a", rule)


def path(data: bytes) -> None:
    middleware.routing_path({"RAW_URI": data.decode("latin-1"), "PATH_INFO": "/"})


def glob(data: bytes) -> None:
    pattern, _, text = data.decode("utf-8", "replace").partition("\n")
    globs.Glob(pattern).matches(text)
    globs.Glob(pattern).matches_words_of(text)
    property_paths.parse(pattern)


PARSERS: list[tuple[Callable[[bytes], None], bytes]] = [
    (page, b'<meta property="og:title" content="a"><p>x</p>'),
    (registration, b"id: a\nb: [1, {c: d}]"),
    (configuration, b'a = [1, "x"]\n[b.c]\nd = 1979-05-27'),
    (identifier, b"@a:b.c:80"),
    (event_filter, b'{"room":{"timeline":{"types":["m.*"],"limit":3}}}'),
    (push_rule, b'{"actions":[],"conditions":[{"kind":"event_match","key":"a","pattern":"b"}]}'),
    (path, b"/_matrix/client/r0/%2f%25a?b"),
    (glob, b"a*b?\nabc"),
]
"""With something good to begin from. The first byte of what atheris makes says which it is for."""


def parse(data: bytes) -> None:
    """Let one of the parsers read it; to refuse is no fault."""
    if not data:
        return
    parser, _good = PARSERS[data[0] % len(PARSERS)]
    try:
        parser(data[1:])
    except (ValueError, sources.ConfigError):
        return


def main() -> None:
    """As long as is said, 60 seconds otherwise. Does not return."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp())
    for number, (_parser, good) in enumerate(PARSERS):
        (folder / str(number)).write_bytes(bytes([number]) + good)
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST_BYTES}"]
    options += [f"-timeout={SLOWEST_SECONDS}", f"-artifact_prefix={folder}/", str(folder)]
    atheris.Setup([sys.argv[0], *options], parse)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
