"""This server publishes its keys, and answers for those of others as a notary."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest
from werkzeug.test import TestResponse

from homebody.core.federation import keys, notary
from homebody.spec import canonical_json, server_keys, signing
from homebody.web import Application
from tests.conftest import MakeApp
from tests.helpers.remote import Remote, Remotes
from tests.helpers.rooms import refusal

SERVER, QUERY = "/_matrix/key/v2/server", "/_matrix/key/v2/query"
DAY_MS = 86_400_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def c(remote: Remotes) -> Remote:
    return remote("c.test")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers be asked again at once."""
    monkeypatch.setattr(keys, "MIN_INTERVAL_S", 0.0)
    monkeypatch.setattr(keys, "FIRST_BACK_OFF_S", 0.0)


def get(app: Application, path: str, **query: Any) -> TestResponse:
    return app.test_client().get(path, query_string=query)


def ask(app: Application, server_keys: Any) -> list[dict[str, Any]]:
    response = app.test_client().post(QUERY, json={"server_keys": server_keys})
    assert response.status_code == 200, response.get_json()
    found: list[dict[str, Any]] = response.get_json()["server_keys"]
    return found


def check_signed_by(app: Application, response: dict[str, Any]) -> None:
    key = app.homeserver.server.signing_key
    signing.verify_json(response, "localhost", key.key_id, key.verify_key)


@pytest.mark.parametrize("path", [SERVER, f"{SERVER}/", f"{SERVER}/ed25519:x", f"{SERVER}/x/"])
def test_the_servers_own_keys_are_published(make_app: MakeApp, path: str) -> None:
    app = make_app(federation="true")

    body = get(app, path).get_json()

    key = app.homeserver.server.signing_key
    assert body["server_name"] == "localhost"
    assert body["verify_keys"] == {
        key.key_id: {"key": signing.verify_key_to_base64(key.verify_key)}
    }
    assert body["old_verify_keys"] == {}
    assert 0.9 * DAY_MS < body["valid_until_ts"] - now_ms() <= DAY_MS
    check_signed_by(app, body)


def test_the_servers_own_keys_can_be_verified_as_they_are_sent(make_app: MakeApp) -> None:
    old = "[{ key_id = 'ed25519:a_old', key = '%s', expired_ts = 1600000000000 }]" % ("A" * 43)
    app = make_app(federation="true", old_verify_keys=old)

    sent = get(app, SERVER).get_data()

    assert sent.strip() == canonical_json.encode(canonical_json.decode(sent))


def test_former_keys_are_published_as_old_ones(make_app: MakeApp) -> None:
    old = "[{ key_id = 'ed25519:a_old', key = '%s', expired_ts = 1600000000000 }]" % ("A" * 43)
    app = make_app(federation="true", old_verify_keys=old)

    body = get(app, SERVER).get_json()

    assert body["old_verify_keys"] == {
        "ed25519:a_old": {"key": "A" * 43, "expired_ts": 1_600_000_000_000}
    }
    assert len(server_keys.parse(body, "localhost").keys) == 2


def test_a_notary_adds_its_signature(app: Application, b: Remote) -> None:
    for found in (
        get(app, f"{QUERY}/b.test").get_json()["server_keys"],
        get(app, f"{QUERY}/b.test/{b.key.key_id}").get_json()["server_keys"],
        ask(app, {"b.test": {}}),
        ask(app, {"b.test": {b.key.key_id: {}}}),
        ask(app, {"b.test": {b.key.key_id: {"minimum_valid_until_ts": now_ms()}}}),
    ):
        (response,) = found
        check_signed_by(app, response)
        assert server_keys.parse(response, "b.test").keys[0].key == b.key.verify_key
    assert len(b.received(SERVER)) == 1


def test_the_own_keys_of_the_notary_are_returned_too(make_app: MakeApp) -> None:
    app = make_app(federation="true")

    (response,) = ask(app, {"localhost": {}})

    check_signed_by(app, response)


def test_several_servers_are_answered_at_once(app: Application, b: Remote, c: Remote) -> None:
    found = ask(app, {"b.test": {}, "c.test": {}, "localhost": {}})

    assert sorted(it["server_name"] for it in found) == ["b.test", "c.test", "localhost"]


@pytest.mark.parametrize("name", ["d.test", "not a name", "localhost:99999", ""])
def test_servers_that_cannot_be_reached_are_left_out(
    app: Application, b: Remote, remote: Remotes, name: str
) -> None:
    remote("d.test").fail(SERVER)

    found = ask(app, {name: {}, "b.test": {}})

    assert [it["server_name"] for it in found] == ["b.test"]


def test_servers_that_the_settings_exclude_are_not_asked(
    make_app: MakeApp, remote: Remotes, b: Remote
) -> None:
    app = make_app(**remote.settings, federation_deny_servers="b.test")

    assert ask(app, {"b.test": {}}) == []
    assert b.received(SERVER) == []


