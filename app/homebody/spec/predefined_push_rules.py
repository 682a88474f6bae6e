"""The table of predefined push rules, in the spec's order.

Spec: client-server-api#predefined-rules
"""

from __future__ import annotations

from typing import Any, Final

from homebody.spec.events import Json

KINDS: Final = ("override", "content", "postcontent", "room", "sender", "underride")
"""In order of evaluation. `postcontent` (MSC4306) has predefined rules only."""

ME: Final[Any] = object()
"""A placeholder for the user's id in the predefined rules, or for its localpart as a `pattern`."""


def _match(key: str, pattern: Any) -> Json:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def _predefined(
    rule_id: str, conditions: list[Json], actions: list[Any], *, enabled: bool = True
) -> Json:
    return {
        "rule_id": rule_id,
        "default": True,
        "enabled": enabled,
        "conditions": conditions,
        "actions": actions,
    }


_SOUND: Final = {"set_tweak": "sound", "value": "default"}
_POLL: Final = "org.matrix.msc3381.poll"
"""The prefix of the types of polls, which have no others yet."""
_RING: Final = {"set_tweak": "sound", "value": "ring"}
_HIGHLIGHT: Final = {"set_tweak": "highlight"}
_TWO_MEMBERS: Final = {"kind": "room_member_count", "is": "2"}
THREAD_SUBSCRIPTION: Final = "io.element.msc4306.thread_subscription"
"""The kind of the condition that the user is subscribed to the event's thread, or is not."""

# Deviates: version 1.17 of the specification removed these rules. Clients without support for
# m.mentions still send messages that depend on them, other clients show the rules in their
# settings, and Synapse serves them.
LEGACY: Final = frozenset(
    {".m.rule.contains_display_name", ".m.rule.contains_user_name", ".m.rule.roomnotif"}
)
"""The rules that look for mentions in the text of events without m.mentions."""
MASTER: Final = _predefined(".m.rule.master", [], [], enabled=False)
"""The only predefined rule with a higher priority than the user's own rules."""
PREDEFINED: Final[dict[str, tuple[Json, ...]]] = {
    "override": (
        _predefined(".m.rule.suppress_notices", [_match("content.msgtype", "m.notice")], []),
        _predefined(
            ".m.rule.invite_for_me",
            [
                _match("type", "m.room.member"),
                _match("content.membership", "invite"),
                _match("state_key", ME),
            ],
            ["notify", _SOUND],
        ),
        _predefined(".m.rule.member_event", [_match("type", "m.room.member")], []),
        _predefined(
            ".m.rule.is_user_mention",
            [
                {
                    "kind": "event_property_contains",
                    "key": r"content.m\.mentions.user_ids",
                    "value": ME,
                }
            ],
            ["notify", _SOUND, _HIGHLIGHT],
        ),
        _predefined(
            ".m.rule.contains_display_name",
            [{"kind": "contains_display_name"}],
            ["notify", _SOUND, _HIGHLIGHT],
        ),
        _predefined(
            ".m.rule.is_room_mention",
            [
                {"kind": "event_property_is", "key": r"content.m\.mentions.room", "value": True},
                {"kind": "sender_notification_permission", "key": "room"},
            ],
            ["notify", _HIGHLIGHT],
        ),
        _predefined(
            ".m.rule.roomnotif",
            [
                _match("content.body", "@room"),
                {"kind": "sender_notification_permission", "key": "room"},
            ],
            ["notify", _HIGHLIGHT],
        ),
        _predefined(
            ".m.rule.tombstone",
            [_match("type", "m.room.tombstone"), _match("state_key", "")],
            ["notify", _HIGHLIGHT],
        ),
        _predefined(".m.rule.reaction", [_match("type", "m.reaction")], []),
        _predefined(
            ".m.rule.room.server_acl",
            [_match("type", "m.room.server_acl"), _match("state_key", "")],
            [],
        ),
        _predefined(  # MSC3930, as below
            ".org.matrix.msc3930.rule.poll_response", [_match("type", f"{_POLL}.response")], []
        ),
        _predefined(
            ".m.rule.suppress_edits",
            [
                {
                    "kind": "event_property_is",
                    "key": r"content.m\.relates_to.rel_type",
                    "value": "m.replace",
                }
            ],
            [],
        ),
    ),
    "content": (
        {
            "rule_id": ".m.rule.contains_user_name",
            "default": True,
            "enabled": True,
            "pattern": ME,
            "actions": ["notify", _SOUND, _HIGHLIGHT],
        },
    ),
    "postcontent": (
        _predefined(
            ".io.element.msc4306.rule.unsubscribed_thread",
            [{"kind": THREAD_SUBSCRIPTION, "subscribed": False}],
            [],
        ),
        _predefined(
            ".io.element.msc4306.rule.subscribed_thread",
            [{"kind": THREAD_SUBSCRIPTION, "subscribed": True}],
            ["notify", _SOUND],
        ),
    ),
    "room": (),
    "sender": (),
    "underride": (
        _predefined(".m.rule.call", [_match("type", "m.call.invite")], ["notify", _RING]),
        _predefined(
            ".m.rule.encrypted_room_one_to_one",
            [_TWO_MEMBERS, _match("type", "m.room.encrypted")],
            ["notify", _SOUND],
        ),
        _predefined(
            ".m.rule.room_one_to_one",
            [_TWO_MEMBERS, _match("type", "m.room.message")],
            ["notify", _SOUND],
        ),
        _predefined(".m.rule.message", [_match("type", "m.room.message")], ["notify"]),
        _predefined(".m.rule.encrypted", [_match("type", "m.room.encrypted")], ["notify"]),
        _predefined(
            ".org.matrix.msc3930.rule.poll_start_one_to_one",
            [_TWO_MEMBERS, _match("type", f"{_POLL}.start")],
            ["notify", _SOUND],
        ),
        _predefined(
            ".org.matrix.msc3930.rule.poll_start", [_match("type", f"{_POLL}.start")], ["notify"]
        ),
        _predefined(
            ".org.matrix.msc3930.rule.poll_end_one_to_one",
            [_TWO_MEMBERS, _match("type", f"{_POLL}.end")],
            ["notify", _SOUND],
        ),
        _predefined(
            ".org.matrix.msc3930.rule.poll_end", [_match("type", f"{_POLL}.end")], ["notify"]
        ),
    ),
}
