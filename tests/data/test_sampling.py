"""Seeded samples, the order of stimuli and the end of a draw."""

from __future__ import annotations

import numpy as np
import pytest

from bertft.data.sampling import drawn, places_in_order, sample, stimuli_order, until
from bertft.errors import BertftError


def test_sample_keeps_order_and_is_even() -> None:
    counts = [0] * 10
    for seed in range(600):
        found = sample(range(10), 3, seed)
        assert found == sorted(set(found))
        assert len(found) == 3
        for i in found:
            counts[i] += 1
    assert min(counts) > 130
    assert max(counts) < 230


@pytest.mark.parametrize("held", [10, 1000])
def test_drawn_is_seeded_and_loses_nothing(held) -> None:
    first = list(drawn(range(300), 1, held))
    assert first == list(drawn(range(300), 1, held)) != list(drawn(range(300), 2, held))
    assert sorted(first) == list(range(300))


def test_every_place_of_a_short_source_is_equally_likely() -> None:
    places = np.array([list(drawn(range(5), seed)).index(0) for seed in range(2000)])
    assert np.bincount(places, minlength=5) == pytest.approx(400, abs=4 * 18)


def test_a_stream_and_its_places_come_in_one_order() -> None:
    texts = [f"text {i}" for i in range(500)]
    assert [texts[i] for i in places_in_order(500, 10, 7)] == list(stimuli_order(iter(texts), 10, 7)) != texts
    assert [texts[i] for i in places_in_order(500, None, 7)] == list(stimuli_order(iter(texts), None, 7)) == texts


def test_the_older_permutation_is_kept() -> None:
    assert places_in_order(6, 10, 0, "permutation") == np.random.default_rng(0).permutation(6).tolist()
    with pytest.raises(BertftError, match="draw: expected one of stream, permutation, found 'shuffle'"):
        places_in_order(6, 10, 0, "shuffle")


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (1, [("aaa", 1)]),
        (3, [("aaa", 3)]),
        (4, [("aaa", 3), ("bb", 1)]),
        (99, [("aaa", 3), ("bb", 2), ("c", 1)]),
        (None, [("aaa", 3), ("bb", 2), ("c", 1)]),
    ],
)
def test_until_cuts_the_last_example_and_skips_empty_ones(tokens, expected) -> None:
    texts = ["aaa", "", "bb", "c"]
    assert list(until(texts, tokens, lambda block: [len(text) for text in block])) == expected


def test_until_counts_no_more_blocks_than_it_needs() -> None:
    counted = []

    def count(block: list[int]) -> list[int]:
        counted.append(len(block))
        return [1] * len(block)

    assert len(list(until(range(2000), 512, count))) == 512
    assert counted == [256, 256]
