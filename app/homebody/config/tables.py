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


# The names are Synapse's. The defaults differ where a family would run into Synapse's limits on an
# ordinary day, as those are made for public servers.


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """Limits against guessing passwords."""

    # Synapse 0.003 and 5: the sixth device behind a router would wait five minutes, and so would a
    # bot that logs in at each start. failed_attempts stops guessing.
    address: RateLimit = RateLimit(0.17, 30)
    """Logins from one IP address; each login must pass all three limits."""
    # Synapse 0.003 and 5; as above.
    account: RateLimit = RateLimit(0.17, 30)
    """Logins to one account."""
    # Synapse 0.17 and 3. This one allows more typing errors, but 4,300 guesses a day, not 14,700.
    failed_attempts: RateLimit = RateLimit(0.05, 10)
    """Wrong passwords for one account."""


@dataclass(frozen=True, slots=True)
class JoinLimits:
    """Limits against filling rooms."""

    # Synapse 0.1 and 10: a new member of a space joins all its rooms at once.
    local: RateLimit = RateLimit(1.0, 50)
    """Joins of one account to rooms of this server."""
    # Synapse limits the joins to one room. The response has the state of the whole room.
    per_server: RateLimit = RateLimit(5.0, 200)
    """Joins and knocks of another server's users in rooms of this server."""


@dataclass(frozen=True, slots=True)
class InviteLimits:
    """Limits against invite spam."""

    # Synapse 0.3 and 10: inviting all relatives into a new room is one click.
    per_room: RateLimit = RateLimit(1.0, 50)
    """Invites into one room."""
    # Synapse 0.003 and 5: a new user is invited into all rooms that the others share.
    per_user: RateLimit = RateLimit(0.05, 30)
    """Invites that one account receives."""
    # Synapse 0.3 and 10; as per_room.
    per_issuer: RateLimit = RateLimit(1.0, 50)
    """Invites that one account sends."""
    # Synapse has none. A large server has thousands of users.
    per_server: RateLimit = RateLimit(5.0, 200)
    """Invites to rooms of other servers that one of those sends."""


@dataclass(frozen=True, slots=True)
class PresenceLimits:
    """Limits against busy presence."""

    # Synapse 0.1 and 1, which refuses every other update of a bot that sends one in 5 seconds.
    per_user: RateLimit = RateLimit(0.5, 10)
    """Changes of one account's presence."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much one account may store."""

    # All of it is in the response to a first /sync. Heavy use comes to some 100 KiB.
    account_data_bytes: Annotated[int, values.size(2**16)] = 20 * 2**20
    """Account data of one account, including tags and push rules."""
    account_data_objects: Annotated[int, values.whole(100, 1_000_000)] = 20_000
    """The number of account data objects of one account."""
    # A session with a device takes one, and another when it broke.
    claimed_keys_per_day: Annotated[int, values.whole(1, 1_000_000)] = 20
    """One-time keys of one device that another account may claim per day, or all guests and users
    who share no room with its owner together. Beyond that they get its fallback key. Not in effect
    without rate_limits."""
    # Ten years in large rooms come to 50,000 keys of 600 bytes.
    key_backup_bytes: Annotated[int, values.size(2**20)] = 256 * 2**20
    """Key backups of one account, all versions together."""
    # Some 3,000 photos of a phone, or three hours of its videos.
    media_bytes: Annotated[int, values.size(1)] = 10 * 2**30
    """Files that one account uploaded, and images of URL previews that it was the first to request.
    Uploads of bridges are not counted."""


@dataclass(frozen=True, slots=True)
class DelayedEvents:
    """Limits of events that are sent later (MSC4140).

    Calls need them, and so do reminders and messages that delete themselves.
    """

    max_delay_ms: Annotated[int, values.duration(1000)] = 86_400_000
    """How much later an event may be sent."""
    # As in Synapse. A call takes one for each device.
    max_scheduled: Annotated[int, values.whole(0, 100_000)] = 100
    """How many events one account may have scheduled. With 0, none can be."""


@dataclass(frozen=True, slots=True)
class MediaRetention:
    """When files are deleted.

    Files in use never are: in profiles, account data and the state of rooms (avatars, emoji,
    stickers), and in pinned messages.
    """

    local_media_lifetime_ms: Annotated[int, values.duration(86_400_000)] | None = None
    """How long files of this server's users are kept after somebody last downloaded them, such as
    "365 d". Default: forever. Messages keep their place, but the file of an old one is gone."""
    remote_media_lifetime_ms: Annotated[int, values.duration(86_400_000)] | None = None
    """The same for files of other servers, which are fetched again when somebody requests them.
    Default: until they take more than remote_media_bytes."""
    local_media_bytes: Annotated[int, values.size(2**20)] | None = None
    """How much space files of this server's users may take. Beyond that, those that were not used
    for the longest time are deleted. Default: as much as there is."""
    may_delete_encrypted: bool = False
    """Whether that includes files that may be encrypted (application/octet-stream). The server
    can't see which messages refer to them, so it can't tell whether a pinned one does."""


