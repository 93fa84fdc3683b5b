"""Agreement of two encoders on moved words.

Values, unmoved layers and the width of the interval.
"""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from bertft.data import sources
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.runs.intervals import correlation_interval
from bertft.similarity import words_that_moved
from bertft.similarity.words.agreement import words_agree


def test_the_correlation_is_numpys_and_its_interval_treats_the_sentence_as_the_unit():
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(200).repeat_interleave(5)
    shared = torch.randn(200, 2, generator=generator, dtype=torch.float64)
    shared[:, 1] += shared[:, 0]
    x, y = (shared[groups] + 0.01 * torch.randn(1000, 2, generator=generator, dtype=torch.float64)).unbind(1)
    value, low, high = correlation_interval(x, y, groups, 2000, 1)
    assert value == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)
    # words of a sentence are one draw: the standard error is that of 200 draws, not of 1,000
    expected = 2 * 1.96 * (1 - value**2) / np.sqrt(200)
    assert 0.8 * expected < high - low < 1.2 * expected
    alone = correlation_interval(x, y, torch.arange(1000), 2000, 1)
    assert alone[2] - alone[1] < 0.6 * (high - low)
    assert correlation_interval(x, y, groups, 2000, 1) == (value, low, high)


def test_unmoved_layers_are_left_out_and_an_encoder_agrees_with_itself(tiny_model):
    base = Encoder.from_pretrained(str(tiny_model))
    sentences = sources.load("dep", "builtin:synthetic?size=12")

    def changed(seed: int) -> Encoder:
        model = copy.deepcopy(base.model)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            for parameter in model.encoder.layer[1].parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        return Encoder(model, base.tokenizer, f"seed {seed}")

    one, other = changed(1), changed(2)
    itself = words_agree(base, one, copy.deepcopy(one), sentences)
    assert [a.layer for a in itself] == [2, 3]
    assert all(a.value == pytest.approx(1) and a.low == pytest.approx(1) for a in itself)
    found = words_agree(base, one, other, sentences)
    assert all(-1 <= a.low < a.value < a.high <= 1 and a.n == sum(len(s.words) for s in sentences) for a in found)
    swapped = words_agree(base, other, one, sentences)
    assert [a.value for a in found] == pytest.approx([a.value for a in swapped])
    # if each word is its own class, the means are those of the words
    numbered = []
    for i, s in enumerate(sentences):
        numbered.append(dataclasses.replace(s, upos=tuple(f"{i:02}-{j:02}" for j in range(len(s.words)))))
    both = words_that_moved(base, {"one": one, "other": other}, numbered)
    values = {name: {m.label: m.value for m in moved.by["upos"] if m.layer == 3} for name, moved in both.items()}
    labels = sorted(values["one"])
    expected = np.corrcoef([values["one"][k] for k in labels], [values["other"][k] for k in labels])[0, 1]
    assert found[-1].value == pytest.approx(expected, abs=1e-12)


def test_a_sentence_longer_than_the_window_is_cut(tiny_model):
    base = Encoder.from_pretrained(str(tiny_model))
    sentences = sources.load("dep", "builtin:synthetic?size=12")
    whole = dataclasses.replace(sentences[0], words=tuple(word for s in sentences for word in s.words) * 3)
    tuned = copy.deepcopy(base)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for parameter in tuned.model.encoder.layer[1].parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    found = words_agree(base, tuned, tuned, [whole, *sentences])
    assert all(a.n == len(whole.words) + sum(len(s.words) for s in sentences) for a in found)
    assert [a.layer for a in found] == [2, 3] and all(a.value == pytest.approx(1) for a in found)


def test_one_sentence_has_no_interval(tiny_model):
    base = Encoder.from_pretrained(str(tiny_model))
    with pytest.raises(BertftError, match="at least 2 sentences for an interval, found 1"):
        words_agree(base, base, base, sources.load("dep", "builtin:synthetic?size=1"))
