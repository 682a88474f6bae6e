"""Which users may see which events of a room.

Spec: client-server-api#room-history-visibility
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import insert

from homebody.core.events import client_events, visibility
from homebody.core.timeline import sending
from homebody.core.timeline.sending import Draft
from homebody.errors import MatrixError
from homebody.models.base import EventNumber
from homebody.models.rooms import ForgottenRoom
from homebody.spec.room_versions import VERSIONS
from homebody.storage.database import Database, Reader
from homebody.web import Application

ALICE, BOB, CAROL = "@alice:localhost", "@bob:localhost", "@carol:localhost"
ROOM = "!room:localhost"
SETTING = "m.room.history_visibility"


class Story:
    """A room that Alice makes, in which things happen one after the other."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.named: dict[str, int] = {}
        with db.write() as tx:
            create = Draft(ROOM, ALICE, "m.room.create", {"creator": ALICE}, state_key="")
            sending.create(tx, VERSIONS["11"], create)
        self.member("join", ALICE)
        self.state("m.room.join_rules", {"join_rule": "public"})

    def state(self, kind: str, content: dict[str, Any], key: str = "", by: str = ALICE) -> int:
        return self._send(Draft(ROOM, by, kind, content, state_key=key))

    def setting(self, value: Any) -> int:
        return self.state(SETTING, {"history_visibility": value})

    def member(self, membership: str, user: str = BOB, by: str | None = None) -> int:
        """The user joins or leaves, or (`by`) is invited, kicked, banned."""
        return self.state("m.room.member", {"membership": membership}, user, by or user)

    def says(self, body: str) -> int:
        """Alice says something."""
        self.named[body] = self._send(Draft(ROOM, ALICE, "m.room.message", {"body": body}))
        return self.named[body]

    def heard_by(self, user: str | None) -> list[str]:
        """What this user may see of what was said."""
        seen = set(self.seen_by(user))
        return [body for body, position in self.named.items() if position in seen]

    def seen_by(self, user: str | None) -> list[int]:
        with self.db.read() as tx:
            events = client_events.load(tx, [EventNumber(it) for it in range(tx.position + 1)])
            seen = [it.position for it in visibility.visible(tx, user, ROOM, events)]
            spans = visibility.history(tx, user or "", ROOM).spans()
        within = [it.position for it in events if any(a <= it.position <= b for a, b in spans)]
        assert within == seen, "a search in SQL would see something else"
        return seen

    def _send(self, draft: Draft) -> int:
        with self.db.write() as tx:
            sending.send(tx, draft)
            return tx.position


@pytest.fixture
def db(app: Application) -> Database:
    database: Database = app.homeserver.database
    return database


@pytest.fixture
def story(db: Database) -> Story:
    return Story(db)


@pytest.fixture
def tx(db: Database, story: Story) -> Iterator[Reader]:
    """To look at the story after its end."""
    with db.read() as reader:
        yield reader


def tell(story: Story) -> None:
    """Bob is invited, joins, leaves, and something is said at each stage."""
    story.says("before")
    story.member("invite", by=ALICE)
    story.says("invited")
    story.member("join")
    story.says("joined")
    story.member("leave")
    story.says("left")


@pytest.mark.parametrize(
    ("setting", "heard"),
    [
        ("world_readable", ["before", "invited", "joined", "left"]),
        ("shared", ["before", "invited", "joined"]),
        ("invited", ["invited", "joined"]),
        ("joined", ["joined"]),
        ("made up", ["before", "invited", "joined"]),
        (None, ["before", "invited", "joined"]),
        ([{}], ["before", "invited", "joined"]),
    ],
)
def test_each_setting_shows_what_the_spec_says_it_shows(
    story: Story, setting: Any, heard: list[str]
) -> None:
    story.setting(setting)
    tell(story)

    assert story.heard_by(BOB) == heard


def test_a_room_without_a_setting_is_shared(story: Story) -> None:
    tell(story)

    assert story.heard_by(BOB) == ["before", "invited", "joined"]


@pytest.mark.parametrize(
    ("setting", "heard"),
    [("world_readable", ["hello"]), ("shared", []), ("invited", []), ("joined", [])],
)
def test_a_stranger_sees_only_what_is_world_readable(
    story: Story, setting: str, heard: list[str]
) -> None:
    story.setting(setting)
    story.says("hello")

    assert story.heard_by(CAROL) == heard
    assert story.heard_by(None) == heard


@pytest.mark.parametrize(
    ("setting", "heard"),
    [("world_readable", ["before", "after"]), ("shared", []), ("invited", ["after"])],
)
def test_who_is_only_invited_sees_what_the_setting_gives_the_invited(
    story: Story, setting: str, heard: list[str]
) -> None:
    story.setting(setting)
    story.says("before")
    story.member("invite", by=ALICE)
    story.says("after")

    assert story.heard_by(BOB) == heard


@pytest.mark.parametrize("setting", ["shared", "invited", "joined"])
def test_who_was_banned_sees_nothing_from_after_the_ban(story: Story, setting: str) -> None:
    story.setting(setting)
    story.member("join")
    story.says("joined")
    ban = story.member("ban", by=ALICE)
    story.says("banned")

    assert story.heard_by(BOB) == ["joined"]
    assert story.seen_by(BOB)[-1] == ban


