"""The routes of the server: who may use them, what the specification says, and those of tests."""

from __future__ import annotations

import csv
import subprocess
import sys

import pytest
from flask import Flask

from homebody.web import Application
from tests.conftest import ROOT, MakeApp
from tests.tools import routes, spec_index
from tests.tools.routes import Route

NO_TOKEN = {"none", "server", "browser"}
OWN = {"extensions", "config"}
AUTHENTICATION = {
    "none": "none",
    "token": "required",
    "token?": "optional",
    "as_token": "service",
    "signed": "server",
}
"""What the decorators say, by the specification's words."""
DEVIATIONS = {
    # a token counts where the specification wants none: the account that it names matters
    ("client-server", "requestTokenTo3PIDEmail"): "optional",
    ("client-server", "requestTokenToResetPasswordEmail"): "optional",
    # and files are given to users of this server alone, unless the settings say otherwise
    ("client-server", "getContent"): "optional",
    ("client-server", "getContentOverrideName"): "optional",
    ("client-server", "getContentThumbnail"): "optional",
    # nobody closes an account by a third-party identifier alone
    ("client-server", "deactivateAccount"): "required",
    # "token" in the data of the specification, but only servers use it
    ("server-server", "getEventByTimestamp"): "server",
}
"""By API and operation: what its view needs, where that is not what the specification says."""

GUESTS = {
    # the specification's list: client-server-api#guest-access
    *("get_room_state", "get_event_context", "get_one_room_event", "get_room_state_with_key"),
    *("get_room_events", "get_members_by_room", "room_initial_sync", "sync_"),
    *("get_content_authed", "get_content_override_name_authed", "get_content_thumbnail_authed"),
    *("join_room_by_id", "leave_room", "send_message", "set_room_state_with_key"),
    *("send_to_device", "set_profile_field", "delete_profile_field", "get_device", "get_devices"),
    *("update_device", "get_token_owner", "upload_keys", "query_keys", "claim_keys"),
    "event_stream.get_events",
    # Deviates: matrix-js-sdk joins by this one
    "membership.join_room",
    # Deviates: clients request these at every start, and they say nothing about other users
    *("get_capabilities", "get_protocols", "get_turn_server", "get_rtc_transports"),
    # calls of guests, as MSC4140 wants
    *("put_delayed_event", "get_delayed_events", "get_delayed_event", "manage_delayed_event"),
    *("manage_unstable_delayed_event", "update_delayed_event"),
    # Deviates: GET needs no token and returns the same
    "query_public_rooms",
    # a token is optional, or guests end their session
    *("get_versions", "get_content", "get_content_override_name", "get_content_thumbnail"),
    *("get_room_summary", "get_unstable_room_summary", "change_password"),
    *("request_token_to_3pid_email", "request_token_to_reset_password_email"),
    *("logout", "logout_all"),
}
"""The views that guests may use although they look at access tokens."""

SUSPENDED = {
    # the account and its sessions; "change or add" addresses, "but not remove"
    *("logout", "logout_all", "generate_login_token", "update_device", "delete_device"),
    *("delete_devices", "deactivate_account", "change_password", "post_3pids", "add_3pid"),
    *("request_token_to_3pid_email", "request_token_to_reset_password_email"),
    # rooms: leaving, how far one has read; what is sent or set decides
    *("leave_room", "forget_room", "post_receipt", "set_read_marker"),
    *("send_message", "send_message_without_transaction_id", "redact_event"),
    *("set_room_state_with_key", "put_member", "put_message"),
    # also what is sent later; what is sent is looked at then
    *("manage_delayed_event", "manage_unstable_delayed_event", "update_delayed_event"),
    # reading with a body
    *(
        "sliding_sync",
        "sync_v4",
        "search_",
        "query_public_rooms",
        "search_user_directory",
        "define_filter",
    ),
    # what only the user sees
    *("set_account_data", "set_account_data_per_room", "set_room_tag", "delete_room_tag"),
    *("delete_account_data", "delete_account_data_per_room"),
    *("post_pusher", "set_push_rule", "delete_push_rule", "set_push_rule_actions"),
    *("set_push_rule_enabled", "subscribe_to_thread", "unsubscribe_from_thread"),
    # encryption: verification goes by messages to devices
    *("send_to_device", "claim_keys", "query_keys", "upload_keys"),
    *("upload_cross_signing_keys", "upload_cross_signing_signatures"),
    *("put_dehydrated_device", "delete_dehydrated_device", "post_dehydrated_device_events"),
    *("put_room_keys", "put_room_keys_by_room_id", "put_room_key_by_session_id"),
    *("delete_room_keys", "delete_room_keys_by_room_id", "delete_room_key_by_session_id"),
    *("post_room_keys_version", "put_room_keys_version", "delete_room_keys_version"),
    # help
    *("report_room", "report_event", "report_user"),
}
"""The views by which suspended users may change something: "servers should allow" reading, leaving,
encryption, and the like. Spec: client-server-api#account-suspension"""


