"""E-mail addresses of accounts: added, removed, used to register and to log in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.helpers import mail_server
from tests.helpers.mail_server import Mailbox
from tests.helpers.rooms import refusal

PROOF = {"type": "m.login.password", "user": "alice", "password": PASSWORD}
SECRET = "monkeys_are.GREAT"
ADD = "account/3pid/email/requestToken"
REGISTER = "register/email/requestToken"


@pytest.fixture(scope="module")
def mailbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailbox]:
    with mail_server.running(tmp_path_factory.mktemp("mail")) as running:
        yield running


@pytest.fixture
def app(make_app: MakeApp, mailbox: Mailbox) -> Application:
    mailbox.empty()
    return make_app(**mailbox.settings)


def ask(client: FlaskClient, path: str, email: str, attempt: int = 1, **more: Any) -> TestResponse:
    body = {"client_secret": SECRET, "email": email, "send_attempt": attempt, **more}
    return client.post(V3 + path, json=body)


def press_the_button(client: FlaskClient, link: str) -> TestResponse:
    """Open the link in a mail, and confirm."""
    path, _, query = link.partition("?")
    form = dict(pair.split("=", 1) for pair in query.split("&"))
    return client.post(path, data=form)


def validated(client: FlaskClient, mailbox: Mailbox, path: str, email: str) -> dict[str, str]:
    """The credentials of a session whose link was opened."""
    answer = ask(client, path, email)
    assert answer.status_code == 200, answer.get_json()
    assert press_the_button(client, mailbox.link(email)).status_code == 200
    return {"sid": answer.get_json()["sid"], "client_secret": SECRET}


def add(person: Person, mailbox: Mailbox, email: str) -> None:
    """Make the address one of the person's."""
    credentials = validated(person.client, mailbox, ADD, email)
    answer = person.post("account/3pid/add", json={**credentials, "auth": PROOF})
    assert answer.status_code == 200, answer.get_json()


def addresses(person: Person) -> list[str]:
    return [it["address"] for it in person.get("account/3pid").get_json()["threepids"]]


def test_an_address_is_added_once_its_link_was_opened(login: Login, mailbox: Mailbox) -> None:
    alice = login("alice")
    credentials = validated(alice.client, mailbox, ADD, "alice@example.org")

    asked = alice.post("account/3pid/add", json=credentials)
    answer = alice.post("account/3pid/add", json={**credentials, "auth": PROOF})

    assert asked.get_json()["flows"] == [{"stages": ["m.login.password"]}]
    assert (answer.status_code, answer.get_json()) == (200, {})
    (found,) = alice.get("account/3pid").get_json()["threepids"]
    assert (found["medium"], found["address"]) == ("email", "alice@example.org")
    assert 0 < found["validated_at"] <= found["added_at"]


def test_an_address_whose_link_was_not_opened_is_nobodys(login: Login) -> None:
    alice = login("alice")
    sid = ask(alice.client, ADD, "alice@example.org").get_json()["sid"]

    answer = alice.post(
        "account/3pid/add", json={"sid": sid, "client_secret": SECRET, "auth": PROOF}
    )

    assert refusal(answer) == (403, "M_THREEPID_AUTH_FAILED")
    assert addresses(alice) == []


def test_a_guest_learns_no_more_than_a_stranger_which_addresses_are_taken(
    login: Login, mailbox: Mailbox
) -> None:
    alice = login("alice")
    add(alice, mailbox, "alice@example.org")
    session = alice.client.post(f"{V3}register?kind=guest", json={}).get_json()
    guest = Person(alice.client, session["user_id"], session["access_token"], session["device_id"])
    body = {"client_secret": SECRET, "send_attempt": 2}

    answers = [
        guest.post(path, json={**body, "email": email})
        for path, email in (
            (ADD, "alice@example.org"),
            ("account/password/email/requestToken", "carol@example.org"),
        )
    ]

    assert [(it.status_code, list(it.get_json())) for it in answers] == [(200, ["sid"])] * 2


@pytest.mark.parametrize("wrong", [{"sid": "1"}, {"client_secret": "x"}])
def test_a_session_is_of_use_only_to_who_began_it(
    login: Login, mailbox: Mailbox, wrong: dict[str, str]
) -> None:
    alice = login("alice")
    credentials = validated(alice.client, mailbox, ADD, "alice@example.org")

    answer = alice.post("account/3pid/add", json={**credentials, **wrong, "auth": PROOF})

    assert refusal(answer) == (403, "M_THREEPID_AUTH_FAILED")


def test_a_mail_for_one_purpose_serves_no_other(login: Login, mailbox: Mailbox) -> None:
    alice = login("alice")
    credentials = validated(alice.client, mailbox, REGISTER, "alice@example.org")

    answer = alice.post("account/3pid/add", json={**credentials, "auth": PROOF})

    assert refusal(answer) == (403, "M_THREEPID_AUTH_FAILED")


