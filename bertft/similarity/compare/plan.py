"""Choice of the similarities to measure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from bertft.errors import BertftError
from bertft.ops.metrics import COMPARISONS, LINEAR, METRICS
from bertft.ops.precision import check_precision
from bertft.similarity.pairwise_rsa import LARGEST

SCATTER = ("cca", "svcca", "pwcca", "procrustes", "shape_distance", "linear_r2")  # of centred scatter matrices
WHITENED = {"cca", "pwcca", "linear_r2"}  # depend on directions of little variance, which float32 products blur
SPACES = ("effective_dimension", "anisotropy")  # of each encoder alone
PAIRS = ("mutual_knn", "cka_rbf")  # of the sampled stimuli
MEASURES = ("rsa", "cka", *SCATTER, *SPACES, *PAIRS)


@dataclass(frozen=True)
class Plan:
    """Similarities to measure.

    Attributes:
        metrics: dissimilarities of RSA (`bertft.ops.metrics`).
        compares: comparisons of RSA; together with ``metrics`` they make the kinds of RSA. dot, cosine, correlation and
            sqeuclidean under pearson or cosine are exact over all stimuli. All other kinds are taken on the sample.
        measures: some of `MEASURES`.
        intervals: whether measures get 95 % intervals.
        sample: stimuli in the random sample of whole sentences behind intervals and measures over pairs.
        seed: of that sample, of bootstraps and of permutations.
        all_layers: whether every layer of the base is also compared with every layer of a tuned encoder, by the
            measures that are exact over all stimuli.
        float64: whether products behind the sums are taken in float64; those of cca, pwcca and linear_r2 always are.
            The same as ``precision="float64"``.
        permutations: of the sampled sentences, for a Mantel test (`bertft.similarity.rsa`) of each kind of RSA except
            kendall; 0 for none.
        precision: of the products behind the sums (`bertft.ops.precision`): float32, fast or float64.

    Raises BertftError for unknown names, sizes out of range, and permutations without an RSA to test.
    """

    metrics: tuple[str, ...] = ("cosine",)
    compares: tuple[str, ...] = ("pearson",)
    measures: tuple[str, ...] = ("rsa", "cka")
    intervals: bool = True
    sample: int = 5000
    seed: int = 0
    all_layers: bool = False
    float64: bool = False
    permutations: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        precision = check_precision(self.precision, op="similarity", float64=self.float64)
        object.__setattr__(self, "precision", precision)  # two names of one setting agree
        object.__setattr__(self, "float64", precision == "float64")
        for name, chosen, allowed in (
            ("metric", self.metrics, METRICS),
            ("compare", self.compares, COMPARISONS),
            ("measures", self.measures, MEASURES),
        ):
            for entry in chosen or ("",):
                if entry not in allowed:
                    raise BertftError(f"similarity: {name} must be one of {', '.join(allowed)}, found {entry!r}")
        if self.sample < 4:
            raise BertftError(f"similarity: sample must be at least 4, found {self.sample}")
        if self.permutations < 0:
            raise BertftError(f"similarity: permutations must be at least 0, found {self.permutations}")
        if self.permutations and self.sample > LARGEST:
            raise BertftError(
                f"similarity: permutations take a sample of at most {LARGEST} stimuli, found {self.sample} (--sample)"
            )
        if self.permutations and not self.tested:
            raise BertftError(
                "similarity: permutations test rsa by pearson, cosine, spearman or rho_a, which the measures lack "
                "(--measures, --compare)"
            )

    @property
    def streamed(self) -> list[tuple[str, str]]:
        """The kinds of RSA that are exact over all stimuli, as (metric, compare)."""
        return [kind for kind in self._kinds if kind[0] in LINEAR and kind[1] in ("pearson", "cosine")]

    @property
    def pairwise(self) -> list[tuple[str, str]]:
        """The kinds of RSA that need every pair, taken on the sampled stimuli."""
        return [kind for kind in self._kinds if kind not in self.streamed]

    @property
    def tested(self) -> list[tuple[str, str]]:
        """The kinds of RSA that get a permutation test, on the sampled stimuli."""
        return [kind for kind in self._kinds if kind[1] != "kendall"] if self.permutations else []

    @property
    def over_pairs(self) -> bool:
        """Whether any measure needs the pairs of the sampled stimuli."""
        return bool(self.pairwise or self.tested or set(PAIRS) & set(self.measures))

    @property
    def _kinds(self) -> list[tuple[str, str]]:
        if "rsa" not in self.measures:
            return []
        return list(dict.fromkeys(itertools.product(self.metrics, self.compares)))

    @property
    def preparations(self) -> list[str]:
        """The metrics that need sums."""
        wanted = [metric for metric, _ in self.streamed]
        if "anisotropy" in self.measures:
            wanted.append("cosine")
        raw = {"cka", "effective_dimension", *SCATTER} & set(self.measures)
        if (raw and not {"dot", "sqeuclidean"} & set(wanted)) or not wanted:
            wanted.append("dot")
        return list(dict.fromkeys(wanted))

    def in_float64(self, metric: str) -> bool:
        """Return whether the products of this metric's sums are taken in float64."""
        return self.float64 or (bool(WHITENED & set(self.measures)) and metric == self.of_raw_rows)

    def precision_of(self, metric: str) -> str:
        """Return the precision of the products of this metric's sums."""
        return "float64" if self.in_float64(metric) else self.precision

    @property
    def of_raw_rows(self) -> str:
        """The metric of the sums for measures of raw vectors."""
        return next(metric for metric in self.preparations if metric in ("dot", "sqeuclidean"))
