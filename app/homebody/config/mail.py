"""The mail server among the settings: the table [smtp]; see config.py."""

# ruff: noqa: RUF009 - setting() is dataclasses.field(), default first

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parseaddr
from typing import Final, Literal

from homebody.config import values as kinds
from homebody.config.rate_limits import setting
from homebody.spec import identifiers

Tls = Literal["starttls", "implicit", "none"]

_SENDER: Final = re.compile(r"[!-?A-~]+@[A-Za-z0-9.-]+")


def _sender(raw: object) -> str:
    if not isinstance(raw, str) or not raw.isprintable():
        raise ValueError(raw)
    if not _SENDER.fullmatch(parseaddr(raw)[1]):
        raise ValueError(raw)
    return raw


def _host(raw: object) -> str:
    if not identifiers.is_server_name(raw) or ":" in raw:
        raise ValueError(raw)
    return raw


HOST: Final = kinds.Kind("must be a host name or an IPv4 address, without a port", _host)
SENDER: Final = kinds.Kind("must be an address such as Example <no-reply@example.org>", _sender)


@dataclass(frozen=True, slots=True)
class Smtp:
    """Through whom mail goes out."""

    host: str | None = setting(
        None,
        kinds.optional(HOST),
        "The mail server. With one, people can add e-mail addresses to their accounts, log in with"
        " them, and get a new password when they have forgotten theirs.",
    )
    port: int = setting(587, kinds.whole(1, 65535), "587 with starttls, 465 with implicit TLS.")
    tls: Tls = setting(
        "starttls",
        kinds.choice(("starttls", "implicit", "none")),
        "How the connection is encrypted. none is for a mail server on the same machine.",
    )
    user: str | None = setting(
        None, kinds.optional(kinds.TEXT), "The name to log in with at the mail server, if it asks."
    )
    password: str | None = setting(None, kinds.optional(kinds.SECRET), "The password for that.")
    from_address: str | None = setting(
        None,
        kinds.optional(SENDER),
        "The sender of the mail. Default: no-reply@ and the server name.",
    )
