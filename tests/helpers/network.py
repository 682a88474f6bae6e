"""Several homebodies under gunicorn that talk to each other, with a relay for each direction.

a, b = network["a.test"], network["b.test"]
alice, bob = a.person("alice"), b.person("bob")
network.link(a, b).delay_s = 0.1     # requests of a to b, and their responses
network.partition()                  # nobody reaches anybody, until network.heal()
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers import certificates
from tests.helpers import server as real_server
from tests.helpers.live import Person
from tests.helpers.relay import Break, Relay
from tests.helpers.server import RunningServer


class Homebody:
    """A server of the network."""

    _numbers = itertools.count(1)

    def __init__(self, name: str, data_dir: Path, port: int, settings: dict[str, str]) -> None:
        self.name = name
        self.data_dir = data_dir
        self._settings = {
            "server_name": name,
            "bind": f"127.0.0.1:{port}",
            "public_url": f"http://127.0.0.1:{port}",
            "registration": "open",
            "registration_open_to_all": "true",
            "federation": "true",
            "outside_allowed": "127.0.0.0/8",
            **settings,
        }
        self.persons: list[Person] = []
        self.relay: Relay
        """Where others reach it; set where one is started."""
        self.running = self._start()

    def _start(self) -> RunningServer:
        running = real_server.launch(self.data_dir, **self._settings)
        running.url = self._settings["public_url"]
        real_server.wait_until_it_answers(running)
        return running

    def restart(self, *, kill: bool = False) -> None:
        """Stop the server, or kill it, and start it on the same data."""
        self.stop(kill=kill)
        self.start()

    def stop(self, *, kill: bool = False) -> None:
        """Stop the server, or kill it."""
        if kill:
            self.running.kill()
        else:
            self.running.stop()

    def start(self) -> None:
        """Start the server after a stop. Clients of before need `person.server = a.running`."""
        self.running = self._start()

    def person(self, name: str) -> Person:
        """Register a user, whose name gets a number, as tests share the servers."""
        person = Person(self.running, f"{name}{next(self._numbers)}")
        self.persons.append(person)
        return person


class Network:
    """The servers by name, and the links between them."""

    def __init__(
        self,
        folder: Path,
        names: tuple[str, ...],
        settings: dict[str, str],
        listen: Callable[[], socket.socket | None],
    ) -> None:
        ca_file = str(certificates.write_authority(folder))
        ports = {name: real_server.free_port() for name in names}
        self._links = {
            (source, target): Relay(certificates.server_context(target), ports[target], listen())
            for source, target in itertools.permutations(names, 2)
        }
        self._servers: dict[str, Homebody] = {}
        try:
            for name in names:
                data_dir = folder / name
                data_dir.mkdir()
                given = {
                    "federation_hosts": self._hosts(name),
                    "federation_ca_file": ca_file,
                }
                self._servers[name] = Homebody(name, data_dir, ports[name], {**given, **settings})
        except BaseException:
            self.close()
            raise

    def _hosts(self, source: str) -> str:
        """Return where this server finds the others, as TOML."""
        pairs = (
            f'"{target}" = "{relay.address}"'
            for (one, target), relay in self._links.items()
            if one == source
        )
        return f"{{ {', '.join(pairs)} }}"

    def __getitem__(self, name: str) -> Homebody:
        return self._servers[name]

    def __iter__(self) -> Iterator[Homebody]:
        return iter(self._servers.values())

    def link(self, source: Homebody, target: Homebody) -> Relay:
        """Return the relay for the requests of one server to another."""
        return self._links[source.name, target.name]

    def partition(self, *servers: Homebody, how: Break = "refuse") -> None:
        """Interrupt all links, or those from and to these servers."""
        names = {server.name for server in servers or self}
        for pair, relay in self._links.items():
            if names & set(pair):
                relay.interrupt(how)

    def heal(self) -> None:
        """Repair all links."""
        for relay in self._links.values():
            relay.heal()

    def tidy(self) -> None:
        """Be ready for the next test: repair links, start what was stopped, disconnect clients."""
        self.heal()
        for server in self:
            while server.persons:
                server.persons.pop().close()
            if server.running.process.poll() is not None:
                server.start()

    def close(self) -> None:
        """Stop all servers and links."""
        for server in self:
            server.stop()
        for relay in self._links.values():
            relay.close()


@contextmanager
def running(
    folder: Path,
    names: tuple[str, ...] = ("a.test", "b.test"),
    listen: Callable[[], socket.socket | None] = lambda: None,
    **settings: str,
) -> Iterator[Network]:
    """Run servers of these names within the block, with these settings.

    `listen` makes the socket on which a server is reached; the default is one on loopback.
    """
    network = Network(folder, names, settings, listen)
    try:
        yield network
    finally:
        network.close()
