"""Events in the order of what they cite, whatever their depths and times say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from homebody.spec import event_order
from homebody.spec.events import Event
from homebody.spec.room_versions import V1


def event(event_id: str, prev: list[str], auth: list[str] | None = None, depth: int = 1) -> Event:
    pdu = {
        "type": "m.room.message",
        "sender": "@alice:b.test",
        "room_id": "!room:b.test",
        "content": {},
        "depth": depth,
        "origin_server_ts": 1,
        "prev_events": [[it, {}] for it in prev],
        "auth_events": [[it, {}] for it in auth or []],
    }
    return Event(event_id, pdu, V1)


def ids(events: list[Event]) -> list[str]:
    return [it.event_id for it in events]


@st.composite
def graphs(draw: st.DrawFn) -> list[Event]:
    """Events of which each cites some older ones, in any order."""
    names = [f"e{number}" for number in range(draw(st.integers(1, 12)))]
    made = []
    for number, name in enumerate(names):
        older = st.lists(st.sampled_from(names[:number]), max_size=3) if number else st.just([])
        made.append(event(name, draw(older), draw(older)))
    return draw(st.permutations(made))


@given(graphs())
def test_the_oldest_come_first_and_all_come(some: list[Event]) -> None:
    ordered = event_order.oldest_first(some)

    place = {it.event_id: number for number, it in enumerate(ordered)}
    assert sorted(place) == sorted(ids(some))
    for it in some:
        cited = [*it.prev_event_ids, *it.auth_event_ids]
        assert all(place[other] < place[it.event_id] for other in cited)


@given(graphs(), st.integers(0, 11))
def test_what_is_reached_comes_newest_first(some: list[Event], chosen: int) -> None:
    starts = [some[chosen % len(some)].event_id]

    ordered = event_order.newest_first(some, starts)

    place = {it.event_id: number for number, it in enumerate(ordered)}
    assert place[starts[0]] == 0
    for it in ordered:
        assert all(place[other] > place[it.event_id] for other in it.prev_event_ids)
        cited = [*it.prev_event_ids, *it.auth_event_ids]
        assert all(place[other] > place[it.event_id] for other in cited if other in place)


def test_events_in_a_circle_are_left_out_with_those_that_cite_them() -> None:
    circle = [event("a", ["b"]), event("b", ["a"])]
    after, before = event("c", ["a"]), event("d", [])

    assert ids(event_order.oldest_first([*circle, after, before])) == ["d"]
    assert ids(event_order.newest_first([*circle, after, before], ["c"])) == ["c"]


def test_an_order_of_another_server_decides_only_between_branches() -> None:
    some = [event("top", ["left", "right"]), event("right", ["root"]), event("left", ["root"])]
    some = [event("root", []), *some]

    assert ids(event_order.newest_first(some, ["top"])) == ["top", "right", "left", "root"]


def test_what_a_missing_event_may_follow_is_not_certain() -> None:
    top, left = event("top", ["left", "right"], depth=9), event("left", ["gone"], depth=7)
    right, root = event("right", ["root"], depth=6), event("root", [], depth=4)
    ordered = [top, left, right, root]

    assert ids(event_order.certain(ordered, {"gone"})) == ["top", "left", "right"]
    assert ids(event_order.certain(ordered, set())) == ids(ordered)


def test_what_an_uncertain_event_follows_is_not_certain_either() -> None:
    top, left = event("top", ["left", "right"], depth=9), event("left", ["gone"], depth=7)
    right, root = event("right", ["root"], depth=2), event("root", [], depth=100)

    assert ids(event_order.certain([top, left, right, root], {"gone"})) == ["top", "left"]
