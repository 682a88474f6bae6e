"""The index of the user directory, accepted terms and OpenID tokens."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class DirectoryWord(Base):
    """A word or a suffix of a word in a user's name, so that the index finds infixes too.

    Written by core/accounts/directory_index.py.
    """

    __tablename__ = "directory_words"
    word: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(primary_key=True)
    is_whole: Mapped[bool]  # whether it is a whole word

    __table_args__ = (Index(None, "user_id", "word"), {"sqlite_with_rowid": False})


class AcceptedTerms(Base):
    """A document accepted by a user. Written by core/sessions/registration.py."""

    __tablename__ = "accepted_terms"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    document_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    accepted_ts: Mapped[int]  # ms


class OpenIdToken(Base):
    """A token that proves a user's identity. Written by core/accounts/openid.py."""

    __tablename__ = "openid_tokens"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    expires_ts: Mapped[int]  # ms

    __table_args__ = (Index(None, "expires_ts"),)
