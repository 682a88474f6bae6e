"""A real nginx and a real Caddy, set up as in docs/proxy.md and then spoilt on purpose."""

from __future__ import annotations

import dataclasses

import pytest

from homebody.doctor.findings import Finding, to_lines
from tests.doctor.conftest import Clinic, Proxy
from tests.helpers import proxies, server

pytestmark = pytest.mark.clients


def bad(found: list[Finding]) -> set[str]:
    """Return the ids of what is broken, or a warning."""
    return {it.id for it in found if it.severity in {"broken", "warning"}}


def shown(found: list[Finding]) -> str:
    """Return all findings, for a failure."""
    return "\n".join(to_lines(found, with_ok=True))


@pytest.mark.parametrize("proxy", [proxies.nginx, proxies.caddy])
def test_nothing_is_found_with_the_configuration_of_the_page(clinic: Clinic, proxy: Proxy) -> None:
    found = clinic.examine(proxy)

    assert bad(found) == set(), shown(found)
    assert {it.id for it in found if it.severity == "ok"} >= {
        *(
            "long-poll",
            "oauth",
            "body-limit",
            "buffering",
            "forwarded-for",
            "path-decoded",
            "cors-errors",
        ),
        *("well-known-client", "well-known-server", "federation", "federation-key", "tls"),
    }


PROXY_PASS = "proxy_pass http://127.0.0.1:8008;"
REVERSE_PROXY = "reverse_proxy 127.0.0.1:8008"
CLIENT_FILE = "location = /.well-known/matrix/client {\n"
ADD_CORS = "        add_header Access-Control-Allow-Origin *;\n"


def inside(*lines: str) -> proxies.Edit:
    """Return an edit that adds lines to the location of nginx that passes requests on."""
    return proxies.replacing((PROXY_PASS, "\n        ".join((PROXY_PASS, *lines))))


def within(*lines: str) -> proxies.Edit:
    """Return an edit that adds lines to Caddy's reverse_proxy."""
    head = REVERSE_PROXY + " {"
    return proxies.replacing((head, "\n\t\t".join((head, *lines))))


NGINX = {
    "oauth": (
        proxies.replacing(
            ("location / {", "location /_homebody/ { return 404; }\n    location / {")
        ),
        {"oauth"},
    ),
    "cors": (
        inside("proxy_hide_header Access-Control-Allow-Origin;"),
        {"cors", "cors-errors", "cors-preflight"},
    ),
    "cors-errors": (
        inside(
            "proxy_hide_header Access-Control-Allow-Origin;",
            "add_header Access-Control-Allow-Origin *;",
        ),
        {"cors-errors"},
    ),
    "cors-twice": (
        inside("add_header Access-Control-Allow-Origin * always;"),
        {"cors-twice", "cors-preflight"},
    ),
    "cors-preflight": (
        inside("if ($request_method = OPTIONS) { return 405; }"),
        {"cors-preflight"},
    ),
    "errors-replaced": (
        inside("proxy_intercept_errors on;", "error_page 401 404 /oops.html;"),
        {"errors-replaced"},
    ),
    "path-decoded": (
        proxies.replacing((PROXY_PASS, "proxy_pass http://127.0.0.1:8008/;")),
        {"path-decoded", "path-slashes"},
    ),
    "path-slashes": (
        inside("rewrite ^(.*)$ $1 break;"),
        {"path-decoded", "path-slashes"},
    ),
    "path-trailing-slash": (
        inside("rewrite ^(/_matrix/.*)/$ $1 permanent;"),
        {"path-trailing-slash"},
    ),
    "body-limit": (
        proxies.replacing(("client_max_body_size 50m;", "client_max_body_size 1m;")),
        {"body-limit"},
    ),
    "long-poll": (
        proxies.replacing(("proxy_read_timeout 650s;", "proxy_read_timeout 1s;")),
        {"long-poll"},
    ),
    "buffering": (
        proxies.replacing(("proxy_buffering off;", "proxy_buffering on;")),
        {"buffering"},
    ),
    "http-version": (
        proxies.replacing(("proxy_http_version 1.1;", "proxy_http_version 1.0;")),
        {"http-version"},
    ),
    "forwarded-for": (
        proxies.replacing(("proxy_set_header X-Forwarded-For $remote_addr;", "")),
        {"forwarded-for"},
    ),
    "forwarded-for-forged": (
        lambda text: (
            "map $http_x_forwarded_for $from { default $http_x_forwarded_for; '' $remote_addr; }\n"
            + text.replace("X-Forwarded-For $remote_addr;", "X-Forwarded-For $from;")
        ),
        {"forwarded-for-forged"},
    ),
    "forwarded-for-untrusted": (inside("proxy_bind 127.0.0.2;"), {"forwarded-for-untrusted"}),
    "forwarded-proto": (
        proxies.replacing(("proxy_set_header X-Forwarded-Proto $scheme;", "")),
        {"forwarded-proto"},
    ),
    "metrics-public": (
        proxies.replacing(
            ("proxy_set_header X-Forwarded-For $remote_addr;", ""),
            ("proxy_set_header X-Forwarded-Proto $scheme;", ""),
        ),
        {"forwarded-for", "forwarded-proto", "metrics-public"},
    ),
    "authorization": (inside('proxy_set_header Authorization "";'), {"authorization"}),
    "redirect": (
        inside("return 301 https://www.example.org$request_uri;"),
        {"redirect", "federation-api"},
    ),
    # as if it were a server with another key
    "other-server": (inside('proxy_set_header X-Homebody-Proof "";'), {"other-server"}),
    "versions": (inside("return 200 '<html>Welcome</html>';"), {"versions", "federation-api"}),
    "well-known-client": (
        proxies.replacing((CLIENT_FILE, "location = /somewhere-else {\n")),
        {"well-known-client"},
    ),
    "well-known-client-cors": (
        proxies.replacing((ADD_CORS, "")),
        {"well-known-client-cors"},
    ),
    "well-known-client-type": (
        proxies.replacing(
            (
                CLIENT_FILE + "        default_type application/json;",
                CLIENT_FILE + "default_type text/plain;",
            )
        ),
        {"well-known-client-type"},
    ),
    "well-known-client-redirect": (
        proxies.replacing(
            (
                CLIENT_FILE,
                CLIENT_FILE + "return 301 https://example.org/.well-known/matrix/client;\n",
            )
        ),
        {"well-known-client-redirect"},
    ),
    "well-known-client-target": (
        proxies.replacing(
            ('"base_url": "https://matrix.example.org"', '"base_url": "https://example.org:8449"')
        ),
        {"well-known-client-target"},
    ),
    "well-known-server": (
        proxies.replacing(('"m.server": "matrix.example.org:443"', '"m.server": "https://x"')),
        {"well-known-server", "federation"},
    ),
    "federation": (
        proxies.replacing(
            ('"m.server": "matrix.example.org:443"', '"m.server": "example.org:8449"')
        ),
        {"federation"},
    ),
    "federation-api": (
        proxies.replacing(
            ('"m.server": "matrix.example.org:443"', '"m.server": "example.org:443"')
        ),
        {"federation-api"},
    ),
}
"""By the id: how nginx is spoilt, and all that is found."""


