"""Ctrl-C and SIGTERM in a stream: the sums are saved, and the run resumes to the same rows."""

from __future__ import annotations

import os
import signal

import pytest

from bertft.data import synthetic
from bertft.models.encoder import Encoder
from bertft.runs.checkpoint import Checkpoint
from bertft.similarity.compare import checkpoints, stream
from bertft.similarity.compare.encoders import compare_stream
from bertft.similarity.compare.plan import Plan

TEXTS = [" ".join(s.words) for s in synthetic.sentences(60, seed=3)]
OPTIONS = {"batch_tokens": 256, "data": "toy"}
PLAN = Plan(measures=("rsa", "cka"))


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch):
    monkeypatch.setattr(stream, "BUFFER", 16)


@pytest.fixture(scope="module")
def encoders(tiny_model, disturbed):
    return Encoder.from_pretrained(str(tiny_model)), disturbed(0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_saves_first(encoders, tmp_path, number):
    base, tuned = encoders

    def texts():
        yield from TEXTS[:20]
        os.kill(os.getpid(), number)
        yield from TEXTS[20:]

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        compare_stream(base, {"t": tuned}, texts(), PLAN, checkpoint=Checkpoint(tmp_path, {}), **OPTIONS)
    assert signal.getsignal(number) is before
    _, record = Checkpoint(tmp_path, {}).load()
    assert (record["buffer"], record["batch"]) == (0, 1)  # the next buffer is read while the first is encoded
    again = compare_stream(base, {"t": tuned}, TEXTS, PLAN, checkpoint=Checkpoint(tmp_path, {}), **OPTIONS)
    assert again == compare_stream(base, {"t": tuned}, TEXTS, PLAN, **OPTIONS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_at_the_end_of_the_text_saves_too(encoders, tmp_path, number, monkeypatch):
    base, tuned = encoders
    batches = checkpoints.checkpointed

    def until_the_end(run, given, *others):
        def last():
            yield from given
            signal.raise_signal(number)

        return batches(run, last(), *others)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("bertft.similarity.compare.encoders.checkpointed", until_the_end)
        compare_stream(base, {"t": tuned}, TEXTS, PLAN, checkpoint=Checkpoint(tmp_path, {}), **OPTIONS)
    seen = []
    monkeypatch.setattr(checkpoints.Pace, "due", lambda *_: seen.append(1))
    again = compare_stream(base, {"t": tuned}, TEXTS, PLAN, checkpoint=Checkpoint(tmp_path, {}), **OPTIONS)
    assert not seen  # no batch is left
    assert again == compare_stream(base, {"t": tuned}, TEXTS, PLAN, **OPTIONS)


def test_a_signal_that_nobody_looks_for_interrupts():
    with pytest.raises(KeyboardInterrupt), checkpoints.asked_to_stop() as asked:
        signal.raise_signal(signal.SIGINT)
        assert asked == [signal.SIGINT]
