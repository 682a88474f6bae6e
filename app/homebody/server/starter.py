"""What gunicorn's master knows of its worker: as much as it takes to fork.

The master makes its worker object before it forks, and only waits from then on. With worker.py,
where that object's class really is, gevent and half of this server would stay in its memory.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from gunicorn.workers.base_async import AsyncWorker

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


class Starter(AsyncWorker):
    """Becomes homebody.server.worker.Worker in the process that the fork made."""

    def init_process(self) -> None:
        """Set the process up and serve.

        Ctrl-C sends SIGINT to this process and to the master, which sends SIGQUIT on. Before there
        is a server to be stopped (Worker.run), either ends the process at once; after it has
        stopped they are ignored, as Python gives up its handlers at its end and the signal would
        kill what is about to end by itself.
        """
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: os._exit(0))
        from homebody.server.worker import Worker  # noqa: PLC0415 - see the module

        self.__class__ = Worker  # type: ignore[assignment] # gunicorn holds on to this object
        try:
            self.init_process()
        finally:
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
