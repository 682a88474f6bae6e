from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from homebody.config import settings as config
from homebody.config.settings import Config, ConfigError, RateLimit
from tests.helpers.settings import complaint, defaults_in, write

EXAMPLE = Path(__file__).parents[2] / "docs" / "homebody.example.toml"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(given: Mapping[str, str]) -> Config:
    return config.load(None, {}, given)


def test_without_anything_the_defaults_of_the_design_hold(folder: Path) -> None:
    settings = config.load(None, {})

    assert settings == defaults_in(folder)
    assert settings.database_url == f"sqlite:///{folder}/data/homebody.db"
    assert (settings.bind, settings.max_upload_bytes) == (("127.0.0.1:8008",), 52_428_800)
    assert (settings.token_lifetime_ms, settings.cache_bytes) == (3_600_000, 67_108_864)


def test_a_file_sets_what_it_names_and_leaves_the_rest(folder: Path) -> None:
    path = write(
        folder,
        """
        server_name = "example.org"
        public_url = "https://matrix.example.org/"
        default_room_version = 12
        trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]
        rc_message = { per_second = 0.2 }

        [rc_login.address]
        burst_count = 3
        """,
    )

    settings = config.load(path, {})

    assert settings.server_name == "example.org"
    assert settings.public_url == "https://matrix.example.org"
    assert settings.default_room_version == "12"
    assert settings.rc_message == RateLimit(0.2, Config().rc_message.burst_count)
    assert settings.rc_login.address.burst_count == 3
    assert settings.rc_login.account == Config().rc_login.account


def test_the_environment_wins_over_the_file_and_options_over_both(folder: Path) -> None:
    path = write(
        folder,
        'min_password_length = 9\nlog_level = "ERROR"\ncache_bytes = "1 MiB"\nlog_format = "json"',
    )
    environ = {"HOMEBODY_LOG_LEVEL": "debug", "HOMEBODY_CACHE_BYTES": "2 MiB", "PATH": "/bin"}

    settings = config.load(path, environ, {"cache_bytes": "3145728"})

    assert settings.log_format == "json"
    assert settings.log_level == "DEBUG"
    assert settings.cache_bytes == 3 * 2**20


def test_the_file_is_looked_for_in_the_order_that_is_documented(folder: Path) -> None:
    named = write(folder, "min_password_length = 9\nmax_upload_bytes = 1")
    in_environment = folder / "other.toml"
    in_environment.write_text("max_upload_bytes = 2")
    in_data_dir = folder / "srv" / "homebody.toml"
    in_data_dir.parent.mkdir()
    in_data_dir.write_text("max_upload_bytes = 3")
    environ = {"HOMEBODY_CONFIG": str(in_environment), "HOMEBODY_DATA_DIR": "srv"}

    def read(path: Path | None, *names: str) -> int:
        return config.load(path, {name: environ[name] for name in names}).max_upload_bytes

    assert read(named, "HOMEBODY_CONFIG", "HOMEBODY_DATA_DIR") == 1
    assert read(None, "HOMEBODY_CONFIG", "HOMEBODY_DATA_DIR") == 2
    assert read(None, "HOMEBODY_DATA_DIR") == 3
    assert read(None) == 50 * 2**20


def test_what_lies_in_the_data_folder_follows_it() -> None:
    settings = options({"data_dir": "/srv/homebody"})

    assert settings.database_url == "sqlite:////srv/homebody/homebody.db"
    assert settings.signing_key_path == Path("/srv/homebody/signing.key")


def test_relative_paths_start_from_the_working_folder_and_stay_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "sub").mkdir()
    path = write(
        folder / "sub",
        """
        data_dir = "of_server"
        signing_key_path = "keys/signing.key"
        database_url = "sqlite:///disk/homebody.db"
        appservices = ["bridges/*.yaml"]
        """,
    )

    of_file = config.load(path, {})
    of_environment = config.load(None, {"HOMEBODY_DATA_DIR": "srv"})
    monkeypatch.chdir("/")

    assert of_file.data_dir == folder / "of_server"
    assert of_file.signing_key_path == folder / "keys" / "signing.key"
    assert of_file.database_url == f"sqlite:///{folder}/disk/homebody.db"
    assert of_file.appservices == (f"{folder}/bridges/*.yaml",)
    assert of_environment.data_dir == folder / "srv"
    assert of_environment.database_url == f"sqlite:///{folder}/srv/homebody.db"


