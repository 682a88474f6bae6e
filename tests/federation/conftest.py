"""homebody and a real Synapse with TLS in both directions; `make federation` runs these tests.

They are marked `federation`. `tests/federation/install` installs Synapse; without it there are no
tests here. HOMEBODY_TEST_PEERS=synapse runs them between two Synapses: a test that fails there is
wrong itself. HOMEBODY_TEST_PEERS=homebody runs them between two homebodies.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.federation import synapse as synapses
from tests.federation.synapse import Synapse
from tests.federation.users import Home, User
from tests.helpers import certificates
from tests.helpers import server as real_server
from tests.helpers.network import Homebody
from tests.helpers.relay import Relay

_HERE = Path(__file__).parent
_LAST_OUTPUT = 10_000  # characters of it, in the report of a failure

collect_ignore_glob = [] if synapses.PYTHON.exists() else ["test_*.py"]
if not importlib.util.find_spec("nio"):
    collect_ignore_glob.append("test_encryption.py")  # needs tests/clients/install


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.federation)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the output of both servers with a failure."""
    report = yield
    homes = getattr(item, "funcargs", {}).get("homes", {})
    if report.failed:
        for name, home in homes.items():
            report.sections.append((f"output of {name}", home.running.output()[-_LAST_OUTPUT:]))
    return report


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Home]]:
    """The two servers of all these tests."""
    only = os.environ.get("HOMEBODY_TEST_PEERS")
    with contextlib.ExitStack() as stack:
        found = {}
        for name in ("homebody", "synapse"):
            start = _homebody if (only or name) == "homebody" else _synapse
            found[name] = stack.enter_context(start(tmp_path_factory.mktemp(name)))
        yield found


@contextlib.contextmanager
def _synapse(folder: Path) -> Iterator[Home]:
    home = Synapse(folder)
    try:
        yield home
    finally:
        home.close()


@contextlib.contextmanager
def _homebody(folder: Path) -> Iterator[Home]:
    """Run a homebody behind a relay, which does TLS and whose address is the server's name."""
    port = real_server.free_port()
    relay = Relay(certificates.server_context("127.0.0.1"), port)
    ca_file = str(certificates.write_authority(folder))
    name = f"127.0.0.1:{relay.port}"
    settings = {"federation_ca_file": ca_file, "registration_shared_secret": "not a secret"}
    home = Homebody(name, folder, port, settings)
    home.relay = relay
    try:
        yield home
    finally:
        home.stop()
        relay.close()


@pytest.fixture
def homes(servers: dict[str, Home]) -> Iterator[dict[str, Home]]:
    """Both servers, running."""
    yield servers
    for home in servers.values():
        while home.persons:
            home.persons.pop().close()
        if home.running.process.poll() is not None:
            home.start()


@pytest.fixture(params=["homebody", "synapse"])
def host(homes: dict[str, Home], request: pytest.FixtureRequest) -> Home:
    """The server that has the room: each of the two in turn."""
    return homes[request.param]


@pytest.fixture
def guest(homes: dict[str, Home], host: Home) -> Home:
    """The other server."""
    return next(home for home in homes.values() if home is not host)


@pytest.fixture
def alice(host: Home) -> User:
    """A user of the server that has the room."""
    return User(host, "alice")


@pytest.fixture
def bob(guest: Home) -> User:
    """A user of the other server."""
    return User(guest, "bob")


@pytest.fixture
def shared_room(alice: User, bob: User) -> str:
    """A public room of Alice that Bob has joined."""
    room_id = alice.create_room(preset="public_chat")
    bob.join_via(room_id, alice.home)
    alice.sees_member(room_id, bob)
    bob.sees_member(room_id, alice)
    return room_id