@pytest.mark.parametrize("id_", NGINX)
def test_what_is_wrong_with_nginx_is_found_and_nothing_else(clinic: Clinic, id_: str) -> None:
    edit, expected = NGINX[id_]

    found = clinic.examine(proxies.nginx, edit)

    assert bad(found) == expected, shown(found)


CADDY = {
    "backend": (
        proxies.replacing((REVERSE_PROXY, "reverse_proxy 127.0.0.1:9")),
        {"backend", "cors-errors", "federation-api"},
    ),
    "cors": (
        within("header_down -Access-Control-Allow-Origin"),
        {"cors", "cors-errors", "cors-preflight"},
    ),
    "cors-twice": (
        within('header_down +Access-Control-Allow-Origin "*"'),
        {"cors-twice", "cors-preflight"},
    ),
    "errors-replaced": (
        within("@failed status 4xx", "handle_response @failed {", 'respond "Oops" 404', "}"),
        {"errors-replaced"},
    ),
    "path-decoded": (
        proxies.replacing((REVERSE_PROXY, "uri replace %2F /\n    " + REVERSE_PROXY)),
        {"path-decoded", "path-slashes"},
    ),
    "path-slashes": (
        proxies.replacing((REVERSE_PROXY, "uri path_regexp //+ /\n    " + REVERSE_PROXY)),
        {"path-slashes"},
    ),
    "path-trailing-slash": (
        proxies.replacing(
            (
                REVERSE_PROXY,
                "@slash path_regexp slash ^(/_matrix/.*)/$\n"
                "    redir @slash {re.slash.1} permanent\n    " + REVERSE_PROXY,
            )
        ),
        {"path-trailing-slash"},
    ),
    "body-limit": (
        proxies.replacing(
            (REVERSE_PROXY, "request_body {\n        max_size 1MB\n    }\n    " + REVERSE_PROXY)
        ),
        {"body-limit", "cors-errors"},
    ),
    "long-poll": (
        within("transport http {", "response_header_timeout 1s", "}"),
        {"long-poll"},
    ),
    "forwarded-for": (within("header_up -X-Forwarded-For"), {"forwarded-for"}),
    "forwarded-proto": (within("header_up -X-Forwarded-Proto"), {"forwarded-proto"}),
    "authorization": (within("header_up -Authorization"), {"authorization"}),
    "well-known-client-cors": (
        proxies.replacing(
            ("\theader /.well-known/matrix/client Access-Control-Allow-Origin *\n", "")
        ),
        {"well-known-client-cors"},
    ),
    "well-known-client-type": (
        proxies.replacing(
            ("client Content-Type application/json", "client Content-Type text/html")
        ),
        {"well-known-client-type"},
    ),
    "well-known-server": (
        proxies.replacing(
            ("\trespond /.well-known/matrix/server", "\trespond /.well-known/matrix/servers")
        ),
        {"well-known-server", "federation"},
    ),
}
"""By the id: how Caddy is spoilt, and all that is found."""


@pytest.mark.parametrize("id_", CADDY)
def test_what_is_wrong_with_caddy_is_found_and_nothing_else(clinic: Clinic, id_: str) -> None:
    edit, expected = CADDY[id_]

    found = clinic.examine(proxies.caddy, edit)

    assert bad(found) == expected, shown(found)


def test_a_server_that_does_not_run_is_found_as_such(clinic: Clinic) -> None:
    backend = f"127.0.0.1:{server.free_port()}"
    config = dataclasses.replace(clinic.config, bind=(backend,))

    found = clinic.examine(proxies.nginx, backend=backend, config=config)

    assert bad(found) == {"server", "backend", "federation-api"}, shown(found)


def test_a_proxy_that_does_not_run_is_found(clinic: Clinic) -> None:
    nowhere = ("127.0.0.1", server.free_port())

    found = clinic.run(dict.fromkeys(("matrix.example.org:443", "example.org:443"), nowhere))

    assert bad(found) == {"reachable", "well-known-client", "well-known-server", "federation"}, (
        shown(found)
    )
