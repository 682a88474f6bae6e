"""Send-to-device messages."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class ToDeviceMessage(Base):
    """A message that its device has not acknowledged.

    Written by core/encryption/to_device.py.
    """

    __tablename__ = "to_device_messages"
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    user_id: Mapped[str]
    device_id: Mapped[str]
    event: Mapped[str]  # JSON: type, sender and content, as in /sync
    source: Mapped[str] = mapped_column(
        server_default=""
    )  # whose limit applies: the sender's, or "" for guests

    __table_args__ = (
        Index(None, "user_id", "device_id", "position"),
        Index("ix_to_device_messages_source", "user_id", "device_id", "source", "position"),
    )


class PartialSync(Base):
    """A /sync response without all messages. Written by core/encryption/to_device.py.

    Its token only acknowledges messages up to `last_message`.
    """

    __tablename__ = "to_device_cut_answers"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[int] = mapped_column(primary_key=True)  # its position
    last_message: Mapped[int]  # position


class ToDeviceTransaction(Base):
    """A completed request, which must not be repeated. Written by core/encryption/to_device.py."""

    __tablename__ = "to_device_transactions"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(primary_key=True)
    event_type: Mapped[str] = mapped_column(primary_key=True)
    txn_id: Mapped[str] = mapped_column(primary_key=True)
    ts: Mapped[int]  # ms

    __table_args__ = (Index(None, "ts"),)


class ReceivedMessage(Base):
    """An EDU with messages of another server, which may send it again.

    Written by core/encryption/to_device_edus.py.
    """

    __tablename__ = "received_messages"
    origin: Mapped[str] = mapped_column(primary_key=True)
    message_id: Mapped[str] = mapped_column(primary_key=True)
    ts: Mapped[int]  # ms

    __table_args__ = (Index(None, "ts"), {"sqlite_with_rowid": False})
