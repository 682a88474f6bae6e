"""Previews of links, of pages that a real web server on loopback serves."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
from PIL import Image

from homebody.core.media import deletion, open_graph, quarantine
from homebody.core.media.url_previews import MAX_IMAGE_BYTES
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.helpers import web_server
from tests.helpers.rooms import refusal
from tests.helpers.server import start
from tests.helpers.web_server import FILES

PREVIEW = "/_matrix/client/v1/media/preview_url"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a web server in a process of its own; see web_server.py."""
    folder = tmp_path_factory.mktemp("site")
    Image.new("RGB", (48, 32), "teal").save(folder / "cat.png")
    Image.new("RGB", (1, 1)).save(folder / "cat.bmp")
    cat = (folder / "cat.png").read_bytes()
    for name, size in (("large", MAX_IMAGE_BYTES), ("too-large", MAX_IMAGE_BYTES + 1)):
        (folder / f"{name}.png").write_bytes(cat.ljust(size, b"\0"))
    with web_server.running(folder) as url:
        yield url


@pytest.fixture
def app(make_app: MakeApp, site: str) -> Application:
    requests.get(f"{site}/forget", timeout=5)
    return make_app(outside_allowed="127.0.0.1")


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def preview(person: Person, url: str, **query: Any) -> dict[str, Any]:
    answer = person.get(PREVIEW, query_string={"url": url, **query})
    assert answer.status_code == 200, answer.get_json()
    found: dict[str, Any] = answer.get_json()
    return found


def fetched(site: str, path: str) -> int:
    """How often this path was asked for."""
    return int(requests.get(f"{site}/count", params={"of": path}, timeout=5).text)


def test_a_page_tells_what_it_is_about(alice: Person, site: str) -> None:
    found = preview(alice, f"{site}/page.html#part", ts=1510610716656)

    image = found.pop("og:image")
    assert found == {
        "og:title": "A cat & its house",
        "og:description": "All about the cat",
        "og:site_name": "Cats",
        "og:image:type": "image/png",
        "og:image:width": 48,
        "og:image:height": 32,
        "matrix:image:size": len(requests.get(f"{site}/cat.png", timeout=5).content),
    }
    path = image.removeprefix("mxc://")
    downloaded = alice.get(f"/_matrix/client/v1/media/download/{path}")
    assert downloaded.content_type == "image/png"
    assert downloaded.data == requests.get(f"{site}/cat.png", timeout=5).content


def test_a_picture_counts_for_the_quota_of_whoever_asks_first(make_app: MakeApp, site: str) -> None:
    app = make_app(outside_allowed="127.0.0.1", **{"quotas.media_bytes": "200"})
    body = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    session = app.test_client().post(f"{V3}register", json=body).get_json()
    alice = Person(
        app.test_client(), session["user_id"], session["access_token"], session["device_id"]
    )
    upload = "/_matrix/media/v3/upload"

    found = preview(alice, f"{site}/page.html")

    left = 200 - found["matrix:image:size"]
    assert "og:image" in found
    assert alice.post(upload, data=bytes(left), json=None).status_code == 200
    assert refusal(alice.post(upload, data=b"x", json=None)) == (403, "M_USER_LIMIT_EXCEEDED")
    assert "og:image" not in preview(alice, f"{site}/cat.png")


def test_the_old_path_gives_the_same(alice: Person, site: str) -> None:
    url = f"{site}/page.html"

    older = alice.get("/_matrix/media/v3/preview_url", query_string={"url": url})
    oldest = alice.get("/_matrix/media/r0/preview_url", query_string={"url": url})

    assert older.get_json() == oldest.get_json() == preview(alice, url)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain.html", {"og:title": "Just a title", "og:description": "A long enough paragraph, "
            "which says what the page is about."}),
        ("twitter.html", {"og:title": "From elsewhere", "og:description": "Said for others"}),
        ("latin.html", {"og:title": "K\u00e4se"}),
        ("meta-charset.html", {"og:title": "\u041f\u0440\u0438\u0432\u0435\u0442"}),
        ("sjis.html", {"og:title": "\u65e5\u672c\u8a9e\u306e\u9801"}),
        ("undeclared.html", {"og:title": "K\u00e4se"}),
        ("empty.html", {}),
        ("broken.html", {"og:title": "Broken"}),
        ("file.pdf", {}),
        ("no-picture.html", {"og:title": "Its picture is none"}),
        ("lost-picture.html", {"og:title": "Its picture is lost"}),
        ("bmp.html", {"og:title": "Shown by no browser"}),
        ("private-picture.html", {"og:title": "Its picture is next door"}),
    ],
)  # fmt: skip
def test_pages_of_all_kinds(alice: Person, site: str, name: str, expected: dict[str, Any]) -> None:
    assert preview(alice, f"{site}/{name}") == expected


