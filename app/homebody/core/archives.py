"""Archives of users' data: where they are, and that they go with the account.

core/administration/export.py writes them, as a task.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from homebody.core import tasks
from homebody.storage.database import Reader, Tx

ACTION: Final = "export_user_data"
"""The name of the task."""
FOLDER: Final = "exports"


def path_of(data_dir: Path, task_id: str) -> Path:
    """Return where the archive of a task is, once it is complete."""
    return data_dir / FOLDER / f"{task_id}.zip"


def forget(tx: Tx, user_id: str) -> None:
    """Cancel a user's exports, and delete the archives after the COMMIT."""
    data_dir = tx.server.config.data_dir
    for task in tasks.select_tasks(tx, actions=(ACTION,), resource_id=user_id):
        tasks.record(tx, task.id, tasks.CANCELLED)
        path = path_of(data_dir, task.id)
        tx.after_commit(functools.partial(path.unlink, missing_ok=True))


def wanted(tx: Reader) -> set[str]:
    """Return the IDs of the tasks that have archives, or are about to have one."""
    statuses = (tasks.SCHEDULED, tasks.ACTIVE, tasks.COMPLETE)
    found = tasks.select_tasks(tx, actions=(ACTION,), statuses=statuses)
    return {task.id for task in found}
