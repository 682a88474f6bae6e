"""Addresses that are made before their content."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from werkzeug.test import TestResponse

from homebody.core.media import files, store
from homebody.storage.database import Reader
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.rooms import refusal

MEDIA = "/_matrix/client/v1/media"
CREATE = "/_matrix/media/v1/create"
UPLOAD = "/_matrix/media/v3/upload"
TEXT = b"content that comes later"


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """`later(hours)`: the server's clock goes on."""
    now_ns = time.time_ns
    return lambda hours: monkeypatch.setattr("time.time_ns", lambda: now_ns() + int(hours * 3600e9))


@pytest.fixture
def elsewhere() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def create(person: Person) -> str:
    """server/id of an address without content."""
    answer = person.post(CREATE)
    assert answer.status_code == 200, answer.get_json()
    uri: str = answer.get_json()["content_uri"]
    return uri.removeprefix("mxc://")


def fill(person: Person, media: str, data: bytes = TEXT) -> TestResponse:
    return person.put(
        f"{UPLOAD}/{media}?filename=a.txt", data=data, headers={"Content-Type": "text/plain"}
    )


def download(person: Person, media: str, timeout_ms: int = 0) -> TestResponse:
    return person.get(f"{MEDIA}/download/{media}?timeout_ms={timeout_ms}")


def wait_for_waiters(app: Application, count: int) -> None:
    until = time.monotonic() + 10
    while len(app.homeserver.wakeups) != count:
        assert time.monotonic() < until
        time.sleep(0.005)


def test_content_comes_after_its_address(login: Login) -> None:
    alice = login("alice")
    before = time.time() * 1000
    made = alice.post(CREATE).get_json()
    media = made["content_uri"].removeprefix("mxc://")

    filled = fill(alice, media)

    assert before + 23 * 3_600_000 < made["unused_expires_at"] < before + 25 * 3_600_000
    assert (filled.status_code, filled.get_json()) == (200, {})
    answer = download(alice, media)
    assert (answer.status_code, answer.data) == (200, TEXT)
    assert answer.headers["Content-Disposition"] == 'inline; filename="a.txt"'


def test_without_content_there_is_no_download_yet(login: Login) -> None:
    alice = login("alice")
    media = create(alice)

    file = download(alice, media)
    thumbnail = alice.get(f"{MEDIA}/thumbnail/{media}?width=32&height=32&timeout_ms=0")

    assert refusal(file) == refusal(thumbnail) == (504, "M_NOT_YET_UPLOADED")


def test_a_download_waits_for_the_content(
    app: Application, login: Login, elsewhere: ThreadPoolExecutor
) -> None:
    alice, bob = login("alice"), login("bob")
    media = create(alice)
    first: Future[TestResponse] = elsewhere.submit(download, bob, media, 20_000)
    second: Future[TestResponse] = elsewhere.submit(download, alice, media, 20_000)
    wait_for_waiters(app, 2)

    began = time.monotonic()
    fill(alice, media)
    answers = [first.result(), second.result()]

    assert [answer.data for answer in answers] == [TEXT, TEXT]
    assert time.monotonic() - began < 5
    assert len(app.homeserver.wakeups) == 0


def test_a_download_waits_no_longer_than_asked(app: Application, login: Login) -> None:
    alice = login("alice")
    media = create(alice)
    began = time.monotonic()

    answer = download(alice, media, timeout_ms=200)

    assert refusal(answer) == (504, "M_NOT_YET_UPLOADED")
    assert 0.2 <= time.monotonic() - began < 3
    assert len(app.homeserver.wakeups) == 0


