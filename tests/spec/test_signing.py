from __future__ import annotations

import copy
import hashlib
import json
import re
from typing import Any

import canonicaljson
import pytest
import signedjson.key
import signedjson.sign
from hypothesis import given
from hypothesis import strategies as st

from homebody.spec import canonical_json, events, room_versions, signing
from homebody.spec.events import Json
from homebody.spec.room_versions import V1, V2, V3, V4, V5, V6, V11, RoomVersion
from tests.spec import pdus, versions

FILE = "cryptographic_test_vectors.md"
PAIRS = [(json.loads(before), json.loads(after)) for before, after in pdus.pairs(FILE)]
TEXT = (pdus.VECTORS / FILE).read_text()
(SEED,) = re.findall(r'^        "(\S+)"$', TEXT, re.MULTILINE)
SPEC_KEY = signing.SigningKey.from_text(f"ed25519 1 {SEED}")
OTHER_KEY = signing.SigningKey.from_seed("other", b"x" * 32)

VERSIONS = [room_versions.VERSIONS[str(number)] for number in range(1, 13)]
every_version = versions.of_each(VERSIONS)


def verify(value: Json, key: signing.SigningKey = pdus.KEY, entity: str = pdus.SERVER) -> None:
    signing.verify_json(value, entity, key.key_id, key.verify_key)


def verify_event(
    pdu: Json, version: RoomVersion, key: signing.SigningKey = pdus.KEY, server: str = pdus.SERVER
) -> None:
    signing.verify_event(pdu, version, server, key.key_id, key.verify_key)


def test_the_specification_has_four_examples() -> None:
    assert len(PAIRS) == 4
    assert 'SERVER_NAME = "domain"' in TEXT
    assert 'KEY_ID = "ed25519:1"' in TEXT
    assert SPEC_KEY.key_id == "ed25519:1"


@pytest.mark.parametrize(("value", "signed"), PAIRS[:2])
def test_json_is_signed_as_in_the_specification(value: Json, signed: Json) -> None:
    assert signing.sign_json(value, "domain", SPEC_KEY) == signed

    verify(signed, SPEC_KEY, "domain")


@pytest.mark.parametrize(
    ("pair", "version"),
    # `origin` is covered until version 10, and the first example has no event_id as 1 and 2 need
    [(PAIRS[2], version) for version in VERSIONS[2:10]]
    + [(PAIRS[3], version) for version in VERSIONS[:10]],
)
def test_events_are_signed_as_in_the_specification(
    pair: tuple[Json, Json], version: RoomVersion
) -> None:
    pdu, signed = pair

    _event_id, ours = signing.add_hashes_and_signatures(pdu, version, "domain", SPEC_KEY)

    assert ours == signed
    verify_event(ours, version, SPEC_KEY, "domain")
    assert signing.has_valid_content_hash(ours, version)


@given(pdus.json_objects())
def test_json_is_signed_as_by_the_reference_library(value: Json) -> None:
    key = signedjson.key.read_signing_keys([pdus.KEY.to_text()])[0]
    expected = signedjson.sign.sign_json(copy.deepcopy(value), pdus.SERVER, key)

    ours = signing.sign_json(value, pdus.SERVER, pdus.KEY)

    assert ours == expected
    signedjson.sign.verify_signed_json(ours, pdus.SERVER, signedjson.key.get_verify_key(key))


@given(pdus.json_objects(), pdus.json_objects())
def test_what_was_signed_verifies_whatever_unsigned_says(value: Json, unsigned: Json) -> None:
    before = copy.deepcopy(value)

    signed = signing.sign_json(value, pdus.SERVER, pdus.KEY)

    verify(signed)
    verify({**signed, "unsigned": unsigned})
    assert value == before


