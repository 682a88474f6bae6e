"""The lists of accounts: v2/users and v3/users."""

from __future__ import annotations

import time
from typing import Any

import pytest

from homebody.core.administration import user_list
from tests.conftest import Login, Person
from tests.helpers.rooms import refusal

V1 = "/_synapse/admin/v1"
V2 = "/_synapse/admin/v2/users"
V3 = "/_synapse/admin/v3/users"


def listed(admin: Person, path: str = V2, /, **query: Any) -> list[str]:
    """The localparts of the users on a page."""
    answer = admin.get(path, query_string=query)
    assert answer.status_code == 200, answer.get_json()
    return [user["name"][1:].partition(":")[0] for user in answer.get_json()["users"]]


@pytest.fixture
def people(admin: Person, login: Login) -> dict[str, Person]:
    """Users of all kinds: "closed" is deactivated, "locked" locked, "robot" a bot."""
    found = {name: login(name) for name in ("alice", "bob", "closed", "locked", "robot")}
    for name, change in (
        ("alice", {"displayname": "Zoë 100%", "avatar_url": "mxc://localhost/a"}),
        ("closed", {"deactivated": True}),
        ("locked", {"locked": True}),
        ("robot", {"user_type": "bot", "displayname": "Alice's helper"}),
    ):
        assert admin.put(f"{V2}/@{name}:localhost", json=change).status_code == 200
    return found


def test_an_entry_has_all_fields_with_their_types(admin: Person, people: dict[str, Person]) -> None:
    answer = admin.get(V2, query_string={"name": "alice", "limit": 1}).get_json()

    (entry,) = answer["users"]
    now_ms = time.time() * 1000
    assert now_ms - 600_000 < entry.pop("creation_ts") <= now_ms  # milliseconds
    assert now_ms - 600_000 < entry.pop("last_seen_ts") <= now_ms
    assert entry == {
        "name": "@alice:localhost",
        "user_type": None,
        "is_guest": False,
        "admin": False,
        "deactivated": False,
        "shadow_banned": False,
        "displayname": "Zoë 100%",
        "avatar_url": "mxc://localhost/a",
        "erased": False,
        "locked": False,
    }
    assert all(entry[it] is False for it in ("is_guest", "admin", "deactivated", "erased"))
    assert answer["total"] == 2  # and the helper of Alice
    assert answer["next_token"] == "1"


def test_deactivated_and_locked_users_are_listed_where_asked_for(
    admin: Person, people: dict[str, Person]
) -> None:
    active = ["alice", "bob", "owner", "robot"]

    assert listed(admin) == active
    assert listed(admin, deactivated="true") == ["alice", "bob", "closed", "owner", "robot"]
    assert listed(admin, locked="true") == ["alice", "bob", "locked", "owner", "robot"]
    assert listed(admin, V3) == ["alice", "bob", "closed", "owner", "robot"]
    assert listed(admin, V3, deactivated="false") == active
    assert listed(admin, V3, deactivated="true") == ["closed"]


def test_filters_by_kind(admin: Person, people: dict[str, Person]) -> None:
    assert listed(admin, admins="true") == ["owner"]
    assert listed(admin, admins="false") == ["alice", "bob", "robot"]
    assert listed(admin, not_user_type="bot") == ["alice", "bob", "owner"]
    assert listed(admin, not_user_type="") == ["robot"]
    assert listed(admin, not_user_type=["bot", ""]) == []


def test_guests_can_be_left_out(admin: Person, make_app: Any) -> None:
    client = make_app(allow_guests="true").test_client()
    guest = client.post("/_matrix/client/v3/register?kind=guest", json={}).get_json()["user_id"]
    owner = Person(client, admin.user_id, admin.access_token, admin.device_id)

    assert f"@{listed(owner)[0]}:localhost" == guest
    assert listed(owner, guests="true") == listed(owner)
    assert listed(owner, guests="false") == ["owner"]


def test_search_finds_parts_of_names(admin: Person, people: dict[str, Person]) -> None:
    assert listed(admin, name="LIC") == ["alice", "robot"]
    assert listed(admin, name="100%") == ["alice"]
    assert listed(admin, name="%") == ["alice"]
    assert listed(admin, name="_") == []
    assert listed(admin, name="localhost") == []
    assert listed(admin, name="'") == ["robot"]
    assert listed(admin, user_id="OBO") == ["robot"]
    assert len(listed(admin, user_id="localhost")) == 4
    assert listed(admin, name="bob", user_id="alice") == ["bob"]
    assert len(listed(admin, name="")) == 4


@pytest.mark.parametrize("order", user_list.ORDERS)
def test_each_order_has_two_directions(
    admin: Person, people: dict[str, Person], order: str
) -> None:
    def page(direction: str) -> list[Any]:
        query = {"order_by": order, "dir": direction, "deactivated": "true", "locked": "true"}
        users = admin.get(V2, query_string=query).get_json()["users"]
        users = [user for user in users if user["name"] != admin.user_id]  # seen just now
        return [(user[order] is not None, user[order] or "", user["name"]) for user in users]

    forwards, backwards = page("f"), page("b")

    assert len(forwards) == 5
    keys = [(is_there, str(value)) for is_there, value, _ in forwards]
    assert keys == sorted(keys)
    # users who are alike stay in the order of their names
    assert [it[:2] for it in backwards] == [it[:2] for it in reversed(forwards)]
    assert len(user_list.ORDERS) == 11


def test_pages_follow_each_other_without_gaps(admin: Person, people: dict[str, Person]) -> None:
    found, query = [], {"limit": "2"}
    for _ in range(9):
        page = admin.get(V2, query_string=query).get_json()
        assert page["total"] == 4
        found += [user["name"] for user in page["users"]]
        if "next_token" not in page:
            break
        assert isinstance(page["next_token"], str)
        query["from"] = page["next_token"]

    assert found == [f"@{name}:localhost" for name in ("alice", "bob", "owner", "robot")]
    assert listed(admin, limit="100000000000") == listed(admin)
    assert listed(admin, **{"from": "100"}) == []


@pytest.mark.parametrize(
    "query",
    [
        {"order_by": "id"},
        {"order_by": "erased"},
        {"dir": "up"},
        {"limit": "-1"},
        {"from": "-1"},
        {"from": "x"},
        {"guests": "maybe"},
        {"deactivated": "1"},
        {"locked": "yes"},
        {"admins": ""},
    ],
)
@pytest.mark.parametrize("path", [V2, V3])
def test_bad_parameters_are_refused(admin: Person, path: str, query: dict[str, str]) -> None:
    assert refusal(admin.get(path, query_string=query)) == (400, "M_INVALID_PARAM")