def test_a_link_to_a_picture_shows_it(alice: Person, site: str) -> None:
    found = preview(alice, f"{site}/cat.png")

    assert found["og:title"] == "cat.png"
    assert (found["og:image:width"], found["og:image:height"]) == (48, 32)
    assert found["og:image"].startswith("mxc://localhost/")


def test_of_a_long_page_the_beginning_will_do(alice: Person, site: str) -> None:
    assert preview(alice, f"{site}/long.html") == {"og:title": "Long"}


def test_redirects_are_followed(alice: Person, site: str) -> None:
    assert preview(alice, f"{site}/moved")["og:title"] == "A cat & its house"


@pytest.mark.parametrize("path", ["/nothing-here", "/loop", "/hang-up"])
def test_what_can_not_be_had_is_not_found(alice: Person, site: str, path: str) -> None:
    assert refusal(alice.get(PREVIEW, query_string={"url": site + path})) == (404, "M_NOT_FOUND")


def test_a_picture_is_shown_unless_it_is_too_large(alice: Person, site: str) -> None:
    largest, too_large = (
        preview(alice, f"{site}/large.png"),
        preview(alice, f"{site}/too-large.png"),
    )

    assert (largest["og:image:width"], largest["matrix:image:size"]) == (48, MAX_IMAGE_BYTES)
    assert too_large == {"og:title": "too-large.png"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ftp://example.org/", (400, "M_INVALID_PARAM")),
        ("file:///etc/passwd", (400, "M_INVALID_PARAM")),
        ("example.org", (400, "M_INVALID_PARAM")),
        ("", (400, "M_INVALID_PARAM")),
        ("http://[::1", (400, "M_INVALID_PARAM")),
        ("http://", (400, "M_INVALID_PARAM")),
        ("http://a:b@127.0.0.1/", (403, "M_FORBIDDEN")),
        ("http://127.0.0.1:99999/", (403, "M_FORBIDDEN")),
        ("http://[::1]/", (403, "M_FORBIDDEN")),
        ("http://10.0.0.1/", (403, "M_FORBIDDEN")),
        ("http://169.254.169.254/latest/meta-data", (403, "M_FORBIDDEN")),
        ("https://example.org/" + "x" * 2048, (400, "M_INVALID_PARAM")),
    ],
)
def test_where_the_server_does_not_go(alice: Person, url: str, expected: tuple[int, str]) -> None:
    assert refusal(alice.get(PREVIEW, query_string={"url": url})) == expected


def test_a_bad_query_and_a_missing_token_are_refused(alice: Person) -> None:
    missing = alice.get(PREVIEW)
    bad = alice.get(PREVIEW, query_string={"url": "http://127.0.0.1/", "ts": "now"})
    stranger = alice.client.get(PREVIEW, query_string={"url": "http://127.0.0.1/"})

    assert refusal(missing) == (400, "M_MISSING_PARAM")
    assert refusal(bad) == (400, "M_INVALID_PARAM")
    assert refusal(stranger) == (401, "M_MISSING_TOKEN")


