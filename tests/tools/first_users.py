"""Two persons open links of invitation, register and talk: the end of first_server.py.

It runs with nothing but Python in the system that is tried, and speaks HTTPS with the name of the
server and the authorities of that system, as browsers and clients do.
"""

from __future__ import annotations

import html
import http.cookiejar
import json
import re
import sys
import urllib.parse
import urllib.request
from typing import Any

PASSWORD = "a-long-password-5"


def register(link: str) -> str:
    """Fill in the form behind a link; return the user ID that the page then shows."""
    browser = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    )
    page = browser.open(link).read().decode()
    fields = dict(re.findall(r'name="(csrf_token|name)" value="([^"]*)"', page))
    for field in re.findall(r"<input[^>]*>", page):
        if 'type="password"' in field:
            fields |= dict.fromkeys(re.findall(r' name="(\w+)"', field), PASSWORD)
    answer = browser.open(link, urllib.parse.urlencode(fields).encode()).read().decode()
    (user_id,) = set(re.findall(r"@\w+:[\w.]+\w", html.unescape(answer)))
    return str(user_id)


class Client:
    """A client of a user, after the login."""

    def __init__(self, base: str, user_id: str) -> None:
        self.base, self.token = f"{base}/_matrix/client/v3", ""
        who = {"type": "m.id.user", "user": user_id}
        body = {"type": "m.login.password", "identifier": who, "password": PASSWORD}
        self.token = self.ask("POST", "/login", body)["access_token"]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request; return the response."""
        request = urllib.request.Request(self.base + path, method=method)  # noqa: S310 - https
        request.add_header("Authorization", f"Bearer {self.token}")
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, data, timeout=60) as response:  # noqa: S310 - as above
            return json.load(response)

    def say(self, room: str, text: str) -> None:
        path = f"/rooms/{urllib.parse.quote(room)}/send/m.room.message/{len(text)}"
        self.ask("PUT", path, {"msgtype": "m.text", "body": text})

    def read(self, room: str) -> list[str]:
        """Return all messages of a room as "sender: text"."""
        events = self.ask("GET", "/sync")["rooms"]["join"][room]["timeline"]["events"]
        return [
            f"{it['sender']}: {it['content']['body']}"
            for it in events
            if it["type"] == "m.room.message"
        ]


def main(links: list[str]) -> None:
    """Let two persons register and talk; print what they see."""
    base = "/".join(links[0].split("/")[:3])
    users = [register(link) for link in links]
    for user_id, link in zip(users, links, strict=True):
        print(f"{link[: link.rindex('/')]}/… → {user_id}")
    maria, anton = (Client(base, user_id) for user_id in users)
    room = maria.ask("POST", "/createRoom", {"is_direct": True, "invite": [users[1]]})["room_id"]
    maria.say(room, "Tea?")
    anton.ask("POST", f"/join/{room}", {})
    anton.say(room, "With pleasure.")
    for name, client in (("maria", maria), ("anton", anton)):
        print(f"\nwhat {name} reads:")
        print("\n".join(client.read(room)))


if __name__ == "__main__":
    main(sys.argv[1:])
