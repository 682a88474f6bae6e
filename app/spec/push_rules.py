"""Whom an event notifies, and how: push rules evaluated for all local members of a room at once.

An event in a room of 200 must not ask 200 times 15 rules. So a rule is compiled into two lists:
conditions on the event alone, which an `EventView` answers once for everybody, and conditions on
the member (is my name, my id in it?). Members with the same `Ruleset` object, and that is everybody
who changed nothing, share one list of the rules that the first kind of conditions leaves over. For
a plain message that list is one rule without any condition on the member.

Values in the event may be anything: a condition that can't be compared with them doesn't hold.
Spec: client-server-api#push-rules
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from app.spec import globs, property_paths, push_rulesets
from app.spec.events import Event, Json
from app.spec.predefined_push_rules import ME
from app.spec.property_paths import Path
from app.spec.room_state import PowerLevels

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

Scalar = tuple[type, object]
"""A value that compares exactly: to Python, True equals 1."""


class Recipient(NamedTuple):
    """A local member of the room, who might be notified."""

    user_id: str
    display_name: str | None = None
    """As the member's `m.room.member` event in this room says."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the first matching rule asks for. Shared by many: never change `actions`."""

    notify: bool
    highlight: bool
    """Only with `notify`, as a highlight is a property of a notification."""
    sound: str | None
    actions: list[Any]
    """As GET /notifications shows them, without the historical ones."""

    @property
    def tweaks(self) -> Json:
        """`{name: value}` as the push gateway gets them."""
        return {
            action["set_tweak"]: action.get("value", True)
            for action in self.actions
            if isinstance(action, dict)
        }


NOTHING: Final = Outcome(notify=False, highlight=False, sound=None, actions=[])


