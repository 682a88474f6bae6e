"""What the pages for administrators have in common."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from homebody.web.admin_pages import layout
from tests.conftest import Person


@pytest.mark.parametrize("ts", [2**53, -(2**53), 253_402_300_800_000, 1e300])
def test_a_time_that_no_calendar_has_is_shown_as_one(ts: int) -> None:
    assert layout.when(ts) == "at an impossible time"


def test_a_token_that_expires_in_three_hundred_thousand_years_breaks_no_page(
    admin: Person, browser: FlaskClient
) -> None:
    body = {"expiry_time": 2**53 - 1}
    url = "/_synapse/admin/v1/registration_tokens/new"
    assert admin.post(url, json=body).status_code == 200

    answer = browser.get("/_homebody/admin/invitations")

    assert answer.status_code == 200
    assert "at an impossible time" in answer.get_data(as_text=True)
