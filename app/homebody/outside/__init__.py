"""Outgoing requests: one guarded HTTP client, and typed calls made with it.

Only this package opens connections to other machines. Each of their errors is a `RemoteError`,
which is never passed on to a client unconverted.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["refused", "unreachable", "timeout", "too_large", "bad_response"]


class RemoteError(Exception):
    """A request to another server failed; the sentence is for the log or the user.

    refused       not sent: a private address, a scheme other than http and https
    unreachable   no such name, no connection, an invalid certificate, no valid HTTP
    timeout       it took longer than the caller allows
    too_large     the response has more bytes than the caller allows
    bad_response  an unexpected status or body
    """

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
