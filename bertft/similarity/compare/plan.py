"""Choice of the similarities to measure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from bertft.errors import BertftError
from bertft.ops.metrics import COMPARISONS, LINEAR, METRICS
from bertft.ops.precision import check_precision
from bertft.similarity.pairwise_rsa import LARGEST

SCATTER = (
    "cka_biased",
    "cca",
    "svcca",
    "pwcca",
    "procrustes",
    "shape_distance",
    "linear_r2",
)  # of centred scatter matrices
WHITENED = {"cca", "pwcca", "linear_r2"}  # depend on directions of little variance, which float32 products blur
SPACES = ("effective_dimension", "anisotropy")  # of each encoder alone
PAIRS = ("mutual_knn", "cka_rbf")  # of the sampled stimuli
MEASURES = ("rsa", "cka", *SCATTER, *SPACES, *PAIRS)
FEWEST = 100  # derangements of a null


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
        layers: the layers compared, by their numbers in both encoders; () for all.
        null: derangements of the sampled texts for the null of each measure (`bertft.similarity.compare.nulls`), or 0.
        null_sample: stimuli of the sample that the null takes, in whole texts; None for all.
        null_of_noise: whether encoders with random changes (`bertft.models.noise`) get a null of their own.
        precision: of the products behind the sums (`bertft.ops.precision`): float32, fast or float64.

    Raises BertftError for unknown names, sizes out of range, permutations without an RSA to test, and a null without
    measures.
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
    layers: tuple[int, ...] = ()
    null: int = 0
    precision: str = "float32"
    null_sample: int | None = None
    null_of_noise: bool = True

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
        if min(self.layers, default=0) < 0 or len(set(self.layers)) < len(self.layers):
            raise BertftError(f"similarity: layers must be different numbers from 0 on, found {list(self.layers)}")
        if self.layers and self.all_layers:
            raise BertftError("similarity: chosen layers are compared with the same layers alone, found all_layers")
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
        self._check_null()

    def _check_null(self) -> None:
        if self.null and self.null < FEWEST:
            raise BertftError(f"similarity: null must be 0 or at least {FEWEST}, found {self.null} (--null)")
        if self.null and not (self.streamed or self._others or any(kind[1] != "kendall" for kind in self.pairwise)):
            raise BertftError("similarity: a null needs a measure of two encoders except kendall (--null, --measures)")
        if self.null and self.over_pairs and self.sample > LARGEST:
            raise BertftError(
                f"similarity: the null of measures over pairs takes a sample of at most {LARGEST} stimuli, found "
                f"{self.sample} (--sample)"
            )

    @property
    def _others(self) -> set[str]:
        """The measures of two encoders other than RSA."""
        return {"cka", *SCATTER, *PAIRS} & set(self.measures)

    def number(self, place: int) -> int:
        """Return the number of the layer at ``place`` among those compared."""
        return self.layers[place] if self.layers else place

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
