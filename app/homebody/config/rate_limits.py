"""Rate limits among the settings, and how a setting is written down; see config.py."""

# ruff: noqa: RUF009 - setting() and limit() are dataclasses.field(), default first

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from homebody.config import values as kinds

T = TypeVar("T")


def setting(default: T, kind: kinds.Kind[T], meaning: str) -> T:
    """A field of one value."""
    metadata = {"kind": kind, "meaning": meaning}
    return field(default=default, metadata=metadata, repr=not kind.is_secret)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket of `burst_count` requests that fills again at `per_second`."""

    per_second: float = setting(1.0, kinds.NUMBER, "How many requests a second go on for ever.")
    burst_count: int = setting(
        10, kinds.whole(1, 1_000_000), "How many may come at once after a rest."
    )


def limit(per_second: float, burst_count: int, meaning: str) -> RateLimit:
    """A field that is a rate limit."""
    return field(default=RateLimit(per_second, burst_count), metadata={"meaning": meaning})


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much of the server one account may fill."""

    # All of it is in the answer to a first /sync. Clients that use it a lot come to some 100 KiB.
    account_data_bytes: int = setting(
        20 * 2**20,
        kinds.size(2**16),
        "Account data of one account: settings of clients, tags, push rules, over all rooms.",
    )
    account_data_objects: int = setting(
        20_000, kinds.whole(100, 1_000_000), "How many objects of account data one account has."
    )
    # A session with a device takes one, and is made anew when it broke.
    claimed_keys_per_day: int = setting(
        20,
        kinds.whole(1, 1_000_000),
        "One-time keys of one device that another account may claim in a day, and that all may"
        " claim together who share no room with its owner, or are guests. Beyond that they get its"
        " fallback key. Not in force without rate_limits.",
    )
    # Ten years in large rooms make some 50,000 keys of 600 bytes.
    key_backup_bytes: int = setting(
        256 * 2**20, kinds.size(2**20), "Key backups of one account, all versions together."
    )
    # Some 3,000 pictures of a telephone, or three hours of its videos.
    media_bytes: int = setting(
        10 * 2**30,
        kinds.size(1),
        "Files that one account has uploaded, and pictures in previews that it was the first to ask"
        " for. What a bridge uploads is not counted.",
    )


# Synapse's names, so that its owners find their way. The defaults differ where a family's ordinary
# day would meet Synapse's: those are made for public servers, where a stranger is the normal case.


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """Against guessing passwords."""

    # Synapse 0.003 and 5: the sixth device behind the family's router would wait five minutes, and
    # so would a bot that logs in at each start. What stops guessing is failed_attempts.
    address: RateLimit = limit(
        0.17, 30, "Log-ins from one IP address; each log-in must pass all three limits."
    )
    # Synapse 0.003 and 5; as above.
    account: RateLimit = limit(0.17, 30, "Log-ins to one account.")
    # Synapse 0.17 and 3: kinder to who has forgotten a password, harder on who tries a list of them
    # (4,300 instead of 14,700 a day).
    failed_attempts: RateLimit = limit(0.05, 10, "Wrong passwords for one account.")


@dataclass(frozen=True, slots=True)
class JoinLimits:
    """Against filling rooms."""

    # Synapse 0.1 and 10: a newcomer to a family's space joins all its rooms in one go.
    local: RateLimit = limit(1.0, 50, "Joins of one account to rooms of this server.")
    # Synapse 0.01 and 10; each costs us and the other server much, so it stays the slower one.
    remote: RateLimit = limit(
        0.1, 20, "Joins of one account to rooms elsewhere. Has not landed yet."
    )


@dataclass(frozen=True, slots=True)
class InviteLimits:
    """Against spam by invites."""

    # Synapse 0.3 and 10: inviting the relatives into a new room is one click for all of them.
    per_room: RateLimit = limit(1.0, 50, "Invites into one room.")
    # Synapse 0.003 and 5: a newcomer is invited into all the rooms that the others share.
    per_user: RateLimit = limit(0.05, 30, "Invites that one account receives.")
    # Synapse 0.3 and 10; as per_room.
    per_issuer: RateLimit = limit(1.0, 50, "Invites that one account sends.")


@dataclass(frozen=True, slots=True)
class PresenceLimits:
    """Against busy presence."""

    # Synapse 0.1 and 1: a bot that reports every five seconds would see every other report refused.
    per_user: RateLimit = limit(0.5, 10, "Changes of one account's presence.")
