"""`homebody backup FILE.tar`: an archive is complete or not there, and no damage goes unnoticed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from pathlib import Path

import pytest

from homebody.server import copies
from homebody.server import restore as restoring
from homebody.server.archive import Archive
from homebody.storage import fsync, migrations
from tests.helpers import killing
from tests.helpers import server as real_server
from tests.helpers.backups import (
    HOMEBODY,
    PNG,
    done,
    download,
    environ_of,
    homebody,
    lost_and_restored,
    messages,
    store_upload,
    tree,
    upload,
)
from tests.helpers.live import Person
from tests.server.test_restore import add_account, alembic, position, uploads


@pytest.fixture
def archive(tmp_path: Path, stopped: Path) -> Path:
    """A backup in a file, with two files that were uploaded, and a configuration."""
    (stopped / "homebody.toml").write_text('server_name = "example.org"\n')
    add_account(stopped, "@alice:example.org")
    store_upload(stopped, b"one" * 1000, "1")
    store_upload(stopped, b"another", "2")
    done(stopped, "backup", str(tmp_path / "backups" / "one.tar"))
    return tmp_path / "backups" / "one.tar"


def test_a_lost_server_comes_back_from_one_file(tmp_path: Path, data_dir: Path) -> None:
    running = real_server.start(data_dir)
    alice = Person(running, "alice")
    room_id = alice.create_room()
    alice.send(room_id, "hello")
    uri = upload(alice, PNG)
    made = done(data_dir, "backup", str(tmp_path / "one.tar"))

    alice.server = lost_and_restored(running, data_dir, tmp_path / "one.tar")
    found, file = messages(alice, room_id), download(alice, uri)
    alice.close()
    alice.server.stop()

    assert (made["files"], made["new_bytes"], made["lost_files"]) == (1, len(PNG), 0)
    assert found == ["hello"]
    assert file == PNG
    assert (tmp_path / "one.tar").stat().st_mode & 0o777 == 0o600


def test_any_tool_can_unpack_and_check_an_archive(tmp_path: Path, archive: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")

    done(tmp_path / "other", "restore", str(tmp_path / "unpacked"))

    manifest = (tmp_path / "unpacked" / "manifest.json").read_bytes()
    checksum = (tmp_path / "unpacked" / "manifest.json.sha256").read_text()
    assert checksum == f"{hashlib.sha256(manifest).hexdigest()}  manifest.json\n"
    described = json.loads(manifest)
    assert described["server_name"] == "example.org"
    assert described["migration"] == migrations.known()[-1]
    assert uploads(tmp_path / "other") == {b"one" * 1000, b"another"}


def regions(archive: Path) -> list[int]:
    """Return an offset in each header, content and padding of an archive, and in its end."""
    found = []
    with tarfile.open(archive) as tar:
        for info in tar:
            end = info.offset_data + info.size
            found += [info.offset, info.offset + 130, info.offset + 156, info.offset + 511]
            found += [info.offset_data, (info.offset_data + end) // 2, end - 1]
            found += [end] if info.size % 512 else []
    return [*found, end + 700, archive.stat().st_size - 1]


def test_every_flipped_bit_is_found_and_nothing_is_changed(tmp_path: Path, archive: Path) -> None:
    good, offsets = archive.read_bytes(), regions(archive)
    other = tmp_path / "other"

    for offset in offsets:
        bad = bytearray(good)
        bad[offset] ^= 1
        archive.write_bytes(bad)
        refused = homebody(other, "restore", str(archive))

        assert refused.exit_code == 1, offset
        assert refused.stderr.count("\n") == 1, refused.stderr
        assert "damaged" in refused.stderr
        assert not other.exists()
    assert len(offsets) > 40


def test_an_archive_that_is_cut_off_anywhere_is_refused(tmp_path: Path, archive: Path) -> None:
    good = archive.read_bytes()

    for size in range(0, len(good), len(good) // 20):
        archive.write_bytes(good[:size])
        refused = homebody(tmp_path / "other", "restore", str(archive))

        assert refused.exit_code == 1, size
        assert "damaged or not a backup" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_media_that_are_damaged_are_left_out_where_that_is_wanted(
    tmp_path: Path, archive: Path
) -> None:
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"another", b"an0ther"))

    refused = homebody(tmp_path / "other", "restore", str(archive))
    restored = done(tmp_path / "other", "restore", str(archive), "--skip-damaged-media")

    assert "is damaged" in refused.stderr
    assert (restored["files"], restored["lost_files"]) == (1, 1)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "data/../../evil", "homebody.lock", "data/homebody.db", "data"]
)
def test_a_file_that_has_no_place_in_an_archive_is_refused(
    tmp_path: Path, archive: Path, name: str
) -> None:
    with tarfile.open(archive) as tar, tarfile.open(tmp_path / "evil.tar", "w") as evil:
        for info in tar:
            evil.addfile(info, tar.extractfile(info))
        evil.addfile(tarfile.TarInfo(name))

    refused = homebody(tmp_path / "other", "restore", str(tmp_path / "evil.tar"))

    assert refused.exit_code == 1
    assert "has no place in it" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_the_files_that_settings_name_come_along(tmp_path: Path, stopped: Path) -> None:
    outside = tmp_path / "etc" / "smtp-password"
    outside.parent.mkdir()
    outside.write_text("hunter2")
    (stopped / "keys").mkdir()
    (stopped / "keys" / "shared").write_text("swordfish")
    (stopped / "homebody.toml").write_text(
        f'registration_shared_secret_file = "{stopped}/keys/shared"\n'
        f'smtp.host = "localhost"\nsmtp.password_file = "{outside}"\n'
    )
    done(stopped, "backup", str(tmp_path / "one.tar"))
    outside.unlink()
    other = tmp_path / "other"

    restored = homebody(other, "restore", str(tmp_path / "one.tar"))

    place = f"{other}/elsewhere{outside}"
    assert restored.exit_code == 0, restored.output
    assert (other / "keys" / "shared").read_text() == "swordfish"
    assert restored.stderr == f"homebody: {place} was {outside}: move it there\n"
    assert Path(place).read_text() == "hunter2"
    assert Path(place).stat().st_mode & 0o777 == 0o600


def test_a_configuration_elsewhere_is_in_the_archive(tmp_path: Path, stopped: Path) -> None:
    file = tmp_path / "etc.toml"
    file.write_text("presence = false\n")

    made = homebody(stopped, "--config", str(file), "backup", str(tmp_path / "one.tar"))

    assert made.exit_code == 0, made.output
    assert Archive(tmp_path / "one.tar").file("homebody.toml").read_bytes() == file.read_bytes()


def test_files_of_other_servers_are_included_on_demand(tmp_path: Path, stopped: Path) -> None:
    remote = stopped / "media" / "remote" / "ab" / "cdef"
    remote.parent.mkdir(parents=True)
    remote.write_bytes(b"from afar")
    done(stopped, "backup", str(tmp_path / "small.tar"))
    done(stopped, "backup", "--remote-media", str(tmp_path / "large.tar"))

    done(tmp_path / "small", "restore", str(tmp_path / "small.tar"))
    done(tmp_path / "large", "restore", str(tmp_path / "large.tar"))

    assert not (tmp_path / "small" / "media" / "remote").exists()
    assert (tmp_path / "large" / "media" / "remote" / "ab" / "cdef").read_bytes() == b"from afar"


def test_a_damaged_upload_is_left_out_and_counted(tmp_path: Path, stopped: Path) -> None:
    store_upload(stopped, b"first", "1").write_bytes(b"fir5t")
    store_upload(stopped, b"other", "2")

    made = done(stopped, "backup", str(tmp_path / "one.tar"))
    restored = done(tmp_path / "other", "restore", str(tmp_path / "one.tar"))

    assert (made["files"], made["lost_files"]) == (1, 1)
    assert (restored["files"], restored["lost_files"]) == (1, 1)
    assert uploads(tmp_path / "other") == {b"other"}


@pytest.mark.parametrize("most", killing.HOW_MANY)
def test_a_backup_that_is_killed_leaves_no_half_archive(
    tmp_path: Path, archive: Path, stopped: Path, most: int
) -> None:
    folder, older = archive.parent, archive.read_bytes()
    store_upload(stopped, b"third", "3")
    count = killing.run(stopped, "backup", folder / "counted.tar", 0, folder)
    (folder / "counted.tar").unlink()

    for moment in sorted({1 + round(at * (count - 1) / (most - 1)) for at in range(most)}):
        archive.write_bytes(older)
        killing.run(stopped, "backup", archive, moment, folder)
        left = archive.read_bytes()
        is_older = left == older
        restored = done(tmp_path / f"other-{moment}", "restore", str(archive))
        again = done(stopped, "backup", str(folder / "again.tar"))

        assert restored["files"] == (2 if is_older else 3)
        assert again["files"] == 3
        assert sorted(it.name for it in folder.iterdir()) == ["again.tar", "one.tar"]


def test_a_backup_that_is_killed_after_any_number_of_bytes_leaves_nothing_of_its_name(
    tmp_path: Path, stopped: Path
) -> None:
    for number in range(8):
        store_upload(stopped, os.urandom(4_000_000), str(number))
    target, fresh = tmp_path / "backups" / "one.tar", tmp_path / "backups" / ".one.tar.new"

    for size in (1, 2_000_000, 17_000_000):
        process = subprocess.Popen(
            [HOMEBODY, "backup", str(target)], env={**os.environ, **environ_of(stopped)}
        )
        while not fresh.exists() or fresh.stat().st_size < size:
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()

        assert not target.exists()
    done(stopped, "backup", str(target))
    assert [it.name for it in target.parent.iterdir()] == ["one.tar"]


@pytest.mark.parametrize("writes", [0, 1, 2, 4, 6])
def test_a_full_disk_leaves_the_older_archive(
    monkeypatch: pytest.MonkeyPatch, archive: Path, stopped: Path, writes: int
) -> None:
    before = tree(archive.parent)
    sync, left = os.fsync, [writes]

    def fail(descriptor: int) -> None:
        left[0] -= 1
        if left[0] == -1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fail)
        refused = homebody(stopped, "backup", str(archive))

    assert refused.exit_code == 1
    assert "No space left on device" in refused.stderr
    assert tree(archive.parent) == before


@pytest.mark.parametrize("limit_bytes", [0, 100_000, 900_000, 1_900_000])
def test_a_file_that_can_not_grow_leaves_nothing(
    tmp_path: Path, stopped: Path, limit_bytes: int
) -> None:
    store_upload(stopped, os.urandom(2_000_000))
    (tmp_path / "backups").mkdir()
    arguments = ["backup", str(tmp_path / "backups" / "one.tar")]
    program = (
        "import resource\nfrom homebody.cli import main\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))\n"
        f"main({arguments!r})\n"
    )

    refused = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environ_of(stopped)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert tree(tmp_path / "backups") == {}


def test_a_disk_without_enough_space_is_noticed_before(
    monkeypatch: pytest.MonkeyPatch, archive: Path, stopped: Path
) -> None:
    before = tree(archive.parent)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))

    refused = homebody(stopped, "backup", str(archive))

    assert refused.exit_code == 1
    assert "0 MB free, and the backup takes up to" in refused.stderr
    assert tree(archive.parent) == before


@pytest.mark.parametrize("most", killing.HOW_MANY)
def test_a_restore_of_an_archive_that_is_killed_is_done_again(
    tmp_path: Path, archive: Path, most: int
) -> None:
    count = killing.run(tmp_path / "counted", "restore", archive, 0)

    for moment in sorted({1 + round(at * (count - 1) / (most - 1)) for at in range(most)}):
        other = tmp_path / f"other-{moment}"
        killing.run(other, "restore", archive, moment)
        before = tree(other)
        if "homebody.restoring" in before or "homebody.db" not in before:
            assert done(other, "restore", str(archive))["files"] == 2

        assert uploads(other) == {b"one" * 1000, b"another"}
        assert position(other) > 1_000_000_000
        assert not [name for name in tree(other) if name.endswith(".new")]


def test_an_archive_that_changes_after_the_check_restores_nothing(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = restoring._check_room  # noqa: SLF001 - the last step of the check

    def spoil(plan: restoring.Plan) -> None:
        room(plan)
        archive.write_bytes(archive.read_bytes().replace(b"another", b"an0ther"))

    monkeypatch.setattr(restoring, "_check_room", spoil)

    refused = homebody(tmp_path / "other", "restore", str(archive))

    assert refused.exit_code == 1
    assert "has changed since it was checked" in refused.stderr
    assert tree(tmp_path / "other") == {}


def test_an_archive_of_an_older_homebody_is_brought_up_to_date(
    tmp_path: Path, stopped: Path
) -> None:
    steps = migrations.known()
    (stopped / "homebody.db").unlink()
    alembic(f"sqlite:///{stopped}/homebody.db", steps[-2])
    done(stopped, "backup", str(tmp_path / "one.tar"))

    done(tmp_path / "other", "restore", str(tmp_path / "one.tar"))

    assert migrations.current(f"sqlite:///{tmp_path}/other/homebody.db") == steps[-1]
    assert not list((tmp_path / "other").glob("*.before-*"))


def test_an_archive_of_a_newer_homebody_is_refused(tmp_path: Path, stopped: Path) -> None:
    with closing(sqlite3.connect(stopped / "homebody.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    done(stopped, "backup", str(tmp_path / "one.tar"))

    refused = homebody(tmp_path / "other", "restore", str(tmp_path / "one.tar"))

    assert refused.exit_code == 2
    assert "The database is of a newer homebody (migration 9999; this one " in refused.stderr
    assert not (tmp_path / "other").exists()


def test_the_name_of_the_server_is_looked_at_before_anything_is_copied(
    tmp_path: Path, archive: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "homebody.toml").write_text('server_name = "example.com"\n')

    refused = homebody(other, "restore", str(archive))

    assert refused.exit_code == 2
    assert "server_name is example.com, but the accounts in the database are of" in refused.stderr
    assert tree(other) == {"homebody.toml": b'server_name = "example.com"\n'}


def test_what_cannot_be_is_refused_in_a_line(tmp_path: Path, archive: Path, stopped: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tar").write_text("hello")

    refusals = [
        homebody(tmp_path / "empty", "backup", str(tmp_path / "new.tar")),
        homebody(stopped, "backup", str(stopped / "new.tar")),
        homebody(stopped, "restore", str(tmp_path / "nothing.tar")),
        homebody(tmp_path / "other", "restore", str(tmp_path / "text.tar")),
        homebody(stopped, "restore", str(archive)),
    ]
    with fsync.held(tmp_path):  # as a backup does that is under way
        refusals.append(homebody(stopped, "backup", str(tmp_path / "new.tar")))

    assert [it.exit_code for it in refusals] == [1] * 6
    assert all(it.stderr.count("\n") == 1 for it in refusals)
    words = [
        "no database",
        "is inside",
        "no backup in",
        "damaged or not",
        "move it away",
        "Another",
    ]
    assert all(word in it.stderr for word, it in zip(words, refusals, strict=True))
    assert not (tmp_path / "new.tar").exists()


def test_a_part_of_a_file_reads_as_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(b"0123456789")

    entry = copies.entry_of(copies.Part(tmp_path / "whole", 2, 5))

    assert entry == copies.Entry(5, hashlib.sha256(b"23456").hexdigest())
