"""CrossMoments: everything that similarity of two spaces needs, as sums over stimuli.

Exact similarity over all n (n - 1) pairs of a corpus follows from the sums (`bertft.similarity.accumulator`).
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
    """Accumulates the cross moments of ``layers_x`` layers of one space with ``layers_y`` layers of another.

    Parameters
    ----------
    layers_x, layers_y
        Number of layers L and M. Widths D and E follow from the first ``update`` and may differ.
    metric
        How rows are prepared: ``cosine`` scales every row to length 1, ``correlation`` centres it first, ``dot`` and
        ``sqeuclidean`` leave it as it is. A pair gives the two spaces different metrics. All measures are those of
        the prepared rows: CKA of the raw vectors needs ``dot`` or ``sqeuclidean``.
    pairs
        ``diagonal`` pairs layer l with layer l (needs L = M; results (L,)); ``all`` every layer with every layer
        (results (L, M)).
    float64
        Products in float64 rather than float32 summed up in float64: error 1e-12 instead of 1e-7, half the speed. CCA,
        PWCCA and linear R^2 then see directions of less than 1e-7 of the largest variance too, down to 1e-10 (`noise`).

    The sums (`bertft.ops.moments.cross_moments`) are taken about the mean of the first update's prepared rows; accumulators
    about different means merge exactly. Memory (L D^2 + M E^2 + P D E) x 8 bytes for P pairs of layers.
    """

    def _each(self, function: Callable[[int, int], Any], least: int = 3) -> Tensor:
        """function(l, m) of every pair of layers: (L,) or (L, M) float64."""
        if len(self) < least:
            raise BertftError(f"similarity: needs at least {least} stimuli, found {len(self)}")
        values = torch.tensor([float(function(k, m)) for k, m in self._pairs()], dtype=torch.float64)
        return values if self.pairs == "diagonal" else values.view(self.layers_x, self.layers_y)

    def rsa(self, compare: str = "pearson") -> Tensor:
        """Correlation of the two RDMs' upper triangles over all pairs, by ``pearson`` or ``cosine`` (no centring).

        Ignores isotropic scale of either space, and under cosine, dot and sqeuclidean rotation and reflection, under
        sqeuclidean translation too (`bertft.similarity.rsa`). NaN where all dissimilarities of a space are equal.
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
        """Linear CKA of the prepared rows, debiased (needs 4 stimuli) or as first published; NaN without variance.

        Ignores rotation, reflection, isotropic scale and translation of either space's prepared rows.
        """
        return self._each(lambda k, m: cka_from_moments(self.moments(k, m), debiased=debiased), 4 if debiased else 3)

    def cca(self) -> Tensor:
        """Mean canonical correlation, `measures.cca`."""
        return self._scatter(partial(measures.cca, noise=self.noise))

    def svcca(self, variance: float = 0.99) -> Tensor:
        """Mean canonical correlation of the directions that hold ``variance`` of each space, `measures.svcca`."""
        return self._scatter(partial(measures.svcca, variance=variance, noise=self.noise))

    def pwcca(self) -> Tensor:
        """Projection-weighted CCA, weighted by x, `measures.pwcca`."""
        return self._scatter(partial(measures.pwcca, noise=self.noise))

    def procrustes(self) -> Tensor:
        """Orthogonal Procrustes similarity, the cosine of the shape distance, `measures.procrustes`."""
        return self._scatter(measures.procrustes)

    def shape_distance(self) -> Tensor:
        """Arc cosine of the Procrustes similarity, `measures.shape_distance`."""
        return self._scatter(measures.shape_distance)

    def linear_r2(self, ridge: float = 0.0) -> Tensor:
        """Share of y's variance that a linear map of x explains, `measures.linear_r2`."""
        return self._scatter(partial(measures.linear_r2, ridge=ridge, noise=self.noise))

    def _scatter(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        return self._each(lambda k, m: function(*measures.scatter(self.moments(k, m))))

    def effective_dimension(self) -> tuple[Tensor, Tensor]:
        """Participation ratio of the prepared rows' covariance, (L,) of x and (M,) of y."""
        return self._sides(lambda k, m, side: measures.effective_dimension(measures.scatter(self.moments(k, m))[side]))

    def anisotropy(self) -> tuple[Tensor, Tensor]:
        """Mean cosine of two different stimuli (Ethayarajh 2019), (L,) of x and (M,) of y; needs metric ``cosine``.

        Ignores rotation, reflection and isotropic scale.
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
    """The moments of all ``parts`` together, in their order; the parts stay as they are."""
    if not parts:
        raise BertftError("CrossMoments: nothing to merge")
    first = parts[0]
    total = CrossMoments(
        first.layers_x, first.layers_y, (first.metric_x, first.metric_y), first.pairs, float64=first.float64
    )
    for part in parts:
        total.merge(part)
    return total
