"""Previews of links: a page is fetched, its Open Graph properties are read, and kept for an hour.

The guarded client fetches: no private addresses, limits in time and size. The image becomes a file
of this server, so that clients are not visible to the page's server. Many clients request the same
link at once, when a message with it arrives; they share one fetch.

This module alone writes the table url_previews.
Spec: client-server-api#get_matrixclientv1mediapreview_url
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urldefrag, urlsplit

from sqlalchemy import bindparam, delete, insert, select

from homebody import errors
from homebody.config.settings import Config
from homebody.core.media import images, open_graph, store
from homebody.models.media import UrlPreview
from homebody.outside import RemoteError
from homebody.outside.client import Client, Response
from homebody.runtime import event_loop
from homebody.runtime.single_flight import Repeats
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader

KEPT_MS: Final = 3_600_000
PROBLEM_KEPT_MS: Final = 300_000
"""For a page that could not be fetched, and may soon be there."""
FORGOTTEN_MS: Final = 30 * 24 * 3_600_000
MAX_URL: Final = 2048
MAX_PAGE_BYTES: Final = 512 * 2**10
"""The metadata is at the beginning of a page; the rest is not read."""
MAX_IMAGE_BYTES: Final = 8 * 2**20
TIMEOUT_SECONDS: Final = 10.0
"""For the page, and again for the image."""
MAX_REDIRECTS: Final = 5

_HEADERS: Final = {
    # Some pages have their metadata only for browsers or known bots
    "User-Agent": "Mozilla/5.0 (compatible; homebody; bot for previews of links)",
    "Accept": "text/html,application/xhtml+xml,image/*;q=0.8,*/*;q=0.1",
}
_FIND = select(
    UrlPreview.fetched_ts, UrlPreview.preview, UrlPreview.problem, UrlPreview.image_sha256
).where(UrlPreview.url == bindparam("url"))
_DELETE = delete(UrlPreview).where(UrlPreview.url == bindparam("its_url"))
_DELETE_OLD = delete(UrlPreview).where(UrlPreview.fetched_ts <= bindparam("until"))


@dataclass(frozen=True, slots=True)
class _Made:
    """A preview, or the problem."""

    preview: Json = field(default_factory=dict)
    problem: str | None = None
    image_sha256: str | None = None
    fetched_ts: int = 0

    @property
    def kept_ms(self) -> int:
        return KEPT_MS if self.problem is None else PROBLEM_KEPT_MS


def get(db: Database, client: Client, repeats: Repeats, url: str, user_id: str) -> Json:
    """Return the Open Graph properties of a page, of which it may have none.

    The image counts towards the quota of the first user who requests the preview.
    Raises M_INVALID_PARAM for an invalid URL, M_FORBIDDEN for a blocked one, M_NOT_FOUND when it
    could not be fetched.
    """
    url = _checked(db.server.config, url)
    with db.read() as tx:
        made = _kept(tx, url)
    if made is None:

        def make() -> Json:
            again = _make_and_keep(db, client, url, user_id)
            return {"preview": again.preview, "problem": again.problem}

        answer = repeats.once(("url_preview", url), make)
        made = _Made(answer["preview"], answer["problem"])
    if made.problem is not None:
        raise errors.not_found(made.problem)
    return made.preview


def _checked(config: Config, url: str) -> str:
    """Return the link without its fragment. Raises M_INVALID_PARAM, M_FORBIDDEN."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if host is None or len(url) > MAX_URL or parts.scheme not in {"http", "https"}:
        raise errors.invalid_param("url must be a link that begins with https:// or http://")
    _check_host(config, url)
    return urldefrag(url).url


def _check_host(config: Config, url: str) -> None:
    host = (urlsplit(url).hostname or "").rstrip(".")
    for name in config.url_preview_blacklist:
        if host == name.lower() or host.endswith(f".{name.lower()}"):
            raise errors.forbidden("This server makes no previews of this site")


def _kept(tx: Reader, url: str) -> _Made | None:
    """Return the stored preview of a link, unless it is too old or its image was deleted."""
    row = tx.sql.execute(_FIND, {"url": url}).first()
    if row is None:
        return None
    made = _Made(row.preview, row.problem, row.image_sha256, row.fetched_ts)
    image = made.preview.get("og:image")
    if row.fetched_ts <= tx.now_ms - made.kept_ms or (image and not store.exists(tx, image)):
        return None
    return made