def test_the_setting_at_the_time_of_the_event_counts_and_not_what_it_is_now(story: Story) -> None:
    story.setting("joined")
    story.says("secret")
    story.setting("shared")
    story.says("open")
    story.member("join")

    assert story.heard_by(BOB) == ["open"]


def test_making_the_room_stricter_hides_nothing_from_before(story: Story) -> None:
    story.setting("shared")
    story.says("open")
    story.setting("joined")
    story.says("secret")
    story.member("join")

    assert story.heard_by(BOB) == ["open"]


def test_under_joined_nobody_sees_what_was_said_between_two_stays(story: Story) -> None:
    story.setting("joined")
    for stay in ("first", "second"):
        story.member("join")
        story.says(stay)
        story.member("leave")
        story.says(f"after {stay}")

    assert story.heard_by(BOB) == ["first", "second"]


def test_under_shared_who_comes_back_sees_what_was_said_meanwhile(story: Story) -> None:
    story.setting("shared")
    story.member("join")
    story.member("leave")
    story.says("meanwhile")
    assert story.heard_by(BOB) == []

    story.member("join")

    assert story.heard_by(BOB) == ["meanwhile"]


def test_a_new_name_does_not_interrupt_a_stay(story: Story) -> None:
    story.setting("joined")
    story.member("join")
    story.says("one")
    story.state("m.room.member", {"membership": "join", "displayname": "Bob"}, BOB, BOB)
    story.says("two")

    assert story.heard_by(BOB) == ["one", "two"]


def test_a_change_of_the_setting_is_seen_under_the_old_or_the_new_one(story: Story) -> None:
    opened = story.setting("world_readable")
    closed = story.setting("joined")
    reopened = story.setting("world_readable")
    shared = story.setting("shared")
    again = story.setting("invited")

    seen = story.seen_by(CAROL)

    assert {opened, closed, reopened, shared} <= set(seen)
    assert again not in seen


def test_own_joins_and_leaves_are_seen_under_joined_and_those_of_others_are_not(
    story: Story,
) -> None:
    story.setting("joined")
    carol_joined = story.member("join", CAROL)
    joined = story.member("join")
    left = story.member("leave")
    carol_left = story.member("leave", CAROL)

    seen = story.seen_by(BOB)

    assert {joined, left} <= set(seen)
    assert not {carol_joined, carol_left} & set(seen)


def test_the_own_invitation_is_seen_under_invited_and_not_under_joined(story: Story) -> None:
    story.setting("joined")
    first = story.member("invite", by=ALICE)
    refused = story.member("leave")
    story.setting("invited")
    second = story.member("invite", by=ALICE)
    refused_again = story.member("leave")

    seen = story.seen_by(BOB)

    assert {second, refused_again} <= set(seen)
    assert not {first, refused} & set(seen)


@pytest.mark.parametrize("is_cached", [True, False])
def test_cached_and_uncached_answers_are_the_same(
    db: Database, story: Story, is_cached: bool
) -> None:
    story.setting("joined")
    story.says("before")
    story.setting("shared")
    story.says("shared")
    story.member("join")
    story.says("joined")
    if not is_cached:
        db.caches.clear(db.writer.last_position)

    assert story.heard_by(BOB) == ["shared", "joined"]


def test_who_left_may_read_up_to_the_leave(story: Story, db: Database) -> None:
    story.member("join")
    left = story.member("leave")
    story.says("later")

    with db.read() as tx:
        assert visibility.upto(tx, BOB, ROOM) == left
        assert visibility.upto(tx, ALICE, ROOM) == tx.position


def test_who_left_and_was_invited_again_still_reads_up_to_the_leave(
    story: Story, db: Database
) -> None:
    story.member("join")
    left = story.member("leave")
    story.member("invite", by=ALICE)

    with db.read() as tx:
        assert visibility.upto(tx, BOB, ROOM) == left


def test_a_world_readable_room_may_be_read_by_anybody(story: Story, tx: Reader) -> None:
    with pytest.raises(MatrixError, match="never were"):
        visibility.may_read(tx, CAROL, ROOM)

    story.setting("world_readable")

    with story.db.read() as later:
        visibility.may_read(later, CAROL, ROOM)
        assert visibility.upto(later, CAROL, ROOM) == later.position


@pytest.mark.parametrize("membership", [None, "invite", "ban"])
def test_who_never_was_in_the_room_may_not_read_it(
    story: Story, db: Database, membership: str | None
) -> None:
    if membership is not None:
        story.member(membership, by=ALICE)

    with db.read() as tx, pytest.raises(MatrixError) as refusal:
        visibility.may_read(tx, BOB, ROOM)

    assert (refusal.value.status, refusal.value.errcode) == (403, "M_FORBIDDEN")


def test_a_room_that_does_not_exist_is_refused_like_one_that_is_closed(tx: Reader) -> None:
    with pytest.raises(MatrixError) as refusal:
        visibility.may_read(tx, BOB, "!none:localhost")

    assert (refusal.value.status, refusal.value.errcode) == (403, "M_FORBIDDEN")


def test_a_forgotten_room_may_not_be_read(story: Story, db: Database) -> None:
    story.member("join")
    story.member("leave")
    with db.write() as tx:
        tx.sql.execute(insert(ForgottenRoom), {"user_id": BOB, "room_id": ROOM})

    with db.read() as reader, pytest.raises(MatrixError, match="forgotten"):
        visibility.may_read(reader, BOB, ROOM)
