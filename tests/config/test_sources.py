from __future__ import annotations

from pathlib import Path

import pytest

from homebody.config import settings as config
from homebody.config import sources
from homebody.config.settings import ConfigError
from tests.helpers.settings import complaint, defaults_in, write


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nested_keys_have_names_in_the_environment() -> None:
    environ = {
        "HOMEBODY_RC_LOGIN__ADDRESS__BURST_COUNT": "7",
        "HOMEBODY_RC_MESSAGE__PER_SECOND": "0.5",
        "HOMEBODY_PUSH__INCLUDE_CONTENT": "off",
        "HOMEBODY_TRUSTED_PROXIES": "127.0.0.1, ::1",
        "HOMEBODY_IDENTITY_SERVER": "",
    }

    settings = config.load(None, environ)

    assert settings.rc_login.address.burst_count == 7
    assert settings.rc_message.per_second == 0.5
    assert settings.push.include_content is False
    assert [str(network) for network in settings.trusted_proxies] == ["127.0.0.1/32", "::1/128"]
    assert settings.identity_server is None


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_right_name(folder: Path) -> None:
    path = write(folder, '# a comment\n\nserver_name = "example.org"\nmax_upload_byte = 5\n')

    assert (
        complaint(path) == f"{path}:4: max_upload_byte: no such key; did you mean max_upload_bytes?"
    )


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("[rc_mesage]\nper_second = 1", 1, "rc_mesage: no such key; did you mean rc_message?"),
        ("[rc_mesage]", 1, "rc_mesage: no such key; did you mean rc_message?"),
        (
            "[rc_login]\n\n[rc_login.adress]\nburst_count = 1",
            3,
            "rc_login.adress: no such key; did you mean rc_login.address?",
        ),
        (
            "rc_login.address.burst = 1",
            1,
            "rc_login.address.burst: no such key; did you mean rc_login.address.burst_count?",
        ),
        (
            "prune_media = 1",
            1,
            "prune_media: no such key; docs/homebody.example.toml lists all keys",
        ),
        ('server-name = "a"', 1, "server-name: no such key; did you mean server_name?"),
        ("xyzzy = 1", 1, "xyzzy: no such key"),
        ("workers = 1", 1, "workers: no such key any more, as it had no effect; remove it"),
        (
            "[rc_joins.remote]\nper_second = 1",
            1,
            "rc_joins.remote: no such key any more, as it had no effect; remove it",
        ),
        (
            "[push]\ninclude_content = false\nmin_password_length = 1",
            3,
            "push.min_password_length: no such key;"
            " min_password_length belongs above the first [table] of the file",
        ),
        (
            "min_password_length.a = 1",
            1,
            "min_password_length: must be a whole number from 1 to 128, not a table",
        ),
        (
            "\nrc_message = 5",
            2,
            "rc_message: is a table; set rc_message.per_second and rc_message.burst_count",
        ),
        (
            "presence = { enable = true }",
            1,
            "presence.enable: no such key; did you mean presence.enabled?",
        ),
        ("[[push]]\nx = 1", 1, "push: is a table; set push.include_content and"),
        (
            '[rc_joins]\nlocal = { per_second = "fast" }',
            2,
            "rc_joins.local.per_second: must be a number above 0 and up to 1000000, not 'fast'",
        ),
        (
            'trusted_proxies = [\n  "127.0.0.1",\n  "10.0.0.1/8",\n]\nmin_password_length = 1',
            1,
            "trusted_proxies: must be a list of IP addresses or networks",
        ),
        (
            'log_format = "text"\nappservices = [\n"""\nlog_level = 2\n""",\n]\nlog_level = 2',
            2,
            "appservices: must be a list of paths in quotes",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(
    folder: Path, text: str, line: int, sentence: str
) -> None:
    path = write(folder, text)

    assert complaint(path).startswith(f"{path}:{line}: {sentence}")


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ('server_name = "a"\nmin_password_length = = 2\n', 2, "is not TOML: Invalid value"),
        ('min_password_length = 1\nserver_name = "a', 2, "is not TOML"),
        (
            "min_password_length = 1\nserver_name = example.org\n",
            2,
            'is not TOML: Invalid value; text has to be in quotes: server_name = "…"',
        ),
        (
            "rc_login.address.x = 7 days # and more",
            1,
            "is not TOML: Expected newline or end of document after a statement;"
            ' text has to be in quotes: rc_login.address.x = "…"',
        ),
        (
            "metrics_token = hunter2",
            1,
            'is not TOML: Invalid value; text has to be in quotes: metrics_token = "…"',
        ),
        (
            "min_password_length = 1\nmin_password_length = 2\n",
            2,
            "is not TOML: Cannot overwrite a value",
        ),
        ('metrics_token = "hunter2', 1, '; a quote is missing: metrics_token = "…"'),
        ("metrics_token = hunter2'", 1, '; a quote is missing: metrics_token = "…"'),
        (
            'trusted_proxies = ["127.0.0.1", 10.0.0.0/8]',
            1,
            '; each text in a list has to be in quotes: trusted_proxies = ["…", "…"]',
        ),
        ("presence = no # or yes", 1, "; write presence = true or presence = false"),
        ("min_password_length = 1\n\nrc_message = [1,\n", 3, "is not TOML"),
        ("", None, None),
    ],
)
def test_a_syntax_error_is_told_with_its_line(
    folder: Path, text: str, line: int | None, part: str
) -> None:
    path = write(folder, text)

    if line is None:
        assert config.load(path, {}) == defaults_in(folder)
    else:
        found = complaint(path)
        assert found.startswith(f"{path}:{line}: is not TOML")
        assert part in found


