"""A user's push rules: the predefined ones and the user's changes to them.

The server stores only the *changes* of a user, a JSON object that is `{}` for most users:

    {"rules": {kind: [rule, ...]}, "predefined": {rule_id: {"enabled": ..., "actions": [...]}}}

`rules` are the user's own in order of priority, each as in the API but without `default`. So
predefined rules that a later version of the spec adds or changes apply to all users. The functions
`with_…` and `without_rule` return changed copies and don't modify their arguments.
Spec: client-server-api#predefined-rules, client-server-api#push-rules-api
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

from homebody.spec import canonical_json, globs, identifiers
from homebody.spec.events import Json
from homebody.spec.predefined_push_rules import (
    KINDS,
    MASTER,
    ME,
    PREDEFINED,
    THREAD_SUBSCRIPTION,
)

CONDITIONAL_KINDS: Final = frozenset({"override", "underride"})
HISTORICAL_ACTIONS: Final = frozenset({"dont_notify", "coalesce"})
"""Stored but without effect, as clients compare the rules with what they set: "a rule with
["dont_notify"] actions MUST be equivalent to" one with none."""
MEMBER_COUNT: Final = re.compile(r"(==|<=|>=|<|>)?([0-9]{1,15})", re.ASCII)

MAX_RULES: Final = 2000
"""A user's own rules of all kinds. Enough to mute every room by a rule."""
MAX_RULE_BYTES: Final = 8192
MAX_CONDITIONS: Final = 20
MAX_PATTERN_LENGTH: Final = 255
MAX_ALL_CONDITIONS: Final = 4000
"""In all rules of a user. Evaluating a condition takes 0.2 µs per event."""
MAX_ALL_BYTES: Final = 512 * 1024
"""The size of all rules of a user as JSON, as the compiled rules are cached."""
MAX_SEARCHES: Final = 200
"""Patterns of one user that need a search of the text: 0.3 ms each in a body of 60 KB."""


class NoSuchRule(LookupError):  # noqa: N818 - named like the spec's terms; becomes a 404
    """The user has no rule of this kind with this id."""


class InvalidRule(ValueError):  # noqa: N818 - the spec: "a problem configuring the rule"
    """The rule or its position is not valid. The message is for the client's developer."""


def full(user_id: str, changes: Json) -> Json:
    """Return the response of GET /pushrules/ and the content of account data `m.push_rules`."""
    return {
        "global": {
            kind: [_shown(rule, user_id) for rule in in_order(changes, kind)] for kind in KINDS
        }
    }


def find(user_id: str, changes: Json, kind: str, rule_id: str) -> Json:
    """Return one rule as shown to clients. Raises NoSuchRule."""
    for rule in in_order(changes, kind) if kind in KINDS else ():
        if rule["rule_id"] == rule_id:
            return _shown(rule, user_id)
    raise NoSuchRule(f"There is no {kind} rule with this id")


def in_order(changes: Json, kind: str) -> Iterator[Json]:
    """Yield the rules of a kind in order of priority, with ME as a placeholder of the user's id."""
    edited: dict[str, Json] = changes.get("predefined", {})
    if kind == "override":
        yield MASTER | edited.get(MASTER["rule_id"], {})
    for rule in changes.get("rules", {}).get(kind, ()):
        yield rule | {"default": False}
    for rule in PREDEFINED[kind]:
        yield rule | edited.get(rule["rule_id"], {})


def with_rule(
    changes: Json,
    kind: str,
    rule_id: str,
    rule: Json,
    before: str | None = None,
    after: str | None = None,
) -> Json:
    """Return the changes with a user's rule added, or replaced if the id exists.

    A new rule is enabled and has the highest priority of the user's rules; a replaced one keeps its
    position and whether it is enabled. `before` and `after` are ids of other rules of the user to
    place it next to; `before` takes precedence. Raises InvalidRule.
    """
    _check_kind(kind)
    _check_own_id(kind, rule_id)
    own = _own(changes, kind)
    old = next((place for place, it in enumerate(own) if it["rule_id"] == rule_id), None)
    enabled = True if old is None else own[old]["enabled"]
    others = [it for it in own if it["rule_id"] != rule_id]
    if old is None:
        _check_room_for_another(changes)
    if before is not None:
        place = _place(others, before)
    elif after is not None:
        place = _place(others, after) + 1
    else:
        place = old or 0
    others.insert(place, {"rule_id": rule_id, "enabled": enabled, **_checked(kind, rule)})
    edited = _with_own(changes, kind, others)
    _check_totals(edited)
    return edited


