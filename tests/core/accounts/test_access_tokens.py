"""Access and refresh tokens."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from sqlalchemy import text
from werkzeug.test import TestResponse

from homebody import errors
from homebody.core.accounts import access_tokens
from homebody.core.sessions import devices
from homebody.storage.database import Database
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp
from tests.helpers import server
from tests.helpers.rooms import refusal

Pair = dict[str, Any]


def log_in(client: FlaskClient) -> Pair:
    """A session of Alice with a refresh token."""
    body = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
    pair: Pair = client.post(V3 + "login", json={**body, "refresh_token": True}).get_json()
    return pair


def refresh(client: FlaskClient, pair: Pair) -> TestResponse:
    return client.post(V3 + "refresh", json={"refresh_token": pair["refresh_token"]})


def use(client: FlaskClient, pair: Pair) -> TestResponse:
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    return client.get(V3 + "account/whoami", headers=headers)


def test_a_request_without_or_with_a_wrong_token_is_refused(client: FlaskClient) -> None:
    missing = client.get(V3 + "account/whoami")
    unknown = use(client, {"access_token": "made-up"})

    assert refusal(missing) == (401, "M_MISSING_TOKEN")
    assert refusal(unknown) == (401, "M_UNKNOWN_TOKEN")
    assert unknown.get_json()["soft_logout"] is False


@pytest.mark.parametrize("token", ["", "ä", "%FF", "x" * 100_000])
def test_a_strange_token_is_only_unknown(client: FlaskClient, token: str) -> None:
    answer = client.get(V3 + "account/whoami", query_string=f"access_token={token}")

    assert refusal(answer) == (401, "M_UNKNOWN_TOKEN")


def test_a_refreshed_pair_works_and_lives_as_long_as_the_first(
    client: FlaskClient, login: Login
) -> None:
    login("alice")
    first = log_in(client)

    answer = refresh(client, first)

    assert answer.status_code == 200
    second = answer.get_json()
    assert set(second) == {"access_token", "refresh_token", "expires_in_ms"}
    assert second["expires_in_ms"] == 3_600_000
    assert use(client, second).get_json()["device_id"] == first["device_id"]


def test_the_old_pair_stays_good_until_the_new_one_is_used(
    client: FlaskClient, login: Login
) -> None:
    login("alice")
    first = log_in(client)
    second = refresh(client, first).get_json()

    before = use(client, first)
    use(client, second)
    after = use(client, first)
    reused = refresh(client, first)

    assert before.status_code == 200
    assert refusal(after) == (401, "M_UNKNOWN_TOKEN")
    assert refusal(reused) == (401, "M_UNKNOWN_TOKEN")
    assert use(client, second).status_code == 200


def test_a_client_that_never_got_the_new_pair_may_ask_again(
    client: FlaskClient, login: Login
) -> None:
    login("alice")
    first = log_in(client)
    lost = refresh(client, first).get_json()

    third = refresh(client, first).get_json()

    assert refusal(refresh(client, lost)) == (401, "M_UNKNOWN_TOKEN")
    assert refusal(use(client, lost)) == (401, "M_UNKNOWN_TOKEN")
    assert use(client, third).status_code == 200
    assert refusal(use(client, first)) == (401, "M_UNKNOWN_TOKEN")


def test_using_the_new_refresh_token_ends_the_old_pair_as_well(
    client: FlaskClient, login: Login
) -> None:
    login("alice")
    first = log_in(client)
    second = refresh(client, first).get_json()

    third = refresh(client, second).get_json()

    assert refusal(use(client, first)) == (401, "M_UNKNOWN_TOKEN")
    assert refusal(refresh(client, first)) == (401, "M_UNKNOWN_TOKEN")
    assert use(client, second).status_code == 200
    assert use(client, third).status_code == 200


def test_a_pair_that_is_refreshed_during_its_first_use_does_not_end_the_newest(
    app: Application, client: FlaskClient, login: Login
) -> None:
    login("alice")
    database: Database = app.homeserver.database
    second = refresh(client, log_in(client)).get_json()
    first_use = threading.Thread(target=use, args=(app.test_client(), second))

    with database.write() as tx:
        first_use.start()  # it has read that there is an older pair, and queues for the write
        end = time.monotonic() + 20
        # two, as the thread that commits queues as well
        while len(database.writer.turn._queue) < 2:  # noqa: SLF001 - the race can't be timed
            assert time.monotonic() < end
            first_use.join(0.01)
        third = access_tokens.exchange(tx, second["refresh_token"])
    first_use.join(10)

    assert use(client, second).status_code == 200
    assert refresh(client, third).status_code == 200
    assert use(client, third).status_code == 200


def test_no_session_is_lost_when_requests_and_refreshes_meet(tmp_path: Path) -> None:
    # Apps do so by themselves: a request under way with a new token, and a refresh of that token.
    sessions = 30
    its_server = server.start(tmp_path)
    api = f"{its_server.url}{V3}"
    account = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    log_in_again = {"type": "m.login.password", "user": "alice", "password": PASSWORD}

    def ask(path: str, body: Pair) -> Pair:
        answer: Pair = requests.post(api + path, json=body, timeout=30).json()
        return answer

    def whoami(pair: Pair) -> int:
        headers = {"Authorization": f"Bearer {pair['access_token']}"}
        return requests.get(api + "account/whoami", headers=headers, timeout=30).status_code

    def race(_: int) -> tuple[int, int]:
        first = ask("login", {**log_in_again, "refresh_token": True})
        second = ask("refresh", {"refresh_token": first["refresh_token"]})
        with ThreadPoolExecutor(3) as pool:
            for _ in range(2):
                pool.submit(whoami, second)
            third = pool.submit(ask, "refresh", {"refresh_token": second["refresh_token"]})
        fourth = ask("refresh", {"refresh_token": third.result()["refresh_token"]})
        return whoami(third.result()), whoami(fourth) if "access_token" in fourth else 401

    try:
        ask("register", account)
        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(race, range(sessions)))
    finally:
        its_server.stop()

    assert outcomes == [(200, 200)] * sessions


def is_soft(answer: TestResponse) -> bool:
    """Whether the server says that the session is still there, for all that this token is not."""
    assert refusal(answer) == (401, "M_UNKNOWN_TOKEN")
    return bool(answer.get_json()["soft_logout"])


def test_a_superseded_token_leaves_the_client_its_keys(client: FlaskClient, login: Login) -> None:
    login("alice")
    first = log_in(client)
    second = refresh(client, first).get_json()
    use(client, second)

    assert is_soft(use(client, first))
    assert is_soft(refresh(client, first))
    assert use(client, second).status_code == 200


def test_a_pair_that_was_lost_on_its_way_is_superseded_as_well(
    client: FlaskClient, login: Login
) -> None:
    login("alice")
    first = log_in(client)
    lost = refresh(client, first).get_json()

    refresh(client, first)

    assert is_soft(use(client, lost))
    assert is_soft(refresh(client, lost))


def test_a_login_of_the_same_device_supersedes_its_tokens(
    client: FlaskClient, login: Login
) -> None:
    login("alice")
    first = log_in(client)
    body = {"type": "m.login.password", "user": "alice", "password": PASSWORD}

    client.post(V3 + "login", json={**body, "device_id": first["device_id"]})

    assert is_soft(use(client, first))
    assert is_soft(refresh(client, first))


def test_a_superseded_token_of_a_device_that_is_gone_is_unknown(
    client: FlaskClient, login: Login
) -> None:
    login("alice")
    first = log_in(client)
    second = refresh(client, first).get_json()
    headers = {"Authorization": f"Bearer {second['access_token']}"}

    client.post(V3 + "logout", headers=headers, json={})

    assert [is_soft(use(client, pair)) for pair in (first, second)] == [False, False]
    assert not is_soft(refresh(client, first))


def test_no_more_superseded_tokens_are_kept_than_the_newest(
    client: FlaskClient, login: Login, app: Application
) -> None:
    login("alice")
    pairs = [log_in(client)]
    for _ in range(access_tokens.MAX_SUPERSEDED // 2 + 2):  # of each refresh, an access token too
        pairs.append(refresh(client, pairs[-1]).get_json())

    with app.homeserver.database.read() as tx:
        kept = tx.sql.execute(text("SELECT count(*) FROM superseded_tokens")).scalar_one()

    assert kept == access_tokens.MAX_SUPERSEDED
    assert not is_soft(use(client, pairs[0]))
    assert is_soft(use(client, pairs[-3]))


def test_an_expired_token_asks_to_be_refreshed(make_app: MakeApp) -> None:
    client = make_app(token_lifetime="1 ms").test_client()
    proof = {"type": "m.login.dummy"}
    body = {"username": "alice", "refresh_token": True, "auth": proof}
    pair = client.post(V3 + "register", json=body).get_json()
    time.sleep(0.01)

    answer = use(client, pair)

    assert refusal(answer) == (401, "M_UNKNOWN_TOKEN")
    assert answer.get_json()["soft_logout"] is True
    assert refresh(client, pair).status_code == 200


def test_a_logout_ends_the_refresh_token_too(client: FlaskClient, login: Login) -> None:
    login("alice")
    pair = log_in(client)
    headers = {"Authorization": f"Bearer {pair['access_token']}"}

    client.post(V3 + "logout", headers=headers, json={})

    assert refusal(refresh(client, pair)) == (401, "M_UNKNOWN_TOKEN")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "M_MISSING_PARAM")),
        ({"refresh_token": 5}, (400, "M_BAD_JSON")),
        ({"refresh_token": "made-up"}, (401, "M_UNKNOWN_TOKEN")),
    ],
)
def test_a_bad_request_refreshes_nothing(
    client: FlaskClient, body: Any, expected: tuple[int, str]
) -> None:
    assert refusal(client.post(V3 + "refresh", json=body)) == expected


def test_an_access_token_is_no_refresh_token(client: FlaskClient, login: Login) -> None:
    login("alice")
    pair = log_in(client)

    swapped = refresh(client, {"refresh_token": pair["access_token"]})

    assert refusal(swapped) == (401, "M_UNKNOWN_TOKEN")
    assert refusal(use(client, {"access_token": pair["refresh_token"]})) == (401, "M_UNKNOWN_TOKEN")


def test_a_removal_that_is_rolled_back_ends_no_session(app: Application, login: Login) -> None:
    alice = login("alice")
    alice.get("account/whoami")
    database: Database = app.homeserver.database

    def remove_and_fail() -> None:
        with database.write() as tx:
            devices.remove_all(tx, alice.user_id)
            raise errors.forbidden("after all not")

    with pytest.raises(errors.MatrixError):
        remove_and_fail()

    assert alice.get("account/whoami").status_code == 200


def test_a_removal_counts_for_the_next_writer_of_the_same_commit(
    app: Application, login: Login
) -> None:
    alice = login("alice")
    alice.get("account/whoami")
    database: Database = app.homeserver.database

    with database.write() as tx:
        devices.remove_all(tx, alice.user_id)
        token_hash = access_tokens.hash_of(alice.access_token)
        assert database.cached(access_tokens.TOKENS, token_hash) is None


def test_a_reader_from_before_the_removal_does_not_bring_a_token_back(
    app: Application, login: Login
) -> None:
    alice = login("alice")
    database: Database = app.homeserver.database
    token_hash = access_tokens.hash_of(alice.access_token)

    with database.read() as old:
        row = access_tokens._row(old, token_hash)  # noqa: SLF001 - the race can't be timed
        with database.write() as tx:
            devices.remove_all(tx, alice.user_id)
        access_tokens._cache(old, token_hash, row)  # noqa: SLF001 - as above

    assert refusal(alice.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")


def test_a_session_that_another_process_ends_is_refused(
    app: Application, login: Login, tmp_path: Path
) -> None:
    alice = login("alice")
    alice.get("account/whoami")
    with sqlite3.connect(tmp_path / "homebody.db") as other:
        other.execute("DELETE FROM access_tokens")
    other.close()

    app.homeserver.database.notice_other_writers()

    assert refusal(alice.get("account/whoami")) == (401, "M_UNKNOWN_TOKEN")
