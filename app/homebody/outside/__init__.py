"""Outgoing requests: guarded HTTP clients, and typed calls made with them.

Only this package opens connections to other machines. Each of their errors is a `RemoteError`,
which is never passed on to a client unconverted.
"""

from __future__ import annotations

from typing import Any, Literal

Kind = Literal["refused", "unreachable", "timeout", "too_large", "bad_response"]


class RemoteError(Exception):
    """A request to another server failed; the sentence is for the log or the user.

    refused       not sent: a private address, a scheme other than http and https
    unreachable   no such name, no connection, an invalid certificate, no valid HTTP
    timeout       it took longer than the caller allows
    too_large     the response has more bytes than the caller allows
    bad_response  an unexpected status or body

    Of another homeserver's error, `status` is the status, `content` the object (empty if there is
    none) and `errcode` its errcode.
    """

    def __init__(
        self,
        kind: Kind,
        sentence: str,
        *,
        status: int | None = None,
        content: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.status = status
        self.content = content or {}
        errcode = self.content.get("errcode")
        self.errcode = errcode if isinstance(errcode, str) else None
