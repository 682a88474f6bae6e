"""What gunicorn's master knows of its worker: as much as it takes to fork.

The master makes its worker object before it forks, and only waits from then on. With app/worker.py,
where that object's class really is, gevent and half of this server would stay in its memory.
"""

from __future__ import annotations

from gunicorn.workers.base_async import AsyncWorker


class Starter(AsyncWorker):
    """Becomes app.worker.Worker in the process that the fork made."""

    def init_process(self) -> None:
        """Set the process up and serve."""
        from app.worker import Worker  # noqa: PLC0415 - see the module

        self.__class__ = Worker  # type: ignore[assignment] # gunicorn holds on to this object
        self.init_process()
