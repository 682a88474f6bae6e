"""Odd values in the paths, queries and forms of the pages: none is a fault of the server."""

from __future__ import annotations

import itertools

from flask.testing import FlaskClient

from homebody.web import Application
from tests.conftest import Login
from tests.fuzz.requests import URL_TEXTS
from tests.fuzz.test_requests import FORMS, parts_of
from tests.helpers.pages import LOGIN, field, log_in

ODD = ["", " ", "x", "0", "-1", "9" * 400, "é\u202e", "\x00", "%", "' OR 1", "<b>", "../..", "{}"]
FIELDS = [
    *("name", "user", "password", "again", "current", "address", "device_id", "session", "sid"),
    *("client_secret", "terms", "sure", "next", "reason", "room", "expires", "limit", "days"),
    *("uses", "mxc", "user_id", "erase", "purge", "block"),
    *("client_id", "scope", "grant_type", "code", "code_verifier", "redirect_uri", "device_code"),
    *("refresh_token", "token", "token_type_hint", "user_code", "decision", "displayname"),
]


def logged_in(app: Application) -> tuple[FlaskClient, str]:
    """A browser of the administrator, and the hidden field of its forms."""
    browser = app.test_client()
    log_in(browser, "alice")
    return browser, field(browser.get("/_homebody/account/"))


def test_no_form_is_a_fault(app: Application, login: Login) -> None:
    login("alice")
    values, texts = itertools.cycle(ODD), itertools.cycle(it for it in URL_TEXTS if len(it) < 999)
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith(FORMS)]
    browser, token = logged_in(app)
    for rule in rules:
        path = "".join(next(texts) if is_odd else text for is_odd, text in parts_of(rule.rule))
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"}):
            for _ in range(3):
                form = {name: next(values) for name in FIELDS}
                query = f"?{next(texts)}={next(texts)}&page={next(texts)}&done={next(texts)}"
                for name in ("from", "before", "order", "q", "user_code", "action", "device_id"):
                    query += f"&{name}={next(texts)}"
                data = {**form, "csrf_token": token} if method == "POST" else None
                answer = browser.open(path + query, method=method, data=data)
                assert answer.status_code < 500, f"{method} {path}{query} {form} {answer.text}"
                answer.close()
            if browser.get(LOGIN).status_code == 200:  # it was the form that logs out
                browser, token = logged_in(app)

    assert len(rules) > 15
