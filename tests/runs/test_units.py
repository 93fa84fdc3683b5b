"""Amounts as text."""

from __future__ import annotations

from bertft.runs.units import clock, duration, short, size


def test_counts_have_three_digits():
    assert [short(n) for n in (3, 3.25, 250.4, 12_345, 7.1e6)] == ["3", "3.2", "250", "12.3k", "7.1M"]


def test_times_to_the_second_and_in_one_unit():
    assert [clock(s) for s in (5.4, 65, 3700)] == ["5 s", "1 min 05 s", "1 h 01 min"]
    assert [duration(s) for s in (5.4, 89, 90, 3700, 7200)] == ["5 s", "89 s", "1.5 min", "61.7 min", "2.0 h"]


def test_bytes_are_decimal():
    assert [size(n) for n in (3_000_000, 2_500_000_000)] == ["3 MB", "2.5 GB"]
