"""What is known of other servers."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class ServerKey(Base):
    """A public key of another server, kept for ever. Written by core/federation/keys.py.

    Events that it signed have to be verified years after the server has replaced it.
    """

    __tablename__ = "server_keys"
    server_name: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str]  # base64
    expired_ts: Mapped[int | None]  # ms; when it was replaced, of an old key
    valid_until_ts: Mapped[int]  # ms; of the response, 7 days after fetched_ts at most
    fetched_ts: Mapped[int]  # ms
    response: Mapped[str]  # JSON, with the server's signatures
