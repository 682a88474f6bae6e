"""What each finding means for users, and the lines of nginx, Caddy or homebody.toml to change.

The order is that of importance among findings of one severity. docs/doctor.md explains each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

NGINX, CADDY, TOML, SHELL = "nginx", "Caddy", "homebody.toml", "shell"


@dataclass(frozen=True, slots=True)
class Advice:
    """What to say about a finding. Names such as @host@ are replaced."""

    meaning: str
    change: Mapping[str, str] = field(default_factory=dict)


_CORS_ALWAYS = "add_header Access-Control-Allow-Origin * always;"
_PROXY_PASS = {
    NGINX: "proxy_pass http://@bind@;    # no path and no slash after the port",
    CADDY: "reverse_proxy @bind@         # no rewrite, no uri, no handle_path around it",
}
_CORS = {
    NGINX: (
        "# remove add_header and proxy_hide_header for Access-Control-… from the location:\n"
        "# homebody sends these headers itself, on errors and preflight requests as well\n"
        "proxy_pass http://@bind@;"
    ),
    CADDY: (
        "# remove header lines for Access-Control-…: homebody sends these headers itself\n"
        "reverse_proxy @bind@"
    ),
}
_CERTIFICATE = {
    NGINX: (
        "ssl_certificate     /etc/letsencrypt/live/@host@/fullchain.pem;\n"
        "ssl_certificate_key /etc/letsencrypt/live/@host@/privkey.pem;"
    ),
    CADDY: "@host@ {    # without a tls line: Caddy gets and renews the certificate itself",
}
_WELL_KNOWN_CLIENT = {
    NGINX: (
        "location = /.well-known/matrix/client {\n"
        "    default_type application/json;\n"
        "    add_header Access-Control-Allow-Origin *;\n"
        """    return 200 '{"m.homeserver": {"base_url": "@url@"}}';\n"""
        "}"
    ),
    CADDY: (
        "header /.well-known/matrix/client Content-Type application/json\n"
        "header /.well-known/matrix/client Access-Control-Allow-Origin *\n"
        "respond /.well-known/matrix/client"
        """ `{"m.homeserver": {"base_url": "@url@"}}` 200"""
    ),
}
_WELL_KNOWN_SERVER = {
    NGINX: (
        "location = /.well-known/matrix/server {\n"
        "    default_type application/json;\n"
        """    return 200 '{"m.server": "@m.server@"}';\n"""
        "}"
    ),
    CADDY: (
        "header /.well-known/matrix/server Content-Type application/json\n"
        """respond /.well-known/matrix/server `{"m.server": "@m.server@"}` 200"""
    ),
}
_FORWARDED_FOR = {
    NGINX: "proxy_set_header X-Forwarded-For $remote_addr;",
    CADDY: "reverse_proxy @bind@    # without header_up lines: Caddy adds X-Forwarded-For itself",
}

ADVICE: Final[Mapping[str, Advice]] = {
    # What stops everything
    "server": Advice("Nobody can use the server.", {SHELL: "systemctl start homebody"}),
    "database": Advice(
        "The server does not start, or loses messages. Stop it and restore the latest backup.",
        {SHELL: "homebody restore BACKUP"},
    ),
    "migrations": Advice(
        "The database is not that of this version of homebody.",
        {SHELL: "systemctl restart homebody    # it migrates the database when it starts"},
    ),
    "signing-key": Advice(
        "Other servers know this one by its signing key; without it, they refuse all it sends.",
        {SHELL: "homebody restore BACKUP    # or copy signing.key from a backup"},
    ),
    "file-owner": Advice(
        "The server can't write this file. Mostly a command was run by root.",
        {SHELL: "chown @owner@ @path@"},
    ),
    "disk-space": Advice(
        "When the disk is full, messages and uploads are refused.",
        {SHELL: "df -h @data_dir@"},
    ),
    # From the name to the server
    "dns": Advice("Clients and servers don't find this name: add an A or AAAA record for it."),
    "dns-address": Advice(
        "Clients that are sent to this address wait or fail, while others get through. Let the"
        " proxy listen there (IPv6 as well), or remove the record.",
        {NGINX: "listen 443 ssl;\nlisten [::]:443 ssl;"},
    ),
    "dns-private": Advice("The server can be reached from its own network only."),
    "reachable": Advice(
        "Nobody can use the server: nothing listens there, or a firewall drops the connections.",
        {NGINX: "listen 443 ssl;\nlisten [::]:443 ssl;", CADDY: "@host@ {"},
    ),
    "tls": Advice("Clients refuse to connect.", _CERTIFICATE),
    "tls-expired": Advice(
        "Clients refuse to connect until the certificate is renewed.",
        {
            **_CERTIFICATE,
            SHELL: "certbot renew && systemctl reload nginx",
        },
    ),
    "tls-name": Advice(
        "Clients refuse to connect: the certificate is for other names.", _CERTIFICATE
    ),
    "tls-chain": Advice(
        "Some clients connect and others don't: they lack the intermediate certificate.",
        _CERTIFICATE,
    ),
    "tls-authority": Advice(
        "Clients refuse to connect, except those on which this authority was installed.",
        _CERTIFICATE,
    ),
    "tls-expires": Advice(
        "If it is not renewed, clients will refuse to connect then.",
        {
            NGINX: "# renew it, then: nginx -s reload\n" + _CERTIFICATE[NGINX],
            CADDY: "# see its log: why can't it renew?   journalctl -u caddy",
        },
    ),
    "https": Advice(
        "Passwords and messages can be read on the way, and most clients refuse it.",
        {TOML: 'public_url = "https://@host@"'},
    ),
    "backend": Advice("Nobody can use the server: the proxy does not reach it.", _PROXY_PASS),
    "other-server": Advice(
        "What answers at the public URL is not this homebody, so users can't use it.",
        {**_PROXY_PASS, TOML: 'public_url = "https://the URL at which clients reach it"'},
    ),
    "redirect": Advice(
        "Clients don't follow redirects of the API.",
        {
            NGINX: "# remove return 301 and rewrite from this location\nproxy_pass http://@bind@;",
            CADDY: "# remove redir from this site\nreverse_proxy @bind@",
        },
    ),
    "versions": Advice("Clients say that this is not a Matrix server.", _PROXY_PASS),
    "login-flows": Advice("Users can't log in.", _PROXY_PASS),
    "oauth": Advice(
        "Element X and other clients can't sign users up or in: the proxy keeps /_homebody/.",
        _PROXY_PASS,
    ),
    "authorization": Advice(
        "Everybody is logged out: the proxy drops access tokens.",
        {
            NGINX: '# remove this line:\n# proxy_set_header Authorization "";',
            CADDY: "# remove this line:\n# header_up -Authorization",
        },
    ),
    # What web clients need
    "cors": Advice("Web clients such as Element Web can't use this server.", _CORS),
    "cors-twice": Advice(
        "Web clients can't use this server: browsers refuse a header that is there twice.", _CORS
    ),
    "cors-errors": Advice(
        "Web clients show a connection error instead of the reason, and don't log in again when"
        " they should.",
        {
            NGINX: f"# homebody sends it on every response; for errors of nginx itself:\n"
            f"{_CORS_ALWAYS}",
            CADDY: "# remove header lines for Access-Control-…\nreverse_proxy @bind@",
        },
    ),
    "cors-preflight": Advice(
        "Web clients can't use this server.",
        {
            NGINX: "# let OPTIONS through: no if, no limit_except around\nproxy_pass http://@bind@;",
            CADDY: "# let OPTIONS through: no @method matcher around\nreverse_proxy @bind@",
        },
    ),
    "errors-replaced": Advice(
        "Clients don't see why something failed, and do the wrong thing: the proxy replaces the"
        " server's errors by pages of its own.",
        {
            NGINX: "proxy_intercept_errors off;",
            CADDY: "# remove handle_response from\nreverse_proxy @bind@",
        },
    ),
    # Paths
    "path-decoded": Advice(
        "Room aliases, user IDs and state keys with special characters don't work.", _PROXY_PASS
    ),
    "path-slashes": Advice(
        "State with an empty key can't be read or set.",
        {
            NGINX: "proxy_pass http://@bind@;    # no path after the port, no rewrite before it",
            CADDY: "# no uri or path_regexp replacement\nreverse_proxy @bind@",
        },
    ),
    "path-trailing-slash": Advice(
        "Some requests of clients get an error.",
        {
            NGINX: "# remove rewrite and return that change the end of the path\n"
            "proxy_pass http://@bind@;",
            CADDY: "# remove redir and uri that change the end of the path\nreverse_proxy @bind@",
        },
    ),
    # Limits of the proxy
    "body-limit": Advice(
        "Larger photos and videos can't be sent.",
        {
            NGINX: "client_max_body_size @max_mib@m;",
            CADDY: "request_body {\n    max_size @max_mib@MiB\n}",
        },
    ),
    "long-poll": Advice(
        "Messages come late, and clients show that they are offline: they wait for news with"
        " requests of 30 seconds, which the proxy ends too early.",
        {
            NGINX: "proxy_read_timeout 650s;",
            CADDY: "# remove read_timeout and response_header_timeout from\nreverse_proxy @bind@",
        },
    ),
    "buffering": Advice(
        "Long responses and downloads begin late, as the proxy keeps them until they are complete.",
        {NGINX: "proxy_buffering off;", CADDY: "reverse_proxy @bind@ {\n    flush_interval -1\n}"},
    ),
    "http-version": Advice(
        "Each request needs a new connection, and responses of unknown length can be cut off"
        " unnoticed.",
        {
            NGINX: 'proxy_http_version 1.1;\nproxy_set_header Connection "";',
            CADDY: "reverse_proxy @bind@ {\n    transport http {\n        versions 1.1\n    }\n}",
        },
    ),
    # Addresses of clients
    "forwarded-for": Advice(
        "All users seem to have the same address: one user who guesses passwords locks out"
        " all, and fail2ban would block the proxy.",
        _FORWARDED_FOR,
    ),
    "forwarded-for-untrusted": Advice(
        "All users seem to have the proxy's address: one user who guesses passwords locks out all.",
        {TOML: "trusted_proxies = [@proxies@]"},
    ),
    "forwarded-for-forged": Advice(
        "Anybody can pretend to have another address, and get around rate limits and fail2ban.",
        _FORWARDED_FOR,
    ),
    "forwarded-proto": Advice(
        "The server takes requests for unencrypted ones.",
        {
            NGINX: "proxy_set_header X-Forwarded-Proto $scheme;",
            CADDY: "reverse_proxy @bind@    # without header_up: it adds X-Forwarded-Proto itself",
        },
    ),
    "metrics-public": Advice(
        "Anybody can read the server's statistics.",
        {
            NGINX: "location = /metrics {\n    return 404;\n}",
            CADDY: "respond /metrics 404",
            TOML: "metrics_without_token = false",
        },
    ),
    # Well-known files
    "well-known-client": Advice(
        "Users who enter only @server_name@ in their client can't log in.", _WELL_KNOWN_CLIENT
    ),
    "well-known-client-redirect": Advice(
        "Users who enter only @server_name@ in their client can't log in.", _WELL_KNOWN_CLIENT
    ),
    "well-known-client-target": Advice(
        "Users who enter only @server_name@ in their client get to an address that does not"
        " answer.",
        _WELL_KNOWN_CLIENT,
    ),
    "well-known-client-cors": Advice(
        "Users who enter only @server_name@ in a web client can't log in.", _WELL_KNOWN_CLIENT
    ),
    "well-known-client-type": Advice(
        "Some clients don't read the file: its type must be application/json.", _WELL_KNOWN_CLIENT
    ),
    "well-known-server": Advice(
        "Other servers don't find this one, so their users can't write to yours.",
        _WELL_KNOWN_SERVER,
    ),
    "well-known-server-redirect": Advice("Other servers don't find this one.", _WELL_KNOWN_SERVER),
    "well-known-server-type": Advice("Some servers don't read the file.", _WELL_KNOWN_SERVER),
    # Federation
    "federation": Advice(
        "Other servers can't reach this one: messages and invites of their users don't arrive.",
        {
            **_WELL_KNOWN_SERVER,
            SHELL: "# or open port 8448 in the firewall, and let the proxy listen on it",
        },
    ),
    "federation-tls": Advice(
        "Other servers refuse to connect: the certificate has to be for @tls_name@.",
        {
            NGINX: "server_name @tls_name@;\n"
            "ssl_certificate     /etc/letsencrypt/live/@tls_name@/fullchain.pem;\n"
            "ssl_certificate_key /etc/letsencrypt/live/@tls_name@/privkey.pem;",
            CADDY: "@tls_name@ {",
        },
    ),
    "federation-api": Advice(
        "Other servers reach something else, so messages of their users don't arrive.",
        {
            NGINX: "location /_matrix {\n    proxy_pass http://@bind@;\n}",
            CADDY: "reverse_proxy /_matrix/* @bind@",
        },
    ),
    "federation-key": Advice(
        "Other servers refuse what this one sends: another server answers in its name.",
        _WELL_KNOWN_SERVER,
    ),
    # This machine
    "clock": Advice(
        "Messages get wrong times, and other servers refuse requests with keys that seem expired.",
        {SHELL: "timedatectl set-ntp true"},
    ),
    "file-modes": Advice(
        "Other users of this machine can read messages or secrets.",
        {SHELL: "chmod @mode@ @path@"},
    ),
    "backup": Advice(
        "If the disk fails, all accounts, rooms and the signing key are lost.",
        {SHELL: "homebody backup /mnt/disk/homebody.tar"},
    ),
    # Settings
    "open-registration": Advice(
        "Spammers will find the server within days and register thousands of accounts.",
        {TOML: 'registration = "token"'},
    ),
    "rate-limits": Advice(
        "Anybody can try passwords as fast as the machine allows.", {TOML: "rate_limits = true"}
    ),
    "password-hashing": Advice(
        "A stolen database would reveal all passwords.", {TOML: 'password_hashing = "argon2id"'}
    ),
    "trusted-proxies": Advice(
        "Anybody can pretend to have another address, and get around rate limits and fail2ban.",
        {TOML: 'trusted_proxies = ["127.0.0.1"]'},
    ),
    "listener-public": Advice(
        "Without encryption and around the proxy, others on the network can use the server and"
        " read what is sent.",
        {TOML: 'bind = "127.0.0.1:@port@"'},
    ),
    "media-without-token": Advice(
        "Anybody who knows the address of a file can download it.",
        {TOML: "media_without_token = false"},
    ),
    "shared-secret": Advice(
        "A short secret can be guessed, and its holder can create administrators.",
        {SHELL: "openssl rand -hex 32    # for registration_shared_secret"},
    ),
    "outside-allowed": Advice(
        "Users can have this server call all machines of your network.",
        {TOML: "outside_allowed = []    # or only the hosts that are needed"},
    ),
    "debug-log": Advice(
        "The log grows quickly, and says more about users than it has to.",
        {TOML: 'log_level = "INFO"'},
    ),
    # Other services
    "smtp": Advice(
        "No mail is sent: users can't reset passwords or add e-mail addresses.",
        {TOML: '[smtp]\nhost = "…"\nport = 587\ntls = "starttls"'},
    ),
    "smtp-plain": Advice(
        "Mails and the password of the mail server are sent without encryption.",
        {TOML: '[smtp]\ntls = "starttls"'},
    ),
    "turn": Advice(
        "Calls fail for users behind firewalls.",
        {TOML: 'turn_uris = ["turn:turn.@server_name@?transport=udp"]\nturn_shared_secret = "…"'},
    ),
    "push-gateway": Advice("Users with these apps get no notifications."),
    "login-provider": Advice(
        "Users can't log in with their accounts there.",
        {TOML: '[[oidc_providers]]\nissuer = "…"    # exactly as the provider calls itself'},
    ),
    "livekit": Advice("Group calls fail."),
    "livekit-announced": Advice(
        "Clients that read the file find no group calls; a proxy with a file of its own has to add"
        " the service to it, or to pass /.well-known/matrix/client on to homebody."
    ),
    "doctor": Advice("The check itself failed, so nothing is known about this."),
}
"""By the id of the finding. An id may also be that of findings that all is well."""
