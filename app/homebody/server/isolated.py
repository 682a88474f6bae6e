"""Run gunicorn as __main__.py does, in a process that can't connect to anything.

A server that is started on a backup to try it has the queues of the real one: without this, it
would send messages to bridges, push gateways, mail servers and other homeservers a second time.
"""

from __future__ import annotations

import errno
import runpy
import sys
from typing import Final

REFUSED: Final = frozenset({
    "socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
    "socket.gethostbyname", "socket.gethostbyaddr", "os.posix_spawn", "os.exec", "os.system",
    "subprocess.Popen",
})  # fmt: skip
"""The audit events of Python by which something could leave the process. The hook can't be
removed, and is inherited by the workers."""


def refuse(event: str, _args: tuple[object, ...]) -> None:
    """Raise PermissionError for one of these events."""
    if event in REFUSED:
        raise PermissionError(errno.EACCES, f"{event} is refused in a trial of a backup")


if __name__ == "__main__":
    sys.addaudithook(refuse)
    runpy.run_module("homebody.server", run_name="__main__")
