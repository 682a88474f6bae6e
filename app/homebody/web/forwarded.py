"""The client of a request that has come by way of trusted proxies."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TYPE_CHECKING

from homebody.web import probe

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def see_through(environ: WSGIEnvironment, is_trusted_proxy: Callable[[str], bool]) -> None:
    """Replace a trusted proxy's address and scheme with those of the client.

    X-Forwarded-For lists the hops of a request, the nearest last: the last address that is not a
    trusted proxy is the client. The client may have forged anything before it, and invalid
    addresses end the search. Host is kept and X-Forwarded-Host ignored: URLs in responses are made
    from `public_url` alone.
    """
    forwarded = environ.get("HTTP_X_FORWARDED_FOR")
    schemes = environ.get("HTTP_X_FORWARDED_PROTO")
    environ[probe.PEER] = environ.get("REMOTE_ADDR", "")
    proxies = 1
    for text in reversed((forwarded or "").split(",")):
        address = _address(text.strip())
        if address is None:
            break
        environ["REMOTE_ADDR"] = address
        if not is_trusted_proxy(address):
            break
        proxies += 1
    if schemes:
        listed = schemes.lower().split(",")  # one for each proxy, or only that of the nearest
        scheme = listed[-min(proxies, len(listed))].strip()
        if scheme in {"http", "https"}:
            environ["wsgi.url_scheme"] = scheme


def _address(text: str) -> str | None:
    """Return the IP address of an entry of X-Forwarded-For; some proxies add a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