def without_rule(changes: Json, kind: str, rule_id: str) -> Json:
    """Return the changes without one of the user's own rules.

    Raises NoSuchRule, and InvalidRule for predefined rules, which can only be disabled.
    """
    if _is_predefined(kind, rule_id):
        raise InvalidRule("Predefined rules can be disabled, but not deleted")
    own = _own(changes, kind)
    left = [rule for rule in own if rule["rule_id"] != rule_id]
    if len(left) == len(own):
        raise NoSuchRule(f"There is no {kind} rule with this id")
    return _with_own(changes, kind, left)


def with_enabled(changes: Json, kind: str, rule_id: str, enabled: object) -> Json:
    """Return the changes with a rule enabled or disabled. Raises NoSuchRule, InvalidRule."""
    if not isinstance(enabled, bool):
        raise InvalidRule("enabled must be a boolean")
    return _edited(changes, kind, rule_id, {"enabled": enabled})


def with_actions(changes: Json, kind: str, rule_id: str, actions: object) -> Json:
    """Return the changes with new actions for a rule. Raises NoSuchRule, InvalidRule."""
    edit = {"actions": _checked_actions(actions)}
    _check_size(edit)
    edited = _edited(changes, kind, rule_id, edit)
    _check_totals(edited)
    return edited


def _shown(rule: Json, user_id: str) -> Json:
    """Return a copy of the rule with the user's id filled in."""
    shown = rule | {"actions": list(rule["actions"])}
    if shown.get("pattern") is ME:
        shown["pattern"] = identifiers.localpart(user_id)
    if "conditions" in rule:
        shown["conditions"] = [
            {name: user_id if value is ME else value for name, value in condition.items()}
            for condition in rule["conditions"]
        ]
    return shown


def _own(changes: Json, kind: str) -> list[Json]:
    rules: list[Json] = changes.get("rules", {}).get(kind, [])
    return rules


def _with_own(changes: Json, kind: str, rules: list[Json]) -> Json:
    return changes | {"rules": changes.get("rules", {}) | {kind: rules}}


def _is_predefined(kind: str, rule_id: str) -> bool:
    if rule_id == MASTER["rule_id"]:
        return kind == "override"
    return any(rule["rule_id"] == rule_id for rule in PREDEFINED.get(kind, ()))


def _edited(changes: Json, kind: str, rule_id: str, edit: Json) -> Json:
    if _is_predefined(kind, rule_id):
        edited = changes.get("predefined", {})
        return changes | {"predefined": edited | {rule_id: edited.get(rule_id, {}) | edit}}
    own = _own(changes, kind)
    if all(rule["rule_id"] != rule_id for rule in own):
        raise NoSuchRule(f"There is no {kind} rule with this id")
    return _with_own(
        changes, kind, [rule | edit if rule["rule_id"] == rule_id else rule for rule in own]
    )


def _place(rules: list[Json], rule_id: str) -> int:
    for place, rule in enumerate(rules):
        if rule["rule_id"] == rule_id:
            return place
    raise InvalidRule("before and after must name another rule of the user, of the same kind")


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise InvalidRule(f"The kinds of rules are {', '.join(KINDS)}")
    if kind == "postcontent":
        raise InvalidRule("There are only predefined rules of the kind postcontent")


def _check_room_for_another(changes: Json) -> None:
    if sum(map(len, changes.get("rules", {}).values())) >= MAX_RULES:
        raise InvalidRule(f"A user may have {MAX_RULES} rules")


def conditions(rule: Json) -> int:
    """Return the number of conditions of a rule."""
    return len(rule.get("conditions", ())) + ("pattern" in rule)


def search_cost(rule: Json) -> int:
    """Return the number of characters that a text must be searched for to evaluate the rule."""
    return sum(globs.Glob(pattern).cost for pattern in _searches(rule))


def _check_totals(changes: Json) -> None:
    """Raise InvalidRule if all rules of a user together cost too much to evaluate."""
    rules = [rule for rules in changes.get("rules", {}).values() for rule in rules]
    if sum(len(_searches(rule)) for rule in rules) > MAX_SEARCHES:
        raise InvalidRule(f"A user may have {MAX_SEARCHES} patterns with wildcards or two words")
    if sum(map(conditions, rules)) > MAX_ALL_CONDITIONS:
        raise InvalidRule(f"All rules together may have {MAX_ALL_CONDITIONS} conditions")
    if _quick_size_bytes(changes) > MAX_ALL_BYTES:
        raise InvalidRule(f"All rules together may have {MAX_ALL_BYTES} bytes")


