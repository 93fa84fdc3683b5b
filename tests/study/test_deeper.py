"""Work of the deeper parts of a diff."""

from __future__ import annotations

import pytest

from bertft.study.diff.deeper import EXCHANGED, exchanged


@pytest.mark.parametrize(("blocks", "tokens"), [(6, 1000), (11, 1000), (18, 681), (32, 416), (80, 178)])
def test_exchanged_blocks_cost_no_more_than_a_comparison(blocks, tokens):
    """A pass of half the height for either way of each block, two of whole encoders and two of the embeddings."""
    passes = 2 * blocks / 2 + 4
    assert exchanged(blocks + 1) == tokens and tokens * passes <= 3 * 5000
    assert tokens == EXCHANGED or (tokens + 1) * passes > 3 * 5000
