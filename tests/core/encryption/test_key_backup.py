"""Key backups: versions, keys in them, and which of two keys stays."""

from __future__ import annotations

import itertools
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from homebody.core.encryption import backed_up_keys, key_backup
from homebody.models.key_backup import BackedUpKey, KeyBackup
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.helpers.rooms import Json, everything, refusal, unchanged

ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
ROOM = "!tea:localhost"
OTHER_ROOM = "!" + "a" * 43  # as in room version 12


def key(index: int = 0, forwarded: int = 0, *, verified: bool = False, text: str = "c") -> Json:
    return {
        "first_message_index": index,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": {"ciphertext": text, "ephemeral": "e", "mac": "m"},
    }


def new_version(person: Person, **auth_data: Any) -> str:
    answer = person.post("room_keys/version", json={"algorithm": ALGORITHM, "auth_data": auth_data})
    assert answer.status_code == 200, answer.get_json()
    version: str = answer.get_json()["version"]
    return version


def path(version: str, room_id: str = "", session_id: str = "") -> str:
    """Return the path of the keys of a version, a room or a session."""
    parts = [quote(part, safe="") for part in (room_id, session_id) if part]
    return "/".join(["room_keys/keys", *parts]) + f"?version={version}"


def put(person: Person, version: str, session_id: str = "s1", **given: Any) -> TestResponse:
    return person.put(path(version, ROOM, session_id), json=key(**given))


def info(person: Person, version: str = "") -> Json:
    """Return the response of GET /room_keys/version."""
    answer = person.get(f"room_keys/version/{version}".rstrip("/"))
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def test_the_newest_version_is_the_current_one(login: Login) -> None:
    phone, laptop = login("alice"), login("alice")
    first = new_version(phone, public_key="one")
    second = new_version(phone, public_key="two")

    current, old = info(laptop), info(laptop, first)

    assert (current["version"], current["auth_data"]) == (second, {"public_key": "two"})
    assert (old["version"], old["auth_data"]) == (first, {"public_key": "one"})
    assert (current["algorithm"], current["count"]) == (ALGORITHM, 0)
    assert isinstance(current["etag"], str)


def test_without_a_backup_nothing_is_found(login: Login) -> None:
    alice = login("alice")

    answers = [
        alice.get("room_keys/version"),
        alice.get("room_keys/version/1"),
        alice.put("room_keys/version/1", json={"algorithm": ALGORITHM, "auth_data": {}}),
        alice.delete("room_keys/version/1"),
        alice.get(path("1")),
        alice.get(path("1", ROOM)),
        alice.get(path("1", ROOM, "s")),
        alice.put(path("1", ROOM, "s"), json=key()),
        alice.delete(path("1")),
    ]

    assert {refusal(answer) for answer in answers} == {(404, "M_NOT_FOUND")}


@pytest.mark.parametrize(
    "version", ["0", "01", "-1", "x", "٣", "1" * 40, "9223372036854775808", "%"]
)
def test_a_version_that_was_never_made_is_not_found(login: Login, version: str) -> None:
    alice = login("alice")
    new_version(alice)

    answer = alice.get(f"room_keys/version/{quote(version, safe='')}")

    assert refusal(answer) == (404, "M_NOT_FOUND")


