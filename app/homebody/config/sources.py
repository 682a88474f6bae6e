"""The sources of settings: one TOML file, the environment, options of the command line.

Each source is flattened to `{("rc_login", "address", "burst_count"): value}`. It knows how
and where a key is written, so that errors can name file, line, key and the most similar key.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from homebody.config import values

KeyPath = tuple[str, ...]

PREFIX: Final = "HOMEBODY_"
CONFIG_VARIABLE: Final = "HOMEBODY_CONFIG"
"""The path of the file; not a setting."""

# Kubernetes sets these in every container of a namespace that has a Service named `homebody`.
_NOT_OURS: Final = re.compile(r"HOMEBODY_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_[0-9]+_.*)?)")
_AT_LINE: Final = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)$")
_PAIR: Final = re.compile(r"\s*([\w.-]+)\s*=\s*([^\s#=].*)$", re.ASCII)
_STRING: Final = re.compile(r"\"[^\"]*\"|'[^']*'")
_REMOVED: Final = {("workers",), ("rc_joins", "remote")}
_MAPS: Final = {("federation_hosts",)}
"""Settings that are tables with keys of the administrator's choice."""


class ConfigError(Exception):
    """A setting that can't be used. The text is one line, for the administrator."""


class Setting(NamedTuple):
    """A key that the server accepts."""

    fields: KeyPath
    """The name of its field, preceded by those of the tables that contain it."""
    kind: values.Kind[Any]
    is_file: bool = False
    """Its value is the path of a file that holds the secret."""


class Source(NamedTuple):
    """The values of one source, by key."""

    values: Mapping[KeyPath, object]
    spell: Callable[[KeyPath], str]
    place: Callable[[KeyPath], str]
    is_text: bool = True
    """Whether values are plain strings, still to be parsed as TOML."""

    def error(self, key: KeyPath, sentence: str) -> ConfigError:
        """Return an error that says where this key is."""
        return ConfigError(f"{self.place(key)}{self.spell(key)}: {sentence}")


class Given(NamedTuple):
    """A value and where it comes from."""

    value: Any
    source: Source
    written: KeyPath


def dotted(key: KeyPath) -> str:
    """Return the key as TOML and options spell it."""
    return ".".join(key)


def from_file(path: Path) -> Source:
    """Read a TOML file. Raises ConfigError when it can't be read or is not TOML."""
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
    found = dict(_flattened(table))
    return Source(found, dotted, lambda key: f"{path}:{line_of(text, key)}: ", is_text=False)


def from_environment(environ: Mapping[str, str]) -> Source:
    """Read environment variables such as `HOMEBODY_RC_LOGIN__ADDRESS__BURST_COUNT`."""
    found = {
        tuple(name.removeprefix(PREFIX).lower().split("__")): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and name != CONFIG_VARIABLE and not _NOT_OURS.fullmatch(name)
    }
    return Source(found, lambda key: PREFIX + "__".join(key).upper(), lambda _: "environment ")


def from_options(options: Mapping[str, str]) -> Source:
    """Read options of the command line, by dotted key."""
    found = {tuple(name.split(".")): value for name, value in options.items()}
    return Source(found, dotted, lambda _: "option ")


def without_secret_files(source: Source, known: Mapping[KeyPath, Setting]) -> Source:
    """Return a source without the keys whose values are files of secrets."""
    files = {key for key, setting in known.items() if setting.is_file}
    return source._replace(
        values={key: it for key, it in source.values.items() if key not in files}
    )


def line_of(text: str, key: KeyPath) -> int:
    """Return the line on which a key or table of a valid TOML text is first set.

    tomllib reports no lines. So this finds the first lines that, without the rest, set the key.
    """
    lines, begins = text.split("\n"), 1
    for number in range(1, len(lines) + 1):
        try:
            table = tomllib.loads("\n".join(lines[:number]))
        except tomllib.TOMLDecodeError:
            continue  # the statement goes on in the next line
        if any(found[: len(key)] == key for found, _ in _flattened(table)):
            break
        begins = number + 1
    return begins


def _not_toml(path: Path, text: str, message: str) -> ConfigError:
    found = _AT_LINE.search(message)
    line = found[1] if found and found[1] else len(text.splitlines()) or 1
    hint = _hint_for("".join(text.splitlines()[int(line) - 1 : int(line)]))
    return ConfigError(f"{path}:{line}: is not TOML: {_AT_LINE.sub('', message)}{hint}")


