"""The keys of other servers are fetched when they are needed, and kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from homebody.core.federation import keys
from homebody.core.federation.keys import ServerKeys
from homebody.spec import received_pdus, signing
from homebody.spec.signing import SignatureError
from homebody.web import Application
from tests.conftest import MakeApp
from tests.helpers.remote import Remote, Remotes
from tests.helpers.scripted_server import Response

KEY_PATH = "/_matrix/key/v2/server"
NOTARY_PATH = "/_matrix/key/v2/query"
DAY_MS = 86_400_000
SIGNED = {"hello": "world"}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def c(remote: Remotes) -> Remote:
    return remote("c.test")


@pytest.fixture
def server_keys(app: Application) -> ServerKeys:
    return app.homeserver.server_keys


@pytest.fixture
def with_notary(make_app: MakeApp, remote: Remotes) -> ServerKeys:
    """The keys of a server that trusts c.test."""
    app = make_app(**remote.settings, trusted_key_servers="c.test")
    return app.homeserver.server_keys


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers be asked again at once."""
    monkeypatch.setattr(keys, "MIN_INTERVAL_S", 0.0)
    monkeypatch.setattr(keys, "FIRST_BACK_OFF_S", 0.0)


def known(server_keys: ServerKeys, remote: Remote, at_ts: int | None = None) -> bool:
    """Whether the remote's key is the right one."""
    found = server_keys.verify_key(remote.name, remote.key.key_id, at_ts)
    return found == remote.key.verify_key


def test_a_key_is_fetched_once_and_kept(
    app: Application, make_app: MakeApp, remote: Remotes, b: Remote
) -> None:
    first = [known(app.homeserver.server_keys, b) for _ in range(3)]
    b.fail(KEY_PATH)
    after_restart = known(make_app(**remote.settings).homeserver.server_keys, b)

    assert first == [True] * 3
    assert after_restart
    assert len(b.received(KEY_PATH)) == 1


def test_json_is_verified_by_the_key_of_its_server(
    server_keys: ServerKeys, b: Remote, c: Remote
) -> None:
    right = signing.sign_json(SIGNED, "b.test", b.key)
    forged = signing.sign_json(SIGNED, "b.test", c.key)

    assert server_keys.verify(right, "b.test")
    assert not server_keys.verify({**right, "hello": "others"}, "b.test")
    assert not server_keys.verify(right, "c.test")
    assert not server_keys.verify(forged, "b.test")
    assert not server_keys.verify(SIGNED, "b.test")
    assert not server_keys.verify({**SIGNED, "signatures": {"b.test": "x"}}, "b.test")


def test_servers_are_not_asked_again_for_keys_that_somebody_made_up(
    server_keys: ServerKeys, b: Remote
) -> None:
    found = [server_keys.verify_key("b.test", f"ed25519:none{number}") for number in range(5)]

    assert found == [None] * 5
    assert len(b.received(KEY_PATH)) == 1


def test_only_some_of_many_signatures_are_looked_at(server_keys: ServerKeys, b: Remote) -> None:
    right = signing.sign_json(SIGNED, "b.test", b.key)["signatures"]["b.test"]
    others = {f"ed25519:none{number}": "A" * 86 for number in range(1000)}

    assert server_keys.verify({**SIGNED, "signatures": {"b.test": right | others}}, "b.test")
    assert not server_keys.verify({**SIGNED, "signatures": {"b.test": others | right}}, "b.test")