class EventView:
    """An event and what rules ask about its room. Answers a question once and remembers it."""

    __slots__ = (
        "_answers",
        "_elements",
        "_event",
        "_texts",
        "_words",
        "member_count",
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
        self._answers: dict[EventCondition, bool] = {}
        self._texts: dict[Path, str | None] = {}
        self._words: frozenset[str] | None = None
        self._elements: dict[Path, frozenset[Scalar]] = {}

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

    def text(self, path: Path) -> str | None:
        """The value of a property in lower case if it is a string."""
        if path not in self._texts:
            value = self.value(path)
            self._texts[path] = value.lower() if isinstance(value, str) else None
        return self._texts[path]

    def words(self) -> frozenset[str]:
        """The words of the body in lower case. Spares a search of the body for each keyword."""
        if self._words is None:
            self._words = globs.words_of(self.text(BODY) or "")
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


class Rule(NamedTuple):
    """An enabled rule, compiled."""

    of_event: tuple[EventCondition, ...]
    of_member: tuple[MemberCondition, ...]
    outcome: Outcome


@dataclass(frozen=True, slots=True, eq=False)
class Ruleset:
    """The enabled rules of users with the same changes. Worth keeping: made in 0.1 ms."""

    override: tuple[Rule, ...]
    content: tuple[Rule, ...]
    room: dict[str, Rule]
    """By rule id, as only one of them can match; likewise `sender`."""
    sender: dict[str, Rule]
    underride: tuple[Rule, ...]

    def in_order(self, view: EventView) -> Iterator[Rule]:
        """The rules that may match the event, the most important first."""
        yield from self.override
        yield from self.content
        if (rule := self.room.get(view.room_id)) is not None:
            yield rule
        if (rule := self.sender.get(view.sender)) is not None:
            yield rule
        yield from self.underride


def evaluate(
    view: EventView, members: Iterable[Recipient], ruleset_of: Callable[[str], Ruleset]
) -> dict[str, Outcome]:
    """Who is notified of the event, and how: {user_id: outcome}. Others aren't in it.

    Asks `ruleset_of` for each user; who has changed nothing must get the one `DEFAULTS`. That the
    sender is ignored by a member is for the caller to see.
    """
    candidates: dict[Ruleset, list[Rule]] = {}
    outcomes: dict[str, Outcome] = {}
    for member in members:
        if member.user_id == view.sender:
            continue
        ruleset = ruleset_of(member.user_id)
        rules = candidates.get(ruleset)
        if rules is None:
            rules = candidates[ruleset] = _candidates(view, ruleset)
        for rule in rules:
            if not rule.of_member or _holds_for(rule, view, member):
                if rule.outcome.notify:
                    outcomes[member.user_id] = rule.outcome
                break
    return outcomes


def evaluate_one(view: EventView, member: Recipient, ruleset: Ruleset) -> Outcome:
    """How the event notifies this member: the spec's rule in so many words."""
    if member.user_id == view.sender:
        return NOTHING  # "MUST NOT notify ... for events that the user has sent themselves"
    for rule in ruleset.in_order(view):
        if _holds(rule, view) and _holds_for(rule, view, member):
            return rule.outcome
    return NOTHING


def compiled(changes: Json) -> Ruleset:
    """The rules of a user with these changes (see push_rulesets), ready to be evaluated."""
    return _compiled(changes) if changes else DEFAULTS


def _candidates(view: EventView, ruleset: Ruleset) -> list[Rule]:
    """The rules that only depend on the member now, up to the first that matches for everybody."""
    candidates = []
    for rule in ruleset.in_order(view):
        if _holds(rule, view):
            candidates.append(rule)
            if not rule.of_member:
                break
    return candidates


def _holds(rule: Rule, view: EventView) -> bool:
    holds = view.holds
    for condition in rule.of_event:  # noqa: SIM110 - all() takes twice as long, and this runs most
        if not holds(condition):
            return False
    return True


def _holds_for(rule: Rule, view: EventView, member: Recipient) -> bool:
    return all(condition(view, member) for condition in rule.of_member)


def _compiled(changes: Json) -> Ruleset:
    def rules(kind: str) -> dict[str, Rule]:
        return {
            rule["rule_id"]: _compiled_rule(rule)
            for rule in push_rulesets.in_order(changes, kind)
            if rule["enabled"]
        }

    return Ruleset(
        override=tuple(rules("override").values()),
        content=tuple(rules("content").values()),
        room=rules("room"),
        sender=rules("sender"),
        underride=tuple(rules("underride").values()),
    )


def _compiled_rule(rule: Json) -> Rule:
    """For room and sender rules there is nothing to ask: they are found by their id."""
    conditions = [_condition(condition) for condition in rule.get("conditions", ())]
    if "pattern" in rule:
        conditions.append(Condition(_matches(BODY, rule["pattern"])))
    return Rule(
        tuple(condition.of_event for condition in conditions),
        tuple(condition.of_member for condition in conditions if condition.of_member is not None),
        _outcome(rule["actions"]),
    )


def _outcome(actions: list[Any]) -> Outcome:
    kept = [action for action in actions if action == "notify" or isinstance(action, dict)]
    outcome = Outcome("notify" in kept, highlight=False, sound=None, actions=kept)
    tweaks = outcome.tweaks if outcome.notify else {}
    sound = tweaks.get("sound")
    return Outcome(
        outcome.notify,
        highlight=tweaks.get("highlight") is True,
        sound=sound if isinstance(sound, str) else None,
        actions=kept,
    )


def _condition(condition: Json) -> Condition:
    """The compiled condition. "Unrecognised conditions MUST NOT match any events"."""
    compile_kind = _KINDS.get(condition["kind"])
    return Condition(_never) if compile_kind is None else compile_kind(condition)


def _never(view: EventView) -> bool:
    return False


def _event_match(condition: Json) -> Condition:
    path, pattern = property_paths.parse(condition["key"]), condition["pattern"]
    if pattern is ME:
        # Not a glob: ids from before the rules for them may contain * and ?.
        return Condition(
            _is_text(path), lambda view, member: view.text(path) == member.user_id.lower()
        )
    return Condition(_matches(path, pattern))


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
    return body is not None and name != "" and globs.has_words(name, body)


def _room_member_count(condition: Json) -> Condition:
    parts = push_rulesets.MEMBER_COUNT.fullmatch(condition["is"])
    return Condition(_never if parts is None else _counts(parts[1], int(parts[2])))


def _sender_notification_permission(condition: Json) -> Condition:
    return Condition(_may_notify(condition["key"]))


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


DEFAULTS: Final = _compiled({})
"""The rules of everybody who has changed nothing."""
