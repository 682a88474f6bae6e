from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.events import state
from homebody.core.federation import asking, sent_invites
from homebody.spec import signing
from homebody.spec.room_versions import VERSIONS
from homebody.spec.signing import SigningKey
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers import remote_answers
from tests.helpers.remote import Remote, Remotes
from tests.helpers.rooms import membership, refusal, unchanged
from tests.helpers.scripted_server import Response
from tests.helpers.waiting import wait_for

Json = dict[str, Any]
CAROL, DAVE = "@carol:b.test", "@dave:c.test"


@pytest.fixture
def b(remote: Remotes) -> Remote:
    """The server of the invited user."""
    return remote("b.test")


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def invite(person: Person, room_id: str, user_id: str = CAROL, **content: Any) -> Any:
    path = f"rooms/{quote(room_id)}/invite"
    return person.post(path, json={"user_id": user_id, **content})


@pytest.mark.parametrize("version", VERSIONS)
def test_a_user_of_another_server_is_invited_and_joins(
    b: Remote, alice: Person, version: str
) -> None:
    room_id = alice.create_room(name="The room", room_version=version)

    assert invite(alice, room_id, reason="tea").status_code == 200

    assert membership(alice, room_id, CAROL) == {"membership": "invite", "reason": "tea"}
    (got,) = b.invites
    assert got["room_version"] == version
    shown = {it["type"]: it for it in got["invite_room_state"]}
    assert shown["m.room.name"]["content"] == {"name": "The room"}
    assert {"m.room.create", "m.room.member", "m.room.join_rules"} <= shown.keys()
    assert all(it["signatures"] for it in shown.values())
    b.join(room_id, "carol")
    assert membership(alice, room_id, CAROL)["membership"] == "join"


def test_the_invite_that_is_sent_on_has_both_signatures(
    b: Remote, remote: Remotes, app: Application, alice: Person
) -> None:
    c = remote("c.test")
    room_id = alice.create_room(preset="public_chat")
    there = c.join(room_id, "dave")
    app.homeserver.sender.start()

    invite(alice, room_id)

    c.wait_until(lambda: there.membership(CAROL) == "invite")
    pdu = there.state["m.room.member", CAROL].pdu
    assert pdu["signatures"].keys() == {"b.test", "localhost"}
    app.homeserver.sender.stop()


@pytest.mark.parametrize("version", ["1", "2"])
def test_older_servers_are_invited_by_the_older_api(b: Remote, alice: Person, version: str) -> None:
    b.fail("/v2/invite/", 404, errcode="M_UNRECOGNIZED")
    room_id = alice.create_room(room_version=version)

    assert invite(alice, room_id).status_code == 200
    assert membership(alice, room_id, CAROL)["membership"] == "invite"


