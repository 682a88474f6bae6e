"""PDUs for tests of the spec, and hypothesis strategies for JSON."""

from __future__ import annotations

import pathlib
import re
from typing import Any

from hypothesis import strategies as st

from homebody.spec import events, room_versions, signing
from homebody.spec.events import Json
from homebody.spec.room_versions import RoomVersion

VECTORS = pathlib.Path(__file__).parent.parent / "vectors"
KEY = signing.SigningKey.from_seed("a_test", b"0123456789abcdef" * 2)
SERVER = "example.org"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
integers = st.integers(-(2**53) + 1, 2**53 - 1)
numbers_of_old_rooms = integers | st.floats(allow_nan=False, allow_infinity=False)


def json_values(numbers: st.SearchStrategy[Any] = integers) -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | texts | numbers
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=15,
    )


keys = texts.filter(lambda key: key not in {"signatures", "unsigned"})  # what signing covers


def json_objects() -> st.SearchStrategy[Json]:
    return st.dictionaries(keys, json_values(), max_size=5)


versions = st.sampled_from([room_versions.VERSIONS[str(number)] for number in range(1, 13)])


def citations(version: RoomVersion, *names: str) -> list[Any]:
    """Return made-up `prev_events` or `auth_events` in the form of the version."""
    if version.event_ids == "given":
        return [[f"${name}:{SERVER}", {"sha256": name.ljust(43, "A")}] for name in names]
    return ["$" + name.ljust(43, "A") for name in names]


def room_id(version: RoomVersion) -> str:
    return "!" + "R" * 43 if version.has_privileged_creators else "!room:example.org"


def message(version: RoomVersion, **changes: Any) -> Json:
    """Return a message that is ready to be signed. A change to None removes the key."""
    pdu = events.build(
        version,
        room_id=room_id(version),
        sender="@alice:example.org",
        event_type="m.room.message",
        content={"msgtype": "m.text", "body": "Hello"},
        auth_events=citations(version, "create", "member", "levels"),
        prev_events=citations(version, "before"),
        depth=12,
        origin_server_ts=1_700_000_000_000,
        event_id="$message:example.org" if version.event_ids == "given" else None,
    )
    return {key: value for key, value in {**pdu, **changes}.items() if value is not None}


def signed(version: RoomVersion, **changes: Any) -> Json:
    """Return the message of `message` with hash and signature."""
    _event_id, pdu = signing.add_hashes_and_signatures(
        message(version, **changes), version, SERVER, KEY
    )
    return pdu


def examples(file_name: str) -> list[str]:
    """Return the JSON texts in an excerpt of the specification, in order."""
    text = (VECTORS / file_name).read_text()
    return re.findall(r"```json\n(.*?)\n```", text, re.DOTALL)


def pairs(file_name: str) -> list[tuple[str, str]]:
    """Return (given, expected) pairs of an excerpt whose examples come in pairs."""
    texts = examples(file_name)
    return list(zip(texts[::2], texts[1::2], strict=True))
