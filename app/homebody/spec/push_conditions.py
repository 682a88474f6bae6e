"""Conditions of push rules, compiled to functions.

Each condition is compiled to a function of an `EventView` and, if it concerns the member, a second
one that also takes the `Recipient`. Events may hold any JSON: a condition that can't be compared
with a value doesn't match.
Spec: client-server-api#conditions-1
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

import orjson

from homebody.spec import globs, identifiers, property_paths, push_rulesets
from homebody.spec.events import Event, Json
from homebody.spec.globs import Text
from homebody.spec.predefined_push_rules import ME, THREAD_SUBSCRIPTION
from homebody.spec.property_paths import Path
from homebody.spec.room_state import PowerLevels

BODY: Final = property_paths.parse("content.body")
"""The only property in which `event_match` looks for words instead of the whole value."""
OPERATORS: Final[dict[str | None, Callable[[int, int], bool]]] = {
    None: operator.eq,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}

MAX_SIZE: Final = 65_536
"""Maximum size of an event in bytes."""
MAX_LEGACY_LENGTH: Final = 4000
MAX_NAME_LENGTH: Final = 255
"""Longer display names, which clients can set in a room's state, never match."""

MISSING: Final = object()
"""Stands for a property that the event lacks, as null is a value."""
Scalar = tuple[type, object]
"""A value with its type, as True equals 1 in Python."""


class Recipient(NamedTuple):
    """A local member of the room who might be notified."""

    user_id: str
    display_name: str | None = None
    """From the `m.room.member` event in this room."""


class EventView:
    """An event with the facts about its room that rules need. Caches evaluated conditions."""

    __slots__ = (
        "_elements",
        "_lowered",
        "_results",
        "_size",
        "_texts",
        "_words",
        "legacy_body",
        "member_count",
        "named",
        "pdu",
        "power_levels",
        "room_id",
        "sender",
        "subscriptions",
    )

    def __init__(self, event: Event, member_count: int, power_levels: PowerLevels) -> None:
        """Take the number of joined local and remote members and the levels after the event."""
        ids = {"event_id": event.event_id, "room_id": event.room_id}
        self.pdu: Final = event.pdu | ids  # PDUs lack event_id, and room_id in some cases
        self.room_id: Final = event.room_id
        self.sender: Final = event.sender
        self.member_count: Final = member_count
        self.power_levels: Final = power_levels
        self.named: Collection[str] | None = None
        """The members whose name or localpart may occur in `legacy_body`. None: any member's."""
        self.subscriptions: Mapping[str, bool] = {}
        """{user_id: whether they are subscribed to the event's thread}; {}: it is in no thread."""
        self.legacy_body: Text | None = None
        """The beginning of the body, searched for mentions. None if the event has m.mentions."""
        body = event.content.get("body")
        if isinstance(body, str) and "m.mentions" not in event.content:
            self.legacy_body = Text(body.lower()[:MAX_LEGACY_LENGTH])
        self._size: int | None = None
        self._results: dict[EventCondition, bool] = {}
        self._lowered: dict[Path, str | None] = {}
        self._texts: dict[Path, Text | None] = {}
        self._words: frozenset[str] | None = None
        self._elements: dict[Path, frozenset[Scalar]] = {}

    @property
    def size(self) -> int:
        """The approximate number of characters in its content."""
        if self._size is None:
            try:
                self._size = len(orjson.dumps(self.pdu["content"]))
            except TypeError:  # an integer of more than 64 bits, in old room versions
                self._size = MAX_SIZE
        return self._size

    def holds(self, condition: EventCondition) -> bool:
        """Return whether the condition matches."""
        result = self._results.get(condition)
        if result is None:
            result = self._results[condition] = condition(self)
        return result

    def lowered(self, path: Path) -> str | None:
        """Return the value of a property in lower case, or None if it is not a string."""
        if path not in self._lowered:
            value = value_at(self.pdu, path)
            self._lowered[path] = value.lower() if isinstance(value, str) else None
        return self._lowered[path]

    def text(self, path: Path) -> Text | None:
        """Return `lowered` as a text to match patterns against."""
        if path not in self._texts:
            lowered = self.lowered(path)
            self._texts[path] = None if lowered is None else Text(lowered)
        return self._texts[path]

    def words(self) -> frozenset[str]:
        """Return the words of the body in lower case, for looking up keywords."""
        if self._words is None:
            body = self.lowered(BODY)
            self._words = frozenset() if body is None else globs.words_of(body)
        return self._words

    def elements(self, path: Path) -> frozenset[Scalar]:
        """Return the elements of an array that conditions can be compared with."""
        if path not in self._elements:
            value = value_at(self.pdu, path)
            array = value if isinstance(value, list) else ()
            self._elements[path] = frozenset(
                (type(element), element) for element in array if push_rulesets.is_exact(element)
            )
        return self._elements[path]


def value_at(json: object, path: Path) -> object:
    """Return the value at the end of the path, or MISSING. Arrays have no properties."""
    for name in path:
        if not isinstance(json, dict) or name not in json:
            return MISSING
        json = json[name]
    return json


EventCondition = Callable[[EventView], bool]
"""Equal conditions are the same object, so that an `EventView` can cache their results."""
MemberCondition = Callable[[EventView, Recipient], bool]


class Condition(NamedTuple):
    """Both must match. `of_event` is evaluated first, once for all members."""

    of_event: EventCondition
    of_member: MemberCondition | None = None


def compiled(condition: Json) -> Condition:
    """Return the compiled condition. "Unrecognised conditions MUST NOT match any events"."""
    compile_kind = _KINDS.get(condition["kind"])
    return Condition(_never) if compile_kind is None else compile_kind(condition)


def in_body(pattern: str) -> Condition:
    """Return the condition of content rules: the pattern matches words of the body."""
    return Condition(_matches(BODY, pattern))


