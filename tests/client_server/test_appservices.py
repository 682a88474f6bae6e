"""Application services: who they are, as whom they act, and what only they may do."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from nacl.signing import SigningKey
from werkzeug.test import TestResponse

from homebody.config import settings as config
from homebody.config.settings import ConfigError
from homebody.core.accounts import accounts
from homebody.core.appservices import files
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers import bridge
from tests.helpers.bridge import AS_TOKEN, Bridge
from tests.helpers.rooms import refusal, state_of

GHOST = "@_irc_neil:localhost"
BOT = "@_irc_bot:localhost"


class Irc(Person):
    """The bridge as it asks the server: by default as its own user, with no device."""

    def as_user(self, user_id: str, method: str, path: str, **kwargs: Any) -> TestResponse:
        query = {"user_id": user_id, **kwargs.pop("query_string", {})}
        return self.request(method, path, query_string=query, **kwargs)

    def make_ghost(self, name: str = "_irc_neil") -> TestResponse:
        body = {"type": "m.login.application_service", "username": name, "inhibit_login": True}
        return self.post("register", json=body)


@pytest.fixture
def irc_server() -> Iterator[Bridge]:
    with bridge.running() as running:
        yield running


@pytest.fixture
def irc_app(make_app: MakeApp, tmp_path: Path, irc_server: Bridge) -> Application:
    path = bridge.write(tmp_path, bridge.registration(irc_server.url))
    return make_app(appservices=f'["{path}"]')


@pytest.fixture
def client(irc_app: Application) -> Any:
    return irc_app.test_client()


@pytest.fixture
def irc(client: Any) -> Irc:
    return Irc(client, BOT, AS_TOKEN, "")


def load(tmp_path: Path, *told: Any) -> None:
    paths = [bridge.write(tmp_path, it, f"{at}.yaml") for at, it in enumerate(told)]
    settings = config.load(None, {}, {"appservices": str(paths).replace("'", '"')})
    files.load(settings)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": 5}, "Expected `str`, got `int` - at `$.id`"),
        ({"as_token": ""}, "as_token must be printable ASCII text"),
        ({"url": "ftp://irc"}, "url must begin with http:// or https://"),
        ({"sender_localpart": "a:b"}, "sender_localpart must be the localpart"),
        ({"namespaces": {"users": [{"regex": "("}]}}, "missing required field `exclusive`"),
        ({"namespaces": {"users": [{"regex": "(", "exclusive": True}]}}, "namespaces.users: '('"),
        ({"rate_limited": "no"}, "Expected `bool`"),
    ],
)
def test_a_wrong_registration_is_told_in_one_line(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, bridge.registration(None, **change))

    line = str(raised.value)
    assert line.startswith(f"appservices: {tmp_path}/0.yaml: ")
    assert told in line
    assert "\n" not in line


@pytest.mark.parametrize("key", ["id", "as_token"])
def test_two_services_may_not_share_an_id_or_a_token(tmp_path: Path, key: str) -> None:
    one = bridge.registration(None)
    other = {**bridge.registration(None), "id": "other", "as_token": "other", key: one[key]}

    with pytest.raises(ConfigError, match=f"two application services have the same {key}"):
        load(tmp_path, one, other)


def test_a_file_that_is_not_there_or_no_yaml_is_told(tmp_path: Path) -> None:
    (tmp_path / "0.yaml").write_text("{")
    for name, told in (("0.yaml", "is not valid YAML"), ("1.yaml", "cannot be read: No such file")):
        settings = config.load(None, {}, {"appservices": f'["{tmp_path / name}"]'})
        with pytest.raises(ConfigError, match=told):
            files.load(settings)


def test_a_pattern_names_all_files_of_a_folder_and_unknown_keys_are_let_through(
    tmp_path: Path,
) -> None:
    bridge.write(tmp_path, bridge.registration(None, **{"org.example.key": 1}), "a.yaml")
    other = {"id": "b", "as_token": "b", "sender_localpart": "b"}
    bridge.write(tmp_path, bridge.registration("http://x/", **other), "b.yaml")

    settings = config.load(None, {}, {"appservices": f'["{tmp_path}/*.yaml"]'})
    services = files.load(settings)

    assert [(it.id, it.url) for it in services.all] == [("irc", None), ("b", "http://x")]


def test_regular_expressions_may_have_the_classes_of_posix(tmp_path: Path) -> None:
    users = [{"regex": "@irc_[[:digit:]]+:", "exclusive": True}]
    path = bridge.write(tmp_path, bridge.registration(None, namespaces={"users": users}))
    settings = config.load(None, {}, {"appservices": f'["{path}"]'})

    services = files.load(settings)

    assert services.owner_of_user("@irc_12:localhost") is services.by_id("irc")
    assert services.owner_of_user("@irc_x:localhost") is None
    assert services.owner_of_user("@irc_12:elsewhere") is None


def test_without_user_id_a_service_acts_as_its_own_user(irc: Irc) -> None:
    answer = irc.get("account/whoami")

    assert answer.get_json() == {"user_id": BOT, "is_guest": False}


def test_it_acts_as_the_users_whom_it_has_registered(irc: Irc) -> None:
    before = irc.as_user(GHOST, "GET", "account/whoami")
    made = irc.make_ghost()
    after = irc.as_user(GHOST, "GET", "account/whoami")

    assert refusal(before) == (403, "M_FORBIDDEN")
    assert made.get_json() == {"user_id": GHOST, "home_server": "localhost"}
    assert after.get_json()["user_id"] == GHOST


def test_its_users_are_called_by_their_localparts_at_first(irc: Irc) -> None:
    irc.get("account/whoami")  # makes its own user
    irc.make_ghost()

    names = [irc.get(f"profile/{user_id}").get_json() for user_id in (BOT, GHOST)]

    assert names == [{"displayname": it[1:].partition(":")[0]} for it in (BOT, GHOST)]


def test_it_may_act_as_nobody_else(irc: Irc, login: Login) -> None:
    login("alice")

    answer = irc.as_user("@alice:localhost", "GET", "account/whoami")

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_bridges_do_not_become_administrators_and_the_first_person_does(
    irc: Irc, irc_app: Application, login: Login
) -> None:
    irc.get("account/whoami")
    irc.make_ghost()
    login("alice")

    with irc_app.homeserver.database.read() as tx:
        found = tx.sql.connection.exec_driver_sql(
            "SELECT user_id FROM accounts WHERE is_admin"
        ).scalars()
        assert list(found) == ["@alice:localhost"]


@pytest.mark.parametrize("path", ["register", "login"])
def test_to_register_and_log_in_so_needs_the_token_of_a_service(
    client: Any, login: Login, path: str
) -> None:
    body = {"type": "m.login.application_service", "username": "_irc_x", "user": "_irc_x"}
    alice = login("alice")

    url = f"/_matrix/client/v3/{path}"

    assert refusal(client.post(url, json=body)) == (401, "M_MISSING_TOKEN")
    assert refusal(alice.post(path, json=body)) == (401, "M_UNKNOWN_TOKEN")


def test_outside_of_its_namespace_it_makes_nobody_and_logs_nobody_in(
    irc: Irc, login: Login
) -> None:
    login("alice")
    body = {"type": "m.login.application_service", "user": "alice"}

    assert refusal(irc.make_ghost("bob")) == (400, "M_EXCLUSIVE")
    assert refusal(irc.post("login", json=body)) == (400, "M_EXCLUSIVE")


def test_others_do_not_get_its_names(irc: Irc, client: Any) -> None:
    body = {"username": "_irc_neil", "password": "x" * 12, "auth": {"type": "m.login.dummy"}}

    taken = client.post("/_matrix/client/v3/register", json=body)
    asked = irc.get("register/available", query_string={"username": "_irc_neil"})

    assert refusal(taken) == (400, "M_EXCLUSIVE")
    assert refusal(asked) == (400, "M_EXCLUSIVE")


def test_its_users_have_sessions_by_its_token_alone(irc: Irc, client: Any) -> None:
    irc.make_ghost()
    who = {"type": "m.id.user", "user": "_irc_neil"}
    body = {"type": "m.login.application_service", "identifier": who, "device_id": "D"}

    session = irc.post("login", json=body).get_json()
    wrong = {"type": "m.login.password", "identifier": who, "password": ""}
    refused = client.post("/_matrix/client/v3/login", json=wrong)

    assert (session["user_id"], session["device_id"]) == (GHOST, "D")
    ghost = Person(client, GHOST, session["access_token"], "D")
    assert ghost.get("account/whoami").get_json()["device_id"] == "D"
    assert refusal(refused) == (403, "M_FORBIDDEN")
    flows = client.get("/_matrix/client/v3/login").get_json()["flows"]
    assert {"type": "m.login.application_service"} in flows


def test_it_makes_names_and_removes_devices_without_a_password(irc: Irc) -> None:
    irc.make_ghost()

    made = irc.as_user(GHOST, "PUT", "devices/D1", json={"display_name": "bridge"})
    named = irc.as_user(GHOST, "PUT", "devices/D1", json={"display_name": "irc"})
    who = irc.as_user(GHOST, "GET", "account/whoami", query_string={"device_id": "D1"})
    gone = irc.as_user(GHOST, "DELETE", "devices/D1", json={})
    lost = irc.as_user(
        GHOST, "GET", "account/whoami", query_string={"org.matrix.msc3202.device_id": "D1"}
    )

    assert (made.status_code, named.status_code, gone.status_code) == (201, 200, 200)
    assert who.get_json()["device_id"] == "D1"
    assert refusal(lost) == (400, "M_UNKNOWN_DEVICE")


def test_other_people_still_need_their_password_and_make_no_devices(login: Login) -> None:
    alice = login("alice")

    assert refusal(alice.put("devices/NEW", json={})) == (404, "M_NOT_FOUND")
    assert alice.delete(f"devices/{alice.device_id}", json={}).status_code == 401


def test_a_suspended_ghost_says_nothing(irc: Irc, irc_app: Application) -> None:
    irc.make_ghost()
    room_id = irc.create_room(preset="public_chat")
    irc.as_user(GHOST, "POST", f"rooms/{quote(room_id)}/join", json={})
    with irc_app.homeserver.database.write() as tx:
        accounts.set_suspended(tx, GHOST, is_suspended=True)
    path = f"rooms/{quote(room_id)}/send/m.room.message/1"

    said = irc.as_user(GHOST, "PUT", path, json={"body": "hi"})
    uploaded = irc.as_user(GHOST, "POST", "/_matrix/media/v1/create", json={})

    assert refusal(said) == refusal(uploaded) == (403, "M_USER_SUSPENDED")


def test_a_locked_ghost_may_only_be_logged_out(irc: Irc, irc_app: Application) -> None:
    irc.make_ghost()
    irc.as_user(GHOST, "PUT", "devices/D1", json={})
    with irc_app.homeserver.database.write() as tx:
        accounts.set_locked(tx, GHOST, is_locked=True)
    on_device = {"query_string": {"device_id": "D1"}}

    asked = irc.as_user(GHOST, "GET", "account/whoami", **on_device)
    gone = irc.as_user(GHOST, "POST", "logout", **on_device)
    again = irc.as_user(GHOST, "POST", "logout", **on_device)

    assert refusal(asked) == (401, "M_USER_LOCKED")
    assert asked.get_json()["soft_logout"] is True
    assert gone.status_code == 200
    assert refusal(again) == (400, "M_UNKNOWN_DEVICE")


def test_nobody_gives_its_users_a_password(irc: Irc) -> None:
    answer = irc.post("account/password", json={"new_password": "correct horse battery"})

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_it_says_when_something_was_sent(irc: Irc) -> None:
    room_id = quote(irc.create_room())
    message, name = f"rooms/{room_id}/send/m.room.message/1", f"rooms/{room_id}/state/m.room.name"
    member = f"rooms/{room_id}/state/m.room.member/{quote(BOT)}"
    for path, ts in ((message, 1000), (name, 0), (member, 3000)):
        body = {"membership": "join", "displayname": "Bot", "name": "IRC", "body": "hi"}
        assert irc.put(path, json=body, query_string={"ts": ts}).status_code == 200

    events = irc.get(f"rooms/{room_id}/messages", query_string={"dir": "b", "limit": 3}).get_json()

    assert [event["origin_server_ts"] for event in events["chunk"]] == [3000, 0, 1000]
    for wrong in ("-1", "soon", str(2**53)):
        refused = irc.put(f"{message}{wrong}", json={"body": "x"}, query_string={"ts": wrong})
        assert refusal(refused) == (400, "M_INVALID_PARAM")


def test_people_can_not_say_so(login: Login) -> None:
    alice = login("alice")
    path = f"rooms/{quote(alice.create_room())}/send/m.room.message/1"

    event_id = alice.put(path, json={"body": "x"}, query_string={"ts": 1000}).get_json()["event_id"]

    event = alice.get(f"{path.partition('/send')[0]}/event/{event_id}").get_json()
    assert event["origin_server_ts"] > 1000


def test_its_aliases_are_its_own(irc: Irc, login: Login) -> None:
    alice = login("alice")
    of_irc, of_alice = irc.create_room(), alice.create_room()

    def put(person: Person, alias: str, room_id: str) -> TestResponse:
        return person.put(f"directory/room/{quote(alias)}", json={"room_id": room_id})

    assert refusal(put(alice, "#_irc_a:localhost", of_alice)) == (400, "M_EXCLUSIVE")
    assert refusal(put(irc, "#cats:localhost", of_irc)) == (400, "M_EXCLUSIVE")
    assert put(irc, "#_irc_a:localhost", of_irc).status_code == 200
    assert refusal(alice.delete("directory/room/%23_irc_a:localhost")) == (400, "M_EXCLUSIVE")
    assert irc.delete("directory/room/%23_irc_a:localhost").status_code == 200
    named = alice.post("createRoom", json={"room_alias_name": "_irc_b"})
    assert refusal(named) == (400, "M_EXCLUSIVE")


def rooms_sent_to(irc: Irc, irc_app: Application, user_id: str) -> list[int]:
    room_id = irc.create_room(preset="public_chat")
    irc.as_user(user_id, "POST", f"rooms/{quote(room_id)}/join", json={})
    path = f"rooms/{quote(room_id)}/send/m.room.message/"
    return [
        irc.as_user(user_id, "PUT", f"{path}{number}", json={"body": "x"}).status_code
        for number in range(6)
    ]


@pytest.mark.parametrize(("is_limited", "user_id"), [(False, GHOST), (True, BOT), (True, GHOST)])
def test_only_its_users_are_held_to_rate_limits_and_only_if_so_registered(
    make_app: MakeApp, tmp_path: Path, is_limited: bool, user_id: str
) -> None:
    path = bridge.write(tmp_path, bridge.registration(None, rate_limited=is_limited))
    app = make_app(
        appservices=f'["{path}"]',
        rate_limits="true",
        **{"rc_message.burst_count": "3", "rc_message.per_second": "0.01"},
    )
    irc = Irc(app.test_client(), BOT, AS_TOKEN, "")
    irc.make_ghost()

    statuses = rooms_sent_to(irc, app, user_id)

    expected = [200] * 3 + [429] * 3 if (is_limited, user_id) == (True, GHOST) else [200] * 6
    assert statuses == expected


def test_a_bridge_registers_all_its_users_at_once(make_app: MakeApp, tmp_path: Path) -> None:
    path = bridge.write(tmp_path, bridge.registration(None, rate_limited=True))
    tight = {"rc_writes.burst_count": "3", "rc_writes.per_second": "0.01"}
    app = make_app(appservices=f'["{path}"]', rate_limits="true", **tight)
    irc = Irc(app.test_client(), BOT, AS_TOKEN, "")

    statuses = [irc.make_ghost(f"_irc_{number}").status_code for number in range(6)]

    assert statuses == [200] * 6


def test_its_users_get_no_notifications(
    irc: Irc, irc_app: Application, login: Login, room: Callable[..., str]
) -> None:
    alice, bob = login("alice"), login("bob")
    irc.make_ghost()
    room_id = room(alice, bob)
    irc.as_user(GHOST, "POST", f"rooms/{quote(room_id)}/join", json={})

    alice.send(room_id)

    with irc_app.homeserver.database.read() as tx:
        found = tx.sql.connection.exec_driver_sql(
            "SELECT DISTINCT user_id FROM notifications"
        ).scalars()
        assert list(found) == [bob.user_id]
    assert ("m.room.member", GHOST) in state_of(alice, room_id)


def test_it_replaces_cross_signing_keys_without_a_password(irc: Irc) -> None:
    irc.make_ghost()
    answers = [
        irc.as_user(GHOST, "POST", "keys/device_signing/upload", json={"master_key": key})
        for key in (_master_key(b"1"), _master_key(b"2"))
    ]

    assert [answer.status_code for answer in answers] == [200, 200]


def _master_key(seed: bytes) -> dict[str, Any]:
    public = base64.b64encode(SigningKey(seed * 32).verify_key.encode()).decode().rstrip("=")
    return {"user_id": GHOST, "usage": ["master"], "keys": {f"ed25519:{public}": public}}


def test_its_namespaces_have_no_users_of_other_servers(irc: Irc) -> None:
    answer = irc.as_user("@_irc_neil:elsewhere", "GET", "account/whoami")

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_its_users_schedule_events_and_choose_their_time(irc_app: Application, irc: Irc) -> None:
    irc.make_ghost()
    room_id = irc.as_user(GHOST, "POST", "createRoom", json={}).get_json()["room_id"]
    body = {"delay_ms": 1, "content": {"body": "late"}}
    path = f"rooms/{quote(room_id)}/delayed_event/m.room.message/t1"
    chosen = {"ts": 1_500_000_000_000}
    scheduled = irc.as_user(GHOST, "PUT", path, query_string=chosen, json=body)
    time.sleep(0.01)

    irc_app.homeserver.delayed_events.send_due()

    delay_id = scheduled.get_json()["delay_id"]
    found = irc.as_user(GHOST, "GET", f"/_matrix/client/v1/delayed_events/{delay_id}").get_json()
    path = f"rooms/{room_id}/event/{quote(found['event_id'])}"
    event = irc.as_user(GHOST, "GET", path).get_json()
    assert event["sender"] == GHOST
    assert event["origin_server_ts"] == 1_500_000_000_000
    assert event["unsigned"]["delay_id"] == delay_id
    assert found["finalised_ts"] > 1_600_000_000_000
