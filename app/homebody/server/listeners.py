"""The sockets on which the server listens.

They are opened before the database is touched, so that a port in use stops the start at once, and
gunicorn gets their descriptors. If systemd has opened sockets (socket activation), gunicorn takes
those instead.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from homebody.config.values import is_unix_socket
from homebody.storage.data_folder import StartError

_FIRST_OF_SYSTEMD: Final = 3
_UNIX_MODE: Final = 0o666
"""All users who may enter its folder may connect, as with a port of this machine."""
_PREFIX: Final = "unix:"


def activated(environ: Mapping[str, str]) -> list[str]:
    """Return the addresses of the sockets that systemd has opened for this process."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(environ.get("LISTEN_FDS", "0"))
    found = []
    for descriptor in range(_FIRST_OF_SYSTEMD, _FIRST_OF_SYSTEMD + count):
        with socket.socket(fileno=os.dup(descriptor)) as listener:
            found.append(address_of(listener))
    return found


def open_all(addresses: Sequence[str]) -> list[socket.socket]:
    """Return bound sockets for addresses as in the setting bind. Raises StartError."""
    wildcards = {it.rpartition(":")[2] for it in addresses if it.startswith("0.0.0.0:")}
    return [_opened(it, wildcards) for it in addresses]


def _opened(address: str, wildcards: set[str]) -> socket.socket:
    family = socket.AF_INET6 if address.startswith("[") else socket.AF_INET
    listener = socket.socket(socket.AF_UNIX if is_unix_socket(address) else family)
    try:
        if is_unix_socket(address):
            _bind_unix(listener, Path(address.removeprefix(_PREFIX)))
        else:
            _bind(listener, address, wildcards)
    except OSError as error:
        listener.close()
        raise StartError(f"Can't listen on {address}: {error.strerror}") from error
    return listener


def _bind(listener: socket.socket, address: str, wildcards: set[str]) -> None:
    host, _, port = address.rpartition(":")
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET6 and port in wildcards:
        # else [::] has the port of IPv4 as well
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind((host.strip("[]"), int(port)))


def _bind_unix(listener: socket.socket, path: Path) -> None:
    """Bind a socket to a path, in place of one that a killed server has left there."""
    try:
        listener.bind(str(path))
    except OSError:
        if not path.is_socket() or _is_served(path):
            raise
        path.unlink()
        listener.bind(str(path))
    path.chmod(_UNIX_MODE)


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def address_of(listener: Any) -> str:
    """Return where a socket listens, as in the setting bind."""
    name = listener.getsockname()
    if isinstance(name, str):
        return f"{_PREFIX}{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def remove(address: str) -> None:
    """Remove the file of a Unix socket that nobody serves any more."""
    path = Path(address.removeprefix(_PREFIX))
    if is_unix_socket(address) and path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        path.unlink()
