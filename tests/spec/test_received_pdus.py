"""PDUs from other servers: format, content hash, and the signatures that they need."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebody.spec import canonical_json, events, received_pdus, room_versions, signing
from homebody.spec.events import Json
from homebody.spec.room_versions import V1, V2, V3, V5, V6, V7, V8, V10, V11, V12, RoomVersion
from homebody.spec.signing import SignatureError
from tests.spec import pdus, versions

VERSIONS = [room_versions.VERSIONS[str(number)] for number in range(1, 13)]
every_version = versions.of_each(VERSIONS)
INVITE = {"membership": "invite", "third_party_invite": {"display_name": "b", "signed": {}}}


def member(version: RoomVersion, content: Json, **changes: Any) -> Json:
    return pdus.signed(
        version, type="m.room.member", state_key="@bob:example.net", content=content, **changes
    )


def signers(pdu: Json, version: RoomVersion) -> set[str]:
    return received_pdus.required_signers(received_pdus.receive(pdu, version))


@every_version
def test_a_signed_pdu_is_received_with_its_id(version: RoomVersion) -> None:
    pdu = pdus.signed(version)

    event = received_pdus.receive(pdu, version)

    assert event.event_id == signing.event_id_of(pdu, version)
    assert event.pdu == pdu
    assert event.content == {"msgtype": "m.text", "body": "Hello"}


@every_version
@pytest.mark.parametrize("unsigned", [{"age": 1}, {"a": 0.5, "b": 2**60}, None, [], "text"])
def test_unsigned_is_removed_whatever_it_is(version: RoomVersion, unsigned: Any) -> None:
    pdu = {**pdus.signed(version), "unsigned": unsigned}
    before = copy.deepcopy(pdu)

    event = received_pdus.receive(pdu, version)

    assert event.pdu == {key: value for key, value in before.items() if key != "unsigned"}
    assert pdu == before


def test_unsigned_does_not_count_for_the_size() -> None:
    pdu = {**pdus.signed(V12), "unsigned": {"prev_content": {"body": "a" * 66_000}}}

    assert "unsigned" not in received_pdus.receive(pdu, V12).pdu


@every_version
def test_a_pdu_whose_content_was_changed_is_redacted(version: RoomVersion) -> None:
    pdu = pdus.signed(version, state_key="")
    forged = {**pdu, "content": {"body": "Forged"}, "added": 1}

    event = received_pdus.receive(forged, version)

    assert event.content == {}
    assert event.pdu == events.redact(pdu, version)
    assert event.event_id == signing.event_id_of(pdu, version)


@every_version
def test_a_pdu_that_was_redacted_on_its_way_is_received(version: RoomVersion) -> None:
    pdu = member(version, {"membership": "join", "displayname": "Bob"})
    redacted = events.redact(pdu, version)

    event = received_pdus.receive(redacted, version)

    assert event.pdu == redacted
    assert event.content == {"membership": "join"}
    assert event.event_id == signing.event_id_of(pdu, version)


@every_version
@pytest.mark.parametrize(
    "changes",
    [
        {"content": {"a": float("1e300")}, "depth": 0.5},
        {"depth": -1},
        {"depth": 2**63},
        {"depth": "12"},
        {"origin_server_ts": 1.5},
        {"origin_server_ts": True},
        {"sender": "@alice"},
        {"sender": "@" + "a" * 243 + ":example.org"},
        {"room_id": "#room:example.org"},
        {"room_id": None},
        {"type": "a" * 256},
        {"state_key": "ä" * 256},
        {"content": {"body": "a" * 65_536}},
        {"content": []},
        {"hashes": {"sha512": ""}},
        {"signatures": {"example.org": []}},
        {"prev_events": None},
        {"prev_events": [1]},
        {"auth_events": ["$a b"]},
        {"redacts": ["$a"]},
    ],
)
def test_a_malformed_pdu_is_refused(version: RoomVersion, changes: Json) -> None:
    pdu = {**pdus.signed(version), **changes}

    with pytest.raises(ValueError, match=r"Event|integer|beyond"):
        received_pdus.receive(pdu, version)


@pytest.mark.parametrize("pdu", [None, [], "text", 1, {}, {"unsigned": {}}])
def test_other_json_is_refused(pdu: Any) -> None:
    with pytest.raises(ValueError, match=r"An event|^Event"):
        received_pdus.receive(pdu, V12)


@every_version
def test_references_are_limited_in_number(version: RoomVersion) -> None:
    for key, limit in (("prev_events", 20), ("auth_events", 10)):
        most = pdus.citations(version, *map(str, range(limit)))
        too_many = pdus.citations(version, *map(str, range(limit + 1)))

        received_pdus.receive(pdus.signed(version, **{key: most}), version)
        with pytest.raises(ValueError, match=f"more than {limit} {key}"):
            received_pdus.receive(pdus.signed(version, **{key: too_many}), version)


@pytest.mark.parametrize(("version", "limit"), [(V5, 2**63 - 1), (V6, 2**53 - 1)])
def test_the_limit_of_depth_depends_on_the_version(version: RoomVersion, limit: int) -> None:
    deepest = pdus.signed(version, depth=limit)

    assert received_pdus.receive(deepest, version).depth == limit
    with pytest.raises(ValueError, match="depth"):
        received_pdus.receive({**deepest, "depth": limit + 1}, version)


@pytest.mark.parametrize("number", [0.5, 1e-5, 1e20, 2**53, -(2**60)])
def test_numbers_beyond_canonical_json_are_valid_up_to_version_5(number: float) -> None:
    content = {"numbers": [{"number": number}]}
    old = pdus.signed(V5, content=content)

    assert received_pdus.receive(old, V5).content == content
    with pytest.raises(ValueError, match=r"content\.numbers\.0\.number"):
        received_pdus.receive({**pdus.signed(V6), "content": content}, V6)


def test_the_create_event_of_version_12_gives_the_room_its_id() -> None:
    changes: Json = {
        "type": "m.room.create",
        "state_key": "",
        "content": {"room_version": "12"},
        "auth_events": [],
        "prev_events": [],
    }
    pdu = {key: value for key, value in pdus.message(V12, **changes).items() if key != "room_id"}
    _, create = signing.add_hashes_and_signatures(pdu, V12, pdus.SERVER, pdus.KEY)

    event = received_pdus.receive(create, V12)

    assert event.room_id == "!" + event.event_id[1:]
    with pytest.raises(ValueError, match="room_id"):
        received_pdus.receive({**create, "room_id": event.room_id}, V12)


@given(pdus.versions, st.dictionaries(st.sampled_from(sorted(pdus.signed(V1))), pdus.json_values()))
def test_any_json_in_place_of_any_key_is_received_or_refused(
    version: RoomVersion, changes: Json
) -> None:
    pdu = canonical_json.decode(canonical_json.encode({**pdus.signed(version), **changes}))

    try:
        event = received_pdus.receive(pdu, version)
    except ValueError:
        return

    received_pdus.required_signers(event)
    events.check_format(event.pdu, version)


@pytest.mark.parametrize("version", [V3, V6, V12])
def test_a_message_needs_the_signature_of_its_sender(version: RoomVersion) -> None:
    assert signers(pdus.signed(version), version) == {"example.org"}
    assert signers(pdus.signed(version, sender="@a:b.org:8448"), version) == {"b.org:8448"}


@pytest.mark.parametrize("version", [V1, V2])
def test_an_old_event_also_needs_that_of_the_server_in_its_id(version: RoomVersion) -> None:
    same = pdus.signed(version)
    other = pdus.signed(version, event_id="$abc:example.com")

    assert signers(same, version) == {"example.org"}
    assert signers(other, version) == {"example.org", "example.com"}


@every_version
def test_a_restricted_join_needs_that_of_the_authoriser(version: RoomVersion) -> None:
    content = {"membership": "join", "join_authorised_via_users_server": "@carol:example.com"}
    join = member(version, content, event_id=pdus.message(version).get("event_id"))
    leave = member(version, {**content, "membership": "leave"})

    expected = {"example.com"} if version.may_restrict_joins else set()

    assert signers(join, version) == {"example.org"} | expected
    assert signers(leave, version) == {"example.org"}


@pytest.mark.parametrize("authoriser", [None, 1, ["@carol:example.com"], {}])
def test_a_malformed_authoriser_is_left_to_the_rules(authoriser: Any) -> None:
    content = {"membership": "join", "join_authorised_via_users_server": authoriser}

    assert signers(member(V8, content), V8) == {"example.org"}


def test_a_redacted_restricted_join_needs_it_since_version_9() -> None:
    content = {"membership": "join", "join_authorised_via_users_server": "@carol:example.com"}
    found = {
        version.name: signers(events.redact(member(version, content), version), version)
        for version in (V7, V8, V10)
    }

    assert found == {
        "7": {"example.org"},
        "8": {"example.org"},
        "10": {"example.org", "example.com"},
    }


@every_version
def test_a_third_party_invite_may_come_from_another_server(version: RoomVersion) -> None:
    found = signers(member(version, INVITE), version)

    assert found == ({"example.org"} if version.event_ids == "given" else set())


def test_only_invites_are_third_party_invites() -> None:
    join = member(V12, {**INVITE, "membership": "join"})
    message = pdus.signed(V12, content=INVITE)

    assert signers(join, V12) == {"example.org"}
    assert signers(message, V12) == {"example.org"}


@every_version
def test_an_invite_is_not_made_a_third_party_invite_afterwards(version: RoomVersion) -> None:
    forged = {**member(version, {"membership": "invite"}), "content": INVITE}
    keeps_it = version is V11 or version is V12

    event = received_pdus.receive(forged, version)

    # Since version 11 the id covers it, so this is another event, which the rules verify
    assert ("third_party_invite" in event.content) is keeps_it
    if not keeps_it:
        assert "example.org" in received_pdus.required_signers(event)


OTHER_KEY = signing.SigningKey.from_seed("other", b"x" * 32)
KEYS = {
    ("example.org", pdus.KEY.key_id): pdus.KEY.verify_key,
    ("example.com", OTHER_KEY.key_id): OTHER_KEY.verify_key,
}


def verify(pdu: Json, version: RoomVersion, keys: Mapping[Any, Any] = KEYS) -> list[int]:
    """Verify a PDU, and return the times for which keys were requested."""
    times = []

    def find_key(server_name: str, key_id: str, at_ts: int) -> signing.VerifyKey | None:
        times.append(at_ts)
        return keys.get((server_name, key_id))

    received_pdus.verify(received_pdus.receive(pdu, version), find_key)
    return times


def with_signatures(pdu: Json, **by_key: str) -> Json:
    """Return the PDU with further signatures of its sender's server."""
    own = {f"ed25519:{name}": text for name, text in by_key.items()}
    return {**pdu, "signatures": {"example.org": {**pdu["signatures"]["example.org"], **own}}}


