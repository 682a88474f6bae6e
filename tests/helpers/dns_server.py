"""A DNS server on loopback for tests, over UDP; it counts what it is asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Records = Mapping[str, Sequence[str]]
"""`{"example.org A": ["1.2.3.4"]}`, or for what is wrong: `{"example.org SRV": ["SERVFAIL"]}`."""

DROPPED = "DROPPED"
"""In place of records: never answer."""


class DnsServer:
    """Answers from `records`, which a test may change."""

    def __init__(self, records: Records, ttl: int = 300, port: int = 0) -> None:
        self.records = dict(records)
        self.asked: list[str] = []
        self._ttl = ttl
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._is_ending = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._is_ending = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while True:
            packet, peer = self._socket.recvfrom(4096)
            if self._is_ending:
                return
            response = self._respond(dns.message.from_wire(packet))
            if response is not None:
                with suppress(OSError):
                    self._socket.sendto(response.to_wire(), peer)

    def _respond(self, query: dns.message.Message) -> dns.message.Message | None:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        key = f"{name} {dns.rdatatype.to_text(question.rdtype)}"
        self.asked.append(key)
        found = self.records.get(key)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if found is None:
            is_known = any(it.split()[0] == name for it in self.records)
            response.set_rcode(dns.rcode.NOERROR if is_known else dns.rcode.NXDOMAIN)
        elif found == [DROPPED]:
            return None
        elif len(found) == 1 and found[0].isupper():
            response.set_rcode(dns.rcode.from_text(found[0]))
        else:
            rrset = dns.rrset.from_text(question.name, self._ttl, "IN", question.rdtype, *found)
            response.answer.append(rrset)
        return response
