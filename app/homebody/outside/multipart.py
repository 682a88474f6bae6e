"""The file in a multipart/mixed response, found while the response is being received.

Such a response has two parts: a JSON object about the file, in which nothing is defined yet, and
the file, or its `Location`. Only the file is passed on, and only headers are kept in memory.

Spec: server-server-api#get_matrixfederationv1mediadownloadmediaid
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from email.parser import HeaderParser
from email.utils import collapse_rfc2231_value
from typing import Final, Literal

from homebody.outside import RemoteError

MAX_BOUNDARY: Final = 70
MAX_HEADERS_BYTES: Final = 16_384
MAX_JSON_BYTES: Final = 65_536
MAX_NAME: Final = 255
_END: Final = b"\r\n"

State = Literal["preamble", "line", "headers", "json", "file", "end"]


class MultipartReader:
    """Reads a body in pieces, and writes the file in it to `write_file`."""

    def __init__(self, write_file: Callable[[bytes], object]) -> None:
        self._delimiter = b""
        self._write_file = write_file
        self._buffer = bytearray(_END)  # the first delimiter may be the first line
        self._state: State = "preamble"
        self._parts = 0
        self.headers: Message = Message()
        """Those of the second part."""

    def begin(self, headers: Message) -> None:
        """Read the boundary. Raises RemoteError for another kind of response."""
        boundary = headers.get_boundary()
        if headers.get_content_type() != "multipart/mixed" or not boundary:
            raise _wrong("is not multipart/mixed with a boundary")
        if len(boundary) > MAX_BOUNDARY or not boundary.isascii():
            raise _wrong("has a boundary that is not valid")
        self._delimiter = b"\r\n--" + boundary.encode()

    def write(self, piece: bytes) -> None:
        """Take a piece of the body. Raises RemoteError."""
        if self._state == "end":
            return  # the epilogue
        self._buffer += piece
        while self._advance():
            pass

    def finish(self) -> None:
        """Raise RemoteError unless the file was there to its end."""
        if self._state != "end":
            raise _wrong("ends early")

    def _advance(self) -> bool:
        """Process what the buffer has; return whether to go on with the rest of it."""
        match self._state:
            case "line":
                return self._read_line()
            case "headers":
                return self._read_headers()
            case "end":
                self._buffer.clear()
                return False
            case _:
                return self._read_until_delimiter()

    def _read_until_delimiter(self) -> bool:
        """Pass on or drop what comes before the next delimiter."""
        at = self._buffer.find(self._delimiter)
        is_found = at >= 0
        if self._state == "file":
            # The last bytes may be the beginning of a delimiter
            upto = at if is_found else max(len(self._buffer) - len(self._delimiter) + 1, 0)
            if upto:
                self._write_file(bytes(self._buffer[:upto]))
                del self._buffer[:upto]
            at = 0
        elif len(self._buffer) > MAX_JSON_BYTES and not 0 <= at <= MAX_JSON_BYTES:
            raise _wrong("does not have the boundary that its headers name")
        if is_found:
            del self._buffer[: at + len(self._delimiter)]
            self._state = "end" if self._state == "file" else "line"
        return is_found

    def _read_line(self) -> bool:
        """Read the rest of the line of a delimiter; `--` there ends the body."""
        at = self._buffer.find(_END)
        if at < 0:
            if len(self._buffer) > MAX_BOUNDARY:
                raise _wrong("has a line that is not valid")
            return False
        if bytes(self._buffer[:at]).strip(b" \t"):
            raise _wrong("has less than two parts")
        del self._buffer[:at]  # its end may be the empty line after no headers
        self._state = "headers"
        return True

    def _read_headers(self) -> bool:
        at = self._buffer.find(_END + _END)
        if at < 0 or at > MAX_HEADERS_BYTES:
            if len(self._buffer) > MAX_HEADERS_BYTES:
                raise _wrong("has too many headers")
            return False
        text = bytes(self._buffer[len(_END) : at]).decode("latin-1")
        self._parts += 1
        self._state = "json" if self._parts == 1 else "file"
        if self._state == "file":
            self.headers = HeaderParser().parsestr(text)
        del self._buffer[: at + 2 * len(_END)]
        return True


def file_name(headers: Message) -> str | None:
    """Return the file name in a Content-Disposition, None if it has none.

    Of two, the one with a charset (RFC 5987) counts: the other one is what is left of it in ASCII.
    """
    found = headers.get_params(header="content-disposition", failobj=[])
    names = [value for parameter, value in found if parameter.lower() == "filename"]
    if not names:
        return None
    name = collapse_rfc2231_value(max(names, key=lambda it: isinstance(it, tuple)))
    with suppress(UnicodeError):  # unless it was sent as it is, in UTF-8
        name = name.encode("latin-1").decode()
    printable = "".join(it for it in name if it.isprintable())
    return printable[:MAX_NAME] or None


def _wrong(what: str) -> RemoteError:
    return RemoteError("bad_response", f"The response {what}")
