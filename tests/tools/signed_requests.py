"""Hooks for schemathesis: it signs its requests as another server, with the key in SIGNING_SEED.

`fuzz_by_schema.py` names this module in SCHEMATHESIS_HOOKS for server-server.json.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import orjson
import requests
import schemathesis
from requests.auth import AuthBase

from homebody.spec import x_matrix
from homebody.spec.signing import SigningKey

NAME = "b.test"
DESTINATION = "localhost"
_KEY = SigningKey.from_seed("a_1", bytes.fromhex(os.environ["SIGNING_SEED"]))


class XMatrix(AuthBase):
    """Signs a request as it is sent."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        url = urlsplit(request.url or "")
        uri = url.path + (f"?{url.query}" if url.query else "")
        body = request.body.encode() if isinstance(request.body, str) else request.body
        try:
            content = orjson.loads(body) if body else None
            signed = x_matrix.sign(
                _KEY,
                method=request.method or "",
                uri=uri,
                origin=NAME,
                destination=DESTINATION,
                content=content,
            )
        except ValueError:  # no server could sign that
            return request
        request.headers["Authorization"] = signed
        return request


@schemathesis.hook
def before_call(_context: Any, _case: Any, kwargs: dict[str, Any]) -> None:
    """Sign each request."""
    kwargs["auth"] = XMatrix()
