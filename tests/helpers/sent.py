"""What a server has sent to others, and how far they have got."""

from __future__ import annotations

from sqlalchemy import select

from homebody.core import outgoing
from homebody.core.outgoing import Progress
from homebody.core.timeline import sending
from homebody.core.timeline.sending import Draft
from homebody.models.outgoing import FederationLogRow
from homebody.storage.database import Database
from homebody.web import Application
from tests.helpers.remote import Remote
from tests.helpers.shared_rooms import bodies
from tests.helpers.waiting import wait_for

SEND = "/send/"


def sent(remote: Remote) -> list[tuple[str, bytes]]:
    """The (path, body) of each request that a server has got, also of those that it refused."""
    return [(it.path, it.body) for it in remote.received(SEND)]


def progress(app: Application) -> dict[str, Progress]:
    with app.homeserver.database.read() as tx:
        return {it.server: it for it in outgoing.all_progress(tx)}


def logged(app: Application) -> int:
    with app.homeserver.database.read() as tx:
        return len(tx.sql.execute(select(FederationLogRow)))


def send_as(db: Database, room_id: str, user_id: str, text: str) -> None:
    """Send a message without the client's API."""
    with db.write() as tx:
        content = {"msgtype": "m.text", "body": text}
        sending.send(tx, Draft(room_id, user_id, "m.room.message", content))


def send_reliably(app: Application, server: str, number: int) -> None:
    with app.homeserver.database.write() as tx:
        outgoing.send_edu(tx, [server], "m.direct_to_device", {"n": number})


def rows_for(app: Application, server: str) -> int:
    """Return how many EDUs wait in the outbox."""
    with app.homeserver.database.read() as tx:
        return len(outgoing.edus(tx, server, 0, 1000))


def wait_until_saved(app: Application) -> None:
    """Wait until the database says that all servers have everything."""

    def is_saved() -> bool:
        with app.homeserver.database.read() as tx:
            to_all, last = outgoing.sent_to_all(tx), outgoing.last_position(tx)
            places = [it.sent_upto for it in outgoing.all_progress(tx)]
        return (to_all or 0) >= last and places.count(None) == len(places)

    wait_for(is_saved, "the end of sending")


def wait_until_got(remote: Remote, text: str) -> None:
    remote.wait_until(lambda: text in bodies(remote), text)
