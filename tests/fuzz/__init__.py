"""Values that nobody thought of, given to everything that reads what strangers send.

The same examples in every run of `make test`; `make fuzz` makes others each time, many more of
them. What was found stays, as an `@example` of its test.

`requests.json` has one good request for each operation. Those of the specification's are the
examples of its OpenAPI document (release v1.19, Copyright The Matrix.org Foundation C.I.C., Apache
License 2.0), with ids that mean something here.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

USUAL = 100
"""What hypothesis makes of a test when nothing else is said, and the profile of `make test` too."""
LARGE = settings.default.max_examples // USUAL if settings.default else 1
"""How many times as much as in `make test`: 1 there."""


def examples(number: int) -> settings:
    """So many examples in `make test`, and more in larger profiles."""
    return settings(
        max_examples=number * LARGE,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.function_scoped_fixture,  # one server answers all examples
        ],
    )
