"""Comparison of settings."""

from __future__ import annotations

import re
from typing import Any


def first_difference(old: Any, new: Any, where: str = "") -> str | None:
    """Return the first setting in which two trees of JSON values differ, in words, or None if they are equal.

    The order is that of ``new``. A digest, such as that of an encoder's weights, is shortened to its first 8 digits.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(k for k in old if k not in new)]:
            place = f"{where}.{key}" if where else str(key)
            if (key in old) != (key in new):
                return f"{place} is set only {'there' if key in old else 'here'}"
            if found := first_difference(old[key], new[key], place):
                return found
        return None
    return None if old == new else f"{where} is {_shown(old)} there and {_shown(new)} here"


def _shown(value: Any) -> str:
    return f"{value[:8]}..." if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else repr(value)
