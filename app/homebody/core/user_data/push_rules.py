"""Users' push rules.

Only their changes are stored, as account data m.push_rules, in the form of spec/push_rulesets.py;
account_data.py compiles them.
Spec: client-server-api#push-rules
"""

from __future__ import annotations

from collections.abc import Callable

from homebody import errors
from homebody.core.user_data import account_data
from homebody.spec import push_rulesets
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx


def all_rules(tx: Reader, user_id: str) -> Json:
    """Return `{"global": {kind: [rule, …]}}`, by priority."""
    return push_rulesets.full(user_id, _changes(tx, user_id))


def get(tx: Reader, user_id: str, kind: str, rule_id: str) -> Json:
    """Return one rule. Raises M_NOT_FOUND."""
    changes = _changes(tx, user_id)
    return _call(lambda: push_rulesets.find(user_id, changes, kind, rule_id))


def put(
    tx: Tx,
    user_id: str,
    kind: str,
    rule_id: str,
    rule: Json,
    before: str | None = None,
    after: str | None = None,
) -> None:
    """Add a rule, or change the one with this id. Raises M_INVALID_PARAM.

    `before` and `after` name the user's own rule next to which it is placed.
    """
    changes, place = _changes(tx, user_id), (before, after)
    edited = _call(lambda: push_rulesets.with_rule(changes, kind, rule_id, rule, *place))
    _store(tx, user_id, edited)


def remove(tx: Tx, user_id: str, kind: str, rule_id: str) -> None:
    """Delete a rule of the user's own. Raises M_NOT_FOUND, M_INVALID_PARAM."""
    changes = _changes(tx, user_id)
    _store(tx, user_id, _call(lambda: push_rulesets.without_rule(changes, kind, rule_id)))


def set_enabled(tx: Tx, user_id: str, kind: str, rule_id: str, enabled: object) -> None:
    """Switch a rule on or off. Raises M_NOT_FOUND, M_INVALID_PARAM."""
    changes = _changes(tx, user_id)
    _store(tx, user_id, _call(lambda: push_rulesets.with_enabled(changes, kind, rule_id, enabled)))


def set_actions(tx: Tx, user_id: str, kind: str, rule_id: str, actions: object) -> None:
    """Give a rule other actions. Raises M_NOT_FOUND, M_INVALID_PARAM."""
    changes = _changes(tx, user_id)
    _store(tx, user_id, _call(lambda: push_rulesets.with_actions(changes, kind, rule_id, actions)))


def _changes(tx: Reader, user_id: str) -> Json:
    return account_data.find(tx, user_id, account_data.PUSH_RULES) or {}


def _store(tx: Tx, user_id: str, changes: Json) -> None:
    account_data.store(tx, user_id, account_data.PUSH_RULES, changes, has_quota=True)


def _call(function: Callable[[], Json]) -> Json:
    """Return the result of a function of spec/push_rulesets.py; convert its errors."""
    try:
        return function()
    except push_rulesets.NoSuchRule as problem:
        raise errors.not_found(str(problem)) from None
    except push_rulesets.InvalidRule as problem:
        raise errors.invalid_param(str(problem)) from None
