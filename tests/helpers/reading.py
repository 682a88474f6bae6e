"""Every way for clients to read events of a room, for tests of what must not be revealed."""

from __future__ import annotations

from urllib.parse import quote

from tests.conftest import Person


def everywhere(
    person: Person, room_id: str, said: str, root: str, words: str = "really"
) -> dict[str, str]:
    """Return {name of the request: response} of every way to read events of a room.

    `said` is requested by itself, `root` with its relations; `words` are searched for.
    """
    at = f"rooms/{quote(room_id)}"
    v1 = f"/_matrix/client/v1/{at}"
    federation = '{"event_format": "federation", "room": {"timeline": {"limit": 50}}}'
    full = '{"room": {"timeline": {"limit": 50}}}'
    lazy = '{"lazy_load_members": true}'
    around = {"before_limit": 5, "after_limit": 5, "include_profile": True}
    room_events = {"search_term": words, "include_state": True, "event_context": around}
    sliding = {
        "lists": {"a": {"ranges": [[0, 9]], "timeline_limit": 50, "required_state": [["*", "*"]]}}
    }
    path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
    asked = {
        "sync": person.get("sync", query_string={"filter": full}),
        "sync as servers": person.get("sync", query_string={"filter": federation}),
        "sync full": person.get("sync", query_string={"filter": full, "full_state": "true"}),
        "sliding": person.post(path, json=sliding),
        "messages": person.get(
            f"{at}/messages", query_string={"dir": "f", "limit": 100, "filter": lazy}
        ),
        "context": person.get(f"{at}/context/{said}"),
        "event": person.get(f"{at}/event/{said}"),
        "relations": person.get(f"{v1}/relations/{root}"),
        "threads": person.get(f"{v1}/threads"),
        "root": person.get(f"{at}/event/{root}"),
        "state": person.get(f"{at}/state"),
        "state event": person.get(f"{at}/state/m.room.member/{person.user_id}?format=event"),
        "members": person.get(f"{at}/members"),
        "search": person.post("search", json={"search_categories": {"room_events": room_events}}),
        "initialSync": person.get("initialSync?limit=50"),
        "room initialSync": person.get(f"{at}/initialSync?limit=50"),
        "2014": person.get(f"/matrix/client/api/v1/{at}/messages/list"),
        "notifications": person.get("notifications"),
    }
    assert {name: answer.status_code for name, answer in asked.items()} == dict.fromkeys(asked, 200)
    return {name: answer.get_data(as_text=True) for name, answer in asked.items()}
