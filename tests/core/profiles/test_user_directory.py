"""Finding users: by which words, whom one may see, in which order."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from homebody.core.accounts import user_directory_index
from homebody.core.profiles import user_directory
from homebody.web import Application
from tests.conftest import PASSWORD, ROOT, Login, MakeApp, Person
from tests.helpers.rooms import act, refusal

Room = Callable[..., str]


def found(person: Person, term: str, **more: Any) -> list[str]:
    """The localparts of who is found, in the order of the answer."""
    answer = person.post("user_directory/search", json={"search_term": term, **more})
    assert answer.status_code == 200, answer.get_json()
    return [one["user_id"].split(":")[0][1:] for one in answer.get_json()["results"]]


def name(person: Person, displayname: str) -> None:
    answer = person.put(f"profile/{person.user_id}/displayname", json={"displayname": displayname})
    assert answer.status_code == 200


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.mark.parametrize(
    "term",
    [
        *("bobby.tables", "bobby", "BOB", "obb", "tables bob", "@bobby.tables:localhost", "@bob"),
        *("Ångström", "angstrom", "gstr", "bob angström"),
        *("bobby.tables:localhost", "Bobby.tables:LocalHost", "@BOBBY.TABLES:LOCALHOST"),
        *("bobby:", "bobby:local", " bobby:localhost "),
    ],
)
def test_who_shares_a_room_is_found_by_parts_of_the_names(
    login: Login, alice: Person, term: str
) -> None:
    bob = login("bobby.tables")
    name(bob, "Robert Ångström")
    room_id = alice.create_room(preset="private_chat", invite=[bob.user_id])
    act(bob, room_id, "join")

    assert found(alice, term) == ["bobby.tables"]


@pytest.mark.parametrize(
    "term",
    [
        *("", " ", "...", "robin", "bob x", "@bob:elsewhere.example", "bob:elsewhere.example"),
        *("@:localhost", ":localhost"),
    ],
)
def test_others_are_not(login: Login, room: Room, alice: Person, term: str) -> None:
    room(alice, login("bob"))

    assert found(alice, term) == []


def test_the_answer_tells_name_and_avatar(login: Login, room: Room, alice: Person) -> None:
    bob = login("bob")
    room(alice, bob)
    name(bob, "Bob")
    bob.put(f"profile/{bob.user_id}/avatar_url", json={"avatar_url": "mxc://localhost/a"})

    answer = alice.post("user_directory/search", json={"search_term": "bob"})

    assert answer.get_json() == {
        "results": [
            {"user_id": bob.user_id, "display_name": "Bob", "avatar_url": "mxc://localhost/a"}
        ],
        "limited": False,
    }


def test_a_stranger_is_found_only_in_rooms_open_to_all(
    login: Login, room: Room, alice: Person
) -> None:
    hidden, joinable, readable = login("stranger1"), login("stranger2"), login("stranger3")
    room(hidden, preset="private_chat")
    room(joinable)
    world = {
        "type": "m.room.history_visibility",
        "content": {"history_visibility": "world_readable"},
    }
    room(readable, preset="private_chat", initial_state=[world])

    assert found(alice, "stranger") == ["stranger2", "stranger3"]


def test_who_has_left_is_not_found_any_more(login: Login, alice: Person) -> None:
    bob = login("bob")
    room_id = alice.create_room(preset="private_chat", invite=[bob.user_id])
    invited = found(alice, "bob")
    act(bob, room_id, "join")
    joined = found(alice, "bob")
    act(bob, room_id, "leave")

    assert (invited, joined, found(alice, "bob")) == ([], ["bob"], [])


def test_another_name_takes_the_place_of_the_old_one(
    login: Login, room: Room, alice: Person
) -> None:
    bob = login("bob")
    room(alice, bob)
    name(bob, "Robert")
    name(bob, "Builder")
    renamed = found(alice, "robert"), found(alice, "build")
    bob.delete(f"profile/{bob.user_id}/displayname")

    assert renamed == ([], ["bob"])
    assert (found(alice, "build"), found(alice, "bob")) == ([], ["bob"])


def test_a_closed_account_is_not_found(login: Login, room: Room, alice: Person) -> None:
    bob = login("bob")
    room(alice, bob)
    auth = {"type": "m.login.password", "password": PASSWORD}
    bob.post("account/deactivate", json={"auth": auth})

    assert found(alice, "bob") == []


def test_the_best_come_first_and_the_limit_is_told(login: Login, room: Room, alice: Person) -> None:
    people = {who: login(who) for who in ("kim", "kimberley", "joachim", "hakim", "kimono")}
    name(people["kimono"], "Somebody")
    name(people["kimberley"], "")
    room(alice, *people.values())

    in_order = found(alice, "kim")
    answer = alice.post("user_directory/search", json={"search_term": "kim", "limit": 2})

    assert in_order == ["kim", "kimono", "kimberley", "hakim"]
    assert len(answer.get_json()["results"]) == 2
    assert answer.get_json()["limited"] is True


def test_a_name_with_a_colon_is_found_by_it(login: Login, room: Room, alice: Person) -> None:
    bob = login("bob")
    room(alice, bob)
    name(bob, "Re: cycling")

    assert found(alice, "Re: cyc") == ["bob"]
    assert found(alice, "re:cycling") == ["bob"]


@pytest.mark.parametrize("term", ["seventeenth", "eighteenth", "s the end", "longwordsend"])
def test_every_part_of_a_long_name_is_found(
    login: Login, room: Room, alice: Person, term: str
) -> None:
    bob = login("bob")
    room(alice, bob)
    short = " ".join(f"a{number}" for number in range(16))
    name(bob, f"{short} seventeenth eighteenth {'very' * 10}longwordsend this is the end")

    assert found(alice, term) == ["bob"]


def test_an_answer_says_that_not_all_matches_were_looked_at(
    login: Login, room: Room, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = [login(f"kim{number}") for number in range(2)]
    for person in hidden:
        room(person, preset="private_chat")
    room(alice, login("kim7"))

    def limited() -> bool:
        answer = alice.post("user_directory/search", json={"search_term": "kim"})
        return bool(answer.get_json()["limited"])

    assert (found(alice, "kim"), limited()) == (["kim7"], False)

    monkeypatch.setattr(user_directory, "MAX_FOUND", 2)

    assert (found(alice, "kim"), limited()) == ([], True)


def test_a_single_letter_finds_beginnings(login: Login, room: Room, alice: Person) -> None:
    room(alice, login("bob"), login("abby"))

    assert found(alice, "b") == ["bob"]
    assert found(alice, "bb") == ["abby"]


def test_nobody_finds_themselves(alice: Person, room: Room) -> None:
    room(alice)

    assert found(alice, "alice") == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "M_MISSING_PARAM")),
        ({"search_term": 1}, (400, "M_BAD_JSON")),
        ({"search_term": "a", "limit": "2"}, (400, "M_BAD_JSON")),
        ({"search_term": "a", "limit": -1}, (400, "M_INVALID_PARAM")),
    ],
)
def test_what_is_no_search_is_refused(
    alice: Person, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert refusal(alice.post("user_directory/search", json=body)) == expected


def test_the_index_is_asked_and_not_everybody(app: Application, alice: Person) -> None:
    with app.homeserver.database.write() as tx:
        for number in range(300):
            user_directory_index.put(tx, f"@extra{number}:localhost", None)
    plans: list[str] = []
    with app.homeserver.database.read() as tx:
        raw = tx.sql.raw
        raw.set_trace_callback(plans.append)
        user_directory.search(tx, alice.user_id, "nobody at", 10)
        raw.set_trace_callback(None)
        steps = [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {plans[0]}")]

    assert any("SEARCH directory_words" in step for step in steps), steps
    assert not any(step.startswith("SCAN directory_words") for step in steps), steps


def test_the_migration_makes_the_words_of_accounts_that_there_are(
    tmp_path: Path, make_app: MakeApp
) -> None:
    path = tmp_path / "old.db"
    migrate(path, "0005")
    with closing(sqlite3.connect(path)) as old, old:
        old.execute(
            "INSERT INTO accounts (user_id, created_ts, is_admin, is_guest, is_locked,"
            " is_suspended, is_erased) VALUES ('@bob_b:localhost', 1, 0, 0, 0, 0, 0)"
        )
        old.execute(
            "INSERT INTO profile_fields VALUES ('@bob_b:localhost', 'displayname', ?)",
            ('"Robert Ångström Bobby"',),
        )
    migrate(path, "head")
    with make_app().homeserver.database.write() as tx:
        user_directory_index.put(tx, "@bob_b:localhost", "Robert Ångström Bobby")

    everything = "SELECT word, user_id, is_whole FROM directory_words ORDER BY word"
    found = []
    for file in (path, tmp_path / "homebody.db"):
        with closing(sqlite3.connect(file)) as database:
            found.append(database.execute(everything).fetchall())
    assert found[0] == found[1]
    assert len(found[0]) > 10


def migrate(path: Path, revision: str) -> None:
    command = [str(Path(sys.executable).parent / "alembic"), "-c", "alembic/alembic.ini"]
    command += ["-x", f"url=sqlite:///{path}", "upgrade", revision]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