def _make_and_keep(db: Database, client: Client, url: str, user_id: str) -> _Made:
    with db.read() as tx:
        made = _kept(tx, url)  # a request just before may have made it
        before = tx.sql.execute(_FIND, {"url": url}).first()
    if made is not None:
        return made
    earlier = None if before is None else _Made(before.preview, None, before.image_sha256)
    try:
        made = _make(db, client, url, user_id, earlier)
    except RemoteError as error:
        if error.kind == "refused":
            raise errors.forbidden("This server does not fetch pages from there") from error
        made = _Made(problem="The page could not be fetched")
    with db.write() as tx:
        tx.sql.execute(_DELETE, {"its_url": url})
        tx.sql.execute(_DELETE_OLD, {"until": tx.now_ms - FORGOTTEN_MS})
        row = {
            "url": url,
            "fetched_ts": tx.now_ms,
            "preview": made.preview,
            "problem": made.problem,
            "image_sha256": made.image_sha256,
        }
        tx.sql.execute(insert(UrlPreview), row)
    return made


def _make(db: Database, client: Client, url: str, user_id: str, earlier: _Made | None) -> _Made:
    """Fetch a page and make its preview. Raises RemoteError, M_FORBIDDEN."""
    answer = _fetch(db, client, url, MAX_PAGE_BYTES, truncate=True)
    if not 200 <= answer.status < 300:
        return _Made(problem=f"The page answers with status {answer.status}")
    content_type = answer.headers.get("Content-Type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("image/"):
        named = PurePosixPath(unquote(urlsplit(answer.url).path)).name
        properties = {"og:title": named} if named else {}
        return _with_image(db, client, user_id, properties, answer.url, earlier)
    if kind not in {"text/html", "application/xhtml+xml"}:
        return _Made()
    properties = event_loop.offload(open_graph.read, answer.body, content_type, answer.url)
    return _with_image(db, client, user_id, properties, properties.pop("og:image", None), earlier)


def _with_image(
    db: Database,
    client: Client,
    user_id: str,
    properties: dict[str, str],
    url: str | None,
    earlier: _Made | None,
) -> _Made:
    """Fetch the image and return the preview with it, or without if that fails."""
    if url is None or len(url) > MAX_URL:
        return _Made(dict(properties))
    try:
        most = min(MAX_IMAGE_BYTES, db.server.config.max_upload_bytes)
        answer = _fetch(db, client, url, most)
        measured = event_loop.offload(images.measure, answer.body)
        sha256 = hashlib.sha256(answer.body).hexdigest()
        is_known = earlier is not None and earlier.image_sha256 == sha256
        uri = earlier.preview.get("og:image") if earlier is not None and is_known else None
        if uri is not None:
            with db.read() as tx:
                uri = uri if store.exists(tx, uri) else None
        uri = uri or store.upload(db, user_id, _upload(answer.body, measured.media_type))
    except (
        RemoteError,
        errors.MatrixError,  # for example the user's quota is used up
        images.NotAnImageError,
        images.ImageTooLargeError,
    ):
        return _Made(dict(properties))
    image: Json = {
        "og:image": uri,
        "og:image:type": measured.media_type,
        "og:image:width": measured.width,
        "og:image:height": measured.height,
        "matrix:image:size": len(answer.body),
    }
    return _Made({**properties, **image}, image_sha256=sha256)


def _upload(image: bytes, media_type: str) -> store.Upload:
    return store.Upload(io.BytesIO(image).readinto, media_type, None, len(image))


def _fetch(
    db: Database, client: Client, url: str, max_bytes: int, *, truncate: bool = False
) -> Response:
    """Fetch a URL. Raises RemoteError, and M_FORBIDDEN for a redirect to a blocked site."""
    _check_host(db.server.config, url)
    answer = client.request(
        "GET",
        url,
        headers=_HEADERS,
        timeout_s=TIMEOUT_SECONDS,
        max_bytes=max_bytes,
        redirects=MAX_REDIRECTS,
        truncate=truncate,
    )
    _check_host(db.server.config, answer.url)
    return answer
