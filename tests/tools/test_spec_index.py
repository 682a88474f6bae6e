"""The index from the specification to the code finds what it is made for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools import pin_spec, spec_index

KNOWN = {"client-server-api#login", "rooms/v12#authorisation-rules"}

MODULE = '''"""Log in.

Spec: client-server-api#login,
client-server-api#log-in
"""

# Deviates: nobody logs in twice,
# as nobody should.
NAME = "client-server-api#no-docstring"


def login() -> None:
    """Spec: rooms/v12#authorisation-rules (rule 5)"""
    login()  # as the spec has it; see rooms/v12#rules. Todo: nothing
    # Todo: log out
'''


@pytest.fixture
def lines(tmp_path: Path) -> list[spec_index.Line]:
    """Return the prose of a small server."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app/login.py").write_text(MODULE, encoding="utf-8")
    return list(spec_index.all_prose(tmp_path))


def test_a_wrong_anchor_is_found_with_its_file_and_line(lines: list[spec_index.Line]) -> None:
    wrong = list(spec_index.wrong_references(lines, KNOWN))

    assert [sentence.split(" ")[0] for sentence in wrong] == ["app/login.py:4:", "app/login.py:14:"]
    assert "has no client-server-api#log-in" in wrong[0]
    assert "has no rooms/v12#rules" in wrong[1]


@pytest.mark.parametrize("text", ["Spec: the chapter on login", "Spec: no-such-document#login"])
def test_a_citation_has_to_name_a_document_and_an_anchor(text: str) -> None:
    line = spec_index.Line(Path("app/login.py"), 1, text)

    assert len(list(spec_index.wrong_references([line], KNOWN))) == 1


def test_deviations_and_gaps_are_listed(lines: list[spec_index.Line]) -> None:
    assert [str(line) for line in spec_index.marks(lines)] == [
        "app/login.py:7: Deviates: nobody logs in twice, as nobody should.",
        "app/login.py:15: Todo: log out",
    ]


def test_no_reference_of_the_server_is_wrong() -> None:
    lines = list(spec_index.all_prose())

    wrong = list(spec_index.wrong_references(lines, spec_index.anchors()))

    assert wrong == []
    assert sum("Spec: " in line.text for line in lines) > 50


def test_operations_are_tied_to_the_views_that_serve_them() -> None:
    app = spec_index.server()
    found = {
        operation.names: operation
        for operation in spec_index.with_views(app, spec_index.operations())
    }

    assert found["getVersions"].view.startswith("app/homebody/client_server/versions.py:")
    assert found["getServerKey"].view.startswith("app/homebody/server_server/keys.py:")
    assert found["redirectToSSO"].view.startswith("app/homebody/web/sign_on_pages/clients.py:")
    assert found["askPolicyServerToSign"].view == ""
    assert not spec_index.is_named_otherwise(found["getVersions"])
    assert not spec_index.is_named_otherwise(found["askPolicyServerToSign"])


def test_each_operation_stands_once_with_all_its_names() -> None:
    found = spec_index.operations()

    assert len([it for it in found if it.api == "client-server"]) == 164
    assert len([it for it in found if it.api == "server-server"]) == 36
    assert "inviteUser, inviteBy3PID" in {operation.names for operation in found}


@pytest.mark.parametrize(
    ("line", "anchor"),
    [
        ("## Rate limiting", "rate-limiting"),
        ("### OAuth 2.0 API", "oauth-20-api"),
        (
            "#### `m.room.power_levels` events accept values",
            "mroompower_levels-events-accept-values",
        ),
        ('#### Login {id="legacy-login"}', "legacy-login"),
        ("#### POST /_matrix/client/v3/rooms/{roomId}/join", "post_matrixclientv3roomsroomidjoin"),
        ("#### `m.room.member` (state event; schema x.json)", "mroommember"),
        ("#### `m.room.message$m.text` (event; schema x.json)", "mtext"),
        ("**EncryptedFile**: Information on a file", "definition-encryptedfile"),
    ],
)
def test_anchors_are_made_as_the_website_makes_them(line: str, anchor: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n```\n# no heading\n```\n{line}\n", encoding="utf-8")

    assert pin_spec.anchors_of(page)[-1] == anchor
    assert "no-heading" not in pin_spec.anchors_of(page)


def test_the_second_heading_of_a_name_is_numbered_through_the_modules(tmp_path: Path) -> None:
    (tmp_path / "module.md").write_text("## Conditions\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text("## Conditions\n(module: see module.md)\n", encoding="utf-8")

    assert pin_spec.anchors_of(page) == ["conditions", "conditions-1"]
