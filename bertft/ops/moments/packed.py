"""Symmetric matrices kept as one triangle.

Of a matrix A (D, D) with k = ceil(D / 2), the blocks A11 (k, k), A21 (D - k, k) and A22 (D - k, D - k) are kept in
D (D + 1) / 2 numbers, so that packing moves whole blocks (rectangular full packed format, Gustavson et al. 2010):

- first a rectangle of k columns, in which the lower triangle of A11 and the upper triangle of A22 fit together:
  D even, k + 1 rows: A11 from row 1 on, A22 from row 0 on; D odd, k rows: A11 as it is, A22 one column to the right;
- then A21.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bertft.errors import BertftError


def packed_size(width: int) -> int:
    """Return the number of entries of a packed (D, D) matrix, D (D + 1) / 2."""
    return width * (width + 1) // 2


def packed_width(size: int) -> int:
    """Return D of a packed matrix of ``size`` entries."""
    width = (math.isqrt(8 * size + 1) - 1) // 2
    if packed_size(width) != size:
        raise BertftError(f"packed matrix: expected D (D + 1) / 2 entries, found {size}")
    return width


def _parts(packed: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return views of ``packed`` (..., D (D + 1) / 2): where A11's lower and A22's upper triangle are, and A21."""
    half = (width + 1) // 2
    rows = half + 1 - width % 2
    rectangle = packed[..., : rows * half].view(*packed.shape[:-1], rows, half)
    below = packed[..., rows * half :].view(*packed.shape[:-1], width - half, half)
    if width % 2:
        return rectangle, rectangle[..., : half - 1, 1:], below
    return rectangle[..., 1:, :], rectangle[..., :half, :], below


def add_packed(packed: Tensor, matrix: Tensor) -> None:
    """Add symmetric matrices (..., D, D) to ``packed`` (..., D (D + 1) / 2) in place."""
    width = matrix.shape[-1]
    half = (width + 1) // 2
    first, last, below = _parts(packed, width)
    first += matrix[..., :half, :half].tril()
    last += matrix[..., half:, half:].triu()
    below += matrix[..., half:, :half]


def packed(matrix: Tensor) -> Tensor:
    """Return a symmetric ``matrix`` (D, D) as (D (D + 1) / 2,)."""
    found = matrix.new_zeros(packed_size(len(matrix)))
    add_packed(found, matrix)
    return found


def unpacked(packed: Tensor) -> Tensor:
    """Return the symmetric matrix (D, D) of ``packed`` (D (D + 1) / 2,), both triangles filled."""
    width = packed_width(len(packed))
    half = (width + 1) // 2
    first, last, below = _parts(packed, width)
    matrix = packed.new_empty(width, width)
    torch.add(first.tril(), first.tril(-1).mT, out=matrix[:half, :half])
    torch.add(last.triu(), last.triu(1).mT, out=matrix[half:, half:])
    matrix[half:, :half] = below
    matrix[:half, half:] = below.mT
    return matrix
