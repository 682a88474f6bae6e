"""A federation client in a process with gevent's patches; it prints what it experienced as JSON.

Its peers, greenlets, send a byte of a TLS record or of a handshake now and then, or
nothing, and no DNS server answers.
"""

# ruff: noqa: E402 - the patches come first

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import itertools
import json
import socket
import ssl
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gevent

from homebody.config import settings
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient
from homebody.spec.signing import SigningKey
from tests.helpers import certificates

TIMEOUT_S = 0.6


def trickle_record(listener: Any) -> None:
    """Complete the handshake, then send the one record of the response byte by byte."""
    connection, _ = listener.accept()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = certificates.server_context("b.test").wrap_bio(incoming, outgoing, server_side=True)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            connection.sendall(outgoing.read())
            incoming.write(connection.recv(65_536))
    tls.write(b"HTTP/1.1 200 OK\r\nContent-Length: 16000\r\n\r\n" + b" " * 16_000)
    for byte in outgoing.read():
        connection.sendall(bytes([byte]))
        gevent.sleep(0.02)


def trickle_handshake(listener: Any) -> None:
    """Send the beginning of a handshake record byte by byte."""
    connection, _ = listener.accept()
    for byte in b"\x16\x03\x03\x40\x00" + b"\x02" * 16_384:
        connection.sendall(bytes([byte]))
        gevent.sleep(0.02)


def silent(listener: Any) -> None:
    """Accept, and say nothing."""
    _connection = listener.accept()
    gevent.sleep(60)


def main() -> None:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    for serve, listener in zip((trickle_record, trickle_handshake, silent), listeners, strict=True):
        gevent.spawn(serve, listener)
    names = ["b.test", "c.test", "d.test"]
    hosts = ", ".join(
        f'"{name}" = "127.0.0.1:{listener.getsockname()[1]}"'
        for name, listener in zip(names, listeners, strict=True)
    )
    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dns.bind(("127.0.0.1", 0))  # and never answer
    with tempfile.TemporaryDirectory() as folder:
        given = {
            "federation": "true",
            "federation_hosts": f"{{{hosts}}}",
            "dns_servers": f"127.0.0.1:{dns.getsockname()[1]}",
            "federation_ca_file": str(certificates.write_authority(Path(folder))),
        }
        key = SigningKey.from_seed("a_1", b"x" * 32)
        client = FederationClient(settings.load(None, {}, given), "a.test", key)

    def fail(name: str) -> str:
        try:
            client.request(name, "GET", "/x", timeout_s=TIMEOUT_S)
        except RemoteError as error:
            return error.kind
        return "none"

    ticks = []

    def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            gevent.sleep(0.01)

    gevent.spawn(tick)
    began = time.monotonic()
    requests = [gevent.spawn(fail, name) for name in [*names, "e.test:1"]]
    kinds = [request.get() for request in requests]
    pauses = [later - earlier for earlier, later in itertools.pairwise(ticks)]
    result = {
        "kinds": kinds,
        "seconds": time.monotonic() - began,
        "ticks": len(ticks),
        "longest_ms": max(pauses) * 1000,
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
