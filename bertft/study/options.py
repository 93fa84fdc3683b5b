"""Options of the commands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from bertft.runs.settings import Count, Settings, Size, Within
from bertft.study.config import DeviceMap, EdgeConfig, Layers, LoadedAs, Precision, StoredAs, TaskConfig, Unit, Window


@dataclass(frozen=True, kw_only=True)
class FinetuneCommand(TaskConfig):
    """Options of ``bertft finetune`` and ``bertft ablate``; None keeps the default of `FinetuneConfig`."""

    task: str = field()
    model: str
    freeze: Annotated[int, Within(ge=-1)] = -1
    truncate: Count | None = None
    seed: int = 1337
    report_to: str | None = None


@dataclass(frozen=True, kw_only=True)
class RsaOptions(Settings):
    """Options of ``bertft rsa``; lists are texts, separated by commas.

    ``base_vectors``, ``tuned_vectors`` and ``pair_by`` are arguments of `bertft.similarity.compare_vectors`, which take
    the place of ``base``, ``tuned`` and ``text``.
    """

    base: str | None = None
    tuned: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    base_vectors: str | None = None
    tuned_vectors: dict[str, str] = field(default_factory=dict)
    pair_by: Literal["ids", "rows"] = "ids"
    tokens: str = "5000"
    unit: Unit = "token"
    metric: str = "cosine"
    compare: str = "pearson"
    measures: str = "rsa,cka"
    sample: Annotated[int, Within(ge=4)] = 5000
    intervals: bool = True
    layers: Layers = "paired"
    permutations: Count = 0
    null: Count = 0
    noise: bool = False
    skip_first: str = "auto"
    by: str = ""
    dtype: LoadedAs = "float32"
    device_map: DeviceMap = "one"
    precision: Precision = "float32"
    split: str | None = None
    seed: int = 1337


@dataclass(frozen=True, kw_only=True)
class StructuralCommand(Settings):
    """Options of ``bertft probe structural``.

    ``random`` and ``control`` are ``control`` and ``control_trees`` of `ProbesConfig`. ``stream`` runs the
    encoder for every batch instead of storing vectors.
    """

    models: dict[str, str]
    train: str
    dev: str
    rank: list[Size] = field(default_factory=lambda: [128])
    orthogonal: bool = False
    rbf: bool = False
    control: bool = False
    random: bool = False
    epochs: Size = 40
    max_train: Size | None = None
    max_dev: Size | None = None
    dtype: StoredAs = "float16"
    stream: bool = False
    window: Window = "refuse"
    seed: int = 1337


@dataclass(frozen=True, kw_only=True)
class EdgeCommand(EdgeConfig):
    """Options of ``bertft probe edge``; ``name`` is that of the task in the results."""

    models: dict[str, str]
    name: str = ""
    stream: bool = False
    seed: int = 1337
