"""Uploaded files, URL previews, and files of other servers."""

from __future__ import annotations

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base, Json


class Media(Base):
    """An uploaded file, whose content is on the disk.

    Written by core/media/store.py, deletion.py and last_used.py.
    """

    __tablename__ = "media"
    origin: Mapped[str] = mapped_column(primary_key=True)  # server name
    media_id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str | None]  # whose quota it counts for
    created_ts: Mapped[int]  # ms
    unused_expires_ts: Mapped[int | None]  # ms; for an id created before its content
    content_type: Mapped[str | None]
    file_name: Mapped[str | None]
    size_bytes: Mapped[int | None]  # None: not uploaded yet
    sha256: Mapped[str | None]  # hex; the name of the file on the disk
    last_used_ts: Mapped[int | None]  # ms, to the day; None: not since it was uploaded
    # spared when all files of a user or room are quarantined
    is_protected: Mapped[bool] = mapped_column(default=False, server_default="0")

    __table_args__ = (
        Index(None, "user_id", "size_bytes"),
        Index(None, "sha256"),  # whether other files have the same content
        Index(  # ids without content
            "ix_media_pending",
            "user_id",
            sqlite_where=text("sha256 IS NULL"),
        ),
    )


class UrlPreview(Base):
    """The preview of a page. Written by core/media/url_previews.py."""

    __tablename__ = "url_previews"
    url: Mapped[str] = mapped_column(primary_key=True)
    fetched_ts: Mapped[int]  # ms
    preview: Mapped[Json]  # as sent to clients
    problem: Mapped[str | None]  # why there is no preview
    image_sha256: Mapped[str | None]  # hex; the same image keeps its mxc URI

    __table_args__ = (Index(None, "fetched_ts"),)


class RemoteMediaFile(Base):
    """A file of another server, kept until others need its place.

    Written by core/federation/remote_media.py.
    """

    __tablename__ = "remote_media"
    server: Mapped[str] = mapped_column(primary_key=True)
    media_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]  # of the file on the disk
    size_bytes: Mapped[int]
    content_type: Mapped[str]
    file_name: Mapped[str | None]
    last_used_ts: Mapped[int]  # ms, to the day
    sha256: Mapped[str | None]  # hex; not of files that were fetched before this was noted

    __table_args__ = (Index(None, "last_used_ts", "size_bytes"), Index(None, "sha256"))


class QuarantinedMedia(Base):
    """A file, of this server or another, that nobody can download. It may be deleted, or unknown.

    Written by core/media/quarantine.py.
    """

    __tablename__ = "quarantined_media"
    origin: Mapped[str] = mapped_column(primary_key=True)  # server name
    media_id: Mapped[str] = mapped_column(primary_key=True)
    quarantined_by: Mapped[str]  # the administrator
    quarantined_ts: Mapped[int]  # ms
    sha256: Mapped[str | None]  # hex; None if the content is not known

    __table_args__ = (Index(None, "sha256"),)


class MediaQuota(Base):
    """How much one user may upload, in place of quotas.media_bytes.

    Written by core/media/limits.py.
    """

    __tablename__ = "media_quotas"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    max_bytes: Mapped[int]
