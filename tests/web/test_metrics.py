"""GET /metrics: what is counted, and who may read it."""

from __future__ import annotations

import http.client
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from homebody.core import outbox
from homebody.runtime.metrics import Histogram
from homebody.storage.database import PLACES
from homebody.web import Application
from tests.conftest import ROOT, Login, MakeApp
from tests.helpers import server as real_server
from tests.helpers.remote import Remotes
from tests.helpers.remote_room import without_signatures
from tests.helpers.shared_rooms import shared_room, wait_for_bodies

HERE = {"REMOTE_ADDR": "127.0.0.1"}
ELSEWHERE = {"REMOTE_ADDR": "192.0.2.7"}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Every value by its name and labels, as Prometheus reads them."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(client: FlaskClient) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return samples(answer.get_data(as_text=True))


def value(found: Samples, name: str, **labels: str) -> float:
    return found[f"homebody_{name}", frozenset(labels.items())]


def test_requests_are_counted_by_endpoint_and_status(client: FlaskClient, login: Login) -> None:
    alice = login("alice")
    alice.send(alice.create_room())
    client.get("/_matrix/client/v3/account/whoami")
    client.get("/_matrix/client/v3/nowhere/@alice:localhost")

    found = read(client)

    endpoint = "room_send.send_message"
    assert value(found, "requests_total", endpoint=endpoint, status="200") == 1
    assert value(found, "requests_total", endpoint="account.get_token_owner", status="401") == 1
    assert value(found, "requests_total", endpoint="none", status="404") == 1
    assert value(found, "request_seconds_count", endpoint=endpoint) == 1
    assert 0 < value(found, "request_seconds_sum", endpoint=endpoint) < 10


def test_no_name_of_a_room_or_person_is_told(client: FlaskClient, login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    alice.send(room_id)

    text = client.get("/metrics").get_data(as_text=True)

    assert "alice" not in text
    assert room_id not in text


def test_the_wait_of_a_long_poll_is_not_its_work(client: FlaskClient, login: Login) -> None:
    alice = login("alice")
    since = alice.sync()["next_batch"]
    before = value(read(client), "request_seconds_sum", endpoint="sync.sync")

    alice.sync(since, timeout=600)

    after = value(read(client), "request_seconds_sum", endpoint="sync.sync")
    assert after - before < 0.5


def test_commits_caches_and_the_clock_are_shown(client: FlaskClient, login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    before = read(client)

    for _ in range(3):
        alice.send(room_id)

    found = read(client)
    assert value(found, "commit_seconds_count") - value(before, "commit_seconds_count") == 3
    for name in ("write_wait_seconds_count", "write_seconds_count"):
        assert value(found, name) - value(before, name) == 3
    assert value(found, "write_seconds_sum") > value(before, "write_seconds_sum")
    assert value(found, "read_seconds_total") > value(before, "read_seconds_total") > 0
    assert value(found, "commit_writes_sum") - value(before, "commit_writes_sum") == 3
    assert value(found, "position") - value(before, "position") == 3 * (PLACES + 1)
    assert value(found, "cache_entries", cache="client_events") >= 3
    assert value(found, "cache_bytes", cache="state") > 0
    assert value(found, "cache_bytes", cache="state") < value(
        found, "cache_max_bytes", cache="state"
    )
    assert value(found, "cache_hits_total", cache="tokens") >= 3
    assert value(found, "database_bytes", file="database") > 100_000
    assert value(found, "uptime_seconds") > 0


def test_what_waits_to_be_delivered_is_shown_by_kind(app: Application, client: FlaskClient) -> None:
    with app.homeserver.database.write() as tx:
        tx.now_ms -= 90_000
        outbox.add_all(tx, "push", [("one", {}), ("other", {})])
        tx.now_ms += 60_000
        outbox.add(tx, "appservice", "irc", {})

    found = read(client)

    assert value(found, "outbox_rows", kind="push") == 2
    assert value(found, "outbox_rows", kind="appservice") == 1
    assert 89 < value(found, "outbox_oldest_seconds", kind="push") < 120
    assert 29 < value(found, "outbox_oldest_seconds", kind="appservice") < 60


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.53", "::1", "::ffff:127.0.0.1"])
def test_programs_on_this_machine_may_read(client: FlaskClient, address: str) -> None:
    answer = client.get("/metrics", environ_base={"REMOTE_ADDR": address})

    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain; version=")


@pytest.mark.parametrize("address", ["192.0.2.7", "10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", ""])
def test_others_may_not(client: FlaskClient, address: str) -> None:
    answer = client.get("/metrics", environ_base={"REMOTE_ADDR": address})

    assert (answer.status_code, answer.get_json()["errcode"]) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "192.0.2.7"},
        {"X-Forwarded-For": "127.0.0.1"},  # made up by the client of a proxy that adds nothing
        {"X-Forwarded-For": "no address"},
        {"X-Forwarded-Proto": "https"},
        {"X-Real-IP": "192.0.2.7"},
        {"Forwarded": "for=192.0.2.7"},
    ],
)
def test_who_comes_by_a_proxy_may_not(client: FlaskClient, headers: dict[str, str]) -> None:
    answer = client.get("/metrics", headers=headers, environ_base=HERE)

    assert answer.status_code == 403


