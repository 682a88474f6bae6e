"""The header of requests between servers, as servers write it, and its signature."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebody.spec import canonical_json, signing, x_matrix
from homebody.spec.signing import SignatureError
from homebody.spec.x_matrix import Authorization
from tests.spec import pdus

ORIGIN = "origin.example.org"
DESTINATION = "destination.example.org"
FULL = Authorization(ORIGIN, "ed25519:key1", "AbC+/9", DESTINATION)
OLD = Authorization(ORIGIN, "ed25519:key1", "AbC+/9")
OTHER_KEY = signing.SigningKey.from_seed("other", b"x" * 32)
REQUEST: dict[str, Any] = {
    "method": "PUT",
    "uri": "/_matrix/federation/v1/send/1?a=%20b",
    "destination": DESTINATION,
    "content": {"pdus": [], "edus": []},
}

HEADERS = [
    # as the specification asks for
    (
        'X-Matrix origin="origin.example.org",destination="destination.example.org",'
        'key="ed25519:key1",sig="AbC+/9"',
        FULL,
    ),
    # before version 1.3 of the specification, with the origin as a token
    ('X-Matrix origin=origin.example.org,key="ed25519:key1",sig="AbC+/9"', OLD),
    # another order, as alphabetic maps have it
    (
        'X-Matrix destination="destination.example.org",key="ed25519:key1",'
        'origin="origin.example.org",sig="AbC+/9"',
        FULL,
    ),
    # no quotes at all; colons and slashes are not characters of a token
    (
        "X-Matrix origin=origin.example.org,destination=destination.example.org,"
        "key=ed25519:key1,sig=AbC+/9",
        FULL,
    ),
    # white space, and names and scheme in any case
    (
        'x-matrix   Origin = "origin.example.org" ,\tDESTINATION="destination.example.org" , '
        'Key="ed25519:key1", SIG="AbC+/9" ',
        FULL,
    ),
    ('X-MATRIX\torigin="origin.example.org",key="ed25519:key1",sig="AbC+/9"', OLD),
    # escaped characters, which any may be
    (r'X-Matrix origin="origin\.example.org",key="ed25519\:key1",sig="\A\bC+/9"', OLD),
    # unknown parameters, also such with escaped quotes, commas and the name of the scheme
    (
        r'X-Matrix v="a\",b",origin="origin.example.org",x="X-Matrix y",key="ed25519:key1",'
        r'sig="AbC+/9",z="\\"',
        OLD,
    ),
    # empty elements of the list
    (', X-Matrix origin="origin.example.org",, key="ed25519:key1" ,sig="AbC+/9",', OLD),
    # padded base64, also without quotes
    (
        "X-Matrix origin=origin.example.org,key=ed25519:key1,sig=AbC+/9==",
        Authorization(ORIGIN, "ed25519:key1", "AbC+/9=="),
    ),
    # servers with a port, and literals, with and without quotes
    (
        "X-Matrix origin=[2001:db8::1]:8448,destination=192.0.2.1:80,key=ed25519:1,sig=A",
        Authorization("[2001:db8::1]:8448", "ed25519:1", "A", "192.0.2.1:80"),
    ),
    (
        'X-Matrix origin="[2001:db8::1]",destination="localhost:1",key="ed25519:1",sig="A"',
        Authorization("[2001:db8::1]", "ed25519:1", "A", "localhost:1"),
    ),
    # other algorithms may be known one day
    (
        'X-Matrix origin="origin.example.org",key="mldsa:1",sig="A"',
        Authorization(ORIGIN, "mldsa:1", "A"),
    ),
]


@pytest.mark.parametrize(("header", "expected"), HEADERS)
def test_a_header_of_another_server_is_understood(header: str, expected: Authorization) -> None:
    assert x_matrix.parse(header) == [expected]


@pytest.mark.parametrize("comma", [",", ", ", " ,\t", ",,"])
def test_headers_joined_by_a_comma_are_all_returned(comma: str) -> None:
    second = 'X-Matrix origin="origin.example.org",key="ed25519:key2",sig="B"'

    found = x_matrix.parse(x_matrix.write(FULL) + comma + second)

    assert found == [FULL, Authorization(ORIGIN, "ed25519:key2", "B")]


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        ",",
        "X-Matrix",
        "X-Matrix ",
        "Bearer abcdef",
        'Bearer origin="origin.example.org",key="ed25519:1",sig="A"',
        'X-Matrixorigin="origin.example.org",key="ed25519:1",sig="A"',
        'origin="origin.example.org",key="ed25519:1",sig="A"',
        'X-Matrix origin="origin.example.org",key="ed25519:1"',
        'X-Matrix origin="origin.example.org",sig="A"',
        'X-Matrix key="ed25519:1",sig="A"',
        'X-Matrix origin="origin.example.org",key="",sig="A"',
        'X-Matrix origin="origin.example.org",key="ed25519:1",sig=""',
        'X-Matrix origin="origin.example.org",key="ed25519:1",sig=',
        'X-Matrix origin="",key="ed25519:1",sig="A"',
        'X-Matrix origin="not a server",key="ed25519:1",sig="A"',
        'X-Matrix origin="origin.example.org/path",key="ed25519:1",sig="A"',
        'X-Matrix origin="origin.example.org:99999",key="ed25519:1",sig="A"',
        'X-Matrix origin="origin.example.org",destination="",key="ed25519:1",sig="A"',
        'X-Matrix origin="origin.example.org",destination="a b",key="ed25519:1",sig="A"',
        'X-Matrix origin="origin.example.org" key="ed25519:1",sig="A"',
        'X-Matrix origin="origin.example.org;key="ed25519:1",sig="A"',
        'X-Matrix origin="origin.example.org,key=ed25519:1,sig=A',
        'X-Matrix origin="origin.example.org",key="ed25519:1",sig="A\\"',
        'X-Matrix origin="a.org",origin="b.org",key="ed25519:1",sig="A"',
        'X-Matrix origin="a.org",key="ed25519:1",KEY="ed25519:1",sig="A"',
        'X-Matrix origin="a.org",key="ed25519:1",sig="A",x',
        'X-Matrix origin="a.org",key="ed25519:1",sig="A",Bearer abc',
        'X-Matrix origin="a.org",key="1:1",sig="A",X-Matrix origin="b.org",key="1:1",sig="A"',
        'X-Matrix origin="a.org",key="1:1",sig="A",X-Matrix key="1:1",sig="A"',
        ",".join(['X-Matrix origin="a.org",key="ed25519:1",sig="A"'] * 2),
        ",".join([f'X-Matrix origin="a.org",key="ed25519:{n}",sig="A"' for n in range(5)]),
    ],
)
def test_a_malformed_header_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match="X-Matrix"):
        x_matrix.parse(header)


@given(st.text(string.printable))
def test_no_text_causes_another_error(text: str) -> None:
    for header in (text, f"X-Matrix {text}", f"{x_matrix.write(FULL)},{text}"):
        try:
            x_matrix.parse(header)
        except ValueError:
            continue


def test_a_header_is_written_as_older_servers_expect_it() -> None:
    assert x_matrix.write(FULL) == HEADERS[0][0]
    assert x_matrix.write(OLD) == (
        'X-Matrix origin="origin.example.org",key="ed25519:key1",sig="AbC+/9"'
    )


def sign(**changes: Any) -> Authorization:
    header = x_matrix.sign(pdus.KEY, **{**REQUEST, "origin": ORIGIN, **changes})
    (found,) = x_matrix.parse(header)
    return found


def verify(authorization: Authorization, **changes: Any) -> None:
    x_matrix.verify(authorization, pdus.KEY.verify_key, **{**REQUEST, **changes})


@pytest.mark.parametrize("content", [None, {}, {"pdus": [{"depth": 1}]}, ["text"], {"a": 0.5}])
def test_a_signed_request_verifies(content: Any) -> None:
    authorization = sign(content=content)

    verify(authorization, content=content)

    assert authorization.origin == ORIGIN
    assert authorization.destination == DESTINATION
    assert authorization.key_id == pdus.KEY.key_id


def test_content_in_canonical_json_gets_the_same_signature() -> None:
    request = {**REQUEST, "origin": ORIGIN}
    encoded = canonical_json.encode(REQUEST["content"])

    header = x_matrix.sign(pdus.KEY, **{**request, "content": encoded})

    assert header == x_matrix.sign(pdus.KEY, **request)


def test_the_signature_covers_the_object_of_the_specification() -> None:
    covered = {**REQUEST, "origin": ORIGIN}
    signed = signing.sign_json(covered, ORIGIN, pdus.KEY)

    assert sign().signature == signed["signatures"][ORIGIN][pdus.KEY.key_id]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "POST"},
        {"uri": "/_matrix/federation/v1/send/2?a=%20b"},
        {"uri": "/_matrix/federation/v1/send/1?a= b"},
        {"uri": "/_matrix/federation/v1/send/1"},
        {"content": None},
        {"content": {}},
        {"content": {"pdus": [], "edus": [], "more": 1}},
        {"destination": "elsewhere.example.org"},
    ],
)
def test_a_request_that_was_changed_does_not_verify(changes: dict[str, Any]) -> None:
    authorization = sign()
    without_destination = Authorization(ORIGIN, authorization.key_id, authorization.signature)

    for it in (authorization, without_destination):
        with pytest.raises(SignatureError):
            verify(it, **changes)


def test_a_request_without_destination_in_its_header_verifies() -> None:
    authorization = sign()

    verify(Authorization(ORIGIN, authorization.key_id, authorization.signature))


def test_a_request_for_another_server_is_refused_by_name() -> None:
    authorization = sign(destination="other.example.org")

    with pytest.raises(SignatureError, match="is for other"):
        verify(authorization)


def test_a_request_in_the_name_of_another_server_does_not_verify() -> None:
    authorization = sign()
    forged = Authorization("forged.org", authorization.key_id, authorization.signature)

    with pytest.raises(SignatureError, match="does not match"):
        verify(forged)
    with pytest.raises(SignatureError, match="does not match"):
        x_matrix.verify(authorization, OTHER_KEY.verify_key, **REQUEST)


@pytest.mark.parametrize("signature", ["?", "A", "ä", "A" * 86])
def test_a_malformed_signature_does_not_verify(signature: str) -> None:
    with pytest.raises(SignatureError):
        verify(Authorization(ORIGIN, pdus.KEY.key_id, signature, DESTINATION))


def test_content_without_canonical_json_does_not_verify() -> None:
    with pytest.raises(SignatureError, match="canonical JSON"):
        verify(sign(), content={"a": "\ud800"})


def test_floats_verify_as_other_servers_write_them() -> None:
    content = {"pdus": [{"content": {"a": 1e-5, "b": 1e20}}]}
    request = {**REQUEST, "origin": ORIGIN, "content": content}
    theirs = pdus.KEY.sign(canonical_json.encode_historical(request))

    assert theirs != pdus.KEY.sign(canonical_json.encode(request))
    verify(Authorization(ORIGIN, pdus.KEY.key_id, theirs), content=content)
    verify(sign(content=content), content=content)
