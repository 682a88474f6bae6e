"""The pages about files."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from homebody.web import Application
from tests.conftest import Person
from tests.helpers.pages import send
from tests.helpers.rooms import unchanged
from tests.web.admin_pages.audit_log import last_action
from tests.web.test_pages import visible

MEDIA = "/_homebody/admin/media"


def upload(person: Person, name: str, content: bytes) -> str:
    """The media ID of a new file."""
    path = f"/_matrix/media/v3/upload?filename={name}"
    headers = {"Content-Type": "text/plain"}
    answer = person.request("POST", path, data=content, headers=headers)
    return str(answer.get_json()["content_uri"]).rpartition("/")[2]


def download(person: Person, media_id: str) -> int:
    return person.get(f"/_matrix/client/v1/media/download/localhost/{media_id}").status_code


def test_the_largest_files_and_users_are_listed(browser: FlaskClient, alice: Person) -> None:
    upload(alice, "small.txt", b"x")
    upload(alice, "large.txt", b"x" * 5000)

    text = visible(browser.get(MEDIA))

    assert text.index("large.txt text/plain 5.0 KB @alice:localhost") < text.index("small.txt")
    assert "@alice:localhost alice 2 5.0 KB" in text
    assert "1 to 1 of 1" in text


def test_the_files_of_a_user_are_listed(browser: FlaskClient, alice: Person) -> None:
    upload(alice, "a.txt", b"x")
    path = f"{MEDIA}/users/{quote(alice.user_id, safe='')}"

    for order in ("media_length", "created_ts", "nonsense"):
        assert "a.txt" in visible(browser.get(path, query_string={"order": order}))
    assert browser.get(f"{MEDIA}/users/{quote('@nobody:localhost', safe='')}").status_code == 404


def test_a_file_is_quarantined_and_released(
    app: Application, browser: FlaskClient, alice: Person
) -> None:
    media_id = upload(alice, "a.txt", b"x")
    page = f"{MEDIA}/files/{media_id}"

    with unchanged(app):
        asked = browser.get(f"{page}/quarantine")
    send(browser, f"{page}/quarantine")
    quarantined, entry = download(alice, media_id), last_action(app)
    shown = visible(browser.get(page))
    send(browser, f"{page}/lift", page=page)

    assert "Quarantine: a.txt?" in visible(asked)
    assert quarantined == 404
    assert entry == ("@owner:localhost", "media.quarantine", f"mxc://localhost/{media_id}")
    assert "quarantined by @owner:localhost" in shown
    assert download(alice, media_id) == 200


def test_a_protected_file_can_not_be_quarantined(
    app: Application, browser: FlaskClient, alice: Person
) -> None:
    media_id = upload(alice, "a.txt", b"x")
    page = f"{MEDIA}/files/{media_id}"
    send(browser, f"{page}/protect", page=page)
    protected = last_action(app)[1]

    answer = send(browser, f"{page}/quarantine")
    send(browser, f"{page}/unprotect", page=page)

    assert protected == "media.protect"
    assert answer.status_code == 400
    assert "protected" in visible(answer)
    assert send(browser, f"{page}/quarantine").status_code == 303


def test_a_file_is_deleted(app: Application, browser: FlaskClient, alice: Person) -> None:
    media_id = upload(alice, "a.txt", b"x")
    page = f"{MEDIA}/files/{media_id}"

    asked = visible(browser.get(f"{page}/delete"))
    answer = send(browser, f"{page}/delete")

    assert "nobody can open it any more" in asked
    assert answer.headers["Location"].startswith(f"{MEDIA}?")
    assert browser.get(page).status_code == 404
    assert download(alice, media_id) == 404
    assert last_action(app)[1] == "media.delete"


def test_a_file_of_another_server_is_quarantined_by_its_uri(
    app: Application, browser: FlaskClient
) -> None:
    path = f"{MEDIA}/quarantine"

    answer = send(browser, path, page=MEDIA, mxc=" mxc://elsewhere.test/abc ")

    assert answer.status_code == 303
    assert "The file is quarantined" in visible(browser.get(answer.headers["Location"]))
    assert last_action(app)[1:] == ("media.quarantine", "mxc://elsewhere.test/abc")


@pytest.mark.parametrize(
    "uri", ["", "x", "mxc://", "mxc://a", "mxc:///b", "mxc://a/b/c", "mxc://a/"]
)
def test_a_wrong_uri_is_refused(app: Application, browser: FlaskClient, uri: str) -> None:
    with unchanged(app):
        answer = send(browser, f"{MEDIA}/quarantine", page=MEDIA, mxc=uri)

    assert answer.status_code == 400


@pytest.mark.parametrize("action", ["", "/quarantine", "/delete", "/explode"])
def test_an_unknown_file_is_not_found(app: Application, browser: FlaskClient, action: str) -> None:
    with unchanged(app):
        answers = [browser.get(f"{MEDIA}/files/none{action}")]
        if action:
            answers.append(send(browser, f"{MEDIA}/files/none{action}", page=MEDIA))

    assert {it.status_code for it in answers} == {404}