@pytest.mark.usefixtures("impatient")
def test_a_server_does_not_fill_the_disk_by_new_keys(
    app: Application, server_keys: ServerKeys, b: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MAX_KEPT", 4)
    for _ in range(3):
        b.rotate_key()
        assert known(server_keys, b)
    for _ in range(6):
        b.rotate_key()

    is_known = known(server_keys, b)

    with app.homeserver.database.read() as tx:
        kept = keys.responses(tx, "b.test")
    assert is_known
    assert b.key.key_id in kept
    assert len(kept) == 4


def test_a_failure_is_remembered(server_keys: ServerKeys, b: Remote) -> None:
    b.fail(KEY_PATH)

    found = [known(server_keys, b) for _ in range(3)]

    assert found == [False] * 3
    assert len(b.received(KEY_PATH)) == 1


@pytest.mark.usefixtures("impatient")
def test_a_server_that_failed_is_asked_again_later(server_keys: ServerKeys, b: Remote) -> None:
    b.fail(KEY_PATH)
    before = known(server_keys, b)
    b.recover()

    assert before is False
    assert known(server_keys, b)


def test_a_server_that_is_there_again_does_not_wait_for_the_whole_back_off(
    server_keys: ServerKeys, b: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    b.fail(KEY_PATH)
    assert not known(server_keys, b)
    b.recover()
    monkeypatch.setattr(keys, "MIN_INTERVAL_S", 0.0)

    by_others, by_itself = known(server_keys, b, now_ms()), known(server_keys, b)

    assert (by_others, by_itself) == (False, True)


def test_those_who_need_a_key_at_the_same_time_share_a_request(
    server_keys: ServerKeys, b: Remote
) -> None:
    b.delay(KEY_PATH, 0.2)
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(known(server_keys, b))) for _ in range(5)
    ]

    for it in threads:
        it.start()
    for it in threads:
        it.join()

    assert found == [True] * 5
    assert len(b.received(KEY_PATH)) == 1


def changed(b: Remote, **parts: Any) -> dict[str, Any]:
    """The response with other parts, signed again."""
    response = {key: it for key, it in b.published_keys().items() if key != "signatures"}
    return signing.sign_json({**response, **parts}, "b.test", b.key)


