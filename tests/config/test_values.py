from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest

from homebody.config import settings as config
from homebody.config.settings import Config, ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(given: dict[str, str]) -> Config:
    return config.load(None, {}, given)


def test_text_that_looks_like_a_number_stays_text_where_text_is_meant() -> None:
    settings = options({"registration_shared_secret": "12345", "default_room_version": "10"})

    assert settings.registration_shared_secret == "12345"
    assert settings.default_room_version == "10"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("server_name", "https://example.org"),
        ("server_name", ""),
        ("server_name", "ex ample.org"),
        ("server_name", "example.org:99999"),
        ("public_url", "example.org"),
        ("public_url", "ftp://example.org"),
        ("public_url", "https://user@example.org"),
        ("public_url", "https://example.org/?a=b"),
        ("public_url", "https://[::1"),
        ("public_url", "https://exa mple.org"),
        ("identity_server", "vector.im"),
        ("sso_trusted_clients", "app.element.io"),
        ("sso_trusted_clients", "https://app.element.io, element://connect"),
        ("bind", "8008"),
        ("bind", "127.0.0.1"),
        ("bind", "[::1]"),
        ("bind", "127.0.0.1:65536"),
        ("bind", "300.0.0.1:80"),
        ("metrics_bind", "8008"),
        ("metrics_bind", "unix:"),
        ("min_password_length", "0"),
        ("min_password_length", "129"),
        ("min_password_length", "1.0"),
        ("min_password_length", "true"),
        ("min_password_length", "1\nbind = 2"),
        ("max_upload_bytes", "-1"),
        ("max_upload_bytes", "5 apples"),
        ("max_upload_bytes", "9" * 400),
        ("max_upload_bytes", "1e9"),
        ("cache_bytes", "1 KiB"),
        ("token_lifetime", "0"),
        ("token_lifetime", "1 fortnight"),
        ("token_lifetime", "soon"),
        ("registration", "sometimes"),
        ("password_hashing", "md5"),
        ("default_room_version", "13"),
        ("presence", "maybe"),
        ("rate_limits", "2"),
        ("log_level", "LOUD"),
        ("trusted_proxies", "localhost"),
        ("outside_allowed", "10.0.0.1/8"),
        ("outside_allowed", "ntfy.home:80"),
        ("outside_allowed", "https://ntfy.home"),
        ("federation_hosts", "b.test"),
        ("federation_hosts", '{"b.test" = "127.0.0.1"}'),
        ("federation_hosts", '{"b test" = "127.0.0.1:8449"}'),
        ("federation_hosts", '{"b.test" = 8449}'),
        ("federation_hosts", '{"b.test" = {host = "127.0.0.1"}}'),
        ("dns_servers", "dns.example.org"),
        ("dns_servers", "9.9.9.9:99999"),
        ("dns_servers", "9.9.9.9/8"),
        ("data_dir", ""),
        ("data_dir", "a\0b"),
        ("data_dir", "~nobody-of-this-name/x"),
        ("rc_message.per_second", "0"),
        ("rc_message.per_second", "inf"),
        ("rc_message.per_second", "nan"),
        ("rc_message.per_second", "true"),
        ("rc_message.burst_count", "0"),
        ("rc_message.burst_count", "0.5"),
        ("database_url", "postgresql+psycopg://homebody@localhost/homebody"),
        ("database_url", "sqlite:///:memory:"),
        ("database_url", "sqlite://"),
    ],
)
def test_values_that_make_no_sense_are_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"^option {re.escape(key)}: must be .+"):
        options({key: value})


def test_a_wrong_type_in_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "homebody.toml"
    for text in (
        "server_name = 5",
        "presence = 1",
        "min_password_length = '1'",
        "appservices = false",
        "metrics_bind = 9100",
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=": must be "):
            config.load(path, {})


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [
        ("52428800", 52_428_800),
        ("50 MiB", 52_428_800),
        ("50M", 52_428_800),
        ("1.5 GiB", 1_610_612_736),
        ("50 MB", 50_000_000),
        ("7b", 7),
    ],
)
def test_sizes_are_bytes_or_have_a_unit(written: str, size_bytes: int) -> None:
    assert options({"max_upload_bytes": written}).max_upload_bytes == size_bytes


@pytest.mark.parametrize(
    ("written", "duration_ms"),
    [
        ("1500", 1_500),
        ("1 h", 3_600_000),
        ("0.5s", 500),
        ("15 min", 900_000),
        ("7d", 604_800_000),
        ("7 days", 604_800_000),
        ("1 week", 604_800_000),
        ("2 Hours", 7_200_000),
    ],
)
def test_durations_are_milliseconds_or_have_a_unit(written: str, duration_ms: int) -> None:
    assert options({"token_lifetime": written}).token_lifetime_ms == duration_ms


@pytest.mark.parametrize(
    ("key", "units"),
    [("token_lifetime", "ms, s, min, h, d or w"), ("cache_bytes", "KiB, MiB, GiB, KB, MB or GB")],
)
def test_a_wrong_amount_is_answered_by_the_units(key: str, units: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"({units})")):
        options({key: "3 moons"})


def test_private_destinations_are_named_by_host_address_or_network(tmp_path: Path) -> None:
    written = 'outside_allowed = ["ntfy.home", "10.0.0.0/8", "127.0.0.1", "::1"]'
    path = tmp_path / "homebody.toml"
    path.write_text(written.replace("ntfy.home", "NTFY.home"))

    settings = config.load(path, {})

    assert settings.outside_allowed[0] == "ntfy.home"
    assert settings.outside_allowed[1] == ipaddress.ip_network("10.0.0.0/8")
    assert written in config.describe(settings)


def test_other_servers_are_placed_by_a_table_in_any_notation(tmp_path: Path) -> None:
    expected = (("b.test", "127.0.0.1:8449"), ("c.test:81", "[::1]:8450"))
    texts = [
        'federation_hosts = { "b.test" = "127.0.0.1:8449", "c.test:81" = "[::1]:8450" }',
        '[federation_hosts]\nb.test = "127.0.0.1:8449"\n"c.test:81" = "[::1]:8450"',
        'federation_hosts.b.test = "127.0.0.1:8449"\nfederation_hosts."c.test:81" = "[::1]:8450"',
    ]
    path = tmp_path / "homebody.toml"

    for text in texts:
        path.write_text(text)
        settings = config.load(path, {})
        assert settings.federation_hosts == expected
        assert texts[0] in config.describe(settings)

    in_environment = {"HOMEBODY_FEDERATION_HOSTS": texts[0].partition("= ")[2]}
    assert config.load(path, in_environment).federation_hosts == expected


def test_other_servers_are_placed_on_this_machine_or_where_it_is_allowed() -> None:
    allowed = {"outside_allowed": "10.0.0.0/8, b.home"}
    good = '{"b.test" = "10.1.2.3:8448", "c.test" = "B.home:1", "d.test" = "localhost:1"}'

    assert len(options({"federation_hosts": good, **allowed}).federation_hosts) == 3
    for address in ("192.168.1.1:8448", "other.home:1", "8.8.8.8:8448"):
        with pytest.raises(ConfigError, match="outside_allowed"):
            options({"federation_hosts": f'{{"b.test" = "{address}"}}', **allowed})


def test_dns_servers_may_have_a_port() -> None:
    written = ("9.9.9.9", "127.0.0.1:5353", "[::1]:53", "2620:fe::fe")

    assert options({"dns_servers": ",".join(written)}).dns_servers == written
