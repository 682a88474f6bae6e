"""The file in a multipart/mixed response is found, however the response is cut into pieces."""

from __future__ import annotations

from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebody.outside import RemoteError, multipart
from homebody.outside.multipart import MultipartReader

HEAD = b"--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\nContent-Type: text/plain\r\n\r\n"


def headers(content_type: str) -> Message:
    found = Message()
    found["Content-Type"] = content_type
    return found


def read(
    body: bytes, size: int = 0, kind: str = "multipart/mixed; boundary=x"
) -> tuple[bytes, Message]:
    """Return the file and its headers, the body being received in pieces of a size."""
    file: list[bytes] = []
    reader = MultipartReader(file.append)
    reader.begin(headers(kind))
    size = size or max(len(body), 1)
    for start in range(0, len(body), size):
        reader.write(body[start : start + size])
    reader.finish()
    return b"".join(file), reader.headers


@given(st.binary(max_size=40), st.integers(1, 30))
def test_pieces_do_not_matter(content: bytes, size: int) -> None:
    for tricky in (content, b"\r\n--" + content, content + b"\r\n-", content + b"\r\n--y"):
        if b"\r\n--x" not in tricky + b"\r\n":
            assert read(HEAD + tricky + b"\r\n--x--\r\n", size)[0] == tricky


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    "body",
    [
        HEAD + b"hello\r\n--x--",
        HEAD + b"hello\r\n--x--\r\n",
        HEAD + b"hello\r\n--x--\r\nepilogue\r\n--x\r\n",
        HEAD + b"hello\r\n--x\r\nContent-Type: a/b\r\n\r\na third part\r\n--x--",
        b"\r\n" + HEAD + b"hello\r\n--x--",
        b"preamble\r\n" + HEAD + b"hello\r\n--x--",
        HEAD.replace(b"--x", b"--x \t") + b"hello\r\n--x--",
        HEAD.replace(b"{}", b"") + b"hello\r\n--x--",
        HEAD.replace(b"Content-Type: application/json\r\n", b"") + b"hello\r\n--x--",
    ],
)
def test_the_second_part_is_the_file(body: bytes, size: int) -> None:
    file, found = read(body, size)

    assert file == b"hello"
    assert found["Content-Type"] == "text/plain"


def test_a_part_without_headers_is_a_file_too() -> None:
    file, found = read(b"--x\r\n\r\n{}\r\n--x\r\n\r\nhello\r\n--x--")

    assert (file, found.items()) == (b"hello", [])


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        HEAD,
        HEAD + b"hello",
        HEAD + b"hello\r\n--y--",
        HEAD + b"hello\r\n--",
        HEAD[:40],
        b"--x--",
        b"--x\r\n\r\n{}\r\n--x--\r\n",
        b"--xy\r\n\r\n{}\r\n--x\r\n\r\nhello\r\n--x--",
        b"hello",
    ],
)
def test_what_is_not_complete_is_not_a_file(body: bytes, size: int) -> None:
    with pytest.raises(RemoteError):
        read(body, size)


@pytest.mark.parametrize(
    "body",
    [
        b"a" * 200_000,
        b"--x\r\n" + b"a" * 200_000,
        b"--x" + b" " * 200_000,
        b"--x\r\n\r\n" + b"a" * 200_000,
        b"--x\r\n\r\n{}\r\n--x\r\nA: " + b"a" * 200_000 + b"\r\n\r\nhello\r\n--x--",
    ],
)
def test_nothing_but_the_file_may_be_large(body: bytes) -> None:
    with pytest.raises(RemoteError):
        read(body, 1000)


@pytest.mark.parametrize(
    "kind",
    [
        *("multipart/mixed", "multipart/mixed; boundary=", "multipart/form-data; boundary=x"),
        *("text/plain; boundary=x", "", "multipart/mixed; boundary=" + "x" * 71),
        "multipart/mixed; boundary=ü",
    ],
)
def test_another_type_is_refused(kind: str) -> None:
    with pytest.raises(RemoteError):
        read(HEAD + b"hello\r\n--x--", kind=kind)


def test_the_boundary_may_be_quoted() -> None:
    assert read(HEAD + b"hello\r\n--x--", kind='Multipart/Mixed; a=b; boundary="x"')[0] == b"hello"


@pytest.mark.parametrize(
    ("disposition", "expected"),
    [
        (None, None),
        ("inline", None),
        ("attachment; filename=a.png", "a.png"),
        ('attachment; filename="a b.png"', "a b.png"),
        ("attachment; filename*=UTF-8''%C3%BC.png", "ü.png"),
        ("attachment; filename*=nothing''%C3%BC.png", "ü.png"),
        ("inline; filename=\"_.png\"; filename*=utf-8''%F0%9F%90%94.png", "🐔.png"),
        ("inline; FileName*=utf-8''%C3%BC.png; filename=_.png", "ü.png"),
        ('attachment; filename="Ã¼.png"', "ü.png"),
        ('attachment; filename="a\x00b\tc.png"', "abc.png"),
        ('attachment; filename=""', None),
        ("attachment; filename=" + "a" * 1000, "a" * 255),
    ],
)
def test_the_file_name_is_read(disposition: str | None, expected: str | None) -> None:
    given = Message()
    if disposition is not None:
        given["Content-Disposition"] = disposition

    assert multipart.file_name(given) == expected
