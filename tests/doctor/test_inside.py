"""What is wrong with the files, the database, the disk and the settings of this machine."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from homebody.config import settings
from homebody.doctor import choices, inside
from homebody.doctor.examination import Examination, Options
from homebody.doctor.findings import Finding
from homebody.storage import last_backup
from tests.helpers import server

Examine = Callable[..., Examination]


@pytest.fixture
def examine(stopped: Path) -> Examine:
    """Return the examination of a server that does not run, with other settings."""
    for path in (stopped, stopped / "homebody.db", stopped / "signing.key"):
        path.chmod(path.stat().st_mode & ~0o077)

    def make(**given: str) -> Examination:
        environ = {"HOMEBODY_DATA_DIR": str(stopped), "HOMEBODY_SERVER_NAME": "example.org"}
        environ |= {f"HOMEBODY_{key.upper()}": value for key, value in given.items()}
        return Examination(settings.load(None, environ), Options(environ=environ))

    return make


def bad(found: Iterator[Finding]) -> dict[str, str]:
    """Return what is broken or a warning: severity by id."""
    return {it.id: it.severity for it in found if it.severity in {"broken", "warning"}}


def test_a_new_server_is_in_order_but_for_its_backup(examine: Examine) -> None:
    ex = examine()
    checks = (inside.signing_key, inside.database, inside.files, inside.disk, choices.settings)

    found = [it for check in checks for it in check(ex)]

    assert {it.severity for it in found} == {"ok"}, found
    assert bad(inside.backup(ex)) == {"backup": "warning"}


def test_a_server_that_does_not_run_is_broken(examine: Examine) -> None:
    ex = examine(bind=f"127.0.0.1:{server.free_port()}")

    assert bad(inside.process(ex)) == {"server": "broken"}


def test_a_damaged_database_is_broken(examine: Examine, stopped: Path) -> None:
    ex, path = examine(), stopped / "homebody.db"
    damaged = bytearray(path.read_bytes())
    damaged[8192 : 8192 + 4096 * 5] = bytes(4096 * 5)
    path.write_bytes(damaged)

    assert bad(inside.database(ex)) == {"database": "broken"}


def test_a_missing_database_is_broken_and_not_created(examine: Examine, stopped: Path) -> None:
    ex = examine()
    (stopped / "homebody.db").unlink()

    assert bad(inside.database(ex)) == {"database": "broken"}
    assert not (stopped / "homebody.db").exists()


def test_a_missing_data_folder_is_said_once_and_not_created(
    examine: Examine, tmp_path: Path
) -> None:
    ex = examine(data_dir=str(tmp_path / "elsewhere"))

    found = [it for check in (inside.database, inside.files, inside.disk) for it in check(ex)]

    assert bad(iter(found)) == {"database": "broken"}
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(("revision", "severity"), [("0022", "warning"), ("9999", "broken")])
def test_a_database_of_another_version_is_seen(
    examine: Examine, stopped: Path, revision: str, severity: str
) -> None:
    with closing(sqlite3.connect(stopped / "homebody.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))

    assert bad(inside.database(examine())) == {"migrations": severity}


def test_a_signing_key_that_is_missing_is_broken_and_not_created(
    examine: Examine, stopped: Path
) -> None:
    ex = examine()
    (stopped / "signing.key").unlink()

    assert bad(inside.signing_key(ex)) == {"signing-key": "broken"}
    assert ex.key is None
    assert not (stopped / "signing.key").exists()


def test_files_that_others_can_read_are_named_with_their_mode(
    examine: Examine, stopped: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 40)
    secret.chmod(0o644)
    ex = examine(registration_shared_secret_file=str(secret))
    for path in (tmp_path, stopped):
        path.chmod(0o755)
    (stopped / "homebody.db").chmod(0o640)

    found = [it for it in inside.files(ex) if it.severity == "warning"]

    assert [it.change["shell"] for it in found] == [
        f"chmod 600 {stopped}/homebody.db",
        f"chmod 640 {secret}",
    ]


def test_files_in_a_folder_that_is_closed_are_in_order(examine: Examine, stopped: Path) -> None:
    (stopped / "homebody.db").chmod(0o644)

    assert bad(inside.files(examine())) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_broken(examine: Examine, stopped: Path) -> None:
    os.chown(stopped, 65534, 65534)

    found = [it for it in inside.files(examine()) if it.severity == "broken"]

    assert {it.id for it in found} == {"file-owner"}
    assert {it.change["shell"] for it in found} == {
        f"chown nobody {stopped}/homebody.db",
        f"chown nobody {stopped}/signing.key",
    }


@pytest.mark.parametrize(
    ("free", "severity"), [(100 * 2**20, "broken"), (2**30, "warning"), (3 * 2**30, "ok")]
)
def test_a_disk_that_is_almost_full_is_seen(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, free: int, severity: str
) -> None:
    usage = shutil._ntuple_diskusage(100 * 2**30, 0, free)  # noqa: SLF001 - its result
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    (found,) = inside.disk(examine())

    assert (found.id, found.severity) == ("disk-space", severity)


def test_a_backup_counts_for_eight_days(
    examine: Examine, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_backup.note(stopped, tmp_path / "gone")
    ex = examine()

    (new,) = inside.backup(ex)
    monkeypatch.setattr(last_backup, "MAX_DAYS", -1)
    (old,) = inside.backup(ex)

    assert (new.severity, old.severity) == ("ok", "warning")
    assert new.seen.endswith("/gone, which is not there at the moment")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"registration": "open", "registration_open_to_all": "true"}, "open-registration"),
        ({"rate_limits": "false"}, "rate-limits"),
        ({"password_hashing": "cheap"}, "password-hashing"),
        ({"trusted_proxies": "0.0.0.0/0"}, "trusted-proxies"),
        ({"bind": "0.0.0.0:8008"}, "listener-public"),
        ({"media_without_token": "true"}, "media-without-token"),
        ({"registration_shared_secret": "short"}, "shared-secret"),
        ({"outside_allowed": "10.0.0.0/8"}, "outside-allowed"),
        ({"log_level": "DEBUG"}, "debug-log"),
    ],
)
def test_a_dangerous_setting_is_found_and_nothing_else(
    examine: Examine, given: dict[str, str], expected: str
) -> None:
    assert set(bad(choices.settings(examine(**given)))) == {expected}


def test_a_server_to_try_out_may_be_open(examine: Examine) -> None:
    ex = examine(server_name="localhost", rate_limits="false")

    assert bad(choices.settings(ex)) == {}
