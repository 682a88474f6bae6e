"""A request that waits for news ends at once when its session does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import TestResponse

from homebody.client_server import sync as sync_views
from homebody.client_server.authentication import authenticated
from homebody.errors import MatrixError
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, Person
from tests.helpers.rooms import refusal

PROOF = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
TIMEOUT_MS = 20_000
End = Callable[[Person, Person], Any]


def sync(person: Person) -> Callable[[], TestResponse]:
    since = person.sync(person.sync()["next_batch"])["next_batch"]
    query = {"since": since, "timeout": TIMEOUT_MS}
    return lambda: person.get("sync", query_string=query)


def sliding_sync(person: Person) -> Callable[[], TestResponse]:
    pos = person.post(SLIDING, json={}).get_json()["pos"]
    query = {"pos": pos, "timeout": TIMEOUT_MS}
    return lambda: person.post(SLIDING, query_string=query, json={})


def events(person: Person) -> Callable[[], TestResponse]:
    query = {"timeout": TIMEOUT_MS}
    return lambda: person.get("events", query_string=query)


ENDS: dict[str, End] = {
    "logout": lambda phone, _: phone.post("logout"),
    "logout everywhere": lambda _, laptop: laptop.post("logout/all"),
    "removal of the device": lambda phone, laptop: laptop.delete(
        f"devices/{phone.device_id}", json={"auth": PROOF}
    ),
    "removal of devices": lambda phone, laptop: laptop.post(
        "delete_devices", json={"devices": [phone.device_id], "auth": PROOF}
    ),
    "another password": lambda _, laptop: laptop.post(
        "account/password", json={"new_password": "another one", "auth": PROOF}
    ),
    "deactivation": lambda _, laptop: laptop.post("account/deactivate", json={"auth": PROOF}),
    "a login of the same device": lambda phone, _: phone.client.post(
        V3 + "login", json={**PROOF, "device_id": phone.device_id}
    ),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("begin", [sync, sliding_sync, events])
def test_what_ends_a_session_ends_its_waiting_request(
    login: Login, begin: Callable[[Person], Callable[[], TestResponse]], end: End
) -> None:
    phone, laptop = login("alice"), login("alice")
    ask = begin(phone)
    answers: list[TestResponse] = []
    thread = threading.Thread(target=lambda: answers.append(ask()))
    thread.start()
    time.sleep(0.2)

    assert end(phone, laptop).status_code == 200
    began = time.monotonic()
    thread.join(TIMEOUT_MS / 1000)

    assert time.monotonic() - began < TIMEOUT_MS / 2000
    assert refusal(answers[0]) == (401, "M_UNKNOWN_TOKEN")


def test_a_session_that_ends_just_before_the_wait_is_not_waited_for(
    app: Application, login: Login
) -> None:
    alice = login("alice")
    headers = {"Authorization": f"Bearer {alice.access_token}"}
    looks: list[None] = []

    @authenticated()
    def view() -> None:
        alice.post("logout")
        sync_views.wait_for(alice.user_id, TIMEOUT_MS, lambda: looks.append(None), bool)

    with app.test_request_context("/", headers=headers), pytest.raises(MatrixError) as refused:
        began = time.monotonic()
        view()

    assert (refused.value.status, refused.value.errcode) == (401, "M_UNKNOWN_TOKEN")
    assert time.monotonic() - began < TIMEOUT_MS / 2000
