"""The page of all settings, docs/configuration.md."""

from __future__ import annotations

import re

from homebody.config import settings
from tests.tools import settings_page


def test_the_page_of_settings_is_up_to_date() -> None:
    written = settings_page.FILE.read_text(encoding="utf-8")

    assert written == settings_page.page(), "run `make example`"


def test_it_has_each_setting_once() -> None:
    text = settings_page.page()

    keys = re.findall(r"(?m)^#([\w.]+) = ", settings.example())

    assert len(keys) > 80
    assert [it for it in keys if text.count(f"\n### `{it}`\n") != 1] == []


def test_its_headings_begin_with_settings_that_exist() -> None:
    text = settings_page.page()

    begun = re.findall(r"\n## ([A-Z][^`\n]+)\n\n### `(\w+)`\n", text)

    assert {key: heading for heading, key in begun} == settings_page.GROUPS


def test_it_links_to_the_pages_that_settings_name() -> None:
    assert "see [sign-on.md](sign-on.md)" in settings_page.page()