@pytest.mark.parametrize("text", ["presence = false", "[presence]\nenabled = false"])
def test_presence_is_switched_off_by_a_word_or_in_a_table(folder: Path, text: str) -> None:
    assert config.load(write(folder, text), {}).presence is False


def test_an_empty_table_of_presence_leaves_it_on(folder: Path) -> None:
    assert config.load(write(folder, "[presence]\n"), {}).presence is True


def test_registration_is_open_on_localhost_only() -> None:
    def default(server_name: str) -> str:
        return options({"server_name": server_name}).registration

    assert [default("localhost"), default("localhost:8448"), default("[::1]:80")] == ["open"] * 3
    assert [default("example.org"), default("localhost.org")] == ["token"] * 2


@pytest.mark.parametrize(
    ("server_name", "is_public"),
    [
        *(("example.org", True), ("Matrix.Example.ORG:8448", True), ("1.1.1.1:80", True)),
        *(("[2606:4700::1111]", True), ("localhost.org", True), ("test.org", True)),
        *(("localhost", False), ("localhost:8448", False), ("a.localhost", False)),
        *(("homeserver", False), ("127.0.0.1:80", False), ("192.168.0.2", False)),
        *(("10.1.2.3", False), ("[::1]:80", False), ("[fd00::1]", False), ("nas.local", False)),
        *(("a.b.test", False), ("box.home.arpa", False), ("box.LAN", False)),
    ],
)
def test_federation_is_on_for_public_names_only(server_name: str, *, is_public: bool) -> None:
    settings = {"server_name": server_name}

    assert options(settings).federation is is_public
    assert options(settings | {"federation": "true"}).federation is True
    assert options(settings | {"federation": "false"}).federation is False


def test_open_registration_on_a_public_name_has_to_be_meant(folder: Path) -> None:
    path = write(folder, 'server_name = "example.org"\nregistration = "open"\n')

    assert "registration_open_to_all = true" in complaint(path)
    assert complaint(path).startswith(f"{path}:2: registration: ")
    meant = config.load(path, {"HOMEBODY_REGISTRATION_OPEN_TO_ALL": "true"})
    assert meant.registration == "open"


def test_cheap_password_hashing_is_for_loopback_addresses() -> None:
    for bind in ("127.0.0.1:8008", "[::1]:0", "localhost:80", "127.8.9.1:1"):
        assert options({"password_hashing": "cheap", "bind": bind}).is_loopback()
    for bind in ("0.0.0.0:8008", "[::]:8008", "192.168.0.2:8008"):
        with pytest.raises(ConfigError, match='password_hashing: "cheap" is for tests'):
            options({"password_hashing": "cheap", "bind": bind})


def test_a_secret_may_stand_in_a_file_of_its_own(folder: Path) -> None:
    (folder / "secret").write_text("correct horse\n")
    path = write(folder, 'registration_shared_secret_file = "secret"')

    assert config.load(path, {}).registration_shared_secret == "correct horse"
    by_environment = {"HOMEBODY_REGISTRATION_SHARED_SECRET_FILE": str(folder / "secret")}
    assert config.load(None, by_environment).registration_shared_secret == "correct horse"


def test_a_secret_is_given_once_and_must_be_there(folder: Path) -> None:
    (folder / "binary").write_bytes(b"\xff\xfe")
    twice = write(folder, 'registration_shared_secret = "a"\nregistration_shared_secret_file = "b"')
    name = "HOMEBODY_REGISTRATION_SHARED_SECRET_FILE"

    assert complaint(twice) == (
        f"{twice}:2: registration_shared_secret_file: is the same setting as"
        " registration_shared_secret; remove one of them"
    )
    assert complaint(None, {name: "no"}) == (
        f"environment {name}: no cannot be read: No such file or directory"
    )
    assert complaint(None, {name: "binary"}) == f"environment {name}: binary is not UTF-8 text"
    assert complaint(None, {name: ""}) == f"environment {name}: must be a path"