def test_the_request_of_r0_adds_an_address_too(login: Login, mailbox: Mailbox) -> None:
    alice = login("alice")
    credentials = validated(alice.client, mailbox, ADD, "alice@example.org")

    wish = {"three_pid_creds": credentials, "bind": False}
    without_password = alice.post("account/3pid", json=wish)
    answer = alice.post("account/3pid", json={**wish, "auth": PROOF})

    assert (without_password.status_code, answer.status_code) == (401, 200)
    assert addresses(alice) == ["alice@example.org"]


def test_a_session_is_used_up_by_its_use(login: Login, mailbox: Mailbox) -> None:
    alice = login("alice")
    credentials = validated(alice.client, mailbox, ADD, "alice@example.org")
    alice.post("account/3pid", json={"three_pid_creds": credentials, "auth": PROOF})
    alice.post("account/3pid/delete", json={"medium": "email", "address": "alice@example.org"})

    again = alice.post("account/3pid", json={"three_pid_creds": credentials, "auth": PROOF})

    assert refusal(again) == (403, "M_THREEPID_AUTH_FAILED")
    assert addresses(alice) == []


def test_an_address_belongs_to_one_account(login: Login, mailbox: Mailbox) -> None:
    alice, bob = login("alice"), login("bob")
    bobs = validated(bob.client, mailbox, ADD, "family@example.org")
    ask(alice.client, ADD, "Family@Example.org", client_secret="another")
    press_the_button(alice.client, mailbox.link("family@example.org"))
    sid = ask(alice.client, ADD, "family@example.org", client_secret="another").get_json()["sid"]
    alices = {"sid": sid, "client_secret": "another"}
    alice.post("account/3pid/add", json={**alices, "auth": PROOF})

    answer = bob.post("account/3pid/add", json={**bobs, "auth": {**PROOF, "user": "bob"}})

    assert refusal(answer) == (400, "M_THREEPID_IN_USE")
    assert (addresses(alice), addresses(bob)) == (["family@example.org"], [])


def test_who_is_logged_in_is_told_that_an_address_is_taken(login: Login, mailbox: Mailbox) -> None:
    alice, bob = login("alice"), login("bob")
    add(alice, mailbox, "alice@example.org")
    body = {"client_secret": "x", "email": "alice@example.org", "send_attempt": 1}

    added = bob.post(ADD, json=body)
    forgotten = bob.post("account/password/email/requestToken", json={**body, "email": "b@c.d"})

    assert refusal(added) == (400, "M_THREEPID_IN_USE")
    assert refusal(forgotten) == (400, "M_THREEPID_NOT_FOUND")


def test_a_removed_address_is_free_again(login: Login, mailbox: Mailbox) -> None:
    alice = login("alice")
    add(alice, mailbox, "alice@example.org")

    wish = {"medium": "email", "address": "Alice@example.org"}
    answer = alice.post("account/3pid/delete", json=wish)
    again = alice.post("account/3pid/delete", json=wish)

    assert answer.get_json() == {"id_server_unbind_result": "no-support"}
    assert refusal(again) == (400, "M_THREEPID_NOT_FOUND")
    assert addresses(alice) == []


def test_nobody_removes_the_address_of_somebody_else(login: Login, mailbox: Mailbox) -> None:
    alice = login("alice")
    add(alice, mailbox, "alice@example.org")

    answer = login("mallory").post(
        "account/3pid/delete", json={"medium": "email", "address": "alice@example.org"}
    )

    assert refusal(answer) == (400, "M_THREEPID_NOT_FOUND")
    assert addresses(alice) == ["alice@example.org"]


def test_a_closed_account_gives_its_addresses_back(login: Login, mailbox: Mailbox) -> None:
    alice = login("alice")
    add(alice, mailbox, "alice@example.org")

    alice.post("account/deactivate", json={"auth": PROOF})

    ask(alice.client, REGISTER, "alice@example.org")
    assert "confirm" in mailbox.newest("alice@example.org")["Subject"].lower()


def test_no_identity_server_is_told_of_anything(login: Login) -> None:
    alice = login("alice")
    who = {"client_secret": "s", "sid": "1", "id_server": "id.example.org", "id_access_token": "x"}

    bound = alice.post("account/3pid/bind", json=who)
    unbound = alice.post("account/3pid/unbind", json={"medium": "email", "address": "a@b.c"})

    assert refusal(bound) == (400, "M_SERVER_NOT_TRUSTED")
    assert unbound.get_json() == {"id_server_unbind_result": "no-support"}


