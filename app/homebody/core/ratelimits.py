"""Rate limits: a token bucket for each user or address.

A bucket holds `burst_count` tokens and refills at `per_second`. It is stored as one number, the
time at which it will be full: each token taken adds the time that its refill takes, and a bucket
that would take longer than a whole refill is empty.

Views check them first: `authentication.rate_limits().check("rc_message", user_id)`.

Spec: client-server-api#rate-limiting
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Final

from homebody import errors
from homebody.config.settings import Config, RateLimit
from homebody.errors import MatrixError
from homebody.storage.caches import Requester

MAX_BUCKETS: Final = 20_000
"""The most buckets of one limit, about 4 MB; beyond it the least recently used are dropped."""
MAX_OVERRIDDEN: Final = 100
"""Different limits of single accounts, each with buckets of its own."""
MAX_KEY: Final = 255
"""Longer keys are cut to this number of characters, as a name may have megabytes."""


class RateLimits:
    """The buckets of this process.

    `clock` returns seconds and never goes backwards.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._without: RateLimits | None = None
        self._overridden: dict[tuple[int, int], RateLimits] = {}
        self._is_on = config.rate_limits
        self._clock = clock
        self._buckets = {name: _Buckets(limit) for name, limit in _limits(config)}

    def reload(self, config: Config) -> None:
        """Follow changed settings. Buckets of a changed limit are full again."""
        before = dict(_limits(self._config))
        for name, limit in _limits(config):
            if limit != before[name]:
                self._buckets[name] = _Buckets(limit)
        self._config, self._is_on = config, config.rate_limits
        self._overridden.clear()

    def of(self, user: Requester) -> RateLimits:
        """Return the rate limits that apply to a user; most application services have none.

        "Whether requests from masqueraded users are rate-limited. The sender is excluded."
        Spec: application-service-api#registration
        """
        if user.message_limit is not None:
            return self.overridden(*user.message_limit)
        if user.service is None:
            return self
        is_limited = user.service.is_rate_limited and user.user_id != user.service.sender
        return self if is_limited else self.without()

    def without(self) -> RateLimits:
        """Return rate limits that allow everything, for users who are exempt."""
        if self._without is None:
            config = replace(self._config, rate_limits=False)
            self._without = RateLimits(config, self._clock)
        return self._without

    def overridden(self, messages_per_second: int, burst_count: int) -> RateLimits:
        """Return the limits of an account with its own limit of events; without a rate, none.

        The account may send as many events as that allows, so it may also write as much.
        """
        if not messages_per_second:
            return self.without()
        key = (messages_per_second, burst_count)
        if key not in self._overridden:
            if len(self._overridden) >= MAX_OVERRIDDEN:  # full buckets are better than more memory
                self._overridden.clear()
            own = RateLimit(float(messages_per_second), max(burst_count, 1))
            writes = self._config.rc_writes
            most = RateLimit(
                max(own.per_second, writes.per_second), max(own.burst_count, writes.burst_count)
            )
            limits = RateLimits(self._config, self._clock)
            limits._buckets = {
                **self._buckets,
                "rc_message": _Buckets(own),
                "rc_writes": _Buckets(most),
            }
            self._overridden[key] = limits
        return self._overridden[key]

    def names(self) -> list[str]:
        """Return the names of all limits."""
        return list(self._buckets)

    def check(self, name: str, key: str, cost: int = 1) -> None:
        """Take `cost` tokens from the bucket of a key; `name` is that of the setting.

        A cost above `burst_count` takes a full bucket.
        Raises M_LIMIT_EXCEEDED, and takes nothing, when there are too few.
        """
        buckets = self._buckets[name]
        if not self._is_on:
            return
        wait = buckets.take(key[:MAX_KEY], cost, self._clock())
        if wait > 0:
            raise errors.limit_exceeded(int(wait * 1000) + 1)

    @contextmanager
    def check_failures(self, name: str, key: str) -> Iterator[None]:
        """Take a token if the block ends with M_FORBIDDEN, for wrong passwords.

        It is taken before the block, so that a thousand parallel guesses don't all find the bucket
        full, and returned after a success.
        """
        self.check(name, key)
        try:
            yield
        except MatrixError as error:
            if error.errcode != "M_FORBIDDEN":
                self._give_back(name, key)
            raise
        self._give_back(name, key)

    def _give_back(self, name: str, key: str) -> None:
        if self._is_on:
            self._buckets[name].give_back(key[:MAX_KEY])


class _Buckets:
    """All buckets of one limit."""

    def __init__(self, limit: RateLimit) -> None:
        self._burst_count = limit.burst_count
        self._seconds_per_token = 1 / limit.per_second
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str, cost: int, now: float) -> float:
        """Take tokens and return 0, or return the seconds until they are available."""
        before = max(self._full_at.get(key, now), now)
        after = before + min(cost, self._burst_count) * self._seconds_per_token
        wait = after - now - self._burst_count * self._seconds_per_token
        is_refused = wait > 1e-6  # not 0: adding up fractions leaves something
        self._full_at[key] = before if is_refused else after
        self._full_at.move_to_end(key)  # a refused one too: it must not be dropped
        if is_refused:
            return wait
        if len(self._full_at) > MAX_BUCKETS:
            self._full_at.popitem(last=False)
        return 0

    def give_back(self, key: str) -> None:
        """Put one token back."""
        if key in self._full_at:
            self._full_at[key] -= self._seconds_per_token


def network_of(address: str) -> str:
    """Return the address to limit; of IPv6 its /64 network, all of which one household has."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address  # a Unix socket
    if isinstance(ip, ipaddress.IPv4Address):
        return address
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))


def _limits(config: object, above: str = "") -> Iterator[tuple[str, RateLimit]]:
    """Yield the rate limits of the configuration by name: "rc_login.address"."""
    if not is_dataclass(config):
        return
    for part in fields(config):
        value = getattr(config, part.name)
        if isinstance(value, RateLimit):
            yield above + part.name, value
        elif is_dataclass(value):
            yield from _limits(value, f"{above}{part.name}.")