def test_a_link_is_fetched_once_an_hour(
    alice: Person, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{site}/page.html"
    first = preview(alice, url)
    assert preview(alice, url) == first
    assert fetched(site, "/page.html") == 1
    now = time.time_ns()

    monkeypatch.setattr(time, "time_ns", lambda: now + 3_601 * 10**9)
    later = preview(alice, url)

    assert fetched(site, "/page.html") == 2
    assert later == first  # also its mxc:// address: the image is still the same


def test_an_image_that_was_deleted_is_fetched_again(
    app: Application, alice: Person, site: str
) -> None:
    first = preview(alice, f"{site}/page.html")
    deleted = first["og:image"].rpartition("/")[2]
    deletion.delete_files(app.homeserver.database, [deleted])

    again = preview(alice, f"{site}/page.html")

    assert again["og:image"] != first["og:image"]
    path = again["og:image"].removeprefix("mxc://")
    assert alice.get(f"/_matrix/client/v1/media/download/{path}").status_code == 200


def test_a_quarantined_image_is_not_fetched_again(
    app: Application, alice: Person, site: str
) -> None:
    first = preview(alice, f"{site}/page.html")
    origin, _, media_id = first["og:image"].removeprefix("mxc://").partition("/")
    with app.homeserver.database.write() as tx:
        quarantine.put(tx, "@owner:localhost", [(origin, media_id)])
    before = fetched(site, "/page.html")

    assert preview(alice, f"{site}/page.html") == first
    assert fetched(site, "/page.html") == before


def test_a_page_that_is_gone_is_not_asked_for_again_at_once(alice: Person, site: str) -> None:
    for _ in range(2):
        answer = alice.get(PREVIEW, query_string={"url": f"{site}/nothing-here"})
        assert refusal(answer) == (404, "M_NOT_FOUND")

    assert fetched(site, "/nothing-here") == 1


@pytest.mark.parametrize("named", ["127.0.0.1", "0.0.1"])
def test_the_owner_names_hosts_without_previews(
    make_app: MakeApp, alice: Person, site: str, named: str
) -> None:
    app = make_app(outside_allowed="127.0.0.1", url_preview_blacklist=named)
    person = Person(app.test_client(), alice.user_id, alice.access_token, alice.device_id)

    answer = person.get(PREVIEW, query_string={"url": f"{site}/page.html"})

    assert refusal(answer) == (403, "M_FORBIDDEN")
    assert fetched(site, "/page.html") == 0


def test_the_owner_may_want_no_previews(make_app: MakeApp, alice: Person, site: str) -> None:
    app = make_app(outside_allowed="127.0.0.1", url_previews="false")
    person = Person(app.test_client(), alice.user_id, alice.access_token, alice.device_id)

    answer = person.get(PREVIEW, query_string={"url": f"{site}/page.html"})

    assert refusal(answer) == (404, "M_UNRECOGNIZED")


def test_many_who_ask_at_once_are_answered_by_one_fetch(tmp_path: Path, site: str) -> None:
    requests.get(f"{site}/forget", timeout=5)
    server = start(tmp_path, outside_allowed="127.0.0.1")
    body = {"username": "alice", "password": "x" * 12, "auth": {"type": "m.login.dummy"}}
    session = requests.post(f"{server.url}{V3}register", json=body, timeout=10).json()
    headers = {"Authorization": f"Bearer {session['access_token']}"}
    answers: list[dict[str, Any]] = []

    def ask() -> None:
        query = {"url": f"{site}/slow.html"}
        answer = requests.get(f"{server.url}{PREVIEW}", query, headers=headers, timeout=20)
        answers.append(answer.json())

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    time.sleep(0.3)
    with urllib.request.urlopen(f"{server.url}/health", timeout=5) as answer:  # noqa: S310 - loopback
        assert answer.status == 200
    is_under_way = not answers
    for asker in askers:
        asker.join()
    server.stop()

    assert answers == [{"og:title": "Slow"}] * 8
    assert fetched(site, "/slow.html") == 1
    assert is_under_way


def test_texts_are_cut_and_properties_counted() -> None:
    many = "".join(f'<meta property="og:x{n}" content="y">' for n in range(200))
    page = f'<meta property="og:title" content="{"t" * 5000}">{many}'.encode()

    found = open_graph.read(page, "text/html", "https://example.org/")

    assert len(found["og:title"]) == open_graph.MAX_TEXT
    assert len(found) <= open_graph.MAX_PROPERTIES + 3


@pytest.mark.parametrize(
    "charset", ["zip", "rot13", "idna", "utf-99", "hex", "undefined", "punycode"]
)
def test_a_charset_that_is_none_is_guessed(charset: str) -> None:
    page = "<title>K\u00e4se</title>".encode()

    assert "K\u00e4se" in open_graph.decode(page, f"text/html; charset={charset}")


def test_image_packs_are_kept_as_they_are(alice: Person) -> None:
    room = alice.create_room()
    pack = {"images": {"cat": {"url": "mxc://localhost/cat", "body": "A cat"}}}

    alice.set_state(room, "m.room.image_pack", pack, "cats")
    rooms: dict[str, Any] = {"rooms": {room: {"cats": {}}}}
    alice.put(f"user/{alice.user_id}/account_data/m.image_pack.rooms", json=rooms)

    kept = alice.get(f"rooms/{room}/state/m.room.image_pack/cats")
    chosen = alice.get(f"user/{alice.user_id}/account_data/m.image_pack.rooms")
    assert kept.get_json() == pack
    assert orjson.loads(chosen.data) == rooms


def test_each_page_of_the_web_server_is_asked_for() -> None:
    source = Path(__file__).read_text(encoding="utf-8")

    assert [name for name in FILES if name.strip("/") not in source] == []
