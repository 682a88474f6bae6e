"""Files of an administrator with any content: one line says what is wrong."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from homebody.config import settings
from homebody.config.settings import ConfigError
from homebody.core.appservices import files
from homebody.spec import appservices
from homebody.spec.appservices import Services
from tests.fuzz import examples
from tests.fuzz.test_canonical_json import decoded_values

REGISTRATION = {
    "id": "bridge",
    "url": "http://127.0.0.1:9000",
    "as_token": "as",
    "hs_token": "hs",
    "sender_localpart": "bot",
    "namespaces": {"users": [{"regex": "@b_.*:localhost", "exclusive": True}]},
    "rate_limited": False,
    "protocols": ["irc"],
}
regular_expressions = st.lists(
    st.sampled_from([*"()[]{}*+?|.^$\\@:", "a", "[:alpha:]", "{9}", "(?P<", "(?", "\\1", "[["])
).map("".join) | st.text(max_size=5)
yaml_texts = st.lists(
    st.sampled_from(
        [
            *(
                "id: ",
                "a",
                "\n",
                " ",
                "- ",
                "[",
                "]",
                "{",
                "}",
                ": ",
                "&x ",
                "*x",
                "!!int ",
                "!!float",
            ),
            *(
                "!!timestamp ",
                "!!bool ",
                "!!binary ",
                "!!python/none ",
                "'",
                '"',
                "|",
                ">",
                "? ",
                "=",
            ),
            *(
                "2001-99-99",
                "0x",
                "1:99:99",
                ".inf",
                "<<: ",
                "%YAML 9",
                "---",
                "\t",
                "\0",
                "~",
                "é",
            ),
        ]
    ),
    max_size=8,
).map("".join)
toml_texts = st.lists(
    st.sampled_from(
        [
            *(
                "server_name",
                "min_password_length",
                "rc_login",
                ".",
                "[",
                "]",
                "{",
                "}",
                "=",
                "\n",
                " ",
                '"',
                "'''",
            ),
            *(
                "1",
                "-",
                "1e999",
                "nan",
                "0x",
                "1979-05-27",
                "25:00:00",
                "true",
                ",",
                "#",
                "\\",
                "\0",
            ),
            *('"x"', "[[", "]]", "_", "9" * 30, "per_second", "smtp", "terms"),
        ]
    ),
    max_size=10,
).map("".join)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def registered(path: Path) -> Services | None:
    """Return the services of a file, or None if it is rejected with a one-line message."""
    try:
        return files.load(settings.load(None, {}, {"appservices": str(path)}))
    except ConfigError as error:
        line = str(error)
    assert "\n" not in line
    return None


@examples(100)
@given(yaml_texts | st.binary(max_size=20))
@example('id: !!int ""')
@example("!!timestamp x")
@example("!!bool maybe")
@example("!!float x")
@example("id: 2001-99-99")
@example("? [a]\n: b")
@example("[" * 5000)
@example("&x [*x]")
def test_any_registration_file_is_read_or_refused_with_a_line(
    folder: Path, text: str | bytes
) -> None:
    path = folder / "registration.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))

    registered(path)


@examples(100)
@given(st.sampled_from([*REGISTRATION, "namespaces.users"]), decoded_values)
@example("url", "http://[")
@example("url", "http://a:b")
@example("url", "http://a:99999")
@example("id", "\ud800")
@example("sender_localpart", "a:b")
@example("namespaces.users", [{"regex": "a{99999999999999999999}", "exclusive": True}])
@example("namespaces.users", [{"regex": "(" * 5000, "exclusive": True}])
def test_a_registration_with_an_odd_value_is_one_or_a_value_error(key: str, value: Any) -> None:
    changed = {key: value} if "." not in key else {"namespaces": {"users": value}}

    try:
        service = appservices.parse({**REGISTRATION, **changed}, "localhost")
    except ValueError:
        return

    assert service.url is None or 0 < (urlsplit(service.url).port or 80) < 2**16
    services = Services([service], "localhost")
    assert services.by_token(service.as_token) is service
    services.of_user("@b_1:localhost")
    services.owner_of_alias("#b_1:localhost")


@examples(100)
@given(regular_expressions)
@example("[[:alpha:]")
@example("(?i)a(?i)")
def test_any_regular_expression_of_a_namespace_is_compiled_or_refused(text: str) -> None:
    namespaces = {"users": [{"regex": text, "exclusive": True}]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of what later versions may read otherwise
        try:
            service = appservices.parse({**REGISTRATION, "namespaces": namespaces}, "localhost")
        except ValueError:
            return

    Services([service], "localhost").of_user("@someone:localhost")


def configured(path: Path | None, environ: dict[str, str]) -> settings.Config | None:
    try:
        return settings.load(path, environ, {})
    except ConfigError as error:
        line = str(error)
    assert line
    return None


@examples(100)
@given(toml_texts | st.binary(max_size=20))
@example("min_password_length = " + "[" * 5000)
@example("min_password_length = 1e999")
@example("rate_limits = 1979-05-27")
@example("[rc_login]\naddress = 1")
@example("server_name = 'a'\nserver_name.b = 1")
@example('data_dir = "\\u0000"')
def test_any_configuration_file_is_read_or_refused(folder: Path, text: str | bytes) -> None:
    path = folder / "homebody.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))

    configured(path, {})


SETTINGS = [
    line.split("=")[0].strip("# ") for line in settings.example().splitlines() if " = " in line
]
odd_texts = st.sampled_from(
    [
        *(
            "",
            " ",
            "0",
            "-1",
            "1e999",
            "nan",
            "inf",
            "9" * 5000,
            "true",
            "null",
            "[]",
            "{}",
            "[1",
            "\x7f",
        ),
        *(
            "[" * 5000,
            '["a"]',
            "http://",
            "http://[",
            "https://a:b",
            "http://a:99999",
            "1 GB",
            "5 years",
        ),
        *(
            "::",
            "10.0.0.0/33",
            "0.0.0.0/0",
            "localhost:99999",
            "[::1]:1",
            "a:b:c",
            "sqlite://",
            "x://",
        ),
        *(
            "12",
            "m.room",
            "@a:b",
            "ed25519 a b",
            "postgresql://u:p@[h/db",
            "٣",
            "1_000",
            "/dev/null/x",
        ),
    ]
)


@examples(150)
@given(st.sampled_from(SETTINGS), odd_texts | st.text(st.characters(exclude_characters="\0")))
def test_any_text_in_the_environment_is_a_setting_or_refused(key: str, text: str) -> None:
    name = "HOMEBODY_" + key.upper().replace(".", "__")

    it = configured(None, {name: text})

    if it is not None:
        assert settings.describe(it)


@examples(150)
@given(
    st.sampled_from([it.kind for it in settings.known().values()]),
    decoded_values | odd_texts,
)
def test_any_value_is_of_a_kind_or_a_value_error(kind: Any, value: Any) -> None:
    try:
        read = kind.parse(value)
    except ValueError:
        return

    assert isinstance(kind.show(read), str)
