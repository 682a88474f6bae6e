"""Encrypted backups of room keys."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class KeyBackup(Base):
    """One version of a user's backup. Written by core/encryption/key_backup.py.

    The rows of deleted versions are kept, so that their numbers are not reused.
    """

    __tablename__ = "key_backups"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    algorithm: Mapped[str]
    auth_data: Mapped[str]  # JSON
    etag: Mapped[int]  # the number of changes of its keys
    key_count: Mapped[int]
    size_bytes: Mapped[int] = mapped_column(server_default="0")  # of the session data of its keys
    is_deleted: Mapped[bool]


class BackedUpKey(Base):
    """The key of one megolm session in a backup. Written by core/encryption/backed_up_keys.py."""

    __tablename__ = "backed_up_keys"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    room_id: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(primary_key=True)
    first_message_index: Mapped[int]
    forwarded_count: Mapped[int]
    is_verified: Mapped[bool]
    session_data: Mapped[str]  # JSON
