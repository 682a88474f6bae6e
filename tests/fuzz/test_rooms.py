"""PDUs of any shape, their redaction, and rooms with conflicting events."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from homebody.spec import canonical_json, event_auth, events, signing
from homebody.spec.event_auth import AuthError
from homebody.spec.events import Event, Json, StateKey
from homebody.spec.room_versions import V1, V2, V11, V12, RoomVersion
from homebody.spec.signing import SignatureError
from tests.fuzz import examples
from tests.fuzz.test_canonical_json import decoded_values, edges
from tests.fuzz.test_event_auth import MEMBERSHIPS, PEOPLE, TYPES, contents
from tests.spec import dag, full_state_resolution, pdus, resolution
from tests.spec.pdus import KEY, SERVER, versions

CONTENT_KEYS = [
    *("membership", "creator", "join_rule", "allow", "users", "ban", "invite", "events", "aliases"),
    *("history_visibility", "redacts", "third_party_invite", "body", "notifications"),
    "join_authorised_via_users_server",
]
json_contents = st.dictionaries(
    st.sampled_from(CONTENT_KEYS),
    pdus.json_values() | st.just({"signed": {"token": "a"}, "display_name": "b"}),
    max_size=6,
)
odd = decoded_values | st.sampled_from(
    [
        2**63,
        -1,
        "\ud800",
        "a" * 256,
        "ä" * 128,
        ["$x"],
        [[]],
        [["$x:y", {}]],
        {"sha256": 1},
        {"": {}},
    ]
)
KEYS = [
    *("type", "sender", "content", "depth", "origin_server_ts", "hashes", "signatures", "room_id"),
    *("prev_events", "auth_events", "state_key", "event_id", "redacts", "unsigned", "origin", ""),
]


@examples(120)
@given(versions, st.dictionaries(st.sampled_from(KEYS), odd, max_size=2), st.sampled_from(TYPES))
@example(V1, {"signatures": {"example.org": []}}, "m.room.message")
@example(V11, {"hashes": {"sha256": "\u0663"}}, "m.room.message")
@example(V2, {"prev_events": [["$a:b"]]}, "m.room.message")
@example(V12, {"room_id": "!a:b"}, "m.room.create")
def test_what_passes_for_a_pdu_can_be_hashed_redacted_and_judged(
    version: RoomVersion, changes: Json, event_type: str
) -> None:
    pdu = pdus.signed(version, type=event_type) | changes
    try:
        events.check_format(pdu, version)
    except ValueError:
        return

    event_id = signing.event_id_of(pdu, version)
    signing.has_valid_content_hash(pdu, version)
    try:
        signing.verify_event(pdu, version, SERVER, KEY.key_id, KEY.verify_key)
    except SignatureError:
        assert changes
    event = Event(event_id, pdu, version)
    assert event.redacts is None or isinstance(event.redacts, str)
    try:
        dag_check(event)
    except AuthError:
        return


def dag_check(event: Event) -> None:
    """Check an event in a room that all users have joined."""
    state = dag.room(event.version, dict.fromkeys(PEOPLE, "join"))
    event_auth.check(event, state)


@examples(150)
@given(
    versions, st.sampled_from(TYPES), json_contents, st.dictionaries(pdus.keys, pdus.json_values())
)
@example(V11, "m.room.member", {"third_party_invite": {}}, {})
@example(V11, "m.room.member", {"third_party_invite": []}, {})
@example(V1, "m.room.aliases", {"aliases": {}}, {"prev_state": [], "membership": 1})
def test_redaction_is_done_once_and_leaves_id_and_signature_as_they_were(
    version: RoomVersion, event_type: str, content: Json, others: Json
) -> None:
    for key in ("hashes", "event_id", *pdus.message(version)):
        others.pop(key, None)
    pdu = pdus.signed(version, type=event_type, content=content, **others)
    before = copy.deepcopy(pdu)

    once = events.redact(pdu, version)

    assert pdu == before
    assert events.redact(once, version) == once
    assert signing.event_id_of(once, version) == signing.event_id_of(pdu, version)
    assert signing.reference_hash(once, version) == signing.reference_hash(pdu, version)
    signing.verify_event(once, version, SERVER, KEY.key_id, KEY.verify_key)
    assert once.keys() <= pdu.keys()
    assert "unsigned" not in once
    assert once["content"].keys() <= pdu["content"].keys()
    lost = {key: value for key, value in content.items() if key not in once["content"]}
    if lost:  # the content hash shows that something is missing
        assert not signing.has_valid_content_hash(once, version)


@examples(60)
@given(versions, st.sampled_from([2**53 - 1, 2**53, -(2**53)]) | edges)
def test_only_versions_that_allow_it_have_numbers_beyond_a_double(
    version: RoomVersion, number: int
) -> None:
    pdu = pdus.message(version, content={"n": number}, hashes={"sha256": ""}, signatures={})

    limit = 2**53 if version.is_canonical_json_strict else 2**63
    try:
        events.check_format(pdu, version)
    except ValueError:
        assert abs(number) >= limit
    else:
        assert abs(number) < limit
        assert canonical_json.decode(canonical_json.encode(pdu)) == pdu


@st.composite
def forks(draw: st.DrawFn) -> tuple[RoomVersion, dict[str, Event], list[dict[StateKey, str]]]:
    """Draw events that reference each other in any way, and some states with them.

    In versions 1 and 2, whose events have explicit ids, references may be cyclic.
    """
    version = draw(versions)
    pool = {"$create": dag.create(version)}
    number_of_events = draw(st.integers(2, 9))
    ids = [f"${number}" for number in range(number_of_events)]
    for number, event_id in enumerate(ids):
        citable = ids if version.event_ids == "given" else ids[:number]
        event_type = draw(st.sampled_from([it for it in TYPES if it != "m.room.create"]))
        sender = draw(st.sampled_from(PEOPLE[:4]))
        content = draw(contents)
        state_key = draw(st.sampled_from(["", *PEOPLE[:4]]))
        if event_type == "m.room.member":  # the rules let no other into a state
            content = {**content, "membership": draw(st.sampled_from(MEMBERSHIPS))}
        pool[event_id] = dag.event(
            version,
            event_type,
            sender,
            content,
            state_key,
            event_id=event_id,
            auth=draw(st.lists(st.sampled_from(["$create", *citable]), max_size=4, unique=True)),
            depth=draw(st.integers(0, 3)),
            ts=draw(st.integers(0, 3)),
        )
    states = []
    for _ in range(draw(st.integers(1, 3))):
        chosen = draw(st.lists(st.sampled_from(ids), unique=True))
        state = {(pool[id_].type, pool[id_].state_key or ""): id_ for id_ in chosen}
        has_create = draw(st.integers(0, 9)) > 0
        states.append(state | ({("m.room.create", ""): "$create"} if has_create else {}))
    return version, pool, states


@examples(200)
@given(forks(), st.sets(st.integers(0, 8), max_size=2))
def test_any_states_make_one_and_always_the_same(
    fork: tuple[RoomVersion, dict[str, Event], list[dict[StateKey, str]]], rejected: set[int]
) -> None:
    version, pool, states = fork
    refused = {f"${number}" for number in rejected}

    def load(event_ids: Collection[str]) -> dict[str, Event]:
        return {id_: pool[id_] for id_ in event_ids}

    def load_more(event_ids: Collection[str]) -> dict[str, Event]:
        return dict(reversed(pool.items())) if event_ids else {}

    resolved = resolution.resolve(version, states, pool, refused, load=load)

    again = resolution.resolve(version, states[::-1], pool, refused, load=load_more)
    assert again == resolved
    if version.event_ids != "given":
        assert full_state_resolution.resolve(version, states, load, refused) == resolved
    assert set(resolved.values()) <= pool.keys()
    for key, event_id in resolved.items():
        assert key == (pool[event_id].type, pool[event_id].state_key)
    shared: set[Any] = set.intersection(*(set(state.items()) for state in states))
    assert shared <= resolved.items()
