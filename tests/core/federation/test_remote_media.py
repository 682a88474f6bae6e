"""Files of other servers are fetched, kept, and deleted when others need their place."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from sqlalchemy import select
from werkzeug.test import TestResponse

from homebody.core.federation import asking, remote_media
from homebody.errors import MatrixError
from homebody.models.media import RemoteMediaFile
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.network import Network
from tests.helpers.remote import Remote, Remotes
from tests.helpers.rooms import refusal
from tests.helpers.scripted_server import Response, ScriptedServer

MEDIA = "/_matrix/client/v1/media"
OLD = "/_matrix/media/v3"
FEDERATION = "/federation/v1/media/download/"
TEXT = b"hello\r\n--x\r\n"
NOT_FOUND = (404, "M_NOT_FOUND")
UNAVAILABLE = (502, "M_UNKNOWN")
NOT_YET = (504, "M_NOT_YET_UPLOADED")


@pytest.fixture
def b(remote: Remotes) -> Remote:
    found = remote("b.test")
    found.media["cat"] = ("text/plain", TEXT)
    return found


@pytest.fixture
def alice(b: Remote, login: Login) -> Person:
    return login("alice")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "SECONDS", 0.3)
    monkeypatch.setattr(asking, "SECONDS_IF_FAILING", 0.2)
    monkeypatch.setattr(remote_media, "FETCH_SECONDS", 1.0)


@pytest.fixture
def elsewhere() -> Iterator[ScriptedServer]:
    """A web server with a file, as `Location` may name one."""
    found = ScriptedServer(lambda _: Response(200, TEXT, {"Content-Type": "image/gif"}), None)
    yield found
    found.close()


def get(person: Person, media_id: str = "cat", **query: Any) -> TestResponse:
    return person.get(f"{MEDIA}/download/b.test/{quote(media_id)}", query_string=query)


def multipart(content: bytes, headers: str = "Content-Type: a/b", boundary: str = "x") -> Response:
    body = (
        f"--x\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--x\r\n{headers}\r\n\r\n".encode()
        + content
        + b"\r\n--x--\r\n"
    )
    return Response(200, body, {"Content-Type": f"multipart/mixed; boundary={boundary}"})


def kept(app: Application) -> set[str]:
    """Return the ids of the files in the table, each of which is on the disk."""
    with app.homeserver.database.read() as tx:
        rows = tx.sql.execute(select(RemoteMediaFile.media_id, RemoteMediaFile.name)).all()
    folder = app.homeserver.server.config.data_dir / "media"
    on_disk = {it.parent.name + it.name for it in (folder / "remote").glob("*/*")}
    assert on_disk == {row.name for row in rows}
    assert not list((folder / "incoming").glob("*"))
    return {row.media_id for row in rows}


def test_a_file_is_fetched_once(app: Application, b: Remote, alice: Person) -> None:
    answers = [get(alice) for _ in range(3)]
    named = alice.get(f"{MEDIA}/download/b.test/cat/my.txt")
    old = alice.get(f"{OLD}/download/b.test/cat")

    assert [it.data for it in [*answers, named, old]] == [TEXT] * 5
    assert answers[0].headers["Content-Type"] == "text/plain"
    assert answers[0].headers["Content-Length"] == str(len(TEXT))
    assert named.headers["Content-Disposition"] == 'inline; filename="my.txt"'
    (request,) = b.received("media")
    assert (request.path, request.query) == (
        "/_matrix/federation/v1/media/download/cat",
        {"timeout_ms": ["20000"]},
    )
    assert kept(app) == {"cat"}


def test_a_part_of_a_file_and_what_did_not_change_are_known(alice: Person) -> None:
    etag = get(alice).headers["ETag"]

    part = alice.get(f"{MEDIA}/download/b.test/cat", headers={"Range": "bytes=1-3"})
    same = alice.get(f"{MEDIA}/download/b.test/cat", headers={"If-None-Match": etag})

    assert (part.status_code, part.data) == (206, TEXT[1:4])
    assert same.status_code == 304


def test_type_and_name_are_those_of_the_part(b: Remote, alice: Person) -> None:
    headers = 'Content-Type: image/png\r\nContent-Disposition: inline; filename="a.png"'
    b.answer(FEDERATION, multipart(b"", headers))

    answer = get(alice)

    assert (answer.data, answer.headers["Content-Type"]) == (b"", "image/png")
    assert answer.headers["Content-Disposition"] == 'inline; filename="a.png"'


@pytest.mark.parametrize("headers", ["", "Content-Type:", "Content-Type: \u00fc", "X: y"])
def test_without_a_valid_type_a_file_is_an_attachment(
    b: Remote, alice: Person, headers: str
) -> None:
    b.answer(FEDERATION, multipart(TEXT, headers or "X-Nothing: 1"))

    answer = get(alice)

    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == "attachment"


def test_thumbnails_are_made_here(app: Application, b: Remote, alice: Person) -> None:
    image = io.BytesIO()
    Image.new("RGB", (800, 800), "red").save(image, "PNG")
    b.media["dog"] = ("image/png", image.getvalue())

    answers = [
        alice.get(f"{path}/thumbnail/b.test/dog?width=30&height=30&method=crop")
        for path in (MEDIA, OLD)
    ]

    assert [Image.open(io.BytesIO(it.data)).size for it in answers] == [(32, 32)] * 2
    assert len(b.received("media")) == 1
    folder = app.homeserver.server.config.data_dir / "media" / "remote_thumbnails"
    assert len(list(folder.glob("*/*/*"))) == 1


def test_a_large_file_is_the_same_here(app: Application, b: Remote, alice: Person) -> None:
    content = bytes(range(256)) * 8192 + b"\r\n--spli"
    b.media["large"] = ("video/mp4", content)

    assert get(alice, "large").data == content
    assert kept(app) == {"large"}


# errors


def test_an_unknown_file_is_not_found_and_not_asked_for_again(
    app: Application, b: Remote, alice: Person
) -> None:
    assert [refusal(get(alice, "nothing")) for _ in range(2)] == [NOT_FOUND] * 2
    assert len(b.received("media")) == 1
    assert kept(app) == set()


@pytest.mark.parametrize(
    "response",
    [
        Response(500, {"errcode": "M_UNKNOWN"}),
        Response(200, TEXT, {"Content-Type": "text/plain"}),
        Response(200, {"hello": "world"}),
        Response(200, TEXT, {"Content-Type": "multipart/mixed"}),
        Response(200, TEXT, {"Content-Type": "multipart/mixed; boundary=x"}),
        multipart(TEXT, boundary="another"),
        Response(200, b"--x\r\n\r\n{}\r\n--x--", {"Content-Type": "multipart/mixed; boundary=x"}),
        multipart(b"both", "Location: https://cdn.example.org/a"),
        multipart(b"", "Location: ftp://cdn.example.org/a"),
        multipart(b"", "Location: http://[1"),
    ],
)
def test_what_is_not_a_file_is_an_error(
    app: Application, b: Remote, alice: Person, response: Response
) -> None:
    b.answer(FEDERATION, response)

    assert refusal(get(alice)) == UNAVAILABLE
    assert kept(app) == set()


def test_half_a_file_is_an_error(app: Application, b: Remote, alice: Person) -> None:
    b.cut(FEDERATION, times=1)

    assert refusal(get(alice)) == UNAVAILABLE
    assert kept(app) == set()


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_file_that_is_too_large_is_not_kept(
    make_app: MakeApp, remote: Remotes, b: Remote, login: Login, is_announced: bool
) -> None:
    app = make_app(**remote.settings, max_remote_file_bytes="1000")
    remote.talk_to(app)
    size = 200_000 if is_announced else 140_000
    b.media["cat"] = ("text/plain", b"x" * size)

    found = app.homeserver.remote_media
    with pytest.raises(MatrixError) as caught:
        found.find("b.test", "cat", 0, lambda: None)

    assert (caught.value.status, caught.value.errcode) == (502, "M_TOO_LARGE")
    assert kept(app) == set()


@pytest.mark.usefixtures("impatient")
def test_a_server_that_hangs_is_not_waited_for(b: Remote, alice: Person) -> None:
    b.hang(FEDERATION)

    began = time.monotonic()
    answer = get(alice, timeout_ms=0)

    assert refusal(answer) == NOT_YET
    assert time.monotonic() - began < 3


@pytest.mark.usefixtures("impatient")
def test_a_slow_file_is_there_when_it_is_requested_again(b: Remote, alice: Person) -> None:
    b.delay(FEDERATION, 0.6)

    first = get(alice, timeout_ms=0)
    second = get(alice, timeout_ms=2000)

    assert refusal(first) == NOT_YET
    assert second.data == TEXT
    assert len(b.received("media")) == 1


def test_content_that_is_not_uploaded_yet_is_asked_for_again(b: Remote, alice: Person) -> None:
    b.fail(FEDERATION, 504, times=1, errcode="M_NOT_YET_UPLOADED")

    assert refusal(get(alice, timeout_ms=5)) == NOT_YET
    assert get(alice).data == TEXT
    assert b.received("media")[0].query == {"timeout_ms": ["5"]}


def test_concurrent_requests_share_one_fetch(app: Application, b: Remote, alice: Person) -> None:
    b.delay(FEDERATION, 0.2)
    answers: list[bytes] = []

    threads = [threading.Thread(target=lambda: answers.append(get(alice).data)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [TEXT] * 5
    assert len(b.received("media")) == 1
    assert kept(app) == {"cat"}


# old servers and locations


@pytest.mark.parametrize(
    "lacking",
    [
        Response(404, {"errcode": "M_UNRECOGNIZED"}),
        Response(400, {"errcode": "M_UNRECOGNIZED"}),
        Response(404, b"404 page not found"),
        Response(405, b""),
        Response(400, b"no such path"),
    ],
)
def test_older_servers_are_asked_on_the_old_path(
    b: Remote, alice: Person, lacking: Response
) -> None:
    headers = {"Content-Type": "text/plain", "Content-Disposition": "inline; filename=a.txt"}
    b.answer(FEDERATION, lacking)
    b.answer("/media/v3/", Response(200, TEXT, headers))

    answer = get(alice)

    assert answer.data == TEXT
    assert answer.headers["Content-Disposition"] == 'inline; filename="a.txt"'
    request = b.received("/media/v3/")[0]
    assert request.path == "/_matrix/media/v3/download/b.test/cat"
    assert request.query["allow_remote"] == ["false"]
    assert "Authorization" not in request.headers


def test_a_file_that_is_missing_is_not_looked_for_on_the_old_path(b: Remote, alice: Person) -> None:
    assert refusal(get(alice, "nothing")) == NOT_FOUND
    assert not b.received("/media/v3/")


def test_a_file_may_be_elsewhere(b: Remote, alice: Person, elsewhere: ScriptedServer) -> None:
    b.media["cat"] = (f"http://127.0.0.1:{elsewhere.port}/file?a=b", b"")

    answer = get(alice)

    assert (answer.data, answer.headers["Content-Type"]) == (TEXT, "image/gif")
    (request,) = elsewhere.requests
    assert (request.uri, request.headers.get("Authorization")) == ("/file?a=b", None)


@pytest.mark.parametrize("response", [Response(404, b""), Response(302, b"", {})])
def test_a_location_without_a_file_is_an_error(
    app: Application,
    b: Remote,
    alice: Person,
    elsewhere: ScriptedServer,
    response: Response,
) -> None:
    elsewhere.answer("/", response)
    b.media["cat"] = (f"http://127.0.0.1:{elsewhere.port}/file", b"")

    assert refusal(get(alice)) == UNAVAILABLE
    assert kept(app) == set()


def test_a_location_in_the_own_network_is_refused(
    make_app: MakeApp, remote: Remotes, b: Remote, elsewhere: ScriptedServer
) -> None:
    app = make_app(**remote.settings)
    remote.talk_to(app)
    b.media["cat"] = (f"http://[::1]:{elsewhere.port}/file", b"")

    with pytest.raises(MatrixError) as caught:
        app.homeserver.remote_media.find("b.test", "cat", 0, lambda: None)

    assert caught.value.status == 502
    assert not elsewhere.requests


# what is not fetched


@pytest.mark.parametrize(
    "path",
    [
        f"{OLD}/download/b.test/cat?allow_remote=false",
        f"{MEDIA}/download/b.test/c%20t",
        f"{MEDIA}/download/b.test/{'a' * 300}",
        f"{MEDIA}/download/b%20test/cat",
    ],
)
def test_some_names_are_not_asked_for(b: Remote, alice: Person, path: str) -> None:
    assert refusal(alice.get(path)) == NOT_FOUND
    assert not b.received("media")


def test_without_federation_nothing_is_fetched(make_app: MakeApp, remote: Remotes) -> None:
    app = make_app(**{**remote.settings, "federation": "false", "media_without_token": "true"})

    answer = app.test_client().get(f"{OLD}/download/b.test/cat")

    assert refusal(answer) == NOT_FOUND


def test_fetching_is_limited_and_what_is_kept_is_not(
    make_app: MakeApp, remote: Remotes, b: Remote
) -> None:
    app = make_app(
        **remote.settings,
        media_without_token="true",
        rate_limits="true",
        **{"rc_remote_media.per_second": "0.001", "rc_remote_media.burst_count": "1"},
    )
    remote.talk_to(app)
    anybody = app.test_client()

    known = [anybody.get(f"{OLD}/download/b.test/cat") for _ in range(2)]
    other = anybody.get(f"{OLD}/download/b.test/dog")

    assert [it.data for it in known] == [TEXT] * 2
    assert refusal(other) == (429, "M_LIMIT_EXCEEDED")


# keeping and deleting


def test_a_file_that_is_lost_is_fetched_again(app: Application, b: Remote, alice: Person) -> None:
    get(alice)
    folder = app.homeserver.server.config.data_dir / "media" / "remote"
    for path in folder.glob("*/*"):
        path.unlink()

    assert get(alice).data == TEXT
    assert len(b.received("media")) == 2
    assert kept(app) == {"cat"}


def test_what_was_not_used_for_the_longest_time_is_deleted(
    make_app: MakeApp, remote: Remotes, b: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(**remote.settings, remote_media_bytes="1000")
    remote.talk_to(app)
    now_ns, hours = time.time_ns, iter(range(0, 1000, 30))

    def find(media_id: str) -> None:
        at = next(hours)
        monkeypatch.setattr("time.time_ns", lambda: now_ns() + at * 3_600_000_000_000)
        b.media[media_id] = ("text/plain", b"x" * 300)
        app.homeserver.remote_media.find("b.test", media_id, 0, lambda: None)

    for media_id in ("one", "two", "three", "one", "four"):
        find(media_id)

    assert kept(app) == {"one", "three", "four"}


def test_the_disk_being_full_is_no_fault_of_the_file(
    app: Application, b: Remote, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = app.homeserver.server.config.data_dir / "media" / "remote"
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("in the way")

    refused = refusal(get(alice))
    folder.unlink()

    assert refused == (503, "M_UNKNOWN")
    assert get(alice).data == TEXT


def test_two_servers_exchange_files(two_servers: Network) -> None:
    a, b = two_servers["a.test"], two_servers["b.test"]
    alice, bob = a.person("alice"), b.person("bob")
    content = bytes(range(256)) * 4096

    uri = bob.ask("POST", "/_matrix/media/v3/upload", content)["content_uri"]
    media = uri.removeprefix("mxc://")
    answers = [alice.raw("GET", f"{MEDIA}/download/{media}") for _ in range(2)]

    assert answers == [(200, content)] * 2
