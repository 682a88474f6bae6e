"""Certificates for servers in tests, all by one authority that each process makes for itself."""

from __future__ import annotations

import ssl
from datetime import datetime
from functools import cache
from pathlib import Path

import trustme


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


def write_authority(folder: Path) -> Path:
    """Write the certificate of the authority, for those who trust it, and return its path."""
    path = folder / "ca.pem"
    _authority().cert_pem.write_to_path(str(path))
    return path


@cache
def server_context(*names: str) -> ssl.SSLContext:
    """Return the TLS settings of a server with these host names and addresses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert(*names).configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    """Return the TLS settings of a client that trusts the authority, and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _authority().configure_trust(context)
    return context


def write_certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """Write a certificate and its key for a program, and return their paths."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    issued = _authority().issue_cert(*names)
    issued.private_key_pem.write_to_path(str(key))
    certificate.unlink(missing_ok=True)
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(certificate), append=True)
    return certificate, key


def write_certificate_of(
    folder: Path,
    *names: str,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    by: trustme.CA | None = None,
    with_chain: bool = True,
) -> tuple[Path, Path]:
    """Write a certificate by an intermediate authority, or by `by`, and its key.

    Without `with_chain`, the intermediate is left out.
    """
    certificate, key = folder / "chain.pem", folder / "chain.key"
    authority = by or _authority().create_child_ca()
    issued = authority.issue_cert(*names, not_before=not_before, not_after=not_after)
    issued.private_key_pem.write_to_path(str(key))
    blobs = issued.cert_chain_pems if with_chain else issued.cert_chain_pems[:1]
    certificate.write_bytes(b"".join(blob.bytes() for blob in blobs))
    return certificate, key
