from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebody.spec import identifiers
from homebody.spec.room_versions import V2, V3, V4, V12

SERVER_NAMES = [
    "matrix.org",
    "matrix.org:8888",
    "1.2.3.4",
    "1.2.3.4:1234",
    "[1234:5678::abcd]",
    "[1234:5678::abcd]:5678",
    "localhost",
    "xn--bcher-kva.example",
    "MATRIX.org",
]
NO_SERVER_NAMES = [
    "",
    ":8448",
    "matrix.org:",
    "matrix.org:123456",
    "matrix.org:65536",
    "matrix.org:٣",
    "matrix.org:1:2",
    "matrix..org",
    ".matrix.org",
    "matrix.org/path",
    "matrix.org\n",
    "user@matrix.org",
    "bücher.example",
    "a_b.example",
    "1.2.3.256",
    "1.2.3.4.5:x",
    "1234:5678::abcd",
    "[1234:5678::abcd",
    "[::1::2]",
    "[fe80::1%eth0]",
    "[1.2.3.4]",
    "a" * 256,
    None,
    7,
]


@pytest.mark.parametrize("text", SERVER_NAMES)
def test_what_the_grammar_allows_is_a_server_name(text: str) -> None:
    assert identifiers.is_server_name(text)


@pytest.mark.parametrize("text", NO_SERVER_NAMES)
def test_what_the_grammar_does_not_allow_is_no_server_name(text: object) -> None:
    assert not identifiers.is_server_name(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.org", ("example.org", None, False)),
        ("Example.org:8448", ("Example.org", 8448, False)),
        ("localhost:0", ("localhost", 0, False)),
        ("192.0.2.1", ("192.0.2.1", None, True)),
        ("192.0.2.1:00080", ("192.0.2.1", 80, True)),
        ("1.2.3", ("1.2.3", None, False)),
        ("1.2.3.4.5", ("1.2.3.4.5", None, False)),
        ("[2001:db8::1]", ("2001:db8::1", None, True)),
        ("[::ffff:192.0.2.1]:65535", ("::ffff:192.0.2.1", 65535, True)),
    ],
)
def test_a_server_name_is_split(text: str, expected: tuple[str, int | None, bool]) -> None:
    assert identifiers.split_server_name(text) == expected


@pytest.mark.parametrize("text", [text for text in NO_SERVER_NAMES if isinstance(text, str)])
def test_anything_else_is_not_split(text: str) -> None:
    with pytest.raises(ValueError, match="Not a server name"):
        identifiers.split_server_name(text)


@pytest.mark.parametrize("text", SERVER_NAMES)
def test_every_server_name_can_stand_in_a_user_id(text: str) -> None:
    user_id = identifiers.user_id("alice", text)

    assert identifiers.server_name(user_id) == text
    assert identifiers.localpart(user_id) == "alice"


@pytest.mark.parametrize("localpart", ["alice", "a.b_c=d-e/f+0", "="])
def test_a_localpart_of_the_current_grammar_may_be_registered(localpart: str) -> None:
    user_id = f"@{localpart}:example.org"

    assert identifiers.is_valid_localpart_for_registration(localpart)
    assert identifiers.is_user_id(user_id)


@pytest.mark.parametrize(
    "localpart", ["Alice", "a!b", "@", "%41", "", "日本", "a b", "a\tb", "a\nb", "🦊", "\x7f"]
)
def test_a_historical_localpart_is_accepted_but_not_registered(localpart: str) -> None:
    user_id = f"@{localpart}:example.org"

    assert not identifiers.is_valid_localpart_for_registration(localpart)
    assert identifiers.is_user_id(user_id)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "@alice",
        "alice:example.org",
        "#alice:example.org",
        "@alice:",
        "@alice:exa mple.org",
        "@alice:example.org\n",
        "@al\0ice:example.org",
        "@al\ud800ice:example.org",
        "@alice:bob:example.org",
        "@a:b\ud800.org",
        None,
        12,
        ["@alice:example.org"],
    ],
)
def test_what_no_version_of_the_grammar_allows_is_no_user_id(text: object) -> None:
    assert not identifiers.is_user_id(text)


