"""Evaluate push rules for all local members of a room at once.

Evaluating 15 rules for each of 200 members would be too slow. So a rule is compiled into two lists:
conditions on the event alone, which an `EventView` evaluates once for all members, and conditions
on the member (does it contain the member's name or id?). Members with the same `Ruleset` object,
such as all who have changed no rule, share one list of the rules whose event conditions match. For
a plain message that list is one rule without any condition on the member.
Spec: client-server-api#push-rules
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from homebody.spec import globs, push_conditions, push_rulesets
from homebody.spec.events import Json
from homebody.spec.push_conditions import EventCondition, EventView, MemberCondition, Recipient

MAX_COST: Final = 150_000_000
"""Time for all users' own conditions per event, in ns."""
CHEAP_CONDITIONS: Final = 100
"""Up to this number of conditions, their cost is not estimated."""
MAX_ROOMS: Final = 1000
"""Rooms per `Ruleset` whose override rules are cached."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of the first matching rule. Shared by many users: never change `actions`."""

    notify: bool
    highlight: bool
    """Implies `notify`."""
    sound: str | None
    actions: list[Any]
    """As GET /notifications shows them, without the historical ones."""

    tweaks: Json = field(default_factory=dict, compare=False)
    """`{name: value}` of these actions, as the push gateway gets them."""


class Rule(NamedTuple):
    """An enabled rule, compiled."""

    of_event: tuple[EventCondition, ...]
    of_member: tuple[MemberCondition, ...]
    outcome: Outcome
    only_room_id: str | None = None
    """In lower case. If set, the rule can't match events of other rooms."""
    is_own: bool = False
    """Whether it is a rule of the user with conditions, whose cost is not bounded."""


@dataclass(frozen=True, slots=True, eq=False)
class Ruleset:
    """The enabled rules of users with the same changes. Cached: compiling takes 0.1 ms."""

    override: tuple[Rule, ...]
    content: tuple[Rule, ...]
    postcontent: tuple[Rule, ...]
    """These match events in threads only."""
    room: dict[str, Rule]
    """By rule ID, as only one of them can match; the same applies to `sender`."""
    sender: dict[str, Rule]
    underride: tuple[Rule, ...]
    conditions: int = 0
    """The number of conditions in the user's own rules."""
    search_cost: int = 0
    """The number of characters that a text must be searched for by these conditions."""
    _override_by_room: dict[str, tuple[Rule, ...]] = field(default_factory=dict)

    def in_order(self, view: EventView) -> Iterator[Rule]:
        """Yield the rules that may match the event in order of priority."""
        override = self._override_by_room.get(view.room_id)
        yield from self._override_in(view.room_id) if override is None else override
        yield from self.content
        if view.subscriptions:
            yield from self.postcontent
        if (rule := self.room.get(view.room_id)) is not None:
            yield rule
        if (rule := self.sender.get(view.sender)) is not None:
            yield rule
        yield from self.underride

    def _override_in(self, room_id: str) -> tuple[Rule, ...]:
        """Return the override rules without those for other rooms: clients mute rooms with them."""
        lowered = room_id.lower()
        known = tuple(it for it in self.override if it.only_room_id in {None, lowered})
        if len(self._override_by_room) >= MAX_ROOMS:
            self._override_by_room.clear()  # else it would never know the rooms of today
        self._override_by_room[room_id] = known
        return known


def evaluate(
    view: EventView, members: Iterable[Recipient], ruleset_of: Callable[[str], Ruleset]
) -> dict[str, Outcome]:
    """Return {user_id: outcome} of the members who are notified of the event.

    `ruleset_of` must return the object `DEFAULTS` for users who have changed no rule. The caller
    excludes members who ignore the sender.
    """
    groups: dict[Ruleset, list[Recipient]] = {}
    for member in members:
        if member.user_id != view.sender:
            groups.setdefault(ruleset_of(member.user_id), []).append(member)
    costly = [ruleset for ruleset in groups if ruleset.conditions]
    too_costly = _too_costly(view, costly) if costly else frozenset()
    outcomes: dict[str, Outcome] = {}
    for ruleset, group in groups.items():
        rules = _candidates(view, ruleset, with_own=ruleset not in too_costly)
        for member in group:
            for rule in rules:
                if not rule.of_member or _holds_for(rule, view, member):
                    if rule.outcome.notify:
                        outcomes[member.user_id] = rule.outcome
                    break
    return outcomes


