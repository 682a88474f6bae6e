"""What push rules may ask about an event, and about the member whom it might notify.

Each condition is compiled into a question to an `EventView` and, if it is about the member, one to
a `Recipient` too. Values in the event may be anything: a condition that can't be compared with them
doesn't hold.
Spec: client-server-api#conditions-1
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

import orjson

from homebody.spec import globs, identifiers, property_paths, push_rulesets
from homebody.spec.events import Event, Json
from homebody.spec.globs import Text
from homebody.spec.predefined_push_rules import ME
from homebody.spec.property_paths import Path
from homebody.spec.room_state import PowerLevels

BODY: Final = property_paths.parse("content.body")
"""The one property in which `event_match` looks for words, not for the whole value."""
OPERATORS: Final[dict[str | None, Callable[[int, int], bool]]] = {
    None: operator.eq,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}

MAX_SIZE: Final = 65_536
"""Of an event, in bytes."""
MAX_LEGACY_LENGTH: Final = 4000
MAX_NAME_LENGTH: Final = 255
"""Of a display name that is looked for. Anybody can set longer ones in a room's state."""

Scalar = tuple[type, object]
"""A value that compares exactly: to Python, True equals 1."""


class Recipient(NamedTuple):
    """A local member of the room, who might be notified."""

    user_id: str
    display_name: str | None = None
    """As the member's `m.room.member` event in this room says."""


class EventView:
    """An event and what rules ask about its room. Answers a question once and remembers it."""

    __slots__ = (
        "_answers",
        "_elements",
        "_event",
        "_legacy_body",
        "_size",
        "_texts",
        "_words",
        "member_count",
        "named",
        "power_levels",
        "sender",
    )

    def __init__(self, event: Event, member_count: int, power_levels: PowerLevels) -> None:
        """`member_count`: joined members, remote ones too. Both as they are after the event."""
        ids = {"event_id": event.event_id, "room_id": event.room_id}
        self._event: Final = event.pdu | ids  # PDUs lack the one, and sometimes the other
        self.sender: Final = event.sender
        self.member_count: Final = member_count
        self.power_levels: Final = power_levels
        self.named: Collection[str] | None = None
        """The members whose name or localpart may stand in `legacy_body`; None: anybody's may."""
        self._legacy_body: Text | None = None
        self._size: int | None = None
        self._answers: dict[EventCondition, bool] = {}
        self._texts: dict[Path, Text | None] = {}
        self._words: frozenset[str] | None = None
        self._elements: dict[Path, frozenset[Scalar]] = {}

    @property
    def size(self) -> int:
        """About how many characters of texts it has."""
        if self._size is None:
            try:
                self._size = len(orjson.dumps(self._event["content"]))
            except TypeError:  # an integer of more than 64 bits, as in rooms of old
                self._size = MAX_SIZE
        return self._size

    @property
    def room_id(self) -> str:
        """The room of the event."""
        room_id: str = self._event["room_id"]
        return room_id

    def holds(self, condition: EventCondition) -> bool:
        """Whether the condition holds."""
        answer = self._answers.get(condition)
        if answer is None:
            answer = self._answers[condition] = condition(self)
        return answer

    def value(self, path: Path) -> object:
        """The value of a property, or `property_paths.MISSING`."""
        return property_paths.value_at(self._event, path)

    def text(self, path: Path) -> Text | None:
        """The value of a property in lower case if it is a string."""
        if path not in self._texts:
            value = self.value(path)
            self._texts[path] = Text(value.lower()) if isinstance(value, str) else None
        return self._texts[path]

    @property
    def legacy_body(self) -> Text | None:
        """The text in which mentions are looked for; None where m.mentions says what there are.

        Only its beginning: the names of all members are looked for in it.
        """
        body = self.text(BODY)
        if body is None or "m.mentions" in self._event["content"]:
            return None
        if len(body.text) <= MAX_LEGACY_LENGTH:
            return body
        if self._legacy_body is None:
            self._legacy_body = Text(body.text[:MAX_LEGACY_LENGTH])
        return self._legacy_body

    def words(self) -> frozenset[str]:
        """The words of the body in lower case. Spares a search of the body for each keyword."""
        if self._words is None:
            body = self.text(BODY)
            self._words = frozenset() if body is None else globs.words_of(body.text)
        return self._words

    def elements(self, path: Path) -> frozenset[Scalar]:
        """The elements of an array that conditions may compare with."""
        if path not in self._elements:
            value = self.value(path)
            array = value if isinstance(value, list) else ()
            self._elements[path] = frozenset(
                (type(element), element) for element in array if push_rulesets.is_exact(element)
            )
        return self._elements[path]


EventCondition = Callable[[EventView], bool]
"""The same object for equal conditions, so that an `EventView` can remember its answer."""
MemberCondition = Callable[[EventView, Recipient], bool]


class Condition(NamedTuple):
    """Both must hold. With a condition on the member, the one on the event spares us asking it."""

    of_event: EventCondition
    of_member: MemberCondition | None = None


def compiled(condition: Json) -> Condition:
    """The compiled condition. "Unrecognised conditions MUST NOT match any events"."""
    compile_kind = _KINDS.get(condition["kind"])
    return Condition(_never) if compile_kind is None else compile_kind(condition)


def in_body(pattern: str) -> Condition:
    """The predefined condition of content rules."""
    return Condition(_matches(BODY, pattern))


def _never(view: EventView) -> bool:
    return False


def _event_match(condition: Json) -> Condition:
    path, pattern = property_paths.parse(condition["key"]), condition["pattern"]
    if pattern is ME:
        # Not a glob: ids from before the rules for them may contain * and ?.
        return Condition(_is_text(path), functools.partial(_is_user_id, path))
    return Condition(_matches(path, pattern))


def _is_user_id(path: Path, view: EventView, member: Recipient) -> bool:
    text = view.text(path)
    return text is not None and text.text == member.user_id.lower()


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


def _may_name_somebody(view: EventView) -> bool:
    return view.legacy_body is not None and (view.named is None or bool(view.named))


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
}

# The conditions on the event. Remembered, so that equal ones of many users are the same object;
# typed, as True and 1 are different values of an event.
_shared = functools.lru_cache(maxsize=8192, typed=True)


@_shared
def _matches(path: Path, pattern: str) -> EventCondition:
    lowered = pattern.lower()
    if path == BODY and globs.is_word(lowered):
        return lambda view: lowered in view.words()
    glob = globs.compiled(lowered)
    matches = glob.matches_words_of if path == BODY else glob.matches

    def condition(view: EventView) -> bool:
        text = view.text(path)
        return text is not None and matches(text)

    return condition


@_shared
def _is_text(path: Path) -> EventCondition:
    return lambda view: view.text(path) is not None


@_shared
def _equals(path: Path, expected: object) -> EventCondition:
    def condition(view: EventView) -> bool:
        value = view.value(path)
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
    ".m.rule.contains_display_name": [Condition(_may_name_somebody, _is_named_by_display_name)],
    ".m.rule.contains_user_name": [Condition(_may_name_somebody, _is_named_by_localpart)],
    ".m.rule.roomnotif": [Condition(_mentions_the_room), Condition(_may_notify("room"))],
}
"""By rule_id; see predefined_push_rules.LEGACY. What they show as their conditions says nothing of
m.mentions."""
