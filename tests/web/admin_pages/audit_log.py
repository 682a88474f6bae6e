"""What the audit log says about an action."""

from __future__ import annotations

from homebody.core import audit
from homebody.web import Application


def last_action(app: Application) -> tuple[str, str, str | None]:
    """The latest entry: administrator, action, subject."""
    with app.homeserver.database.read() as tx:
        (entry,) = audit.latest(tx, 1)
    return entry["actor"], entry["action"], entry["subject"]
