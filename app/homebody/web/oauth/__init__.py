"""The OAuth 2.0 API: endpoints for clients, and the pages on which users let them in.

Spec: client-server-api#oauth-20-api
"""

from __future__ import annotations

from typing import Final

from homebody.core.oauth import metadata

PREFIX: Final = metadata.PREFIX.rstrip("/")
