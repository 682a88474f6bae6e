"""Redaction: the keys of an event that remain.

Redaction is more than moderation: event ids and signatures cover the redacted form only, so that
they remain valid when the content is removed. A key too many or too few here gives every event of
that type a wrong id. The rules are derived from the room version's fields, once for each version.

Spec: client-server-api#redactions, and "Redactions" in each room version
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from homebody.spec import room_versions
from homebody.spec.events import Json
from homebody.spec.room_versions import RoomVersion


@dataclass(frozen=True, slots=True)
class _Rules:
    top_level: frozenset[str]
    content: dict[str, frozenset[str]]
    """{event type: keys of its content that are kept}. Other types keep none."""
    keeps_all_of_create: bool
    keeps_signed_of_third_party_invite: bool


def redact(pdu: Json, version: RoomVersion) -> Json:
    """Return a redacted copy of an event that passed `events.check_format`.

    The copy is shallow. `unsigned` is removed; `redacted_because` is added when a redacted event is
    sent to clients.
    """
    rules = _RULES[version.name]
    redacted = {key: value for key, value in pdu.items() if key in rules.top_level}
    redacted["content"] = _content(pdu["type"], pdu["content"], rules)
    return redacted


def _content(event_type: str, content: Json, rules: _Rules) -> Json:
    if event_type == "m.room.create" and rules.keeps_all_of_create:
        return content
    keys = rules.content.get(event_type)
    if keys is None:
        return {}
    kept = {key: value for key, value in content.items() if key in keys}
    if event_type == "m.room.member" and rules.keeps_signed_of_third_party_invite:
        kept |= _third_party_invite(content)
    return kept


def _third_party_invite(content: Json) -> Json:
    """Return `third_party_invite` with only its key `signed`; {} if it is not an object.

    The spec does not define this for an invite without `signed`. Most servers keep an empty object,
    and as event ids depend on it, so must we.
    """
    invite = content.get("third_party_invite")
    if not isinstance(invite, dict):
        return {}
    signed: dict[str, Any] = {key: value for key, value in invite.items() if key == "signed"}
    return {"third_party_invite": signed}


def _rules_of(version: RoomVersion) -> _Rules:
    top_level = {
        "event_id",
        "type",
        "room_id",
        "sender",
        "state_key",
        "content",
        "hashes",
        "signatures",
        "depth",
        "prev_events",
        "auth_events",
        "origin_server_ts",
    }
    if not version.has_new_redaction_rules:
        top_level |= {"prev_state", "origin", "membership"}
    return _Rules(
        top_level=frozenset(top_level),
        content={kind: frozenset(keys) for kind, keys in _content_keys(version).items()},
        keeps_all_of_create=version.has_new_redaction_rules,
        keeps_signed_of_third_party_invite=version.has_new_redaction_rules,
    )


def _content_keys(version: RoomVersion) -> dict[str, set[str]]:
    keys = {
        "m.room.member": {"membership"},
        "m.room.create": {"creator"},  # since version 11 all keys are kept
        "m.room.join_rules": {"join_rule"},
        "m.room.power_levels": {
            "ban",
            "events",
            "events_default",
            "kick",
            "redact",
            "state_default",
            "users",
            "users_default",
        },
        "m.room.history_visibility": {"history_visibility"},
    }
    if version.has_alias_events_rule:
        keys["m.room.aliases"] = {"aliases"}
    if version.may_restrict_joins:
        keys["m.room.join_rules"].add("allow")
    if version.redaction_keeps_join_authorised:
        keys["m.room.member"].add("join_authorised_via_users_server")
    if version.has_new_redaction_rules:
        keys["m.room.power_levels"].add("invite")
    if version.has_redacts_in_content:
        keys["m.room.redaction"] = {"redacts"}
    return keys


_RULES: Final = {name: _rules_of(version) for name, version in room_versions.VERSIONS.items()}