@given(pdus.json_objects(), pdus.keys, pdus.json_values())
def test_signed_json_does_not_verify_after_a_change(value: Json, key: str, new: Any) -> None:
    signed = signing.sign_json(value, pdus.SERVER, pdus.KEY)
    changed = [{**signed, key: [new, "changed"]}]
    changed += [{k: v for k, v in signed.items() if k != gone} for gone in value]

    for other in changed:
        with pytest.raises(signing.SignatureError):
            verify(other)


@given(st.integers(0, 64 * 8 - 1))
def test_a_signature_with_one_wrong_bit_does_not_verify(bit: int) -> None:
    signed = signing.sign_json({"a": 1}, pdus.SERVER, pdus.KEY)
    signature = bytearray(
        canonical_json.decode_base64(signed["signatures"][pdus.SERVER][pdus.KEY.key_id])
    )
    signature[bit // 8] ^= 1 << bit % 8

    wrong = {pdus.SERVER: {pdus.KEY.key_id: canonical_json.encode_base64(bytes(signature))}}

    with pytest.raises(signing.SignatureError, match="does not match"):
        verify({**signed, "signatures": wrong})


def test_a_second_signature_leaves_the_first_one_valid() -> None:
    once = signing.sign_json({"a": 1}, "first.org", pdus.KEY)

    twice = signing.sign_json(once, "second.org", OTHER_KEY)
    thrice = signing.sign_json(twice, "first.org", OTHER_KEY)

    verify(thrice, pdus.KEY, "first.org")
    verify(thrice, OTHER_KEY, "first.org")
    verify(thrice, OTHER_KEY, "second.org")
    assert list(once["signatures"]) == ["first.org"]


@pytest.mark.parametrize("signatures", [None, [], "text", {pdus.SERVER: []}, {pdus.SERVER: None}])
def test_nothing_is_signed_whose_signatures_are_malformed(signatures: Any) -> None:
    with pytest.raises(ValueError, match="Malformed"):
        signing.sign_json({"a": 1, "signatures": signatures}, pdus.SERVER, pdus.KEY)


@pytest.mark.parametrize(
    ("signatures", "problem"),
    [
        (None, "No signature"),
        ([], "No signature"),
        ({}, "No signature"),
        ({"other.org": {pdus.KEY.key_id: "A" * 86}}, "No signature"),
        ({pdus.SERVER: "A" * 86}, "No signature"),
        ({pdus.SERVER: {"ed25519:unknown": "A" * 86}}, "No signature"),
        ({pdus.SERVER: {pdus.KEY.key_id: 7}}, "No signature"),
        ({pdus.SERVER: {pdus.KEY.key_id: "?" * 86}}, "is not base64"),
        ({pdus.SERVER: {pdus.KEY.key_id: "ä"}}, "is not base64"),
        ({pdus.SERVER: {pdus.KEY.key_id: ""}}, "does not match"),
        ({pdus.SERVER: {pdus.KEY.key_id: "A" * 40}}, "does not match"),
        ({pdus.SERVER: {pdus.KEY.key_id: "A" * 86}}, "does not match"),
        ({pdus.SERVER: {pdus.KEY.key_id: "A" * 200}}, "does not match"),
    ],
)
def test_missing_and_malformed_signatures_are_told_apart(signatures: Any, problem: str) -> None:
    with pytest.raises(signing.SignatureError, match=problem):
        verify({"a": 1, "signatures": signatures})


def test_json_that_cannot_be_encoded_has_no_valid_signature() -> None:
    signatures = signing.sign_json({}, pdus.SERVER, pdus.KEY)["signatures"]

    with pytest.raises(signing.SignatureError, match="canonical JSON"):
        verify({"a": "\ud800", "signatures": signatures})


def test_a_key_survives_being_written_and_read() -> None:
    text = pdus.KEY.to_text()

    key = signing.SigningKey.from_text(text + "\n")

    assert text.startswith("ed25519 a_test ")
    assert key.key_id == "ed25519:a_test"
    assert key.verify_key == pdus.KEY.verify_key
    assert key.sign(b"message") == pdus.KEY.sign(b"message")


def test_the_file_of_a_key_is_what_other_servers_write() -> None:
    theirs = signedjson.key.generate_signing_key("a_1234")
    line = f"ed25519 a_1234 {signedjson.key.encode_signing_key_base64(theirs)}"

    ours = signing.SigningKey.from_text(line)

    assert ours.to_text() == line
    assert bytes(ours.verify_key) == bytes(theirs.verify_key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ed25519 a_1",
        f"rsa a_1 {SEED}",
        f"ed25519 a-1 {SEED}",
        f"ed25519 a:1 {SEED}",
        f"ed25519 a_1 {SEED[:-4]}",
        f"ed25519 a_1 {SEED}AAAA",
        f"ed25519 a_1 !{SEED[1:]}",
        f"ed25519 a_1 {SEED} more",
    ],
)
def test_a_bad_key_file_is_refused_without_showing_the_seed(text: str) -> None:
    with pytest.raises(ValueError, match=r"key|seed|base64|characters|Only|data") as refusal:
        signing.SigningKey.from_text(text)

    assert SEED[4:-4] not in str(refusal.value)


