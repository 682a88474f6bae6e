"""What is kept of people beside their accounts: how to find them, what they have agreed to."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class DirectoryWord(Base):
    """A word by which a user is found, or the end of one, so that an index finds its middle too.

    Written by core/accounts/directory_index.py.
    """

    __tablename__ = "directory_words"
    word: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(primary_key=True)
    is_whole: Mapped[bool]  # from its first letter on

    __table_args__ = (Index(None, "user_id", "word"), {"sqlite_with_rowid": False})


class AcceptedTerms(Base):
    """A document that somebody has agreed to. Written by core/sessions/registration.py."""

    __tablename__ = "accepted_terms"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    document_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    accepted_ts: Mapped[int]  # ms


class OpenIdToken(Base):
    """Proves to others who somebody is. Written by core/accounts/openid.py."""

    __tablename__ = "openid_tokens"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    expires_ts: Mapped[int]  # ms

    __table_args__ = (Index(None, "expires_ts"),)
