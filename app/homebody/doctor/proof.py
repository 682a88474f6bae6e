"""The proof with which `homebody doctor` identifies itself to the running server.

It is signed with the server's signing key, which the command and the server read from the same
file. It is sent to whatever answers at the public URL, so it is good for a minute only, and for
nothing but the probe (web/probe.py).
"""

from __future__ import annotations

from typing import Final

from nacl.exceptions import BadSignatureError

from homebody.spec import canonical_json
from homebody.spec.signing import SigningKey

HEADER: Final = "X-Homebody-Proof"
PATH: Final = "/_matrix/client/unstable/homebody.doctor"
"""Below /_matrix, as that may be all that a proxy passes on."""
SECONDS: Final = 60


def make(key: SigningKey, now_s: float) -> str:
    """Return a proof that is valid from now on."""
    ts = int(now_s)
    return f"{ts}.{key.sign(_text(ts))}"


def is_valid(key: SigningKey, proof: str, now_s: float) -> bool:
    """Return whether a proof was made with this key within the last minute."""
    ts, _, signature = proof.partition(".")
    if not (ts.isascii() and ts.isdecimal() and len(ts) < 15):
        return False
    if abs(now_s - int(ts)) > SECONDS:
        return False
    try:
        key.verify_key.verify(_text(int(ts)), canonical_json.decode_base64(signature))
    except (BadSignatureError, ValueError):
        return False
    return True


def _text(ts: int) -> bytes:
    return f"homebody doctor {ts}".encode()
