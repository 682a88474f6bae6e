"""The network: the one guarded HTTP client, and typed calls made with it.

Only this package opens connections to the outside. Whatever goes wrong there, the fault of a peer
or of the way to it, is a `RemoteError`, which is never passed on to a client unconverted.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["refused", "unreachable", "timeout", "too_large", "answer"]


class RemoteError(Exception):
    """Why a request to the outside got no answer; the sentence is for people.

    refused      we do not go there: a private address, a scheme other than http and https
    unreachable  no such name, no connection, no trust in its certificate, no HTTP
    timeout      it took longer than the caller wanted to wait
    too_large    the answer has more bytes than the caller wanted
    answer       what came back is not what was asked for
    """

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
