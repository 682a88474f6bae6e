"""Send what the specification allows, and much that it doesn't, to a real server.

    python -m tests.tools.fuzz_by_schema client-server.json [--examples 3] [--seconds 600]
    python -m tests.tools.fuzz_by_schema server-server.json

schemathesis generates requests from the OpenAPI document, the same ones in every run; those of the
Server-Server API are signed by another server. A response with a 5xx status or one that doesn't
match its schema is a failure, and so is a stack trace in the server's log.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from homebody.spec.signing import SigningKey
from tests.helpers import certificates, server
from tests.helpers import remote as remotes

ENDS_THE_SESSION = (
    "logout",
    "logout_all",
    "deactivateAccount",
    "changePassword",
    "deleteDevice",
    "deleteDevices",
)
"""Operations that would leave the rest of the run without a token."""

NULL_FOR_UNKNOWN = {
    "Device": ("display_name", "last_seen_ip", "last_seen_ts"),
    "RoomMember": ("display_name", "avatar_url"),
}
"""Properties, by the title of their schema, that are null where the document has no key: some
clients need the key. The code marks these as deviations, and the next two as well."""
ALGORITHMS = ["m.megolm_backup.v1.curve25519-aes-sha2"]
"""An enumeration that is not enforced: clients use other algorithms for key backups as well."""
MAY_BE_EMPTY = "getTurnServer"
"""An operation with the response {} if there is no TURN server."""


SIGNED = "server-server.json"
"""The document whose requests are signed."""
SEED = b"s" * 32


def with_deviations(document: Any) -> Any:
    """Return the document, or a part of it, changed to allow the deviations of the server."""
    if isinstance(document, list):
        return [with_deviations(part) for part in document]
    if not isinstance(document, dict):
        return document
    found = {key: with_deviations(part) for key, part in document.items()}
    for name in NULL_FOR_UNKNOWN.get(str(found.get("title")), ()):
        schema = found.get("properties", {}).get(name)
        if schema is not None:
            schema["type"] = [schema["type"], "null"]
    if found.get("enum") == ALGORITHMS:
        del found["enum"]
    if found.get("operationId") == MAY_BE_EMPTY:
        del found["responses"]["200"]["content"]["application/json"]["schema"]["required"]
    return found


def register(url: str) -> str:
    """Register an account and return its access token."""
    body = {"username": "fuzz", "password": "x" * 12, "auth": {"type": "m.login.dummy"}}
    asked = urllib.request.Request(  # noqa: S310 - loopback
        f"{url}/_matrix/client/v3/register", json.dumps(body).encode()
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - loopback
        return str(json.loads(answer.read())["access_token"])


@contextmanager
def another_server(folder: Path) -> Iterator[dict[str, str]]:
    """Run the server that signs the requests, and yield the settings by which it is found."""
    with remotes.running(str(certificates.write_authority(folder))) as found:
        remote = found("b.test")
        remote.key = SigningKey.from_seed("a_1", SEED)
        yield found.settings


def fuzz(url: str, document: Path, examples: int, seconds: int, *, is_signed: bool) -> int:
    """Run schemathesis and return its exit code; `is_signed`: as another server."""
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", str(document)]
    command += ["--url", url]
    environment = dict(os.environ)
    if is_signed:
        environment["SCHEMATHESIS_HOOKS"] = "tests.tools.signed_requests"
        environment["SIGNING_SEED"] = SEED.hex()
    else:
        command += ["--header", f"Authorization: Bearer {register(url)}"]
    command += ["--checks", "not_a_server_error,response_schema_conformance"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(examples)]
    command += ["--seed", "1", "--warnings", "off", "--continue-on-failure"]
    # The document's example of a long poll waits for 35 seconds
    command += ["--request-timeout", "60", "--suppress-health-check", "all", "--no-color"]
    for operation in ENDS_THE_SESSION:
        command += ["--exclude-operation-id", operation]
    return subprocess.run(command, timeout=seconds, check=False, env=environment).returncode


def main() -> int:
    """Start a server and fuzz it; return 1 if a failure was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("document", type=Path)
    parser.add_argument("--examples", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=600)
    asked = parser.parse_args()
    is_signed = asked.document.name == SIGNED
    with tempfile.TemporaryDirectory() as folder, another_server(Path(folder)) as settings:
        document = Path(folder) / asked.document.name
        document.write_text(json.dumps(with_deviations(json.loads(asked.document.read_text()))))
        running = server.start(Path(folder), **(settings if is_signed else {}))
        try:
            failed = fuzz(running.url, document, asked.examples, asked.seconds, is_signed=is_signed)
        finally:
            running.stop()
        if "Traceback" in running.output():
            print(running.output())
            return 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
