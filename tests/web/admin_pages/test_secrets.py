"""No page for administrators shows a secret: neither of the settings nor of users."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from homebody.core import outgoing, tasks
from homebody.core.accounts import accounts, external_ids
from homebody.core.outgoing import Progress
from homebody.core.sessions import invitations
from homebody.web import Application, admin_pages
from tests.conftest import PASSWORD, MakeApp, Person
from tests.helpers.pages import send
from tests.tools import routes, spec_index

SETTINGS = {
    "registration_shared_secret": "marker-of-the-shared-secret",
    "metrics_token": "marker-of-the-metrics-token",
    "turn_shared_secret": "marker-of-the-turn-secret",
    "turn_uris": '["turn:turn.example.org"]',
    "oidc_providers": (
        '[{ id = "house", name = "Ours", issuer = "https://a.test", client_id = "x",'
        ' client_secret = "marker-of-the-client-secret" }]'
    ),
}
PATHS = [
    route.path
    for route in routes.routes(spec_index.server())
    if route.method == "GET" and route.path.startswith(admin_pages.PREFIX)
]


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    """A server whose secrets can be recognized."""
    return make_app(**SETTINGS)


@pytest.fixture
def paths(app: Application, browser: FlaskClient, alice: Person) -> list[str]:
    """The paths of all pages, about things that there are."""
    room_id = alice.create_room(name="Kitchen")
    alice.post(f"rooms/{room_id}/report", json={"reason": "rude"})
    uploaded = alice.request("POST", "/_matrix/media/v3/upload", data=b"x").get_json()
    with app.homeserver.database.write() as tx:
        invitations.invite(tx, "@owner:localhost", "bob", 86_400_000)
        (invitation,) = invitations.all_of(tx)
        task_id = tasks.add(tx, "vacuum", {})
        external_ids.add(tx, alice.user_id, "house", "17")
        outgoing.save(tx, 1, [Progress("down.test", 1, 1, 3, 1, "timeout")])
    send(browser, f"{admin_pages.PREFIX}/tokens/new", page=f"{admin_pages.PREFIX}/invitations")
    shown = browser.get(f"{admin_pages.PREFIX}/invitations").get_data(as_text=True)
    values = {
        "user_id": alice.user_id,
        "device_id": alice.device_id,
        "room_id": room_id,
        "report_id": "1",
        "invitation_id": invitation.id,
        "token_id": shown.partition("/tokens/")[2].partition("tokens/")[2].partition("/")[0],
        "media_id": uploaded["content_uri"].rpartition("/")[2],
        "task_id": task_id,
        "server": "down.test",
        "auth_provider": "house",
        "external_id": "17",
    }
    actions = {"users": "edit", "rooms": "delete", "media": "delete", "upkeep": "pause"}
    found = []
    for path in PATHS:
        section = path.removeprefix(f"{admin_pages.PREFIX}/").partition("/")[0]
        filled = path.replace("<action>", actions.get(section, ""))
        for name, value in values.items():
            filled = filled.replace(f"<{name}>", quote(value, safe=""))
        found.append(filled)
    return found


def test_no_page_shows_a_secret(
    app: Application, browser: FlaskClient, alice: Person, admin: Person, paths: list[str]
) -> None:
    cookie = browser.get_cookie("homebody_session")
    assert cookie
    with app.homeserver.database.write() as tx:
        account = accounts.find(tx, alice.user_id)
        (invitation,) = invitations.all_of(tx)
    assert account
    assert account.password_hash
    key = app.homeserver.server.config.signing_key_path.read_text(encoding="ascii")
    secrets = {
        **{name: value for name, value in SETTINGS.items() if value.startswith("marker")},
        "secret of a login provider": "marker-of-the-client-secret",
        "access token": alice.access_token,
        "administrator's access token": admin.access_token,
        "password": PASSWORD,
        "password hash": account.password_hash,
        "session": cookie.value,
        "signing key": key.split()[-1],
        "hash of an invitation": invitation.token_hash.hex(),
    }

    answers = {path: browser.get(path) for path in [*paths, "/", "/_homebody/account/"]}

    assert {path: it.status_code for path, it in answers.items() if it.status_code != 200} == {}
    shown = {path: it.get_data(as_text=True) for path, it in answers.items()}
    found = {
        (path, name) for path, text in shown.items() for name, it in secrets.items() if it in text
    }
    assert found == set()
