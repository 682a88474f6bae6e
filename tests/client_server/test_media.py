"""Uploading and downloading files."""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.client_server import file_responses
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.rooms import refusal

MEDIA = "/_matrix/client/v1/media"
OLD = "/_matrix/media/v3"
TEXT = b"Ten letters, and some more of them."


def upload(
    person: Person, data: bytes = TEXT, content_type: str = "text/plain", **query: str
) -> str:
    """server/id of a new file."""
    answer = person.post(
        f"{OLD}/upload",
        data=data,
        json=None,
        headers={"Content-Type": content_type},
        query_string=query,
    )
    assert answer.status_code == 200, answer.get_json()
    uri: str = answer.get_json()["content_uri"]
    assert uri.startswith("mxc://localhost/")
    return uri.removeprefix("mxc://")


def download(person: Person, media: str, **kwargs: Any) -> TestResponse:
    return person.get(f"{MEDIA}/download/{media}", **kwargs)


def test_a_file_comes_back_as_it_was_uploaded(login: Login) -> None:
    media = upload(login("alice"), TEXT, "text/plain; charset=utf-8", filename="notes.txt")

    answer = download(login("bob"), media)

    assert answer.status_code == 200
    assert answer.data == TEXT
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'inline; filename="notes.txt"'
    assert answer.headers["Content-Length"] == str(len(TEXT))


OLD_PREFIXES = ["/_matrix/media/r0", "/_matrix/media/v1", "/_matrix/media/v3"]


@pytest.mark.parametrize("prefix", OLD_PREFIXES)
def test_the_old_paths_give_files_to_who_shows_a_token(
    login: Login, client: FlaskClient, prefix: str
) -> None:
    alice = login("alice")
    answer = alice.post(f"{prefix}/upload", data=TEXT, json=None)
    media = answer.get_json()["content_uri"].removeprefix("mxc://")

    mine = alice.get(f"{prefix}/download/{media}/a.txt?allow_remote=false&allow_redirect=true")
    in_query = client.get(f"{prefix}/download/{media}?access_token={alice.access_token}")
    nobodys = client.get(f"{prefix}/download/{media}")

    assert (mine.status_code, mine.data) == (200, TEXT)
    assert mine.headers["Cache-Control"].startswith("private")
    assert 'filename="a.txt"' in mine.headers["Content-Disposition"]
    assert in_query.data == TEXT
    assert refusal(nobodys) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("prefix", OLD_PREFIXES)
def test_the_old_paths_can_be_opened_to_all(make_app: MakeApp, prefix: str) -> None:
    app = make_app(media_without_token="true")
    alice = _alice(app)
    answer = alice.post(f"{prefix}/upload", data=TEXT, json=None)
    media = answer.get_json()["content_uri"].removeprefix("mxc://")

    plain = app.test_client().get(f"{prefix}/download/{media}")

    assert (plain.status_code, plain.data) == (200, TEXT)
    assert plain.headers["Cache-Control"] == "public, max-age=31536000, immutable"


def test_the_new_paths_want_a_token(login: Login, client: FlaskClient) -> None:
    media = upload(login("alice"))

    for path in (f"download/{media}", f"download/{media}/a", f"thumbnail/{media}", "config"):
        assert refusal(client.get(f"{MEDIA}/{path}")) == (401, "M_MISSING_TOKEN")
    assert refusal(client.get(f"{OLD}/config")) == (401, "M_MISSING_TOKEN")
    assert refusal(client.post(f"{OLD}/upload", data=TEXT)) == (401, "M_MISSING_TOKEN")


def test_the_limit_is_told_and_kept(make_app: MakeApp, tmp_path: Path) -> None:
    alice = _alice(make_app(max_upload_bytes="1000"))

    config = alice.get(f"{MEDIA}/config").get_json()
    old_config = alice.get("/_matrix/media/r0/config").get_json()
    largest = alice.post(f"{OLD}/upload", data=b"x" * 1000, json=None)
    larger = alice.post(f"{OLD}/upload", data=b"x" * 1001, json=None)

    assert config == old_config == {"m.upload.size": 1000}
    assert largest.status_code == 200
    assert refusal(larger) == (413, "M_TOO_LARGE")
    assert list((tmp_path / "media/incoming").iterdir()) == []


