"""From the name of a server to where it is: a table of names, and what is kept."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from homebody.config import settings
from homebody.outside import RemoteError, resolver, server_discovery, well_known
from homebody.outside.https import Connector
from homebody.outside.server_discovery import Location, ServerDiscovery
from homebody.runtime import event_loop
from homebody.spec import identifiers
from tests.helpers import certificates
from tests.helpers.dns_server import DROPPED, DnsServer
from tests.helpers.scripted_server import Request, Response, ScriptedServer

NAMES = ("a.test", "c.test", "d.test", "localhost")
LONG = "x" * 60_000


@dataclass
class World:
    """A web server that is every host on port 443, and a DNS server."""

    web: ScriptedServer
    dns: DnsServer
    ca_file: Path
    files: dict[str, Response] = field(default_factory=dict)
    """The response of each host to requests for its well-known file."""

    def discovery(self, **options: str) -> ServerDiscovery:
        given = {
            "outside_allowed": "127.0.0.1",
            "dns_servers": self.dns.address,
            "federation_ca_file": str(self.ca_file),
            **options,
        }
        config = settings.load(None, {}, given)
        return ServerDiscovery(config, Connector(config), port_443=self.web.port)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    files: dict[str, Response] = {}

    def respond(request: Request) -> Response:
        return files.get(f"{request.headers['Host']}{request.uri}") or files.get(
            request.headers["Host"], Response(404, b"no such file")
        )

    monkeypatch.setattr(resolver, "SECONDS_PER_TRY", 0.2)
    monkeypatch.setattr(resolver, "SECONDS_PER_LOOKUP", 0.4)
    monkeypatch.setattr(well_known, "TIMEOUT_S", 2.0)
    web = ScriptedServer(respond, certificates.server_context(*NAMES))
    dns = DnsServer({f"{name} A": ["127.0.0.1"] for name in NAMES})
    yield World(web, dns, certificates.write_authority(tmp_path), files)
    web.close()
    dns.close()


@dataclass(frozen=True)
class Case:
    """A server name, what there is, and where the server is by that."""

    server: str
    hosts: list[tuple[str, int]] | str
    """Or the kind of the error."""
    host_header: str = ""
    tls_name: str = ""
    step: str = ""
    file: Any = None
    """The well-known file of a.test, or a whole response."""
    dns: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, Response] = field(default_factory=dict)


def at(place: str, host_header: str, step: str, file: Any = None, **more: Any) -> Case:
    """A case of a.test, which is at this host and port."""
    host, _, port = place.rpartition(":")
    tls_name = identifiers.split_server_name(host_header).host
    return Case("a.test", [(host, int(port))], host_header, tls_name, step, file, **more)


def delegated(server: object) -> dict[str, object]:
    return {"m.server": server}


def not_delegated(file: Any, **more: Any) -> Case:
    """A case in which the file does not count."""
    return at("a.test:8448", "a.test", "6", file, **more)


def moved(url: str | None, status: int = 302) -> Response:
    return Response(status, b"", {} if url is None else {"Location": url})


FED, OLD = "_matrix-fed._tcp.", "_matrix._tcp."
GOOD = Response(200, delegated("d.test:1234"))
BOTH = {f"{FED}a.test SRV": ["0 0 1 c.test."], f"{OLD}a.test SRV": ["0 0 2 c.test."]}
CASES = {
    # 1: IP literals
    "IPv4": Case("1.2.3.4", [("1.2.3.4", 8448)], "1.2.3.4", "1.2.3.4", "1"),
    "IPv4 port": Case("1.2.3.4:80", [("1.2.3.4", 80)], "1.2.3.4:80", "1.2.3.4", "1"),
    "IPv4 8448": Case("1.2.3.4:8448", [("1.2.3.4", 8448)], "1.2.3.4:8448", "1.2.3.4", "1"),
    "IPv6": Case("[2001:db8::1]", [("2001:db8::1", 8448)], "[2001:db8::1]", "2001:db8::1", "1"),
    "IPv6 port": Case("[::1]:5", [("::1", 5)], "[::1]:5", "::1", "1"),
    "mapped": Case("[::ffff:1.2.3.4]", [("::ffff:1.2.3.4", 8448)], "[::ffff:1.2.3.4]",
                   "::ffff:1.2.3.4", "1"),
    # 2: explicit ports
    "port": Case("a.test:81", [("a.test", 81)], "a.test:81", "a.test", "2"),
    "port 8448": Case("a.test:8448", [("a.test", 8448)], "a.test:8448", "a.test", "2"),
    "port 443": Case("a.test:443", [("a.test", 443)], "a.test:443", "a.test", "2"),
    "port, capitals": Case("A.Test:1", [("A.Test", 1)], "A.Test:1", "A.Test", "2"),
    "port, one label": Case("localhost:1", [("localhost", 1)], "localhost:1", "localhost", "2"),
    "port before file": Case("a.test:81", [("a.test", 81)], "a.test:81", "a.test", "2",
                             delegated("d.test")),
    "port before SRV": Case("a.test:81", [("a.test", 81)], "a.test:81", "a.test", "2", dns=BOTH),
    "almost IPv4": Case("1.2.3:81", [("1.2.3", 81)], "1.2.3:81", "1.2.3", "2"),
    # 3: delegation by the file
    "file IPv4": at("1.2.3.4:8448", "1.2.3.4", "3.1", delegated("1.2.3.4")),
    "file IPv4 port": at("1.2.3.4:5", "1.2.3.4:5", "3.1", delegated("1.2.3.4:5")),
    "file IPv6": at("::1:8448", "[::1]", "3.1", delegated("[::1]")),
    "file IPv6 port": at("::1:6", "[::1]:6", "3.1", delegated("[::1]:6")),
    "file port": at("d.test:1234", "d.test:1234", "3.2", GOOD),
    "file 8448": at("d.test:8448", "d.test:8448", "3.2", delegated("d.test:8448")),
    "file port before SRV": at("d.test:9", "d.test:9", "3.2", delegated("d.test:9"),
                               dns={f"{FED}d.test SRV": ["0 0 1 c.test."]}),
    "file no port": at("d.test:8448", "d.test", "3.5", delegated("d.test")),
    "file itself": at("a.test:8448", "a.test", "3.5", delegated("a.test")),
    "file itself port": at("a.test:443", "a.test:443", "3.2", delegated("a.test:443")),
    "file SRV": at("c.test:1", "d.test", "3.3", delegated("d.test"),
                   dns={f"{FED}d.test SRV": ["0 0 1 c.test."]}),
    "file old SRV": at("c.test:2", "d.test", "3.4", delegated("d.test"),
                       dns={f"{OLD}d.test SRV": ["0 0 2 c.test."]}),
    "file, its own SRV": at("d.test:8448", "d.test", "3.5", delegated("d.test"), dns=BOTH),
    "file of a file": at("d.test:8448", "d.test", "3.5", delegated("d.test"),
                         others={"d.test": Response(200, delegated("c.test:7"))}),
    "file with more": at("d.test:1", "d.test:1", "3.2", {"m.server": "d.test:1", "x": 10**17}),
    "file twice": at("d.test:2", "d.test:2", "3.2",
                     Response(200, b'{"m.server": "c.test", "m.server": "d.test:2"}')),
    "file of another type": at("d.test:1", "d.test:1", "3.2",
                               Response(200, delegated("d.test:1"), {"Content-Type": "text/html"})),
    "file compressed": at("d.test:3", "d.test:3", "3.2",
                          Response(200, gzip.compress(b'{"m.server": "d.test:3"}'),
                                   {"Content-Encoding": "gzip"})),
    "redirect": at("d.test:1234", "d.test:1234", "3.2", moved("/there"),
                   others={"a.test/there": GOOD}),
    "redirect elsewhere": at("d.test:1234", "d.test:1234", "3.2", moved("https://c.test/a b?c=d"),
                             others={"c.test/a%20b?c=d": GOOD}),
    "redirect 301": at("d.test:1234", "d.test:1234", "3.2", moved("https://c.test/x", 301),
                       others={"c.test/x": GOOD}),
    "redirect 308": at("d.test:1234", "d.test:1234", "3.2", moved("https://c.test/x", 308),
                       others={"c.test/x": GOOD}),
    "redirect 5 times": at("d.test:1234", "d.test:1234", "3.2", moved("/1"),
                           others={**{f"a.test/{n}": moved(f"/{n + 1}") for n in range(1, 5)},
                                   "a.test/5": GOOD}),
    # 3, where the file does not count
    "file 404": not_delegated(None),
    "file 500": not_delegated(Response(500, delegated("d.test"))),
    "file 201": not_delegated(Response(201, delegated("d.test"))),
    "file HTML": not_delegated(Response(200, b"<html>Hello</html>")),
    "file empty": not_delegated(Response(200, b"")),
    "file list": not_delegated(["d.test"]),
    "file text": not_delegated(Response(200, b'"d.test"')),
    "file number": not_delegated(Response(200, b"5")),
    "file null": not_delegated(Response(200, b"null")),
    "file object": not_delegated(Response(200, b"{}")),
    "file not UTF-8": not_delegated(Response(200, b'{"m.server": "d.test\xff"}')),
    "file cut": not_delegated(Response(200, b'{"m.server": "d.test"')),
    "file deep": not_delegated(Response(200, b"[" * 5000 + b"]" * 5000)),
    "server number": not_delegated(delegated(5)),
    "server list": not_delegated(delegated(["d.test"])),
    "server empty": not_delegated(delegated("")),
    "server URL": not_delegated(delegated("https://d.test")),
    "server path": not_delegated(delegated("d.test/x")),
    "server space": not_delegated(delegated(" d.test")),
    "server port": not_delegated(delegated("d.test:99999")),
    "server no port": not_delegated(delegated("d.test:")),
    "server line": not_delegated(delegated("d.test\r\nX: y")),
    "file large": not_delegated(Response(200, {**delegated("d.test"), "x": LONG})),
    "file bomb": not_delegated(Response(200, gzip.compress(b" " * 10**8 + b'{"m.server":"d.test"}'),
                                        {"Content-Encoding": "gzip"})),
    "file brotli": not_delegated(Response(200, b"abc", {"Content-Encoding": "br"})),
    "redirect http": not_delegated(moved("http://c.test/x"), others={"c.test/x": GOOD}),
    "redirect ftp": not_delegated(moved("ftp://c.test/x")),
    "redirect loop": not_delegated(moved("/x"), others={"a.test/x": moved("/x")}),
    "redirect 6 times": not_delegated(moved("/1"), others={
        **{f"a.test/{n}": moved(f"/{n + 1}") for n in range(1, 6)}, "a.test/6": GOOD}),
    "redirect nowhere": not_delegated(moved(None)),
    "redirect nonsense": not_delegated(moved("https://[")),
    "redirect user": not_delegated(moved("https://me@c.test/x"), others={"c.test/x": GOOD}),
    "redirect private": not_delegated(moved("https://10.0.0.1/x")),
    "redirect other certificate": not_delegated(moved("https://127.0.0.1/x")),
    # 4 and 5: SRV records
    "SRV": at("c.test:1", "a.test", "4", dns=BOTH),
    "SRV with a bad file": at("c.test:1", "a.test", "4", delegated(5), dns=BOTH),
    "old SRV": at("c.test:2", "a.test", "5", dns={f"{OLD}a.test SRV": ["0 0 2 c.test."]}),
    "SRV by priority": Case("a.test", [("d.test", 3), ("c.test", 2), ("b.test", 1)], "a.test",
                            "a.test", "4", dns={f"{FED}a.test SRV": [
                                "30 9 1 b.test.", "20 0 2 c.test.", "10 0 3 d.test."]}),
    "SRV fails": at("c.test:2", "a.test", "5", dns={**BOTH, f"{FED}a.test SRV": ["SERVFAIL"]}),
    "SRV refused": at("c.test:2", "a.test", "5", dns={**BOTH, f"{FED}a.test SRV": ["REFUSED"]}),
    "SRV never": at("c.test:2", "a.test", "5", dns={**BOTH, f"{FED}a.test SRV": [DROPPED]}),
    "both SRV fail": not_delegated(None, dns={f"{FED}a.test SRV": ["SERVFAIL"],
                                              f"{OLD}a.test SRV": ["SERVFAIL"]}),
    "SRV none": Case("a.test", "unreachable", dns={f"{FED}a.test SRV": ["0 0 0 ."]}),
    "SRV bad target": not_delegated(None, dns={f"{FED}a.test SRV": ["0 0 1 c_d.test."]}),
    "SRV some bad": at("c.test:1", "a.test", "4", dns={f"{FED}a.test SRV": [
        "0 0 1 c_d.test.", "0 0 1 c.test."]}),
    # 6
    "nothing": not_delegated(None),
    "one label": Case("localhost", [("localhost", 8448)], "localhost", "localhost", "6"),
    # placed by the administrator
    "placed": Case("b.test", [("127.0.0.1", 8449)], "b.test", "b.test", "federation_hosts"),
    "placed port": Case("b.test:7", [("::1", 8450)], "b.test:7", "b.test", "federation_hosts"),
    # not server names
    "empty": Case("", "refused"),
    "space": Case("a b", "refused"),
    "underscore": Case("a_b.test", "refused"),
    "bad port": Case("a.test:x", "refused"),
    "large port": Case("a.test:65536", "refused"),
    "bare IPv6": Case("::1", "refused"),
    "URL": Case("https://a.test", "refused"),
    "user": Case("@a:a.test", "refused"),
    "dots": Case("a..test", "refused"),
    "bad IPv4": Case("1.2.3.400", "refused"),
    "bad IPv6": Case("[::1::2]", "refused"),
    "Unicode": Case("ä.test", "refused"),
    "line": Case("a.test\n", "refused"),
    "long": Case("a" * 256, "refused"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_name_leads_to_a_place(world: World, case: Case) -> None:
    if case.file is not None:
        file = case.file if isinstance(case.file, Response) else Response(200, case.file)
        world.files[f"a.test{well_known.PATH}"] = file
    world.files.update(case.others)
    world.dns.records.update(case.dns)
    discovery = world.discovery(
        federation_hosts='{ "b.test" = "127.0.0.1:8449", "b.test:7" = "[::1]:8450" }'
    )

    if isinstance(case.hosts, str):
        with pytest.raises(RemoteError) as raised:
            discovery.locate(case.server)
        assert raised.value.kind == case.hosts
    else:
        is_placed = case.step == "federation_hosts"
        found = discovery.locate(case.server)
        assert found == Location(
            tuple(case.hosts), case.host_header, case.tls_name, case.step, is_trusted=is_placed
        )


def test_there_are_many_cases() -> None:
    assert len(CASES) >= 60


def targets(discovery: ServerDiscovery, server: str) -> list[tuple[str, int]]:
    found = discovery.find(server, time.monotonic() + 5)[1]
    return [(str(address), port) for address, port in found]


def failure(discovery: ServerDiscovery, server: str, seconds: float = 5.0) -> RemoteError:
    with pytest.raises(RemoteError) as raised:
        discovery.find(server, time.monotonic() + seconds)
    return raised.value


def test_the_addresses_of_both_kinds_are_found(world: World) -> None:
    discovery = world.discovery(outside_allowed="127.0.0.1")
    world.dns.records.update({"e.test A": ["8.8.8.8"], "e.test AAAA": ["2001:4860::1"]})

    assert targets(discovery, "e.test:1") == [("2001:4860::1", 1), ("8.8.8.8", 1)]
    assert targets(discovery, "a.test:1") == [("127.0.0.1", 1)]


def test_an_srv_target_with_ipv6_only_is_found(world: World) -> None:
    world.dns.records |= {f"{FED}a.test SRV": ["0 0 9 e.test."], "e.test AAAA": ["2001:4860::1"]}

    assert targets(world.discovery(), "a.test") == [("2001:4860::1", 9)]


def test_all_srv_targets_with_an_address_are_tried(world: World) -> None:
    world.dns.records |= {
        f"{FED}a.test SRV": ["1 0 9 gone.test.", "2 0 8 e.test.", "3 0 7 a.test."],
        "e.test A": ["8.8.8.8", "8.8.4.4"],
    }

    found = targets(world.discovery(), "a.test")

    assert set(found[:2]) == {("8.8.8.8", 8), ("8.8.4.4", 8)}
    assert found[2:] == [("127.0.0.1", 7)]


def test_a_dns_server_that_ignores_questions_for_ipv6_does_not_hide_ipv4(world: World) -> None:
    world.dns.records |= {"e.test A": ["8.8.8.8"], "e.test AAAA": [DROPPED]}

    assert targets(world.discovery(), "e.test:1") == [("8.8.8.8", 1)]


@pytest.mark.parametrize("answer", [None, ["SERVFAIL"], [DROPPED]])
def test_a_name_without_an_address_is_unreachable_and_stays_so(
    world: World, answer: list[str] | None
) -> None:
    discovery = world.discovery()
    if answer is not None:
        world.dns.records |= {"e.test A": answer, "e.test AAAA": answer}

    problem = failure(discovery, "e.test:1")
    world.dns.asked.clear()
    again = failure(discovery, "e.test:1")

    assert (problem.kind, again.kind) == ("unreachable", "unreachable")
    assert world.dns.asked == []


def test_private_addresses_are_refused(world: World) -> None:
    discovery = world.discovery(
        outside_allowed="c.test", federation_hosts='{ "b.test" = "127.0.0.1:8449" }'
    )
    world.dns.records |= {
        "mixed.test A": ["10.0.0.1", "8.8.8.8"],
        "metadata.test A": ["169.254.169.254"],
        "v6.test AAAA": ["fd00::1", "::1"],
        f"{FED}srv.test SRV": ["0 0 25 metadata.test."],
    }

    refused = ["127.0.0.1:1", "[::1]:1", "10.1.1.1", "metadata.test:1", "v6.test:1", "a.test:1"]
    for server in [*refused, "localhost:1", "srv.test"]:
        assert failure(discovery, server).kind == "refused", server
    assert "outside_allowed" in str(failure(discovery, "a.test:1"))
    assert targets(discovery, "mixed.test:1") == [("8.8.8.8", 1)]
    assert targets(discovery, "c.test:1") == [("127.0.0.1", 1)]
    assert targets(discovery, "b.test") == [("127.0.0.1", 8449)]


def test_a_file_cannot_delegate_to_a_private_address(world: World) -> None:
    world.files["a.test"] = Response(200, delegated("169.254.169.254:80"))

    assert failure(world.discovery(), "a.test").kind == "refused"


def test_the_hosts_file_comes_before_the_dns(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("# c\n8.8.8.8 x E.test # e2.test\n2001:4860::1%eth0\te.test\nbad e.test\n\n")
    monkeypatch.setattr(resolver, "HOSTS_FILE", hosts)
    world.dns.records |= {"e.test A": ["9.9.9.9"], "e2.test A": ["9.9.9.9"]}
    discovery = world.discovery()

    assert targets(discovery, "e.TEST:1") == [("8.8.8.8", 1), ("2001:4860::1", 1)]
    assert targets(discovery, "e2.test:1") == [("9.9.9.9", 1)]


def test_concurrent_requests_share_one_search(world: World) -> None:
    world.files["a.test"] = Response(200, delegated("d.test:1"))
    world.web.delay("", 0.3)
    discovery = world.discovery()

    futures = [event_loop.spawn(targets, discovery, "a.test") for _ in range(8)]

    assert {tuple(future.result(5)) for future in futures} == {(("127.0.0.1", 1),)}
    assert len(world.web.requests) == 1


def test_what_is_found_too_late_is_kept_for_the_next_request(world: World) -> None:
    world.files["a.test"] = Response(200, delegated("d.test:1"))
    world.web.delay("", 0.3)
    discovery = world.discovery()

    assert failure(discovery, "a.test", 0.1).kind == "timeout"
    assert targets(discovery, "a.test") == [("127.0.0.1", 1)]
    assert len(world.web.requests) == 1


def test_few_servers_are_looked_for_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_discovery, "MAX_SEARCHES", 1)
    world.web.delay("", 0.3)
    discovery = world.discovery()
    began = time.monotonic()

    futures = [event_loop.spawn(targets, discovery, name) for name in ("a.test", "c.test")]

    assert [future.result(5) for future in futures] == [[("127.0.0.1", 8448)]] * 2
    assert time.monotonic() - began > 0.6


def test_few_searches_wait_for_their_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_discovery, "MAX_WAITING", 1)
    world.web.delay("", 0.3)
    discovery = world.discovery()
    first = event_loop.spawn(targets, discovery, "a.test")
    world.web.wait_until(lambda: world.web.requests)

    refused = failure(discovery, "d.test", 5)

    assert refused.kind == "timeout"
    assert first.result(5) == [("127.0.0.1", 8448)]
    assert targets(discovery, "d.test") == [("127.0.0.1", 8448)]


@pytest.mark.parametrize("server", ["x" * 64 + ".test:1", ".".join(["x" * 60] * 4)])
def test_a_name_that_no_dns_server_can_know_is_unreachable(world: World, server: str) -> None:
    assert failure(world.discovery(), server).kind == "unreachable"


def test_a_web_server_that_never_answers_costs_a_bounded_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(well_known, "TIMEOUT_S", 0.3)
    world.web.hang("")
    began = time.monotonic()

    found = world.discovery().locate("a.test")

    assert (found.step, found.hosts) == ("6", (("a.test", 8448),))
    assert time.monotonic() - began < 2


def test_a_server_that_moved_is_found_again(world: World) -> None:
    world.files["a.test"] = Response(200, delegated("d.test:1"))
    discovery = world.discovery()
    targets(discovery, "a.test")
    world.files["a.test"] = Response(200, delegated("c.test:2"))
    world.dns.records["c.test A"] = ["8.8.8.8"]

    kept = targets(discovery, "a.test")
    discovery.forget("a.test")

    assert kept == [("127.0.0.1", 1)]
    assert targets(discovery, "a.test") == [("8.8.8.8", 2)]


def test_a_failure_does_not_forget_what_a_server_lacks_but_its_call_does(world: World) -> None:
    discovery = world.discovery()
    assert discovery.locate("a.test").step == "6"
    world.files["a.test"] = Response(200, delegated("d.test:1"))

    discovery.forget("a.test")
    before = discovery.locate("a.test").step
    discovery.forget("a.test", also_missing=True)

    assert (before, discovery.locate("a.test").step) == ("6", "3.2")


@pytest.mark.parametrize(
    ("headers", "shortest", "longest"),
    [
        ({}, 0.9 * 86_400, 1.1 * 86_400),
        ({"Cache-Control": "public, max-age=7200"}, 7200, 7200),
        ({"Cache-Control": 'max-age="7200"'}, 7200, 7200),
        ({"Cache-Control": "max-age=7200", "Expires": "0"}, 7200, 7200),
        ({"Cache-Control": "max-age=1"}, 300, 300),
        ({"Cache-Control": "no-store"}, 300, 300),
        ({"Cache-Control": "max-age=-5"}, 0.9 * 86_400, 1.1 * 86_400),
        ({"Cache-Control": "max-age=" + "9" * 30}, 172_800, 172_800),
        ({"Expires": "Fri, 01 Jan 2100 00:00:00 GMT"}, 172_800, 172_800),
        ({"Expires": "Fri, 01 Jan 1999 00:00:00 GMT"}, 300, 300),
        ({"Expires": "0"}, 300, 300),
    ],
)
def test_headers_say_how_long_a_file_is_valid_within_bounds(
    world: World, headers: dict[str, str], shortest: float, longest: float
) -> None:
    world.files["a.test"] = Response(200, delegated("d.test:1"), headers)

    found = world.discovery().well_known.get("a.test")

    assert shortest <= found.seconds <= longest


def test_a_failure_is_kept_for_an_hour_or_two_minutes_if_there_was_a_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("homebody.outside.expiring.time.monotonic", lambda: now)
    files = world.discovery().well_known

    def is_asked_again() -> bool:
        before = len(world.web.requests)
        files.get("a.test")
        return len(world.web.requests) > before

    assert is_asked_again()
    now += 3500
    assert not is_asked_again()
    now += 200
    world.files["a.test"] = Response(200, delegated("d.test"), {"Cache-Control": "max-age=300"})
    assert is_asked_again()
    now += 301
    world.files["a.test"] = Response(502)
    assert is_asked_again()
    now += 110
    assert not is_asked_again()
    now += 20
    assert is_asked_again()


def test_few_names_are_kept_in_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "MAX_NAMES", 3)
    discovery = world.discovery()

    for number in range(20):
        failure(discovery, f"dead{number}.test:1")

    assert len(discovery.resolver._answers._entries) == 3  # noqa: SLF001 - memory can't be seen from outside
