"""Requests whose body was lost on its way: they are refused, and empty nothing that is stored."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

import pytest

from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import refusal, unchanged
from tests.tools import spec_index

CALLED_WITHOUT: Final = {
    ("POST", "/_matrix/client/v3/join/<room_id_or_alias>"),
    ("POST", "/_matrix/client/v3/rooms/<room_id>/join"),
    ("PUT", "/matrix/client/api/v1/join/<room_id_or_alias>"),
    ("POST", "/_matrix/client/v3/knock/<room_id_or_alias>"),
    ("POST", "/_matrix/client/v3/rooms/<room_id>/leave"),
    ("POST", "/_matrix/client/v3/rooms/<room_id>/forget"),
    ("PUT", "/_matrix/client/v3/rooms/<room_id>/redact/<event_id>/<txn_id>"),
    ("POST", "/_matrix/client/v3/rooms/<room_id>/redact/<event_id>"),
    ("POST", "/_matrix/client/v3/rooms/<room_id>/receipt/<receipt_type>/<event_id>"),
    ("POST", "/_matrix/client/v3/user/<user_id>/openid/request_token"),
    ("POST", "/_matrix/client/v3/logout"),
    ("POST", "/_matrix/client/v3/logout/all"),
    ("POST", "/_matrix/media/v1/create"),
    ("POST", "/_matrix/media/v3/upload"),  # a file may be empty
    ("POST", "/_matrix/client/v3/org.matrix.msc4108/rendezvous"),  # and so may a text
    ("PUT", "/_matrix/client/v3/org.matrix.msc4108/rendezvous/<rendezvous_id>"),
    ("PUT", "/_matrix/media/v3/upload/<server_name>/<media_id>"),
    ("POST", "/_synapse/admin/v1/federation/destinations/<destination>/reset_connection"),
    ("POST", "/_synapse/admin/v1/deactivate/<user_id>"),
    ("PUT", "/_synapse/admin/v2/users/<user_id>/devices/<device_id>"),
    ("POST", "/_synapse/admin/v1/users/<user_id>/login"),
    ("POST", "/_synapse/admin/v1/users/<user_id>/_allow_cross_signing_replacement_without_uia"),
    ("POST", "/_synapse/admin/v1/users/<user_id>/shadow_ban"),
    ("POST", "/_synapse/admin/v1/users/<user_id>/override_ratelimit"),
    ("POST", "/_synapse/admin/v1/rooms/<room_id_or_alias>/make_room_admin"),
    ("POST", "/_synapse/admin/v1/media/delete"),
    ("POST", "/_synapse/admin/v1/media/<server_name>/delete"),
    ("POST", "/_synapse/admin/v1/purge_media_cache"),
    ("POST", "/_synapse/admin/v1/media/quarantine/<server_name>/<media_id>"),
    ("POST", "/_synapse/admin/v1/media/unquarantine/<server_name>/<media_id>"),
    ("POST", "/_synapse/admin/v1/media/protect/<media_id>"),
    ("POST", "/_synapse/admin/v1/media/unprotect/<media_id>"),
    ("POST", "/_synapse/admin/v1/room/<room_id>/media/quarantine"),
    ("POST", "/_synapse/admin/v1/quarantine_media/<room_id>"),
    ("POST", "/_synapse/admin/v1/user/<user_id>/media/quarantine"),
    ("POST", "/_synapse/admin/v1/purge_history/<room_id>"),
    ("POST", "/_synapse/admin/v1/purge_history/<room_id>/<event_id>"),
    ("POST", "/_synapse/admin/v1/scheduled_tasks/<task_id>/cancel"),
    ("POST", "/_matrix/client/v1/delayed_events/<delay_id>/<action>"),
    ("POST", "/_matrix/client/v3/org.matrix.msc4140/delayed_events/<delay_id>/<action>"),
}
"""Endpoints that clients call without a body."""
OF_OTHERS: Final = re.compile("/appservice/|^/_homebody/|^/_matrix/static/|/fallback/web$")
"""For application services and browsers, which send forms."""
SWITCHED_OFF: Final = {"M_THREEPID_DENIED", "M_THREEPID_NOT_FOUND", "M_UNRECOGNIZED"}
"""Errors of endpoints that need settings which a new server does not have."""


def with_a_body() -> list[tuple[str, str]]:
    """(method, route) of everything that takes a JSON object."""
    return sorted(
        (method, rule.rule)
        for rule in spec_index.server().url_map.iter_rules()
        for method in {"PUT", "POST"} & (rule.methods or set())
        if (method, rule.rule) not in CALLED_WITHOUT and not OF_OTHERS.search(rule.rule)
    )


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")  # the first account is an administrator's


@pytest.mark.parametrize("lost", [b"", b" \n"])
def test_no_endpoint_takes_a_lost_body_for_an_empty_object(
    app: Application, alice: Person, lost: bytes
) -> None:
    room_id = alice.create_room(name="Kitchen")
    parts = {
        "room_id": room_id,
        "user_id": alice.user_id,
        "sender": alice.user_id,
        "event_id": alice.send(room_id),
        "event_type": "org.example.type",
        "state_key": "",
        "receipt_type": "m.read",
        "kind": "room",
        "rule_id": room_id,
        "room_alias": "#cats:localhost",
        "key_name": "displayname",
        "version": "1",
    }
    asked = with_a_body()

    with unchanged(app):
        answers = {
            (method, rule): alice.request(
                method,
                re.sub("<([^>]*)>", lambda part: quote(parts.get(part[1], "x"), safe=""), rule),
                data=lost,
                content_type="application/json",
            )
            for method, rule in asked
        }

    refused = {it: refusal(answer) for it, answer in answers.items()}
    on = {it: how for it, how in refused.items() if how[1] not in SWITCHED_OFF}
    assert len(on) > 50
    assert {it: how for it, how in on.items() if how != (400, "M_NOT_JSON")} == {}


@pytest.mark.parametrize(
    ("path", "stored"),
    [
        ("rooms/{room}/state/m.room.name", {"name": "Kitchen"}),
        ("rooms/{room}/state/m.room.power_levels", {"users": {"@alice:localhost": 100}}),
        ("user/{me}/account_data/m.direct", {"@bob:localhost": ["!room:localhost"]}),
        ("user/{me}/account_data/m.secret_storage.default_key", {"key": "abc"}),
        ("user/{me}/rooms/{room}/account_data/org.example", {"a": 1}),
    ],
)
def test_a_lost_body_empties_nothing(
    app: Application, alice: Person, path: str, stored: dict[str, object]
) -> None:
    room_id = alice.create_room(room_version="11")
    whole = path.format(room=quote(room_id), me=quote(alice.user_id))
    assert alice.put(whole, json=stored).status_code == 200

    with unchanged(app):
        answer = alice.put(whole, data=b"", content_type="application/json")

    assert refusal(answer) == (400, "M_NOT_JSON")
    assert alice.get(whole).get_json() == stored


def test_what_clients_call_without_a_body_needs_none(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    made = alice.create_room(preset="public_chat")
    room_id, event_id = quote(made), quote(alice.send(made))
    me = quote(bob.user_id)

    paths = [
        f"join/{room_id}",
        f"rooms/{room_id}/join",
        f"rooms/{room_id}/receipt/m.read/{event_id}",
        f"rooms/{room_id}/leave",
        f"rooms/{room_id}/forget",
        f"user/{me}/openid/request_token",
        "logout",
    ]
    answers = {path: bob.post(path, json=None, data=b"").status_code for path in paths}

    assert answers == dict.fromkeys(paths, 200)
