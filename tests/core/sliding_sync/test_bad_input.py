"""Whatever a client sends to sliding sync, it gets a response, and never what is not for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homebody.core.sliding_sync import connections, kept_states
from homebody.core.sliding_sync.requests import RoomConfig
from homebody.core.sliding_sync.sizes import Sizes
from homebody.core.sliding_sync.states import ConnectionState, SentRoom
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.sliding import PATH, Json, ask

MakeRoom = Callable[..., str]
MERGED = "/_matrix/client/v4/sync"
REFUSALS = {"M_BAD_JSON", "M_INVALID_PARAM", "M_MISSING_PARAM", "M_UNKNOWN_POS", "M_TOO_LARGE"}
SECRET = "nobody else may read this"
A_FEW = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

numbers = st.sampled_from([0, 1, 2, 20, 99, 2**31, 2**53, 2**64 - 1])
texts = st.sampled_from(["", "*", "\0", "$LAZY", "$ME", "all", "m.room.member", "x" * 300, "ü"])
wrong = st.sampled_from([None, True, -1, 7, "*", [], {}, [None], [0, 1, 2], {"*": None}])


def either(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Yield what is expected, and now and then something else."""
    return st.integers(0, 19).flatmap(lambda chance: good if chance else wrong)


def some(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Json]:
    """Yield objects with some of these fields."""
    return st.fixed_dictionaries({}, optional={name: either(it) for name, it in fields.items()})