ERRORS = {
    "blocked": (403, "M_INVITE_BLOCKED", 403, "M_INVITE_BLOCKED"),
    "forbidden": (403, "M_FORBIDDEN", 403, "M_FORBIDDEN"),
    "version": (400, "M_INCOMPATIBLE_ROOM_VERSION", 400, "M_INCOMPATIBLE_ROOM_VERSION"),
    "our fault": (400, "M_INVALID_PARAM", 502, "M_UNKNOWN"),
    "broken": (500, "M_UNKNOWN", 502, "M_UNKNOWN"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_refused_invite_is_not_stored(
    b: Remote, app: Application, alice: Person, error: tuple[int, str, int, str]
) -> None:
    status, errcode, *expected = error
    room_id = alice.create_room()
    b.fail("/invite/", status, errcode=errcode)

    with unchanged(app):
        answer = invite(alice, room_id)

    assert refusal(answer) == tuple(expected)


def unsigned(answer: Json) -> None:
    del answer["event"]["signatures"]["b.test"]


def wrongly_signed(answer: Json) -> None:
    event = answer["event"]
    event["signatures"]["b.test"] = dict.fromkeys(event["signatures"]["b.test"], "A" * 86)


def signed_by_another_key(answer: Json) -> None:
    key = SigningKey.from_seed("other", b"o" * 32)
    event = answer["event"]
    del event["signatures"]["b.test"]
    answer["event"] = signing.sign_event(event, VERSIONS["12"], "b.test", key)


def no_event(answer: Json) -> None:
    del answer["event"]


LIES = [unsigned, wrongly_signed, signed_by_another_key, no_event]


@pytest.mark.parametrize("lie", LIES)
def test_an_invite_needs_the_signature_of_the_other_server(
    b: Remote, app: Application, alice: Person, lie: Callable[[Json], None]
) -> None:
    room_id = alice.create_room(room_version="12")
    b.get("v1", "make_leave", room_id, CAROL)  # so that its keys are known

    def respond(request: Any) -> Response:
        answer = remote_answers.invite(b, request)
        lie(answer)
        return Response(200, answer)

    b.answer("/invite/", respond)
    with unchanged(app):
        answer = invite(alice, room_id)

    assert refusal(answer) == (502, "M_UNKNOWN")


def test_the_other_server_adds_nothing_but_its_signature(b: Remote, alice: Person) -> None:
    room_id = alice.create_room(room_version="12")

    def respond(request: Any) -> Response:
        answer = remote_answers.invite(b, request)
        answer["event"]["content"]["reason"] = "another"
        return Response(200, answer)

    b.answer("/invite/", respond)

    assert invite(alice, room_id).status_code == 200
    assert membership(alice, room_id, CAROL) == {"membership": "invite"}


def test_users_without_the_power_do_not_invite_and_nobody_is_asked(
    b: Remote, alice: Person, login: Login
) -> None:
    bob = login("bob")
    room_id = alice.create_room(preset="public_chat")
    bob.post(f"join/{quote(room_id)}")

    assert refusal(invite(bob, room_id)) == (403, "M_FORBIDDEN")
    local_only = alice.create_room(creation_content={"m.federate": False})
    assert refusal(invite(alice, local_only)) == (403, "M_FORBIDDEN")
    assert not b.invites


def test_a_user_is_invited_by_a_state_event(b: Remote, alice: Person) -> None:
    room_id = alice.create_room()
    path = f"rooms/{quote(room_id)}/state/m.room.member/{quote(CAROL)}"

    answer = alice.put(path, json={"membership": "invite", "is_direct": True})

    assert answer.get_json()["event_id"].startswith("$")
    assert membership(alice, room_id, CAROL) == {"membership": "invite", "is_direct": True}


def test_users_of_other_servers_are_invited_to_a_new_room(
    b: Remote, remote: Remotes, alice: Person
) -> None:
    c, dave = remote("c.test"), "@dave:c.test"
    c.fail("/invite/", 403, errcode="M_FORBIDDEN")

    room_id = alice.create_room(
        preset="trusted_private_chat", room_version="11", invite=[dave, CAROL], is_direct=True
    )

    assert membership(alice, room_id, CAROL) == {"membership": "invite", "is_direct": True}
    path = f"rooms/{quote(room_id)}/state/m.room.power_levels"
    assert alice.get(path).get_json()["users"][CAROL] == 100
    assert alice.get(f"rooms/{quote(room_id)}/state/m.room.member/{dave}").status_code == 404


def test_a_server_that_does_not_respond_delays_no_invite_to_a_new_room(
    b: Remote, remote: Remotes, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sent_invites, "WITHIN_S", 0.5)
    remote("c.test")
    answered = threading.Event()

    def respond(request: Any) -> Response:
        answered.wait(10)
        return Response(200, remote_answers.invite(b, request))

    b.answer("/invite/", respond)
    room_id = alice.create_room(invite=[CAROL, DAVE])

    assert membership(alice, room_id, DAVE) == {"membership": "invite"}
    path = f"rooms/{quote(room_id)}/state/m.room.member/{CAROL}"
    assert alice.get(path).status_code == 404
    answered.set()
    wait_for(lambda: alice.get(path).get_json() == {"membership": "invite"}, "the invite")


def test_a_server_that_does_not_respond_is_asked_once_for_a_new_room(
    b: Remote, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SECONDS", 0.2)
    b.hang("/invite/")

    room_id = alice.create_room(invite=[f"@user{number}:b.test" for number in range(5)])

    assert len(b.received("/v2/invite/")) == 1
    assert alice.send(room_id)


def test_a_server_that_refuses_a_user_is_asked_for_the_others(b: Remote, alice: Person) -> None:
    b.fail("/invite/", 403, times=1, errcode="M_INVITE_BLOCKED")

    room_id = alice.create_room(invite=["@blocks:b.test", CAROL])

    assert membership(alice, room_id, CAROL) == {"membership": "invite"}


def test_many_users_of_several_servers_are_invited_to_a_new_room(
    b: Remote, remote: Remotes, app: Application, alice: Person
) -> None:
    servers = [b, remote("c.test"), remote("d.test")]
    invited = [f"@user{number}:{it.name}" for number in range(8) for it in servers]

    room_id = alice.create_room(invite=invited)

    for server in servers:
        at_server = [it["event"]["state_key"] for it in server.invites]
        assert at_server == [it for it in invited if it.endswith(server.name)]
    assert [membership(alice, room_id, it)["membership"] for it in invited] == ["invite"] * 24
    with app.homeserver.database.read() as tx:
        assert len(state.head(tx, room_id).forward_extremities) <= len(servers)


def test_an_invite_after_which_the_room_has_changed_follows_both(b: Remote, alice: Person) -> None:
    room_id = alice.create_room(room_version="11")

    def respond(request: Any) -> Response:
        alice.send(room_id, "meanwhile")
        return Response(200, remote_answers.invite(b, request))

    b.answer("/invite/", respond)

    assert invite(alice, room_id).status_code == 200
    assert membership(alice, room_id, CAROL)["membership"] == "invite"
    assert alice.send(room_id, "after")


def test_an_invite_that_is_forbidden_meanwhile_is_not_stored(
    b: Remote, alice: Person, login: Login
) -> None:
    bob = login("bob")
    room_id = alice.create_room(room_version="11", invite=[bob.user_id])
    bob.post(f"join/{quote(room_id)}")

    def respond(request: Any) -> Response:
        alice.post(f"rooms/{quote(room_id)}/kick", json={"user_id": bob.user_id})
        return Response(200, remote_answers.invite(b, request))

    b.answer("/invite/", respond)

    assert refusal(invite(bob, room_id)) == (403, "M_FORBIDDEN")
    path = f"rooms/{quote(room_id)}/state/m.room.member/{CAROL}"
    assert alice.get(path).status_code == 404