def test_waiting_holds_no_connection_to_the_database(
    app: Application, login: Login, elsewhere: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = login("alice")
    media = create(alice)
    database = app.homeserver.database
    read, reading = database.read, list[None]()

    @contextmanager
    def counted_read() -> Iterator[Reader]:
        with read() as reader:
            reading.append(None)
            yield reader
            reading.pop()

    monkeypatch.setattr(database, "read", counted_read)
    waiting = [elsewhere.submit(download, alice, media, 20_000) for _ in range(4)]
    wait_for_waiters(app, 4)
    time.sleep(0.1)  # they look once more before they rest

    reading_meanwhile = len(reading)
    fill(alice, media)
    answers = [answer.result() for answer in waiting]

    assert reading_meanwhile == 0
    assert [answer.status_code for answer in answers] == [200] * 4


def test_a_server_that_stops_lets_waiting_downloads_go(
    app: Application, login: Login, elsewhere: ThreadPoolExecutor
) -> None:
    alice = login("alice")
    waiting = elsewhere.submit(download, alice, create(alice), 60_000)
    wait_for_waiters(app, 1)

    app.homeserver.wakeups.close()

    assert refusal(waiting.result(5)) == (504, "M_NOT_YET_UPLOADED")


def test_content_is_given_once(login: Login) -> None:
    alice = login("alice")
    media = create(alice)
    fill(alice, media)
    at_once = alice.post(UPLOAD, data=TEXT, json=None).get_json()["content_uri"]

    again = fill(alice, media, b"other")
    over = fill(alice, at_once.removeprefix("mxc://"), b"other")

    assert refusal(again) == refusal(over) == (409, "M_CANNOT_OVERWRITE_MEDIA")
    assert download(alice, media).data == TEXT


def test_two_uploads_to_one_address_at_once_leave_one_content(
    login: Login, elsewhere: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = login("alice")
    media = create(alice)
    both_have_been_checked = threading.Barrier(2)
    receive = files.receive

    def receive_together(*args: Any) -> files.Content:
        both_have_been_checked.wait(10)
        return receive(*args)

    monkeypatch.setattr(files, "receive", receive_together)
    answers = list(elsewhere.map(lambda data: fill(alice, media, data), [b"one", b"two"]))

    won = next(n for n, answer in enumerate(answers) if answer.status_code == 200)
    assert refusal(answers[1 - won]) == (409, "M_CANNOT_OVERWRITE_MEDIA")
    assert download(alice, media).data == [b"one", b"two"][won]


def test_only_who_made_an_address_may_upload_to_it(login: Login) -> None:
    media = create(login("alice"))

    answer = fill(login("mallory"), media)

    assert refusal(answer) == (403, "M_FORBIDDEN")
    assert refusal(download(login("alice"), media)) == (504, "M_NOT_YET_UPLOADED")


def test_an_address_that_nobody_made_takes_no_content(login: Login) -> None:
    alice = login("alice")

    assert refusal(fill(alice, "localhost/made_up")) == (404, "M_NOT_FOUND")
    assert refusal(fill(alice, "example.org/abc")) == (403, "M_FORBIDDEN")


def test_an_unused_address_expires(login: Login, later: Callable[[float], None]) -> None:
    alice = login("alice")
    media = create(alice)
    later(24.1)

    assert refusal(fill(alice, media)) == (404, "M_NOT_FOUND")
    assert refusal(download(alice, media)) == (404, "M_NOT_FOUND")


def test_content_that_came_in_time_does_not_expire(
    login: Login, later: Callable[[float], None]
) -> None:
    alice = login("alice")
    media = create(alice)
    fill(alice, media)
    later(24.1)

    alice.post(CREATE)

    assert download(alice, media).data == TEXT


def test_a_user_may_have_so_many_addresses_that_wait(
    login: Login, later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_PENDING", 3)
    alice = login("alice")
    media = [create(alice) for _ in range(3)]

    refused = alice.post(CREATE)
    others = login("bob").post(CREATE)
    fill(alice, media[0])
    allowed = alice.post(CREATE)
    refused_again = alice.post(CREATE)
    later(24.1)
    allowed_again = alice.post(CREATE)

    assert refusal(refused) == refusal(refused_again) == (429, "M_LIMIT_EXCEEDED")
    assert int(refused.headers["Retry-After"]) > 0
    assert [others.status_code, allowed.status_code, allowed_again.status_code] == [200] * 3


def test_how_fast_addresses_are_made_is_limited(make_app: MakeApp) -> None:
    app = make_app(
        rate_limits="true",
        **{"rc_media_create.per_second": "0.1", "rc_media_create.burst_count": "2"},
    )
    body = {"username": "alice", "password": "x" * 20, "auth": {"type": "m.login.dummy"}}
    client = app.test_client()
    session = client.post("/_matrix/client/v3/register", json=body).get_json()
    alice = Person(client, session["user_id"], session["access_token"], session["device_id"])

    answers = [alice.post(CREATE) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]


@pytest.mark.parametrize("timeout", ["-1", "x", "1.5", ""])
def test_a_timeout_is_a_whole_number(login: Login, timeout: str) -> None:
    alice = login("alice")

    answer = alice.get(f"{MEDIA}/download/{create(alice)}?timeout_ms={timeout}")

    assert refusal(answer) == (400, "M_INVALID_PARAM")
