"""Users' push rules: their changes, and the compiled form that push/counts.py evaluates.

Only the changes are stored, as account data m.push_rules, in the form of spec/push_rulesets.py.
Compiled rules are cached together with ignored users; users without changes share one object.
Spec: client-server-api#push-rules, client-server-api#ignoring-users
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

import orjson

from homebody import errors
from homebody.core.user_data import account_data
from homebody.core.user_data.account_data import PushSettings
from homebody.spec import push_rules, push_rulesets
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

DEFAULT_SETTINGS: Final = PushSettings(push_rules.DEFAULTS, frozenset(), 0, has_name_rule=False)
"""Settings of users who have changed nothing."""
_READ_AT_ONCE: Final = 500


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


def settings_of(tx: Reader, user_ids: Collection[str]) -> dict[str, PushSettings]:
    """Return {user_id: settings} of all these users, with a query for those not cached."""
    found, missing = tx.cached_many(account_data.COMPILED, user_ids)
    for at in range(0, len(missing), _READ_AT_ONCE):
        some = missing[at : at + _READ_AT_ONCE]
        stored = account_data.push_settings(tx, some)
        for user_id in some:
            settings = _compiled(stored[user_id]) if user_id in stored else DEFAULT_SETTINGS
            found[user_id] = settings
            tx.fill(account_data.COMPILED, user_id, settings)
    return found


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


def _compiled(stored: dict[str, str]) -> PushSettings:
    changes = orjson.loads(stored.get(account_data.PUSH_RULES, "{}"))
    ignored = _ignored(orjson.loads(stored.get(account_data.IGNORED_USERS, "{}")))
    return PushSettings(
        push_rules.compiled(changes),
        ignored,
        2 * sum(map(len, stored.values())),
        has_name_rule=_has_name_rule(changes),
    )


def _ignored(content: Json) -> frozenset[str]:
    users = content.get("ignored_users")
    return frozenset(users) if isinstance(users, dict) else frozenset()


def _has_name_rule(changes: Json) -> bool:
    rules: list[Any] = [rule for kind in changes.get("rules", {}).values() for rule in kind]
    return any(
        condition["kind"] == "contains_display_name"
        for rule in rules
        for condition in rule.get("conditions", ())
    )
