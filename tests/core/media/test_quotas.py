"""How many bytes of files one account may have stored."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from homebody.core.media import limits, store
from homebody.errors import MatrixError
from homebody.web import Application
from tests.client_server.test_appservices import BOT, Irc
from tests.conftest import Login, MakeApp, Person
from tests.helpers import bridge
from tests.helpers.rooms import refusal

UPLOAD = "/_matrix/media/v3/upload"
FULL = (403, "M_USER_LIMIT_EXCEEDED")


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    return make_app(**{"quotas.media_bytes": "1000"})


def upload(person: Person, size: int, **options: Any) -> TestResponse:
    return person.post(UPLOAD, data=bytes(size), json=None, **options)


def files_on_disk(tmp_path: Path) -> int:
    return sum(path.is_file() for path in (tmp_path / "media").rglob("*"))


def test_files_beyond_the_quota_are_refused_and_not_kept(login: Login, tmp_path: Path) -> None:
    alice, bob = login("alice"), login("bob")
    assert upload(alice, 600).status_code == 200
    before = files_on_disk(tmp_path)

    refused = upload(alice, 401)

    assert refusal(refused) == FULL
    assert refused.get_json()["info_uri"]
    assert files_on_disk(tmp_path) == before
    assert upload(alice, 400).status_code == 200
    assert refusal(upload(alice, 1)) == FULL
    assert upload(bob, 1000).status_code == 200


def test_a_file_for_an_address_made_before_counts_as_well(login: Login) -> None:
    alice = login("alice")
    made = [alice.post("/_matrix/media/v1/create").get_json() for _ in range(2)]
    paths = [f"{UPLOAD}/{it['content_uri'].removeprefix('mxc://')}" for it in made]

    first = alice.put(paths[0], data=bytes(900))
    second = alice.put(paths[1], data=bytes(200))

    assert first.status_code == 200
    assert refusal(second) == FULL
    assert alice.put(paths[1], data=bytes(100)).status_code == 200  # it still waits


def test_a_body_without_a_length_is_cut_where_the_quota_ends(
    app: Application, login: Login, tmp_path: Path
) -> None:
    alice = login("alice")
    upload(alice, 600)
    before = files_on_disk(tmp_path)
    body = store.Upload(io.BytesIO(bytes(401)).readinto, "text/plain", None)

    with pytest.raises(MatrixError, match="larger than 400 bytes"):
        store.upload(app.homeserver.database, alice.user_id, body)

    assert files_on_disk(tmp_path) == before
    assert upload(alice, 400).status_code == 200


def test_uploads_at_the_same_time_do_not_share_what_is_left(app: Application, login: Login) -> None:
    alice = login("alice")
    begun, go_on = threading.Event(), threading.Event()

    def slowly(buffer: memoryview) -> int:
        begun.set()
        go_on.wait(10)
        return 0

    body = store.Upload(slowly, "text/plain", None, 800)
    slow = threading.Thread(
        target=store.upload, args=(app.homeserver.database, alice.user_id, body)
    )
    slow.start()
    begun.wait(10)

    refused = upload(alice, 300)
    go_on.set()
    slow.join()

    assert refusal(refused) == FULL
    assert upload(alice, 300).status_code == 200  # nothing came of the other


def test_what_a_bridge_uploads_is_not_counted(make_app: MakeApp, tmp_path: Path) -> None:
    path = bridge.write(tmp_path, bridge.registration(None))
    app = make_app(appservices=f'["{path}"]', **{"quotas.media_bytes": "1000"})
    irc = Irc(app.test_client(), BOT, bridge.AS_TOKEN, "")

    answers = [upload(irc, 900) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]


def test_a_user_may_have_a_quota_of_their_own(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    database = app.homeserver.database
    with database.write() as tx:
        limits.put(tx, "@owner:localhost", alice.user_id, 2000)

    assert upload(alice, 2000).status_code == 200
    assert refusal(upload(alice, 1)) == FULL
    assert refusal(upload(bob, 1001)) == FULL
    with database.write() as tx:
        limits.put(tx, "@owner:localhost", alice.user_id, None)
    assert refusal(upload(alice, 1)) == FULL


def test_the_size_of_a_file_that_clients_see_is_within_the_quota(
    app: Application, login: Login
) -> None:
    alice, bob = login("alice"), login("bob")
    with app.homeserver.database.write() as tx:
        limits.put(tx, "@owner:localhost", alice.user_id, 10)

    for path in ("/_matrix/client/v1/media/config", "/_matrix/media/v3/config"):
        assert alice.get(path).get_json() == {"m.upload.size": 10}
        assert bob.get(path).get_json() == {"m.upload.size": 1000}