def compiled(changes: Json) -> Ruleset:
    """Return the compiled rules of a user with these changes (see push_rulesets)."""
    return _compiled(changes) if changes else DEFAULTS


def _too_costly(view: EventView, costly: Sequence[Ruleset]) -> Set[Ruleset]:
    """Return the rulesets whose own conditions are skipped because they exceed MAX_COST.

    All of this runs inside the write transaction. The rules that one user may have take less than
    half of MAX_COST. If many users have that many, the cheap ones are evaluated first, so that only
    users with extremely many rules lose notifications.
    """
    # Deviates: the spec requires all rules to be evaluated, however long that takes.
    if sum(it.conditions for it in costly) <= CHEAP_CONDITIONS:
        return frozenset()
    costs = sorted((_cost(view, it), number) for number, it in enumerate(costly))
    left = MAX_COST
    skipped = set()
    for cost, number in costs:
        left -= cost
        if left < 0:
            skipped.add(costly[number])
    return skipped


def _cost(view: EventView, ruleset: Ruleset) -> int:
    """Estimate the time for the user's own conditions in ns."""
    searches = ruleset.search_cost * (100 + view.size // 20) if ruleset.search_cost else 0
    return 200 * ruleset.conditions + searches


def _candidates(view: EventView, ruleset: Ruleset, *, with_own: bool) -> list[Rule]:
    """Return the rules whose event conditions match, up to the first that matches all members."""
    candidates, holds = [], view.holds
    for rule in ruleset.in_order(view):
        if rule.is_own and not with_own:
            continue
        for condition in rule.of_event:  # hot: all() takes twice as long
            if not holds(condition):
                break
        else:
            candidates.append(rule)
            if not rule.of_member:
                break
    return candidates


def _holds_for(rule: Rule, view: EventView, member: Recipient) -> bool:
    return all(condition(view, member) for condition in rule.of_member)


def _compiled(changes: Json) -> Ruleset:
    own: list[Json] = []

    def rules(kind: str) -> dict[str, Rule]:
        enabled = [rule for rule in push_rulesets.in_order(changes, kind) if rule["enabled"]]
        own.extend(rule for rule in enabled if not rule["default"])
        return {rule["rule_id"]: _compiled_rule(rule) for rule in enabled}

    ruleset = Ruleset(
        override=tuple(rules("override").values()),
        content=tuple(rules("content").values()),
        postcontent=tuple(rules("postcontent").values()),
        room=rules("room"),
        sender=rules("sender"),
        underride=tuple(rules("underride").values()),
    )
    return replace(
        ruleset,
        conditions=sum(map(push_rulesets.conditions, own)),
        search_cost=sum(map(push_rulesets.search_cost, own)),
    )


def _compiled_rule(rule: Json) -> Rule:
    """Compile a rule. Room and sender rules have no conditions: they are found by their id."""
    conditions = _compiled_conditions(rule)
    return Rule(
        tuple(condition.of_event for condition in conditions),
        tuple(condition.of_member for condition in conditions if condition.of_member is not None),
        _outcome(rule["actions"]),
        next(filter(None, map(_only_room_id, rule.get("conditions", ()))), None),
        is_own=not rule["default"] and bool(conditions),
    )


def _compiled_conditions(rule: Json) -> list[push_conditions.Condition]:
    if rule["rule_id"] in push_conditions.LEGACY_CONDITIONS:  # users' own ids have no leading dot
        return push_conditions.LEGACY_CONDITIONS[rule["rule_id"]]
    conditions = [push_conditions.compiled(condition) for condition in rule.get("conditions", ())]
    if "pattern" in rule:
        conditions.append(push_conditions.in_body(rule["pattern"]))
    return conditions


def _only_room_id(condition: Json) -> str | None:
    if condition["kind"] != "event_match" or condition["key"] != "room_id":
        return None
    pattern: str = condition["pattern"]
    return None if globs.has_wildcards(pattern) else pattern.lower()


def _outcome(actions: list[Any]) -> Outcome:
    kept = [action for action in actions if action == "notify" or isinstance(action, dict)]
    is_notified = "notify" in kept
    tweaks = {it["set_tweak"]: it.get("value", True) for it in kept if isinstance(it, dict)}
    sound = tweaks.get("sound")
    return Outcome(
        is_notified,
        highlight=is_notified and tweaks.get("highlight") is True,
        sound=sound if is_notified and isinstance(sound, str) else None,
        actions=kept,
        tweaks=tweaks,
    )


DEFAULTS: Final = _compiled({})
"""The rules of all users who have changed none."""