def test_who_has_the_token_may_from_everywhere(make_app: MakeApp) -> None:
    client = make_app(metrics_token="let me see").test_client()
    headers = {"Authorization": "Bearer let me see"}

    answer = client.get("/metrics", headers=headers, environ_base=ELSEWHERE)

    assert answer.status_code == 200


@pytest.mark.parametrize("token", ["", "let me", "let me see all", "Let me see", "\u00e9"])
def test_a_wrong_token_opens_nothing(make_app: MakeApp, token: str) -> None:
    client = make_app(metrics_token="let me see").test_client()
    headers = {"Authorization": f"Bearer {token}"}

    answer = client.get("/metrics", headers=headers, environ_base=ELSEWHERE)

    assert answer.status_code == 403


def test_where_it_is_wished_nobody_may_without_the_token(make_app: MakeApp) -> None:
    shut = make_app(metrics_without_token="false").test_client()
    client = make_app(metrics_without_token="false", metrics_token="let me see").test_client()

    answers = [
        shut.get("/metrics", environ_base=HERE),
        shut.get("/metrics", environ_base=HERE, headers={"Authorization": "Bearer "}),
        client.get("/metrics", environ_base=HERE),
        client.get("/metrics", environ_base=HERE, headers={"Authorization": "Bearer let me see"}),
    ]

    assert [answer.status_code for answer in answers] == [403, 403, 403, 200]


FIRST_READER = """
import sys, threading
from gevent import monkey
monkey.patch_all()
from homebody.application import create_app
from homebody.config import settings

class Loaded:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "prometheus_client":
            threads.add(threading.get_native_id())

threads = set()
sys.meta_path.insert(0, Loaded())
app = create_app(settings.load(None, {}, {"data_dir": sys.argv[1]}))
assert not threads, "loaded at the start"
assert app.test_client().get("/metrics").status_code == 200
assert threads, "not loaded"
assert threading.get_native_id() not in threads, "loaded on the hub"
app.homeserver.ephemeral.close()
app.homeserver.database.close()
"""


def test_what_writes_the_metrics_is_loaded_by_who_reads_them_and_not_on_the_hub(
    tmp_path: Path, empty_database: Path
) -> None:
    shutil.copy(empty_database, tmp_path / "homebody.db")
    command = [sys.executable, "-c", FIRST_READER, str(tmp_path)]

    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def test_a_histogram_counts_a_bound_as_below_it() -> None:
    histogram = Histogram((1.0, 2.0))

    for number in (0.5, 1.0, 1.5, 2.0, 7.0):
        histogram.observe(number)

    assert histogram.cumulated() == [2, 4, 5]
    assert histogram.sum == 12.0