def _never(view: EventView) -> bool:
    return False


def _event_match(condition: Json) -> Condition:
    path, pattern = property_paths.parse(condition["key"]), condition["pattern"]
    if pattern is ME:
        # Not a glob: historical user IDs may contain * and ?.
        return Condition(_is_text(path), functools.partial(_is_user_id, path))
    return Condition(_matches(path, pattern))


def _is_user_id(path: Path, view: EventView, member: Recipient) -> bool:
    return view.lowered(path) == member.user_id.lower()


def _event_property_is(condition: Json) -> Condition:
    return Condition(_equals(property_paths.parse(condition["key"]), condition["value"]))


def _event_property_contains(condition: Json) -> Condition:
    path, value = property_paths.parse(condition["key"]), condition["value"]
    if value is ME:
        return Condition(
            _has_elements(path), lambda view, member: (str, member.user_id) in view.elements(path)
        )
    return Condition(_contains(path, value))


def _contains_display_name(_condition: Json) -> Condition:
    return Condition(_is_text(BODY), _has_name_in_body)


def _has_name_in_body(view: EventView, member: Recipient) -> bool:
    body = view.text(BODY)
    name = (member.display_name or "").lower()
    return body is not None and 0 < len(name) <= MAX_NAME_LENGTH and globs.has_words(name, body)


def _room_member_count(condition: Json) -> Condition:
    parts = push_rulesets.MEMBER_COUNT.fullmatch(condition["is"])
    return Condition(_never if parts is None else _counts(parts[1], int(parts[2])))


def _sender_notification_permission(condition: Json) -> Condition:
    return Condition(_may_notify(condition["key"]))


def _thread_subscription(condition: Json) -> Condition:
    subscribed = condition.get("subscribed")
    if not isinstance(subscribed, bool):
        return Condition(_never)
    return Condition(
        _is_in_thread,
        lambda view, member: view.subscriptions.get(member.user_id) is subscribed,
    )


def _is_in_thread(view: EventView) -> bool:
    return bool(view.subscriptions)


def _has_legacy_body(view: EventView) -> bool:
    return view.legacy_body is not None


def _may_name_somebody(view: EventView) -> bool:
    return view.named is None or bool(view.named)


def _is_named_by_display_name(view: EventView, member: Recipient) -> bool:
    return _is_named(view, member, (member.display_name or "").lower())


def _is_named_by_localpart(view: EventView, member: Recipient) -> bool:
    return _is_named(view, member, identifiers.localpart(member.user_id).lower())


def _is_named(view: EventView, member: Recipient, name: str) -> bool:
    body = view.legacy_body
    if body is None or not 0 < len(name) <= MAX_NAME_LENGTH:
        return False
    if view.named is not None and member.user_id not in view.named:
        return False
    return name in body.text and globs.has_words(name, body)


def _mentions_the_room(view: EventView) -> bool:
    body = view.legacy_body
    return body is not None and "@room" in body.text and globs.has_words("@room", body)


_KINDS: Final[dict[str, Callable[[Json], Condition]]] = {
    "event_match": _event_match,
    "event_property_is": _event_property_is,
    "event_property_contains": _event_property_contains,
    "contains_display_name": _contains_display_name,
    "room_member_count": _room_member_count,
    "sender_notification_permission": _sender_notification_permission,
    THREAD_SUBSCRIPTION: _thread_subscription,
}

# Conditions on the event. Cached, so that equal conditions of many users are the same object;
# typed, as True and 1 are different JSON values.
_shared = functools.lru_cache(maxsize=8192, typed=True)


@_shared
def _matches(path: Path, pattern: str) -> EventCondition:
    lowered = pattern.lower()
    if path == BODY and globs.is_word(lowered):
        return lambda view: lowered in view.words()
    if path != BODY and not globs.has_wildcards(lowered):
        return lambda view: view.lowered(path) == lowered
    glob = globs.compiled(lowered)
    matches = glob.matches_words_of if path == BODY else glob.matches

    def condition(view: EventView) -> bool:
        text = view.text(path)
        return text is not None and matches(text)

    return condition


@_shared
def _is_text(path: Path) -> EventCondition:
    return lambda view: view.lowered(path) is not None


@_shared
def _equals(path: Path, expected: object) -> EventCondition:
    def condition(view: EventView) -> bool:
        value = value_at(view.pdu, path)
        return type(value) is type(expected) and value == expected

    return condition


@_shared
def _contains(path: Path, expected: object) -> EventCondition:
    return lambda view: (type(expected), expected) in view.elements(path)


@_shared
def _has_elements(path: Path) -> EventCondition:
    return lambda view: bool(view.elements(path))


@_shared
def _counts(symbol: str | None, number: int) -> EventCondition:
    compare = OPERATORS[symbol]
    return lambda view: compare(view.member_count, number)


@_shared
def _may_notify(key: str) -> EventCondition:
    def condition(view: EventView) -> bool:
        levels = view.power_levels
        return levels.of_user(view.sender) >= levels.notification(key)

    return condition


LEGACY_CONDITIONS: Final[dict[str, list[Condition]]] = {
    ".m.rule.contains_display_name": [
        Condition(_has_legacy_body),
        Condition(_may_name_somebody, _is_named_by_display_name),
    ],
    ".m.rule.contains_user_name": [
        Condition(_has_legacy_body),
        Condition(_may_name_somebody, _is_named_by_localpart),
    ],
    ".m.rule.roomnotif": [
        Condition(_has_legacy_body),
        Condition(_mentions_the_room),
        Condition(_may_notify("room")),
    ],
}
"""By rule_id; see predefined_push_rules.LEGACY. Unlike the conditions that clients see, they check
for m.mentions."""
