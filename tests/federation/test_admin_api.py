"""The admin API for users, beside Synapse's: the same statuses, and answers of the same form."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

from tests.federation.users import Home
from tests.helpers.live import Person

SECRET = "not a secret"  # of tests/federation/synapse.py
PASSWORD = "correct horse battery staple"
PATH = "/_synapse/admin/"
USER, BOB, NOBODY = "v1/users/{user}", "v2/users/{bob}", "@nobody:{server}"
RECORD = {
    "displayname": "Al",
    "avatar_url": "mxc://localhost/a",
    "threepids": [{"medium": "email", "address": "{name}@example.org"}],
    "external_ids": [{"auth_provider": "{name}", "external_id": "1"}],
    "user_type": "support",
}
REQUESTS: list[tuple[str, str, Any]] = [
    *(("GET", f"v2/users{it}", None) for it in ("", "?limit=0", "?limit=1", "?order_by=nope")),
    *(("GET", f"v2/users?{it}", None) for it in ("dir=x", "limit=-1", "from=-1", "guests=x")),
    *(("GET", f"v3/users?{it}", None) for it in ("name={name}", "deactivated=true", "locked=true")),
    *(("GET", f"v2/users/{it}", None) for it in ("{user}", NOBODY, "@x:other.example", "x")),
    *(("GET", f"v1/users/{it}/admin", None) for it in ("{user}", NOBODY, "@foo:bar")),
    ("GET", "v1/whois/@x:other.example", None),
    *(("GET", f"v2/users/{it}/devices", None) for it in ("{user}", NOBODY, "@x:other.example")),
    *(("GET", f"v1/users/{it}/pushers", None) for it in ("{user}", NOBODY, "@x:other.example")),
    *(("GET", f"v1/users/{it}/joined_rooms", None) for it in ("{user}", NOBODY)),
    *(("GET", f"v1/users/{it}/memberships", None) for it in ("{user}", NOBODY)),
    *(("GET", f"{USER}/{it}", None) for it in ("sent_invite_count", "sent_invite_count?from_ts=0")),
    ("GET", f"{USER}/cumulative_joined_room_count?from_ts=0", None),
    *(("GET", f"v1/users/{it}/override_ratelimit", None) for it in ("{user}", NOBODY)),
    *(("POST", f"{USER}/override_ratelimit", it) for it in ({}, {"burst_count": -1})),
    ("POST", f"{USER}/override_ratelimit", {"messages_per_second": 1, "burst_count": 2}),
    ("GET", f"{USER}/override_ratelimit", None),
    ("DELETE", f"{USER}/override_ratelimit", None),
    *(("GET", f"v1/username_available?username={it}", None) for it in ("free", "{name}", "A", "")),
    *(
        ("PUT", "v2/users/{user}", {key: 17})
        for key in ("password", "displayname", "admin", "locked", "user_type")
    ),
    ("PUT", BOB, {"threepids": [{"medium": "email"}]}),
    ("PUT", BOB, {"external_ids": [{}]}),
    ("PUT", BOB, {"deactivated": True, "locked": True}),
    ("PUT", BOB, {"password": PASSWORD}),
    ("PUT", BOB, {}),
    ("PUT", "v2/users/{user}", RECORD),
    ("PUT", BOB, {"external_ids": RECORD["external_ids"]}),
    ("GET", "v1/threepid/email/users/{name}@example.org", None),
    ("GET", "v1/threepid/email/users/nobody@example.org", None),
    ("GET", "v1/auth_providers/{name}/users/1", None),
    ("GET", "v1/auth_providers/{name}/users/2", None),
    ("PUT", "v2/users/{owner}", {"admin": False}),
    ("PUT", "v1/users/{owner}/admin", {"admin": False}),
    ("PUT", f"v1/users/{NOBODY}/admin", {"admin": True}),
    ("PUT", f"{USER}/admin", {}),
    *(("PUT", "v1/suspend/{user}", it) for it in ({}, {"suspend": "x"}, {"suspend": True})),
    ("PUT", "v1/suspend/{user}", {"suspend": False}),
    *(("POST", f"v1/users/{it}/shadow_ban", {}) for it in ("{user}", NOBODY, "@x:other.example")),
    ("DELETE", f"{USER}/shadow_ban", {}),
    *(("POST", f"v1/users/{it}/login", {}) for it in ("{user}", "{owner}", NOBODY)),
    ("POST", f"{USER}/login", {"valid_until_ms": "x"}),
    ("POST", "v2/users/{user}/devices", {"device_id": "NEW"}),
    ("GET", "v2/users/{user}/devices/NEW", None),
    ("PUT", "v2/users/{user}/devices/NEW", {"display_name": "x"}),
    ("DELETE", "v2/users/{user}/devices/NEW", None),
    ("GET", "v2/users/{user}/devices/NEW", None),
    ("DELETE", "v2/users/{user}/devices/NEW", None),
    ("POST", "v2/users/{user}/delete_devices", {}),
    ("POST", "v2/users/{user}/delete_devices", {"devices": ["NEW"]}),
    ("GET", "v1/experimental_features/{user}", None),
    ("PUT", "v1/experimental_features/{user}", {"features": {"msc3881": True}}),
    ("PUT", "v1/experimental_features/{user}", {"features": {"nothing": True}}),
    *(("POST", f"v1/reset_password/{it}", {"new_password": PASSWORD}) for it in ("{user}", NOBODY)),
    ("POST", "v1/reset_password/{user}", {}),
    ("PUT", "v2/users/{user}", {"locked": True}),
    ("PUT", "v2/users/{user}", {"locked": False}),
    *(("POST", f"v1/deactivate/{it}", {}) for it in (NOBODY, "@x:other.example")),
    ("POST", "v1/deactivate/{user}", {"erase": "x"}),
    ("POST", "v1/deactivate/{user}", {"erase": True}),
    ("POST", "v1/deactivate/{user}", {}),
    ("GET", "v2/users/{user}", None),
    ("PUT", "v2/users/{bob}", {"deactivated": True}),
    ("GET", "v1/nothing", None),
    ("POST", "v2/users", {}),
    ("DELETE", "v2/users/{user}", None),
]
"""Method, path and body, in this order. The user is erased at the end."""
UNLIKE = {"last_seen_ts", "last_seen_ip", "last_seen_user_agent"}
"""Synapse learns of a request some seconds after it. One of the two has no more than null."""


class Admin(Person):
    """An administrator, registered with the shared secret."""

    def __init__(self, home: Home, name: str) -> None:
        self._token = ""
        self.name, self.server = name, home.running
        session = self.register(name, admin=True)
        self.user_id, self._token = session["user_id"], session["access_token"]
        home.persons.append(self)

    def register(self, name: str, **more: Any) -> Any:
        """Register an account, and return the response."""
        nonce = self.ask("GET", f"{PATH}v1/register")["nonce"]
        parts = (nonce, name, PASSWORD, "admin" if more.get("admin") else "notadmin")
        mac = hmac.new(SECRET.encode(), "\0".join(parts).encode(), hashlib.sha1).hexdigest()
        body = {"nonce": nonce, "username": name, "password": PASSWORD, "mac": mac, **more}
        return self.ask("POST", f"{PATH}v1/register", body)

    def answers(self) -> list[tuple[str, int, Any]]:
        """Return what each of REQUESTS is answered: (request, status, form of the response)."""
        name, server = f"al{time.time_ns()}", self.user_id.partition(":")[2]
        names = {"name": name, "server": server, "owner": self.user_id}
        names |= {"user": self.register(name)["user_id"], "bob": f"@bob-{name}:{server}"}
        found = []
        for method, path, body in REQUESTS:
            url = PATH + filled(path, names)
            status, response = self.raw(method, url, filled({} if body is None else body, names))
            form = form_of(json.loads(response)) if status < 400 else None
            found.append((f"{method} {path} {body}", status, form))
        return found


def filled(value: Any, names: dict[str, str]) -> Any:
    """Return a value with the names of the users of this server."""
    if isinstance(value, dict):
        return {key: filled(it, names) for key, it in value.items()}
    if isinstance(value, list):
        return [filled(it, names) for it in value]
    return value.format(**names) if isinstance(value, str) else value


def form_of(value: Any) -> Any:
    """Return the keys of a response with the types of their values; booleans and null as such."""
    if isinstance(value, dict):
        return {
            "(user)" if key.startswith("user_@") else key: None if key in UNLIKE else form_of(it)
            for key, it in value.items()
        }
    if isinstance(value, list):
        return [form_of(it) for it in value[:1]]
    return value if value is None or isinstance(value, bool) else type(value).__name__


def test_both_servers_answer_alike(homes: dict[str, Home]) -> None:
    ours, theirs = (Admin(homes[it], f"owner{time.time_ns()}") for it in ("homebody", "synapse"))

    found, expected = ours.answers(), theirs.answers()

    assert [it for it in zip(found, expected, strict=True) if it[0] != it[1]] == []
    assert len(found) == len(REQUESTS)
