"""Where settings come from: one TOML file, the environment, options of the command line.

Each source is flattened to `{("rc_login", "address", "burst_count"): value}` and knows how a key is
spelled in it and where it stands, so that an error can tell: file, line, key, nearest right name.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from homebody.config import values

KeyPath = tuple[str, ...]

PREFIX: Final = "HOMEBODY_"
CONFIG_VARIABLE: Final = "HOMEBODY_CONFIG"
"""Where the file is; not a setting."""

# Kubernetes sets these in every container of a name space that has a Service named `homebody`.
_NOT_OURS: Final = re.compile(r"HOMEBODY_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_[0-9]+_.*)?)")
_AT_LINE: Final = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)$")
_PAIR: Final = re.compile(r"\s*([\w.-]+)\s*=\s*([^\s#=].*)$", re.ASCII)
_STRING: Final = re.compile(r"\"[^\"]*\"|'[^']*'")
_FLAGS: Final = {"yes", "no", "on", "off", "true", "false"}
"""What programs take for true or false; TOML knows the last two, in small letters."""
_REMOVED: Final = {("workers",), ("federation",), ("rc_joins", "remote")}
_SHOWN_CHARACTERS: Final = 60
_LIKENESS: Final = 0.75
"""Of a key that is meant and one that was written; below it two words only share some letters."""
ALL_KEYS: Final = "docs/homebody.example.toml"


class ConfigError(Exception):
    """A setting that can't be used. The text is one line, meant for the owner."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A key that the server knows."""

    fields: KeyPath
    """The names of the fields that lead to it."""
    kind: values.Kind[Any]
    is_file: bool = False
    """Its value is the path of a file that holds the secret."""


@dataclass(frozen=True, slots=True)
class Source:
    """What one source says, by key."""

    values: dict[KeyPath, object]
    spell: Callable[[KeyPath], str]
    place: Callable[[KeyPath], str]
    is_text: bool = True
    """Values are bare text, to be read as TOML would."""

    def error(self, key: KeyPath, sentence: str) -> ConfigError:
        """An error that says where this key stands."""
        return ConfigError(f"{self.place(key)}{self.spell(key)}: {sentence}")


@dataclass(frozen=True, slots=True)
class Given:
    """A value that was given, and by whom."""

    value: Any
    source: Source
    written: KeyPath

    def error(self, sentence: str) -> ConfigError:
        """An error about this value."""
        return self.source.error(self.written, sentence)


def dotted(key: KeyPath) -> str:
    """The key as TOML and options have it."""
    return ".".join(key)


def from_file(path: Path) -> Source:
    """The settings of a TOML file. Raises ConfigError when it can't be read or is not TOML."""
    try:
        # Editors on Windows begin files with a byte order mark and end lines with \r\n.
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8 text") from error
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also for 5,000 digits or brackets
        raise _not_toml(path, text, str(error)) from error
    lines = lines_of_keys(text)
    return Source(
        dict(_flattened(table)), dotted, lambda key: f"{path}:{lines[key]}: ", is_text=False
    )


def from_environment(environ: Mapping[str, str]) -> Source:
    """The settings among the environment variables: `HOMEBODY_RC_LOGIN__ADDRESS__BURST_COUNT`."""
    values = {
        tuple(name.removeprefix(PREFIX).lower().split("__")): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and name != CONFIG_VARIABLE and not _NOT_OURS.fullmatch(name)
    }
    return Source({**values}, lambda key: PREFIX + "__".join(key).upper(), lambda _: "environment ")


def from_options(options: Mapping[str, str]) -> Source:
    """The settings of the command line, by dotted name."""
    values = {tuple(name.split(".")): value for name, value in options.items()}
    return Source({**values}, dotted, lambda _: "option ")


def lines_of_keys(text: str) -> dict[KeyPath, int]:
    """The line on which each key and table of a valid TOML text first stands.

    tomllib keeps no lines. So the text is cut into statements, each the fewest lines that are valid
    below the header of their table, and tomllib is asked which keys a statement sets.
    """
    lines: dict[KeyPath, int] = {}
    header, statement, begins = "", "", 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not statement:
            begins = number
        is_header = not statement and line.lstrip().startswith("[")
        statement += line + "\n"
        try:
            table = tomllib.loads(statement if is_header else f"{header}\n{statement}")
        except tomllib.TOMLDecodeError:
            continue  # goes on in the next line
        for key, _ in _flattened(table):
            for length in range(1, len(key) + 1):
                lines.setdefault(key[:length], begins)
        header = line if is_header else header
        statement = ""
    return lines