@every_version
def test_the_signature_of_the_sender_verifies(version: RoomVersion) -> None:
    pdu = pdus.signed(version)
    at_ts = 0 if version.name in {"1", "2", "3", "4"} else 1_700_000_000_000

    event = received_pdus.receive(pdu, version)

    assert received_pdus.wanted_keys(event) == {("example.org", pdus.KEY.key_id): at_ts}
    assert verify(pdu, version) == [at_ts]
    assert verify(events.redact(pdu, version), version) == [at_ts]
    assert verify({**pdu, "content": {"body": "Forged"}}, version) == [at_ts]


@every_version
def test_an_event_without_a_valid_signature_is_refused(version: RoomVersion) -> None:
    pdu = pdus.signed(version)
    other = signing.sign_event({**pdu, "signatures": {}}, version, "example.org", OTHER_KEY)

    for wrong in ({**pdu, "depth": 13}, {**pdu, "sender": "@bob:example.org"}):
        with pytest.raises(SignatureError, match="does not match"):
            verify(wrong, version)
    for unsigned in ({**pdu, "signatures": {}}, other):
        with pytest.raises(SignatureError, match=r"^No signature of example\.org"):
            verify(unsigned, version)
    with pytest.raises(SignatureError, match=r"^No signature of example\.org"):
        verify(pdu, version, {})