def test_a_body_without_a_length_is_refused_when_it_has_grown_too_large(
    make_app: MakeApp, tmp_path: Path
) -> None:
    alice = _alice(make_app(max_upload_bytes="3000000"))
    body = io.BytesIO(b"x" * 9_000_000)

    answer = alice.post(
        f"{OLD}/upload",
        json=None,
        input_stream=body,
        environ_overrides={"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
    )

    assert refusal(answer) == (413, "M_TOO_LARGE")
    assert body.tell() < 5_000_000
    assert list((tmp_path / "media/incoming").iterdir()) == []
    assert not (tmp_path / "media/files").exists()


def test_a_body_that_ends_early_is_not_kept(login: Login, tmp_path: Path) -> None:
    answer = login("alice").post(
        f"{OLD}/upload",
        json=None,
        input_stream=io.BytesIO(TEXT),
        environ_overrides={"CONTENT_LENGTH": "1000", "wsgi.input_terminated": True},
    )

    assert refusal(answer) == (400, "M_UNKNOWN")
    assert not (tmp_path / "media/files").exists()


def test_the_same_content_lies_on_the_disk_once(login: Login, tmp_path: Path) -> None:
    first = upload(login("alice"), TEXT, "text/plain", filename="one.txt")
    second = upload(login("bob"), TEXT, "image/png", filename="two.png")

    digest = hashlib.sha256(TEXT).hexdigest()
    kept = [path for path in (tmp_path / "media/files").rglob("*") if path.is_file()]

    assert first != second
    assert kept == [tmp_path / "media/files" / digest[:2] / digest[2:]]
    assert download(login("bob"), first).headers["Content-Type"] == "text/plain"
    assert download(login("bob"), second).headers["Content-Type"] == "image/png"


def test_an_empty_file_is_a_file(login: Login) -> None:
    alice = login("alice")

    answer = download(alice, upload(alice, b""))

    assert (answer.status_code, answer.data) == (200, b"")


def test_without_a_type_it_is_just_bytes(login: Login) -> None:
    alice = login("alice")

    answer = download(alice, upload(alice, TEXT, ""))

    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == "attachment"


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("image/png", "inline"),
        ("IMAGE/PNG", "inline"),
        ("text/plain; charset=utf-8", "inline"),
        ("text/plain;charset=utf-8 ; format=flowed", "inline"),
        ('text/plain; charset="utf-8"', "inline"),
        ("application/json", "inline"),
        ("audio/x-pn-wav", "inline"),
        ("text/html", "attachment"),
        ("image/svg+xml", "attachment"),
        ("application/pdf", "attachment"),
        ("text/plain,text/html", "attachment"),
        ("image/png;, text/html", "attachment"),
        ("image/png; a=b, text/html", "attachment"),
        ('image/png; a="b", text/html', "attachment"),
        ('image/png; a="b\\", text/html; "', "attachment"),
        ('image/png; a=", text/html', "attachment"),
        ("image/png; text/html", "attachment"),
        ("image/png;", "attachment"),
        ("image/png /", "attachment"),
        ("image /png", "attachment"),
        ("nonsense", "attachment"),
    ],
)
def test_only_what_can_hold_no_script_is_shown_by_a_browser(
    login: Login, content_type: str, expected: str
) -> None:
    alice = login("alice")

    answer = download(alice, upload(alice, TEXT, content_type))

    assert answer.headers["Content-Disposition"] == expected
    assert answer.headers["Content-Type"] == content_type


def test_a_browser_is_told_to_run_nothing(login: Login) -> None:
    alice = login("alice")

    headers = download(alice, upload(alice)).headers

    assert headers["Content-Security-Policy"].startswith("sandbox; default-src 'none';")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain.txt", 'inline; filename="plain.txt"'),
        ("größe.txt", "inline; filename=\"gr__e.txt\"; filename*=utf-8''gr%C3%B6%C3%9Fe.txt"),
        ('a"b\\c', "inline; filename=\"a_b_c\"; filename*=utf-8''a%22b%5Cc"),
        ("a\r\nSet-Cookie: b", "inline; filename=\"a__Set-Cookie: b\"; filename*=utf-8''"
         "a%0D%0ASet-Cookie%3A%20b"),
        ("a/b", 'inline; filename="a/b"'),
        ("\ud800", "inline; filename=\"_\"; filename*=utf-8''%3F"),
        ("", "inline"),
    ],
)  # fmt: skip
def test_file_names_can_be_written_in_a_header(name: str, expected: str) -> None:
    assert file_responses.disposition(name, is_inline=True) == expected


def test_the_name_in_the_path_replaces_that_of_the_upload(login: Login) -> None:
    alice = login("alice")
    media = upload(alice, filename="old.txt")

    answer = download(alice, f"{media}/{quote('nöw/a.txt', safe='')}")

    assert answer.headers["Content-Disposition"] == (
        "inline; filename=\"n_w/a.txt\"; filename*=utf-8''n%C3%B6w%2Fa.txt"
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-3", TEXT[:4]),
        ("bytes=4-", TEXT[4:]),
        ("bytes=-5", TEXT[-5:]),
        ("bytes=-5000", TEXT),
        ("bytes=30-5000", TEXT[30:]),
        (f"bytes={len(TEXT) - 1}-{len(TEXT) - 1}", TEXT[-1:]),
    ],
)
def test_a_range_of_a_file(login: Login, asked: str, expected: bytes) -> None:
    alice = login("alice")

    answer = download(alice, upload(alice), headers={"Range": asked})

    assert (answer.status_code, answer.data) == (206, expected)
    start = TEXT.index(expected)
    stop = start + len(expected)
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(TEXT)}"
    assert answer.headers["Content-Length"] == str(len(expected))


