"""Old files are deleted, files in use are not, and what takes too much room is."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from homebody.core.administration import media_retention
from homebody.core.federation import remote_media
from homebody.core.media import deletion, files, references
from homebody.errors import MatrixError
from homebody.models.media import Media, RemoteMediaFile
from homebody.storage.database import Reader
from homebody.web import Application
from tests.client_server.test_media import download, upload
from tests.conftest import Login, MakeApp, Person
from tests.helpers.remote import Remotes

DAY_MS = 86_400_000
LIFETIME = {"media_retention.local_media_lifetime": "30 d"}


@pytest.fixture
def app(make_app: MakeApp, request: pytest.FixtureRequest) -> Application:
    if "remote" not in request.fixturenames:
        return make_app(**LIFETIME)
    remote: Remotes = request.getfixturevalue("remote")
    app = make_app(**LIFETIME, **remote.settings)
    remote.talk_to(app)
    return app


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def grow_old(app: Application, medias: Iterable[str], days: int = 31) -> None:
    """Let files be unused for so many days, the first one the longest."""
    with app.homeserver.database.write() as tx:
        for number, media in enumerate(medias):
            ts = tx.now_ms - days * DAY_MS + number
            statement = update(Media).where(Media.media_id == media.partition("/")[2])
            tx.sql.execute(statement.values(created_ts=ts, last_used_ts=None))


def sweep(app: Application) -> media_retention.Swept:
    return media_retention.sweep(app.homeserver.database, now_ms())


def are_there(person: Person, *medias: str) -> list[bool]:
    return [download(person, media).status_code == 200 for media in medias]


def disk(tmp_path: Path) -> int:
    folder = tmp_path / "media"
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_unused_files_are_deleted_and_their_bytes_with_them(
    app: Application, alice: Person, tmp_path: Path
) -> None:
    old, new = upload(alice, bytes(1000)), upload(alice, bytes(10))
    grow_old(app, [old])

    done = sweep(app)

    assert done == media_retention.Swept(1, 0, 1000)
    assert are_there(alice, old, new) == [False, True]
    assert disk(tmp_path) == 10


def test_a_file_that_was_downloaded_lately_is_kept(app: Application, alice: Person) -> None:
    media = upload(alice)
    grow_old(app, [media])
    download(alice, media)
    app.homeserver.media_used.write()

    sweep(app)

    assert are_there(alice, media) == [True]


def test_files_in_use_are_kept(app: Application, alice: Person) -> None:
    names = ("avatar", "field", "room", "member", "pinned", "emoji", "sticker", "own_sticker")
    files = {name: upload(alice, name.encode()) for name in names}
    unused = upload(alice, b"unused")
    uri = {name: f"mxc://{media}" for name, media in files.items()}
    alice.put(f"profile/{alice.user_id}/avatar_url", json={"avatar_url": uri["avatar"]})
    alice.put(
        f"profile/{alice.user_id}/org.example.banner", json={"org.example.banner": uri["field"]}
    )
    room = alice.create_room()
    alice.set_state(room, "m.room.avatar", {"url": uri["room"]})
    member = {"membership": "join", "avatar_url": uri["member"]}
    alice.set_state(room, "m.room.member", member, alice.user_id)
    pinned = alice.send(room, "a.png", msgtype="m.image", url=uri["pinned"])
    alice.send(room, "b.png", msgtype="m.image", url=f"mxc://{unused}")
    alice.set_state(room, "m.room.pinned_events", {"pinned": [pinned, 5, "$unknown"]})
    pack = {"images": {"cat": {"url": uri["emoji"]}}}
    alice.set_state(room, "im.ponies.room_emotes", pack, "cats")
    account_data = f"user/{alice.user_id}/account_data/im.ponies.user_emotes"
    alice.put(account_data, json={"images": {"dog": {"url": uri["own_sticker"]}}})
    alice.set_state(room, "org.example.stickers", {"list": [uri["sticker"]]})
    grow_old(app, [*files.values(), unused])

    done = sweep(app)

    assert done.files == 1
    assert are_there(alice, *files.values()) == [True] * len(files)
    assert are_there(alice, unused) == [False]


def test_files_that_come_into_use_while_others_are_deleted_are_kept(
    app: Application, alice: Person, tmp_path: Path
) -> None:
    names = ("avatar", "field", "room", "pinned", "emoji")
    files = {name: upload(alice, name.encode()) for name in names}
    unused = upload(alice, b"unused")
    uri = {name: f"mxc://{media}" for name, media in files.items()}
    room = alice.create_room()
    pinned = alice.send(room, "a.png", msgtype="m.image", url=uri["pinned"])
    grow_old(app, [*files.values(), unused])
    database = app.homeserver.database
    used = references.collect(database)
    found = media_retention.unused_files(database, now_ms() - 30 * DAY_MS, used=used)
    assert len(found) == len(files) + 1

    profile = f"profile/{alice.user_id}"
    alice.put(f"{profile}/avatar_url", json={"avatar_url": uri["avatar"]})
    alice.put(f"{profile}/org.example.banner", json={"org.example.banner": uri["field"]})
    alice.set_state(room, "m.room.avatar", {"url": uri["room"]})
    alice.set_state(room, "m.room.pinned_events", {"pinned": [pinned]})
    account_data = f"user/{alice.user_id}/account_data/im.ponies.user_emotes"
    alice.put(account_data, json={"images": {"dog": {"url": uri["emoji"]}}})
    done = deletion.delete_files(database, [it.media_id for it in found], spared=used)

    assert done.media_ids == [unused.partition("/")[2]]
    assert are_there(alice, *files.values(), unused) == [True] * len(files) + [False]
    assert disk(tmp_path) == sum(map(len, names))


def test_a_file_becomes_an_avatar_just_before_the_write_that_would_delete_it(
    app: Application, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = upload(alice)
    grow_old(app, [media])
    renew, calls = references.References.renew, []

    def renew_and_set(used: references.References, tx: Reader) -> None:
        renew(used, tx)
        calls.append(type(tx).__name__)
        if len(calls) == 1:
            path = f"profile/{alice.user_id}/avatar_url"
            alice.put(path, json={"avatar_url": f"mxc://{media}"})

    monkeypatch.setattr(references.References, "renew", renew_and_set)
    done = sweep(app)

    assert calls == ["Reader", "Tx"]
    assert done.files == 0
    assert are_there(alice, media) == [True]


def test_what_is_not_in_use_any_more_is_deleted(app: Application, alice: Person) -> None:
    media = upload(alice)
    path = f"profile/{alice.user_id}/avatar_url"
    alice.put(path, json={"avatar_url": f"mxc://{media}"})
    alice.put(path, json={"avatar_url": "mxc://localhost/other"})
    grow_old(app, [media])

    assert sweep(app).files == 1


def test_files_that_may_be_encrypted_are_kept(app: Application, alice: Person) -> None:
    encrypted = upload(alice, b"secret", "application/octet-stream")
    grow_old(app, [encrypted])

    assert sweep(app).files == 0
    assert are_there(alice, encrypted) == [True]


def test_files_that_may_be_encrypted_go_if_the_settings_say_so(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(**LIFETIME, **{"media_retention.may_delete_encrypted": "true"})
    alice = _register(app)
    grow_old(app, [upload(alice, b"secret", "application/octet-stream")])

    assert sweep(app).files == 1
    assert disk(tmp_path) == 0


def _register(app: Application) -> Person:
    body = {"username": "alice", "password": "x" * 12, "auth": {"type": "m.login.dummy"}}
    client = app.test_client()
    made = client.post("/_matrix/client/v3/register", json=body).get_json()
    return Person(client, made["user_id"], made["access_token"], made["device_id"])


def test_without_settings_nothing_is_deleted(make_app: MakeApp) -> None:
    app = make_app()
    alice = _register(app)
    media = upload(alice)
    grow_old(app, [media], days=10_000)

    assert sweep(app) == media_retention.Swept(0, 0, 0)
    assert are_there(alice, media) == [True]


def test_above_the_budget_the_longest_unused_files_go_first(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(**{"media_retention.local_media_bytes": "1 MiB"})
    alice = _register(app)
    old = [upload(alice, bytes([number]) * 300_000) for number in range(5)]
    avatar = old[0]
    alice.put(f"profile/{alice.user_id}/avatar_url", json={"avatar_url": f"mxc://{avatar}"})
    grow_old(app, old, days=2)
    new = upload(alice, b"x" * 300_000)

    done = sweep(app)

    assert (done.files, done.freed_bytes) == (3, 900_000)
    assert are_there(alice, *old, new) == [True, False, False, False, True, True]
    assert disk(tmp_path) == 900_000
    assert sweep(app).files == 0


def test_files_of_the_last_day_are_kept_whatever_the_budget(make_app: MakeApp) -> None:
    app = make_app(**{"media_retention.local_media_bytes": "1 MiB"})
    alice = _register(app)
    files = [upload(alice, bytes([number]) * 600_000) for number in range(3)]

    assert sweep(app).files == 0
    assert are_there(alice, *files) == [True] * 3


def test_files_of_other_servers_go_by_their_last_use(
    remote: Remotes, make_app: MakeApp, tmp_path: Path
) -> None:
    lifetime = {"media_retention.remote_media_lifetime": "10 d"}
    app = make_app(**remote.settings, **lifetime)
    remote.talk_to(app)
    alice, b = _register(app), remote("b.test")
    for name in ("old", "new", "used"):
        b.media[name] = ("text/plain", name.encode() * 10)
        assert are_there(alice, f"b.test/{name}") == [True]
    alice.put(f"profile/{alice.user_id}/avatar_url", json={"avatar_url": "mxc://b.test/used"})
    with app.homeserver.database.write() as tx:
        statement = update(RemoteMediaFile).where(RemoteMediaFile.media_id != "new")
        tx.sql.execute(statement.values(last_used_ts=tx.now_ms - 11 * DAY_MS))

    done = sweep(app)

    assert done == media_retention.Swept(0, 1, 30)
    assert disk(tmp_path) == 30 + 40
    assert are_there(alice, "b.test/old") == [True]  # fetched again


def test_an_interrupted_sweep_goes_on(
    app: Application, alice: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [upload(alice, bytes([number]) * 10) for number in range(5)]
    grow_old(app, files)
    monkeypatch.setattr(deletion, "AT_ONCE", 2)

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        media_retention.sweep(app.homeserver.database, now_ms(), stop)

    assert disk(tmp_path) == 30
    assert sweep(app).files == 3
    assert disk(tmp_path) == 0


def test_content_that_an_interruption_has_left_is_deleted(
    app: Application, alice: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, kept = upload(alice, b"gone"), upload(alice, b"kept")

    def fail(*_: object) -> None:
        raise MatrixError(503, "M_UNKNOWN", "killed")

    with monkeypatch.context() as patch:  # after the row, before the content
        patch.setattr(deletion, "_free", fail)
        with pytest.raises(MatrixError):
            deletion.delete_files(app.homeserver.database, [gone.partition("/")[2]])
    assert disk(tmp_path) == 8
    assert deletion.sweep(app.homeserver.database) == 0  # an upload may be about to have it
    monkeypatch.setattr(deletion, "GRACE_SECONDS", -1.0)

    assert deletion.sweep(app.homeserver.database) == 1

    assert disk(tmp_path) == 4
    assert are_there(alice, kept) == [True]


def test_an_upload_of_content_that_is_being_deleted_is_repeated(
    app: Application, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = upload(alice)
    before = files.receive

    def delete_meanwhile(*args: Any) -> files.Content:
        received = before(*args)
        deletion.delete_files(app.homeserver.database, [first.partition("/")[2]])
        return received

    with monkeypatch.context() as patch:
        patch.setattr(files, "receive", delete_meanwhile)
        answer = alice.post(
            "/_matrix/media/v3/upload", data=b"Ten letters, and some more of them.", json=None
        )

    assert answer.status_code == 503
    assert are_there(alice, upload(alice)) == [True]


def test_addresses_without_content_are_forgotten(app: Application, alice: Person) -> None:
    alice.post("/_matrix/media/v1/create")
    with app.homeserver.database.write() as tx:
        tx.sql.execute(update(Media).values(unused_expires_ts=tx.now_ms - 2 * DAY_MS))

    deletion.sweep(app.homeserver.database)

    with app.homeserver.database.read() as tx:
        assert tx.sql.execute(select(Media.media_id)).all() == []


def test_files_of_other_servers_without_a_row_are_deleted(
    remote: Remotes, app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = _register(app)
    remote("b.test").media["cat"] = ("text/plain", b"cat")
    assert are_there(alice, "b.test/cat") == [True]
    lost = tmp_path / "media" / "remote" / "ab" / ("c" * 62)
    lost.parent.mkdir(exist_ok=True)
    lost.write_bytes(b"lost")
    assert remote_media.sweep(app.homeserver.database) == 0  # it may be about to have one
    monkeypatch.setattr(remote_media, "GRACE_SECONDS", -1.0)

    assert remote_media.sweep(app.homeserver.database) == 1

    assert disk(tmp_path) == 3
    assert are_there(alice, "b.test/cat") == [True]


def test_what_was_being_deleted_at_a_crash_is_deleted_at_the_start(
    make_app: MakeApp, tmp_path: Path
) -> None:
    removed = tmp_path / "media" / "removed"
    (removed / "folder").mkdir(parents=True)
    (removed / "folder" / "96x96-crop.png").write_bytes(b"x")
    (removed / "file").write_bytes(b"x")

    make_app()

    assert disk(tmp_path) == 0
    assert list(removed.iterdir()) == []
