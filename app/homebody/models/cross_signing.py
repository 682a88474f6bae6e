"""Cross-signing keys, and signatures of device keys and cross-signing keys."""

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
    public_key: Mapped[str]  # unpadded base64; the key ID is this prefixed with "ed25519:"
    key: Mapped[str]  # JSON: the uploaded object without signatures


class KeySignature(Base):
    """A signature of a device key or cross-signing key.

    Written by core/encryption/key_signatures.py. `signed_key` is a device ID or a public key,
    which never collide.
    """

    __tablename__ = "key_signatures"
    signed_user_id: Mapped[str] = mapped_column(primary_key=True)
    signer_user_id: Mapped[str] = mapped_column(primary_key=True)
    signed_key: Mapped[str] = mapped_column(primary_key=True)
    signer_key_id: Mapped[str] = mapped_column(primary_key=True)  # ed25519:…
    signature: Mapped[str]
    position: Mapped[int]

    __table_args__ = (Index(None, "signer_user_id", "position"),)
