"""Third-party networks on a server that has none; with bridges: test_appservice_transactions.py."""

from __future__ import annotations

from tests.conftest import Login
from tests.helpers.rooms import refusal


def test_without_networks_a_search_finds_nothing(login: Login) -> None:
    alice = login("alice")

    answers = [
        alice.get("thirdparty/user/im.vector.protocol.sip_native?native_number=1"),
        alice.get("thirdparty/user?userid=@a:localhost"),
        alice.get("thirdparty/location/irc?channel=%23cats"),
        alice.get("thirdparty/location?alias=%23a:localhost"),
    ]

    assert [(it.status_code, it.get_json()) for it in answers] == [(200, [])] * 4
    assert alice.get("thirdparty/protocols").get_json() == {}
    assert refusal(alice.get("thirdparty/protocol/irc")) == (404, "M_NOT_FOUND")
