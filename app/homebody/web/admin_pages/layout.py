"""What the pages for administrators have in common: their frame, lists by pages, questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from flask import Response, request

from homebody import errors
from homebody.client_server import http
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
    ("federation", "Federation"),
    ("tasks", "Tasks"),
    ("audit", "Audit log"),
)
"""The paths of the sections below PREFIX, and their names."""
PER_PAGE: Final = 50
_UNITS: Final = ("bytes", "KB", "MB", "GB", "TB")


class Part(NamedTuple):
    """A part of a list, and links to the parts before and after it."""

    start: int
    total: int
    before: str | None
    after: str | None


class Field(NamedTuple):
    """A field of a question: a checkbox, or a line of text."""

    name: str
    label: str
    is_checkbox: bool = True
    is_checked: bool = False
    value: str = ""
    hint: str = ""


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


def page(template: str, status: int = 200, **values: object) -> Response:
    """Render a page for administrators."""
    section = request.path.removeprefix(PREFIX).strip("/").partition("/")[0]
    frame = {"prefix": PREFIX, "sections": SECTIONS, "section": section}
    return pages.page(f"admin/{template}", status, **frame, **_WORDS, **values)


def actor() -> str:
    """Return the administrator whose request this is."""
    return browser_sessions.account().user_id


def part(total: int) -> Part:
    """Return which part of a list of this length the query selects. Raises M_INVALID_PARAM."""
    start = start_of_part()
    before = _linked(max(start - PER_PAGE, 0)) if start else None
    after = _linked(start + PER_PAGE) if start + PER_PAGE < total else None
    return Part(start, total, before, after)


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


def ask(action: Action, subject: str, back: str) -> Response:
    """Return the page that asks before an action."""
    return page("ask.html", action=action, subject=subject, back=back)


def perform(action: Action, back: str, *given: str) -> Response:
    """Do an action, and go on to the page `back`, which says that it is done."""
    answer = action.run(*given)
    if answer is not None:
        return answer
    return browser_sessions.see_other(f"{PREFIX}/{back}?{urlencode({'done': action.label})}")


def done(actions: Mapping[str, Action]) -> str:
    """Return what the action before this page has done; empty if there was none."""
    label = request.args.get("done", "")
    return next((it.done for it in actions.values() if it.label == label), "")


def is_checked(name: str) -> bool:
    """Return whether a checkbox of the form is checked."""
    return name in request.form


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


def _linked(start: int) -> str:
    query: dict[str, Any] = {**request.args.to_dict(), "from": start}
    query.pop("done", None)
    return f"{request.path}?{urlencode(query)}"


_WORDS: Final = {"ago": ago, "segment": segment, "size": size, "span": span, "when": when}
"""The functions that templates may call."""