def _not_toml(path: Path, text: str, message: str) -> ConfigError:
    found = _AT_LINE.search(message)
    line = found[1] if found and found[1] else len(text.splitlines()) or 1
    written = text.splitlines()[int(line) - 1 : int(line)]
    hint = _hint_for(written[0]) if written else ""
    return ConfigError(f"{path}:{line}: is not TOML: {_AT_LINE.sub('', message)}{hint}")


def _hint_for(line: str) -> str:
    """Say what may be wrong with a line that TOML can't read.

    The value is left out: it may be a secret.
    """
    pair = _PAIR.match(line)
    if pair is None:
        return ""
    key, value = pair[1], pair[2].partition("#")[0].strip()
    if value.lower() in _FLAGS:
        return f"; write {key} = true or {key} = false"
    rest = _STRING.sub("", value)
    if rest[:1] == "[":
        hint = f'; each text in a list has to be in quotes: {key} = ["…", "…"]'
        return hint if rest.strip("[], ") else ""
    if '"' in rest or "'" in rest:
        return f'; a quote is missing: {key} = "…"'
    if rest == value and value[0] not in "{=":
        return f'; text has to be in quotes: {key} = "…"'
    return ""


def _flattened(table: Mapping[str, Any], above: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    for name, value in table.items():
        key = (*above, name)
        if isinstance(value, dict) and value:
            yield from _flattened(value, key)
        else:
            yield key, value


def settle(source: Source, known: Mapping[KeyPath, Setting]) -> dict[KeyPath, Given]:
    """Return what a source sets, by fields. Raises ConfigError for the first thing wrong."""
    given: dict[KeyPath, Given] = {}
    for key, raw in source.values.items():
        if raw == {} and _is_table(key, known):
            continue
        setting = known.get(key)
        if setting is None:
            raise source.error(*_what_is_wrong(key, known, source.spell))
        if setting.fields in given:
            other = source.spell(given[setting.fields].written)
            raise source.error(key, f"says the same as {other}; leave one of them out")
        given[setting.fields] = Given(_value(source, key, raw, setting), source, key)
    return given


def _value(source: Source, key: KeyPath, raw: object, setting: Setting) -> object:
    """The value itself, in the type that Config has for it."""
    kind = setting.kind
    if setting.is_file:
        raw = _first_line(source, key, raw)
    elif source.is_text and isinstance(raw, str):
        raw = kind.from_text(raw)
    try:
        return kind.parse(raw)
    except ValueError as error:
        shown = "" if kind.is_secret else f", not {_shortened(repr(raw))}"
        # "from None" for secrets: the chained error carries the value
        raise source.error(key, f"must be {kind.what}{shown}") from (
            None if kind.is_secret else error
        )


def _first_line(source: Source, key: KeyPath, path: object) -> str:
    """The secret in a file, without the line break that editors and `echo` leave behind."""
    try:
        return values.PATH.parse(path).read_text("utf-8").strip()
    except OSError as error:
        raise source.error(key, f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise source.error(key, f"{path} is not UTF-8 text") from None
    except ValueError as error:
        raise source.error(key, f"must be {values.PATH.what}") from error


def _is_table(key: KeyPath, known: Iterable[KeyPath]) -> bool:
    return any(len(name) > len(key) and name[: len(key)] == key for name in known)


def _what_is_wrong(
    key: KeyPath, known: Mapping[KeyPath, Setting], spell: Callable[[KeyPath], str]
) -> tuple[KeyPath, str]:
    """The first part of the key that can't be, and why."""
    for length in range(1, len(key) + 1):
        part = key[:length]
        if _is_table(part, known):
            continue
        if part in known:
            return part, f"must be {known[part].kind.what}, not a table"
        return part, f"no such key{_hint(part, known, spell)}"
    inside = [spell(name) for name in known if name[: len(key)] == key]
    return key, f"is a table, to be set by {' and '.join(inside)}"


def _hint(key: KeyPath, known: Iterable[KeyPath], spell: Callable[[KeyPath], str]) -> str:
    if key in _REMOVED:
        return " any more, as it had no effect; leave it out"
    if len(key) > 1 and key[-1:] in known:
        return f"; {spell(key[-1:])} belongs above the first [table] of the file"
    tables = {name[:length] for name in known for length in range(1, len(name) + 1)}
    names = {dotted(name): name for name in sorted(tables)}
    nearest = difflib.get_close_matches(dotted(key).lower(), names, n=1, cutoff=_LIKENESS)
    return f"; did you mean {spell(names[nearest[0]])}?" if nearest else f"; {ALL_KEYS} has all"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