def test_no_error_and_no_text_shows_a_secret() -> None:
    secrets = {
        "registration_shared_secret": "hunter2",
        "registration_shared_secret_file": "hunter2",
    }
    settings = options({"registration_shared_secret": "hunter2"})

    for text in (config.describe(settings), repr(settings)):
        assert "hunter2" not in text
    assert 'registration_shared_secret = "(not shown)"' in config.describe(settings)
    for given in (
        secrets,
        {"registration_shared_secret": "hunter2\n"},
        {"database_url": "hunter2"},
        {"database_url": "postgresql+psycopg://homebody:hunter2@localhost/homebody"},
    ):
        with pytest.raises(ConfigError) as raised:
            options(given)
        assert "hunter2" not in str(raised.value)
        assert raised.value.__cause__ is None


def test_proxies_are_trusted_by_address_and_network() -> None:
    settings = options({"trusted_proxies": "127.0.0.1, 10.0.0.0/8, fd00::/8"})

    for trusted in ("127.0.0.1", "::ffff:127.0.0.1", "10.9.8.7", "fd00::1"):
        assert settings.is_trusted_proxy(trusted)
    for other in ("127.0.0.2", "::1", "8.8.8.8", "", "::ffff:8.8.8.8", "proxy"):
        assert not settings.is_trusted_proxy(other)


def test_what_is_described_can_be_read_again(folder: Path) -> None:
    settings = options(
        {
            "server_name": "example.org",
            "data_dir": 'odd "name" ü',
            "max_upload_bytes": "1000001",
            "token_lifetime": "90 s",
            "trusted_proxies": "10.0.0.0/8",
            "identity_server": "https://id.example.org",
            "presence": "no",
            "rc_login.failed_attempts.per_second": "0.25",
            "push.group_unread_count_by_room": "true",
        }
    )

    again = config.load(write(folder, config.describe(settings)), {})

    assert again == settings


def test_every_key_is_described_with_its_meaning() -> None:
    described = config.describe(Config())

    keys = re.findall(r"^# .+\n([a-z0-9_.]+) = ", described, flags=re.MULTILINE)
    assert len(keys) == len(re.findall(r"^[a-z]", described, flags=re.MULTILINE))
    assert {"server_name", "token_lifetime", "rc_login.address", "push.include_content"} <= {*keys}
    assert {key.split(".")[0] for key in keys} == {
        field.name.removesuffix("_ms") for field in dataclasses.fields(Config)
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "http://localhost:8008"),
        ({"bind": "0.0.0.0:9000"}, "http://localhost:9000"),
        ({"bind": "[::1]:9000"}, "http://localhost:9000"),
        ({"server_name": "example.org"}, "https://example.org"),
        ({"server_name": "example.org", "bind": "127.0.0.1:9000"}, "https://example.org"),
        ({"server_name": "example.org", "public_url": "http://a.example"}, "http://a.example"),
    ],
)
def test_without_a_public_url_clients_are_sent_where_the_name_leads(
    options: dict[str, str], expected: str
) -> None:
    assert config.load(None, {}, options).public_url == expected


def test_the_example_in_the_documentation_is_the_one_that_the_code_writes() -> None:
    assert EXAMPLE.read_text() == config.example()


def test_the_example_says_the_defaults(folder: Path) -> None:
    switched_on = re.sub(r"^#(?=\w)", "", config.example(), flags=re.MULTILINE)

    assert config.load(write(folder, config.example()), {}) == defaults_in(folder)
    assert "\nserver_name = " in switched_on
    assert config.load(write(folder, switched_on), {}) == defaults_in(folder)


def test_an_ordinary_day_stays_below_the_limits() -> None:
    limits = Config()

    heart_beat_per_second = 1 / 5
    assert limits.rc_message.per_second > heart_beat_per_second
    assert limits.rc_presence.per_user.per_second > heart_beat_per_second
    # a bot begins and stops to type for each message
    assert limits.rc_typing.per_second >= 2 * limits.rc_message.per_second
    assert limits.rc_typing.burst_count >= 2 * limits.rc_message.burst_count
    family_of_six_with_four_devices = 24
    assert limits.rc_login.address.burst_count >= family_of_six_with_four_devices
    guesses_a_day = limits.rc_login.failed_attempts.per_second * 86_400
    assert guesses_a_day < 5_000