@pytest.mark.parametrize("asked", ["bytes=35-", "bytes=5000-6000", "bytes=5000-"])
def test_a_range_beyond_the_end_is_refused(login: Login, asked: str) -> None:
    alice = login("alice")

    answer = download(alice, upload(alice), headers={"Range": asked})

    assert refusal(answer) == (416, "M_UNKNOWN")
    assert answer.headers["Content-Range"] == f"bytes */{len(TEXT)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "lines=0-1", "bytes=x", "bytes=5-1", "bytes"])
def test_a_range_that_we_do_not_serve_counts_as_none(login: Login, asked: str) -> None:
    alice = login("alice")

    answer = download(alice, upload(alice), headers={"Range": asked})

    assert (answer.status_code, answer.data) == (200, TEXT)


def test_a_client_that_has_the_file_does_not_get_it_again(login: Login) -> None:
    alice = login("alice")
    media = upload(alice)
    first = download(alice, media)
    assert first.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    etag = first.headers["ETag"]

    for condition in (etag, f'"other", W/{etag}', "*"):
        again = download(alice, media, headers={"If-None-Match": condition})
        assert (again.status_code, again.data) == (304, b"")
        assert again.headers["ETag"] == etag
    other = download(alice, media, headers={"If-None-Match": '"other"'})

    assert other.status_code == 200


def test_a_range_is_given_only_of_the_version_that_the_client_has(login: Login) -> None:
    alice = login("alice")
    media = upload(alice)
    etag = download(alice, media).headers["ETag"]

    same = download(alice, media, headers={"Range": "bytes=0-3", "If-Range": etag})
    weak = download(alice, media, headers={"Range": "bytes=0-3", "If-Range": '"other"'})
    dated = download(
        alice, media, headers={"Range": "bytes=0-3", "If-Range": "Sat, 21 Nov 2026 12:00:00 GMT"}
    )

    assert [same.status_code, weak.status_code, dated.status_code] == [206, 200, 200]


def test_head_tells_the_size_and_sends_nothing(login: Login) -> None:
    alice = login("alice")
    media = upload(alice)

    answer = alice.request("HEAD", f"{MEDIA}/download/{media}", headers={"Range": "bytes=0-1"})

    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(TEXT))


@pytest.mark.parametrize(
    "media",
    [
        "localhost/nothing",
        "example.org/abc",
        "localhost/..%2f..%2fhomebody.db",
        "localhost/%2e%2e",
        "..%2f..%2f/etc",
        "localhost/" + "a" * 5000,
        "localhost/%00",
    ],
)
def test_what_is_not_there_is_not_found(login: Login, media: str) -> None:
    alice = login("alice")

    for path in (f"{MEDIA}/download/{media}", f"{OLD}/download/{media}/name"):
        assert refusal(alice.get(path)) == (404, "M_NOT_FOUND")
    thumbnail = alice.get(f"{MEDIA}/thumbnail/{media}?width=32&height=32")

    assert refusal(thumbnail) == (404, "M_NOT_FOUND")


def test_a_file_that_the_disk_has_lost_is_not_found(login: Login, tmp_path: Path) -> None:
    alice = login("alice")
    media = upload(alice)
    shutil.rmtree(tmp_path / "media/files")

    answers = [
        download(alice, media),
        alice.get(f"{MEDIA}/thumbnail/{media}?width=32&height=32"),
    ]

    assert [refusal(answer) for answer in answers] == [(404, "M_NOT_FOUND")] * 2


def test_an_overlong_name_is_cut(login: Login) -> None:
    alice = login("alice")

    answer = download(alice, upload(alice, filename="n" * 5000))

    assert answer.headers["Content-Disposition"] == f'inline; filename="{"n" * 255}"'


def test_a_full_disk_is_told(login: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = login("alice")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        answer = alice.post(f"{OLD}/upload", data=TEXT, json=None)
    again = alice.post(f"{OLD}/upload", data=TEXT, json=None)

    assert refusal(answer) == (503, "M_UNKNOWN")
    assert again.status_code == 200
    assert list((tmp_path / "media/incoming").iterdir()) == []


def test_wrong_methods_are_refused_as_such(login: Login) -> None:
    alice = login("alice")

    assert refusal(alice.get(f"{OLD}/upload")) == (405, "M_UNRECOGNIZED")
    assert refusal(alice.delete(f"{MEDIA}/config")) == (405, "M_UNRECOGNIZED")


def _alice(app: Application) -> Person:
    """Alice on a server with settings of its own."""
    body = {"username": "alice", "password": "x" * 20, "auth": {"type": "m.login.dummy"}}
    client = app.test_client()
    session = client.post("/_matrix/client/v3/register", json=body).get_json()
    return Person(client, session["user_id"], session["access_token"], session["device_id"])