def test_a_key_does_not_show_its_seed() -> None:
    assert SEED not in repr(SPEC_KEY)
    assert repr(SPEC_KEY).startswith("SigningKey(key_id='ed25519:1'")


def test_a_public_key_survives_being_published() -> None:
    text = signing.verify_key_to_base64(pdus.KEY.verify_key)

    assert len(text) == 43
    assert signing.verify_key_from_base64(text) == pdus.KEY.verify_key


@pytest.mark.parametrize("text", ["", "AAAA", "A" * 44, "?" * 43])
def test_a_malformed_public_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"32|base64|character|Only|data"):
        signing.verify_key_from_base64(text)


@every_version
def test_a_new_event_has_a_hash_a_signature_and_an_id(version: RoomVersion) -> None:
    pdu = pdus.message(version, unsigned={"age": 1})
    before = copy.deepcopy(pdu)

    event_id, signed = signing.add_hashes_and_signatures(pdu, version, pdus.SERVER, pdus.KEY)

    assert pdu == before
    assert set(signed) == {*pdu, "hashes", "signatures"}
    assert signing.event_id_of(signed, version) == event_id
    assert signing.has_valid_content_hash(signed, version)
    verify_event(signed, version)
    verify_event(events.redact(signed, version), version)


@every_version
def test_hashes_are_those_of_the_specification_step_by_step(version: RoomVersion) -> None:
    signed = pdus.signed(version, unsigned={"age": 1})
    kept = events.redact(signed, version)
    del kept["signatures"]
    covered = {k: v for k, v in signed.items() if k not in {"hashes", "signatures", "unsigned"}}

    reference = hashlib.sha256(canonicaljson.encode_canonical_json(kept)).digest()
    content = hashlib.sha256(canonicaljson.encode_canonical_json(covered)).digest()

    assert signing.reference_hash(signed, version) == reference
    assert signing.content_hash(signed, version) == content
    assert canonical_json.decode_base64(signed["hashes"]["sha256"]) == content


def test_the_id_of_an_event_is_its_reference_hash_in_the_alphabet_of_the_version() -> None:
    # `depth` was chosen so that the hash has characters in which the alphabets differ
    pdu = pdus.signed(V3, depth=16)
    digest = signing.reference_hash(pdu, V3)

    assert signing.event_id_of(pdu, V3) == "$" + canonical_json.encode_base64(digest)
    url_safe = canonical_json.encode_base64(digest, is_url_safe=True)
    assert signing.event_id_of(pdu, V4) == f"${url_safe}"
    assert signing.event_id_of(pdu, V3) != signing.event_id_of(pdu, V4)


