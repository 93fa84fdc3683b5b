"""Pace of checkpoints."""

from __future__ import annotations

import pytest

from bertft.similarity.compare import checkpoints
from bertft.similarity.compare.checkpoints import Pace


class Clock:
    """Time that passes when told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def spent(monkeypatch, price: float, size: float, seconds: float = 600.0, every: float = 60.0) -> list[float]:
    """Return when checkpoints are written in a run whose batches take 0.5 s and whose checkpoints take ``price``."""
    clock = Clock()
    monkeypatch.setattr(checkpoints, "time", clock)
    monkeypatch.setattr(checkpoints, "bytes_of", lambda comparison: size)
    pace, written = Pace(every), []
    while clock.now < 1000 + seconds:
        clock.now += 0.5
        if pace.due(None):
            begun, clock.now = clock.now, clock.now + price
            pace.note(begun)
            written.append(begun - 1000)
    return written


@pytest.mark.parametrize("price", [0.1, 1.0, 3.0, 9.0])
def test_checkpoints_cost_at_most_two_percent_of_ten_minutes(monkeypatch, price):
    written = spent(monkeypatch, price, size=price * checkpoints.RATE)
    assert price * len(written) <= 0.02 * 600 + 0.1
    assert written or price > 12  # what can be afforded is written


def test_a_small_checkpoint_is_written_every_minute(monkeypatch):
    written = spent(monkeypatch, 0.01, size=1e6)
    assert written == pytest.approx([60.0 * k for k in range(1, len(written) + 1)], abs=5) and len(written) >= 9


def test_a_disk_slower_than_assumed_stretches_the_interval(monkeypatch):
    first, second, *_ = spent(monkeypatch, 5.0, size=1e6, seconds=2000)
    assert first == 60 and second == pytest.approx((5 + 5) / 0.02 - 5, abs=1)


def test_every_zero_writes_after_each_batch(monkeypatch):
    assert len(spent(monkeypatch, 9.0, size=9e9, seconds=95, every=0)) == 10
