"""The public URL as clients see it: whether this server answers, and browsers may use it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Final

from homebody.doctor.examination import Examination
from homebody.doctor.fetching import Answer, UnreachableError
from homebody.doctor.findings import Finding

ORIGIN: Final = {"Origin": "https://app.element.io"}
ALLOW_ORIGIN: Final = "Access-Control-Allow-Origin"
GATEWAY_ERRORS: Final = {502, 503, 504}
REDIRECTS: Final = {301, 302, 303, 307, 308}
MAX_CLOCK_S: Final = 30
BROKEN_CLOCK_S: Final = 600


def reach(ex: Examination) -> Iterator[Finding]:
    """Check what answers at the public URL; the last finding is ok if it is this server."""
    report = ex.report
    try:
        answer = ex.fetcher.fetch(f"{ex.url}/_matrix/client/versions", headers=ORIGIN)
    except UnreachableError as error:
        yield report.broken("reachable", f"{ex.url}: {error}")
        return
    if answer.status in GATEWAY_ERRORS:
        yield report.broken("backend", f"{ex.url}: {answer.shown}")
        if not answer.all(ALLOW_ORIGIN):
            seen = f"the proxy's own {answer.status} has no {ALLOW_ORIGIN}"
            yield report.warning("cors-errors", seen)
        return
    if answer.status in REDIRECTS:
        yield report.broken("redirect", f"{answer.url} → {answer.headers.get('Location')}")
        return
    yield report.ok("reachable", ex.url)
    versions = answer.object.get("versions")
    if not isinstance(versions, list) or not versions:
        yield report.broken("versions", f"{answer.url}: {answer.shown}")
        return
    yield report.ok("versions", f"up to {versions[-1]}")
    yield from _clock(ex, answer)
    if ex.key is None:
        yield report.skipped("other-server", "the signing key can't be read")
        return
    probe = ex.probe("here")
    if ex.arrival(probe) is None:
        yield report.broken("other-server", f"{probe.url}: {probe.shown}")
        return
    yield report.ok("other-server", "the public URL leads to this server")


def _clock(ex: Examination, answer: Answer) -> Iterator[Finding]:
    if (difference := clock_difference(answer.headers)) is not None:
        yield clock_finding(ex, difference, ex.host)


def clock_difference(headers: Mapping[str, str] | Message) -> float | None:
    """Return by how many seconds the clock of another machine is ahead of ours."""
    try:
        date = parsedate_to_datetime(headers["Date"])
    except (KeyError, TypeError, ValueError):
        return None
    return date.timestamp() - time.time()


def clock_finding(ex: Examination, difference: float, host: str) -> Finding:
    """Return whether our clock is that of another machine."""
    size = abs(difference)
    seen = f"{size:.0f} s {'behind' if difference > 0 else 'ahead of'} that of {host}"
    if size > BROKEN_CLOCK_S:
        return ex.report.broken("clock", seen)
    if size > MAX_CLOCK_S:
        return ex.report.warning("clock", seen)
    return ex.report.ok("clock", f"within {MAX_CLOCK_S} s of that of {host}")


def login(ex: Examination) -> Iterator[Finding]:
    """Check that users can log in by password."""
    answer = ex.fetcher.fetch(f"{ex.url}/_matrix/client/v3/login")
    flows = answer.object.get("flows")
    kinds = [it.get("type") for it in flows or [] if isinstance(it, dict)]
    if "m.login.password" in kinds:
        yield ex.report.ok("login-flows", ", ".join(map(str, kinds)))
    else:
        yield ex.report.broken("login-flows", f"{answer.url}: {answer.shown}")


def oauth(ex: Examination) -> Iterator[Finding]:
    """Check that clients find the pages on which users log in, and that browsers reach them."""
    if not ex.config.oauth:
        yield ex.report.skipped("oauth", "oauth is false")
        return
    answer = ex.fetcher.fetch(f"{ex.url}/_matrix/client/v1/auth_metadata", headers=ORIGIN)
    if not answer.object.get("authorization_endpoint"):
        yield ex.report.broken("oauth", f"{answer.url}: {answer.shown}")
        return
    # Not a page of OAuth's own: without a client it is an error, which a proxy may replace
    page = ex.fetcher.fetch(f"{ex.url}/_homebody/login")
    is_ours = "frame-ancestors 'none'" in "".join(page.all("Content-Security-Policy"))
    if page.status != 200 or not is_ours:
        yield ex.report.broken("oauth", f"{page.url}: {page.shown}")
    else:
        yield ex.report.ok("oauth", "browsers reach the pages on which clients log users in")


def access_tokens(ex: Examination) -> Iterator[Finding]:
    """Check that access tokens arrive."""
    answer = ex.probe("token", {"Authorization": "Bearer homebody-doctor"})
    arrival = ex.arrival(answer)
    if arrival is None:
        yield ex.report.broken("authorization", f"with an access token: {answer.shown}")
    elif not arrival["has_token"]:
        yield ex.report.broken("authorization", "the Authorization header does not arrive")
    else:
        yield ex.report.ok("authorization", "access tokens arrive")


def cors(ex: Examination) -> Iterator[Finding]:
    """Check that a web client may read responses, and may send what it has to."""
    answer = ex.fetcher.fetch(f"{ex.url}/_matrix/client/versions", headers=ORIGIN)
    yield from _allowed(ex, answer, "cors", "responses")


def errors(ex: Examination) -> Iterator[Finding]:
    """Check that errors arrive as the server sends them, and that web clients may read them."""
    found: list[Finding] = []
    for path, errcode in (
        ("v3/account/whoami", "M_MISSING_TOKEN"),
        ("v3/no/such/path", "M_UNRECOGNIZED"),
    ):
        answer = ex.fetcher.fetch(f"{ex.url}/_matrix/client/{path}", headers=ORIGIN)
        if answer.object.get("errcode") != errcode:
            seen = f"/_matrix/client/{path}: {answer.shown}, not {errcode}"
            yield ex.report.broken("errors-replaced", seen)
            return
        found += _allowed(ex, answer, "cors-errors", f"errors (status {answer.status})")
    yield ex.report.ok("errors-replaced", "errors arrive as they are")
    bad = [it for it in found if it.severity != "ok"]
    yield (bad or found)[0]


def _allowed(ex: Examination, answer: Answer, id_: str, what: str) -> Iterator[Finding]:
    values = answer.all(ALLOW_ORIGIN)
    if len(values) > 1 or any("," in value for value in values):
        yield ex.report.broken("cors-twice", f"{what} have {ALLOW_ORIGIN}: {', '.join(values)}")
    elif not values:
        yield ex.report.broken(id_, f"{what} have no {ALLOW_ORIGIN}")
    elif values[0] not in {"*", ORIGIN["Origin"]}:
        yield ex.report.broken(id_, f"{what} have {ALLOW_ORIGIN}: {values[0]}, not *")
    else:
        yield ex.report.ok(id_, f"{what} have {ALLOW_ORIGIN}")


def preflight(ex: Examination) -> Iterator[Finding]:
    """Check what a browser requests before it sends an access token."""
    asked = {
        **ORIGIN,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    answer = ex.fetcher.fetch(f"{ex.url}/_matrix/client/v3/profile/x", "OPTIONS", asked)
    problems = list(_preflight_problems(answer))
    if problems:
        yield ex.report.broken("cors-preflight", f"OPTIONS: {'; '.join(problems)}")
    else:
        yield ex.report.ok("cors-preflight", "browsers may send access tokens")


def _preflight_problems(answer: Answer) -> Iterator[str]:
    if not 200 <= answer.status < 300:
        yield answer.shown
        return
    if len(answer.all(ALLOW_ORIGIN)) != 1:
        yield f"{ALLOW_ORIGIN} {'twice' if answer.all(ALLOW_ORIGIN) else 'missing'}"
    methods = ",".join(answer.all("Access-Control-Allow-Methods")).upper()
    if "PUT" not in methods and "*" not in methods:
        yield "PUT is not in Access-Control-Allow-Methods"
    headers = ",".join(answer.all("Access-Control-Allow-Headers")).lower()
    if "authorization" not in headers:  # which * does not include
        yield "Authorization is not in Access-Control-Allow-Headers"


def metrics(ex: Examination) -> Iterator[Finding]:
    """Check that /metrics can't be read through the proxy."""
    if ex.scheme != "https":
        yield ex.report.skipped("metrics-public", "the public URL has no proxy in front")
        return
    answer = ex.fetcher.fetch(f"{ex.url}/metrics")
    if answer.status == 200 and b"# HELP" in answer.body:
        yield ex.report.warning("metrics-public", f"{answer.url} needs no token")
    else:
        yield ex.report.ok("metrics-public", f"/metrics: {answer.shown}")
