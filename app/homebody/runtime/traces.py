"""Traces: how a command sees the requests of one user while the server runs.

The command binds a Unix datagram socket in the folder `traces` of the data folder, named by a hash
of the user ID. The running server finds it, greets it, and from then on sends a datagram at the end
of each request of that user, without ever waiting: what does not fit into the queue of the socket
is dropped and counted. A trace ends when its socket is gone. Sockets of commands that were killed
are removed.

web/tracing.py says what the datagrams contain.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import orjson

LOG = logging.getLogger(__name__)

FOLDER_NAME: Final = "traces"
MAX_BYTES: Final = 16 * 2**10
"""Of a datagram."""
MAX_TRACES: Final = 20
"""At a time; others are not served."""
GREETING: Final = {"is_greeting": True}
_GONE: Final = {errno.ENOENT, errno.ECONNREFUSED}


class Traces:
    """The traces that run at the moment, for the server."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER_NAME
        self.sockets: dict[str, int] = {}
        """How many datagrams each socket has missed, by its name; empty while there is no trace."""

    def refresh(self) -> None:
        """Look for new sockets, and forget those that are gone."""
        before = self.sockets
        try:
            with _sender(self._folder) as (sender, at):
                names = sorted(it.name for it in self._folder.iterdir() if _is_socket(it))
                names = names[:MAX_TRACES]
                alive = [name for name in names if self._is_alive(sender, at, name)]
                self.sockets = {name: before.get(name, 0) for name in alive}
                for name in alive:
                    if name not in before:
                        self._send(sender, at, name, GREETING)
        except FileNotFoundError:
            self.sockets = {}
        except OSError as problem:
            self.sockets = {}
            LOG.warning("can't serve traces: %s", problem)

    def follows(self, user_id: str) -> bool:
        """Return whether there is a trace of this user."""
        return any(True for _ in self._of(user_id))

    def send(self, user_id: str, message: dict[str, Any]) -> None:
        """Send a message to the traces of this user."""
        try:
            with _sender(self._folder) as (sender, at):
                for name in list(self._of(user_id)):
                    self._send(sender, at, name, message)
        except OSError as problem:
            LOG.debug("can't send to traces: %s", problem)

    def _of(self, user_id: str) -> Iterator[str]:
        prefix = _prefix(user_id)
        return (name for name in self.sockets if name.startswith(prefix))

    def _is_alive(self, sender: socket.socket, at: str, name: str) -> bool:
        try:
            sender.connect(f"{at}/{name}")
        except OSError as problem:
            if problem.errno == errno.ECONNREFUSED:  # its command was killed
                (self._folder / name).unlink(missing_ok=True)
            elif problem.errno not in _GONE:
                LOG.warning("can't serve a trace: %s", problem)
            return False
        return True

    def _send(self, sender: socket.socket, at: str, name: str, message: dict[str, Any]) -> None:
        try:
            data = orjson.dumps({**message, "dropped": self.sockets[name]})
            sender.sendto(data, f"{at}/{name}")
        except OSError as problem:
            if problem.errno in _GONE:
                self.sockets.pop(name, None)
            else:  # its queue is full
                self.sockets[name] += 1
        else:
            self.sockets[name] = 0


@contextmanager
def listening(data_dir: Path, user_id: str) -> Iterator[socket.socket]:
    """Bind a socket for a trace of this user, and remove it in the end.

    The socket belongs to the owner of the data folder, so that the server has access to it if root
    runs the command. The folder is not named again once it is open: its owner could replace it.
    """
    folder, owner = data_dir / FOLDER_NAME, data_dir.stat()
    is_new = _make(folder)
    name = f"{_prefix(user_id)}{secrets.token_hex(4)}"
    with _socket() as bound, _opened(folder) as descriptor:
        is_root = os.geteuid() == 0
        if is_root and is_new:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        try:
            bound.bind(f"{_short_path(descriptor)}/.{name}")
            if is_root:
                owners = (owner.st_uid, owner.st_gid)
                os.chown(f".{name}", *owners, dir_fd=descriptor, follow_symlinks=False)
            # Only now the server sees it
            os.rename(f".{name}", name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
            yield bound
        finally:
            for it in (name, f".{name}"):
                with suppress(FileNotFoundError):
                    os.unlink(it, dir_fd=descriptor)


def _make(folder: Path) -> bool:
    """Return whether the folder had to be created."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return False
    return True


def _is_socket(path: Path) -> bool:
    try:
        return path.name[:1] != "." and stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return False


def _prefix(user_id: str) -> str:
    return f"{hashlib.sha256(user_id.encode()).hexdigest()[:16]}-"


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


@contextmanager
def _sender(folder: Path) -> Iterator[tuple[socket.socket, str]]:
    """Open a socket that never waits; yield it with a short path of the folder."""
    with _opened(folder) as descriptor, _socket() as sender:
        sender.settimeout(0)
        yield sender, _short_path(descriptor)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _short_path(descriptor: int) -> str:
    """Return a path of an open folder to which a socket's name can be added.

    Linux allows 107 bytes for the path of a socket, and data folders may have longer ones.
    """
    return f"/proc/self/fd/{descriptor}"
