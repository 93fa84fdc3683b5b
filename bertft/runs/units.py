"""Amounts of time, memory and work as text."""

from __future__ import annotations


def short(number: float) -> str:
    """Return a count with three significant digits: ``250``, ``12.3k``, ``7.1M``."""
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if abs(number) >= size:
            return f"{number / (1e3 if letter == 'k' else 1e6):.3g}{letter}"
    return f"{number:.0f}" if float(number).is_integer() or number >= 100 else f"{number:.2g}"


def clock(seconds: float) -> str:
    """Return a time to the second or minute: ``5 s``, ``1 min 05 s``, ``1 h 01 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


def duration(seconds: float) -> str:
    """Return a time in one unit, for sentences: ``75 s``, ``2.8 min``, ``2.0 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Return a number of bytes in decimal MB or GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