@pytest.mark.parametrize("version", [V1, V2])
def test_the_id_of_an_old_event_is_what_its_server_gave_it(version: RoomVersion) -> None:
    pdu = pdus.signed(version)
    digest = canonical_json.encode_base64(signing.reference_hash(pdu, version))

    assert signing.event_id_of(pdu, version) == "$message:example.org"
    assert signing.reference(pdu, version) == ["$message:example.org", {"sha256": digest}]


def test_later_versions_cite_an_event_by_its_id() -> None:
    pdu = pdus.signed(V11)

    assert signing.reference(pdu, V11) == signing.event_id_of(pdu, V11)


@given(pdus.versions, pdus.json_objects(), pdus.json_objects())
def test_an_id_depends_neither_on_unsigned_nor_on_signatures_nor_on_redaction(
    version: RoomVersion, unsigned: Json, content: Json
) -> None:
    pdu = pdus.signed(version, content=content)
    event_id, digest = signing.event_id_of(pdu, version), signing.reference_hash(pdu, version)

    cosigned = signing.sign_event(pdu, version, "second.org", OTHER_KEY)
    others = [
        {**pdu, "unsigned": unsigned},
        {**pdu, "signatures": {}},
        {key: value for key, value in pdu.items() if key != "signatures"},
        cosigned,
        events.redact(pdu, version),
    ]

    assert {signing.event_id_of(other, version) for other in others} == {event_id}
    assert {signing.reference_hash(other, version) for other in others} == {digest}
    verify_event(cosigned, version)
    verify_event(cosigned, version, OTHER_KEY, "second.org")


@given(pdus.versions, st.data())
def test_an_event_does_not_verify_after_a_change_of_what_redaction_keeps(
    version: RoomVersion, data: st.DataObject
) -> None:
    pdu = pdus.signed(version, state_key="")
    kept = sorted(set(events.redact(pdu, version)) - {"content", "signatures", "type"})
    key = data.draw(st.sampled_from(kept))

    changed = {**pdu, key: "changed"}
    removed = {name: value for name, value in pdu.items() if name != key}

    for other in (changed, removed):
        assert signing.reference_hash(other, version) != signing.reference_hash(pdu, version)
        with pytest.raises(signing.SignatureError, match="does not match"):
            verify_event(other, version)


@every_version
def test_a_change_of_content_shows_in_the_content_hash_only(version: RoomVersion) -> None:
    pdu = pdus.signed(version)

    changed = {**pdu, "content": {"msgtype": "m.text", "body": "Forged"}}

    verify_event(changed, version)
    assert not signing.has_valid_content_hash(changed, version)
    assert not signing.has_valid_content_hash({**pdu, "added": 1}, version)
    assert signing.has_valid_content_hash({**pdu, "unsigned": {"age": 1}}, version)


@pytest.mark.parametrize("text", ["", "?", "AAAA"])
def test_a_malformed_content_hash_is_not_valid(text: str) -> None:
    pdu = {**pdus.signed(V11), "hashes": {"sha256": text}}

    assert not signing.has_valid_content_hash(pdu, V11)


def test_who_signs_second_keeps_hashes_of_algorithms_yet_unknown() -> None:
    hashes = {"sha256": "A" * 43, "sha512": "B" * 86}
    first = signing.sign_event(pdus.message(V11, hashes=hashes), V11, pdus.SERVER, pdus.KEY)

    second = signing.sign_event(first, V11, "second.org", OTHER_KEY)

    assert second["hashes"] == hashes
    verify_event(second, V11)
    verify_event(second, V11, OTHER_KEY, "second.org")


@pytest.mark.parametrize("version", [V1, V2, V3, V4, V5])
def test_numbers_of_old_rooms_are_hashed_as_other_servers_do(version: RoomVersion) -> None:
    content = {"small": 1e-05, "large": 1e22, "half": 0.5, "integer": 2**63}
    pdu = pdus.message(version, content=content)

    digest = signing.content_hash(pdu, version)

    assert digest == hashlib.sha256(canonicaljson.encode_canonical_json(pdu)).digest()
    assert digest != signing.content_hash(pdu, V6)
