"""Untrusted texts: search terms, pages to preview, names and types of files, tokens."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from homebody.client_server import file_responses
from homebody.core.events import search_index
from homebody.core.media import open_graph
from homebody.core.sync.spans import SyncToken
from homebody.errors import MatrixError
from homebody.web import Application
from tests.conftest import Login, Person
from tests.fuzz import examples

SLOWEST_SECONDS = 3
unicode_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
fts_words = st.sampled_from(
    [
        *(
            '"',
            "'",
            "*",
            "^",
            "(",
            ")",
            "{",
            "}",
            ":",
            "+",
            "-",
            ",",
            ".",
            ";",
            "\\",
            "/",
            "%",
            "_",
        ),
        *("AND", "OR", "NOT", "NEAR", "NEAR(a b, 2)", "body", "body:", "rank", "hello", "HELLO*"),
        *("\0", "\ufffd", "\u3042", "\u4e00\u4e8c", "\u0e01", "é", "e\u0301", "İ", "\U0001f98a"),
        *("\u200d", "\u00ad", "a" * 300, "' OR 1=1 --", 'hel"lo', "^hello", "hello^", "\u0300"),
    ]
)
searched = st.lists(fts_words | unicode_texts, max_size=6).map(" ".join) | unicode_texts


@pytest.fixture
def alice(login: Login, room: Callable[..., str]) -> Person:
    """Log in a user with a room that has messages."""
    alice = login("alice")
    room_id = room(alice, login("bob"), name="Hello room", topic="Of \u3042 and b")
    for body in ("hello world", 'a "quoted" word\0here', "\u3042\u3044", "", "NOT that"):
        alice.send(room_id, body)
    return alice


@examples(80)
@given(searched, st.sampled_from(["rank", "recent"]))
@example("hello " * 166, "rank")
@example("a" * 1000, "rank")
@example('"' * 1000, "recent")
@example("\0", "rank")
def test_whatever_is_searched_for_there_is_an_answer(alice: Person, term: str, order: str) -> None:
    wanted = {"search_term": term[:1000], "order_by": order}  # the maximum length

    answer = alice.post("search", json={"search_categories": {"room_events": wanted}})

    assert answer.status_code == 200, answer.get_json()
    found = answer.get_json()["search_categories"]["room_events"]
    if term.split() in (["hello"], ["HELLO*"], ["^hello"], ["hello^"]):
        assert found["count"] >= 1


@examples(80)
@given(searched)
@example("hello")
def test_every_word_that_is_looked_for_is_one_phrase_of_the_index(term: str) -> None:
    for word in search_index.words(term):
        phrase = search_index.phrase(word)

        assert phrase.startswith('"')
        assert phrase.endswith('" *')
        assert '"' not in phrase[1:-3].replace('""', "")
        assert "\0" not in phrase


@examples(60)
@given(searched, searched)
@example("@alice:localhost", "al")
@example("\ufdfa" * 60, "\ufdfa")
@example("a" * 5000, "a" * 32)
def test_whatever_people_are_called_they_can_be_searched_for(
    alice: Person, name: str, term: str
) -> None:
    named = alice.put(f"profile/{alice.user_id}/displayname", json={"displayname": name[:100]})

    answer = alice.post("user_directory/search", json={"search_term": term})

    assert named.status_code in {200, 400}, named.get_json()
    assert answer.status_code == 200, answer.get_json()


html_pieces = st.sampled_from(
    [
        *(
            b"<html>",
            b"<head>",
            b"<title>",
            b"</title>",
            b"<p>",
            b"<meta ",
            b"property=",
            b">",
            b"<",
        ),
        *(
            b'"og:title" ',
            b"'og:image'",
            b"og:url",
            b"content=",
            b'"',
            b"'",
            b"<!--",
            b"-->",
            b"&#0;",
        ),
        *(
            b"&amp;",
            b"&#x110000;",
            b"<base href=//[",
            b"<base href='",
            b"http://[",
            b"mxc://a",
            b"\0",
        ),
        *(
            b"<script>",
            b"</script>",
            b"<svg><p>",
            b"<template>",
            b"<![CDATA[",
            b"\xff\xfe",
            b"\xef\xbb",
        ),
        *(b'<meta charset="utf-16">', b"<meta charset=utf8-sig>", b"charset=shift-jis", b"\x1b$B"),
        *(
            b"<link rel=image_src href=",
            b"name=description ",
            b"x" * 50,
            b"\xe3\x81",
            b"<plaintext>",
        ),
        b'<meta property="og:title" content="a">',
    ]
)
pages = st.lists(html_pieces | st.binary(max_size=6), max_size=12).map(b"".join)
content_types = st.sampled_from(
    [
        *("text/html", "", "text/html; charset=", "text/html; charset=utf-16", "charset=utf-8-sig"),
        *(
            "text/html; charset=iso-2022-jp",
            "text/html;charset=zip",
            "charset=idna",
            "charset=utf-7",
        ),
    ]
) | unicode_texts.map("text/html; charset={}".format)


@examples(150)
@given(pages, content_types, st.sampled_from(["http://a.example/b", "http://[::1]/", "x:y"]))
@example(b"<base href=http://[><meta property=og:image content=a>", "", "http://a.example/")
def test_any_page_says_something_of_itself_or_nothing(
    page: bytes, content_type: str, url: str
) -> None:
    found = open_graph.read(page, content_type, url)

    for name, text in found.items():
        assert text
        assert "\0" not in text
        assert name.startswith("og:")
        assert len(text) <= open_graph.MAX_TEXT or name == "og:image"
        text.encode()  # no lone surrogates
    assert len(found) <= open_graph.MAX_PROPERTIES + 3


CHARSETS = [
    *(
        "utf8",
        "utf-8",
        "utf8-sig",
        "utf-8-sig",
        "utf16",
        "utf-16",
        "utf16le",
        "utf-16le",
        "utf-16be",
    ),
    *(
        "utf16be",
        "ascii",
        "us-ascii",
        "usascii",
        "latin1",
        "latin-1",
        "koi8-r",
        "koi8-u",
        "macintosh",
    ),
    *(
        "gb2312",
        "gbk",
        "gb18030",
        "big5",
        "euc-jp",
        "euc-kr",
        "shift-jis",
        "shift_jis",
        "iso-2022-jp",
    ),
    *("tis-620", *(f"iso-8859-{number}" for number in range(1, 17))),
    *(f"iso8859-{number}" for number in range(1, 17)),
    *(f"{name}125{number}" for name in ("windows-", "cp") for number in range(9)),
    *("idna", "punycode", "zip", "hex", "base64", "rot13", "unicode_escape", "mbcs", "undefined"),
]


@pytest.mark.parametrize("charset", CHARSETS)
def test_any_encoding_that_a_page_names_is_known_or_passed_over(charset: str) -> None:
    page = b"<title>Tea \xe4\xff</title>\x1b$B\x80"

    for name in (charset, charset.upper()):
        open_graph.read(page, f"text/html; charset={name}", "http://a.example/")
        open_graph.read(f'<meta charset="{name}">'.encode() + page, "", "http://a.example/")


@pytest.mark.parametrize(
    "page",
    [
        b"<div>" * 100_000,
        b"<ul><li>" * 60_000,
        b"<nav>" * 100_000,
        b"<svg>" * 100_000,
        b"<template>" * 50_000,
        b"<h1>" * 100_000,
        b"<noscript>" * 50_000,
        b"<header>" * 500 + b"<p>" * 150_000,
        b"</p>" * 120_000,
        b"".join(b"<b a=%d><object></b></object>" % number for number in range(8000))
        + b"<p>x" * 60_000,
        b"<p>"
        + b"".join(b"<b a=%d>" % number for number in range(8000))
        + b"</p>"
        + b"<p>x</p>" * 50_000,
        b"<a b='" * 80_000,
        b"<a =" * 100_000,
        b"<!--" * 100_000,
        b"<script>" * 60_000,
        b"<script" * 60_000,
        b"</" * 250_000,
        b"<a" * 250_000,
        b"=" * 500_000,
        b"<a " + b"= " * 250_000,
        b"<p>" + b"<b><i>" * 50_000,
        b"<meta " * 100_000,
        b'<meta property="og:title" content="' + b"a" * 500_000,
        b"<meta property=og:a content=a>" * 20_000,
        b"<table><a>" * 10_000,
        b"&" * 500_000,
        b"<svg><title>" * 20_000,
        b"<a " + b"b=c " * 100_000,
        b"<" * 500_000,
        b"\0" * 500_000,
    ],
    ids=lambda page: page[:20].decode(),
)
def test_no_page_takes_long(page: bytes) -> None:
    started = time.thread_time()

    open_graph.read(page, "text/html", "http://a.example/")

    assert time.thread_time() - started < SLOWEST_SECONDS


@examples(150)
@given(name=st.text(max_size=20) | unicode_texts, is_inline=st.booleans())
@example(name='a"; filename=b.html', is_inline=False)
@example(name="a\r\nX: y", is_inline=False)
@example(name="\ud800", is_inline=False)
@example(name="..\\..\\%2e", is_inline=True)
def test_any_file_name_makes_one_header_that_says_it(name: str, *, is_inline: bool) -> None:
    header = file_responses.disposition(name, is_inline=is_inline)

    assert re.fullmatch(
        r"(inline|attachment)"
        r"(; filename=\"[^\"\\%\x00-\x1f\x7f]*\"(; filename\*=utf-8''[\w.~%-]+)?)?",
        header,
        re.ASCII,
    )
    header.encode("ascii")


@examples(80)
@given(
    st.text(st.characters(max_codepoint=0x7F, exclude_characters="\0\r\n"), max_size=20)
    | st.sampled_from(["text/html", "image/png; a=\xe4", "text", "/", ";", "a/b;charset=x" * 50]),
    unicode_texts | st.sampled_from(["..", "/", "a" * 300, "%00", "\r\nX: y"]),
    st.binary(max_size=20),
)
def test_any_type_and_name_of_a_file_can_be_uploaded_and_comes_back_harmless(
    alice: Person, content_type: str, name: str, data: bytes
) -> None:
    path = f"/_matrix/media/v3/upload?filename={quote(name, safe='')}"
    uploaded = alice.post(path, json=None, data=data, headers={"Content-Type": content_type})
    if uploaded.status_code != 200:
        assert uploaded.status_code in {400, 413}, uploaded.get_json()
        return
    media_id = uploaded.get_json()["content_uri"].rpartition("/")[2]

    answer = alice.get(f"/_matrix/client/v1/media/download/localhost/{media_id}")

    assert (answer.status_code, answer.get_data()) == (200, data)
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    kind = answer.headers["Content-Type"].partition(";")[0].strip().lower()
    if answer.headers["Content-Disposition"].startswith("inline"):
        assert not kind.endswith(("html", "xml", "svg", "javascript"))
    assert not any("\n" in value or "\r" in value for value in answer.headers.values())
    thumbnail = alice.get(
        f"/_matrix/client/v1/media/thumbnail/localhost/{media_id}?width=9&height=9"
    )
    assert thumbnail.status_code in {200, 400, 404}


token_texts = st.text("s0123456789_-", max_size=25) | unicode_texts


@examples(150)
@given(token_texts, st.none() | st.integers(0, 10**18))
@example("s" + "9" * 18, None)
@example("s" + "9" * 19, None)
@example("s٣", None)
@example("s1\n", None)
@example("s1_", None)
def test_a_token_is_one_that_could_have_been_given_out_or_refused(
    text: str, upto: int | None
) -> None:
    try:
        token = SyncToken.parse(text, upto)
    except MatrixError as error:
        errcode = error.errcode
    else:
        errcode = ""
    assert errcode in {"", "M_INVALID_PARAM"}
    if errcode:
        return

    assert re.fullmatch(r"s[0-9]{1,18}(_[0-9]{1,18})?", text)
    assert 0 <= token.position < 2**63
    assert upto is None or token.position <= upto
    assert SyncToken.parse(str(token), upto) == token


PAGED = [
    ("GET", "sync?timeout=0&since=", None),
    ("GET", "events?timeout=0&from=", None),
    ("GET", "rooms/ROOM/messages?dir=b&from=", None),
    ("GET", "rooms/ROOM/messages?dir=f&to=", None),
    ("GET", "rooms/ROOM/members?at=", None),
    ("GET", "/_matrix/client/v1/rooms/ROOM/threads?from=", None),
    ("GET", "/_matrix/client/v1/rooms/ROOM/relations/EVENT?from=", None),
    ("GET", "/_matrix/client/v1/rooms/ROOM/hierarchy?from=", None),
    ("GET", "/_matrix/client/v1/mutual_rooms?user_id=@bob:localhost&from=", None),
    ("GET", "notifications?from=", None),
    ("GET", "publicRooms?since=", None),
    ("GET", "keys/changes?to=s1&from=", None),
    ("POST", "search?next_batch=", {"search_categories": {"room_events": {"search_term": "a"}}}),
    ("POST", "org.matrix.simplified_msc3575/sync?timeout=0&pos=", {}),
    ("POST", "publicRooms", "since"),
]
inside_tokens = st.one_of(
    st.sampled_from(['{"rank":null,"number":1,"group":["room_id","a"]}', "[null,1,null]", "[]"]),
    st.from_regex(r'\{"rank":(null|-?1e[0-9]{3}|0\.5),"number":-?[0-9]{1,20}\}', fullmatch=True),
    st.from_regex(r"[0-9]{1,20}([:_.,|][0-9a-z]{0,5}){0,3}", fullmatch=True),
)
paging_texts = (
    token_texts
    | inside_tokens
    | inside_tokens.map(lambda it: base64.urlsafe_b64encode(it.encode()).decode().rstrip("="))
    | st.from_regex(r"[A-Za-z0-9_=-]{0,30}", fullmatch=True)
)


@examples(150)
@given(st.sampled_from(PAGED), paging_texts)
@example(PAGED[9], "9" * 30)
@example(PAGED[12], base64.urlsafe_b64encode(b'{"rank":1e308,"number":1}').decode())
def test_any_place_from_which_to_go_on_is_taken_or_refused(
    alice: Person, asked: tuple[str, str, Any], text: str
) -> None:
    method, path, body = asked
    room_id = alice.get("joined_rooms").get_json()["joined_rooms"][0]
    event_id = alice.get(f"rooms/{quote(room_id)}/messages?dir=b").get_json()["chunk"][0]
    url = path.replace("ROOM", quote(room_id)).replace("EVENT", quote(event_id["event_id"]))
    if body == "since":
        body = {"since": text}
    else:
        url += quote(text, safe="")

    answer = alice.request(method, url, json=body) if body is not None else alice.get(url)

    assert answer.status_code in {200, 400}, (url, answer.get_json())
    if answer.status_code == 400:
        errcodes = {"M_INVALID_PARAM", "M_UNKNOWN_POS", "M_BAD_JSON", "M_MISSING_PARAM"}
        assert answer.get_json()["errcode"] in errcodes


def test_paths_that_were_paged_are_served(app: Application, alice: Person) -> None:
    """Check that the paths in PAGED exist: without a token, none is an unknown endpoint."""
    assert app is not None
    for method, path, _body in PAGED:
        url = path.partition("?")[0].replace("ROOM", "!a:b").replace("EVENT", "$a")
        assert alice.request(method, url).get_json().get("errcode") != "M_UNRECOGNIZED"
