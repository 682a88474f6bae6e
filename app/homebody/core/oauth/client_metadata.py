"""What clients say of themselves when they register, and where they may send users back to.

The redirect URI is all that proves which client it is, so its rules are strict, and an
authorization request must name one of those that were registered exactly. The exception is
required: a client on the same computer listens at a port that it doesn't know before.

Spec: client-server-api#client-metadata, client-server-api#redirect-uri-validation
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from homebody.core.oauth.refusals import OAuthError
from homebody.spec.events import Json

DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
GRANT_TYPES: Final = ("authorization_code", "refresh_token", DEVICE_CODE)
RESPONSE_TYPES: Final = ("code",)
APPLICATION_TYPES: Final = ("web", "native")
MAX_URI_CHARACTERS: Final = 2_000
MAX_NAME_CHARACTERS: Final = 255
MAX_REDIRECT_URIS: Final = 20

_URI: Final = re.compile(r"[!#-;=?-\[\]_a-z|~]+")
"""Without quotes, brackets, spaces, and the backslash, which browsers take for a slash."""
_LOOPBACK: Final = re.compile(r"(http://(?:localhost|127\.0\.0\.1|\[::1\]))(:\d{1,5})?([/?].*)?")


def check(body: Json) -> Json:
    """Return the metadata to register, with what this server doesn't know left out.

    Raises invalid_client_metadata, invalid_redirect_uri.
    """
    body = {key: value for key, value in body.items() if value is not None}  # as if left out
    client_uri = _text(body, "client_uri", MAX_URI_CHARACTERS)
    if client_uri is None:
        raise _invalid("client_uri is missing")
    base = _web_uri(client_uri, "client_uri").hostname or ""
    kind = _choice(body, "application_type", APPLICATION_TYPES, "web")
    found: Json = {"client_uri": client_uri, "application_type": kind}
    name = _text(body, "client_name", MAX_NAME_CHARACTERS)
    if name is not None and name.isprintable() and name.strip():
        found["client_name"] = name.strip()
    for key in ("logo_uri", "tos_uri", "policy_uri"):
        uri = _text(body, key, MAX_URI_CHARACTERS)
        if uri is not None:
            if not _is_below(base, _web_uri(uri, key)):
                raise _invalid(f"{key} must be on the host of client_uri")
            found[key] = uri
    grants = _known(body, "grant_types", GRANT_TYPES, ["authorization_code"])
    found |= {
        "token_endpoint_auth_method": _choice(
            body, "token_endpoint_auth_method", ("none",), "none"
        ),
        "response_types": _known(body, "response_types", RESPONSE_TYPES, ["code"]),
        # "the homeserver MUST issue a refresh token", also where a client forgot to ask for it
        "grant_types": [it for it in GRANT_TYPES if it in grants or it == "refresh_token"],
        "redirect_uris": _redirect_uris(body, base, kind),
    }
    if not {"authorization_code", DEVICE_CODE} & set(grants):
        raise _invalid("grant_types has no grant by which the client could log in")
    if "authorization_code" in grants:
        if not found["redirect_uris"]:
            raise _bad_redirect("redirect_uris is missing")
        if not found["response_types"]:
            raise _invalid("response_types must have code")
    return found


def may_redirect_to(registration: Json, uri: str) -> bool:
    """Return whether a client has registered this redirect URI.

    "The homeserver MUST then accept any port number" on the loopback interface.
    """
    registered = registration["redirect_uris"]
    if uri in registered:
        return True
    loopback = _LOOPBACK.fullmatch(uri)
    if loopback is None or _URI.fullmatch(uri) is None or "#" in uri:
        return False
    return _without_port(loopback) in {
        _without_port(known) for it in registered if (known := _LOOPBACK.fullmatch(it))
    }


def is_verified(uri: str) -> bool:
    """Return whether a redirect URI proves which client it is: others can claim schemes and ports.

    See RFC 8252, section 8.6.
    """
    return urlsplit(uri).scheme == "https"


def _redirect_uris(body: Json, base: str, kind: str) -> list[str]:
    uris = body.get("redirect_uris", [])
    if not isinstance(uris, list) or not all(isinstance(it, str) for it in uris):
        raise _bad_redirect("redirect_uris must be a list of strings")
    if len(uris) > MAX_REDIRECT_URIS:
        raise _bad_redirect(f"There are more than {MAX_REDIRECT_URIS} redirect URIs")
    for uri in uris:
        _check_redirect_uri(uri, base, kind)
    return uris


def _check_redirect_uri(uri: str, base: str, kind: str) -> None:
    if len(uri) > MAX_URI_CHARACTERS or _URI.fullmatch(uri) is None or "#" in uri:
        raise _bad_redirect("A redirect URI is not a URI, or too long, or has a fragment")
    parts = _split(uri)
    if parts is None:
        raise _bad_redirect("A redirect URI is not a URI")
    if parts.scheme == "https":
        if not _is_public(parts) or not _is_below(base, parts):
            raise _bad_redirect("An https redirect URI must be on the host of client_uri")
    elif kind == "web":
        raise _bad_redirect("A redirect URI of a web client must begin with https://")
    elif parts.scheme == "http":
        found = _LOOPBACK.fullmatch(uri)
        if found is None or found[2] is not None:
            raise _bad_redirect("An http redirect URI must be on localhost, without a port")
    else:
        _check_private_scheme(uri, parts, base)


def _check_private_scheme(uri: str, parts: SplitResult, base: str) -> None:
    if "." not in parts.scheme:  # javascript:, data:, … are schemes of hosts without a domain
        raise _bad_redirect("The scheme of a redirect URI must be a domain, in reverse order")
    reverse = ".".join(reversed(base.split(".")))
    if parts.scheme != reverse and not parts.scheme.startswith(f"{reverse}."):
        raise _bad_redirect(f"The scheme of a redirect URI must begin with {reverse}")
    if uri[len(parts.scheme) :].startswith("://"):
        raise _bad_redirect("A redirect URI with a scheme of its own has no host")


def _web_uri(uri: str, key: str) -> SplitResult:
    parts = _split(uri) if _URI.fullmatch(uri) else None
    if parts is None or not _is_public(parts):
        raise _invalid(f"{key} must begin with https:// and have no user name")
    return parts


def _split(uri: str) -> SplitResult | None:
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme else None


def _is_public(parts: SplitResult) -> bool:
    return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc


def _is_below(base: str, parts: SplitResult) -> bool:
    host = parts.hostname or ""
    return host == base or host.endswith(f".{base}")


def _without_port(loopback: re.Match[str]) -> tuple[str, str]:
    return loopback[1], loopback[3] or "/"


def _text(body: Json, key: str, most: int) -> str | None:
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > most:
        raise _invalid(f"{key} must be a string of at most {most} characters")
    return value


def _choice(body: Json, key: str, allowed: tuple[str, ...], default: str) -> str:
    value = body.get(key, default)
    if value not in allowed:
        raise _invalid(f"{key} must be one of {', '.join(allowed)}")
    return str(value)


def _known(body: Json, key: str, known: tuple[str, ...], default: list[str]) -> list[str]:
    """Return the values that this server knows: it "MUST ignore values that it doesn't"."""
    values = body.get(key, default)
    if not isinstance(values, list):
        raise _invalid(f"{key} must be a list")
    return [it for it in known if it in values]


def _invalid(description: str) -> OAuthError:
    return OAuthError("invalid_client_metadata", description)


def _bad_redirect(description: str) -> OAuthError:
    return OAuthError("invalid_redirect_uri", description)