def test_a_backup_belongs_to_its_user(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    version = new_version(alice)
    put(alice, version)

    answer = bob.get(path(version, ROOM, "s1"))

    assert refusal(answer) == (404, "M_NOT_FOUND")
    assert alice.get(path(version, ROOM, "s1")).get_json() == key()


def test_what_a_version_says_of_itself_can_be_changed(login: Login) -> None:
    alice = login("alice")
    version = new_version(alice, public_key="k")
    auth_data = {"public_key": "k", "signatures": {"@alice:localhost": {"ed25519:X": "sig"}}}

    answer = alice.put(
        f"room_keys/version/{version}",
        json={"algorithm": ALGORITHM, "auth_data": auth_data, "version": version},
    )

    assert (answer.status_code, answer.get_json()) == (200, {})
    assert info(alice)["auth_data"] == auth_data


@pytest.mark.parametrize("change", [{"algorithm": "org.example.rot13"}, {"version": "7"}])
def test_neither_algorithm_nor_number_of_a_version_change(
    app: Application, login: Login, change: Json
) -> None:
    alice = login("alice")
    version = new_version(alice)
    body = {"algorithm": ALGORITHM, "auth_data": {}, "version": version, **change}

    with unchanged(app):
        answer = alice.put(f"room_keys/version/{version}", json=body)

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_a_backup_may_be_of_an_algorithm_that_the_specification_does_not_name(
    login: Login,
) -> None:
    alice = login("alice")

    answer = alice.post(
        "room_keys/version", json={"algorithm": "m.megolm_backup.v1", "auth_data": {}}
    )

    assert answer.status_code == 200
    assert info(alice)["algorithm"] == "m.megolm_backup.v1"


@pytest.mark.parametrize("algorithm", ["", "x" * 256])
def test_an_algorithm_has_a_name_of_ordinary_length(
    app: Application, login: Login, algorithm: str
) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.post("room_keys/version", json={"algorithm": algorithm, "auth_data": {}})

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_a_deleted_version_is_gone_with_its_keys(app: Application, login: Login) -> None:
    alice = login("alice")
    first, second = new_version(alice), new_version(alice)
    put(alice, second)

    answers = [alice.delete(f"room_keys/version/{second}") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert refusal(alice.get(f"room_keys/version/{second}")) == (404, "M_NOT_FOUND")
    assert refusal(alice.get(path(second))) == (404, "M_NOT_FOUND")
    assert everything(app)["backed_up_keys"] == []
    assert info(alice)["version"] == first


def test_the_number_of_a_deleted_version_never_comes_back(login: Login) -> None:
    alice = login("alice")
    version = new_version(alice)
    alice.delete(f"room_keys/version/{version}")

    assert new_version(alice) != version


def test_keys_are_stored_and_read_at_three_levels(login: Login) -> None:
    alice = login("alice")
    version = new_version(alice)
    rooms = {ROOM: {"sessions": {"a/b+c": key(1)}}, OTHER_ROOM: {"sessions": {"d": key(2)}}}

    answers = [
        alice.put(path(version), json={"rooms": rooms}),
        alice.put(path(version, ROOM), json={"sessions": {"e": key(3)}}),
        alice.put(path(version, ROOM, "f"), json=key(4)),
    ]

    assert [answer.get_json()["count"] for answer in answers] == [2, 3, 4]
    rooms[ROOM]["sessions"] |= {"e": key(3), "f": key(4)}
    assert alice.get(path(version)).get_json() == {"rooms": rooms}
    assert alice.get(path(version, ROOM)).get_json() == rooms[ROOM]
    assert alice.get(path(version, ROOM, "a/b+c")).get_json() == key(1)


def test_an_empty_backup_is_read_as_empty(login: Login) -> None:
    alice = login("alice")
    version = new_version(alice)

    assert alice.get(path(version)).get_json() == {"rooms": {}}
    assert alice.get(path(version, ROOM)).get_json() == {"sessions": {}}
    assert refusal(alice.get(path(version, ROOM, "s"))) == (404, "M_NOT_FOUND")


def test_keys_are_deleted_at_three_levels(login: Login) -> None:
    alice = login("alice")
    version = new_version(alice)
    sessions = {name: key() for name in "abc"}
    rooms = {room_id: {"sessions": sessions} for room_id in (ROOM, OTHER_ROOM)}
    alice.put(path(version), json={"rooms": rooms})

    answers = [
        alice.delete(path(version, ROOM, "a")),
        alice.delete(path(version, ROOM, "a")),
        alice.delete(path(version, ROOM)),
        alice.delete(path(version)),
    ]

    sizes = [answer.get_json() for answer in answers]
    assert [size["count"] for size in sizes] == [5, 5, 3, 0]
    assert sizes[0] == sizes[1]  # what changes nothing keeps the etag
    assert info(alice)["count"] == 0


def test_the_etag_tells_of_every_change_and_of_nothing_else(login: Login) -> None:
    alice = login("alice")
    version = new_version(alice)
    seen = [info(alice)["etag"]]

    for index in (5, 5, 9, 4):
        answer = put(alice, version, index=index)
        assert answer.get_json()["etag"] == info(alice)["etag"]
        seen.append(answer.get_json()["etag"])

    assert [a == b for a, b in itertools.pairwise(seen)] == [False, True, True, False]
    assert info(alice)["count"] == 1


WORSE_TO_BETTER = [
    {"verified": False, "index": 1, "forwarded": 1},
    {"verified": False, "index": 1, "forwarded": 0},
    {"verified": False, "index": 0, "forwarded": 9},
    {"verified": True, "index": 7, "forwarded": 9},
    {"verified": True, "index": 7, "forwarded": 8},
    {"verified": True, "index": 6, "forwarded": 9},
]


@pytest.mark.parametrize(("worse", "better"), list(itertools.pairwise(WORSE_TO_BETTER)))
def test_the_better_key_stays_in_whatever_order_they_come(
    login: Login, worse: Json, better: Json
) -> None:
    alice = login("alice")
    version = new_version(alice)

    for session_id, order in (("up", (worse, better)), ("down", (better, worse))):
        for given in order:
            assert put(alice, version, session_id, **given).status_code == 200

    sessions = alice.get(path(version, ROOM)).get_json()["sessions"]
    assert sessions == {"up": key(**better), "down": key(**better)}


def test_of_two_equal_keys_the_first_stays(login: Login) -> None:
    alice = login("alice")
    version = new_version(alice)

    put(alice, version, text="first")
    put(alice, version, text="second")

    assert alice.get(path(version, ROOM, "s1")).get_json() == key(text="first")


def test_keys_can_only_be_added_to_the_current_version(app: Application, login: Login) -> None:
    alice = login("alice")
    old = new_version(alice)
    put(alice, old)
    current = new_version(alice)

    with unchanged(app):
        answers = [
            put(alice, old),
            alice.put(path(old, ROOM), json={"sessions": {}}),
            alice.put(path(old), json={"rooms": {}}),
        ]
        unknown = put(alice, "99")

    assert {refusal(answer) for answer in answers} == {(403, "M_WRONG_ROOM_KEYS_VERSION")}
    assert answers[0].get_json()["current_version"] == current
    assert refusal(unknown) == (404, "M_NOT_FOUND")


def test_an_old_version_can_be_read_and_emptied(login: Login) -> None:
    alice = login("alice")
    old = new_version(alice)
    put(alice, old)
    new_version(alice)

    kept, removed = alice.get(path(old, ROOM, "s1")), alice.delete(path(old))

    assert kept.get_json() == key()
    assert removed.get_json()["count"] == 0


@pytest.mark.parametrize(
    ("method", "where"), [("PUT", ""), ("GET", ""), ("DELETE", ""), ("GET", f"/{quote(ROOM)}")]
)
def test_the_version_must_be_named(login: Login, method: str, where: str) -> None:
    alice = login("alice")
    new_version(alice)

    answer = alice.request(method, f"room_keys/keys{where}", json={"rooms": {}})

    assert refusal(answer) == (400, "M_MISSING_PARAM")


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"first_message_index": -1}, "M_BAD_JSON"),
        ({"first_message_index": 2**63}, "M_BAD_JSON"),
        ({"first_message_index": True}, "M_BAD_JSON"),
        ({"forwarded_count": "0"}, "M_BAD_JSON"),
        ({"forwarded_count": 0.5}, "M_BAD_JSON"),
        ({"is_verified": 1}, "M_BAD_JSON"),
        ({"session_data": []}, "M_BAD_JSON"),
        ({"session_data": None}, "M_BAD_JSON"),
    ],
)
def test_a_malformed_key_is_refused(
    app: Application, login: Login, change: Json, errcode: str
) -> None:
    alice = login("alice")
    version = new_version(alice)

    with unchanged(app):
        answer = alice.put(path(version, ROOM, "s"), json={**key(), **change})

    assert refusal(answer) == (400, errcode)


