"""CrossMoments: exact similarity over all pairs of stimuli.

It follows from sums over stimuli (`bertft.similarity.accumulator`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.metrics import SCALE
from bertft.ops.moments.formulas import cka_from_moments, compare_sums, metric_offset, pair_sums
from bertft.similarity import measures
from bertft.similarity.accumulator import Sums


class CrossMoments(Sums):
    """Cross moments of the layers of one space with those of another, and the similarities that follow from them.

    The sums (`bertft.ops.moments.layout`) are taken about the mean of the first update's prepared rows; accumulators
    about different means merge exactly. They take about (L D^2 / 2 + M E^2 / 2 + P D E) x 8 bytes for P pairs of layers
    (`bertft.similarity.placed_sums.bytes_of_sums`).

    Args:
        layers_x: number L of layers of x. The widths D and E follow from the first `update` and may differ.
        layers_y: number M of layers of y.
        metric: preparation of rows. ``cosine`` scales every row to length 1, ``correlation`` centres it first, ``dot``
            and ``sqeuclidean`` leave it unchanged. A pair gives the two spaces different metrics. All measures are
            those of the prepared rows, so CKA of the raw vectors needs ``dot`` or ``sqeuclidean``.
        pairs: ``diagonal`` pairs layer l with layer l (needs L = M; results are (L,)); ``all`` pairs every layer with
            every layer (results are (L, M)).
        float64: take products in float64, instead of float32 products summed in float64: error 1e-12 instead of 1e-7,
            at half the speed. CCA, PWCCA and linear R^2 then see directions below 1e-7 of the largest variance, down to
            1e-10.
        precision: ``float32``, ``fast`` (of vectors rounded to float16, on GPUs with fast tensor cores; error of RSA
            and CKA 5e-4 / sqrt n) or ``float64``, as ``float64`` (`bertft.ops.precision`).
    """

    def _each(self, function: Callable[[int, int], Any], least: int = 3) -> Tensor:
        """Return function(l, m) of every pair of layers as (L,) or (L, M) float64."""
        if len(self) < least:
            raise BertftError(f"similarity: needs at least {least} stimuli, found {len(self)}")
        values = torch.tensor([float(function(k, m)) for k, m in self._pairs()], dtype=torch.float64)
        return values if self.pairs == "diagonal" else values.view(self.layers_x, self.layers_y)

    def rsa(self, compare: str = "pearson") -> Tensor:
        """Return the correlation of the two RDMs' upper triangles over all pairs.

        ``compare`` is ``pearson`` or ``cosine`` (no centring). Ignores isotropic scale of either space; under cosine,
        dot and sqeuclidean rotation and reflection; under sqeuclidean translation (`bertft.similarity.rsa`). NaN if all
        dissimilarities of a space are equal.
        """
        scale = (SCALE[self.metric_x], SCALE[self.metric_y])

        def one(k: int, m: int) -> float:
            sums = pair_sums(self.moments(k, m))
            for first, second in ((sums.k, sums.kk), (sums.l, sums.ll)):
                if compare == "pearson" and not second - first * first / sums.pairs > 1e-13 * second:
                    return math.nan
            means = self.means(k, m)
            offset = (metric_offset(self.metric_x, means[0]), metric_offset(self.metric_y, means[1]))
            return float(compare_sums(sums, compare=compare, scale=scale, offset=offset).clamp(-1, 1))

        return self._each(one)

    def cka(self, debiased: bool = True) -> Tensor:
        """Return linear CKA of the prepared rows; NaN without variance.

        Debiased (needs 4 stimuli), or as first published. Ignores rotation, reflection, isotropic scale and translation
        of either space's prepared rows.
        """
        return self._each(lambda k, m: cka_from_moments(self.moments(k, m), debiased=debiased), 4 if debiased else 3)

    def cca(self) -> Tensor:
        """Return the mean canonical correlation, `measures.cca`."""
        return self._scatter(partial(measures.cca, noise=self.noise))

    def svcca(self, variance: float = 0.99) -> Tensor:
        """Return the mean canonical correlation of the directions with ``variance`` of each space, `measures.svcca`."""
        return self._scatter(partial(measures.svcca, variance=variance, noise=self.noise))

    def pwcca(self) -> Tensor:
        """Return projection-weighted CCA, weighted by x, `measures.pwcca`."""
        return self._scatter(partial(measures.pwcca, noise=self.noise))

    def procrustes(self) -> Tensor:
        """Return orthogonal Procrustes similarity, the cosine of the shape distance, `measures.procrustes`."""
        return self._scatter(measures.procrustes)

    def shape_distance(self) -> Tensor:
        """Return the arc cosine of the Procrustes similarity, `measures.shape_distance`."""
        return self._scatter(measures.shape_distance)

    def linear_r2(self, ridge: float = 0.0) -> Tensor:
        """Return the share of y's variance that a linear map of x explains, `measures.linear_r2`."""
        return self._scatter(partial(measures.linear_r2, ridge=ridge, noise=self.noise))

    def _scatter(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        return self._each(lambda k, m: function(*measures.scatter(self.moments(k, m))))

    def effective_dimension(self) -> tuple[Tensor, Tensor]:
        """Return the participation ratio of the prepared rows' covariance, (L,) of x and (M,) of y."""
        return self._sides(lambda k, m, side: measures.effective_dimension(measures.scatter(self.moments(k, m))[side]))

    def anisotropy(self) -> tuple[Tensor, Tensor]:
        """Return the mean cosine of two different stimuli (Ethayarajh 2019), (L,) of x and (M,) of y.

        Needs metric ``cosine``. Ignores rotation, reflection and isotropic scale.
        """
        if (self.metric_x, self.metric_y) != ("cosine", "cosine"):
            raise BertftError(f"anisotropy: needs metric 'cosine', found {self.metric_x!r} and {self.metric_y!r}")

        def one(k: int, m: int, side: int) -> Tensor:
            sums, mean = pair_sums(self.moments(k, m)), self.means(k, m)[side]
            return (sums.k, sums.l)[side] / sums.pairs + mean @ mean

        return self._sides(one)

    def _sides(self, function: Callable[[int, int, int], Tensor]) -> tuple[Tensor, Tensor]:
        if len(self) < 3:
            raise BertftError(f"similarity: needs at least 3 stimuli, found {len(self)}")
        of_x = [function(k, k if self.pairs == "diagonal" else 0, 0) for k in range(self.layers_x)]
        of_y = [function(m if self.pairs == "diagonal" else 0, m, 1) for m in range(self.layers_y)]
        return torch.tensor(of_x, dtype=torch.float64), torch.tensor(of_y, dtype=torch.float64)


def merged(parts: Sequence[CrossMoments]) -> CrossMoments:
    """Return the moments of all ``parts`` together, in their order, leaving the parts unchanged."""
    if not parts:
        raise BertftError("CrossMoments: nothing to merge")
    first = parts[0]
    total = CrossMoments(
        first.layers_x, first.layers_y, (first.metric_x, first.metric_y), first.pairs, precision=first.precision
    )
    for part in parts:
        total.merge(part)
    return total
