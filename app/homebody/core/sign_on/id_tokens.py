"""The checks of ID tokens and logout tokens.

This module imports a library for cryptography that takes 20 MB, so it is imported itself only when
there is a token to check.

OpenID Connect Core 1.0, section 3.1.3.7; OpenID Connect Back-Channel Logout 1.0, section 2.6.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from joserfc import jwk, jws, jwt
from joserfc.errors import JoseError

Json = dict[str, Any]

ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "Ed25519", "EdDSA"),
)
"""By a private key of the provider: neither `none`, nor HS256, whose key is a secret that both
sides have, and for which a public key must never be taken."""
LEEWAY_S: Final = 120
"""How much the clocks may differ."""
MAX_AGE_S: Final = 600
"""How old an ID token may be, as it was made for this login."""
MAX_TIME_S: Final = 10**12
MAX_SUBJECT: Final = 255
MAX_KEYS: Final = 50
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
_KEY_TYPES: Final = ("RSA", "EC", "OKP")
_BROKEN: Final = (JoseError, ValueError, TypeError, AttributeError, RecursionError)
"""What the library raises for whatever is not a token, or not a key. Anybody may send a text that
only looks like a token: its header may be any JSON."""
_TYPES: Final = {"", "jwt"}
_LOGOUT_TYPES: Final = {*_TYPES, "logout+jwt"}


class TokenError(Exception):
    """A token that must not be believed; the sentence is for the log."""


class UnknownKeyError(TokenError):
    """The token has a signature, but none of the keys fits: there may be newer ones."""


def check_id_token(
    token: str, keys: Iterable[Json], *, issuer: str, client_id: str, nonce: str, now_s: int
) -> Json:
    """Return the claims of an ID token that the provider has made for this login.

    Raises TokenError.
    """
    claims = _verified(token, keys, _TYPES)
    _check_common(claims, issuer, client_id, now_s)
    if not _number(claims, "exp") or claims["exp"] + LEEWAY_S <= now_s:
        raise TokenError("it has expired")
    if claims["iat"] + MAX_AGE_S + LEEWAY_S <= now_s:
        raise TokenError("it is too old")
    audience, party = claims["aud"], claims.get("azp")
    if party is None and isinstance(audience, list) and len(audience) > 1:
        raise TokenError("it is for several clients, and does not say which one asked for it")
    if party is not None and party != client_id:
        raise TokenError("another client has asked for it")
    given = claims.get("nonce")
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
        raise TokenError("its nonce is not that of this login")
    if not _is_subject(claims.get("sub")):
        raise TokenError("its subject is missing or too long")
    return claims


def check_logout_token(
    token: str, keys: Iterable[Json], *, issuer: str, client_id: str, now_s: int
) -> Json:
    """Return the claims of a logout token, of which it has sub, sid or both. Raises TokenError."""
    claims = _verified(token, keys, _LOGOUT_TYPES)
    _check_common(claims, issuer, client_id, now_s)
    if "exp" in claims and (not _number(claims, "exp") or claims["exp"] + LEEWAY_S <= now_s):
        raise TokenError("it has expired")
    if claims["iat"] + MAX_AGE_S + LEEWAY_S <= now_s:
        raise TokenError("it is too old")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        raise TokenError("it is not a logout token")
    if "nonce" in claims:
        raise TokenError("it has a nonce, as ID tokens have")
    named = [claims[key] for key in ("sub", "sid") if key in claims]
    if not named or not all(map(_is_subject, named)):
        raise TokenError("it names neither a user nor a session")
    if not isinstance(claims.get("jti"), str):
        raise TokenError("it has no jti")
    return claims


def _verified(token: str, keys: Iterable[Json], types: set[str]) -> Json:
    """Return the claims once the signature is verified. Raises TokenError."""
    registry = jws.JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
    registry.max_header_length = 8_192  # some send their certificates
    try:
        header = jws.extract_compact(token.encode(), registry=registry).headers()
        algorithm, kid = header.get("alg"), header.get("kid")
    except _BROKEN as problem:
        raise TokenError(f"it is not a signed JSON Web Token: {problem}") from problem
    if algorithm not in ALGORITHMS:
        raise TokenError("its algorithm is not accepted")
    if str(header.get("typ", "")).lower().removeprefix("application/") not in types:
        raise TokenError("it is a token for something else")
    for key in [it for it in keys if _fits(it, algorithm, kid)][:MAX_KEYS]:
        with suppress(*_BROKEN):
            return jwt.decode(token, jwk.import_key(key), list(ALGORITHMS), registry).claims
    raise UnknownKeyError("its signature is not by one of the provider's keys")


def _fits(key: Json, algorithm: str, kid: object) -> bool:
    """Return whether this may be the key that a header names."""
    return (
        key.get("kty") in _KEY_TYPES
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and (kid is None or key.get("kid") in (None, kid))
    )


def _check_common(claims: Json, issuer: str, client_id: str, now_s: int) -> None:
    if claims.get("iss") != issuer:
        raise TokenError("it is from another issuer")
    audience = claims.get("aud")
    if client_id not in (audience if isinstance(audience, list) else [audience]):
        raise TokenError("it is for another client")
    if not _number(claims, "iat") or claims["iat"] - LEEWAY_S > now_s:
        raise TokenError("it is from the future")


def _number(claims: Json, name: str) -> bool:
    """Return whether a claim is a time in seconds. The library also reads NaN and Infinity."""
    value = claims.get(name)
    return isinstance(value, int | float) and 0 < value < MAX_TIME_S


def _is_subject(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_SUBJECT