def test_an_incomplete_key_is_refused(app: Application, login: Login) -> None:
    alice = login("alice")
    version = new_version(alice)

    with unchanged(app):
        answers = [
            alice.put(path(version, ROOM, "s"), json={k: v for k, v in key().items() if k != name})
            for name in key()
        ]

    assert {refusal(answer) for answer in answers} == {(400, "M_MISSING_PARAM")}


def test_what_names_no_session_is_refused(app: Application, login: Login) -> None:
    alice = login("alice")
    version = new_version(alice)

    with unchanged(app):
        answers = [
            alice.put(path(version, "@bob:localhost"), json={"sessions": {"s": key()}}),
            alice.put(path(version), json={"rooms": {"tea": {"sessions": {"s": key()}}}}),
            alice.put(path(version, ROOM, "s" * 256), json=key()),
        ]

    assert {refusal(answer) for answer in answers} == {(400, "M_INVALID_PARAM")}


def test_too_much_is_refused(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = login("alice")
    version = new_version(alice)
    monkeypatch.setattr(backed_up_keys, "MAX_KEYS", 1)
    put(alice, version, "a", index=5)

    with unchanged(app):
        answers = [
            put(alice, version, "b"),
            put(alice, version, "a", text="x" * backed_up_keys.MAX_SESSION_DATA_BYTES),
            alice.post(
                "room_keys/version",
                json={"algorithm": ALGORITHM, "auth_data": {"public_key": "x" * 65536}},
            ),
        ]

    assert {refusal(answer) for answer in answers} == {(413, "M_TOO_LARGE")}
    assert put(alice, version, "a").status_code == 200


def test_an_account_has_only_so_many_bytes_of_key_backups(make_app: MakeApp) -> None:
    app = make_app(**{"quotas.key_backup_bytes": str(2**20)})
    body = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    session = app.test_client().post(V3 + "register", json=body).get_json()
    names = ("user_id", "access_token", "device_id")
    alice = Person(app.test_client(), *(session[name] for name in names))
    old, version = new_version(alice), new_version(alice)
    for number in range(17):
        put(alice, version, f"s{number}", index=5, text="x" * 60_000)
    put(alice, version, "small", index=5)

    with unchanged(app):
        refused = [
            put(alice, version, "another", text="x" * 60_000),
            put(alice, version, "small", text="x" * 60_000),
        ]
    worse = put(alice, version, "s0", index=9, text="x" * 65_000)
    removed = alice.delete(path(version, ROOM, "s1"))
    smaller = [put(alice, version, "s2", text="x"), put(alice, version, "more", text="x" * 60_000)]
    alice.delete(f"room_keys/version/{version}")
    third = new_version(alice)

    assert old != version
    assert [refusal(answer) for answer in refused] == [(403, "M_USER_LIMIT_EXCEEDED")] * 2
    answers = [worse, removed, *smaller]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert put(alice, third, "again", text="x" * 60_000).status_code == 200
    with app.homeserver.database.read() as tx:
        kept = tx.sql.execute(select(func.sum(KeyBackup.size_bytes))).scalar_one()
        data = tx.sql.execute(select(BackedUpKey.session_data)).scalars().all()
    assert kept == sum(map(len, data))


def test_of_too_many_versions_none_goes_by_itself(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_backup, "MAX_VERSIONS", 2)
    alice, bob = login("alice"), login("bob")
    versions = [new_version(alice), new_version(alice)]
    body = {"algorithm": ALGORITHM, "auth_data": {}}

    with unchanged(app):
        answer = alice.post("room_keys/version", json=body)
    alice.delete(f"room_keys/version/{versions[0]}")

    assert refusal(answer) == (413, "M_TOO_LARGE")
    assert new_version(alice) not in versions
    assert bob.get(f"room_keys/version/{new_version(bob)}").status_code == 200


def test_many_keys_need_few_statements(login: Login, statements: list[str]) -> None:
    alice = login("alice")
    version = new_version(alice)
    sessions = {f"s{number}": key() for number in range(3 * backed_up_keys.AT_ONCE // 2)}
    alice.put(path(version, ROOM), json={"sessions": {"s0": key(), "old": key()}})
    statements.clear()

    stored = alice.put(path(version, ROOM), json={"sessions": sessions})
    read = alice.get(path(version))
    removed = alice.delete(path(version))

    assert stored.get_json()["count"] == len(sessions) + 1
    assert read.get_json()["rooms"][ROOM]["sessions"] == sessions | {"old": key()}
    assert removed.get_json()["count"] == 0
    assert len(statements) < 50


def test_a_backup_goes_with_the_account(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    for person in (alice, bob):
        put(person, new_version(person))
    who = {"type": "m.id.user", "user": "alice"}
    auth = {"type": "m.login.password", "identifier": who, "password": PASSWORD}

    answer = alice.post("account/deactivate", json={"auth": auth})

    assert answer.status_code == 200
    left = everything(app)
    assert {row[0] for row in left["key_backups"]} == {bob.user_id}
    assert {row[0] for row in left["backed_up_keys"]} == {bob.user_id}
