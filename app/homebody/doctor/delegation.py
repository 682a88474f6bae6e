"""The files under /.well-known, and how other servers reach this one.

Spec: client-server-api#well-known-uris, server-server-api#resolving-server-names
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from homebody.doctor import tls
from homebody.doctor.clients import ALLOW_ORIGIN, ORIGIN, REDIRECTS
from homebody.doctor.examination import Examination
from homebody.doctor.fetching import Answer, UnreachableError
from homebody.doctor.findings import Finding
from homebody.outside import RemoteError
from homebody.outside.resolver import LookupFailedError
from homebody.outside.server_discovery import DEFAULT_PORT, SERVICES
from homebody.spec import identifiers, server_keys, signing

CLIENT: Final = "/.well-known/matrix/client"
SERVER: Final = "/.well-known/matrix/server"
MAX_REDIRECTS: Final = 5


class _RedirectError(Exception):
    """Redirects lead nowhere; the text says how."""


def client_file(ex: Examination) -> Iterator[Finding]:
    """Check the file by which a client finds the server of a user ID."""
    if _has_no_files(ex):
        seen = "the server name is a host with a port"
        if ex.is_local:
            seen = "the public URL is of this machine"
        yield ex.report.skipped("well-known-client", seen)
        return
    url = f"{_base(ex)}{CLIENT}"
    try:
        answer = _followed(ex, url)
    except UnreachableError as error:
        yield ex.report.broken("well-known-client", f"{url}: {error}")
        return
    except _RedirectError as error:
        yield ex.report.broken("well-known-client-redirect", str(error))
        return
    homeserver = answer.object.get("m.homeserver")
    base_url = homeserver.get("base_url") if isinstance(homeserver, dict) else None
    if answer.status != 200 or not isinstance(base_url, str):
        shown = answer.shown if answer.status != 200 else 'no "m.homeserver" with a "base_url"'
        yield ex.report.broken("well-known-client", f"{url}: {shown}")
        return
    yield from _target(ex, base_url.rstrip("/"))
    values = answer.all(ALLOW_ORIGIN)
    if values == ["*"]:
        yield ex.report.ok("well-known-client-cors", f"{ALLOW_ORIGIN}: *")
    else:
        shown = ", ".join(values) or "missing"
        yield ex.report.broken("well-known-client-cors", f"{url}: {ALLOW_ORIGIN}: {shown}")
    yield from _typed(ex, answer, "well-known-client-type")


def _target(ex: Examination, base_url: str) -> Iterator[Finding]:
    """Check that the file leads to a server that answers."""
    if base_url == ex.url:
        yield ex.report.ok("well-known-client", f"leads to {base_url}")
        return
    problem = ""
    try:
        answer = ex.fetcher.fetch(f"{base_url}/_matrix/client/versions")
        if "versions" not in answer.object:
            problem = answer.shown
    except (UnreachableError, KeyError, ValueError) as error:  # also not a URL
        problem = str(error)
    if problem:
        yield ex.report.broken("well-known-client-target", f"leads to {base_url}: {problem}")
    else:
        seen = f"leads to {base_url}, and public_url is {ex.url}"
        yield ex.report.warning("well-known-client-target", seen)


def livekit(ex: Examination) -> Iterator[Finding]:
    """Check the services for group calls that the file (MSC4143) and the settings name."""
    if _has_no_files(ex):
        return
    found = _followed_quietly(ex, f"{_base(ex)}{CLIENT}").get("org.matrix.msc4143.rtc_foci")
    foci = [it for it in found or [] if isinstance(it, dict) and it.get("type") == "livekit"]
    urls = [str(it.get("livekit_service_url")).rstrip("/") for it in foci]
    own = ex.config.livekit_service_url
    if own is not None and own not in urls:
        yield ex.report.warning("livekit-announced", f"{_base(ex)}{CLIENT} does not name {own}")
        urls.append(own)
    if not urls:
        yield ex.report.skipped("livekit", "no LiveKit service is named")
    for url in urls:
        try:
            answer = ex.fetcher.fetch(f"{url}/healthz")
            is_good, seen = answer.status == 200, answer.shown
        except (UnreachableError, KeyError, ValueError) as error:
            is_good, seen = False, str(error)
        made = ex.report.ok if is_good else ex.report.broken
        yield made("livekit", f"{url}: {seen}")


def federation(ex: Examination) -> Iterator[Finding]:
    """Check how another server finds and reaches this one."""
    if not ex.config.federation:
        yield ex.report.skipped("federation", "federation is off")
        return
    name = identifiers.split_server_name(ex.config.server_name)
    host, port = name.host, name.port
    if port is None and not name.is_ip_literal:
        delegated, findings = _server_file(ex)
        yield from findings
        if delegated is not None:
            host, port, _ = identifiers.split_server_name(delegated)
    places = [(host, port or DEFAULT_PORT)]
    if port is None:
        places = _services(ex, host) or places
    yield from _reached(ex, host, places)


def _server_file(ex: Examination) -> tuple[str | None, list[Finding]]:
    """Return where the file leads, and what is wrong with it. Without one, port 8448 is used."""
    report, url = ex.report, f"https://{ex.name_host}{SERVER}"
    try:
        answer = _followed(ex, url)
    except UnreachableError as error:
        return None, [report.warning("well-known-server", f"{url}: {error}")]
    except _RedirectError as error:
        return None, [report.broken("well-known-server-redirect", str(error))]
    if answer.status == 404:
        return None, [report.ok("well-known-server", f"{url}: not there, so port 8448 is used")]
    server = answer.object.get("m.server")
    if answer.status != 200 or not _is_server_name(server):
        shown = answer.shown if answer.status != 200 else 'no "m.server" with a server name'
        return None, [report.broken("well-known-server", f"{url}: {shown}")]
    found = [report.ok("well-known-server", f"leads to {server}")]
    return str(server), [*found, *_typed(ex, answer, "well-known-server-type")]


def _services(ex: Examination, host: str) -> list[tuple[str, int]]:
    """Return the hosts of the SRV records of a host."""
    for service in SERVICES:
        try:
            if found := ex.fetcher.resolver.services(f"{service}.{host}"):
                return found
        except (LookupFailedError, RemoteError):
            continue
    return []


def _reached(ex: Examination, tls_name: str, places: list[tuple[str, int]]) -> Iterator[Finding]:
    report, (host, port) = ex.report, places[0]
    shown, names = f"{host} port {port}", {"tls_name": tls_name}
    ex.fetcher.hosts[f"{tls_name}:{port}"] = host  # an SRV record changes it, but not the name
    base = f"https://{tls_name}:{port}"
    try:
        found = list(tls.of_host(ex, tls_name, port, "federation-tls"))
        yield from (it for it in found if it.severity != "ok")
        version = ex.fetcher.fetch(f"{base}/_matrix/federation/v1/version")
        keys = ex.fetcher.fetch(f"{base}/_matrix/key/v2/server")
    except UnreachableError as error:
        yield report.broken("federation", f"{shown}: {error}", **names)
        return
    if "server" not in version.object:
        yield report.broken("federation-api", f"/_matrix/federation at {shown}: {version.shown}")
        return
    yield report.ok("federation", f"other servers reach {shown}")
    yield _judged(ex, keys)


def _judged(ex: Examination, answer: Answer) -> Finding:
    """Return whether the published keys are ours."""
    try:
        found = server_keys.parse(answer.json, ex.config.server_name)
    except ValueError as error:
        return ex.report.broken("federation-api", f"/_matrix/key/v2/server: {error}")
    if ex.key is None:
        return ex.report.skipped("federation-key", "the signing key can't be read")
    published = {signing.verify_key_to_base64(it.key) for it in found.keys}
    if signing.verify_key_to_base64(ex.key.verify_key) not in published:
        seen = f"the published keys don't contain that of {ex.config.signing_key_path}"
        return ex.report.broken("federation-key", seen)
    return ex.report.ok("federation-key", "the published key is ours")


def _typed(ex: Examination, answer: Answer, id_: str) -> Iterator[Finding]:
    kind = answer.headers.get_content_type() if answer.headers.get("Content-Type") else "missing"
    if kind == "application/json":
        yield ex.report.ok(id_, kind)
    else:
        yield ex.report.warning(id_, f"{answer.url}: the content type is {kind}")


def _followed(ex: Examination, url: str) -> Answer:
    """Return the response after redirects. Raises UnreachableError, _RedirectError."""
    seen = [url]
    while True:
        answer = ex.fetcher.fetch(seen[-1], headers=ORIGIN)
        if answer.status not in REDIRECTS:
            return answer
        target = urljoin(seen[-1], answer.headers.get("Location", ""))
        if target in seen:
            raise _RedirectError(f"a loop: {' → '.join([*seen, target])}")
        if len(seen) > MAX_REDIRECTS or urlsplit(target).scheme not in {"http", "https"}:
            raise _RedirectError(f"leads nowhere: {' → '.join([*seen, target])}")
        seen.append(target)


def _followed_quietly(ex: Examination, url: str) -> dict[str, Any]:
    try:
        return _followed(ex, url).object
    except (UnreachableError, _RedirectError):
        return {}


def _has_no_files(ex: Examination) -> bool:
    """Return whether clients can't look the server name up, as it has a port."""
    return ex.is_local or ex.name_host != ex.config.server_name


def _base(ex: Examination) -> str:
    return f"https://{ex.name_host}"


def _is_server_name(value: object) -> bool:
    return isinstance(value, str) and identifiers.is_server_name(value)
