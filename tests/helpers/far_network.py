"""A network that loses packets: a network namespace of Linux, for which one has to be root.

What listens there is reached as over a cable. While that is cut, packets are lost in both
directions, and neither side of a connection notices; an interrupted relay closes connections.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_NOBODY = "02:00:00:00:00:fe"
"""The hardware address of no interface."""


class FarNetwork:
    """The namespace, and the cable to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        number = os.getpid()
        first = f"10.{128 + (number >> 14 & 63)}.{number >> 6 & 255}."
        self.near, self.far = (f"{first}{(number << 2 & 252) + it}" for it in (1, 2))
        self._cable = f"hb{number}"
        _ip("netns", "add", name)
        try:
            far_end = ("peer", "name", "far", "netns", name)
            _ip("link", "add", self._cable, "type", "veth", *far_end)
            _ip("address", "add", f"{self.near}/30", "dev", self._cable)
            _ip("link", "set", self._cable, "up")
            self._there("address", "add", f"{self.far}/30", "dev", "far")
            self._there("link", "set", "far", "up")
        except BaseException:
            self.close()
            raise

    def listener(self) -> socket.socket:
        """Return a socket that listens on a free port of the far address."""
        made: list[socket.socket] = []

        def make() -> None:  # in a thread of its own, which stays in the namespace
            with Path("/run/netns", self.name).open("rb") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _NEW_NETWORK):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server((self.far, 0), backlog=128))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def cut(self) -> None:
        """Lose all packets from now on."""
        _ip("neighbour", "replace", self.far, *self._lost(self._cable))
        self._there("neighbour", "replace", self.near, *self._lost("far"))

    def mend(self) -> None:
        """Let packets through again."""
        _ip("neighbour", "delete", self.far, "dev", self._cable)
        self._there("neighbour", "delete", self.near, "dev", "far")

    def close(self) -> None:
        """Delete the cable, at once, and the namespace, which takes a moment."""
        with suppress(subprocess.CalledProcessError):  # it may never have been there
            _ip("link", "delete", self._cable)
        _ip("netns", "delete", self.name)

    def _there(self, *words: str) -> None:
        _ip("-netns", self.name, *words)

    def _lost(self, device: str) -> tuple[str, ...]:
        return ("lladdr", _NOBODY, "dev", device, "nud", "permanent")


def problem() -> str:
    """Return why there can be no such network; "" if there can."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    if shutil.which("ip") is None:
        return "there is no command ip"
    try:
        with running("homebody-probe"):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"there are no network namespaces: {error}"


@contextmanager
def running(name: str) -> Iterator[FarNetwork]:
    """Make a network that is there within the block."""
    network = FarNetwork(f"{name}-{os.getpid()}")
    try:
        yield network
    finally:
        network.close()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
