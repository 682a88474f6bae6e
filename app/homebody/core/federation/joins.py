"""Joins of users of this server in rooms that it is not in, by way of the servers that are.

    make_join    a server in the room gives a template, which is completed and signed
    joining      the signed join is written down: from now on this server may be in the room
    send_join    the server takes it, and responds with the state of the room
    bulk         the events of the state are checked and stored, as outliers
    enter        the state and the join become the room's, in one write

If the server leaves the members out of its response, the room is a partial one
(core/partial_rooms.py), and they are fetched in the background (partial_joins.py).

Each step may fail, and another server is tried. A join that was sent is sent again, to all servers,
until one has responded; if none does, a leave follows, as others would go on sending events.

Spec: server-server-api#joining-rooms, server-server-api#restricted-rooms
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDoneError
from pathlib import Path
from typing import IO, Final, NamedTuple

import orjson

from homebody import errors
from homebody.core import joining
from homebody.core.events import auth_chains, state
from homebody.core.federation import asking, bulk, partial_joins, pdus, remote_templates
from homebody.core.federation.bulk import Checked
from homebody.core.federation.gap_filler import GapFiller
from homebody.core.federation.inbound import Inbound
from homebody.core.federation.keys import ServerKeys
from homebody.core.federation.partial_joins import PartialJoins
from homebody.core.federation.pdus import Received
from homebody.core.joining import Join
from homebody.core.profiles import profiles
from homebody.core.rooms import blocked, membership
from homebody.core.timeline import forks, joined_rooms, outside_rooms, removal, store
from homebody.core.timeline.joined_rooms import Entries
from homebody.core.timeline.outside_rooms import MAX_SERVERS
from homebody.errors import MatrixError
from homebody.models.events import ACCEPTED
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient, Query, path_of
from homebody.runtime import event_loop
from homebody.runtime.locks import Locks
from homebody.spec import event_auth, events, room_state
from homebody.spec.event_auth import AuthError
from homebody.spec.events import Event, Json
from homebody.storage import scratch
from homebody.storage.database import Database, Reader

LOG = logging.getLogger(__name__)

ANSWERED_WITHIN_S: Final = 20.0
"""A client's request ends then, and the join goes on."""
MAX_BYTES: Final = 256 * 2**20
"""Of the response to send_join."""
SEND_SECONDS: Final = 300.0
OUTLIERS_AT_ONCE: Final = 500
RETRY_AFTER_S: Final = (5.0, 60.0, 600.0)
"""How long to wait before a join is sent again that a server may have taken."""
PASSED_ON: Final = frozenset(
    {
        "M_FORBIDDEN",
        "M_INCOMPATIBLE_ROOM_VERSION",
        "M_NOT_FOUND",
        "M_UNABLE_TO_AUTHORISE_JOIN",
        "M_UNABLE_TO_GRANT_JOIN",
    }
)
"""Errors that clients get as they are, those first that say most."""


class JoinRequest(NamedTuple):
    """A join that a user requests."""

    room_id: str
    user_id: str
    content: Json
    """Of the join, without membership."""
    servers: Sequence[str]
    """Servers that may be in the room."""
    named: Sequence[str] = ()
    """Those of them that the user names. If one of these refuses, the others are not tried."""


class _UncertainError(RemoteError):
    """No server has responded to a join, but one may have taken it."""


