"""Lists of files for administrators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from homebody.core.media import listing
from homebody.core.media.listing import Page
from homebody.storage import long_reads
from homebody.storage.database import Reader
from homebody.web import Application
from tests.conftest import Login

LISTS: dict[str, Callable[[Reader, str], Any]] = {
    "of a user": lambda tx, user_id: listing.of_user(tx, user_id, Page())[0],
    "ids of a user": listing.ids_of_user,
    "largest": lambda tx, _: listing.largest(tx, 10),
    "usage": lambda tx, _: listing.usage(tx, Page(order_by="user_id"))[0],
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_read_in_a_thread_while_other_requests_go_on(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    alice = login("alice")
    alice.post("/_matrix/media/v3/upload", data=b"x", json=None)
    fetch, fetched = long_reads.fetch, []

    def note(*given: Any) -> list[Any]:
        fetched.append(given)
        return fetch(*given)

    def refuse(*_given: Any) -> None:
        raise AssertionError("this statement is not executed in a thread")

    monkeypatch.setattr(long_reads, "fetch", note)

    with app.homeserver.database.read() as tx:
        monkeypatch.setattr(type(tx.sql), "execute", refuse)
        found = LISTS[name](tx, alice.user_id)
        monkeypatch.undo()

    assert (len(found), bool(fetched)) == (1, True)
