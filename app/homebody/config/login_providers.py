"""The setting oidc_providers: where users may log in with an account that they have elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from homebody.config import values
from homebody.config.values import Kind
from homebody.spec import identifiers

_ID: Final = msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._~-]{0,99}\Z")
_LINE: Final = msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,1000}\Z")
_SCOPE: Final = msgspec.Meta(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+\Z")
_ISSUER: Final = msgspec.Meta(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?\Z")
_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z0-9_.:/-]+)(\|localpart)?\}")


class OidcProvider(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An OpenID Connect provider, and what its users may do here."""

    id: Annotated[str, _ID]
    name: Annotated[str, _LINE]
    issuer: Annotated[str, _ISSUER]
    """Compared as it is written: some end with a slash."""
    client_id: Annotated[str, _LINE]
    client_secret: Annotated[str, _LINE] | None = None
    client_secret_file: Annotated[str, _LINE] | None = None
    scopes: tuple[Annotated[str, _SCOPE], ...] = ("openid", "profile", "email")
    brand: Annotated[str, _ID] | None = None
    localpart_template: Annotated[str, _LINE] | None = None
    display_name_template: Annotated[str, _LINE] | None = "{name}"
    email_template: Annotated[str, _LINE] | None = "{email}"
    allow_existing_users: bool = True
    registration: Literal["open", "token", "closed"] | None = None
    backchannel_logout: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for what no pattern can check; the sentence has no secret in it."""
        parts = urlsplit(self.issuer)
        if parts.scheme == "http" and identifiers.is_public(parts.hostname or ""):
            raise ValueError("issuer has to begin with https://")
        if "openid" not in self.scopes:
            raise ValueError("scopes have to include openid")
        if self.client_secret is not None and self.client_secret_file is not None:
            raise ValueError("there is a client_secret and a client_secret_file")
        for template in self.templates:
            rest = _PLACEHOLDER.sub("", template)
            if "{" in rest or "}" in rest:
                raise ValueError("a template consists of texts and claims such as {email}")

    def __repr__(self) -> str:
        """Return a text without the secret."""
        return f"OidcProvider({self.id!r})"

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates that are set."""
        found = (self.localpart_template, self.display_name_template, self.email_template)
        return tuple(it for it in found if it is not None)

    @property
    def claims(self) -> set[str]:
        """The claims that its templates need."""
        return {match[1] for it in self.templates for match in _PLACEHOLDER.finditer(it)}


def filled(template: str | None, claims: dict[str, object]) -> str | None:
    """Return a template with the values of claims; None if it lacks one of them.

    `{email|localpart}` is what stands before the @.
    """
    if template is None:
        return None
    found: list[str] = []

    def value(match: re.Match[str]) -> str:
        claim = claims.get(match[1])
        text = str(claim) if isinstance(claim, str | int) else ""
        found.append(text)
        return text.partition("@")[0] if match[2] else text

    text = _PLACEHOLDER.sub(value, template).strip()
    return text if text and all(found) else None


def secret_files(raw: object) -> Iterator[Path]:
    """Yield the files of secrets in the setting as it is written; it may be wrong."""
    for it in raw if isinstance(raw, list) else ():
        path = it.get("client_secret_file") if isinstance(it, dict) else None
        if isinstance(path, str):
            yield values.PATH.parse(path)


def has_secret(raw: object) -> bool:
    """Return whether a secret is in the setting itself."""
    tables = raw if isinstance(raw, list) else []
    return any(isinstance(it, dict) and "client_secret" in it for it in tables)


def _providers(raw: object) -> tuple[OidcProvider, ...]:
    found = msgspec.convert(raw, tuple[OidcProvider, ...])
    if len({it.id for it in found}) < len(found):
        raise msgspec.ValidationError("two have the same id")
    return found


def _shown(providers: tuple[OidcProvider, ...]) -> str:
    """Write providers as TOML, with secrets masked."""
    hidden = [
        msgspec.structs.replace(it, client_secret=it.client_secret and "(not shown)")
        for it in providers
    ]
    return values.to_toml(hidden)


OidcProviders = Annotated[
    tuple[OidcProvider, ...],
    Kind(
        "a list of tables with id, name, issuer and client_id",
        _providers,
        values.from_toml,
        _shown,
        is_hidden=True,
    ),
]
