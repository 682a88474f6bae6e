"""Finding out whether an application service can be reached, and knows its token.

Spec: application-service-api#pinging
"""

from __future__ import annotations

import time

from homebody import errors
from homebody.outside import RemoteError, appservice
from homebody.spec.appservices import Service
from homebody.spec.events import Json
from homebody.storage.database import Server


def ping(server: Server, service: Service, body: Json) -> int:
    """How long a service takes to answer (ms).

    Raises M_URL_NOT_SET, M_BAD_STATUS, M_CONNECTION_FAILED, M_CONNECTION_TIMEOUT.
    """
    if service.url is None:
        raise errors.url_not_set()
    began = time.monotonic()
    try:
        status, text = appservice.ping(server.config, service, body)
    except RemoteError as error:
        if error.kind == "timeout":
            raise errors.connection_timeout() from error
        raise errors.connection_failed(str(error)) from error
    if status != 200:
        raise errors.bad_status(status, text)
    return round((time.monotonic() - began) * 1000)
