"""DNS, SRV records, and servers that hang, by scripted servers on loopback."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from homebody.config import settings
from homebody.doctor import delegation, runner, tls
from homebody.doctor.examination import Examination, Options
from homebody.doctor.findings import Finding
from homebody.outside import resolver
from homebody.spec import server_keys, signing
from tests.helpers import certificates, server
from tests.helpers.dns_server import DnsServer
from tests.helpers.scripted_server import Request, Response, ScriptedServer

VERSION = "/_matrix/federation/v1/version"
KEYS = "/_matrix/key/v2/server"
SERVER_FILE = "/.well-known/matrix/server"
CLIENT_FILE = "/.well-known/matrix/client"


def respond(request: Request) -> Response:
    if request.path == VERSION:
        return Response(200, {"server": {"name": "homebody", "version": "1"}})
    return Response(404, {"errcode": "M_UNRECOGNIZED"})


@dataclass
class World:
    """The server example.org at a port of loopback, with names of its own."""

    site: ScriptedServer
    dns: DnsServer
    data_dir: Path
    ca_file: Path
    connect_to: dict[str, tuple[str, int]] = field(default_factory=dict)

    def examination(self, **given: str) -> Examination:
        named = {
            "data_dir": str(self.data_dir),
            "server_name": "example.org",
            "public_url": "https://matrix.example.org",
            "dns_servers": self.dns.address,
            "bind": f"127.0.0.1:{server.free_port()}",
            **given,
        }
        environ = {f"HOMEBODY_{key.upper()}": value for key, value in named.items()}
        options = Options(None, self.ca_file, self.connect_to, 1, environ)
        return Examination(settings.load(None, environ), options)


@pytest.fixture
def world(stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(resolver, "SECONDS_PER_LOOKUP", 0.3)
    names = ("example.org", "matrix.example.org")
    site = ScriptedServer(respond, certificates.server_context(*names))
    with closing(DnsServer({f"{it} A": ["127.0.0.1"] for it in names})) as dns:
        made = World(site, dns, stopped, certificates.write_authority(tmp_path))
        made.connect_to["example.org:443"] = ("127.0.0.1", site.port)
        yield made
        site.close()


def publish(world: World, key: signing.SigningKey) -> None:
    until_ts = int((time.time() + 86_400) * 1000)
    world.site.answer(KEYS, Response(200, server_keys.publish("example.org", key, [], until_ts)))


def worst(found: Iterator[Finding]) -> dict[str, str]:
    """Return severity by id, without what is in order."""
    return {it.id: it.severity for it in found if it.severity != "ok"}


def test_other_servers_come_to_port_8448_without_a_file(world: World) -> None:
    ex = world.examination()
    assert ex.key is not None
    publish(world, ex.key)
    world.connect_to["example.org:8448"] = ("127.0.0.1", world.site.port)

    found = list(delegation.federation(ex))

    assert worst(iter(found)) == {}, found
    assert [it.seen for it in found if it.id == "federation"] == [
        "other servers reach example.org port 8448"
    ]


def test_an_srv_record_leads_to_another_host(world: World) -> None:
    world.dns.records["_matrix-fed._tcp.example.org SRV"] = [
        f"10 5 {world.site.port} matrix.example.org."
    ]
    ex = world.examination()
    assert ex.key is not None
    publish(world, ex.key)

    found = list(delegation.federation(ex))

    assert worst(iter(found)) == {}, found
    assert world.site.received(VERSION)[0].headers["Host"] == f"example.org:{world.site.port}"


def test_another_signing_key_is_seen(world: World) -> None:
    publish(world, signing.SigningKey.from_seed("a_0002", b"z" * 32))
    world.connect_to["example.org:8448"] = ("127.0.0.1", world.site.port)

    assert worst(delegation.federation(world.examination())) == {"federation-key": "broken"}


def test_a_closed_port_8448_is_seen(world: World) -> None:
    world.connect_to["example.org:8448"] = ("127.0.0.1", server.free_port())

    assert worst(delegation.federation(world.examination())) == {"federation": "broken"}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"public_url": "http://127.0.0.1:8008"}, "the public URL is of this machine"),
        ({"server_name": "example.org:8448"}, "the server name is a host with a port"),
    ],
)
def test_it_says_why_the_file_for_clients_is_not_looked_for(
    world: World, given: dict[str, str], why: str
) -> None:
    (found,) = delegation.client_file(world.examination(**given))

    assert (found.severity, found.seen) == ("skipped", why)


def test_without_federation_nothing_is_looked_for(world: World) -> None:
    found = list(delegation.federation(world.examination(federation="false")))

    assert [(it.id, it.severity) for it in found] == [("federation", "skipped")]
    assert world.site.requests == []


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (Response(301, b"", {"Location": SERVER_FILE}), "well-known-server-redirect"),
        (Response(302, b"", {"Location": "gopher://example.org/"}), "well-known-server-redirect"),
        (Response(500, b"oops"), "well-known-server"),
        (Response(200, {"m.server": "not a name"}), "well-known-server"),
        (Response(200, [1]), "well-known-server"),
    ],
)
def test_a_wrong_file_for_servers_is_seen(world: World, response: Response, expected: str) -> None:
    world.site.answer(SERVER_FILE, response)
    world.connect_to["example.org:8448"] = ("127.0.0.1", server.free_port())

    found = worst(delegation.federation(world.examination()))

    assert found[expected] == "broken"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"m.homeserver": {"base_url": "nonsense"}}, {"well-known-client-target": "broken"}),
        ({"m.homeserver": {"base_url": "https://[x"}}, {"well-known-client-target": "broken"}),
        ({"m.homeserver": {"base_url": 1}}, {"well-known-client": "broken"}),
        ({"m.homeserver": []}, {"well-known-client": "broken"}),
        ([], {"well-known-client": "broken"}),
    ],
)
def test_a_wrong_file_for_clients_is_seen(
    world: World, content: object, expected: dict[str, str]
) -> None:
    headers = {"Access-Control-Allow-Origin": "*", "Content-Type": "application/json"}
    world.site.answer(CLIENT_FILE, Response(200, content, headers))

    found = worst(delegation.client_file(world.examination()))

    assert found == expected


def test_services_for_calls_are_tried(world: World) -> None:
    foci = [
        {"type": "livekit", "livekit_service_url": "https://example.org/calls"},
        {"type": "livekit", "livekit_service_url": "https://example.org/away"},
        {"type": "other"},
        5,
    ]
    world.site.answer(CLIENT_FILE, Response(200, {"org.matrix.msc4143.rtc_foci": foci}))
    world.site.answer("/calls/healthz", Response(200, b""))

    found = list(delegation.livekit(world.examination()))

    assert [(it.id, it.severity) for it in found] == [("livekit", "ok"), ("livekit", "broken")]


def test_the_service_for_calls_of_the_settings_has_to_be_announced(world: World) -> None:
    url = "https://example.org/calls"
    world.site.answer("/calls/healthz", Response(200, b""))
    ex = world.examination(livekit_service_url=url)
    world.site.answer(CLIENT_FILE, Response(200, {}))
    hidden = list(delegation.livekit(ex))
    foci = [{"type": "livekit", "livekit_service_url": url}]
    world.site.answer(CLIENT_FILE, Response(200, {"org.matrix.msc4143.rtc_foci": foci}))

    found = list(delegation.livekit(world.examination(livekit_service_url=url)))

    severities = [(it.id, it.severity) for it in hidden]
    assert severities == [("livekit-announced", "warning"), ("livekit", "ok")]
    assert [(it.id, it.severity) for it in found] == [("livekit", "ok")]


def test_a_name_without_an_address_is_broken(world: World) -> None:
    world.dns.records.clear()

    assert worst(tls.names(world.examination())) == {"dns": "broken"}


def test_an_address_that_does_not_answer_is_seen_beside_one_that_does(world: World) -> None:
    world.dns.records["matrix.example.org AAAA"] = ["::1"]
    url = f"https://matrix.example.org:{world.site.port}"  # not on ::1

    found = list(tls.names(world.examination(public_url=url)))

    assert worst(iter(found)) == {"dns-private": "warning", "dns-address": "warning"}
    assert f"::1 port {world.site.port}" in found[-1].seen


def test_a_private_address_of_a_private_name_is_in_order(world: World) -> None:
    world.dns.records["family.home.arpa A"] = ["127.0.0.1"]
    url = f"https://family.home.arpa:{world.site.port}"

    found = tls.names(world.examination(server_name="family.home.arpa", public_url=url))

    assert worst(found) == {}


def test_a_server_that_never_answers_takes_less_than_half_a_minute(world: World) -> None:
    world.site.hang("/")
    world.connect_to["matrix.example.org:443"] = ("127.0.0.1", world.site.port)
    ex = world.examination()
    began = time.monotonic()

    found = runner.run(ex.config, ex.options)

    assert time.monotonic() - began < 30
    assert {"reachable", "server", "well-known-client"} <= {
        it.id for it in found if it.severity == "broken"
    }
    assert not [it for it in found if it.id == "doctor"], found


def test_a_check_that_fails_by_itself_hides_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_ex: Examination) -> Iterator[Finding]:
        raise RuntimeError("oops")

    checks: dict[str, Callable[[Examination], Iterator[Finding]]] = {"dns": fails}
    monkeypatch.setattr(runner, "CHECKS", checks | {"tls": tls.names})
    world.connect_to["matrix.example.org:443"] = ("127.0.0.1", server.free_port())
    ex = world.examination()

    found = runner.run(ex.config, ex.options)

    assert [it.seen for it in found if it.id == "doctor"] == ["dns: RuntimeError: oops"]
    assert any(it.id == "reachable" for it in found)
