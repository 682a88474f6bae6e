"""The keys by which users vouch for devices and for each other, and what they have signed."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class CrossSigningKey(Base):
    """A user's key for one usage: master, self_signing or user_signing.

    Written by core/encryption/cross_signing.py.
    """

    __tablename__ = "cross_signing_keys"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    usage: Mapped[str] = mapped_column(primary_key=True)
    public_key: Mapped[str]  # unpadded base64; with "ed25519:" before it, the id of the key
    key: Mapped[str]  # JSON: the object as it was uploaded, without signatures


class KeySignature(Base):
    """A signature on somebody's device or cross-signing key.

    Written by core/encryption/key_signatures.py. `signed_key` is a device id or a public key: the
    two never collide.
    """

    __tablename__ = "key_signatures"
    signed_user_id: Mapped[str] = mapped_column(primary_key=True)
    signer_user_id: Mapped[str] = mapped_column(primary_key=True)
    signed_key: Mapped[str] = mapped_column(primary_key=True)
    signer_key_id: Mapped[str] = mapped_column(primary_key=True)  # ed25519:…
    signature: Mapped[str]
    position: Mapped[int]

    __table_args__ = (Index(None, "signer_user_id", "position"),)
