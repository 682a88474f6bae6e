"""The counts of keys of bridges' devices, in their transactions (MSC3202)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from homebody.core.encryption import one_time_keys
from homebody.spec.events import Json
from homebody.storage.database import Reader

COUNTS: Final = "org.matrix.msc3202.device_one_time_keys_count"
UNUSED_FALLBACKS: Final = "org.matrix.msc3202.device_unused_fallback_key_types"


def sections(tx: Reader, devices: Iterable[tuple[str, str]]) -> Json:
    """Return the keys of these devices, (user_id, device_id), as they are now."""
    counts: dict[str, Json] = {}
    fallbacks: dict[str, Json] = {}
    for user_id, device_id in sorted(devices):
        keys = one_time_keys.counts(tx, user_id, device_id)
        counts.setdefault(user_id, {})[device_id] = keys.one_time_keys
        fallbacks.setdefault(user_id, {})[device_id] = keys.unused_fallback_types
    return {COUNTS: counts, UNUSED_FALLBACKS: fallbacks} if counts else {}
