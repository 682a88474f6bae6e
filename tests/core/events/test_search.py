"""Searching for words: what is found, by whom, in which order, and what is sent with it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from homebody.core.events import search, search_index
from homebody.web import Application
from tests.conftest import PASSWORD, Login, Person
from tests.helpers.rooms import Json, refusal

Room = Callable[..., str]


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(login: Login) -> Person:
    return login("bob")


def look(person: Person, term: str, next_batch: str | None = None, **criteria: object) -> Json:
    """What a search in rooms finds."""
    body = {"search_categories": {"room_events": {"search_term": term, **criteria}}}
    query = {} if next_batch is None else {"next_batch": next_batch}
    answer = person.post("search", json=body, query_string=query)
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()["search_categories"]["room_events"]
    return found


def ids(found: Json) -> list[str]:
    return [result["result"]["event_id"] for result in found["results"]]


def indexed(app: Application) -> int:
    """How many events are in the index."""
    with app.homeserver.database.read() as tx:
        return int(tx.sql.execute(text("SELECT count(*) FROM search_index")).scalar_one())


def test_a_word_finds_the_messages_in_which_it_is(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    said = alice.send(room_id, "A needle, in the haystack!")
    alice.send(room_id, "only hay")

    found = look(bob, "NEEDLE")

    assert ids(found) == [said]
    assert (found["count"], found["highlights"]) == (1, ["NEEDLE"])
    assert found["results"][0]["rank"] > 0
    assert found["results"][0]["result"]["room_id"] == room_id
    assert "next_batch" not in found


@pytest.mark.parametrize(
    ("term", "is_found"),
    [
        ("green river", True),
        ("river green", True),
        ("gre riv", True),
        ("green sea", False),
        ("een", False),
        ("cafe", True),
        ("naive-green", False),
        ('"green"', True),
        ("green)", True),
        ("green OR sea", False),
        ("body: NOT *", False),
        ("東京", True),
        ("京タ", True),
        ("京東", False),
        ("\0green", True),
    ],
)
def test_all_words_must_be_there_in_any_order_at_least_their_beginnings(
    alice: Person, room: Room, term: str, *, is_found: bool
) -> None:
    room_id = room(alice)
    said = alice.send(room_id, "The Green rivers by the café: 東京タワー")

    assert ids(look(alice, term)) == ([said] if is_found else [])


@pytest.mark.parametrize("term", ["", " ", "🎉", "-- !", "\0"])
def test_a_term_without_a_word_finds_nothing(alice: Person, room: Room, term: str) -> None:
    alice.send(room(alice), "🎉 -- !")

    assert look(alice, term) == {"count": 0, "highlights": [], "results": []}


def test_names_and_topics_are_found_by_their_keys(alice: Person, room: Room) -> None:
    room_id = room(alice)
    said = alice.send(room_id, "needle")
    name = alice.set_state(room_id, "m.room.name", {"name": "needle"}).get_json()["event_id"]
    rich = {"m.text": [{"body": "<b>x</b>", "mimetype": "text/html"}, {"body": "a needle"}]}
    topic = alice.set_state(room_id, "m.room.topic", {"topic": "short", "m.topic": rich})

    assert ids(look(alice, "needle", keys=["content.body"])) == [said]
    assert ids(look(alice, "needle", keys=["content.name"])) == [name]
    assert ids(look(alice, "needle", keys=["content.topic"])) == [topic.get_json()["event_id"]]
    assert len(ids(look(alice, "needle"))) == 3
    assert ids(look(alice, "needle", keys=[])) == []


def test_only_who_may_read_finds(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    before = alice.send(room_id, "needle before")
    bob.post(f"rooms/{room_id}/leave")
    after = alice.send(room_id, "needle after")
    alice.send(alice.create_room(), "needle in private")

    assert ids(look(bob, "needle")) == [before]
    assert set(ids(look(alice, "needle"))) > {before, after}

    bob.post(f"rooms/{room_id}/forget")

    assert ids(look(bob, "needle")) == []


def test_history_from_before_the_join_is_found_only_where_it_is_shared(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice)
    hidden = {"history_visibility": "joined"}
    alice.set_state(room_id, "m.room.history_visibility", hidden)
    alice.send(room_id, "needle before")
    bob.post(f"rooms/{room_id}/join")
    after = alice.send(room_id, "needle after")

    assert ids(look(bob, "needle")) == [after]


def test_encrypted_rooms_are_not_searched(alice: Person, room: Room) -> None:
    room_id = room(alice)
    alice.send(room_id, "needle")

    alice.set_state(room_id, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})

    assert ids(look(alice, "needle")) == []


@pytest.mark.parametrize("is_indexed", [True, False])
def test_what_is_redacted_is_found_no_more(
    app: Application, alice: Person, room: Room, *, is_indexed: bool
) -> None:
    room_id = room(alice)
    said = alice.send(room_id, "needle")
    if is_indexed:
        assert ids(look(alice, "needle")) == [said]

    alice.put(f"rooms/{room_id}/redact/{said}/1", json={})

    assert ids(look(alice, "needle")) == []
    assert indexed(app) == 0


def test_what_ignored_users_said_is_not_found(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    bob.send(room_id, "needle")
    path = f"user/{alice.user_id}/account_data/m.ignored_user_list"
    alice.put(path, json={"ignored_users": {bob.user_id: {}}})

    assert ids(look(alice, "needle")) == []


def test_the_closest_comes_first_or_the_newest(alice: Person, room: Room) -> None:
    room_id = room(alice)
    close = alice.send(room_id, "needle needle")
    far = alice.send(room_id, "a needle somewhere in very much hay that is of no use to anybody")

    found = look(alice, "needle")

    assert ids(found) == [close, far]
    assert found["results"][0]["rank"] > found["results"][1]["rank"]
    assert ids(look(alice, "needle", order_by="recent")) == [far, close]


@pytest.mark.parametrize("order", ["rank", "recent"])
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_pages_hold_every_result_once(alice: Person, room: Room, order: str, limit: int) -> None:
    room_id = room(alice)
    said = [alice.send(room_id, f"needle {'hay ' * (number // 2)}") for number in range(7)]

    found = look(alice, "needle", order_by=order, filter={"limit": limit})
    together = ids(found)
    while "next_batch" in found:
        assert found["count"] == 7
        token = found["next_batch"]
        found = look(alice, "needle", token, order_by=order, filter={"limit": limit})
        together += ids(found)

    assert sorted(together) == sorted(said)
    assert order == "rank" or together == said[::-1]


def test_results_are_grouped_and_each_group_has_its_own_pages(
    alice: Person, bob: Person, room: Room
) -> None:
    first, second = room(alice, bob), room(alice, bob)
    old = [person.send(first, "needle") for person in (alice, bob, alice)]
    new = bob.send(second, "needle")
    by = {"group_by": [{"key": "room_id"}, {"key": "sender"}]}
    asked: Json = {"order_by": "recent", "groupings": by, "filter": {"limit": 2}}

    found = look(alice, "needle", **asked)

    rooms, senders = found["groups"]["room_id"], found["groups"]["sender"]
    assert {key: it["results"] for key, it in rooms.items()} == {second: [new], first: [old[2]]}
    assert [rooms[it]["order"] for it in (second, first)] == [0, 1]
    assert senders[alice.user_id]["results"] == [old[2]]
    more = look(alice, "needle", rooms[first]["next_batch"], **asked)
    assert ids(more) == [old[1], old[0]]
    assert ids(look(alice, "needle", senders[alice.user_id]["next_batch"], **asked)) == [old[0]]


def test_a_filter_chooses_rooms_senders_types_and_urls(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id, other = room(alice, bob), room(alice, bob)
    said = alice.send(room_id, "needle", url="mxc://a/b")
    by_bob, elsewhere = bob.send(room_id, "needle"), alice.send(other, "needle")

    def found(**wanted: object) -> set[str]:
        return set(ids(look(alice, "needle", filter=wanted)))

    assert found(rooms=[room_id]) == {said, by_bob}
    assert found(not_rooms=[room_id]) == {elsewhere}
    assert found(senders=[bob.user_id]) == {by_bob}
    assert found(not_senders=[bob.user_id]) == {said, elsewhere}
    assert found(contains_url=True) == {said}
    assert found(types=["m.room.name"]) == set()


def test_context_and_historic_profiles_are_told_on_request(
    alice: Person, bob: Person, room: Room
) -> None:
    bob.put(f"profile/{bob.user_id}/displayname", json={"displayname": "Bob"})
    room_id = room(alice, bob)
    before = [bob.send(room_id, str(number)) for number in range(2)]
    said = alice.send(room_id, "needle")
    after = [bob.send(room_id, str(number)) for number in range(3)]
    bob.put(f"profile/{bob.user_id}/displayname", json={"displayname": "Robert"})
    wanted = {"before_limit": 1, "after_limit": 2, "include_profile": True}

    found = look(alice, "needle", event_context=wanted)

    context = found["results"][0]["context"]
    assert [event["event_id"] for event in context["events_before"]] == before[1:]
    assert [event["event_id"] for event in context["events_after"]] == after[:2]
    assert context["profile_info"][bob.user_id] == {"displayname": "Bob"}
    older = alice.get(f"rooms/{room_id}/messages?dir=b&limit=1&from={context['start']}")
    newer = alice.get(f"rooms/{room_id}/messages?dir=f&limit=1&from={context['end']}")
    assert older.get_json()["chunk"][0]["event_id"] == before[0]
    assert newer.get_json()["chunk"][0]["event_id"] == after[2]
    assert ids(found) == [said]
    assert "context" not in look(alice, "needle")["results"][0]


def test_state_of_the_rooms_is_told_on_request(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob, name="then")
    alice.send(room_id, "needle")
    bob.post(f"rooms/{room_id}/leave")
    alice.set_state(room_id, "m.room.name", {"name": "now"})

    def name(person: Person) -> str:
        state = look(person, "needle", include_state=True)["state"]
        names = [it["content"]["name"] for it in state[room_id] if it["type"] == "m.room.name"]
        return str(names[0])

    assert (name(alice), name(bob)) == ("now", "then")


def test_results_come_with_their_bundles(alice: Person, room: Room) -> None:
    room_id = room(alice)
    said = alice.send(room_id, "needle")
    alice.send(room_id, "re", **{"m.relates_to": {"rel_type": "m.thread", "event_id": said}})

    found = look(alice, "needle")["results"][0]["result"]

    assert found["unsigned"]["m.relations"]["m.thread"]["count"] == 1


def test_the_index_follows_by_itself_and_an_old_database_is_indexed_at_the_first_search(
    app: Application, alice: Person, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_index, "EVERY", 10)
    room_id = room(alice)
    for _ in range(20):
        alice.send(room_id, "hay")
    assert indexed(app) >= 10
    with app.homeserver.database.write() as tx:
        tx.sql.execute(text("DELETE FROM search_index"))
        tx.sql.execute(text("DELETE FROM search_progress"))
        tx.forget(search_index.PROGRESS, 1)
    monkeypatch.setattr(search_index, "_AT_ONCE", 5)

    assert look(alice, "hay")["count"] == 20


def test_a_page_looks_beyond_what_the_filter_leaves_out(alice: Person, room: Room) -> None:
    room_id = room(alice)
    first = alice.send(room_id, "needle")
    for _ in range(3):
        alice.send(room_id, "needle", url="mxc://a/b")

    found = look(alice, "needle", order_by="recent", filter={"contains_url": False, "limit": 1})

    assert ids(found) == [first]


def test_a_full_page_has_a_token_and_the_count_stays_with_it(alice: Person, room: Room) -> None:
    said = alice.send(room(alice), "needle")

    found = look(alice, "needle", filter={"limit": 1})
    after = look(alice, "needle", found["next_batch"], filter={"limit": 1})

    assert (ids(found), found["count"]) == ([said], 1)
    assert (ids(after), after["count"]) == ([], 1)
    assert "next_batch" not in after


# --- what an answer must not tell


def test_the_count_is_of_what_the_searcher_may_see(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    alice.send(room_id, "the safe is new")
    alice.post(f"rooms/{room_id}/ban", json={"user_id": bob.user_id})
    alice.send(room_id, "the safe opens with xylophone-4711")
    alice.send(room(alice), "xylophone-4711")

    assert look(bob, "safe")["count"] == 1
    for term in ("xylophone-4711", "xylo", "x", "safe opens"):
        assert look(bob, term)["count"] == 0
        assert look(bob, term, order_by="recent")["count"] == 0


def test_the_count_leaves_out_what_was_said_before_a_join_and_by_the_erased(
    login: Login, alice: Person, bob: Person, room: Room
) -> None:
    hidden = {"history_visibility": "joined"}
    first, second = room(alice), room(alice, bob)
    alice.set_state(first, "m.room.history_visibility", hidden)
    alice.send(first, "needle")
    bob.send(second, "needle")
    auth = {"type": "m.login.password", "password": PASSWORD}
    assert bob.post("account/deactivate", json={"auth": auth, "erase": True}).status_code == 200
    carol = login("carol")
    for room_id in (first, second):
        carol.post(f"rooms/{room_id}/join")

    assert look(carol, "needle")["count"] == 0
    assert look(alice, "needle")["count"] == 2


def test_the_rank_does_not_depend_on_what_the_searcher_may_not_see(
    alice: Person, bob: Person, room: Room
) -> None:
    bob.send(room(bob), "guess xylophone-4711")
    before = look(bob, "guess xylophone-47")["results"][0]["rank"]
    secret = room(alice, preset="private_chat")
    for number in range(5):
        alice.send(secret, f"{number}: it opens with xylophone-4711")

    assert look(bob, "guess xylophone-47")["results"][0]["rank"] == before


def test_thousands_of_hidden_matches_are_told_by_nothing(
    alice: Person, bob: Person, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "AT_ONCE", 2)
    monkeypatch.setattr(search, "_ROUNDS", 1)
    room_id = room(alice, bob)
    alice.post(f"rooms/{room_id}/kick", json={"user_id": bob.user_id})
    for _ in range(5):
        alice.send(room_id, "needle")

    assert look(bob, "needle") == {"count": 0, "highlights": ["needle"], "results": []}


def test_what_is_visible_is_looked_up_by_an_index(app: Application) -> None:
    values: Json = {"words": "body : x", "visible": [], "is_any_sender": True, "senders": []}
    values |= {"rank": None, "number": None, "count": 1}

    with app.homeserver.database.read() as tx:
        for query in (search._BY_RANK, search._BY_TIME):  # noqa: SLF001 - it is about the statement
            found = tx.sql.compiled(query)
            plan = tx.sql.raw.execute(
                f"EXPLAIN QUERY PLAN {found.sql}", found.bind(values)
            ).fetchall()
            assert any("SEARCH visible" in row[3] for row in plan), plan


# --- how many at once


def test_a_user_has_only_few_searches_at_once(
    alice: Person, bob: Person, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MAX_OF_USER", 2)
    alice.send(room(alice, bob), "needle")
    body = {"search_categories": {"room_events": {"search_term": "needle"}}}

    with search.turn(bob.user_id):
        one_runs = bob.post("search", json=body).status_code
        with search.turn(bob.user_id):
            refused = bob.post("search", json=body)
    ended = bob.post("search", json=body).status_code

    assert (one_runs, ended) == (200, 200)
    assert refusal(refused) == (429, "M_LIMIT_EXCEEDED")
    assert refused.get_json()["retry_after_ms"] > 0


def test_a_client_may_search_several_rooms_at_once(alice: Person, room: Room) -> None:
    room_id = room(alice)
    event_id = alice.send(room_id, "needle")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: look(alice, "needle"), range(8)))

    assert [ids(it) for it in found] == [[event_id]] * 8


@pytest.mark.parametrize(
    ("criteria", "errcode"),
    [
        ({"search_term": 1}, "M_BAD_JSON"),
        ({}, "M_MISSING_PARAM"),
        ({"search_term": "x", "keys": ["content.url"]}, "M_BAD_JSON"),
        ({"search_term": "x", "order_by": "size"}, "M_BAD_JSON"),
        ({"search_term": "x", "filter": {"rooms": 1}}, "M_BAD_JSON"),
        ({"search_term": "x", "groupings": {"group_by": [{"key": "type"}]}}, "M_BAD_JSON"),
        ({"search_term": "x", "event_context": {"before_limit": -1}}, "M_BAD_JSON"),
        ({"search_term": "x" * 1001}, "M_BAD_JSON"),
    ],
)
def test_criteria_that_break_the_schema_are_refused(
    alice: Person, criteria: Json, errcode: str
) -> None:
    answer = alice.post("search", json={"search_categories": {"room_events": criteria}})

    assert refusal(answer) == (400, errcode)


@pytest.mark.parametrize("token", ["x", "é", "W10", "WzEsLTFd", "WzEsMWU5OTld", "bnVsbA"])
def test_a_token_that_no_answer_had_is_refused(alice: Person, token: str) -> None:
    body = {"search_categories": {"room_events": {"search_term": "x"}}}

    answer = alice.post("search", json=body, query_string={"next_batch": token})

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_without_a_category_nothing_is_searched(alice: Person) -> None:
    answer = alice.post("search", json={"search_categories": {}})

    assert answer.get_json() == {"search_categories": {}}
    assert search.COLUMNS.keys() == {"content.body", "content.name", "content.topic"}
