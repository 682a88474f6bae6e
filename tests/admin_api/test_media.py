"""Administrators list, delete, quarantine and protect files."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from sqlalchemy import update
from werkzeug.test import TestResponse

from homebody.core import audit
from homebody.models.media import Media
from homebody.web import Application
from tests.client_server.test_media import TEXT, download, upload
from tests.conftest import Login, Person
from tests.helpers.remote import Remotes
from tests.helpers.rooms import refusal, unchanged
from tests.helpers.signing_server import SigningServer

V1 = "/_synapse/admin/v1"
NOT_FOUND = (404, "M_NOT_FOUND")
INVALID = (400, "M_INVALID_PARAM")
LONG_AGO = 1_600_000_000_000
FIELDS = {
    "media_id",
    "media_type",
    "media_length",
    "upload_name",
    "created_ts",
    "last_access_ts",
    "quarantined_by",
    "safe_from_quarantine",
}


def image(colour: tuple[int, int, int] = (255, 0, 0)) -> bytes:
    output = io.BytesIO()
    Image.new("RGB", (200, 100), colour).save(output, "PNG")
    return output.getvalue()


def media_id(media: str) -> str:
    return media.partition("/")[2]


def thumbnail(person: Person, media: str) -> TestResponse:
    query = {"width": "32", "height": "32", "method": "crop"}
    return person.get(f"/_matrix/client/v1/media/thumbnail/{media}", query_string=query)


def disk(tmp_path: Path) -> int:
    """The bytes of all files and thumbnails."""
    return sum(path.stat().st_size for path in (tmp_path / "media").rglob("*") if path.is_file())


def set_used(app: Application, media: str, ts: int) -> None:
    with app.homeserver.database.write() as tx:
        statement = update(Media).where(Media.media_id == media_id(media))
        tx.sql.execute(statement.values(created_ts=ts, last_used_ts=ts))


def listed(admin: Person, user_id: str, **query: Any) -> dict[str, Any]:
    answer = admin.get(f"{V1}/users/{user_id}/media", query_string=query)
    assert answer.status_code == 200, answer.get_json()
    body: dict[str, Any] = answer.get_json()
    return body


def quarantine(admin: Person, media: str) -> None:
    answer = admin.post(f"{V1}/media/quarantine/{media}")
    assert (answer.status_code, answer.get_json()) == (200, {})


def old_files(admin: Person, **query: Any) -> TestResponse:
    query = {"before_ts": str(time.time_ns() // 1_000_000 + 1000), **query}
    return admin.post(f"{V1}/media/delete", query_string=query)


def test_the_files_of_a_user_are_listed_newest_first(
    admin: Person, alice: Person, app: Application
) -> None:
    first = upload(alice, b"a" * 30, filename="a.txt")
    second = upload(alice, image(), "image/png")
    upload(admin)
    set_used(app, first, LONG_AGO)

    page = listed(admin, alice.user_id)

    assert page["total"] == 2
    assert "next_token" not in page
    assert [it["media_id"] for it in page["media"]] == [media_id(second), media_id(first)]
    assert all(set(it) == FIELDS for it in page["media"])
    assert page["media"][1] == {
        "media_id": media_id(first),
        "media_type": "text/plain",
        "media_length": 30,
        "upload_name": "a.txt",
        "created_ts": LONG_AGO,
        "last_access_ts": LONG_AGO,
        "quarantined_by": None,
        "safe_from_quarantine": False,
    }
    assert page["media"][0]["last_access_ts"] is None


def test_a_download_is_noted_to_the_day(admin: Person, alice: Person, app: Application) -> None:
    media = upload(alice)
    before = time.time_ns() // 1_000_000

    download(alice, media)

    (found,) = listed(admin, alice.user_id)["media"]
    assert found["last_access_ts"] >= before
    download(alice, media)
    (again,) = listed(admin, alice.user_id)["media"]
    assert again == found


@pytest.mark.parametrize("order", sorted(FIELDS))
def test_the_files_of_a_user_are_sorted_and_come_in_pages(
    admin: Person, alice: Person, order: str
) -> None:
    medias = {media_id(upload(alice, bytes(size), filename=f"{size}")) for size in (3, 1, 2)}

    first = listed(admin, alice.user_id, order_by=order, limit=2)
    rest = listed(admin, alice.user_id, order_by=order, limit=2, **{"from": first["next_token"]})

    found = [*first["media"], *rest["media"]]
    values = [it[order] for it in found if it[order] is not None]
    assert first["next_token"] == 2
    assert "next_token" not in rest
    assert {it["media_id"] for it in found} == medias
    assert values == sorted(values)
    down = listed(admin, alice.user_id, order_by=order, dir="b")["media"]
    assert [it[order] for it in down] == [it[order] for it in found][::-1]


@pytest.mark.parametrize(
    "query", [{"order_by": "x"}, {"dir": "x"}, {"from": "-1"}, {"limit": "-1"}, {"limit": "x"}]
)
def test_a_bad_page_of_files_is_refused(
    admin: Person, alice: Person, query: dict[str, str], app: Application
) -> None:
    upload(alice)
    paths = [f"{V1}/users/{alice.user_id}/media", f"{V1}/statistics/users/media"]

    with unchanged(app):
        answers = [admin.get(path, query_string=query) for path in paths]
        answers.append(admin.delete(paths[0], query_string=query))

    assert [refusal(answer) for answer in answers] == [INVALID] * 3


def test_files_of_unknown_users_and_of_other_servers_are_not_listed(admin: Person) -> None:
    for method in ("GET", "DELETE"):
        unknown = admin.request(method, f"{V1}/users/@nobody:localhost/media")
        elsewhere = admin.request(method, f"{V1}/users/@bob:b.test/media")

        assert refusal(unknown) == NOT_FOUND
        assert elsewhere.status_code == 400


def test_deleting_a_file_frees_its_bytes_and_those_of_its_thumbnails(
    admin: Person, alice: Person, tmp_path: Path
) -> None:
    media = upload(alice, image(), "image/png")
    assert thumbnail(alice, media).status_code == 200
    assert disk(tmp_path) > len(image())

    deleted = admin.delete(f"{V1}/media/{media}")

    assert deleted.get_json() == {"deleted_media": [media_id(media)], "total": 1}
    assert disk(tmp_path) == 0
    assert refusal(download(alice, media)) == NOT_FOUND
    assert refusal(thumbnail(alice, media)) == NOT_FOUND
    assert listed(admin, alice.user_id)["total"] == 0


def test_content_stays_as_long_as_another_file_has_it(
    admin: Person, alice: Person, tmp_path: Path
) -> None:
    first, second = upload(alice), upload(admin)

    admin.delete(f"{V1}/media/{first}")

    assert download(alice, second).data == TEXT
    assert disk(tmp_path) == len(TEXT)
    admin.delete(f"{V1}/media/{second}")
    assert disk(tmp_path) == 0


def test_a_deleted_file_can_be_uploaded_again(admin: Person, alice: Person) -> None:
    admin.delete(f"{V1}/media/{upload(alice)}")

    again = upload(alice)

    assert download(alice, again).data == TEXT


def test_unknown_files_and_those_of_other_servers_are_not_deleted(
    admin: Person, alice: Person, app: Application
) -> None:
    upload(alice)

    with unchanged(app):
        unknown = admin.delete(f"{V1}/media/localhost/nothing")
        elsewhere = admin.delete(f"{V1}/media/b.test/nothing")

    assert refusal(unknown) == NOT_FOUND
    assert elsewhere.status_code == 400


def test_the_files_of_a_user_are_deleted_by_pages(
    admin: Person, alice: Person, tmp_path: Path
) -> None:
    for size in range(1, 4):
        upload(alice, bytes(size))
    kept = upload(admin, b"other")

    first = admin.delete(f"{V1}/users/{alice.user_id}/media", query_string={"limit": "2"})
    second = admin.delete(f"{V1}/users/{alice.user_id}/media")

    assert first.get_json()["total"] == len(first.get_json()["deleted_media"]) == 2
    assert second.get_json()["total"] == 1
    assert listed(admin, alice.user_id)["total"] == 0
    assert download(alice, kept).data == b"other"
    assert disk(tmp_path) == 5


def test_old_files_are_deleted_by_their_last_use_and_size(
    admin: Person, alice: Person, app: Application
) -> None:
    old, small, new = (upload(alice, bytes(size)) for size in (50, 10, 51))
    for media in (old, small):
        set_used(app, media, LONG_AGO)

    answer = old_files(admin, before_ts=str(LONG_AGO + 1), size_gt="10")

    assert answer.get_json() == {"deleted_media": [media_id(old)], "total": 1}
    assert download(alice, small).status_code == download(alice, new).status_code == 200
    rest = old_files(admin)
    assert set(rest.get_json()["deleted_media"]) == {media_id(small), media_id(new)}


def test_the_older_path_for_deletion_works_for_this_server_alone(
    admin: Person, alice: Person
) -> None:
    media = upload(alice)
    query = {"before_ts": str(time.time_ns() // 1_000_000 + 1000)}

    other = admin.post(f"{V1}/media/b.test/delete", query_string=query)
    here = admin.post(f"{V1}/media/localhost/delete", query_string=query)

    assert other.status_code == 400
    assert here.get_json()["deleted_media"] == [media_id(media)]


def test_avatars_are_kept_unless_the_administrator_says_otherwise(
    admin: Person, alice: Person
) -> None:
    avatar, room_avatar, member = (upload(alice, bytes(size)) for size in (1, 2, 3))
    alice.put(f"profile/{alice.user_id}/avatar_url", json={"avatar_url": f"mxc://{avatar}"})
    room = alice.create_room()
    alice.set_state(room, "m.room.avatar", {"url": f"mxc://{room_avatar}"})
    content = {"membership": "join", "avatar_url": f"mxc://{member}"}
    alice.set_state(room, "m.room.member", content, alice.user_id)
    attachment = upload(alice, bytes(4))
    alice.send(room, "a.bin", msgtype="m.file", url=f"mxc://{attachment}")

    first = old_files(admin)

    assert first.get_json()["deleted_media"] == [media_id(attachment)]
    second = old_files(admin, keep_profiles="false")
    assert second.get_json()["total"] == 3


@pytest.mark.parametrize("path", ["media/delete", "media/localhost/delete", "purge_media_cache"])
@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"before_ts": "1700000000"}, "M_INVALID_PARAM"),
        ({"before_ts": "-1"}, "M_INVALID_PARAM"),
        ({"before_ts": "yesterday"}, "M_INVALID_PARAM"),
    ],
)
def test_a_time_in_seconds_deletes_nothing(
    admin: Person, alice: Person, app: Application, path: str, query: dict[str, str], errcode: str
) -> None:
    upload(alice)

    with unchanged(app):
        answer = admin.post(f"{V1}/{path}", query_string=query)

    assert refusal(answer) == (400, errcode)


@pytest.mark.parametrize(
    "query", [{"size_gt": "-1"}, {"size_gt": "x"}, {"keep_profiles": "perhaps"}]
)
def test_a_bad_condition_deletes_nothing(
    admin: Person, alice: Person, app: Application, query: dict[str, str]
) -> None:
    upload(alice)

    with unchanged(app):
        assert refusal(old_files(admin, **query)) == INVALID


def test_a_quarantined_file_is_not_found_by_anybody(admin: Person, alice: Person) -> None:
    media = upload(alice, image(), "image/png")
    assert thumbnail(alice, media).status_code == 200

    quarantine(admin, media)

    for person in (alice, admin):
        assert refusal(download(person, media)) == NOT_FOUND
        assert refusal(thumbnail(person, media)) == NOT_FOUND
        old = person.get(f"/_matrix/media/v3/download/{media}")
        assert refusal(old) == NOT_FOUND
    (found,) = listed(admin, alice.user_id)["media"]
    assert found["quarantined_by"] == admin.user_id
    answer = admin.post(f"{V1}/media/unquarantine/{media}")
    assert (answer.status_code, answer.get_json()) == (200, {})
    assert download(alice, media).status_code == 200


def test_quarantine_covers_the_same_content_and_what_is_uploaded_later(
    admin: Person, alice: Person
) -> None:
    first, second = upload(alice), upload(admin)

    quarantine(admin, first)

    later = upload(alice)
    assert [download(alice, it).status_code for it in (second, later)] == [404, 404]
    admin.post(f"{V1}/media/unquarantine/{later}")
    assert [download(alice, it).status_code for it in (first, second, later)] == [200] * 3


def test_content_that_was_quarantined_and_deleted_stays_so_when_it_is_uploaded_again(
    admin: Person, alice: Person
) -> None:
    first = upload(alice)
    quarantine(admin, first)
    assert admin.delete(f"{V1}/media/{first}").get_json()["total"] == 1

    again = upload(alice)

    assert refusal(download(alice, again)) == NOT_FOUND
    (found,) = listed(admin, alice.user_id)["media"]
    assert found["quarantined_by"] == admin.user_id
    admin.post(f"{V1}/media/unquarantine/{first}")  # the one that is deleted
    assert download(alice, again).data == TEXT
    assert download(alice, upload(alice)).data == TEXT


def test_a_protected_file_is_spared(admin: Person, alice: Person) -> None:
    spared, other = upload(alice, b"sticker"), upload(alice, b"photo")
    answer = admin.post(f"{V1}/media/protect/{media_id(spared)}")
    assert (answer.status_code, answer.get_json()) == (200, {})

    count = admin.post(f"{V1}/user/{alice.user_id}/media/quarantine").get_json()

    assert count == {"num_quarantined": 1}
    assert download(alice, spared).status_code == 200
    assert refusal(download(alice, other)) == NOT_FOUND
    (protected,) = (
        it for it in listed(admin, alice.user_id)["media"] if it["media_id"] == media_id(spared)
    )
    assert protected["safe_from_quarantine"] is True
    assert old_files(admin).get_json()["deleted_media"] == []
    admin.post(f"{V1}/media/unprotect/{media_id(spared)}")
    quarantine(admin, spared)
    assert refusal(download(alice, spared)) == NOT_FOUND


@pytest.mark.parametrize("action", ["protect", "unprotect"])
def test_an_unknown_file_cannot_be_protected(admin: Person, app: Application, action: str) -> None:
    with unchanged(app):
        answer = admin.post(f"{V1}/media/{action}/nothing")

    assert refusal(answer) == (404, "M_UNKNOWN")


def test_unknown_files_may_be_quarantined(admin: Person) -> None:
    quarantine(admin, "localhost/nothing")
    quarantine(admin, "b.test/nothing")


def test_the_files_of_a_room_are_listed_and_quarantined(
    admin: Person, alice: Person, login: Login
) -> None:
    room = alice.create_room()
    shown, small, encrypted, avatar = (upload(alice, bytes(size)) for size in (1, 2, 3, 4))
    edited = upload(alice, bytes(6))
    alice.send(
        room,
        msgtype="m.image",
        url=f"mxc://{shown}",
        info={"thumbnail_url": f"mxc://{small}"},
    )
    alice.send(room, msgtype="m.file", file={"url": f"mxc://{encrypted}"})
    new = {"msgtype": "m.image", "body": "new", "url": f"mxc://{edited}"}
    alice.send(room, "an edit", **{"m.new_content": new})
    alice.send(room, msgtype="m.image", url="mxc://b.test/cat")
    alice.send(room, "mxc://localhost/nothing", url=["mxc://localhost/nothing"], info="x")
    alice.set_state(room, "m.room.avatar", {"url": f"mxc://{avatar}"})
    elsewhere = upload(alice, bytes(5))

    answer = admin.get(f"{V1}/room/{quote(room)}/media").get_json()

    assert answer["remote"] == ["mxc://b.test/cat"]
    in_room = (shown, small, encrypted, avatar, edited)
    assert set(answer["local"]) == {f"mxc://{it}" for it in in_room}
    count = admin.post(f"{V1}/room/{quote(room)}/media/quarantine").get_json()
    assert count == {"num_quarantined": 6}
    again = admin.post(f"{V1}/quarantine_media/{quote(room)}").get_json()
    assert again == count
    bob = login("bob")
    assert [download(bob, it).status_code for it in in_room] == [404] * 5
    assert download(bob, elsewhere).status_code == 200


def test_an_unknown_room_has_no_files(admin: Person) -> None:
    assert admin.get(f"{V1}/room/!nowhere:localhost/media").get_json() == {
        "local": [],
        "remote": [],
    }


def test_one_file_is_described(admin: Person, alice: Person) -> None:
    media = upload(alice, filename="a.txt")

    answer = admin.get(f"{V1}/media/{media}").get_json()["media_info"]

    assert set(answer) - FIELDS == {
        "media_origin",
        "user_id",
        "filesystem_id",
        "url_cache",
        "authenticated",
        "sha256",
    }
    assert (answer["user_id"], answer["media_id"]) == (alice.user_id, media_id(media))
    assert (answer["media_length"], answer["upload_name"]) == (len(TEXT), "a.txt")
    for unknown in ("localhost/nothing", "b.test/nothing"):
        assert refusal(admin.get(f"{V1}/media/{unknown}")) == NOT_FOUND


def test_changes_of_quarantine_are_listed_in_their_order(
    admin: Person, alice: Person, app: Application
) -> None:
    media = upload(alice)
    empty = admin.get(f"{V1}/media/quarantine_changes").get_json()
    quarantine(admin, media)
    quarantine(admin, media)  # changes nothing
    admin.post(f"{V1}/media/protect/{media_id(media)}")
    admin.post(f"{V1}/media/unquarantine/{media}")

    first = admin.get(f"{V1}/media/quarantine_changes").get_json()

    change = {"origin": "localhost", "media_id": media_id(media)}
    assert empty == {"changes": [], "next_batch": 0}
    assert first["changes"] == [change | {"quarantined": True}, change | {"quarantined": False}]
    path = f"{V1}/media/quarantine_changes?from={first['next_batch']}"
    assert admin.get(path).get_json() == {"changes": [], "next_batch": first["next_batch"]}
    with unchanged(app):
        assert refusal(admin.get(f"{V1}/media/quarantine_changes?from=99999")) == INVALID
        assert refusal(admin.get(f"{V1}/media/quarantine_changes?from=x")) == INVALID


def test_statistics_add_up_the_files_of_each_user(admin: Person, alice: Person) -> None:
    alice.put(f"profile/{alice.user_id}/displayname", json={"displayname": "Zed"})
    for size in (10, 20):
        upload(alice, bytes(size))
    upload(admin, bytes(100))
    path = f"{V1}/statistics/users/media"

    everybody = admin.get(path).get_json()

    zed = {
        "user_id": alice.user_id,
        "displayname": "Zed",
        "media_count": 2,
        "media_length": 30,
    }
    assert everybody["total"] == 2
    assert everybody["users"][0] == zed
    assert "next_token" not in everybody
    found = admin.get(path, query_string={"search_term": "ze"}).get_json()
    assert (found["users"], found["total"]) == ([zed], 1)
    assert admin.get(path, query_string={"search_term": "localhost"}).get_json()["total"] == 0
    largest = admin.get(path, query_string={"order_by": "media_length", "dir": "b", "limit": 1})
    assert largest.get_json()["users"][0]["user_id"] == admin.user_id
    assert largest.get_json()["next_token"] == 1
    later = {"from_ts": str(time.time_ns() // 1_000_000 + 60_000)}
    assert admin.get(path, query_string=later).get_json() == {"users": [], "total": 0}


@pytest.mark.parametrize(
    "query",
    [{"search_term": ""}, {"from_ts": "-1"}, {"from_ts": "5", "until_ts": "5"}, {"until_ts": "x"}],
)
def test_bad_statistics_are_refused(admin: Person, query: dict[str, str]) -> None:
    assert refusal(admin.get(f"{V1}/statistics/users/media", query_string=query)) == INVALID


def test_files_of_other_servers_are_quarantined_and_purged(
    remote: Remotes, admin: Person, alice: Person, tmp_path: Path
) -> None:
    remote("b.test").media["cat"] = ("text/plain", TEXT)
    assert download(alice, "b.test/cat").data == TEXT
    info = admin.get(f"{V1}/media/b.test/cat").get_json()["media_info"]
    assert (info["media_origin"], info["media_length"]) == ("b.test", len(TEXT))

    quarantine(admin, "b.test/cat")

    assert refusal(download(alice, "b.test/cat")) == NOT_FOUND
    assert refusal(download(admin, "b.test/cat")) == NOT_FOUND
    before = {"before_ts": str(time.time_ns() // 1_000_000 + 1000)}
    assert admin.post(f"{V1}/purge_media_cache", query_string=before).get_json() == {"deleted": 1}
    assert disk(tmp_path) == 0
    assert refusal(download(alice, "b.test/cat")) == NOT_FOUND  # stays quarantined
    admin.post(f"{V1}/media/unquarantine/b.test/cat")
    assert download(alice, "b.test/cat").data == TEXT


def test_quarantined_content_is_recognized_in_files_of_other_servers(
    remote: Remotes, admin: Person, alice: Person
) -> None:
    b = remote("b.test")
    b.media |= dict.fromkeys(("known", "new"), ("text/plain", TEXT))
    b.media["other"] = ("text/plain", b"another content")
    assert download(alice, "b.test/known").data == TEXT

    quarantine(admin, upload(alice))

    assert refusal(download(alice, "b.test/known")) == NOT_FOUND
    assert refusal(download(alice, "b.test/new")) == NOT_FOUND
    assert refusal(download(alice, "b.test/new")) == NOT_FOUND  # not fetched again
    assert len(b.received("/media/download/new")) == 1
    assert download(alice, "b.test/other").data == b"another content"
    admin.post(f"{V1}/media/unquarantine/b.test/new")
    assert [download(alice, f"b.test/{it}").data for it in ("known", "new")] == [TEXT] * 2


def test_a_file_of_another_server_quarantines_its_content_here(
    remote: Remotes, admin: Person, alice: Person
) -> None:
    remote("b.test").media["cat"] = ("text/plain", TEXT)
    here = upload(alice)
    assert download(alice, "b.test/cat").data == TEXT

    quarantine(admin, "b.test/cat")

    assert refusal(download(alice, here)) == NOT_FOUND
    assert refusal(download(alice, upload(admin))) == NOT_FOUND


def test_other_servers_do_not_get_quarantined_files(
    remote: Remotes, app: Application, admin: Person, alice: Person
) -> None:
    remote("b.test")
    peer, media = SigningServer(app).introduce(), upload(alice, image(), "image/png")
    paths = [
        f"v1/media/download/{media_id(media)}",
        f"v1/media/thumbnail/{media_id(media)}?width=9&height=9",
    ]
    assert [peer.get(path).status_code for path in paths] == [200, 200]

    quarantine(admin, media)

    assert [refusal(peer.get(path)) for path in paths] == [NOT_FOUND] * 2


ROUTES = [
    ("GET", "media/localhost/x"),
    ("DELETE", "media/localhost/x"),
    ("POST", "media/delete?before_ts=1"),
    ("POST", "media/localhost/delete"),
    ("POST", "purge_media_cache"),
    ("POST", "media/quarantine/localhost/x"),
    ("POST", "media/unquarantine/localhost/x"),
    ("GET", "media/quarantine_changes"),
    ("POST", "media/protect/x"),
    ("POST", "media/unprotect/x"),
    ("GET", "room/!x:localhost/media"),
    ("POST", "room/!x:localhost/media/quarantine"),
    ("POST", "quarantine_media/!x:localhost"),
    ("POST", "user/@alice:localhost/media/quarantine"),
    ("GET", "users/@alice:localhost/media"),
    ("DELETE", "users/@alice:localhost/media"),
    ("GET", "statistics/users/media"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_only_administrators_may(
    admin: Person, alice: Person, app: Application, method: str, path: str
) -> None:
    upload(alice)

    with unchanged(app):
        refused = alice.request(method, f"{V1}/{path}")
        without = alice.client.open(f"{V1}/{path}", method=method)

    assert refusal(refused) == (403, "M_FORBIDDEN")
    assert refusal(without) == (401, "M_MISSING_TOKEN")


def test_deletion_and_protection_are_in_the_audit_log(
    admin: Person, alice: Person, app: Application
) -> None:
    media = upload(alice)
    admin.post(f"{V1}/media/protect/{media_id(media)}")
    quarantine(admin, media)
    admin.delete(f"{V1}/media/{media}")

    with app.homeserver.database.read() as tx:
        found = audit.latest(tx, 10, subject=f"mxc://{media}")

    assert [it["action"] for it in found] == ["media.delete", "media.protect"]
    assert {it["actor"] for it in found} == {admin.user_id}