def test_the_limit_of_255_counts_bytes() -> None:
    in_ascii = "@" + "a" * 242 + ":example.org"
    in_utf8 = "@" + "ä" * 121 + ":example.org"

    assert len(in_ascii) == len(in_utf8.encode()) == 255
    assert identifiers.is_user_id(in_ascii)
    assert identifiers.is_user_id(in_utf8)
    assert not identifiers.is_user_id(in_ascii.replace("@", "@a"))
    assert not identifiers.is_user_id(in_utf8.replace("@", "@a"))
    with pytest.raises(ValueError, match="255 bytes"):
        identifiers.user_id("a" * 243, "example.org")


def test_a_room_id_names_a_server_until_version_12() -> None:
    older, newer = "!room:example.org", "!" + "a-_0" * 10 + "abc"

    assert identifiers.is_room_id(older)
    assert identifiers.is_room_id(newer)
    assert identifiers.is_room_id_of(older, names_server=True)
    assert not identifiers.is_room_id_of(older, names_server=False)
    assert identifiers.is_room_id_of(newer, names_server=False)
    assert not identifiers.is_room_id_of(newer, names_server=True)
    assert identifiers.server_name(older) == "example.org"
    with pytest.raises(ValueError, match="names a server"):
        identifiers.server_name(newer)


@pytest.mark.parametrize("text", ["!", "!room", "!:example.org", "!" + "a" * 42, "!" + "+" * 43, 1])
def test_anything_else_is_no_room_id(text: object) -> None:
    assert not identifiers.is_room_id(text)


def test_the_form_of_an_event_id_depends_on_the_room_version() -> None:
    given_by_server = "$abc:example.org"
    standard = "$" + "a+/0" * 10 + "abc"
    url_safe = "$" + "a-_0" * 10 + "abc"

    def fits(event_id: str) -> list[bool]:
        return [identifiers.is_event_id_of(event_id, version) for version in (V2, V3, V4, V12)]

    assert fits(given_by_server) == [True, False, False, False]
    assert fits(standard) == [False, True, False, False]
    assert fits(url_safe) == [False, False, True, True]


@pytest.mark.parametrize("text", ["", "$", "abc", "$a\0", "$\udfff", "$" + "a" * 255, 3, None])
def test_what_cannot_be_an_event_id_in_any_version_is_none(text: object) -> None:
    assert not any(identifiers.is_event_id_of(text, version) for version in (V2, V3, V4))


@pytest.mark.parametrize("text", ["#cats:example.org", "#Katzen & Hünde:example.org:8448", "# :a"])
def test_an_alias_may_have_any_unicode(text: str) -> None:
    assert identifiers.is_room_alias(text)


@pytest.mark.parametrize("text", ["#:example.org", "#cats", "cats:example.org", "#a\0:b", "#a:b c"])
def test_an_alias_needs_localpart_and_server(text: str) -> None:
    assert not identifiers.is_room_alias(text)


PREDICATES: list[Callable[[Any], bool]] = [
    identifiers.is_server_name,
    identifiers.is_user_id,
    identifiers.is_valid_localpart_for_registration,
    identifiers.is_room_alias,
    identifiers.is_room_id,
]


@given(st.text(max_size=300) | st.none() | st.integers() | st.binary() | st.lists(st.text()))
def test_predicates_answer_with_a_bool_whatever_they_are_asked(value: object) -> None:
    assert {type(predicate(value)) for predicate in PREDICATES} == {bool}


@pytest.mark.parametrize(
    "text",
    ["@" * 10**6, "a." * 10**6, "@a:" + "a." * 10**6, "mxc://" + "a" * 10**6, "$" + "ä" * 10**6],
)
def test_a_long_text_is_refused_at_once(text: str) -> None:
    started = time.thread_time()
    found = [predicate(text) for predicate in PREDICATES]

    assert not any(found)
    assert time.thread_time() - started < 1