@dataclass(frozen=True, slots=True)
class Retention:
    """When old messages and rooms are deleted."""

    enabled: bool = False
    """Whether old messages are deleted, in rooms that ask for it (m.room.retention, MSC1763), and
    by default_max_lifetime. State events stay, and so does the last message of a room."""
    default_max_lifetime_ms: Annotated[int, values.duration(86_400_000)] | None = None
    """How long messages are kept in rooms that don't say. Default: forever."""
    allowed_lifetime_min_ms: Annotated[int, values.duration(1)] | None = None
    """The shortest time that a room may ask for; shorter ones count as this."""
    allowed_lifetime_max_ms: Annotated[int, values.duration(1)] | None = None
    """The longest time that a room may ask for; longer ones count as this."""
    forgotten_rooms_ms: Annotated[int, values.duration(1)] | None = 30 * 86_400_000
    """How long a room is kept that all users of this server have left and forgotten."""
    left_rooms_ms: Annotated[int, values.duration(86_400_000)] | None = None
    """How long a room is kept that all users of this server have left, but not forgotten: until
    then they can read its history. Default: forever."""


@dataclass(frozen=True, slots=True)
class AuditLog:
    """How long the audit log is kept."""

    lifetime_ms: Annotated[int, values.duration(86_400_000)] | None = 400 * 86_400_000
    """How long its entries are kept; "" for ever."""
    max_entries: Annotated[int, values.whole(0, 1_000_000_000)] = 100_000
    """How many entries are kept, the newest; with 0, any number."""


@dataclass(frozen=True, slots=True)
class Backup:
    """Backups that the server makes by itself."""

    folder: values.FilePath | None = None
    """The folder for backups that the server makes by itself while it runs, best on another disk.
    Default: it makes none. Each contains all files that users have uploaded."""
    every_ms: Annotated[int, values.duration(60_000)] = 86_400_000
    """How much time is between two of them."""
    keep: Annotated[int, values.whole(1, 10_000)] = 7
    """How many of them are kept. The oldest is deleted after a new one is complete."""
    remote_media: bool = False
    """Whether they include files of other servers, which can be fetched again."""


@dataclass(frozen=True, slots=True)
class Push:
    """What push gateways receive, and when mail notifications are sent."""

    include_content: bool = True
    """Whether push gateways, and Apple and Google behind them, receive the text of messages."""
    group_unread_count_by_room: bool = False
    """Whether the badge counts unread rooms instead of unread messages."""
    mail_delay_ms: values.Duration = 600_000
    """How long a message is unread before a user with mail notifications gets a mail."""
    mail_interval_ms: values.Duration = 1_800_000
    """The minimum time between two mails to a user."""


@dataclass(frozen=True, slots=True, repr=False)  # there is a password in it
class Smtp:
    """The mail server."""

    host: values.Host | None = None
    """A mail server. With one, users can add e-mail addresses to their accounts, log in with them,
    and reset forgotten passwords."""
    port: Annotated[int, values.whole(1, 65535)] = 587
    """587 with starttls, 465 with implicit TLS."""
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    """The encryption of the connection. none is for a mail server on the same machine."""
    user: values.Text | None = None
    """The user name for the mail server, if it needs a login."""
    password: values.Secret | None = None
    """The password for the mail server."""
    from_address: values.Sender | None = None
    """The sender address. Default: no-reply@ and the server name."""


class Contact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A contact for this server, with at least one of the two addresses."""

    role: Annotated[
        str, msgspec.Meta(pattern=r"^(m\.role\.(admin|security)|(?!m\.)[a-z][a-z0-9_.-]{0,254})\Z")
    ]
    matrix_id: str | None = None
    email_address: Annotated[str, msgspec.Meta(pattern=r"^[^@\s]+@[^@\s]+\Z")] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what no pattern can check."""
        if self.matrix_id is None and self.email_address is None:
            raise ValueError("no address")
        if self.matrix_id is not None and not identifiers.is_user_id(self.matrix_id):
            raise ValueError(self.matrix_id)


_LANGUAGE: Final = msgspec.Meta(pattern=r"^[A-Za-z]{2,8}([_-][A-Za-z0-9]{1,8})*\Z")
_OPAQUE: Final = msgspec.Meta(pattern=r"^[A-Za-z0-9._~-]{1,255}\Z")


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document that users accept at registration, in one language."""

    id: Annotated[str, _OPAQUE]
    version: Annotated[str, _OPAQUE]
    name: Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]+\Z")]
    url: Annotated[str, msgspec.Meta(pattern=rf"^{values.PAGE}\Z")]
    language: Annotated[str, _LANGUAGE] = "en"


class OldVerifyKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key with which this server signed its events formerly."""

    key_id: Annotated[str, msgspec.Meta(pattern=r"^ed25519:[A-Za-z0-9_]{1,100}\Z")]
    key: values.Ed25519Key
    expired_ts: Annotated[int, msgspec.Meta(ge=0, le=values.LARGEST)]


Contacts = Annotated[
    tuple[Contact, ...], "a list of tables with role, and with matrix_id, email_address or both"
]
Documents = Annotated[
    tuple[Document, ...], "a list of tables with id, version, name, url and language"
]
OldVerifyKeys = Annotated[
    tuple[OldVerifyKey, ...], "a list of tables with key_id, key and expired_ts"
]
