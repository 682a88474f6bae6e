"""Other services that the server needs: mail, TURN, push gateways, login providers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from homebody.core import server_key
from homebody.core.push import pushers
from homebody.doctor import clients, stun
from homebody.doctor.examination import Examination
from homebody.doctor.fetching import RESPONSE_S, UnreachableError
from homebody.doctor.findings import Finding
from homebody.outside import RemoteError, mail, openid_provider
from homebody.outside.client import Client
from homebody.outside.mail import MailError
from homebody.storage import migrations
from homebody.storage.caches import Caches
from homebody.storage.database import Database, Server

MAX_GATEWAYS: Final = 5
_LOOPBACK: Final = ("localhost", "127.", "::1", "/")


def smtp(ex: Examination) -> Iterator[Finding]:
    """Check that the mail server accepts us; no mail is sent."""
    settings = ex.config.smtp
    if settings.host is None:
        yield ex.report.skipped("smtp", "no mail server is set")
        return
    place = f"{settings.host} port {settings.port}"
    try:
        mail.check(ex.config, RESPONSE_S)
    except MailError as error:
        yield ex.report.broken("smtp", f"{place}: {error}")
        return
    how = "with a login" if settings.user else "without a login"
    yield ex.report.ok("smtp", f"{place}, {settings.tls}, {how}")
    if settings.tls == "none" and not settings.host.startswith(_LOOPBACK):
        yield ex.report.warning("smtp-plain", f'{place}: tls = "none"')


def turn(ex: Examination) -> Iterator[Finding]:
    """Check that the TURN servers answer, and accept our secret."""
    if not ex.config.turn_uris:
        yield ex.report.skipped("turn", "no TURN server is set")
        return
    for uri in ex.config.turn_uris:
        try:
            seen = stun.check(ex, uri)
        except UnreachableError as error:
            yield ex.report.broken("turn", f"{uri}: {error}")
        else:
            yield ex.report.ok("turn", f"{uri}: {seen}")


def push_gateways(ex: Examination) -> Iterator[Finding]:
    """Check that the push gateways of users' apps answer."""
    urls = list(_gateways(ex))
    if not urls:
        yield ex.report.skipped("push-gateway", "no app of a user has a push gateway")
    client = Client(ex.config)
    for url in urls[:MAX_GATEWAYS]:
        try:  # with GET, which sends nothing, and which they answer with an error or without
            answer = client.request("GET", url, timeout_s=RESPONSE_S, truncate=True)
        except RemoteError as error:
            yield ex.report.warning("push-gateway", f"{url}: {error}")
            continue
        made = ex.report.warning if answer.status >= 500 else ex.report.ok
        yield made("push-gateway", f"{url}: status {answer.status}")
        difference = clients.clock_difference(answer.headers)
        if difference is not None:
            yield clients.clock_finding(ex, difference, urlsplit(url).hostname or "")


def login_providers(ex: Examination) -> Iterator[Finding]:
    """Check that the providers at which users log in answer, and call themselves as we do."""
    if not ex.config.oidc_providers:
        yield ex.report.skipped("login-provider", "no login provider is set")
    client = Client(ex.config)
    for provider in ex.config.oidc_providers:
        try:
            metadata = openid_provider.discover(client, provider.issuer)
            found = openid_provider.keys(client, metadata)
        except RemoteError as error:
            yield ex.report.broken("login-provider", f"{provider.id}: {error}")
            continue
        if not found:
            yield ex.report.broken("login-provider", f"{provider.id}: it has no keys")
            continue
        yield ex.report.ok("login-provider", f"{provider.id}: {provider.issuer} answers")


def _gateways(ex: Examination) -> Iterator[str]:
    """Yield the URLs of the push gateways, those with the most pushers first."""
    if ex.key is None or migrations.current(ex.config.database_url) != migrations.known()[-1]:
        return
    server = Server(ex.config.server_name, server_key.load(ex.config), ex.config)
    with (
        contextlib.closing(
            Database(ex.config.database_url, server, Caches(2**20), lambda _: None)
        ) as database,
        database.read() as tx,
    ):
        yield from pushers.gateway_urls(tx)
