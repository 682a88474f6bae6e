"""URL previews."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base, Json


class UrlPreview(Base):
    """The preview of a page. Written by core/media/url_previews.py."""

    __tablename__ = "url_previews"
    url: Mapped[str] = mapped_column(primary_key=True)
    fetched_ts: Mapped[int]  # ms
    preview: Mapped[Json]  # as sent to clients
    problem: Mapped[str | None]  # why there is no preview
    image_sha256: Mapped[str | None]  # hex; the same image keeps its mxc URI

    __table_args__ = (Index(None, "fetched_ts"),)
