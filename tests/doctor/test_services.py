"""Mail servers, TURN servers and push gateways on loopback."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from homebody.config import settings
from homebody.core.push import pushers
from homebody.core.push.pushers import PusherRequest
from homebody.doctor import clients, services
from homebody.doctor.examination import Examination, Options
from homebody.doctor.findings import Finding
from homebody.web import Application
from tests.conftest import Login
from tests.helpers import coturn, mail_server, openid_provider, server
from tests.helpers.scripted_server import Response, ScriptedServer

Examine = Callable[..., Examination]
SECRET = "a secret of the TURN server"


@pytest.fixture
def examine(tmp_path: Path) -> Examine:
    def make(**given: str) -> Examination:
        named = {"data_dir": str(tmp_path), "server_name": "example.org", **given}
        config = settings.load(None, {}, {key.replace("__", "."): it for key, it in named.items()})
        return Examination(config, Options(environ={}))

    return make


def only(found: Iterator[Finding]) -> Finding:
    (finding,) = found
    return finding


def test_a_mail_server_that_answers_is_in_order(examine: Examine, tmp_path: Path) -> None:
    with mail_server.running(tmp_path) as mailbox:
        found = only(services.smtp(examine(**mailbox.settings)))

        assert (found.id, found.severity) == ("smtp", "ok")
        assert mailbox.messages() == [], "no mail is sent to find out"


def test_a_mail_server_without_tls_or_that_is_away_is_broken(
    examine: Examine, tmp_path: Path
) -> None:
    with mail_server.running(tmp_path) as mailbox:
        plain = only(services.smtp(examine(**{**mailbox.settings, "smtp.tls": "starttls"})))
        nowhere = {**mailbox.settings, "smtp.port": str(server.free_port())}
        away = only(services.smtp(examine(**nowhere)))

    assert (plain.id, plain.severity) == ("smtp", "broken")
    assert "STARTTLS" in plain.seen
    assert (away.id, away.severity) == ("smtp", "broken")
    assert "refused" in away.seen


def test_what_is_not_set_is_skipped(examine: Examine) -> None:
    ex = examine()

    found = [only(services.smtp(ex)), only(services.turn(ex)), only(services.push_gateways(ex))]
    found.append(only(services.login_providers(ex)))

    assert {it.severity for it in found} == {"skipped"}


def test_a_login_provider_has_to_answer_and_to_be_the_one_that_is_meant(examine: Examine) -> None:
    with openid_provider.running() as provider:
        ex = examine(oidc_providers=provider.settings())
        good = only(services.login_providers(ex))
        provider.metadata = {"issuer": f"{provider.issuer}/"}
        another = only(services.login_providers(ex))
        provider.metadata, provider.keys = {}, []
        without_keys = only(services.login_providers(ex))
    away = only(services.login_providers(ex))

    found = [good, another, without_keys, away]
    assert [it.severity for it in found] == ["ok", "broken", "broken", "broken"]
    assert "another issuer" in another.seen


@pytest.mark.clients
def test_a_turn_server_relays_with_our_secret_and_not_with_another(
    examine: Examine, tmp_path: Path
) -> None:
    assert shutil.which("turnserver")
    port = server.free_port()
    uris = f'["turn:127.0.0.1:{port}?transport=udp", "turn:127.0.0.1:{port}?transport=tcp"]'

    with coturn.running(tmp_path, port, SECRET):
        good = list(services.turn(examine(turn_uris=uris, turn_shared_secret=SECRET)))
        wrong = list(services.turn(examine(turn_uris=uris, turn_shared_secret="another")))
        unset = list(services.turn(examine(turn_uris=uris)))

    assert [it.severity for it in good] == ["ok", "ok"], good
    assert all("relays with our credentials" in it.seen for it in good)
    assert [it.severity for it in wrong] == ["broken", "broken"], wrong
    assert all("turn_shared_secret" in it.seen for it in [*wrong, *unset])


def test_a_turn_server_that_is_away_or_another_service_is_broken(examine: Examine) -> None:
    port = server.free_port()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(b"220 mail.example.org ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        other = f"turn:127.0.0.1:{listener.getsockname()[1]}?transport=tcp"
        uris = f'["turn:127.0.0.1:{port}?transport=tcp", "turn:127.0.0.1:{port}", "{other}"]'
        found = list(services.turn(examine(turn_uris=uris, turn_shared_secret=SECRET)))
        thread.join()

    assert [it.severity for it in found] == ["broken"] * 3
    assert "refused" in found[0].seen
    assert "not a TURN server" in found[2].seen


def test_push_gateways_are_tried_without_sending_anything(
    app: Application, login: Login, examine: Examine
) -> None:
    alice, data_dir = login("alice"), str(app.homeserver.server.config.data_dir)
    good = ScriptedServer(lambda _: Response(405, {"errcode": "M_UNRECOGNIZED"}), None)
    ports = (good.port, good.port, server.free_port())
    urls = [f"http://127.0.0.1:{port}/_matrix/push/v1/notify" for port in ports]
    with app.homeserver.database.write() as tx:
        for place, url in enumerate(urls):
            wanted = PusherRequest("org.example", f"key{place}", "App", "Phone", "en", {"url": url})
            pushers.put(tx, alice.user_id, alice.device_id, wanted, append=True)

    ex = examine(data_dir=data_dir, server_name="localhost", outside_allowed="127.0.0.1")
    found = list(services.push_gateways(ex))
    good.close()

    assert [(it.id, it.severity) for it in found] == [
        ("push-gateway", "ok"),
        ("clock", "ok"),
        ("push-gateway", "warning"),
    ], found
    assert [(it.method, it.body) for it in good.requests] == [("GET", b"")]


def test_a_private_push_gateway_is_not_called(
    app: Application, login: Login, examine: Examine
) -> None:
    alice, data_dir = login("alice"), str(app.homeserver.server.config.data_dir)
    inner = ScriptedServer(lambda _: Response(200, {}), None)
    url = f"http://127.0.0.1:{inner.port}/_matrix/push/v1/notify"
    with app.homeserver.database.write() as tx:
        wanted = PusherRequest("org.example", "key", "App", "Phone", "en", {"url": url})
        pushers.put(tx, alice.user_id, alice.device_id, wanted, append=True)

    found = only(services.push_gateways(examine(data_dir=data_dir, server_name="localhost")))
    inner.close()

    assert (found.id, found.severity) == ("push-gateway", "warning")
    assert "private address" in found.seen
    assert inner.requests == []


@pytest.mark.parametrize(
    ("seconds", "severity", "seen"),
    [
        (5, "ok", "within"),
        (90, "warning", "behind"),
        (-90, "warning", "ahead"),
        (900, "broken", ""),
    ],
)
def test_the_clock_is_compared_to_that_of_others(
    examine: Examine, seconds: float, severity: str, seen: str
) -> None:
    date = formatdate(time.time() + seconds, usegmt=True)

    difference = clients.clock_difference({"Date": date})
    assert difference is not None
    found = clients.clock_finding(examine(), difference, "example.org")

    assert found.severity == severity
    assert seen in found.seen
    assert clients.clock_difference({}) is None
    assert clients.clock_difference({"Date": "yesterday"}) is None
