"""Check step by step whether a server can be found and reached, for `homebody federation check`.

Every address is tried, where requests would use the first that works: an IPv6 address that leads
nowhere is the usual reason why a server is reached by some and not by others.

Spec: server-server-api#resolving-server-names
"""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from homebody.config.settings import Config
from homebody.outside import RemoteError, addresses, https
from homebody.outside.client import USER_AGENT
from homebody.outside.https import Connection, Connector, Target
from homebody.outside.resolver import LookupFailedError
from homebody.outside.server_discovery import SERVICES, Location, ServerDiscovery
from homebody.spec import canonical_json, identifiers, server_keys, signing
from homebody.spec.signing import SigningKey

TIMEOUT_S: Final = 15.0
MAX_BYTES: Final = 65_536
DAYS_BEFORE_EXPIRY: Final = 14
_EVERYWHERE: Final = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
_DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a step."""

    step: str
    status: Literal["ok", "note", "failed"]
    """note: not as it could be, but servers get along with it."""
    text: str
    advice: str = ""
    """What to change, if something has to be."""


class Check:
    """The steps for one server; `key` is our signing key, to compare with if it is our own name."""

    def __init__(self, config: Config, server_name: str, key: SigningKey) -> None:
        self._is_own = server_name == config.server_name
        if self._is_own:  # it may well have a private address, seen from here
            config = replace(config, outside_allowed=_EVERYWHERE)
        self._config = config
        self._name = server_name
        self._key = key
        self._connector = Connector(config)
        self.discovery = ServerDiscovery(config, self._connector)

    def run(self) -> Iterator[Finding]:
        """Yield what each step finds, up to the first without which the next makes no sense."""
        try:
            host, port, is_ip_literal = identifiers.split_server_name(self._name)
        except ValueError:
            yield Finding("name", "failed", f"{self._name} is not a server name")
            return
        if not self._config.federation:
            text = "this server does not talk to others (federation = false)"
            yield Finding("settings", "failed", text, "Set federation = true")
        elif not self._config.is_server_allowed(self._name):
            text = "the settings federation_allow_servers and federation_deny_servers exclude it"
            yield Finding("settings", "failed", text, "Change one of the two")
        if self._name in dict(self._config.federation_hosts):
            yield Finding("name", "note", "placed by the setting federation_hosts")
        elif is_ip_literal or port is not None:
            what = "IP address" if is_ip_literal else "name with a port"
            yield Finding("name", "ok", f"an {what}" if is_ip_literal else f"a {what}")
        else:
            yield from self._delegation(host)
        try:
            location = self.discovery.locate(self._name)
        except RemoteError as error:
            yield Finding(
                "SRV", "failed", str(error), "Remove the SRV record, or name a host in it"
            )
            return
        yield from self._reached(location)

    def _delegation(self, host: str) -> Iterator[Finding]:
        """Yield what the file under /.well-known and the SRV records say."""
        found = self.discovery.well_known.get(host)
        url = f"https://{host}/.well-known/matrix/server"
        if found.server is None:
            yield Finding("well-known", "note", f"{url} is not used: {found.problem}")
        else:
            hours = found.seconds / 3600
            yield Finding("well-known", "ok", f"{url} leads to {found.server}, for {hours:.0f} h")
            host, port, is_ip_literal = identifiers.split_server_name(found.server)
            if is_ip_literal or port is not None:
                return
        for service in SERVICES:
            name = f"{service}.{host}"
            try:
                hosts = self.discovery.resolver.services(name)
            except LookupFailedError as error:
                yield Finding("SRV", "note", f"{name} can't be looked up: {error}")
                continue
            except RemoteError:
                return  # `locate` says it
            if hosts:
                listed = ", ".join(f"{host}:{port}" for host, port in hosts)
                yield Finding("SRV", "ok", f"{name} leads to {listed}")
                return
        yield Finding("SRV", "ok", f"no records for {host}, so its port is 8448")

    def _reached(self, location: Location) -> Iterator[Finding]:
        """Yield the addresses, what they respond, and the keys."""
        targets: list[Target] = []
        for host, port in location.hosts:
            try:
                found = self.discovery.resolver.addresses(host)
            except RemoteError as error:
                yield Finding("addresses", "failed", str(error), self._advice_for_dns(host))
                continue
            shown = ", ".join(map(str, found))
            yield Finding("addresses", "ok", f"{host}: {shown}, port {port}")
            yield from self._not_public(host, found, location)
            targets += [(address, port) for address in found]
        connections: list[Connection] = []
        try:
            for target in targets:
                yield self._connected(target, location, connections)
            if connections:
                yield from self._responses(connections[0], location)
        finally:
            for connection in connections:
                connection.close()

    def _not_public(
        self, host: str, found: list[addresses.Address], location: Location
    ) -> Iterator[Finding]:
        private = [it for it in found if not addresses.is_public(it)]
        if not private or location.is_trusted:
            return
        shown = ", ".join(map(str, private))
        if self._is_own:
            text = f"{shown} is private: servers outside of your network can't reach it"
            yield Finding("addresses", "note", text)
            return
        try:
            addresses.checked(host, found, self._config.outside_allowed)
        except RemoteError:
            text = f"{shown} is private, so this server does not connect to it"
            advice = f'If it is yours, set outside_allowed = ["{host}"]'
            yield Finding("addresses", "failed", text, advice)

    def _connected(
        self, target: Target, location: Location, connections: list[Connection]
    ) -> Finding:
        """Connect to an address, and return what its certificate is."""
        shown, until = https.shown(target), time.monotonic() + TIMEOUT_S
        try:
            connection = self._connector.connect([target], location.tls_name, until)
        except RemoteError as error:
            is_certificate = isinstance(error.__cause__, ssl.SSLCertVerificationError)
            advice = self._advice_for_tls(location, is_certificate=is_certificate)
            # Another address may work, but servers that try this one first wait for it
            return Finding("TLS", "failed", str(error), advice)
        connection.host_header = location.host_header
        connections.append(connection)
        expires = ssl.cert_time_to_seconds(connection.certificate()["notAfter"])
        days = int((expires - time.time()) / _DAY_SECONDS)
        text = f"{shown}: certificate for {location.tls_name}, valid until {_day(expires)}"
        if days < DAYS_BEFORE_EXPIRY:
            return Finding("TLS", "note", f"{text}, {days} days from now", "Renew the certificate")
        return Finding("TLS", "ok", text)

    def _responses(self, connection: Connection, location: Location) -> Iterator[Finding]:
        path = "/_matrix/federation/v1/version"
        try:
            content = _fetch(connection, location, path)
            server = content.get("server") if isinstance(content, dict) else None
            found = server if isinstance(server, dict) else {}
            named = " ".join(str(found.get(it, "?"))[:100] for it in ("name", "version"))
            yield Finding("version", "ok", named)
        except RemoteError as error:
            yield Finding("version", "failed", f"{path}: {error}", self._advice_for_path())
            return
        path = "/_matrix/key/v2/server"
        try:
            response = _fetch(connection, location, path)
            keys = server_keys.parse(response, self._name)
        except (RemoteError, ValueError) as error:
            yield Finding("keys", "failed", f"{path}: {error}", self._advice_for_path())
            return
        yield self._judged(keys)

    def _judged(self, found: server_keys.PublishedKeys) -> Finding:
        names = ", ".join(it.key_id for it in found.keys if it.expired_ts is None)
        until_s = found.valid_until_ts / 1000
        ours = signing.verify_key_to_base64(self._key.verify_key)
        published = {signing.verify_key_to_base64(it.key) for it in found.keys}
        if self._is_own and ours not in published:
            text = f"{names}: not the key in {self._config.signing_key_path}"
            return Finding("keys", "failed", text, "Find out which server responds in this name")
        if until_s < time.time():
            return Finding("keys", "failed", f"{names}: expired on {_day(until_s)}")
        return Finding("keys", "ok", f"{names}, valid until {_day(until_s)}")

    def _advice_for_dns(self, host: str) -> str:
        return f"Add an A or AAAA record for {host}" if self._is_own else ""

    def _advice_for_tls(self, location: Location, *, is_certificate: bool) -> str:
        if not self._is_own:
            return ""
        if is_certificate:
            return f"The proxy needs a certificate for {location.tls_name}, with all intermediates"
        if location.step in {"4", "5", "6"}:
            delegated = self._config.well_known_server or _host_of(self._config.public_url)
            return (
                f'Serve {{"m.server": "{delegated}"}} at'
                f" https://{self._name}/.well-known/matrix/server, or open port 8448"
            )
        return "Open this port in the firewall, and let the proxy listen on it"

    def _advice_for_path(self) -> str:
        if not self._is_own:
            return ""
        if not self._config.federation:
            return "Set federation = true"
        return f"Let the proxy pass /_matrix on to http://{self._config.bind[0]}, paths unchanged"


def _fetch(connection: Connection, location: Location, path: str) -> Any:
    """Return the JSON at a path. Raises RemoteError."""
    until = time.monotonic() + TIMEOUT_S
    headers = {"Host": location.host_header, "User-Agent": USER_AGENT, "Accept-Encoding": "gzip"}
    with https.remote_errors(connection.host_header, until):
        response = connection.request("GET", path, headers, None, until)
        body = b"".join(https.read(response, MAX_BYTES))
    if response.status != 200:
        raise RemoteError("bad_response", f"status {response.status}")
    try:
        return canonical_json.decode(body)
    except ValueError as error:
        raise RemoteError("bad_response", "not JSON") from error


def _host_of(url: str) -> str:
    """Return host and port of a URL, as m.server needs them."""
    netloc = urlsplit(url).netloc
    return netloc if identifiers.split_server_name(netloc).port else f"{netloc}:443"


def _day(ts: float) -> str:
    try:
        return f"{datetime.fromtimestamp(ts, UTC):%Y-%m-%d}"
    except (OverflowError, ValueError, OSError):
        return "the end of time"