def _hint_for(line: str) -> str:
    """Suggest what is wrong with a line that is not TOML, without its value: it may be secret."""
    pair = _PAIR.match(line)
    if pair is None:
        return ""
    key, value = pair[1], pair[2].partition("#")[0].strip()
    if value.lower() in values.FLAGS:
        return f"; write {key} = true or {key} = false"
    rest = _STRING.sub("", value)
    if rest[:1] == "[" and rest.strip("[], "):
        return f'; each text in a list has to be in quotes: {key} = ["…", "…"]'
    if '"' in rest or "'" in rest:
        return f'; a quote is missing: {key} = "…"'
    if rest == value and value[0] not in "[{=":
        return f'; text has to be in quotes: {key} = "…"'
    return ""


def _flattened(table: Mapping[str, Any], above: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    for name, value in table.items():
        key = (*above, name)
        if not isinstance(value, dict) or not value:
            yield key, value
        elif key in _MAPS:
            yield key, {dotted(inside): it for inside, it in _flattened(value)}
        else:
            yield from _flattened(value, key)


def settle(source: Source, known: Mapping[KeyPath, Setting]) -> dict[KeyPath, Given]:
    """Return what a source sets, by fields. Raises ConfigError for the first thing wrong."""
    given: dict[KeyPath, Given] = {}
    tables = {key[:length] for key in known for length in range(1, len(key))}
    for key, raw in source.values.items():
        if raw == {} and key in tables:
            continue
        setting = known.get(key)
        if setting is None:
            raise _wrong_key(source, key, known, tables)
        if setting.fields in given:
            other = source.spell(given[setting.fields].written)
            raise source.error(key, f"is the same setting as {other}; remove one of them")
        given[setting.fields] = Given(_value(source, key, raw, setting), source, key)
    return given


def _value(source: Source, key: KeyPath, raw: object, setting: Setting) -> object:
    """Return the value in the type that Config has for it."""
    kind = setting.kind
    if setting.is_file:
        raw = _first_line(source, key, raw)
    elif source.is_text and isinstance(raw, str):
        raw = kind.from_text(raw)
    if kind.is_optional and raw == "":
        return None
    try:
        return kind.parse(raw)
    except ValueError as error:
        none = ' (or "" for none)' if kind.is_optional else ""
        shown = "" if kind.is_secret else f", not {raw!r:.60}"
        if kind.is_hidden:
            shown = f": {error}" if isinstance(error, msgspec.ValidationError) else ""
        # "from None", as the other error has the value, which may be a secret
        raise source.error(key, f"must be {kind.what}{none}{shown}") from None


def _first_line(source: Source, key: KeyPath, path: object) -> str:
    """Return the secret in a file, without the line break that editors and `echo` append."""
    try:
        return values.PATH.parse(path).read_text("utf-8").strip()
    except OSError as error:
        raise source.error(key, f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise source.error(key, f"{path} is not UTF-8 text") from None
    except ValueError as error:
        raise source.error(key, f"must be {values.PATH.what}") from error


def _wrong_key(
    source: Source, key: KeyPath, known: Mapping[KeyPath, Setting], tables: Set[KeyPath]
) -> ConfigError:
    """Return what is wrong with a key, or with its first part that is not a table."""
    if key in tables:
        inside = [source.spell(name) for name in known if name[: len(key)] == key]
        return source.error(key, f"is a table; set {' and '.join(inside)}")
    parts = (key[:length] for length in range(1, len(key) + 1))
    part = next(part for part in parts if part not in tables)
    if part in known and source.is_text:
        return source.error(key, f"no such key; did you mean {source.spell(part)}?")
    if part in known:
        return source.error(part, f"must be {known[part].kind.what}, not a table")
    return source.error(part, f"no such key{_hint(part, {*known, *tables}, source.spell)}")


def _hint(key: KeyPath, names: Set[KeyPath], spell: Callable[[KeyPath], str]) -> str:
    if key in _REMOVED:
        return " any more, as it had no effect; remove it"
    if len(key) > 1 and key[-1:] in names:
        return f"; {spell(key[-1:])} belongs above the first [table] of the file"
    texts = sorted(map(dotted, names))
    # below this likeness, two words only share some letters
    for nearest in difflib.get_close_matches(dotted(key).lower(), texts, n=1, cutoff=0.75):
        return f"; did you mean {spell(tuple(nearest.split('.')))}?"
    return "; docs/homebody.example.toml lists all keys"