def test_files_of_windows_editors_are_read(folder: Path) -> None:
    path = folder / "homebody.toml"
    path.write_bytes(b'\xef\xbb\xbfserver_name = "localhost"\r\n\r\nmin_password_length = 0\r\n')

    assert complaint(path).startswith(f"{path}:3: min_password_length: must be")


def test_a_file_that_cannot_be_read_is_one_line(folder: Path) -> None:
    latin = write(folder, "")
    latin.write_bytes(b"min_password_length = 1\n# caf\xe9\n")

    assert complaint(latin) == f"{latin}:2: is not UTF-8 text"
    assert complaint(folder / "no.toml").endswith(
        "no.toml: cannot be read: No such file or directory"
    )
    assert complaint(None, {"HOMEBODY_CONFIG": "no.toml"}).startswith("no.toml: cannot be read")
    assert complaint(folder).endswith("cannot be read: Is a directory")
    assert complaint(None, {"HOMEBODY_DATA_DIR": "x" * 300}).endswith(
        "cannot be read: File name too long"
    )


def test_unknown_names_in_the_environment_are_refused() -> None:
    assert (
        complaint(None, {"HOMEBODY_SERVERNAME": "a"})
        == "environment HOMEBODY_SERVERNAME: no such key; did you mean HOMEBODY_SERVER_NAME?"
    )
    assert complaint(None, {"HOMEBODY_RC_MESSAGE": "5"}) == (
        "environment HOMEBODY_RC_MESSAGE: is a table; set"
        " HOMEBODY_RC_MESSAGE__PER_SECOND and HOMEBODY_RC_MESSAGE__BURST_COUNT"
    )
    with pytest.raises(ConfigError, match=r"^option bnd: no such key; did you mean bind\?$"):
        config.load(None, {}, {"bnd": "127.0.0.1:1"})


def test_a_variable_below_a_setting_that_is_not_a_table_is_refused() -> None:
    meant = {
        "HOMEBODY_BIND__PORT": "HOMEBODY_BIND",
        "HOMEBODY_FEDERATION_HOSTS__B.TEST": "HOMEBODY_FEDERATION_HOSTS",
    }

    for name, nearest in meant.items():
        assert complaint(None, {name: "1"}) == (
            f"environment {name}: no such key; did you mean {nearest}?"
        )


def test_what_kubernetes_adds_to_the_environment_is_not_ours(folder: Path) -> None:
    environ = {
        "HOMEBODY_SERVICE_HOST": "10.0.0.5",
        "HOMEBODY_SERVICE_PORT_HTTP": "8008",
        "HOMEBODY_PORT": "tcp://10.0.0.5:8008",
        "HOMEBODY_PORT_8008_TCP_ADDR": "10.0.0.5",
    }

    assert config.load(None, environ) == defaults_in(folder)


def test_lines_are_found_for_every_way_to_write_a_key() -> None:
    text = (
        'a = """\n[x]\nb = 1\n"""\n\n[t."q.r"] # c\nd . e = [\n  [1],\n]\n[[u]]\nf = {g = 1}\n[v]'
    )

    lines = {
        ("a",): 1,
        ("t",): 6,
        ("t", "q.r"): 6,
        ("t", "q.r", "d"): 7,
        ("t", "q.r", "d", "e"): 7,
        ("u",): 10,
        ("v",): 12,
    }
    assert {key: sources.line_of(text, key) for key in lines} == lines
