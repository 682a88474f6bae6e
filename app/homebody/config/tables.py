"""The settings that are tables, and those that are lists of tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from homebody.config import values
from homebody.spec import identifiers


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket of `burst_count` requests that fills again at `per_second`."""

    per_second: values.Number = 1.0
    burst_count: Annotated[int, values.whole(1, 1_000_000)] = 10


# Synapse's names, so that its administrators find their way. The defaults differ where a family's
# ordinary day would meet Synapse's: those are made for public servers, full of strangers.


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """Against guessing passwords."""

    # Synapse 0.003 and 5: the sixth device behind the family's router would wait five minutes, and
    # so would a bot that logs in at each start. What stops guessing is failed_attempts.
    address: RateLimit = RateLimit(0.17, 30)
    """Log-ins from one IP address; each log-in must pass all three limits."""
    # Synapse 0.003 and 5; as above.
    account: RateLimit = RateLimit(0.17, 30)
    """Log-ins to one account."""
    # Synapse 0.17 and 3: kinder to who has forgotten a password, harder on who tries a list of them
    # (4,300 instead of 14,700 a day).
    failed_attempts: RateLimit = RateLimit(0.05, 10)
    """Wrong passwords for one account."""


@dataclass(frozen=True, slots=True)
class JoinLimits:
    """Against filling rooms."""

    # Synapse 0.1 and 10: a newcomer to a family's space joins all its rooms in one go.
    local: RateLimit = RateLimit(1.0, 50)
    """Joins of one account to rooms of this server."""


@dataclass(frozen=True, slots=True)
class InviteLimits:
    """Against spam by invites."""

    # Synapse 0.3 and 10: inviting the relatives into a new room is one click for all of them.
    per_room: RateLimit = RateLimit(1.0, 50)
    """Invites into one room."""
    # Synapse 0.003 and 5: a newcomer is invited into all the rooms that the others share.
    per_user: RateLimit = RateLimit(0.05, 30)
    """Invites that one account receives."""
    # Synapse 0.3 and 10; as per_room.
    per_issuer: RateLimit = RateLimit(1.0, 50)
    """Invites that one account sends."""


@dataclass(frozen=True, slots=True)
class PresenceLimits:
    """Against busy presence."""

    # Synapse 0.1 and 1: a bot that reports every five seconds would see every other report refused.
    per_user: RateLimit = RateLimit(0.5, 10)
    """Changes of one account's presence."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much of the server one account may fill."""

    # All of it is in the answer to a first /sync. Clients that use it a lot come to some 100 KiB.
    account_data_bytes: Annotated[int, values.size(2**16)] = 20 * 2**20
    """Account data of one account: settings of clients, tags, push rules, over all rooms."""
    account_data_objects: Annotated[int, values.whole(100, 1_000_000)] = 20_000
    """How many objects of account data one account has."""
    # A session with a device takes one, and is made anew when it broke.
    claimed_keys_per_day: Annotated[int, values.whole(1, 1_000_000)] = 20
    """One-time keys of one device that another account may claim in a day, and that all may claim
    together who share no room with its owner, or are guests. Beyond that they get its fallback
    key. Not in force without rate_limits."""
    # Ten years in large rooms make some 50,000 keys of 600 bytes.
    key_backup_bytes: Annotated[int, values.size(2**20)] = 256 * 2**20
    """Key backups of one account, all versions together."""
    # Some 3,000 pictures of a telephone, or three hours of its videos.
    media_bytes: Annotated[int, values.size(1)] = 10 * 2**30
    """Files that one account has uploaded, and pictures in previews that it was the first to ask
    for. What a bridge uploads is not counted."""


@dataclass(frozen=True, slots=True)
class Push:
    """What push gateways get to know, and when mails come."""

    include_content: bool = True
    """Whether notifications carry the message; Apple, Google and the gateway can then read it."""
    group_unread_count_by_room: bool = False
    """Whether the badge counts rooms with something unread, not messages."""
    mail_delay_ms: values.Duration = 600_000
    """How long a message is unread before a mail tells of it, to who asked for mails."""
    mail_interval_ms: values.Duration = 1_800_000
    """How long after a mail the next one comes at the earliest."""


@dataclass(frozen=True, slots=True, repr=False)  # there is a password in it
class Smtp:
    """Through whom mail goes out."""

    host: values.Host | None = None
    """The mail server. With one, people can add e-mail addresses to their accounts, log in with
    them, and get a new password when they have forgotten theirs."""
    port: Annotated[int, values.whole(1, 65535)] = 587
    """587 with starttls, 465 with implicit TLS."""
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    """How the connection is encrypted. none is for a mail server on the same machine."""
    user: values.Text | None = None
    """The name to log in with at the mail server, if it asks."""
    password: values.Secret | None = None
    """The password for that."""
    from_address: values.Sender | None = None
    """The sender of the mail. Default: no-reply@ and the server name."""


class Contact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Somebody to write to about this server; has at least one of the two addresses."""

    role: Annotated[
        str,
        msgspec.Meta(pattern=r"^(m\.role\.(admin|security)|(?!m\.)[a-z][a-z0-9_.-]{0,254})\Z"),
    ]
    matrix_id: str | None = None
    email_address: Annotated[str, msgspec.Meta(pattern=r"^[^@\s]+@[^@\s]+\Z")] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what no pattern says."""
        if self.matrix_id is None and self.email_address is None:
            raise ValueError("no address")
        if self.matrix_id is not None and not identifiers.is_user_id(self.matrix_id):
            raise ValueError(self.matrix_id)


_LANGUAGE: Final = msgspec.Meta(pattern=r"^[A-Za-z]{2,8}([_-][A-Za-z0-9]{1,8})*\Z")
_OPAQUE: Final = msgspec.Meta(pattern=r"^[A-Za-z0-9._~-]{1,255}\Z")


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text that people agree to when they register, in one language."""

    id: Annotated[str, _OPAQUE]
    version: Annotated[str, _OPAQUE]
    name: Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]+\Z")]
    url: Annotated[str, msgspec.Meta(pattern=rf"^{values.PAGE}\Z")]
    language: Annotated[str, _LANGUAGE] = "en"


Contacts = Annotated[
    tuple[Contact, ...],
    values.converted(
        "a list of tables with role (m.role.admin or m.role.security) and matrix_id or"
        " email_address",
        tuple[Contact, ...],
    ),
]
Documents = Annotated[
    tuple[Document, ...],
    values.converted(
        "a list of tables with id, version, name, url and language", tuple[Document, ...]
    ),
]
