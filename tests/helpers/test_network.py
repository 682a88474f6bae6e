"""The two servers that the fixture `two_servers` starts, and the links between them."""

from __future__ import annotations

import json
import socket

import pytest

from tests.helpers import certificates
from tests.helpers.network import Homebody, Network


def keys_over_link(network: Network, source: Homebody, target: Homebody) -> str:
    """Return the name of the server whose keys are at the end of a link."""
    port = network.link(source, target).port
    context = certificates.client_context()
    request = b"GET /_matrix/key/v2/server HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=target.name) as secure,
    ):
        secure.sendall(request)
        response = b"".join(iter(lambda: secure.recv(65_536), b""))
    name: str = json.loads(response.split(b"\r\n\r\n", 1)[1])["server_name"]
    return name


def test_each_server_is_at_the_end_of_the_links_to_it(two_servers: Network) -> None:
    a, b = two_servers

    assert keys_over_link(two_servers, a, b) == "b.test"
    assert keys_over_link(two_servers, b, a) == "a.test"
    assert a.person("alice").user_id.endswith(":a.test")


def test_a_partition_holds_until_it_is_mended(two_servers: Network) -> None:
    a, b = two_servers

    two_servers.partition()
    with pytest.raises(OSError):  # noqa: PT011 - reset or end of file, as it happens
        keys_over_link(two_servers, a, b)
    two_servers.heal()

    assert keys_over_link(two_servers, a, b) == "b.test"


def test_a_server_comes_back_with_its_data(two_servers: Network) -> None:
    b = two_servers["b.test"]
    bob = b.person("bob")
    room_id = bob.create_room()

    b.restart(kill=True)
    bob.server = b.running

    assert bob.ask("GET", "/joined_rooms")["joined_rooms"] == [room_id]
