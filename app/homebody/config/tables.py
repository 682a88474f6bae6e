"""The kinds of settings that are lists of tables: `[[support_contacts]]`, `[[terms]]`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar

from homebody.config import values as kinds
from homebody.config.values import Kind
from homebody.spec import identifiers

T = TypeVar("T")

_OPAQUE: Final = re.compile(r"[A-Za-z0-9._~-]{1,255}")
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,8}([_-][A-Za-z0-9]{1,8})*")
_NAMESPACED: Final = re.compile(r"[a-z][a-z0-9_.-]{0,254}")
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")


@dataclass(frozen=True, slots=True)
class Contact:
    """Somebody to write to about this server; has at least one of the two addresses."""

    role: str
    matrix_id: str | None = None
    email_address: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A text that people agree to when they register, in one language."""

    id: str
    version: str
    name: str
    url: str
    language: str = "en"


def _contact(raw: dict[str, Any]) -> Contact:
    found = Contact(**raw)
    if found.role not in {"m.role.admin", "m.role.security"}:
        _match(_NAMESPACED, found.role)
        if found.role.startswith("m."):
            raise ValueError(found.role)
    if found.matrix_id is None and found.email_address is None:
        raise ValueError(raw)
    if found.matrix_id is not None and not identifiers.is_user_id(found.matrix_id):
        raise ValueError(found.matrix_id)
    if found.email_address is not None:
        _match(_EMAIL, found.email_address)
    return found


def _document(raw: dict[str, Any]) -> Document:
    found = Document(**raw)
    _match(_OPAQUE, found.id)
    _match(_OPAQUE, found.version)
    _match(_LANGUAGE, found.language)
    if not found.name or not found.name.isprintable():
        raise ValueError(found.name)
    kinds.PAGE.parse(found.url)
    return found


def _match(pattern: re.Pattern[str], text: str) -> None:
    if not pattern.fullmatch(text):
        raise ValueError(text)


def _list_of(must: str, read: Callable[[dict[str, Any]], T]) -> Kind[tuple[T, ...]]:
    """A list of tables with texts in them."""

    def parse(raw: object) -> tuple[T, ...]:
        if not isinstance(raw, list) or not all(isinstance(table, dict) for table in raw):
            raise ValueError(raw)
        if not all(isinstance(value, str) for table in raw for value in table.values()):
            raise ValueError(raw)
        try:
            return tuple(read(table) for table in raw)
        except TypeError as error:  # a key that is missing, or one that nobody knows
            raise ValueError(raw) from error

    return Kind(must, parse, _show, kinds.as_toml)


def _show(tables: tuple[Any, ...]) -> str:
    return f"[{', '.join(map(_show_table, tables))}]"


def _show_table(table: Any) -> str:
    values = {part.name: getattr(table, part.name) for part in fields(table)}
    shown = [f"{k} = {kinds.toml_string(v)}" for k, v in values.items() if v is not None]
    return f"{{ {', '.join(shown)} }}"


CONTACTS: Final = _list_of(
    "must be a list of tables with role (m.role.admin or m.role.security) and matrix_id or"
    " email_address",
    _contact,
)
DOCUMENTS: Final = _list_of(
    "must be a list of tables with id, version, name, url and language", _document
)
