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
        ({"allow": ["example.org:8448"]}, "example.org:8448", False),
        ({"allow": ["[2001:DB8::*]"]}, "[2001:db8::A]:8448", True),
        ({"allow": ["*"], "deny": ["*.EXAMPLE.org"]}, "a.b.example.ORG", False),
        ({"allow": ["*"], "deny": ["*evil*"]}, "an.evil.example:80", False),
        ({"allow": ["*"], "deny": ["evil.?xample", "*.org"]}, "EVIL.example", False),
        ({"allow": ["*"], "deny": ["evil.?xample", "*.org"]}, "evil.xample", True),
        ({"allow": ["*", 5], "deny": [{}, "evil.example", None]}, "evil.example", False),
        ({"allow": ["**"], "deny": [""]}, "example.org", True),
        ({"allow": ["?*.org"]}, "example.org", True),
        ({"allow": ["*"], "deny": [".*", "[a-z]+", "exa.ple.org"]}, "example.org", True),
        ({"allow": ["*"], "allow_ip_literals": False}, "1.2.3.example", True),
        ({"allow": ["*"], "allow_ip_literals": None}, "192.0.2.1", True),
        ({"allow": ["*"], "allow_ip_literals": 0}, "192.0.2.1", True),
        ({"allow": ["*"], "deny": {"0": "*"}}, "example.org", True),
        ({"allow": {"0": "*"}}, "example.org", False),
        ({"allow": None, "deny": None}, "example.org", False),
    ],
)
def test_a_server_is_let_in_by_the_list(
    content: dict[str, Any], server_name: str, is_allowed: bool
) -> None:
    assert server_acl.allows(content, server_name) is is_allowed


def test_one_list_serves_many_servers() -> None:
    acl = server_acl.ServerAcl({"allow": ["*.org", "b.example"], "deny": ["*.evil.org"]})

    allowed = [
        name for name in ("a.org", "a.evil.org", "B.example:1", "c.example") if acl.allows(name)
    ]

    assert allowed == ["a.org", "B.example:1"]
