"""Pace of checkpoints, and what a signal leaves behind."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from bertft.errors import BertftError
from bertft.similarity.compare import checkpoints
from bertft.similarity.compare.checkpoints import Pace, checkpointed
from bertft.similarity.compare.workers import Team


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


@pytest.mark.parametrize("late", [False, True], ids=["in a batch", "at the end"])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_once_and_names_a_stopped_process_of_several(number, size, kept, late):
    saved, asked, seen = [], [], []
    checkpoint = SimpleNamespace(save=lambda *state: saved.append(state), folder="kept") if kept else None
    run = SimpleNamespace(team=Team(0, size), state=lambda: ("tensors", "record"), comparison=None)

    def batches():
        yield 1
        if late:
            asked.append(number)

    stopped = number == signal.SIGTERM and size == 2 and kept
    with pytest.raises(BertftError if stopped else KeyboardInterrupt, match="kept in kept; rerun" if stopped else None):
        for batch in checkpointed(run, batches(), checkpoint, 3600.0, asked):
            seen.append(batch)
            if not late:
                asked.append(number)
    assert seen == [1] and saved == [("tensors", "record")] * kept
