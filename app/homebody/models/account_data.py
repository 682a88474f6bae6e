"""Account data and filters that clients store on the server."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class AccountData(Base):
    """One JSON object per user, room and type; room_id "" is global account data.

    This includes tags (m.tag), the read marker (m.fully_read) and changes of push rules
    (m.push_rules). Written by core/user_data/account_data.py.
    """

    __tablename__ = "account_data"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    room_id: Mapped[str] = mapped_column(primary_key=True)  # "", as NULLs never match
    type: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[str]  # JSON
    position: Mapped[int]
    size_bytes: Mapped[int] = mapped_column(server_default="0")  # of the content

    __table_args__ = (
        Index(None, "user_id", "position"),
        Index(None, "position"),  # what is new, of all users
        Index(None, "user_id", "size_bytes"),  # for the size of a user's data, without reading it
    )


class Filter(Base):
    """A filter stored by a client. Written by core/user_data/filters.py."""

    __tablename__ = "filters"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    filter_id: Mapped[str] = mapped_column(primary_key=True)
    definition: Mapped[str]  # JSON
