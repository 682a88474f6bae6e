"""Deliver rows of the outbox as mails about unread messages; see core/push/mail_notices.py.

Spec: client-server-api#post_matrixclientv3pushersset
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from homebody.background.delivery import Kind
from homebody.core import outbox
from homebody.core.outbox import Row
from homebody.core.push import mail_notices, pushers
from homebody.outside import RemoteError, mail
from homebody.storage.database import Database

LOG = logging.getLogger(__name__)

KEPT_MS: Final = 24 * 3_600_000
"""Mails about yesterday's messages are useless when the mail server is back."""
MAX_WAIT_MS: Final = 15 * 60_000


def _deliver(db: Database, destination: str, rows: Sequence[Row]) -> int:
    """Send a mail if it is due, and add a row for the next check.

    The old row is replaced by the new one in one write transaction, so that a message that arrives
    meanwhile finds one of them.
    """
    row = rows[0]
    with db.read() as tx:
        mailbox = pushers.mailbox(tx, destination)
        news = None if mailbox is None else mail_notices.news(tx, mailbox, row.payload)
    if mailbox is None or news is None:
        _end(db, destination, row)
        return 1
    settings = db.server.config.push
    if news.is_due:
        _send(db, mailbox, news.message)
        wait_ms, after = settings.mail_interval_ms, news.newest
    else:
        wait_ms, after = settings.mail_delay_ms, row.payload["after"]
    with db.write() as writing:
        payload = {"after": after, "upto": news.newest}
        at = writing.now_ms + wait_ms
        outbox.replace(writing, pushers.MAIL_KIND, destination, row, payload, at)
    return 1


KIND: Final = Kind(_deliver, max_wait_ms=MAX_WAIT_MS, kept_ms=KEPT_MS)


def _end(db: Database, destination: str, row: Row) -> None:
    """Remove the row, unless another message has become unread meanwhile."""
    with db.write() as tx:
        mailbox = pushers.mailbox(tx, destination)
        if mailbox is None or mail_notices.news(tx, mailbox, row.payload) is None:
            outbox.remove(tx, [row.id])
            return
        payload = {"after": row.payload["after"], "upto": tx.position}
        at = tx.now_ms + tx.server.config.push.mail_delay_ms
        outbox.replace(tx, pushers.MAIL_KIND, destination, row, payload, at)


def _send(db: Database, mailbox: pushers.Mailbox, message: mail.Message) -> None:
    """Send a mail. Raises RemoteError when the mail server can't accept it now."""
    try:
        mail.send(db.server.config, mailbox.address, message)
    except mail.RefusedError as error:  # not to be repeated before the next message
        LOG.warning("no mail to %s: %s", mailbox.address, error)
    except mail.MailError as error:
        raise RemoteError("unreachable", f"the mail server: {error}") from error
