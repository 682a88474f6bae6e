"""Server access control lists."""

from __future__ import annotations

from typing import Any

import pytest

from homebody.spec import server_acl

EVERYBODY = {"allow": ["*"]}


@pytest.mark.parametrize(
    ("content", "server_name", "is_allowed"),
    [
        ({}, "example.org", False),
        ({"allow": []}, "example.org", False),
        ({"allow": "*"}, "example.org", False),
        ({"allow": [5, None, {}]}, "example.org", False),
        (EVERYBODY, "example.org", True),
        ({"allow": ["example.org"]}, "example.org", True),
        ({"allow": ["example.org"]}, "example.org:8448", True),
        ({"allow": ["EXAMPLE.org"]}, "example.ORG", True),
        ({"allow": ["example.org"]}, "matrix.example.org", False),
        ({"allow": ["*.example.org"]}, "matrix.example.org", True),
        ({"allow": ["*.example.org"]}, "example.org", False),
        ({"allow": ["example.or?"]}, "example.org", True),
        ({"allow": ["*"], "deny": ["example.org"]}, "example.org", False),
        ({"allow": ["*"], "deny": ["example.org"]}, "example.net", True),
        ({"allow": ["example.org"], "deny": ["*"]}, "example.org", False),
        ({"allow": ["*"], "deny": "example.org"}, "example.org", True),
        ({"allow": ["*"], "allow_ip_literals": False}, "example.org", True),
        ({"allow": ["*"], "allow_ip_literals": False}, "192.0.2.1", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "192.0.2.1:8448", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "[2001:db8::1]:8448", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "[2001:db8::1]", False),
        ({"allow": ["*"], "allow_ip_literals": True}, "192.0.2.1", True),
        ({"allow": ["*"], "allow_ip_literals": "no"}, "192.0.2.1", True),
        ({"allow": ["*"]}, "[2001:db8::1]:8448", True),
        ({"allow": ["192.0.2.*"]}, "192.0.2.1:8448", True),
    ],
)
def test_a_server_is_let_in_by_the_list(
    content: dict[str, Any], server_name: str, is_allowed: bool
) -> None:
    assert server_acl.allows(content, server_name) is is_allowed
