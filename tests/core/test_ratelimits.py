"""Rate limits: the buckets by themselves, and each of them met over HTTP."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from homebody import errors
from homebody.config import settings
from homebody.core import ratelimits
from homebody.core.ratelimits import RateLimits
from homebody.errors import MatrixError


class Clock:
    """A clock that goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


MakeLimits = Callable[..., RateLimits]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits(clock: Clock) -> MakeLimits:
    """Limits of which rc_message is two a second, five at once, unless the test says otherwise."""

    def make(**options: str) -> RateLimits:
        usual = {"rc_message.per_second": "2", "rc_message.burst_count": "5"}
        return RateLimits(settings.load(None, {}, {**usual, **options}), clock)

    return make


def taken(limits: RateLimits, key: str = "alice", most: int = 100) -> int:
    """How many times in a row the limit lets pass."""
    for count in range(most):
        try:
            limits.check("rc_message", key)
        except MatrixError:
            return count
    return most


def refusal(limits: RateLimits, key: str = "alice", cost: int = 1) -> int:
    """After how many milliseconds a refused request may come again."""
    with pytest.raises(MatrixError) as refused:
        limits.check("rc_message", key, cost)
    assert (refused.value.status, refused.value.errcode) == (429, "M_LIMIT_EXCEEDED")
    return int(refused.value.fields["retry_after_ms"])


def test_a_rested_bucket_lets_a_burst_pass_and_no_more(limits: MakeLimits) -> None:
    assert taken(limits()) == 5


def test_a_bucket_fills_again_at_its_rate_up_to_the_burst(limits: MakeLimits, clock: Clock) -> None:
    some = limits()
    taken(some)

    clock.now += 1
    after_a_second = taken(some)
    clock.now += 3600
    after_an_hour = taken(some)

    assert (after_a_second, after_an_hour) == (2, 5)


def test_who_waits_as_long_as_told_is_let_pass(limits: MakeLimits, clock: Clock) -> None:
    some = limits()
    taken(some)

    clock.now += 0.1
    wait_ms = refusal(some)
    clock.now += wait_ms / 1000

    assert 400 <= wait_ms <= 402
    assert taken(some) == 1


def test_a_refused_request_takes_nothing(limits: MakeLimits, clock: Clock) -> None:
    some = limits()
    taken(some)
    for _ in range(1000):
        refusal(some)

    clock.now += 0.5

    assert taken(some) == 1


def test_each_key_has_a_bucket_of_its_own(limits: MakeLimits) -> None:
    some = limits()
    taken(some, "alice")

    assert taken(some, "bob") == 5


def test_what_costs_more_takes_more(limits: MakeLimits) -> None:
    some = limits()

    some.check("rc_message", "alice", 4)

    assert refusal(some, cost=2) == 501
    assert taken(some) == 1


def test_what_costs_more_than_a_bucket_needs_a_full_one(limits: MakeLimits, clock: Clock) -> None:
    some = limits()

    some.check("rc_message", "alice", 50)
    wait_ms = refusal(some, cost=50)
    clock.now += wait_ms / 1000
    some.check("rc_message", "alice", 50)

    assert wait_ms == 2501


def test_what_succeeds_or_fails_otherwise_costs_nothing(limits: MakeLimits) -> None:
    some = limits()
    for _ in range(20):
        with some.check_failures("rc_message", "alice"):
            pass
        with pytest.raises(MatrixError), some.check_failures("rc_message", "alice"):
            raise errors.user_locked()

    assert taken(some) == 5


def test_what_is_forbidden_costs(limits: MakeLimits) -> None:
    some = limits()
    for _ in range(3):
        with pytest.raises(MatrixError), some.check_failures("rc_message", "alice"):
            raise errors.forbidden("Wrong password")

    assert taken(some) == 2


def test_guesses_that_come_at_once_are_all_counted(limits: MakeLimits) -> None:
    some = limits()

    under_way = [some.check_failures("rc_message", "alice") for _ in range(5)]
    for guess in under_way:
        guess.__enter__()

    refusal(some)


def test_nothing_is_limited_when_limits_are_off(limits: MakeLimits) -> None:
    some = limits(rate_limits="false")

    assert taken(some) == 100
    with pytest.raises(MatrixError), some.check_failures("rc_message", "alice"):
        raise errors.forbidden("Wrong password")


def test_the_number_of_buckets_and_the_size_of_their_keys_are_bounded(
    limits: MakeLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ratelimits, "MAX_BUCKETS", 3)
    some = limits()
    taken(some, "x" * 1_000_000)

    for name in ("a", "b", "x" * 1_000_000, "c", "d"):
        taken(some, name, most=1)

    assert taken(some, "x" * 255) == 0  # asked for recently, so kept
    assert taken(some, "a") == 5


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", ""),
    ],
)
def test_an_ipv6_household_is_one_address(address: str, network: str) -> None:
    assert ratelimits.network_of(address) == network


def test_an_unknown_limit_is_a_fault(limits: MakeLimits) -> None:
    with pytest.raises(KeyError):
        limits(rate_limits="false").check("rc_massage", "alice")
