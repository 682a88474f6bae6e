"""What the proxy does to requests: addresses, paths, limits, waiting.

The probe (web/probe.py) says how a request arrives.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from typing import Any, Final

from homebody.doctor import fetching
from homebody.doctor.clients import ALLOW_ORIGIN, ORIGIN
from homebody.doctor.examination import Examination
from homebody.doctor.fetching import Answer, UnreachableError
from homebody.doctor.findings import Finding
from homebody.doctor.proof import PATH

FORGED: Final = "192.0.2.77"
"""An address of documentation (RFC 5737), which no client has."""
UPLOAD_S: Final = 8.0
EARLY_S: Final = 1.0
"""How long to wait for the refusal of a body that is not complete."""
_PIECE: Final = bytes(65_536)
_PART_S: Final = 0.7
"""The least time between two parts of a response that the server sends 1.5 s apart."""


def forwarded(ex: Examination) -> Iterator[Finding]:
    """Check whether the server learns the addresses of clients, and from nobody but the proxy."""
    arrival = _arrival(ex, "here")
    if ex.scheme != "https":
        yield ex.report.skipped("forwarded-for", "the public URL has no proxy in front")
        return
    listed, peer = arrival["forwarded_for"], arrival["peer"]
    if not listed:
        yield ex.report.broken("forwarded-for", f"requests of {peer} have no X-Forwarded-For")
    elif not arrival["is_trusted"]:
        known = [*map(str, ex.config.trusted_proxies), str(peer)]
        shown = ", ".join(f'"{it.removesuffix("/32").removesuffix("/128")}"' for it in known)
        seen = f"the proxy's address, {peer}, is not in trusted_proxies"
        yield ex.report.broken("forwarded-for-untrusted", seen, proxies=shown)
    else:
        yield _forged(ex, str(listed))
    yield _scheme(ex, arrival)


def _forged(ex: Examination, listed: str) -> Finding:
    arrival = _arrival(ex, "here", {"X-Forwarded-For": FORGED})
    last = str(arrival["forwarded_for"]).rpartition(",")[2].strip()
    if last == FORGED:
        seen = "the proxy passes on the X-Forwarded-For of clients as it is"
        return ex.report.broken("forwarded-for-forged", seen)
    return ex.report.ok("forwarded-for", f"X-Forwarded-For: {listed}")


def _scheme(ex: Examination, arrival: dict[str, Any]) -> Finding:
    value = arrival["forwarded_proto"]
    if value is None:
        return ex.report.warning("forwarded-proto", "there is no X-Forwarded-Proto")
    if str(value).partition(",")[0].strip().lower() != ex.scheme:
        seen = f"X-Forwarded-Proto is {value}, the public URL {ex.scheme}"
        return ex.report.warning("forwarded-proto", seen)
    return ex.report.ok("forwarded-proto", f"X-Forwarded-Proto: {value}")


def http_version(ex: Examination) -> Iterator[Finding]:
    """Check by which version of HTTP the proxy makes its requests."""
    protocol = str(_arrival(ex, "here")["protocol"])
    if protocol == "HTTP/1.0":
        yield ex.report.warning("http-version", "the proxy makes its requests by HTTP/1.0")
    else:
        yield ex.report.ok("http-version", f"the server gets requests by {protocol}")


def paths(ex: Examination) -> Iterator[Finding]:
    """Check that paths arrive as clients send them."""
    for id_, rests in (
        ("path-decoded", ("room%2Falias%25", "%23room%3Aexample.org")),
        ("path-slashes", ("state//after",)),
        ("path-trailing-slash", ("state/", "state")),
    ):
        problem = next((seen for it in rests if (seen := _changed_path(ex, it))), None)
        if problem:
            yield ex.report.broken(id_, problem)
        else:
            yield ex.report.ok(id_, f"{', '.join(rests)} unchanged")


def _changed_path(ex: Examination, rest: str) -> str | None:
    """Return how a path has changed on its way, if it has."""
    answer = ex.probe(rest)
    arrival = ex.arrival(answer)
    if arrival is None:
        location = answer.headers.get("Location")
        return f"…/{rest}: {answer.shown}" + (f" → {location}" if location else "")
    path = str(arrival["path"])
    ours = path.lower().rpartition("homebody.doctor/")[2]
    return None if ours == rest.lower() else f"{PATH}/{rest} arrives as {path}"


def long_poll(ex: Examination) -> Iterator[Finding]:
    """Check that the proxy waits for a response that takes long, as those of /sync do."""
    wait_s = int(max(1, min(ex.options.long_poll_s, ex.left_s() - 2)))
    began = time.monotonic()
    try:
        answer = ex.probe(f"wait?wait={wait_s}", timeout_s=wait_s + 2)
        is_good, what = ex.arrival(answer) is not None, answer.shown
    except UnreachableError as error:
        is_good, what = False, str(error)
    if is_good:
        yield ex.report.ok("long-poll", f"a request may wait for {wait_s} s")
    else:
        seen = f"a waiting request ended after {time.monotonic() - began:.0f} s: {what}"
        yield ex.report.broken("long-poll", seen)


def buffering(ex: Examination) -> Iterator[Finding]:
    """Check that the first part of a response arrives before the last."""
    url = ex.probe_url("stream?stream=true")
    with ex.fetcher.connection(url) as conn:
        fetching.begin(conn, "GET", url, ex.proof())
        response = conn.getresponse()
        first = response.read1(100)
        began = time.monotonic()
        rest = response.read()
        seconds = time.monotonic() - began
    if response.status != 200 or first + rest != b"first\nsecond\n":
        yield ex.report.skipped("buffering", f"status {response.status}")
    elif rest and seconds > _PART_S:
        yield ex.report.ok("buffering", "responses arrive as they are sent")
    else:
        yield ex.report.warning("buffering", "both parts of a response arrive at its end")


def body_limit(ex: Examination) -> Iterator[Finding]:
    """Check that a file of `max_upload_bytes` gets through, as far as there is time to send it."""
    ex.is_quiet.wait(max(0, ex.left_s() - UPLOAD_S - fetching.RESPONSE_S))
    url, size = ex.probe_url("upload"), ex.config.max_upload_bytes
    answer: Answer | None = None
    sent, problem = 0, ""
    try:
        with ex.fetcher.connection(url) as conn:
            headers = {**ex.proof(), **ORIGIN}
            fetching.begin(conn, "POST", url, headers, length=size)
            sent = _send(conn, size)
            if sent < size:
                conn.sock.settimeout(EARLY_S)  # it may have been refused already
            response = conn.getresponse()
            answer = Answer(response.status, response.headers, response.read(10_000), url)
    except UnreachableError as error:
        problem = str(error)
    if answer is None and 0 < sent < size:
        seen = f"{sent / 2**20:.0f} MiB in {UPLOAD_S:.0f} s; there was no time for more"
        yield ex.report.ok("body-limit", seen)
    else:
        yield from _judged_upload(ex, answer, problem)


def _judged_upload(ex: Examination, answer: Answer | None, problem: str) -> Iterator[Finding]:
    shown = f"{ex.config.max_upload_bytes / 2**20:.0f} MiB"
    if answer is not None and ex.arrival(answer):
        yield ex.report.ok("body-limit", f"{shown} get through")
        return
    seen = answer.shown if answer else problem
    yield ex.report.broken("body-limit", f"a file of {shown} does not get through: {seen}")
    if answer is not None and not answer.all(ALLOW_ORIGIN):
        seen = f"the proxy's own {answer.status} has no {ALLOW_ORIGIN}"
        yield ex.report.warning("cors-errors", seen)


def _send(conn: http.client.HTTPConnection, size: int) -> int:
    """Send a body for as long as there is time; return how many bytes.

    All of them if the proxy has closed the connection: its response may still be there to read.
    """
    until, sent = time.monotonic() + UPLOAD_S, 0
    sock: Any = conn.sock
    while sent < size and time.monotonic() < until:
        piece = _PIECE[: size - sent]
        try:
            sock.sendall(piece)
        except OSError:
            return size
        sent += len(piece)
    return sent


def _arrival(ex: Examination, rest: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """Return what the probe says. Raises UnreachableError."""
    answer = ex.probe(rest, headers)
    arrival = ex.arrival(answer)
    if arrival is None:
        raise UnreachableError(f"the server's probe: {answer.shown}")
    return arrival
