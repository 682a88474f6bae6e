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