class Joins:
    """The joins of this process. Its methods wait, so none may be called inside a transaction."""

    def __init__(
        self,
        db: Database,
        client: FederationClient,
        keys: ServerKeys,
        locks: Locks,
        inbound: Inbound,
        partial_joins: PartialJoins,
        gap_filler: GapFiller,
    ) -> None:
        self._db = db
        self._client = client
        self._keys = keys
        self._locks = locks
        self._inbound = inbound
        self._partial_joins = partial_joins
        self._gap_filler = gap_filler
        self._mutex = threading.Lock()
        self._under_way: dict[str, tuple[str, Future[None]]] = {}
        """(user_id, its end) by room_id."""
        self._stopping = threading.Event()

    def start(self) -> None:
        """Go on with joins that an earlier process has not finished."""
        with self._db.read() as tx:
            begun = joining.every(tx)
        for join in begun:
            event_loop.spawn(self._repeat, join)

    def stop(self) -> None:
        """Stop waiting for another try."""
        self._stopping.set()

    def join(self, request: JoinRequest) -> None:
        """Join a room by way of other servers; returns when the user is in it.

        If it takes long, the join goes on after this has raised M_UNKNOWN (504).
        Raises M_FORBIDDEN for a blocked room, what other servers say (M_FORBIDDEN, M_NOT_FOUND and
        others), or as `asking.error_of`.
        """
        with self._db.read() as tx:
            blocked.check(tx, request.room_id)
        until = time.monotonic() + ANSWERED_WITHIN_S
        while True:
            with self._mutex:
                user_id, end = self._under_way.get(request.room_id, ("", None))
                if end is None:
                    user_id, end = request.user_id, Future()
                    self._under_way[request.room_id] = user_id, end
                    event_loop.spawn(self._run, request, end)
            self._wait(end, until, is_own=user_id == request.user_id)
            if user_id == request.user_id:
                return
            # the other user may have brought this server into the room
            if self._is_joined_here(request):
                return

    def _wait(self, end: Future[None], until: float, *, is_own: bool) -> None:
        """Wait for the end of a join. Raises its error, if it is the user's own."""
        try:
            end.result(max(until - time.monotonic(), 0))
        except NotDoneError:
            sentence = "The join takes long and goes on; the room appears when it is done"
            raise errors.unknown(sentence, 504) from None
        except MatrixError as error:
            if is_own:
                raise MatrixError(
                    error.status, error.errcode, error.message, **error.fields
                ) from error

    def _is_joined_here(self, request: JoinRequest) -> bool:
        with self._db.read() as tx:
            if not joined_rooms.may_join_here(tx, request.room_id, request.user_id):
                return False
        with self._db.write() as tx:
            membership.join(tx, request.room_id, request.user_id, request.content)
        return True

    def _run(self, request: JoinRequest, end: Future[None]) -> None:
        """Join, and say how it ended. Run by a greenlet of its own."""
        problem: BaseException | None = None
        try:
            with self._db.server.metrics.joins.timed():
                self._try_servers(request)
        except MatrixError as error:
            problem = error
        except Exception:
            LOG.exception("%s could not join %s", request.user_id, request.room_id)
            problem = errors.unknown("The join has failed", 500)
        finally:
            with self._mutex:
                del self._under_way[request.room_id]
            if problem is None:
                end.set_result(None)
            else:
                end.set_exception(problem)

    def _try_servers(self, request: JoinRequest) -> None:
        """Join by way of the first server that lets the user in. Raises MatrixError."""
        problems: list[MatrixError] = []
        for server in request.servers[:MAX_SERVERS]:
            if request.named and server not in request.named and any(map(_is_refusal, problems)):
                break
            try:
                join = self._begin(request, server)
                self._send(join)
            except _UncertainError as error:
                event_loop.spawn(self._repeat, join, RETRY_AFTER_S)
                raise error_of(server, error) from error
            except RemoteError as error:
                LOG.info(
                    "%s can't join %s by %s: %s", request.user_id, request.room_id, server, error
                )
                problems.append(error_of(server, error))
            else:
                return
        if not problems:
            raise errors.not_found("No server is known that is in the room")
        raise min(problems, key=rank)

    def _begin(self, request: JoinRequest, server: str) -> Join:
        """Return a signed join, once it is written down. Raises RemoteError."""
        template = remote_templates.ask(
            self._client, server, "join", request.room_id, request.user_id
        )
        now_ms = time.time_ns() // 1_000_000
        event, encoded = remote_templates.complete(
            self._db.server, template, request.content, now_ms
        )
        others = [it for it in request.servers[:MAX_SERVERS] if it != server]
        join = Join(
            request.room_id, request.user_id, event.event_id, encoded.decode(), [server, *others]
        )
        with self._db.write() as tx:
            blocked.check(tx, request.room_id)
            if state.current(tx, request.room_id, *room_state.CREATE) is not None:
                if state.version(tx, request.room_id) != template.version:
                    raise RemoteError("bad_response", f"{server} names another room version")
            else:
                store.begin_anew(tx, request.room_id, template.version.name)
            joining.begin(tx, join)
        return join

    def _repeat(self, join: Join, waits: Collection[float] = (0.0, *RETRY_AFTER_S)) -> None:
        """Send a join again that a server may have taken; leave the room if that fails."""
        for seconds in waits:
            if self._stopping.wait(seconds) or not self._is_wanted(join):
                return
            try:
                self._send(join)
            except (RemoteError, MatrixError) as error:
                LOG.info("the join of %s to %s: %s", join.user_id, join.room_id, error)
                if isinstance(error, _UncertainError):
                    continue
            return
        self._give_up(join, is_taken=True)

    def _is_wanted(self, join: Join) -> bool:
        """Return whether a join is under way still; the user may have joined by another event."""
        with self._db.read() as tx:
            return join in joining.every(tx)

    def _send(self, join: Join) -> None:
        """Send a join to its servers until one responds, and enter the room.

        Raises RemoteError if it was refused, _UncertainError if it may have been taken.
        """
        first: RemoteError | None = None
        is_uncertain = is_taken = False
        for server in join.servers:
            try:
                self._send_to(server, join)
            except RemoteError as error:
                LOG.info("%s does not take the join of %s: %s", server, join.room_id, error)
                first = first or error
                is_uncertain |= _may_have_taken(error)
                is_taken |= error.kind == "bad_response" and error.status is None
                if not is_uncertain and not is_taken:
                    break  # another server needs another template
            else:
                return
        problem = first or RemoteError("unreachable", "There is no server to send the join to")
        if is_uncertain:
            raise _UncertainError(problem.kind, str(problem), status=problem.status)
        self._give_up(join, is_taken=is_taken)
        raise problem

    def _give_up(self, join: Join, *, is_taken: bool) -> None:
        """Forget a join that has failed; leave the room if a server has taken it.

        What was stored of a room that was not known before is deleted: it may be of another version
        than the server said, and so be rejected for ever.
        """
        is_left = True
        while is_left:
            with self._db.write() as tx:
                if state.current(tx, join.room_id, *room_state.CREATE) is not None:
                    break
                is_left = removal.remove_outliers(tx, join.room_id, OUTLIERS_AT_ONCE) > 0
        with self._db.write() as tx:
            joining.end(tx, join.room_id, join.user_id)
            if is_taken:
                outside_rooms.leave_later(tx, join.room_id, join.user_id, join.servers)

    def _send_to(self, server: str, join: Join) -> None:
        """Send a join to a server, and enter the room with its response. Raises RemoteError."""
        with self._db.read() as tx:  # of an earlier stay there are members who may have left
            is_resident = joined_rooms.is_resident(tx, join.room_id)
            may_omit = tx.server.config.partial_joins
            omits_members = is_resident or (
                may_omit and not joined_rooms.is_known(tx, join.room_id)
            )
        query = {"omit_members": "true"} if omits_members else None
        with scratch.file(self._db.server.config.data_dir) as file:
            try:
                self._put(server, join, "v2", query, file)
            except RemoteError as error:
                if not asking.is_unknown_endpoint(error):
                    raise
                self._put(server, join, "v1", query, file)
            file.flush()
            self._enter(server, join, Path(file.name))

    def _put(
        self, server: str, join: Join, version: str, query: Query | None, file: IO[bytes]
    ) -> None:
        """Send a join, and write the response into a file. Raises RemoteError."""
        self._client.download(
            server,
            path_of("send_join", join.room_id, join.event_id, version=version),
            file,
            method="PUT",
            query=query,
            json=join.pdu.encode(),
            timeout_s=SEND_SECONDS,
            max_bytes=MAX_BYTES,
        )

    def _enter(self, server: str, join: Join, response: Path) -> None:
        """Make the response the state of the room. Raises RemoteError if it can't be."""
        with self._db.read() as tx:
            version = state.version(tx, join.room_id)
            is_resident = joined_rooms.is_resident(tx, join.room_id)
            # the administrator has said who is believed about keys: nobody else then
            may_tell_keys = not is_resident and not tx.server.config.trusted_key_servers
        checked = bulk.store_outliers(
            self._db,
            self._keys,
            join.room_id,
            version.name,
            response,
            resident=server if may_tell_keys else None,
        )
        event = Event(join.event_id, orjson.loads(join.pdu), version)
        received = self._as_sent(server, event, checked)
        if is_resident:  # the other server has only authorised the join
            self._enter_from_here(join, received, server)
            return
        entries = {key: (it.number, it.membership) for key, it in checked.state.items()}
        partial = partial_joins.begun(self._db.server, server, join, checked)
        with self._db.read() as tx:
            if partial is not None:
                if joined_rooms.is_known(tx, join.room_id):  # the last user has left meanwhile
                    raise _bad_state(server, "lacks the members, who are needed now")
                entries |= partial_joins.cited_members(tx, event)
            _check(tx, server, received.event, entries)
        joined_rooms.begin_state(self._db, join.room_id, entries)
        with self._locks.own("room", join.room_id), self._db.write() as tx:
            if not joined_rooms.is_resident(tx, join.room_id):
                joined_rooms.enter(tx, join.room_id, version.name, entries, *received, partial)
            joining.end(tx, join.room_id, join.user_id)
            membership.note_join(tx, join.room_id, join.user_id)
        self._inbound.queues.begin(join.room_id)
        self._gap_filler.follow_join(join.room_id)
        if partial is not None:
            self._partial_joins.begin(join.room_id)

    def _enter_from_here(self, join: Join, received: Received, server: str) -> None:
        """Store a join in a room that this server is in. Raises M_FORBIDDEN if it is refused."""
        # the server that has authorised it may know less, such as a ban of a moment ago
        standings = self._inbound.store(join.room_id, [received], server)
        is_refused = standings.get(join.event_id, ACCEPTED) != ACCEPTED  # or it waits for others
        with self._db.write() as tx:
            joining.end(tx, join.room_id, join.user_id)
            if is_refused:
                outside_rooms.leave_later(tx, join.room_id, join.user_id, join.servers)
            else:
                membership.note_join(tx, join.room_id, join.user_id)
        if is_refused:
            raise errors.forbidden("The rules of the room do not allow the join any more")
        self._inbound.queues.begin(join.room_id)

    def _as_sent(self, server: str, event: Event, checked: Checked) -> Received:
        """Return the join as the other server has sent it on, with its signature if that counts."""
        own = Received(event, events.encode(event.pdu, event.version))
        if profiles.AUTHORISER not in event.content:
            return own
        (received,) = pdus.receive(self._keys, [(checked.head["event"], event.version)])
        if isinstance(received, Received) and received.event.event_id == event.event_id:
            return received
        raise RemoteError("bad_response", f"{server} has not signed the join that it authorises")


