"""The class of the worker object in gunicorn's master.

The master creates the object before it forks, and only waits from then on. If it imported worker.py
for that, gevent and half of this server would stay in its memory.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

from gunicorn.workers.base_async import AsyncWorker

if TYPE_CHECKING:
    from types import FrameType

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


class Starter(AsyncWorker):
    """A worker that becomes a homebody.server.worker.Worker after the fork."""

    is_reload_due: bool
    """Whether SIGHUP came while the application was being created, perhaps of older settings."""

    def init_process(self) -> None:
        """Set the process up and serve.

        Ctrl-C sends SIGINT to this process and to the master, which then sends SIGQUIT. Before
        Worker.run, either exits at once. After it they are ignored: Python removes its handlers
        while it exits, and a signal would kill the process.
        """
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: os._exit(0))
        signal.signal(signal.SIGHUP, self._note_reload)
        from homebody.server.worker import Worker  # noqa: PLC0415 - see the module

        self.__class__ = Worker  # type: ignore[assignment] # gunicorn holds on to this object
        try:
            self.init_process()
        finally:
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)

    def _note_reload(self, _signal: int, _frame: FrameType | None) -> None:
        self.is_reload_due = True