def test_who_registers_may_give_an_address(client: FlaskClient, mailbox: Mailbox) -> None:
    credentials = validated(client, mailbox, REGISTER, "carol@example.org")
    wish = {"username": "carol", "password": PASSWORD}
    flows = client.post(V3 + "register", json=wish).get_json()
    first = {"type": "m.login.email.identity", "threepid_creds": credentials}

    half = client.post(
        V3 + "register", json={**wish, "auth": {**first, "session": flows["session"]}}
    )
    last = {"type": "m.login.dummy", "session": flows["session"]}
    answer = client.post(V3 + "register", json={**wish, "auth": last}).get_json()

    assert {"stages": ["m.login.dummy"]} in flows["flows"]
    assert {"stages": ["m.login.email.identity", "m.login.dummy"]} in flows["flows"]
    assert half.get_json()["completed"] == ["m.login.email.identity"]
    carol = Person(client, answer["user_id"], answer["access_token"], answer["device_id"])
    assert addresses(carol) == ["carol@example.org"]


def test_the_stage_waits_for_the_link(client: FlaskClient, mailbox: Mailbox) -> None:
    sid = ask(client, REGISTER, "carol@example.org").get_json()["sid"]
    credentials = {"sid": sid, "client_secret": SECRET}
    auth = {"type": "m.login.email.identity", "threepid_creds": credentials}
    body = {"username": "carol", "password": PASSWORD, "auth": auth}

    early = client.post(V3 + "register", json=body)
    press_the_button(client, mailbox.link("carol@example.org"))
    auth["session"] = early.get_json()["session"]
    late = client.post(V3 + "register", json=body)

    assert refusal(early) == (401, "M_THREEPID_AUTH_FAILED")
    assert late.get_json()["completed"] == ["m.login.email.identity"]


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        (None, (400, "M_MISSING_PARAM")),
        ({"sid": 1, "client_secret": "x"}, (400, "M_BAD_JSON")),
        ({"sid": "1"}, (400, "M_BAD_JSON")),
    ],
)
def test_credentials_of_a_wrong_shape_are_refused(
    client: FlaskClient, credentials: Any, expected: tuple[int, str]
) -> None:
    auth = {"type": "m.login.email.identity", "threepid_creds": credentials}

    answer = client.post(V3 + "register", json={"username": "carol", "auth": auth})

    assert refusal(answer) == expected


def identifiers(address: str) -> list[dict[str, Any]]:
    third = {"medium": "email", "address": address}
    return [
        {"identifier": {"type": "m.id.thirdparty", **third}},
        {"identifier": third},
        third,
    ]


@pytest.mark.parametrize("form", [0, 1, 2])
def test_an_address_is_as_good_as_a_user_name(login: Login, mailbox: Mailbox, form: int) -> None:
    alice = login("alice")
    add(alice, mailbox, "alice@example.org")
    who = identifiers("Alice@Example.org")[form]
    body = {"type": "m.login.password", "password": PASSWORD, **who}

    answer = alice.client.post(V3 + "login", json=body)
    proved = alice.post("delete_devices", json={"devices": [], "auth": body})

    assert answer.get_json()["user_id"] == "@alice:localhost"
    assert proved.status_code == 200


def test_an_unknown_address_gets_the_answer_of_a_wrong_password(
    login: Login, mailbox: Mailbox
) -> None:
    alice = login("alice")
    add(alice, mailbox, "alice@example.org")

    answers = [
        alice.client.post(
            V3 + "login",
            json={"type": "m.login.password", "password": "guess", **identifiers(address)[0]},
        )
        for address in ("alice@example.org", "nobody@example.org", "not an address")
    ]

    assert {refusal(answer) for answer in answers} == {(403, "M_FORBIDDEN")}
    assert len({answer.get_data() for answer in answers}) == 1


def test_the_capability_follows_the_settings(login: Login, make_app: MakeApp) -> None:
    def is_enabled(person: Person) -> bool:
        capabilities = person.get("capabilities").get_json()["capabilities"]
        return bool(capabilities["m.3pid_changes"]["enabled"])

    alice = login("alice")
    elsewhere = Person(make_app().test_client(), alice.user_id, alice.access_token, alice.device_id)

    assert is_enabled(alice)
    assert not is_enabled(elsewhere)


def test_telephones_are_refused_by_their_names(client: FlaskClient) -> None:
    body = {"client_secret": "x", "country": "DE", "phone_number": "1", "send_attempt": 1}

    paths = ("register", "account/3pid", "account/password")
    answers = [client.post(f"{V3}{path}/msisdn/requestToken", json=body) for path in paths]

    assert [refusal(answer) for answer in answers] == [
        (403, "M_THREEPID_DENIED"),
        (403, "M_THREEPID_DENIED"),
        (400, "M_THREEPID_NOT_FOUND"),
    ]
