"""Logins at other providers that are under way."""

from __future__ import annotations

import pytest

from homebody.core.sign_on import attempts
from homebody.errors import MatrixError
from homebody.web import Application
from tests.helpers.rooms import unchanged


def test_a_login_ends_once_also_if_two_requests_end_it(app: Application) -> None:
    with app.homeserver.database.write() as tx:
        state = attempts.begin(tx, "cookie", "test", "login", "/")
    with app.homeserver.database.write() as tx:
        attempts.end(tx, state)

    with (
        unchanged(app),
        pytest.raises(MatrixError, match="This login is over"),
        app.homeserver.database.write() as tx,
    ):
        attempts.end(tx, state)
