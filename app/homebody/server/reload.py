"""Reload the settings while the server runs, on SIGHUP.

Most settings are read from `server.config` at each use, and follow at once. What is built from a
setting at the start, such as the database or the client for other servers, needs a restart, and so
does every setting that is not listed here. A file with an error changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from homebody.config.settings import Config, ConfigError, load
from homebody.runtime import logs

if TYPE_CHECKING:
    from homebody.context import Homeserver

LOG = logging.getLogger(__name__)

_RATE_LIMITS: Final = frozenset(
    it.name for it in fields(Config) if it.name == "rate_limits" or it.name.startswith("rc_")
)
_LOG: Final = frozenset({"log_level", "log_format"})
_FEDERATION: Final = frozenset({"federation_allow_servers", "federation_deny_servers"})
RELOADED: Final = frozenset(
    {
        *_RATE_LIMITS,
        *_LOG,
        *_FEDERATION,
        "allow_guests",
        "default_room_version",
        "delayed_events",
        "identity_server",
        "livekit_service_url",
        "max_upload_bytes",
        "media_retention",
        "media_without_token",
        "metrics_token",
        "metrics_without_token",
        "min_password_length",
        "partial_joins",
        "policy_server_public_key",
        "public_url",
        "push",
        "quotas",
        "registration",
        "registration_open_to_all",
        "registration_shared_secret",
        "retention",
        "server_notices_user",
        "smtp",
        "sso_trusted_clients",
        "support_contacts",
        "support_page",
        "terms",
        "token_lifetime_ms",
        "trusted_proxies",
        "turn_shared_secret",
        "turn_uris",
        "turn_user_lifetime_ms",
        "url_preview_blacklist",
        "url_previews",
        "well_known_server",
    }
)
"""The settings that may change while the server runs: nothing keeps what it made of them."""


def reload(homeserver: Homeserver, environ: Mapping[str, str]) -> None:
    """Read the settings again, take over what may change, and log the outcome."""
    try:
        config = load(None, environ)
    except ConfigError as error:
        LOG.error("the settings stay as they were: %s", error)  # noqa: TRY400 - the message is enough
        return
    before = homeserver.server.config
    changed = {name for name in _names() if getattr(config, name) != getattr(before, name)}
    follow, wait = changed & RELOADED, changed - RELOADED
    now = replace(before, **_values(config, follow))
    homeserver.server.config = now
    homeserver.rate_limits.reload(now)
    if follow & _FEDERATION:
        homeserver.federation.reload(now)
    if follow & _LOG:
        logs.configure(now.log_level, now.log_format)
    if wait:
        LOG.warning("the server has to be restarted for changes of %s", _listed(wait))
    LOG.info("reloaded the settings; changed: %s", _listed(follow) or "none")


def _names() -> list[str]:
    return [it.name for it in fields(Config)]


def _values(config: Config, names: set[str]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names}


def _listed(names: set[str]) -> str:
    """Return the keys of settings; never their values, which may be secret."""
    return ", ".join(sorted(name.removesuffix("_ms") for name in names))
