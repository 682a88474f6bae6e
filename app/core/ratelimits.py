"""How often somebody may do something: a bucket of tokens for each user or address.

Spec: client-server-api#rate-limiting
"""

from __future__ import annotations

from app.config import Config


class RateLimits:
    """The buckets of this process."""

    def __init__(self, config: Config) -> None:
        self.config = config
