"""A server with some users, rooms, files and reports, for screenshots and tests of its pages."""

from __future__ import annotations

from urllib.parse import quote

from tests.helpers.live import Person
from tests.helpers.server import RunningServer

PASSWORD = "x" * 12
"""Of all users; see live.Person."""


def furnish(server: RunningServer) -> dict[str, str]:
    """Add users, of whom `anna` is the administrator, and what they do; return {name of id: id}."""
    names = {"anna": "Anna", "ben": "Ben", "carla": "Carla", "dora": "Dora", "emil": "Emil"}
    users = {name: Person(server, name) for name in names}
    for name, user in users.items():
        path = f"/profile/{quote(user.user_id)}/displayname"
        user.ask("PUT", path, {"displayname": names[name]})
    anna, ben, carla = users["anna"], users["ben"], users["carla"]
    kitchen = ben.create_room(
        name="The kitchen", topic="What is for dinner", preset="public_chat", visibility="public"
    )
    for name in ("anna", "carla", "dora", "emil"):
        users[name].ask("POST", f"/join/{quote(kitchen)}")
    encryption = {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    carla.create_room(name="Book club", initial_state=[encryption])
    anna.create_room(name="Neighbours", preset="public_chat")
    event = users["emil"].ask(
        "PUT",
        f"/rooms/{quote(kitchen)}/send/m.room.message/1",
        {"msgtype": "m.text", "body": "Buy my watches: https://watches.example"},
    )["event_id"]
    path = f"/rooms/{quote(kitchen)}/report/{quote(event)}"
    dora = users["dora"]
    dora.ask("POST", path, {"reason": "Advertisements, again"})
    upload = "/_matrix/media/v3/upload?filename="
    ben.ask("POST", f"{upload}recipe.txt", b"flour\n" * 1000)
    carla.ask("POST", f"{upload}cover.txt", b"x" * 250_000)
    anna.ask("PUT", "/_synapse/admin/v1/suspend/" + quote(users["emil"].user_id), {"suspend": True})
    media = anna.ask("GET", f"/_synapse/admin/v1/users/{quote(carla.user_id)}/media")
    for user in users.values():
        user.close()
    return {
        "kitchen": kitchen,
        "ben": ben.user_id,
        "carla": carla.user_id,
        "emil": users["emil"].user_id,
        "file": media["media"][0]["media_id"],
    }