@pytest.mark.usefixtures("impatient")
def test_known_keys_are_returned_while_their_server_is_down(app: Application, b: Remote) -> None:
    b.key_valid_for_ms = -1000
    ask(app, {"b.test": {}})
    b.fail(SERVER)

    (response,) = ask(app, {"b.test": {b.key.key_id: {}}})

    assert response["valid_until_ts"] < now_ms()
    assert len(b.received(SERVER)) == 2


@pytest.mark.usefixtures("impatient")
def test_a_key_is_fetched_again_if_it_has_to_be_valid_longer(app: Application, b: Remote) -> None:
    (first,) = ask(app, {"b.test": {}})
    b.key_valid_for_ms = 3 * DAY_MS
    later = now_ms() + 2 * DAY_MS

    (second,) = ask(app, {"b.test": {b.key.key_id: {"minimum_valid_until_ts": later}}})
    (third,) = get(app, f"{QUERY}/b.test", minimum_valid_until_ts=later).get_json()["server_keys"]

    assert first["valid_until_ts"] < later < second["valid_until_ts"]
    assert third == second
    assert len(b.received(SERVER)) == 2


@pytest.mark.usefixtures("impatient")
def test_all_keys_of_a_server_are_returned_if_none_is_named(app: Application, b: Remote) -> None:
    ask(app, {"b.test": {}})
    old = b.rotate_key()
    b.old_keys.clear()
    ask(app, {"b.test": {b.key.key_id: {}}})

    every = ask(app, {"b.test": {}})
    one = ask(app, {"b.test": {old.key_id: {}}})

    assert sorted(next(iter(it["verify_keys"])) for it in every) == sorted(
        [old.key_id, b.key.key_id]
    )
    assert [list(it["verify_keys"]) for it in one] == [[old.key_id]]


def test_a_key_that_the_server_does_not_have_is_left_out(app: Application, b: Remote) -> None:
    assert ask(app, {"b.test": {"ed25519:none": {}}}) == []


def test_notaries_do_not_ask_other_notaries(
    make_app: MakeApp, remote: Remotes, b: Remote, c: Remote
) -> None:
    app = make_app(**remote.settings, trusted_key_servers="c.test")
    b.fail(SERVER)
    c.notary_for["b.test"] = b.published_keys()

    assert ask(app, {"b.test": {}}) == []
    assert c.received(QUERY) == []


def test_a_query_asks_a_limited_number_of_servers(
    app: Application, b: Remote, c: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notary, "MAX_FETCHED", 1)

    found = ask(app, {"b.test": {}, "c.test": {}})

    assert [it["server_name"] for it in found] == ["b.test"]
    assert c.received(SERVER) == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"server_keys": []},
        {"server_keys": {"b.test": []}},
        {"server_keys": {"b.test": {"ed25519:x": 1}}},
        {"server_keys": {"b.test": {"ed25519:x": {"minimum_valid_until_ts": "x"}}}},
    ],
)
def test_a_malformed_query_is_refused(make_app: MakeApp, body: Any) -> None:
    response = make_app(federation="true").test_client().post(QUERY, json=body)

    assert response.status_code == 400
    assert response.get_json()["errcode"] in {"M_MISSING_PARAM", "M_BAD_JSON"}


def test_a_malformed_time_is_refused(make_app: MakeApp) -> None:
    response = get(make_app(federation="true"), f"{QUERY}/b.test", minimum_valid_until_ts="x")

    assert refusal(response) == (400, "M_INVALID_PARAM")


def test_queries_are_limited_by_the_number_of_servers(make_app: MakeApp) -> None:
    limit = {"rc_strangers.per_second": "0.01", "rc_strangers.burst_count": "3"}
    app = make_app(federation="true", rate_limits="true", **limit)

    def codes(*queries: int) -> list[int]:
        found = []
        for servers in queries:
            wanted: dict[str, Any] = {f"not a name {number}": {} for number in range(servers)}
            response = app.test_client().post(QUERY, json={"server_keys": wanted})
            found.append(response.status_code)
        return found

    assert codes(1, 2, 1) == [200, 200, 429]
    assert get(app, f"{QUERY}/{quote('not a name')}").status_code == 429
    assert get(app, f"{QUERY}/{quote('not a name')}/x").status_code == 429


def test_the_version_needs_no_signature(make_app: MakeApp) -> None:
    body = get(make_app(federation="true"), "/_matrix/federation/v1/version").get_json()

    assert body["server"]["name"] == "homebody"
    assert body["server"]["version"]


def test_a_remote_is_authenticated_by_the_keys_that_it_publishes(
    app: Application, b: Remote
) -> None:
    first = b.get("v1", "query", "profile", query={"user_id": "@nobody:localhost"})
    b.rotate_key()
    app.homeserver.server_keys._attempts = keys._Attempts()  # noqa: SLF001 - as after some time

    second = b.get("v1", "query", "profile", query={"user_id": "@nobody:localhost"})

    assert first.refusal == second.refusal == (404, "M_NOT_FOUND")