def both(
    fields: dict[str, st.SearchStrategy[Any]], required: dict[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[Any]:
    """Yield objects with some of the fields and, mostly, all of the others."""
    every = {name: either(it) for name, it in required.items()}
    optional = {name: either(it) for name, it in fields.items()}
    return either(st.fixed_dictionaries(every, optional=optional))


def bodies_about(
    room_ids: list[str], poses: list[str], *, is_merged: bool
) -> st.SearchStrategy[Json]:
    """Yield bodies in one of the dialects."""
    rooms = st.sampled_from([*room_ids, "*", "!no:where"])
    pairs = st.lists(st.tuples(either(texts), texts), max_size=4)
    elements = st.lists(some({"type": texts, "state_key": texts}), max_size=3)
    states = some({"include": elements, "exclude": elements, "lazy_members": st.booleans()})
    filters = {
        **dict.fromkeys(["is_dm", "is_encrypted", "is_invite", "is_invited"], st.booleans()),
        **dict.fromkeys(["spaces", "tags", "not_tags"], st.lists(either(rooms), max_size=3)),
        **dict.fromkeys(["room_types", "not_room_types"], st.lists(st.none() | texts, max_size=3)),
        "room_name_like": texts,
    }
    state = states if is_merged else pairs
    subscription = {"timeline_limit": numbers, "required_state": state}
    a_list = {
        "ranges": st.lists(st.tuples(numbers, numbers), max_size=3),
        "range": st.tuples(numbers, numbers),
        "filters": some(filters),
    }
    extension = {
        "enabled": st.booleans(),
        "since": st.sampled_from(["s0", "s99999999999999999", "", "s-1", *poses]),
        "lists": st.lists(either(texts), max_size=3),
        "rooms": st.lists(either(rooms), max_size=3),
        "limit": numbers,
        "fields": st.lists(either(texts), max_size=3),
    }
    names = ["to_device", "e2ee", "account_data", "receipts", "typing"]
    names += ["io.element.msc4308.thread_subscriptions", "org.matrix.msc4262.profiles"]
    names += ["org.matrix.msc4354.sticky_events"]
    return some(
        {
            "conn_id": texts,
            "pos": st.sampled_from([*poses, "s1", "s1~1.AAAAAAAAAAAAAAAA", "0"]),
            "timeout": st.just(0),
            "set_presence": st.sampled_from(["online", "offline", "gone"]),
            "lists": st.dictionaries(texts, both(a_list, subscription), max_size=3),
            "room_subscriptions": st.dictionaries(rooms, both({}, subscription), max_size=3),
            "extensions": some(dict.fromkeys(names, some(extension))),
        }
    )


@pytest.mark.parametrize("path", [PATH, MERGED])
def test_no_body_is_an_error_of_the_server_or_shows_rooms_of_others(
    login: Login, room: MakeRoom, path: str
) -> None:
    alice, mallory = login("alice"), login("mallory")
    secret = room(alice, preset="private_chat", name=SECRET, topic=SECRET)
    alice.send(secret, SECRET)
    own = room(mallory)
    poses = [ask(alice)["pos"], ask(mallory)["pos"]]

    statuses: list[int] = []

    @A_FEW
    @given(bodies_about([secret, own], poses, is_merged=path == MERGED))
    def check(body: Json) -> None:
        query = {"pos": body["pos"]} if path == PATH and isinstance(body.get("pos"), str) else {}
        answer = mallory.post(path, json=body, query_string=query)

        found = answer.get_json()
        statuses.append(answer.status_code)
        assert answer.status_code in {200, 400, 413}, found
        assert answer.status_code == 200 or found["errcode"] in REFUSALS
        assert SECRET not in answer.get_data(as_text=True)
        assert secret not in found.get("rooms", {})

    check()
    assert statuses.count(200) > 5


def test_no_pos_but_the_own_one_is_good_before_and_after_a_restart(
    app: Application, make_app: MakeApp, login: Login, room: MakeRoom
) -> None:
    alice, mallory = login("alice"), login("mallory")
    room(alice, preset="private_chat", name=SECRET)
    homeserver = app.homeserver

    def poses_of(person: Person) -> list[str]:
        pos = ask(person)["pos"]
        return [pos, ask(person, pos)["pos"]]

    theirs, own = poses_of(alice), poses_of(mallory)
    kept_states.write(homeserver.database, homeserver.sliding_connections, is_last=True)
    place, last = connections.parse(own[-1]), own[-1][-16:]
    assert place is not None
    positions, ends = st.integers(0, 10**19), st.sampled_from([last, *(it[-16:] for it in theirs)])
    made_up = st.builds(lambda at, number, end: f"s{at}~{number}.{end}", positions, positions, ends)
    near = st.builds(
        lambda at, number, end: f"s{place.position + at}~{place.number + number}.{end}",
        st.integers(-2, 2),
        st.integers(-2, 2),
        ends,
    )

    @A_FEW
    @given(st.one_of(st.text(max_size=40), st.sampled_from(theirs), made_up, near))
    def check(pos: str) -> None:
        answer = mallory.post(MERGED, json={"pos": pos, "lists": {}})
        is_good = pos in {*own, ""}

        assert is_good or answer.get_json()["errcode"] == "M_UNKNOWN_POS"
        assert SECRET not in answer.get_data(as_text=True)

    check()
    mallory.client = make_app().test_client()
    check()


def test_whatever_is_kept_and_dropped_the_sizes_are_those_of_what_is_kept() -> None:
    configs = [RoomConfig(1, frozenset({("a", str(it))})) for it in range(3)]
    members = [frozenset(f"@{it}-{at}:x" for at in range(it)) for it in range(3)]
    sent = [
        SentRoom(config, "join", 1, members=some_members)
        for config in configs
        for some_members in members
    ]
    mappings = [
        {f"!{it}:x": sent[(it * step) % len(sent)] for it in range(count)}
        for count, step in ((0, 1), (5, 1), (9, 2), (9, 4))
    ]
    extensions = [{}, {"typing": frozenset({"!1:x"})}, {"typing": frozenset({"!1:x", "!2:x"})}]

    @given(
        st.lists(
            st.tuples(st.sampled_from(mappings), st.sampled_from(extensions), st.integers(0, 9)),
            max_size=12,
        )
    )
    def check(steps: list[tuple[dict[str, SentRoom], dict[str, frozenset[str]], int]]) -> None:
        sizes, kept = Sizes(), []
        for rooms, of_extensions, dropped in steps:
            kept.append(ConnectionState(rooms=rooms, extension_rooms=of_extensions))
            sizes.add(kept[-1])
            if dropped < len(kept):
                sizes.drop(kept.pop(dropped))
        fresh = Sizes()
        for state in kept:
            fresh.add(state)

        assert sizes.size_bytes == fresh.size_bytes
        for state in kept:
            sizes.drop(state)
        assert sizes.size_bytes == 0

    check()
