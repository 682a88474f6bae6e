"""Authorization of requests between servers: the header `X-Matrix` and what its signature covers.

The origin signs a JSON object of the method, the URI, both server names and the body. The header
names the origin, the key and, since version 1.3 of the specification, the destination. Servers
write it in many ways, so `parse` accepts more than the grammar of RFC 9110; `write` keeps to the
narrow form that the specification asks for, because older servers parse nothing else.

Spec: server-server-api#request-authentication
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from homebody.spec import canonical_json, identifiers, signing
from homebody.spec.signing import SignatureError, SigningKey, VerifyKey

SCHEME: Final = "X-Matrix"
MAX_SIGNATURES: Final = 4
"""Per request. Honest servers sign with each of their keys, of which they have one or two."""
MAX_BYTES_WITH_FLOATS: Final = 1024 * 1024
"""Encoding a request of this size as Python's json does takes 30 ms."""

_SCHEME: Final = re.compile(r"x-matrix[ \t]+", re.IGNORECASE)
_PARAMETER: Final = re.compile(
    r"(?P<name>[!#$%&\'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*"
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s",]+))[ \t]*(?=,|$)'
)
_ESCAPED: Final = re.compile(r"\\(.)")
_SEPARATOR: Final = re.compile(r"[ \t,]*")


@dataclass(frozen=True, slots=True)
class Authorization:
    """One signature of a request, as its header states it. Nothing is verified yet."""

    origin: str
    key_id: str
    signature: str
    destination: str | None = None
    """None in requests of older servers."""


def parse(header: str) -> list[Authorization]:
    """Return the signatures in an `Authorization` header, all of the same origin; at least one.

    A request may carry a header for each of its keys; servers and proxies join them by commas.
    Raises ValueError.
    """
    challenges: list[dict[str, str]] = []
    place = _SEPARATOR.match(header).end()  # type: ignore[union-attr]  # matches any text
    while place < len(header):
        if scheme := _SCHEME.match(header, place):
            challenges.append({})
            place = scheme.end()
        parameter = _PARAMETER.match(header, place)
        if parameter is None or not challenges:
            raise ValueError(f"Malformed {SCHEME} authorization")
        _add(challenges[-1], parameter)
        place = _SEPARATOR.match(header, parameter.end()).end()  # type: ignore[union-attr]
    if not 0 < len(challenges) <= MAX_SIGNATURES:
        raise ValueError(f"A request needs 1 to {MAX_SIGNATURES} {SCHEME} authorizations")
    found = [_authorization(parameters) for parameters in challenges]
    if len({it.origin for it in found}) > 1:
        raise ValueError(f"{SCHEME} authorizations of different servers")
    if len({it.key_id for it in found}) < len(found):
        raise ValueError(f"{SCHEME} authorizations with the same key")
    return found


def write(authorization: Authorization) -> str:
    """Return the value of the header in the form that all servers understand.

    One space after the scheme and none elsewhere, lower-case names, all values quoted.
    """
    it = authorization
    parameters = {
        "origin": it.origin,
        "destination": it.destination,
        "key": it.key_id,
        "sig": it.signature,
    }
    text = ",".join(f'{name}="{value}"' for name, value in parameters.items() if value is not None)
    return f"{SCHEME} {text}"


def sign(
    key: SigningKey, *, method: str, uri: str, origin: str, destination: str, content: Any = None
) -> str:
    """Return the value of the header `Authorization` for a request.

    `uri` is the path and query exactly as they are sent, `content` the JSON of the body, None if
    there is none; if it is bytes, it is in canonical JSON already. Raises ValueError if the content
    has no canonical JSON.
    """
    if isinstance(content, bytes):
        rest = canonical_json.encode(_signed(method, uri, origin, destination, None))
        message = b'{"content":%b,%b' % (content, rest[1:])  # first in the order of the keys
    else:
        message = canonical_json.encode(_signed(method, uri, origin, destination, content))
    return write(Authorization(origin, key.key_id, key.sign(message), destination))


def verify(
    authorization: Authorization,
    verify_key: VerifyKey,
    *,
    method: str,
    uri: str,
    destination: str,
    content: Any = None,
) -> None:
    """Raise SignatureError unless the origin signed this request to `destination`, which is us.

    `uri` is the path and query as received, before any decoding; see `sign` for `content`. A header
    without a destination is accepted, as the signature covers the destination anyway.
    """
    it = authorization
    if it.destination not in (None, destination):
        raise SignatureError(f"The request is for {it.destination}")
    request = _signed(method, uri, it.origin, destination, content)
    try:
        message = canonical_json.encode(request)
    except ValueError as problem:
        raise SignatureError(str(problem)) from problem
    try:
        signing.verify_bytes(message, it.signature, verify_key)
    except SignatureError:
        # Events of room versions 1 to 5 may have floats, which other servers write differently
        if len(message) > MAX_BYTES_WITH_FLOATS:
            raise
        historical = canonical_json.encode_historical(request)
        if historical == message:
            raise
        signing.verify_bytes(historical, it.signature, verify_key)


def _signed(method: str, uri: str, origin: str, destination: str, content: Any) -> dict[str, Any]:
    request = {"method": method, "uri": uri, "origin": origin, "destination": destination}
    return request if content is None else {**request, "content": content}


def _add(parameters: dict[str, str], found: re.Match[str]) -> None:
    name = found["name"].lower()
    if name in parameters:
        raise ValueError(f"{SCHEME} authorization with {name} twice")
    bare = found["bare"]
    parameters[name] = _ESCAPED.sub(r"\1", found["quoted"]) if bare is None else bare


def _authorization(parameters: dict[str, str]) -> Authorization:
    """Return the authorization with these parameters; unknown ones are ignored."""
    origin, destination = parameters.get("origin"), parameters.get("destination")
    key_id, signature = parameters.get("key"), parameters.get("sig")
    if not identifiers.is_server_name(origin) or not key_id or not signature:
        raise ValueError(f"{SCHEME} authorization without a valid origin, key and sig")
    if destination is not None and not identifiers.is_server_name(destination):
        raise ValueError(f"{SCHEME} authorization with an invalid destination")
    return Authorization(origin, key_id, signature, destination)
