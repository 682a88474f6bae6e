"""What `homebody federation check` finds, against real servers on loopback."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from homebody.cli import main
from homebody.config import settings
from homebody.outside import resolver, server_discovery
from homebody.outside.federation_check import Check, Finding
from homebody.spec import server_keys
from homebody.spec.signing import SigningKey
from tests.helpers import certificates
from tests.helpers.dns_server import DnsServer
from tests.helpers.scripted_server import Request, Response, ScriptedServer

OURS = SigningKey.from_seed("a_1", b"x" * 32)
THEIRS = SigningKey.from_seed("b_1", b"y" * 32)
VERSION = "/_matrix/federation/v1/version"
KEYS = "/_matrix/key/v2/server"


@dataclass
class World:
    """The server b.test, by name and port, in a world where b.test is 127.0.0.1."""

    server: ScriptedServer
    dns: DnsServer
    folder: Path

    @property
    def name(self) -> str:
        return f"b.test:{self.server.port}"

    def check(self, name: str = "", **options: str) -> list[Finding]:
        return list(self.make(name, **options).run())

    def make(self, name: str = "", **options: str) -> Check:
        given = {
            "federation": "true",
            "server_name": "a.test",
            "outside_allowed": "127.0.0.1",
            "dns_servers": self.dns.address,
            "federation_ca_file": str(certificates.write_authority(self.folder)),
            **options,
        }
        return Check(settings.load(None, {}, given), name or self.name, OURS)

    def publish(self, key: SigningKey, name: str = "", days: float = 1) -> None:
        until_ts = int((time.time() + days * 86_400) * 1000)
        keys = server_keys.publish(name or self.name, key, [], until_ts)
        self.server.answer(KEYS, Response(200, keys))


def respond(request: Request) -> Response:
    if request.path == VERSION:
        return Response(200, {"server": {"name": "Other", "version": "1.2"}})
    return Response(404, {"errcode": "M_UNRECOGNIZED"})


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(resolver, "SECONDS_PER_LOOKUP", 0.3)
    server = ScriptedServer(respond, certificates.server_context("b.test", "c.test"))
    dns = DnsServer({"b.test A": ["127.0.0.1"], "c.test A": ["127.0.0.1"]})
    made = World(server, dns, tmp_path)
    made.publish(THEIRS)
    yield made
    server.close()
    dns.close()


def one(findings: list[Finding], step: str) -> Finding:
    found = [finding for finding in findings if finding.step == step]
    assert len(found) == 1, findings
    return found[0]


def test_a_good_server_passes_each_step(world: World) -> None:
    findings = world.check()

    assert {finding.status for finding in findings} == {"ok"}
    assert [it.step for it in findings] == ["name", "addresses", "TLS", "version", "keys"]
    assert one(findings, "addresses").text == f"b.test: 127.0.0.1, port {world.server.port}"
    assert one(findings, "version").text == "Other 1.2"
    assert one(findings, "keys").text.startswith("ed25519:b_1, valid until 20")
    assert "certificate for b.test, valid until " in one(findings, "TLS").text


def test_delegation_is_shown_step_by_step(world: World) -> None:
    with_file = ScriptedServer(
        lambda _: Response(200, {"m.server": "c.test"}), certificates.server_context("b.test")
    )
    world.dns.records["_matrix-fed._tcp.c.test SRV"] = [f"0 0 {world.server.port} c.test."]
    world.publish(THEIRS, "b.test")
    check = world.make("b.test")
    check.discovery.well_known._port = with_file.port  # noqa: SLF001 - 443 is for root

    findings = list(check.run())
    with_file.close()

    url = "https://b.test/.well-known/matrix/server"
    assert one(findings, "well-known").text.startswith(f"{url} leads to c.test, for 2")
    assert (
        one(findings, "SRV").text == f"_matrix-fed._tcp.c.test leads to c.test:{world.server.port}"
    )
    assert one(findings, "keys").status == "ok"


def test_a_missing_file_is_a_note_and_a_missing_server_a_failure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_discovery, "DEFAULT_PORT", _free_port())
    world.dns.records["_matrix-fed._tcp.b.test SRV"] = ["SERVFAIL"]

    findings = world.check("b.test")

    assert one(findings, "well-known").status == "note"
    assert [it.status for it in findings if it.step == "SRV"] == ["note", "ok"]
    assert one(findings, "TLS").status == "failed"
    assert [it for it in findings if it.step in {"version", "keys"}] == []


def test_our_own_server_gets_the_line_to_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_discovery, "DEFAULT_PORT", _free_port())

    findings = world.check("b.test", server_name="b.test", public_url="https://m.b.test")

    advice = one(findings, "TLS").advice
    assert '{"m.server": "m.b.test:443"}' in advice
    assert "https://b.test/.well-known/matrix/server" in advice
    assert "private" in next(
        it.text for it in findings if it.status == "note" and it.step == "addresses"
    )


def test_our_own_server_has_to_publish_our_key(world: World) -> None:
    foreign = one(world.check(server_name=world.name), "keys")
    world.publish(OURS)
    own = one(world.check(server_name=world.name), "keys")

    assert (foreign.status, own.status) == ("failed", "ok")
    assert "Find out" in foreign.advice


@pytest.mark.parametrize(
    ("path", "response", "step"),
    [
        (VERSION, Response(404, b"<html>"), "version"),
        (VERSION, Response(200, b"<html>"), "version"),
        (VERSION, Response(502), "version"),
        (KEYS, Response(404), "keys"),
        (KEYS, Response(200, {}), "keys"),
        (KEYS, Response(200, b"[]"), "keys"),
    ],
)
def test_a_proxy_that_passes_a_path_on_to_nobody_is_a_failure(
    world: World, path: str, response: Response, step: str
) -> None:
    world.server.answer(path, response)

    finding = one(world.check(), step)
    own = one(world.check(server_name=world.name), step)

    assert (finding.status, finding.advice) == ("failed", "")
    assert "http://127.0.0.1:8008" in own.advice


def test_keys_that_have_expired_are_a_failure(world: World) -> None:
    world.publish(THEIRS, days=-1)

    finding = one(world.check(), "keys")

    assert finding.status == "failed"
    assert "expired on" in finding.text


def _free_port() -> int:
    server = ScriptedServer(respond, None)
    server.close()
    return server.port


def _context(days: float) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    until = datetime.now() + timedelta(days=days)  # noqa: DTZ005 - cryptography takes naive ones
    issued = certificates._authority().issue_cert("b.test", not_after=until)  # noqa: SLF001 - for its time
    issued.configure_cert(context)
    return context


@pytest.mark.parametrize(("days", "status"), [(-1, "failed"), (3, "note"), (60, "ok")])
def test_a_certificate_is_to_be_renewed_in_time(world: World, days: float, status: str) -> None:
    server = ScriptedServer(respond, _context(days))
    name = f"b.test:{server.port}"
    try:
        finding = one(world.check(name, server_name=name), "TLS")
    finally:
        server.close()

    assert finding.status == status
    assert ("Renew" in finding.advice) == (status == "note")
    assert ("certificate for b.test" in finding.advice) == (status == "failed")


def test_each_address_is_tried(world: World) -> None:
    world.dns.records["b.test A"] = ["127.0.0.1", "127.0.0.9"]
    world.dns.records["b.test AAAA"] = ["::1"]

    findings = [it for it in world.check() if it.step == "TLS"]

    assert sorted(it.status for it in findings) == ["failed", "failed", "ok"]


def test_a_private_address_of_another_server_is_a_failure(world: World) -> None:
    finding = world.check(outside_allowed="")[2]

    assert (finding.step, finding.status) == ("addresses", "failed")
    assert finding.advice == 'If it is yours, set outside_allowed = ["b.test"]'


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"federation": "false"}, "federation = false"),
        ({"federation_deny_servers": "b.test"}, "federation_deny_servers"),
    ],
)
def test_settings_that_forbid_federation_are_shown(
    world: World, options: dict[str, str], text: str
) -> None:
    finding = one(world.check(**options), "settings")

    assert finding.status == "failed"
    assert text in finding.text


@pytest.mark.parametrize("name", ["", "a b", "https://b.test", "::1"])
def test_what_is_not_a_name_is_said_to_be_none(world: World, name: str) -> None:
    findings = list(Check(settings.Config(), name, OURS).run())

    assert [(it.step, it.status) for it in findings] == [("name", "failed")]


def test_a_record_that_says_no_such_service_is_a_failure(world: World) -> None:
    world.dns.records["_matrix-fed._tcp.b.test SRV"] = ["0 0 0 ."]

    finding = one(world.check("b.test"), "SRV")

    assert finding.status == "failed"
    assert "no such service" in finding.text


def run(world: World, *words: str, **options: str) -> tuple[int, str]:
    given = {
        "HOMEBODY_DATA_DIR": str(world.folder),
        "HOMEBODY_FEDERATION": "true",
        "HOMEBODY_OUTSIDE_ALLOWED": "127.0.0.1",
        "HOMEBODY_DNS_SERVERS": world.dns.address,
        "HOMEBODY_FEDERATION_CA_FILE": str(certificates.write_authority(world.folder)),
        **options,
    }
    done = CliRunner().invoke(main, ["federation", "check", *words], env=given)
    return done.exit_code, done.output


def test_the_command_prints_a_line_for_each_step(world: World) -> None:
    code, output = run(world, world.name)

    assert code == 0, output
    assert [line.split()[:2] for line in output.splitlines()] == [
        ["ok", step] for step in ("name", "addresses", "TLS", "version", "keys")
    ]


def test_what_a_server_calls_itself_has_no_effect_on_the_terminal(world: World) -> None:
    named = {"name": "Other\x1b[2J", "version": "1.2\nok      keys"}
    world.server.answer(VERSION, Response(200, {"server": named}))

    code, output = run(world, world.name)

    assert (code, len(output.splitlines())) == (0, 5)
    assert "\x1b" not in output
    assert "Other\\u001b[2J" in output


def test_the_command_fails_if_a_step_does(world: World) -> None:
    world.server.fail(VERSION, 502)

    code, output = run(world, world.name, HOMEBODY_SERVER_NAME=world.name)
    json_code, text = run(world, world.name, "--json", HOMEBODY_SERVER_NAME=world.name)

    found: dict[str, Any] = json.loads(text)
    assert (code, json_code) == (1, 1)
    assert "FAILED  version" in output
    assert "→ Let the proxy pass /_matrix on" in output
    assert (found["server"], found["ok"]) == (world.name, False)
    assert found["steps"][-1]["status"] == "failed"
