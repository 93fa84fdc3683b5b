"""Packed symmetric matrices against NumPy's triangles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertft.errors import BertftError
from bertft.ops.moments.packed import add_packed, packed, packed_size, packed_width, unpacked


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 16, 33])
def test_a_symmetric_matrix_is_kept_in_half_the_numbers(width):
    half = torch.randn(width, width, generator=torch.Generator().manual_seed(width), dtype=torch.float64)
    matrix = half + half.mT
    kept = packed(matrix)
    assert kept.shape == (packed_size(width),) and packed_width(len(kept)) == width
    triangle = matrix.numpy()[np.triu_indices(width)]
    assert np.array_equal(np.sort(kept.numpy()), np.sort(triangle))  # each entry once
    assert torch.equal(unpacked(kept), matrix)
    add_packed(kept, 3 * matrix)
    assert torch.equal(unpacked(kept), matrix + 3 * matrix)


def test_a_length_that_no_triangle_has_is_refused():
    with pytest.raises(BertftError, match=r"expected D \(D \+ 1\) / 2 entries, found 4"):
        packed_width(4)


@pytest.mark.parametrize("width", [1, 4, 7])
def test_stacked_matrices_are_added_as_one_by_one(width):
    half = torch.randn(3, width, width, generator=torch.Generator().manual_seed(width), dtype=torch.float64)
    matrices = half + half.mT
    together = torch.ones(3, packed_size(width), dtype=torch.float64)
    apart = together.clone()
    add_packed(together, matrices)
    for kept, matrix in zip(apart, matrices, strict=True):
        add_packed(kept, matrix)
    assert torch.equal(together, apart) and not torch.equal(together[0], together[1])
