"""Certificates of a real nginx: expired, incomplete, for other names, by nobody known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from tests.doctor.conftest import Clinic
from tests.doctor.test_proxies import bad, shown
from tests.helpers import proxies
from tests.helpers.certificates import write_certificate_of
from tests.helpers.proxies import NAMES

pytestmark = pytest.mark.clients


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def expired(folder: Path) -> tuple[Path, Path]:
    return write_certificate_of(folder, *NAMES, not_after=in_days(-1))


def expiring(folder: Path) -> tuple[Path, Path]:
    return write_certificate_of(folder, *NAMES, not_after=in_days(5))


def incomplete(folder: Path) -> tuple[Path, Path]:
    return write_certificate_of(folder, *NAMES, with_chain=False)


def other_names(folder: Path) -> tuple[Path, Path]:
    return write_certificate_of(folder, "www.example.com")


def unknown_authority(folder: Path) -> tuple[Path, Path]:
    authority = trustme.CA()
    files = write_certificate_of(folder, *NAMES, by=authority)
    with files[0].open("ab") as chain:  # with its authority, as mkcert does
        chain.write(authority.cert_pem.bytes())
    return files


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [
        (expired, {"tls-expired", "federation-tls"}),
        (expiring, {"tls-expires"}),
        (incomplete, {"tls-chain", "federation-tls"}),
        (other_names, {"tls-name", "federation-tls"}),
        (unknown_authority, {"tls-authority", "federation-tls"}),
    ],
)
def test_a_certificate_that_clients_refuse_is_found(
    clinic: Clinic, certificate: object, expected: set[str]
) -> None:
    assert callable(certificate)

    found = clinic.examine(proxies.nginx, certificate=certificate(clinic.folder))

    assert bad(found) == expected, shown(found)
    assert any(it.id == "long-poll" and it.severity == "ok" for it in found), "the rest goes on"


def test_a_certificate_that_lives_for_hours_may_end_today(clinic: Clinic) -> None:
    files = write_certificate_of(
        clinic.folder, *NAMES, not_before=in_days(-0.1), not_after=in_days(0.4)
    )

    found = clinic.examine(proxies.nginx, certificate=files)

    assert bad(found) == set(), shown(found)


def test_one_of_which_little_is_left_is_found(clinic: Clinic) -> None:
    files = write_certificate_of(
        clinic.folder, *NAMES, not_before=in_days(-0.4), not_after=in_days(0.1)
    )

    found = clinic.examine(proxies.nginx, certificate=files)

    assert bad(found) == {"tls-expires"}, shown(found)