def _searches(rule: Json) -> list[str]:
    """Return the patterns that need a search. Single words are looked up, ids compared."""
    patterns = [("content.body", rule["pattern"])] if "pattern" in rule else []
    patterns += [
        (condition["key"], condition["pattern"])
        for condition in rule.get("conditions", ())
        if condition["kind"] == "event_match"
    ]
    return [
        pattern
        for key, pattern in patterns
        if globs.has_wildcards(pattern) or (key == "content.body" and not globs.is_word(pattern))
    ]


def _check_own_id(kind: str, rule_id: str) -> None:
    if rule_id.startswith("."):
        raise InvalidRule("Rule IDs that start with a dot are reserved for the server")
    if "/" in rule_id or "\\" in rule_id:
        raise InvalidRule("Rule IDs must not contain slashes or backslashes")
    if not rule_id or not identifiers.has_at_most_255_bytes(rule_id):
        raise InvalidRule("Rule IDs must have 1 to 255 bytes")
    if kind == "room" and not identifiers.is_room_id(rule_id):
        raise InvalidRule("The ID of a room rule must be a room ID")
    if kind == "sender" and not identifiers.is_user_id(rule_id):
        raise InvalidRule("The ID of a sender rule must be a user ID")


def _checked(kind: str, rule: Json) -> Json:
    """Validate a rule from a client and return the properties to store."""
    kept: Json = {"actions": _checked_actions(rule.get("actions"))}
    if kind == "content":
        kept["pattern"] = _checked_pattern(rule.get("pattern"))
    if kind in CONDITIONAL_KINDS:
        conditions = rule.get("conditions", [])
        if not isinstance(conditions, list):
            raise InvalidRule("conditions must be an array")
        if len(conditions) > MAX_CONDITIONS:
            raise InvalidRule(f"A rule may have {MAX_CONDITIONS} conditions")
        for condition in conditions:
            _check_condition(condition)
        kept["conditions"] = conditions
    _check_size(kept)
    return kept


def _checked_actions(actions: object) -> list[Any]:
    if not isinstance(actions, list):
        raise InvalidRule("actions must be an array")
    if not all(map(_is_action, actions)):
        raise InvalidRule('An action must be "notify" or an object with a string set_tweak')
    return actions


def _is_action(action: object) -> bool:
    if isinstance(action, dict):
        return isinstance(action.get("set_tweak"), str)
    return isinstance(action, str) and (action == "notify" or action in HISTORICAL_ACTIONS)


def _checked_pattern(pattern: object) -> str:
    if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN_LENGTH:
        raise InvalidRule(f"pattern must be a string of at most {MAX_PATTERN_LENGTH} characters")
    return pattern


def _check_condition(condition: object) -> None:
    """Raise InvalidRule for a malformed condition. Kinds of later versions of the spec pass."""
    if not isinstance(condition, dict) or not isinstance(condition.get("kind"), str):
        raise InvalidRule("A condition must be an object with a string kind")
    kind = condition["kind"]
    if kind == THREAD_SUBSCRIPTION and not isinstance(condition.get("subscribed"), bool):
        raise InvalidRule(f"{kind} needs a boolean subscribed")
    if kind in _KINDS_WITH_KEY and not isinstance(condition.get("key"), str):
        raise InvalidRule(f"{kind} needs a string key")
    if kind == "event_match":
        _checked_pattern(condition.get("pattern"))
    if kind in _KINDS_WITH_VALUE and not is_exact(condition.get("value", [])):
        raise InvalidRule(f"{kind} needs a value: string, integer, boolean or null")
    if kind == "room_member_count":
        count = condition.get("is")
        if not isinstance(count, str) or MEMBER_COUNT.fullmatch(count) is None:
            raise InvalidRule("room_member_count needs an is such as 2, ==2, <2, >2, <=2 or >=2")


_KINDS_WITH_VALUE: Final = frozenset({"event_property_is", "event_property_contains"})
_KINDS_WITH_KEY: Final = _KINDS_WITH_VALUE | {"event_match", "sender_notification_permission"}


def is_exact(value: object) -> bool:
    """Return whether conditions can be compared with it: "non-compound canonical JSON"."""
    if type(value) is int:
        return -canonical_json.MAX_INTEGER <= value <= canonical_json.MAX_INTEGER
    return value is None or isinstance(value, str | bool)


def _check_size(kept: Json) -> None:
    if _size_bytes(kept) > MAX_RULE_BYTES:
        raise InvalidRule(f"A rule may have {MAX_RULE_BYTES} bytes")


def _quick_size_bytes(changes: Json) -> int:
    try:
        return len(orjson.dumps(changes))
    except TypeError:  # not representable in canonical JSON either
        return _size_bytes(changes)


def _size_bytes(kept: Json) -> int:
    try:
        return len(json.dumps(kept, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    except RecursionError:
        raise InvalidRule("The rule is nested too deeply") from None
