"""Previews of links."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base, Json


class UrlPreview(Base):
    """What a page said of itself. Written by core/media/url_previews.py."""

    __tablename__ = "url_previews"
    url: Mapped[str] = mapped_column(primary_key=True)
    fetched_ts: Mapped[int]  # ms
    preview: Mapped[Json]  # as clients get it
    problem: Mapped[str | None]  # why there is none
    image_sha256: Mapped[str | None]  # hex; the same picture keeps its mxc:// address

    __table_args__ = (Index(None, "fetched_ts"),)
