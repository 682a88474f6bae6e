"""A link between two servers: takes TLS, passes plain bytes on, and can be slow or broken.

homebody leaves TLS to a proxy; here that is the relay. There is one for each direction between two
servers, so that tests can slow down, cut or interrupt one of them.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Literal

_PIECE_BYTES = 65_536
_SECONDS = 60.0
Break = Literal["refuse", "hang"]


class Relay:
    """A listener on loopback; what comes in goes to the target.

    `delay_s`: the time that a message takes in each direction. `cut_after_bytes`: close a
    connection after so many bytes of responses.
    """

    def __init__(
        self, context: ssl.SSLContext, target_port: int, listener: socket.socket | None = None
    ) -> None:
        self.target_port = target_port
        self.delay_s = 0.0
        self.cut_after_bytes: float = float("inf")
        self.connections = 0
        """How many there have been."""
        self._broken: Break | None = None
        self._context = context
        self._open: set[socket.socket] = set()
        self._ended = threading.Event()
        self._listener = listener or socket.create_server(("127.0.0.1", 0), backlog=128)
        host, self.port = self._listener.getsockname()
        self.address = f"{host}:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def interrupt(self, how: Break = "refuse") -> None:
        """Close all connections, and refuse new ones, or accept them and never respond."""
        self._broken = how
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        """Let everything through again, at once and whole."""
        self._broken, self.delay_s, self.cut_after_bytes = None, 0.0, float("inf")

    def close(self) -> None:
        """Close the listener and all connections."""
        self._ended.set()
        self.interrupt()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._relay, args=(connection,), daemon=True).start()

    def _relay(self, raw: socket.socket) -> None:
        """Handle a connection."""
        with suppress(OSError), raw:
            raw.settimeout(_SECONDS)
            if self._broken == "hang":
                self._ended.wait()
            if self._broken:
                return
            with (
                self._context.wrap_socket(raw, server_side=True) as client,
                socket.create_connection(("127.0.0.1", self.target_port), _SECONDS) as server,
            ):
                self._open |= {client, server}
                try:
                    self._pump(client, server)
                finally:
                    self._open -= {client, server}

    def _pump(self, client: ssl.SSLSocket, server: socket.socket) -> None:
        """Pass bytes on until one side closes.

        Both directions are in one thread, as a TLS connection can't be used by two.
        """
        left, before = self.cut_after_bytes, None
        while not self._broken:
            ready = [client] if client.pending() else select.select([client, server], [], [], 1)[0]
            for source in ready:
                data = source.recv(_PIECE_BYTES)
                if not data:
                    return
                if source is not before and self.delay_s:  # the first piece of a message
                    time.sleep(self.delay_s)
                before = source
                if source is client:
                    server.sendall(data)
                    left = min(left, self.cut_after_bytes)
                    continue
                client.sendall(data[: int(min(left, len(data)))])
                left -= len(data)
                if left <= 0:
                    return
