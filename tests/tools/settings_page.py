"""Write docs/configuration.md, the page of all settings: a part of `make example`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from homebody.config import settings

FILE = Path(__file__).parents[2] / "docs" / "configuration.md"
_HEAD = """\
# Configuration

<!-- Written by `make example` from app/homebody/config; change the texts there. -->

The settings are in one TOML file: `homebody.toml` in the data folder, or the file that `--config`
or `HOMEBODY_CONFIG` names; the Debian package has `/etc/homebody/homebody.toml`. To try homebody,
you need none of them. A permanent server needs its name, and usually the URL of its proxy:

```toml
server_name = "example.org"                  # can't be changed once there are accounts
public_url = "https://matrix.example.org"
```

- Sizes may be written as `"50 MiB"`, durations as `"1 h"`; bare numbers are bytes and
  milliseconds.
- A nested key is written with dots, `smtp.host = "…"`, or in a table, `[smtp]`.
- Each key can also be set in the environment: `HOMEBODY_` and the key in capitals, with `__`
  between the parts of a nested key (`HOMEBODY_SMTP__HOST=mail.example.org`). The environment has
  priority.
- To keep a secret out of the file, write it to another one and set its path: `smtp.password_file`
  in place of `smtp.password`.
- The server does not start with an unknown key or a wrong value. The error names the line, and
  the most similar key.

These settings are in effect, each with its meaning; secrets are masked:

```sh
homebody config
```

[homebody.example.toml](homebody.example.toml) is a file with all settings, to copy from. Below is
each of them with its default.
"""
GROUPS = {
    "server_name": "The server",
    "federation": "Other servers",
    "data_dir": "Data and memory",
    "registration": "Accounts",
    "max_upload_bytes": "Files and links",
    "default_room_version": "Rooms, presence and contacts",
    "livekit_service_url": "Calls",
    "appservices": "Bridges and bots",
    "log_level": "Log and metrics",
    "rate_limits": "Rate limits",
}
"""Headings, by the first setting below each; tables have headings of their own."""
_SETTING = re.compile(r"((?:# [^\n]*\n)+)#([\w.]+) = ([^\n]*)\n")


def page() -> str:
    """Return the text of the page."""
    text, heading = _HEAD, ""
    for comment, key, default in _SETTING.findall(settings.example()):
        if (above := _heading(key, heading)) != heading:
            heading = above
            text += f"\n## {heading}\n"
        meaning = " ".join(line.removeprefix("# ") for line in comment.splitlines())
        shown = "not set" if default in ('""', "[]", "{}") else f"`{default}`"
        text += f"\n### `{key}`\n\n{_escaped(meaning)}\n"
        if "Default: " not in meaning:
            text += f"\nDefault: {shown}\n"
    return text


def _heading(key: str, last: str) -> str:
    table, dot, _ = key.partition(".")
    if dot and not table.startswith("rc_"):
        return f"The table `{table}`"
    return GROUPS.get(key, last)


def _escaped(meaning: str) -> str:
    """Return a text in which Markdown sees no tables or emphasis, and of links those to pages."""
    return re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](\1)", re.sub(r"([*<\[\]])", r"\\\1", meaning))


if __name__ == "__main__":
    sys.exit(0 if FILE.write_text(page(), encoding="utf-8") else 1)
