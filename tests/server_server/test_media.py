"""Other servers fetch files of this server's users."""

from __future__ import annotations

import io
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser

import pytest
from PIL import Image
from werkzeug.test import TestResponse

from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.rooms import refusal
from tests.helpers.signing_server import SigningServer

DOWNLOAD, THUMBNAIL = "v1/media/download/", "v1/media/thumbnail/"
NOT_FOUND = (404, "M_NOT_FOUND")


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    return make_app(federation="true")


@pytest.fixture
def peer(app: Application) -> SigningServer:
    return SigningServer(app).introduce()


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def upload(person: Person, content: bytes, content_type: str, name: str = "") -> str:
    """Return the media ID of a new file."""
    path = "/_matrix/media/v3/upload" + (f"?filename={name}" if name else "")
    answer = person.post(path, data=content, json=None, headers={"Content-Type": content_type})
    return str(answer.get_json()["content_uri"]).rpartition("/")[2]


def parts(answer: TestResponse) -> tuple[EmailMessage, EmailMessage]:
    """Return the two parts of a response."""
    assert answer.status_code == 200, answer.get_json()
    content = answer.data
    assert answer.headers["Content-Length"] == str(len(content))
    head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
    message = BytesParser(policy=policy.HTTP).parsebytes(head + content)
    assert message.get_content_type() == "multipart/mixed"
    first, second = message.iter_parts()
    assert isinstance(first, EmailMessage)
    assert isinstance(second, EmailMessage)
    return first, second


def png(width: int, height: int) -> bytes:
    output = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(output, "PNG")
    return output.getvalue()


def test_a_file_is_the_second_part_after_an_empty_object(
    peer: SigningServer, alice: Person
) -> None:
    media_id = upload(alice, b"hello\r\n--x\r\n", "text/plain", "notes.txt")

    first, second = parts(peer.get(DOWNLOAD + media_id))

    assert (first.get_content_type(), first.get_payload(decode=True)) == ("application/json", b"{}")
    assert second["Content-Type"] == "text/plain"
    assert second["Content-Disposition"] == 'inline; filename="notes.txt"'
    assert second.get_payload(decode=True) == b"hello\r\n--x\r\n"


def test_an_empty_file_is_one(peer: SigningServer, alice: Person) -> None:
    media_id = upload(alice, b"", "text/html")

    _, second = parts(peer.get(DOWNLOAD + media_id))

    assert second["Content-Disposition"] == "attachment"
    assert second.get_payload(decode=True) == b""


def test_a_thumbnail_is_made_of_an_image(peer: SigningServer, alice: Person) -> None:
    media_id = upload(alice, png(800, 800), "image/png")

    _, second = parts(peer.get(f"{THUMBNAIL}{media_id}?width=30&height=30&method=crop"))

    image = Image.open(io.BytesIO(second.get_payload(decode=True)))  # type: ignore[arg-type]
    assert second["Content-Type"] == "image/png"
    assert image.size == (32, 32)


def test_unknown_files_are_not_found(peer: SigningServer) -> None:
    assert refusal(peer.get(f"{DOWNLOAD}nothing")) == NOT_FOUND
    assert refusal(peer.get(f"{THUMBNAIL}nothing", width=30, height=30)) == NOT_FOUND


def test_content_that_does_not_come_is_not_waited_for_longer(
    peer: SigningServer, alice: Person
) -> None:
    uri = str(alice.post("/_matrix/media/v1/create").get_json()["content_uri"])

    answer = peer.get(DOWNLOAD + uri.rpartition("/")[2], timeout_ms=10)

    assert refusal(answer) == (504, "M_NOT_YET_UPLOADED")


def test_a_thumbnail_needs_a_size(peer: SigningServer, alice: Person) -> None:
    media_id = upload(alice, png(8, 8), "image/png")

    assert refusal(peer.get(THUMBNAIL + media_id)) == (400, "M_MISSING_PARAM")


@pytest.mark.parametrize("path", [DOWNLOAD, THUMBNAIL])
def test_a_signature_is_required(app: Application, alice: Person, path: str) -> None:
    media_id = upload(alice, png(8, 8), "image/png")
    uri = f"/_matrix/federation/{path}{media_id}?width=30&height=30"

    assert refusal(app.test_client().get(uri)) == (401, "M_UNAUTHORIZED")
