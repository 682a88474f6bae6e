"""Push rules as the specification words them, to compare the server's quicker way with."""

from __future__ import annotations

from homebody.spec.push_conditions import EventView, Recipient
from homebody.spec.push_rules import Outcome, Ruleset

NOTHING = Outcome(notify=False, highlight=False, sound=None, actions=[])


def evaluate_one(view: EventView, member: Recipient, ruleset: Ruleset) -> Outcome:
    """Return the outcome for one member: that of the first rule whose conditions all match."""
    if member.user_id == view.sender:
        return NOTHING  # "MUST NOT notify ... for events that the user has sent themselves"
    for rule in ruleset.in_order(view):
        if all(map(view.holds, rule.of_event)) and all(it(view, member) for it in rule.of_member):
            return rule.outcome
    return NOTHING
