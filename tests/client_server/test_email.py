"""Mail that the server sends: what is in it, when it goes out, and what happens when it can't."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient

from homebody.config import settings
from homebody.web import Application
from tests.conftest import Login, MakeApp
from tests.core.accounts.test_threepids import ADD, REGISTER, add, ask, press_the_button
from tests.helpers import mail_server
from tests.helpers.mail_server import Mailbox, body_of
from tests.helpers.rooms import refusal
from tests.helpers.server import free_port, start

ODD = "o'hara+x@example.org"


@pytest.fixture(scope="module")
def mailbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailbox]:
    with mail_server.running(tmp_path_factory.mktemp("mail")) as running:
        yield running


@pytest.fixture
def app(make_app: MakeApp, mailbox: Mailbox) -> Application:
    mailbox.empty()
    return make_app(**mailbox.settings)


def test_a_mail_is_readable_as_text_and_as_html(client: FlaskClient, mailbox: Mailbox) -> None:
    ask(client, REGISTER, ODD)

    mail = mailbox.newest(ODD)

    assert mail["Subject"] == "Confirm your e-mail address (localhost)"
    assert (mail["From"], mail["Auto-Submitted"]) == ("no-reply@localhost", "auto-generated")
    assert mail["Date"]
    assert mail["Message-ID"]
    link = f"http://localhost:8008{mailbox.link(ODD)}"
    assert ODD in " ".join(body_of(mail, "plain").split())
    assert "o&#39;hara+x@example.org" in body_of(mail, "html")
    assert f'href="{link.replace("&", "&amp;")}"' in body_of(mail, "html")


def test_the_owner_chooses_the_sender(make_app: MakeApp, mailbox: Mailbox) -> None:
    sender = "Our house <house@example.org>"
    app = make_app(**mailbox.settings, **{"smtp.from_address": sender})

    ask(app.test_client(), REGISTER, "carol@example.org")

    assert mailbox.newest("carol@example.org")["From"] == sender


def test_opening_the_link_confirms_nothing_and_the_button_does(
    client: FlaskClient, mailbox: Mailbox
) -> None:
    ask(client, REGISTER, "carol@example.org", next_link="https://app.example.org/go?a=1&b=<2>")
    link = mailbox.link("carol@example.org")

    shown = client.get(link)
    done = press_the_button(client, link)
    again = press_the_button(client, link)

    assert "carol@example.org" in shown.get_data(as_text=True)
    assert "<form" in shown.get_data(as_text=True)
    assert "Your address is confirmed" in done.get_data(as_text=True)
    assert 'href="https://app.example.org/go?a=1&amp;b=&lt;2&gt;"' in done.get_data(as_text=True)
    assert "script-src" in done.headers["Content-Security-Policy"]
    assert again.status_code == 200


@pytest.mark.parametrize("query", ["", "?sid=x&token=y", "?sid=x"])
def test_a_wrong_link_says_so(client: FlaskClient, mailbox: Mailbox, query: str) -> None:
    path = mail_page(client, mailbox)

    answer = client.get(path + query)
    pressed = client.post(path, data={"sid": "x", "token": "y"})

    assert (answer.status_code, pressed.status_code) == (404, 404)
    assert "has expired" in answer.get_data(as_text=True)


def mail_page(client: FlaskClient, mailbox: Mailbox) -> str:
    ask(client, REGISTER, "carol@example.org")
    return mailbox.link("carol@example.org").partition("?")[0]


def test_the_same_attempt_sends_no_second_mail(client: FlaskClient, mailbox: Mailbox) -> None:
    first, same, next_one = (
        ask(client, REGISTER, "carol@example.org", attempt) for attempt in (1, 1, 2)
    )

    assert first.get_json() == same.get_json() == next_one.get_json()
    assert len(mailbox.messages("carol@example.org")) == 2


def test_only_the_newest_link_is_good(client: FlaskClient, mailbox: Mailbox) -> None:
    ask(client, REGISTER, "carol@example.org")
    old = mailbox.link("carol@example.org")
    ask(client, REGISTER, "carol@example.org", 2)

    answers = [client.get(link) for link in (old, mailbox.link("carol@example.org"))]

    assert [answer.status_code for answer in answers] == [404, 200]


def test_a_stranger_learns_only_from_the_mail_which_addresses_are_taken(
    login: Login, mailbox: Mailbox
) -> None:
    alice = login("alice")
    add(alice, mailbox, "alice@example.org")

    taken = [ask(alice.client, path, "alice@example.org") for path in (REGISTER, ADD)]
    free = ask(alice.client, REGISTER, "bob@example.org")

    assert [answer.status_code for answer in (*taken, free)] == [200, 200, 200]
    assert set(taken[0].get_json()) == set(free.get_json()) == {"sid"}
    mails = mailbox.messages("alice@example.org")[1:]
    assert [mail["Subject"].partition(" (")[0] for mail in mails] == [
        "You have an account already",
        "This address belongs to an account",
    ]
    assert all("@alice:localhost" in body_of(mail, "plain") for mail in mails)
    assert all("http" not in body_of(mail, kind) for mail in mails for kind in ("plain", "html"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"email": "carol"},
        {"email": "carol@"},
        {"email": "carol@exam ple.org"},
        {"email": "carol@example.org\r\nBcc: all@example.org"},
        {"email": "carol@example.org,dave@example.org"},
        {"email": "Carol <carol@example.org>"},
        {"email": f"{'c' * 65}@example.org"},
        {"email": f"carol@{'e' * 300}.org"},
        {"email": "carol@[127.0.0.1]"},
        {"email": "carol@example..org"},
        {"email": "kärol@example.org"},
        {"client_secret": ""},
        {"client_secret": "a b"},
        {"client_secret": "x" * 256},
        {"next_link": "javascript:alert(1)"},
        {"next_link": "//example.org"},
        {"next_link": "https://[example.org"},
        {"next_link": f"https://example.org/{'x' * 2048}"},
    ],
)
def test_what_breaks_the_grammar_sends_nothing(
    client: FlaskClient, mailbox: Mailbox, wrong: dict[str, Any]
) -> None:
    answer = ask(client, REGISTER, **{"email": "carol@example.org", **wrong})

    assert refusal(answer) == (400, "M_INVALID_PARAM")
    assert mailbox.messages() == []


@pytest.mark.parametrize(
    ("attempt", "expected"), [("1", "M_BAD_JSON"), (-1, "M_BAD_JSON"), (2**60, "M_BAD_JSON")]
)
def test_an_attempt_is_a_number(client: FlaskClient, attempt: int, expected: str) -> None:
    assert refusal(ask(client, REGISTER, "carol@example.org", attempt)) == (400, expected)


def test_a_mailbox_that_is_not_there_is_the_askers_mistake(client: FlaskClient) -> None:
    answer = ask(client, REGISTER, "nobody@example.org")

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_without_its_mail_server_the_server_says_so_and_later_tries_again(
    make_app: MakeApp, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    broken = make_app(**{**mailbox.settings, "smtp.port": str(free_port())})
    whole = make_app(**mailbox.settings)

    failed = ask(broken.test_client(), REGISTER, "dave@example.org")
    answer = ask(whole.test_client(), REGISTER, "dave@example.org")

    assert refusal(failed) == (503, "M_UNKNOWN")
    assert "could not send mail to dave@example.org" in caplog.text
    assert answer.status_code == 200
    assert len(mailbox.messages("dave@example.org")) == 1


def test_a_mail_never_goes_out_in_the_clear_where_tls_is_asked_for(
    make_app: MakeApp, mailbox: Mailbox
) -> None:
    app = make_app(**{**mailbox.settings, "smtp.tls": "starttls"})

    answer = ask(app.test_client(), REGISTER, "erin@example.org")

    assert refusal(answer) == (503, "M_UNKNOWN")
    assert mailbox.messages("erin@example.org") == []


def test_mails_to_one_address_have_a_limit(make_app: MakeApp, mailbox: Mailbox) -> None:
    limits = {"rate_limits": "true", "rc_3pid_validation.burst_count": "2"}
    client = make_app(**mailbox.settings, **limits).test_client()

    answers = [
        client.post(
            "/_matrix/client/v3/" + REGISTER,
            json={"client_secret": "x", "email": "frank@example.org", "send_attempt": number},
            environ_base={"REMOTE_ADDR": f"192.0.2.{number}"},
        )
        for number in (1, 2, 3)
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 429]


def test_others_are_served_while_the_mail_server_takes_its_time(
    tmp_path: Path, mailbox: Mailbox
) -> None:
    environ = {key.replace(".", "__"): value for key, value in mailbox.settings.items()}
    server = start(tmp_path, **environ)
    url = f"{server.url}/_matrix/client/v3/{REGISTER}"
    body = {"client_secret": "x", "email": "slow@example.org", "send_attempt": 1}
    answers: list[int] = []

    def wait_for_it() -> None:
        answers.append(requests.post(url, json=body, timeout=30).status_code)

    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    time.sleep(0.3)
    other = {"username": "bob", "password": "x" * 12, "auth": {"type": "m.login.dummy"}}
    written = requests.post(f"{server.url}/_matrix/client/v3/register", json=other, timeout=10)
    is_under_way = not answers
    waiting.join()
    server.stop()

    assert (written.status_code, is_under_way, answers) == (200, True, [200])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("smtp.host", "mail.example.org:25"),
        ("smtp.host", "https://mail"),
        ("smtp.port", "0"),
        ("smtp.tls", "some"),
        ("smtp.from_address", "example.org"),
        ("smtp.from_address", "a@b\nBcc: c@d"),
        ("smtp.server", "x"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(key: str, value: str) -> None:
    with pytest.raises(settings.ConfigError, match=key.replace(".", r"\.")):
        settings.load(None, {}, {key: value})


def test_the_password_of_the_mail_server_is_not_shown() -> None:
    chosen = settings.load(None, {}, {"smtp.host": "m.example.org", "smtp.password": "tr0ub4dor"})

    assert "tr0ub4dor" not in settings.describe(chosen)
    assert "tr0ub4dor" not in repr(chosen)