def test_a_real_server_tells_of_its_process_and_connections(tmp_path: Path) -> None:
    running = real_server.start(tmp_path)
    place = urlsplit(running.url).netloc
    idle = http.client.HTTPConnection(place, timeout=10)
    idle.connect()
    asking = http.client.HTTPConnection(place, timeout=10)
    asking.request("GET", "/metrics")

    found = samples(asking.getresponse().read().decode())

    idle.close()
    asking.close()
    running.stop()
    assert value(found, "connections") == 2
    assert value(found, "waiting_requests") == 0
    assert value(found, "threads") >= 2  # one of them watches the event loop
    assert value(found, "hub_stall_seconds_count") == 0
    assert found["process_resident_memory_bytes", frozenset()] > 2**24
    assert found["process_open_fds", frozenset()] > 5


def test_what_is_sent_to_other_servers_is_counted(
    app: Application, remote: Remotes, client: FlaskClient, login: Login
) -> None:
    b, c = remote("b.test"), remote("c.test")
    c.fail("/send/")
    alice = login("alice")
    room_id = shared_room(app, alice, b, c)
    sender = app.homeserver.sender
    sender.start()
    alice.send(room_id, "hello")
    wait_for_bodies(b, ["hello"])
    c.wait_until(lambda: sender.counts()[1])
    sender.stop()

    found = read(client)

    assert value(found, "federation_destinations", **{"is": "failing"}) == 1
    assert value(found, "federation_destinations", **{"is": "waiting"}) == 1
    assert value(found, "federation_sent_total", kind="pdu") == 1
    assert value(found, "federation_sent_total", kind="edu") == 0
    assert value(found, "federation_transaction_seconds_count") == 1


def test_what_other_servers_send_is_counted(
    remote: Remotes, client: FlaskClient, login: Login
) -> None:
    b, alice = remote("b.test"), login("alice")
    room = b.join(alice.create_room(preset="public_chat"), "carol")
    fork = [room.message(text, prev=room.heads, sender="carol", add=False) for text in "ab"]
    topics = [room.member("carol", "join", content={"displayname": it}, add=False) for it in "cd"]
    forbidden = room.set_state("m.room.name", {"name": "x"}, sender="carol", add=False)
    unsigned = without_signatures(fork[0])
    edu = {"edu_type": "m.typing", "content": {}}
    before = read(client)

    b.send(*fork, *topics, edus=[edu, {"edu_type": "org.example", "content": {}}])
    b.send(forbidden, unsigned | {"depth": 7})

    after = read(client)
    name = "federation_received_pdus_total"
    joined = value(before, name, standing="accepted")
    assert value(after, name, standing="accepted") - joined == 4
    assert value(after, name, standing="rejected") == 1
    assert value(after, name, standing="refused") == 1
    assert value(after, "federation_received_edus_total", type="m.typing") == 1
    assert "org.example" not in str(after.keys())
    assert value(after, "federation_received_transaction_seconds_count") == 2
    assert value(after, "federation_state_resolution_seconds_count") > 0


def test_joins_by_way_of_other_servers_and_gaps_are_counted(
    remote: Remotes, client: FlaskClient, login: Login
) -> None:
    b, alice = remote("b.test"), login("alice")
    room = b.room()
    path = f"join/{quote(room.id)}?via=b.test"
    assert alice.post(path).status_code == 200
    assert alice.post("join/!none:b.test?via=b.test").status_code == 404
    missing, event = room.message("missing"), room.message("last")

    b.send(event)

    b.wait_until(lambda: value(read(client), "federation_gaps_total", outcome="succeeded"), "it")
    found = read(client)
    assert missing.event_id != event.event_id
    assert value(found, "federation_joins_total", outcome="succeeded") == 1
    assert value(found, "federation_joins_total", outcome="failed") == 1
    assert value(found, "federation_join_seconds_count") == 2
    assert value(found, "federation_gap_seconds_count") == 1


def test_without_federation_nothing_is_counted_of_it(make_app: MakeApp) -> None:
    found = read(make_app(federation="false").test_client())

    assert not [name for name, _ in found if name.startswith("homebody_federation")]
