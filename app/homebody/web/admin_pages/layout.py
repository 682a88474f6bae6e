"""What the pages for administrators have in common: their frame, lists by pages, questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from flask import Response, request

from homebody import errors
from homebody.client_server import http
from homebody.config import values
from homebody.context import homeserver
from homebody.core.rooms import summary
from homebody.core.timeline.policies import UnapprovedError
from homebody.errors import MatrixError
from homebody.spec.events import Json
from homebody.storage.database import Reader
from homebody.web import browser_sessions, pages
from homebody.web.admin_pages import PREFIX

SECTIONS: Final = (
    ("", "Status"),
    ("doctor", "Doctor"),
    ("users", "Users"),
    ("rooms", "Rooms"),
    ("reports", "Reports"),
    ("invitations", "Invitations"),
    ("media", "Media"),
    ("notices", "Notices"),
    ("federation", "Federation"),
    ("tasks", "Tasks"),
    ("audit", "Audit log"),
)
"""The paths of the sections below PREFIX, and their names."""
PER_PAGE: Final = 50
_SIZE: Final = values.size(0)
_UNITS: Final = ("bytes", "KB", "MB", "GB", "TB")


class Part(NamedTuple):
    """A part of a list, and links to the parts before and after it."""

    start: int
    end: int
    total: int
    before: str | None
    after: str | None


class Field(NamedTuple):
    """A field of a question."""

    name: str
    label: str
    kind: str = "checkbox"
    """Also `text`, `number` (a whole number), `lines` (a text of several lines)."""
    is_checked: bool = False
    hint: str = ""
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Action:
    """What an administrator can do to a user, a room or a file, and how its page asks."""

    label: str
    """Of the button, such as "Lock"."""
    done: str
    """What the next page says, such as "The account is locked"."""
    meaning: str
    run: Callable[..., Response | None]
    """Called with the parameters of the path; a response replaces the next page."""
    fields: tuple[Field, ...] = ()
    is_asking: bool = True
    """Whether it asks on a page of its own before it is done."""
    is_final: bool = False
    """Whether it deletes what nobody can bring back; its button has another colour."""
    current: Callable[..., Mapping[str, str]] | None = None
    """Called with a `Reader` and the parameters of the path: what the fields contain at first."""


def page(template: str, status: int = 200, **given: object) -> Response:
    """Render a page for administrators."""
    section = request.path.removeprefix(PREFIX).strip("/").partition("/")[0]
    frame = {"prefix": PREFIX, "sections": SECTIONS, "section": section}
    return pages.page(f"admin/{template}", status, **frame, **_WORDS, **given)


def actor() -> str:
    """Return the administrator whose request this is."""
    return browser_sessions.account().user_id


def part(total: int) -> Part:
    """Return which part of a list of this length the query selects. Raises M_INVALID_PARAM."""
    start = start_of_part()
    before = _linked(max(start - PER_PAGE, 0)) if start else None
    after = _linked(start + PER_PAGE) if start + PER_PAGE < total else None
    return Part(start, min(start + PER_PAGE, total), total, before, after)


def start_of_part() -> int:
    """Return the place in a list from which the query wants it. Raises M_INVALID_PARAM."""
    return http.query_integer("from", 0)


def searched() -> str:
    """Return what the query searches for; empty: nothing."""
    return request.args.get("q", "").strip()


def choose(actions: Mapping[str, Action], name: str) -> Action:
    """Return an action by its name in the path. Raises M_NOT_FOUND."""
    if name not in actions:
        raise errors.not_found("There is no such action")
    return actions[name]


def ask(
    action: Action,
    subject: str,
    back: str,
    error: MatrixError | None = None,
    entered: Mapping[str, str] | None = None,
) -> Response:
    """Return the page that asks before an action; after an error, with what was entered."""
    return page(
        "ask.html",
        200 if error is None else error.status,
        action=action,
        subject=subject,
        back=back,
        problem="" if error is None else browser_sessions.message_of(error),
        values=(entered or {}) if error is None else request.form,
        is_again=error is not None,
    )


def perform(
    action: Action, back: str, *given: str, again: Callable[[MatrixError], Response] | None = None
) -> Response:
    """Do an action, and go on to the page `back`, which says that it is done.

    `again` returns the page of the form once more, for the user to correct what was entered.
    """
    try:
        answer = action.run(*given)
    except UnapprovedError:
        raise
    except MatrixError as error:
        is_of_the_form = error.status < 500 and error.errcode != "M_UNKNOWN_TOKEN"
        if again is None or not is_of_the_form:
            raise
        return again(error)
    if answer is not None:
        return answer
    return browser_sessions.see_other(f"{PREFIX}/{back}?{urlencode({'done': action.label})}")


def in_one_write(change: Callable[..., object], **options: bool) -> Callable[..., None]:
    """Return what an action runs that is one function of core/, in one transaction.

    The function takes the transaction, the administrator, and the parameters of the path.
    """

    def run(*given: str) -> None:
        with homeserver.database.write() as tx:
            change(tx, actor(), *given, **options)

    return run


def again(action: Action, subject: str, back: str) -> Callable[[MatrixError], Response]:
    """Return what `perform` needs to ask once more."""
    return lambda error: ask(action, subject, back, error)


def done(actions: Mapping[str, Action]) -> str:
    """Return what the action before this page has done; empty if there was none."""
    label = request.args.get("done", "")
    return next((it.done for it in actions.values() if it.label == label), "")


def is_checked(name: str) -> bool:
    """Return whether a checkbox of the form is checked."""
    return name in request.form


def text_of(name: str) -> str:
    """Return what was entered in a field, without spaces around it, and with plain line ends."""
    return request.form.get(name, "").strip().replace("\r\n", "\n")


def number_of(name: str, label: str, least: int, most: int) -> int:
    """Return the whole number in a field. Raises M_INVALID_PARAM."""
    text = text_of(name)
    if text.isascii() and text.isdecimal() and len(text) < 16 and least <= int(text) <= most:
        return int(text)
    raise errors.invalid_param(f"{label}: enter a whole number from {least} to {most}")


def names_of(tx: Reader, room_ids: Sequence[str]) -> dict[str, str]:
    """Return {room ID: name or alias} of the rooms that have one."""
    found = {
        it["room_id"]: it.get("name") or it.get("canonical_alias")
        for it in summary.full(tx, room_ids)
    }
    return {room_id: name for room_id, name in found.items() if name}


def segment(text: str) -> str:
    """Escape an id for the path of a link."""
    return quote(text, safe="")


def when(ts: int | None) -> str:
    """Show a time (ms)."""
    if not ts:
        return "never"
    try:
        return datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):  # users and other servers may give any number
        return "at an impossible time"


def ago(ts: int | None) -> str:
    """Show how long ago a time (ms) was."""
    if not ts:
        return "never"
    return f"{span(time.time() - ts / 1000)} ago"


def span(seconds: float) -> str:
    """Show a number of seconds by the largest unit that fits."""
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return "less than a second"


def size(count: float | None) -> str:
    """Show a number of bytes."""
    if count is None:
        return "unknown"
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return (
        f"{value:.0f} {_UNITS[unit]}" if unit == 0 or value >= 10 else f"{value:.1f} {_UNITS[unit]}"
    )


def outcome(result: Json | None) -> str:
    """Show in words what a task has done so far, such as "12 events, 3 kicked users"."""
    counts = {
        key: len(value) if isinstance(value, list | dict) else value
        for key, value in (result or {}).items()
    }
    shown = (
        size(value) + " freed" if key == "freed_bytes" else f"{value} {key.replace('_', ' ')}"
        for key, value in counts.items()
        if isinstance(value, int) and not isinstance(value, bool) and value
    )
    return ", ".join(shown)


def quota(max_bytes: int) -> str:
    """Show a number of bytes as settings have it, such as 5 GiB."""
    text = _SIZE.show(max_bytes).strip('"')
    return size(max_bytes) if text.isdecimal() else text


def _linked(start: int) -> str:
    query: dict[str, Any] = {**request.args.to_dict(), "from": start}
    query.pop("done", None)
    return f"{request.path}?{urlencode(query)}"


_WORDS: Final = {
    "ago": ago,
    "outcome": outcome,
    "quota": quota,
    "segment": segment,
    "size": size,
    "span": span,
    "when": when,
}
"""The functions that templates may call."""
