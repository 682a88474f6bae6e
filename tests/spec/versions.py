"""A test for many room versions, as one test: thousands of tests of some microseconds each would
take pytest half a minute."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable

from homebody.spec.room_versions import RoomVersion

Test = Callable[..., None]


def of_each(versions: Iterable[RoomVersion]) -> Callable[[Test], Test]:
    """`@of_each(ALL)`: the test takes its argument `version` from here, one after the other."""

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def in_each(*args: object, **kwargs: object) -> None:
            for version in versions:
                try:
                    test(*args, version=version, **kwargs)
                except BaseException as error:
                    error.add_note(f"in room version {version.name}")
                    raise

        signature = inspect.signature(test)
        rest = [it for name, it in signature.parameters.items() if name != "version"]
        in_each.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]  # what pytest reads
        return in_each

    return decorate
