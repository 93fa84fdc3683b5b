"""Targets of edge probes: batches on another device, blocks, and data that cannot be scored."""

from __future__ import annotations

import pytest
import torch

from bertft.data.readers.spans import SpanTarget, SpanText
from bertft.errors import BertftError
from bertft.probes.edge.targets import EdgeTargets, check_roles, label_inventory, with_targets


def text(name, *targets):
    """Return a text of six words with targets ``(first, second, *labels)``."""
    return SpanText(name, tuple("abcdef"), tuple(SpanTarget(a, b, tuple(labels)) for a, b, *labels in targets))


TWO = text("1", ((0, 2), (4, 5), "x"), ((0, 2), (2, 3), "y"))
ONE = text("2", ((1, 2), None, "x"))


def test_a_batch_moves_to_another_device_with_all_its_tensors():
    batch = EdgeTargets([TWO, TWO], ["x", "y"]).batch([0, 1])
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    assert batch.which[0] is not None and batch.which[1] is None  # only the first role shares a span
    for own, there in zip(batch.which, moved.which, strict=True):
        assert (there is None) if own is None else (there.device.type, there.shape) == ("meta", own.shape)
    for name in ("tokens", "sizes"):
        for own, there in zip(getattr(batch, name), getattr(moved, name), strict=True):
            assert (there.device.type, there.shape) == ("meta", own.shape)
    assert moved.labels.device.type == moved.text.device.type == "meta"
    assert (moved.single, moved.whole) == (batch.single, batch.whole)


def test_blocks_are_all_texts_in_order():
    targets = EdgeTargets([TWO] * 5, ["x", "y"])
    found = targets.blocks(2)
    assert [part for part, _ in found] == [range(2), range(2, 4), range(4, 5)]
    assert [len(batch.labels) for _, batch in found] == [4, 4, 2] and len(targets) == 10
    assert [batch.text.tolist() for _, batch in found] == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0]]
    assert targets.blocks(2) is found and targets.blocks(5) is not found


@pytest.mark.parametrize(
    ("target", "single"),
    [(((0, 1), None, "x"), True), (((0, 1), None, "x", "x"), True), (((0, 1), None, "x", "y"), False)],
)
def test_targets_are_a_classification_if_each_has_one_label(target, single):
    texts = [ONE, text("3", target)]
    assert EdgeTargets(texts, ["x", "y"]).single == single
    assert EdgeTargets(texts, ["x", "y"], single=not single).single != single
    assert EdgeTargets(texts, ["x", "y"]).roles == 1 and EdgeTargets([TWO], ["x"]).roles == 2


def test_labels_outside_the_inventory_are_counted_by_text():
    targets = EdgeTargets([TWO, text("2", ((0, 1), (1, 2), "z", "y", "z"))], ["x"])
    assert targets.unseen == {"y": 2, "z": 1} and targets.unseen_per_text.tolist() == [1, 2]
    assert targets.labels.tolist() == [[1], [0], [0]]


def test_spans_are_single_words_or_the_whole_text_only_if_all_are():
    batch = EdgeTargets([text("1", ((0, 1), (0, 3), "x"), ((1, 2), (3, 6), "x"))], ["x"]).batch([0])
    assert batch.single == [True, False] and batch.whole == [False, True]


def test_data_that_cannot_be_scored_are_refused():
    empty = SpanText("3", ("a",), ())
    assert with_targets([ONE, empty, ONE], "dev") == [ONE, ONE]
    with pytest.raises(BertftError, match="at least 2 texts with targets in dev, found 1"):
        with_targets([ONE, empty], "dev")
    assert label_inventory([TWO, ONE]) == ["x", "y"]
    with pytest.raises(BertftError, match="have no labels"):
        label_inventory([text("4", ((0, 1), None))])
    check_roles([ONE], [ONE], "dev")
    check_roles([TWO], [TWO], "dev")
    with pytest.raises(BertftError, match=r"dev has targets of 2 span\(s\), the training data of 1"):
        check_roles([ONE], [TWO], "dev")
