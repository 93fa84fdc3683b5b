"""Online code of edge probes, with a code that is planted."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from bertft.data.readers.spans import SpanTarget, SpanText
from bertft.errors import BertftError
from bertft.probes.edge import control
from bertft.probes.edge.head import Input
from bertft.probes.edge.targets import EdgeTargets
from bertft.probes.edge.training import Corpus, EdgeTraining
from bertft.runs.artefacts import NOTHING, Unfinished

INPUTS = [Input("layer", 0), Input("layer", 1)]


def planted(texts: int, labels: tuple[tuple[str, ...], ...], monkeypatch):
    """Return a corpus whose blocks are recorded instead of being learnt; a target costs 1 and 2 bits."""
    spans = [SpanText(str(i), ("a",), (SpanTarget((0, 1), None, labels[i % len(labels)]),) * 2) for i in range(texts)]
    targets = EdgeTargets(spans, ["x", "y", "z"])
    vectors = SimpleNamespace(lengths=targets.lengths, layers=2, width=3)
    seen = []

    def train(inputs, past, dev, config, *, criterion, unfinished, device):
        seen.append((criterion, sorted(int(text.id) for text in past.targets.texts)))
        return SimpleNamespace(heads=None)

    def cost(heads, probes, vectors, targets):
        seen[-1] += ([int(text.id) for text in targets.texts],)
        return np.array([1.0, 2.0]) * len(targets)

    monkeypatch.setattr(control, "train_heads", train)
    monkeypatch.setattr(control, "code_bits", cost)
    return Corpus(vectors, targets), seen


def test_blocks_end_at_the_published_shares_of_the_texts(monkeypatch):
    corpus, seen = planted(1000, (("x",), ("y",)), monkeypatch)
    code = control.online_code(INPUTS, corpus, corpus, EdgeTraining(seed=4))
    assert [len(past) for _, past, _ in seen] == [1, 2, 4, 8, 16, 32, 62, 125, 250, 500]
    assert [len(block) for _, _, block in seen] == [1, 2, 4, 8, 16, 30, 63, 125, 250, 500]
    assert {criterion for criterion, *_ in seen} == {"code"}
    order = np.random.default_rng(4).permutation(1000)
    for _, past, block in seen:
        assert past == sorted(order[: len(past)])
        assert block == sorted(order[len(past) : len(past) + len(block)])
    # 2 targets a text: the first text costs log2 3 bits a target, the other 999 what is planted
    first = 2 * math.log2(3)
    assert code.bits.tolist() == pytest.approx([first + 1998, first + 3996])
    assert code.uniform == pytest.approx(2000 * math.log2(3))
    assert code.compression.tolist() == pytest.approx([code.uniform / bits for bits in code.bits])


def test_targets_of_several_labels_cost_a_bit_a_label(monkeypatch):
    corpus, _ = planted(4, (("x",), ("y", "z")), monkeypatch)
    code = control.online_code(INPUTS, corpus, corpus, EdgeTraining())
    assert (code.uniform, code.bits.tolist()) == (8 * 3, [2 * 3 + 6, 2 * 3 + 12])
    corpus, _ = planted(1, (("x",),), monkeypatch)
    with pytest.raises(BertftError, match="at least 2 training texts, found 1"):
        control.online_code(INPUTS, corpus, corpus, EdgeTraining())


def test_two_texts_are_enough_for_a_code(monkeypatch):
    corpus, seen = planted(2, (("x",),), monkeypatch)
    code = control.online_code(INPUTS, corpus, corpus, EdgeTraining(seed=1))
    assert [(len(past), len(block)) for _, past, block in seen] == [(1, 1)]
    assert code.bits.tolist() == pytest.approx([2 * math.log2(3) + 2, 2 * math.log2(3) + 4])


@pytest.mark.parametrize("block", [0, 1, 3])
def test_a_code_is_resumed_after_the_last_block_that_was_kept(block, monkeypatch, tmp_path):
    corpus, seen = planted(16, (("x",), ("y",)), monkeypatch)
    whole = control.online_code(INPUTS, corpus, corpus, EdgeTraining())
    blocks = seen.copy()

    class Cut(Unfinished):
        def keep(self, number, *arguments, **settings):
            super().keep(number, *arguments, **settings)
            if number == block:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        control.online_code(INPUTS, corpus, corpus, EdgeTraining(), unfinished=(Cut(tmp_path / "a", {}), NOTHING))
    seen.clear()
    kept = Unfinished(tmp_path / "a", {})
    again = control.online_code(INPUTS, corpus, corpus, EdgeTraining(), unfinished=(kept, NOTHING))
    assert again.bits.tolist() == whole.bits.tolist() and seen == blocks[block + 1 :]


def test_control_labels_stay_those_of_earlier_runs():
    words = ("the", "cat", "sees", "a", "dog")
    labels = (("x",), ("y",), ("x", "z"), ("x",), ())
    ends = ((0, 1), (0, 2), (2, 3), (1, 4), (4, 5))  # the word type is the last word of the first span
    text = SpanText("1", words, tuple(SpanTarget(a, (0, 1), own) for a, own in zip(ends, labels, strict=True)))
    for seed, wanted in ((0, "y x x x y"), (1, "xz y x y x")):
        (found,) = control.control_labels([text], [text, text], seed)
        assert [target.labels for target in found.targets] == [tuple(own) for own in wanted.split()]
        assert [(t.first, t.second) for t in found.targets] == [(a, (0, 1)) for a in ends]