def described(app: Flask) -> list[tuple[str, str, set[str] | None]]:
    return [(rule.rule, rule.endpoint, rule.methods) for rule in app.url_map.iter_rules()]


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    """A server with all its routes."""
    return make_app(federation="true")


def names(found: list[Route], known: set[str]) -> set[str]:
    """The names of the views, with their modules where `known` has those."""
    return {route.name if route.name in known else route.name.partition(".")[2] for route in found}


def test_a_server_in_a_test_has_all_that_blueprints_give_a_server(app: Application) -> None:
    real = spec_index.server()

    assert described(app) == described(real)
    for name, value in vars(real).items():
        if isinstance(value, dict | list) and name not in OWN:
            assert getattr(app, name) == value, name


def test_guests_may_use_what_the_specification_lists_and_what_clients_need(
    app: Application,
) -> None:
    found = [
        route
        for route in routes.routes(app)
        if route.access.authentication not in NO_TOKEN and route.access.guests
    ]

    assert names(found, GUESTS) == GUESTS


def test_suspended_users_may_change_only_what_is_listed(app: Application) -> None:
    found = [
        route
        for route in routes.routes(app)
        if route.method != "GET"
        and route.access.authentication not in NO_TOKEN
        and route.may_suspended
    ]

    assert names(found, SUSPENDED) == SUSPENDED


def test_locked_users_may_only_log_out(app: Application) -> None:
    found = {
        route.name
        for route in routes.routes(app)
        if route.access.authentication not in NO_TOKEN and route.access.locked
    }

    assert found == {"login.logout", "login.logout_all"}


def test_each_change_is_limited_at_its_view(app: Application) -> None:
    unlimited = {
        route.name for route in routes.routes(app) if route.method != "GET" and not route.limits
    }

    # a long poll limits itself
    assert unlimited == {"sliding_sync.sliding_sync", "sliding_sync.sync_v4"}


def test_views_need_the_token_that_the_specification_wants(app: Application) -> None:
    by_anchor = {(route.method, route.anchor): route for route in routes.routes(app)}
    expected, found = {}, {}
    with (spec_index.PINNED / "endpoints.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["api"] not in spec_index.APIS:
                continue
            route = by_anchor.get((row["method"], routes.anchor(row["method"], row["path"])))
            if route is None and row["api"] != spec_index.COMPLETE:
                continue
            name = (row["api"], row["operationId"])
            expected[name] = DEVIATIONS.get(name, AUTHENTICATION[row["auth"]])
            found[name] = route.cells()[2] if route else ""

    assert found == expected
    assert expected.keys() >= DEVIATIONS.keys()


def test_the_table_has_a_line_for_each_route(app: Application) -> None:
    command = [sys.executable, "-m", "tests.tools.routes"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    head, *lines = printed.partition("\n\n")[0].splitlines()  # a note follows

    assert head.split()[:4] == ["method", "path", "token", "guests"]
    assert len(lines) == len(routes.routes(app))
    (line,) = (line for line in lines if "/send/<event_type>/<txn_id>" in line)
    assert line.split()[2:8] == ["required", "yes", "partly", "no", "rc_writes", "rc_message"]
    assert "client_server/room_send.py:" in line
