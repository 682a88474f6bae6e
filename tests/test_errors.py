"""Bad bodies and faults: a Matrix error for each, nothing changed, and nothing given away."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from homebody import errors
from homebody.runtime import logs
from homebody.web import Application
from tests.conftest import V3, Login
from tests.helpers.rooms import refusal


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("homebody")
    before = (root.handlers[:], root.level, ours.level)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


NOT_JSON = [
    b"{",
    b"tea",
    b"{'a': 1}",
    b'{"a": 1,}',
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b'{"a": 1e999}',
    b'{"a": -1e999}',
    b'{"a": "\\ud800"}',
    b'{"a": "\\udc00\\ud800"}',
    b'{"\\ud800": 1}',
    b'{"a": "\xff"}',
    b'{"a": "\xed\xa0\x80"}',
    b"\xff\xfe{\x00}\x00",
    b'{"a": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    b'{"a": ' * 3000 + b"1" + b"}" * 3000,
    b'{"a": "tab\there"}',
    b"{}{}",
]


@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: repr(body[:24]))
def test_what_is_no_json_is_refused(client: FlaskClient, body: bytes) -> None:
    answer = client.post(f"{V3}login", data=body)

    assert refusal(answer) == (400, "M_NOT_JSON")


@pytest.mark.parametrize("body", [b"[]", b"null", b"17", b'"text"', b"true", b'[{"type": "x"}]'])
def test_json_that_is_no_object_is_refused(client: FlaskClient, body: bytes) -> None:
    answer = client.post(f"{V3}login", data=body)

    assert refusal(answer) == (400, "M_BAD_JSON")


@pytest.mark.parametrize("body", [b"", b" \r\n\t"])
def test_no_body_is_not_json(client: FlaskClient, body: bytes) -> None:
    answer = client.post(f"{V3}login", data=body)

    assert refusal(answer) == (400, "M_NOT_JSON")


@pytest.mark.parametrize(
    "body",
    [
        {"type": 17},
        {"type": None},
        {"type": ["m.login.password"]},
        {"type": "m.login.password", "password": {"a": 1}},
        {"type": "m.login.password", "identifier": "alice", "password": "x"},
        {"type": "m.login.password", "user": 2**63, "password": "x"},
    ],
)
def test_a_value_of_the_wrong_type_is_refused(client: FlaskClient, body: dict[str, Any]) -> None:
    answer = client.post(f"{V3}login", json=body)

    assert refusal(answer) == (400, "M_BAD_JSON")


@pytest.mark.parametrize(
    "value",
    [
        str(2**53).encode(),
        str(2**63).encode(),
        str(2**64).encode(),
        b"-9007199254740992",
        b"1" * 400,
        b"1.5",
        b"1e3",
        b"-0.0",
        b"[" * 200 + b"]" * 200,
        b'{"a": ' * 200 + b"1" + b"}" * 200,
    ],
    ids=lambda value: repr(value[:24]),
)
def test_what_no_event_can_hold_changes_nothing(login: Login, value: bytes) -> None:
    alice = login("alice")
    room_id = quote(alice.create_room())
    body = b'{"msgtype": "m.text", "body": "x", "value": ' + value + b"}"

    sent = alice.put(f"rooms/{room_id}/send/m.room.message/a", data=body)
    set_state = alice.put(f"rooms/{room_id}/state/org.example/", data=body)

    for answer in (sent, set_state):
        assert answer.status_code == 400
        assert answer.get_json()["errcode"] in {"M_BAD_JSON", "M_NOT_JSON"}
    assert alice.get(f"rooms/{room_id}/state/org.example/").status_code == 404
    newest = alice.get(f"rooms/{room_id}/messages?dir=b&limit=1").get_json()["chunk"][0]
    assert newest["type"] != "m.room.message"


@pytest.mark.parametrize(
    "limit", [str(2**53), str(2**63), "-1", "1.5", "1e3", "many", "", "٣", "0x10", "9" * 5000, " 1"]
)
def test_a_number_in_the_query_has_to_be_one(login: Login, limit: str) -> None:
    alice = login("alice")
    room_id = quote(alice.create_room())

    answer = alice.get(f"rooms/{room_id}/messages", query_string={"dir": "b", "limit": limit})

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_a_fault_tells_the_log_all_and_the_client_nothing(
    app: Application, caplog: pytest.LogCaptureFixture
) -> None:
    def view() -> str:
        raise RuntimeError("the secret of the house")

    app.view_functions["versions.get_capabilities"] = view

    with caplog.at_level(logging.ERROR):
        answer = app.test_client().get(f"{V3}capabilities")

    assert refusal(answer) == (500, "M_UNKNOWN")
    assert "secret" not in answer.get_data(as_text=True)
    (line,) = caplog.records
    assert line.exc_info
    assert str(line.exc_info[1]) == "the secret of the house"


@pytest.mark.usefixtures("restored_logging")
def test_the_lines_of_a_request_carry_its_id(
    app: Application, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("INFO", "text")
    app.view_functions["versions.get_capabilities"] = lambda: str(1 // 0)
    client = app.test_client()

    client.get(f"{V3}capabilities")
    client.get(f"{V3}capabilities")

    lines = [line for line in capsys.readouterr().err.splitlines() if " - homebody." in line]
    ids = [line.split(" - ")[4] for line in lines]
    assert ["fault in a request" in line for line in lines] == [True, False, True, False]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert "-" not in ids


def test_an_error_says_when_to_come_again(app: Application) -> None:
    def view() -> str:
        raise errors.limit_exceeded(1001)

    app.view_functions["versions.get_capabilities"] = view

    answer = app.test_client().get(f"{V3}capabilities")

    assert refusal(answer) == (429, "M_LIMIT_EXCEEDED")
    assert answer.get_json()["retry_after_ms"] == 1001
    assert answer.headers["Retry-After"] == "2"  # whole seconds, and not too early