def _is_refusal(problem: MatrixError) -> bool:
    """Return whether a server that is in a room does not let the user in."""
    return problem.errcode in PASSED_ON and problem.errcode != "M_NOT_FOUND"


def _may_have_taken(error: RemoteError) -> bool:
    """Return whether a server may have taken a join though it has not responded with a state."""
    if error.status is not None:
        return error.status >= 500
    return error.kind in {"timeout", "too_large", "unreachable"}


def _check(tx: Reader, server: str, join: Event, entries: Entries) -> None:
    """Raise RemoteError unless a state has the right create event and allows the join."""
    keys = event_auth.auth_types(join.version, join.type, join.state_key, join.sender, join.content)
    wanted = {key: entries[key][0] for key in {room_state.CREATE, *keys} if key in entries}
    numbered = forks.numbered(tx, join.room_id, wanted)
    found = {key: one[1] for key, one in numbered.items() if one is not None}
    create = found.get(room_state.CREATE)
    if create is None:
        raise _bad_state(server, "has no create event")
    if create.content.get("room_version", "1") != join.version.name:
        raise _bad_state(server, "is of another room version than it said")
    cited = auth_chains.numbers_of(tx, join.auth_event_ids)
    if len(cited) < len(set(join.auth_event_ids)):
        raise _bad_state(server, "lacks auth events of the join")
    try:
        event_auth.check(join, found)
    except AuthError as problem:
        raise _bad_state(server, f"does not allow the join: {problem}") from problem


def _bad_state(server: str, what: str) -> RemoteError:
    return RemoteError("bad_response", f"The state that {server} responds with {what}")


def error_of(server: str, error: RemoteError) -> MatrixError:
    """Return the error for a client."""
    if error.status in {400, 403, 404} and error.errcode in PASSED_ON:
        fields = {"room_version": it} if (it := error.content.get("room_version")) else {}
        return MatrixError(error.status, error.errcode, str(error), **fields)
    return asking.error_of(server, error)


def rank(problem: MatrixError) -> tuple[bool, bool, int]:
    """Sort what other servers say about the room before what is wrong with them."""
    return problem.errcode not in PASSED_ON, problem.errcode == "M_NOT_FOUND", problem.status
