"""Identifiers against a second reading of their grammar, character by character."""

from __future__ import annotations

import socket
import string
from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st

from homebody.spec import identifiers
from homebody.spec.room_versions import V1, V3, V4, V12
from tests.fuzz import examples

pieces = st.sampled_from(
    [
        *(
            *"@!#$:.-[]_=/+%* \n\0",
            "alice",
            "A",
            "7",
            "example.org",
            "localhost",
            "1.2.3.4",
            "256.1.1.1",
        ),
        *(
            ":8448",
            ":65536",
            ":123456",
            "[::1]",
            "[1:2::3]",
            "::",
            "[::ffff:1.2.3.4]",
            "ä",
            "\ud800",
        ),
        *(
            "\U0001f98a",
            "٣",
            "a" * 120,
            "ä" * 60,
            "x" * 255,
            "R" * 43,
            "R" * 42,
            "mxc://",
            "01.2.3.4",
        ),
    ]
)
texts = st.lists(pieces, max_size=7).map("".join) | st.text(max_size=10)
identifier_texts = texts | st.builds(
    lambda sigil, local, server: f"{sigil}{local}:{server}",
    st.sampled_from("@!#$"),
    texts,
    st.sampled_from(["example.org", "[::1]:1", "1.2.3.4", "a..b", "-", "a_b", "a:1:2"]) | texts,
)

LETTERS_AND_DIGITS = set(string.ascii_letters + string.digits)


def is_server_name(text: str) -> bool:
    """The grammar of the appendices, read from left to right.

    Stricter than it in two things that it only recommends: the labels of a host name are not
    empty, and four numbers are an IPv4 address, without zeros before them, which some read as
    octal.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not set(host) <= set(string.hexdigits + ":."):
            return False
        try:
            socket.inet_pton(socket.AF_INET6, host)
        except OSError:
            return False
    else:
        host, colon, rest = text.partition(":")
        rest = colon + rest
        labels = host.split(".")
        if not all(label and set(label) <= LETTERS_AND_DIGITS | {"-"} for label in labels):
            return False
        if len(labels) == 4 and all(set(label) <= set(string.digits) for label in labels):
            numbers = [str(int(label)) for label in labels if len(label) < 4 and int(label) < 256]
            if numbers != labels:
                return False
    port = rest.removeprefix(":")
    if rest and (rest == port or not 1 <= len(port) <= 5 or not set(port) <= set(string.digits)):
        return False
    return len(text) <= 255 and int(port or 0) <= 65535


def has_server(sigil: str, text: str, *, may_be_empty: bool = False) -> bool:
    """The common format: any code points but colon, NUL and surrogates; 255 bytes in all."""
    localpart, colon, server = text[1:].partition(":")
    if text[:1] != sigil or not colon or not (localpart or may_be_empty):
        return False
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        return False
    return size_bytes <= 255 and "\0" not in localpart and is_server_name(server)


def is_hash(sigil: str, text: str, others: str) -> bool:
    letters = LETTERS_AND_DIGITS | set(others)
    return text[:1] == sigil and len(text) == 44 and set(text[1:]) <= letters


@examples(100)
@given(texts)
@example("[::1]:8448")
@example("[::1]x")
@example("1.2.3.4:")
@example("1.2.3.04")
@example("a.b:65535")
@example("a.b:65536")
@example("a.b\n")
def test_server_names_are_those_of_the_grammar(text: str) -> None:
    assert identifiers.is_server_name(text) == is_server_name(text)


@examples(120)
@given(identifier_texts)
@example("@:example.org")
@example("#:example.org")
@example("@" + "ä" * 121 + ":example.org")
@example("@" + "ä" * 122 + ":example.org")
@example("@\ud800:example.org")
@example("@a\n:example.org")
@example("!" + "R" * 43)
@example("$" + "R" * 43 + "\n")
def test_ids_and_aliases_are_those_of_the_grammar(text: str) -> None:
    assert identifiers.is_user_id(text) == has_server("@", text, may_be_empty=True)
    assert identifiers.is_room_alias(text) == has_server("#", text)
    is_hashed_room = is_hash("!", text, "-_")
    assert identifiers.is_room_id(text) == (has_server("!", text) or is_hashed_room)
    assert identifiers.is_room_id_of(text, names_server=True) == has_server("!", text)
    assert identifiers.is_room_id_of(text, names_server=False) == is_hashed_room
    assert identifiers.is_event_id_of(text, V1) == has_server("$", text)
    assert identifiers.is_event_id_of(text, V3) == is_hash("$", text, "+/")
    assert identifiers.is_event_id_of(text, V4) == is_hash("$", text, "-_")
    assert identifiers.is_event_id_of(text, V12) == is_hash("$", text, "-_")


@examples(100)
@given(identifier_texts)
@example("$" + "ä" * 127)
@example("$" + "ä" * 128)
def test_whatever_is_taken_for_an_identifier_fits_and_can_be_sent(text: str) -> None:
    predicates: list[Callable[[object], bool]] = [
        *(identifiers.is_user_id, identifiers.is_room_alias, identifiers.is_room_id),
        identifiers.is_server_name,
    ]

    if any(predicate(text) for predicate in predicates):
        assert len(text.encode()) <= identifiers.MAX_BYTES  # raises for lone surrogates
        assert "\0" not in text


@examples(120)
@given(identifier_texts)
@example("")
@example("alice:example.org")
@example("%alice:example.org")
def test_the_parts_of_an_identifier_make_it_again_or_a_value_error_is_raised(text: str) -> None:
    try:
        localpart, server = identifiers.localpart(text), identifiers.server_name(text)
    except ValueError:
        assert not any(has_server(sigil, text, may_be_empty=True) for sigil in "@!#$")
        return

    assert f"{text[0]}{localpart}:{server}" == text
    assert identifiers.is_server_name(server)
    if text.startswith("@"):
        assert identifiers.user_id(localpart, server) == text


@examples(100)
@given(texts, texts)
@example("a:b", "example.org")
@example("a", "b:example.org")
def test_a_user_id_is_made_only_of_what_can_be_taken_apart_again(
    localpart: str, server: str
) -> None:
    try:
        text = identifiers.user_id(localpart, server)
    except ValueError:
        return

    assert (identifiers.localpart(text), identifiers.server_name(text)) == (localpart, server)