def test_signatures_by_unknown_keys_are_skipped_and_those_by_known_keys_are_not() -> None:
    pdu = pdus.signed(V12)
    known = KEYS | {("example.org", "ed25519:b"): OTHER_KEY.verify_key}
    more = {f"k{number}": "A" * 86 for number in range(30)}

    assert verify(with_signatures(pdu, b="A" * 86), V12)
    assert len(verify(with_signatures(pdu, **more), V12)) == 10
    with pytest.raises(SignatureError, match="does not match"):
        verify(with_signatures(pdu, b="A" * 86), V12, known)


def test_signatures_by_other_algorithms_are_skipped() -> None:
    pdu = pdus.signed(V12)
    own = pdu["signatures"]["example.org"]
    both = {**pdu, "signatures": {"example.org": {"mldsa:1": "A", **own}}}

    assert signing.key_ids(both, "example.org") == [pdus.KEY.key_id]
    assert signing.key_ids(both, "example.com") == []
    assert signing.key_ids({"signatures": []}, "example.com") == []
    assert verify(both, V12)


def test_a_restricted_join_verifies_with_both_signatures() -> None:
    content = {"membership": "join", "join_authorised_via_users_server": "@carol:example.com"}
    once = member(V10, content)
    twice = signing.sign_event(once, V10, "example.com", OTHER_KEY)

    assert len(verify(twice, V10)) == 2
    with pytest.raises(SignatureError, match=r"^No signature of example\.com"):
        verify(once, V10)


def test_a_third_party_invite_verifies_without_a_signature_of_the_sender() -> None:
    pdu = {**member(V12, INVITE), "signatures": {}}

    assert verify(pdu, V12) == []
    with pytest.raises(SignatureError):
        verify({**member(V12, {"membership": "invite"}), "signatures": {}}, V12)


@every_version
def test_numbers_of_cited_events_are_limited_except_in_history(version: RoomVersion) -> None:
    one = pdus.signed(version)["prev_events"]
    pdu = pdus.signed(version, prev_events=one * 21, auth_events=one * 11)

    with pytest.raises(ValueError, match="more than 20 prev_events"):
        received_pdus.receive(pdu, version)

    event = received_pdus.receive(pdu, version, is_limited=False)
    assert len(event.prev_event_ids) == 21
    assert len(event.auth_event_ids) == 11
