"""The servers of the tests have the routes of a real one."""

from __future__ import annotations

from flask import Flask

from tests.helpers import routes

OWN = {"extensions", "config"}


def described(app: Flask) -> list[tuple[str, str, set[str] | None]]:
    return [(rule.rule, rule.endpoint, rule.methods) for rule in app.url_map.iter_rules()]


def test_a_server_in_a_test_has_all_that_blueprints_give_a_server(app: Flask) -> None:
    real = routes.anew()

    assert described(app) == described(real)
    for name, value in vars(real).items():
        if isinstance(value, dict | list) and name not in OWN:
            assert getattr(app, name) == value, name