WRONG: dict[str, Callable[[Remote], Any]] = {
    "another server": lambda b: {**b.published_keys(), "server_name": "c.test"},
    "not signed": lambda b: {**b.published_keys(), "signatures": {}},
    "changed": lambda b: {**b.published_keys(), "valid_until_ts": now_ms() + 5},
    "a list": lambda _: [],
    "no time": lambda b: changed(b, valid_until_ts="soon"),
    "a negative time": lambda b: changed(b, valid_until_ts=-1),
    "a boolean": lambda b: changed(b, valid_until_ts=True),
    "keys of another type": lambda b: changed(b, verify_keys=[]),
    "a key of another type": lambda b: changed(b, old_verify_keys={"ed25519:x": "x"}),
    "a short key": lambda b: changed(b, old_verify_keys={"ed25519:x": {"key": "x"}}),
    "an old key without a time": lambda b: changed(
        b, old_verify_keys={"ed25519:x": {"key": "A" * 43}}
    ),
    "too many keys": lambda b: changed(
        b,
        old_verify_keys={f"ed25519:{it}": {"key": "A" * 43, "expired_ts": 1} for it in range(101)},
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_response_is_not_used(
    app: Application, server_keys: ServerKeys, b: Remote, kind: str
) -> None:
    b.answer(KEY_PATH, Response(200, WRONG[kind](b)))

    assert not known(server_keys, b)
    with app.homeserver.database.read() as tx:
        assert keys.responses(tx, "b.test") == {}


def test_keys_of_algorithms_that_are_not_known_are_left_out(
    server_keys: ServerKeys, b: Remote
) -> None:
    own = b.published_keys()["verify_keys"]
    response = changed(b, verify_keys={**own, "rsa:1": {"modulus": "x"}})
    b.answer(KEY_PATH, Response(200, response))

    assert known(server_keys, b)
    assert server_keys.verify_key("b.test", "rsa:1") is None


def test_a_key_is_valid_for_a_week_at_most(server_keys: ServerKeys, b: Remote) -> None:
    b.key_valid_for_ms = 365 * DAY_MS

    found = [known(server_keys, b, now_ms() + days * DAY_MS) for days in (0, 6, 8)]

    assert found == [True, True, False]


def test_a_key_is_valid_as_long_as_its_server_says(server_keys: ServerKeys, b: Remote) -> None:
    found = [known(server_keys, b, now_ms() + hours * 3_600_000) for hours in (0, 23, 25)]

    assert found == [True, True, False]


def test_an_expired_key_is_known_for_events_of_its_time(server_keys: ServerKeys, b: Remote) -> None:
    b.key_valid_for_ms = -1000

    found = [known(server_keys, b, at) for at in (0, now_ms() - 5000, now_ms(), None)]

    assert found == [True, True, False, False]


@pytest.mark.usefixtures("impatient")
def test_a_replaced_key_is_valid_until_then(server_keys: ServerKeys, b: Remote) -> None:
    assert known(server_keys, b)
    before = now_ms() - 1000
    old = b.rotate_key()
    b.old_keys[old.key_id]["expired_ts"] -= 500  # or it might be this millisecond

    assert known(server_keys, b)
    found = [
        server_keys.verify_key("b.test", old.key_id, at) == old.verify_key
        for at in (0, before, now_ms() + 1000, None)
    ]
    assert found == [True, True, False, False]


@pytest.mark.usefixtures("impatient")
def test_a_key_that_its_server_has_forgotten_is_kept(server_keys: ServerKeys, b: Remote) -> None:
    assert known(server_keys, b)
    old = b.rotate_key()
    b.old_keys.clear()

    assert known(server_keys, b)
    assert server_keys.verify_key("b.test", old.key_id, 0) == old.verify_key


@pytest.mark.usefixtures("impatient")
def test_a_key_is_fetched_again_when_half_of_its_time_is_over(
    server_keys: ServerKeys, b: Remote
) -> None:
    b.key_valid_for_ms = 2000
    assert known(server_keys, b)
    time.sleep(1.1)
    b.key_valid_for_ms = DAY_MS

    still = known(server_keys, b)
    b.wait_until(lambda: len(b.received(KEY_PATH)) == 2, "the second request")
    deadline = time.monotonic() + 5
    while not known(server_keys, b, now_ms() + 10_000) and time.monotonic() < deadline:
        time.sleep(0.01)

    assert still
    assert known(server_keys, b, now_ms() + 10_000)
    assert len(b.received(KEY_PATH)) == 2


@pytest.mark.parametrize(("version", "late"), [("4", True), ("5", False), ("12", False)])
def test_events_are_verified_by_the_rules_of_their_room_version(
    server_keys: ServerKeys, b: Remote, version: str, late: bool
) -> None:
    room = b.room(version)
    event = room.message("hello")
    future = room.message("hello", origin_server_ts=now_ms() + 10 * DAY_MS)

    received_pdus.verify(event, server_keys.verify_key)
    if late:
        received_pdus.verify(future, server_keys.verify_key)
    else:
        with pytest.raises(SignatureError):
            received_pdus.verify(future, server_keys.verify_key)


def test_the_servers_own_events_are_verified_without_a_request(
    app: Application, server_keys: ServerKeys
) -> None:
    key = app.homeserver.server.signing_key

    assert server_keys.verify(signing.sign_json(SIGNED, "localhost", key), "localhost")
    assert server_keys.verify_key("localhost", "ed25519:none") is None


@pytest.mark.usefixtures("impatient")
def test_notaries_are_asked_when_the_server_is_down(
    with_notary: ServerKeys, b: Remote, c: Remote
) -> None:
    c.notary_for["b.test"] = b.published_keys()
    b.fail(KEY_PATH)

    assert known(with_notary, b)
    assert len(c.received(NOTARY_PATH)) == 1


@pytest.mark.usefixtures("impatient")
def test_notaries_are_asked_for_a_key_that_the_server_has_forgotten(
    with_notary: ServerKeys, b: Remote, c: Remote
) -> None:
    c.notary_for["b.test"] = b.published_keys()
    old = b.rotate_key()
    b.old_keys.clear()

    assert with_notary.verify_key("b.test", old.key_id, 0) == old.verify_key
    assert known(with_notary, b)


def test_notaries_are_not_asked_while_the_server_answers(
    with_notary: ServerKeys, b: Remote, c: Remote
) -> None:
    assert known(with_notary, b)
    assert c.received(NOTARY_PATH) == []


def test_what_a_notary_has_not_signed_is_not_used(
    with_notary: ServerKeys, b: Remote, c: Remote
) -> None:
    b.fail(KEY_PATH)
    c.answer(NOTARY_PATH, Response(200, {"server_keys": [b.published_keys()]}))

    assert not known(with_notary, b)


@pytest.mark.parametrize("response", [[], {}, {"server_keys": 1}, {"server_keys": [1, {}]}])
def test_a_malformed_response_of_a_notary_is_not_used(
    with_notary: ServerKeys, b: Remote, c: Remote, response: Any
) -> None:
    b.fail(KEY_PATH)
    c.answer(NOTARY_PATH, Response(200, response))

    assert not known(with_notary, b)


def test_a_notary_cannot_speak_for_servers_that_it_was_not_asked_about(
    with_notary: ServerKeys, b: Remote, c: Remote, remote: Remotes
) -> None:
    d = remote("d.test")
    b.fail(KEY_PATH)
    d.fail(KEY_PATH)
    c.notary_for["b.test"] = d.published_keys()

    assert not known(with_notary, b)
    c.notary_for.clear()
    assert not known(with_notary, d)


@pytest.mark.usefixtures("impatient")
def test_a_worse_response_of_a_notary_does_not_replace_a_better_one(
    with_notary: ServerKeys, b: Remote, c: Remote
) -> None:
    stale = b.published_keys() | {"valid_until_ts": now_ms() - DAY_MS}
    del stale["signatures"]
    c.notary_for["b.test"] = signing.sign_json(stale, "b.test", b.key)
    assert known(with_notary, b)
    b.fail(KEY_PATH)

    far = known(with_notary, b, now_ms() + 2 * DAY_MS)  # which asks both

    assert not far
    assert len(c.received(NOTARY_PATH)) == 1
    assert known(with_notary, b)


@pytest.mark.usefixtures("impatient")
def test_a_worse_response_of_the_server_does_not_replace_a_better_one(
    server_keys: ServerKeys, b: Remote
) -> None:
    assert known(server_keys, b)
    b.key_valid_for_ms = -DAY_MS

    known(server_keys, b, now_ms() + 2 * DAY_MS)  # which asks it

    assert len(b.received(KEY_PATH)) == 2
    assert known(server_keys, b)


def test_the_keys_of_a_batch_are_fetched_together(
    server_keys: ServerKeys, b: Remote, c: Remote, remote: Remotes
) -> None:
    d = remote("d.test")
    b.hang(KEY_PATH)
    began = time.monotonic()

    wanted = {(it.name, it.key.key_id): now_ms() for it in (b, c, d)}
    found = server_keys.many(wanted, timeout_s=0.7)

    assert time.monotonic() - began < 3
    assert {name for name, _ in found} == {"c.test", "d.test"}
    assert all(it.is_valid_at(now_ms()) for it in found.values())


def test_what_is_known_of_a_batch_is_not_fetched(server_keys: ServerKeys, b: Remote) -> None:
    wanted = {("b.test", b.key.key_id): now_ms()}
    server_keys.many(wanted, timeout_s=5)

    found = server_keys.many(wanted, timeout_s=5)

    assert found["b.test", b.key.key_id].key == b.key.verify_key
    assert len(b.received(KEY_PATH)) == 1


def test_notaries_are_asked_for_those_of_a_batch_that_are_down(
    with_notary: ServerKeys, b: Remote, c: Remote
) -> None:
    c.notary_for["b.test"] = b.published_keys()
    b.fail(KEY_PATH)
    wanted = {("b.test", b.key.key_id): 0, ("c.test", c.key.key_id): 0}

    found = with_notary.many(wanted, timeout_s=5)

    assert set(found) == set(wanted)


def test_an_empty_batch_needs_nothing(with_notary: ServerKeys) -> None:
    assert with_notary.many({}, timeout_s=5) == {}
