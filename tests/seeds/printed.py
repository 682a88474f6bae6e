"""Sends the requests that documents print: the tests contain the commands as printed.

A command is parsed as a shell would, and its request is sent as curl would send it: with the body
as a form, the path and query byte for byte. `InProcess` sends it to the server in the test's own
process, `ByCurl` runs curl itself.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
CURL_SECONDS = 20


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the body, which must be JSON."""
        return orjson.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class Curl(Protocol):
    """Executes printed commands.

    `words` are what the reader has to replace: their own access token, the ID of their own room.
    """

    def __call__(self, command: str, words: Mapping[str, str] | None = None) -> Answer: ...


@dataclass(frozen=True)
class Request:
    """One request, as it goes over the wire."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None


class InProcess:
    """Sends requests to a server in the test's own process."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def __call__(self, command: str, words: Mapping[str, str] | None = None) -> Answer:
        return self.send(request_of(filled(command, words)))

    def send(self, request: Request) -> Answer:
        """Send any request, byte for byte."""
        url = urlsplit(request.url)
        raw = request.url.split("/", 3)[3] if url.netloc else request.url.lstrip("/")
        answer = self.client.open(
            url.path,
            method=request.method,
            base_url=f"{url.scheme}://{url.netloc}" if url.netloc else None,
            headers=request.headers,
            data=request.body,
            environ_overrides={
                "RAW_URI": f"/{raw}",
                "REQUEST_URI": f"/{raw}",
                "QUERY_STRING": url.query,
            },
        )
        return answer_of(answer)


class ByCurl:
    """Runs curl itself, against the server at `url` instead of the document's."""

    def __init__(self, url: str, printed_url: str) -> None:
        self.url = url
        self.printed_url = printed_url

    def __call__(self, command: str, words: Mapping[str, str] | None = None) -> Answer:
        command = filled(command, words).replace(self.printed_url, self.url)
        options = ["--silent", "--show-error", "--include", "--max-time", str(CURL_SECONDS)]
        program, *arguments = shlex.split(command)
        # -q: what stands in the developer's own .curlrc has no part in this
        done = subprocess.run(
            [program, "-q", *options, *arguments], check=True, capture_output=True
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return Answer(int(status.split()[1]), headers, body)


def answer_of(answer: TestResponse) -> Answer:
    """Return a response of Flask's test client."""
    return Answer(answer.status_code, dict(answer.headers), answer.data)


def filled(text: str, words: Mapping[str, str] | None) -> str:
    """Return the text with the reader's own words, each of which must occur in it."""
    text = text.replace("\\\n", " ")  # the shell joins such lines
    for printed, own in (words or {}).items():
        assert printed in text, f"{printed} is not in {text}"
        text = text.replace(printed, own)
    return text


def request_of(command: str) -> Request:
    """Return the request of a curl command line."""
    program, *arguments = shlex.split(command)
    assert program == "curl", command
    headers = {"User-Agent": "curl/8.5.0", "Accept": "*/*"}
    method, body, urls = None, None, []
    words = iter(arguments)
    for word in words:
        if word.startswith("-X"):
            method = word[2:] or next(words)
        elif word == "-d":
            body = next(words).encode()
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word != "--globoff":
            urls.append(word)
    if body is not None:
        headers.setdefault("Content-Type", FORM)
    (url,) = urls
    return Request(method or ("GET" if body is None else "POST"), url, headers, body)


def request_in(block: str, token: str | None = None, host: str = "http://localhost") -> Request:
    """Return the request of a printed block: method and path, an empty line, a JSON body."""
    line, _, body = block.strip().partition("\n\n")
    method, _, path = line.partition(" ")
    headers = {"Content-Type": JSON} if body else {}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return Request(method, host + path, headers, body.encode() if body else None)
