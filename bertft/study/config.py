"""Settings of a study's YAML file.

```yaml
name: merchant2020_minilm          # title of the page
model: builtin:minilm              # hub id | folder | builtin:minilm
seed: 1337
tasks:                             # one fine-tuning run each; the names appear in the figures
  dep: {train: ud/train.conllu.gz, dev: ud/dev.conllu.gz, epochs: 3}
stimuli:                           # out-of-domain texts for RSA, beside the dev text of each task
  wikipedia: {source: wikipedia/sentences.txt.gz}
rsa: {tokens: 5000, metric: cosine}  # layers: all adds heat maps; by: "upos,relation" lists words that moved
probes: {train: ud/train.conllu.gz, dev: ud/dev.conllu.gz, rank: 128}
edge:                              # edge-probing tasks by name, scored on test data if given, else on dev
  ner: {train: ner/train.jsonl.gz, dev: ner/dev.jsonl.gz, test: ner/test.jsonl.gz}
ablate:                            # fine-tune a task for each k, with blocks 1..k frozen or only these kept
  mnli: {freeze: "-1,2,4", truncate: all}
weights: true                      # how far the weights of each block moved
spectra: true                      # rank and intruder dimensions of the change of every matrix
directions: 3                      # principal directions of the change of vectors, with their words
causes: 2000                       # which block changed the top layer, on as many tokens
variants:                          # overrides by name, selected with --variant
  small: {tasks: {dep: {max_train: 2000}}}
```

`bertft.study.reader` reads such a file. The ``...Command`` and ``...Options`` classes are the options of commands.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from bertft.runs.catalogue import DIRECTIONS
from bertft.runs.settings import Amount, Count, OneOf, Positive, Settings, Share, Size, Within

Unit = Literal["token", "word"]
Window = Literal["refuse", "split"]
Mixes = Literal["all", "top"]
StoredAs = Literal["float16", "float32"]
LoadedAs = Literal["float32", "bfloat16", "float16"]
Precision = Literal["float32", "fast", "float64"]
DeviceMap = Literal["one", "auto"]


class _Chosen:
    """The texts that ``rsa.layers`` may be."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import PydanticCustomError, core_schema

        def check(value: str) -> str:
            if value not in ("paired", "all") and layer_numbers(value) is None:
                expected = "paired, all or layers such as 0,8,16"
                raise PydanticCustomError("literal_error", "expected {expected}", {"expected": expected})
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return {**handler(schema), "pattern": r"^(paired|all|\s*\d{1,5}\s*(,\s*\d{1,5}\s*)*)$"}


Layers = Annotated[str, _Chosen()]
"""``paired``, ``all``, or the numbers of the layers to compare, separated by commas."""


def layer_numbers(text: str) -> tuple[int, ...] | None:
    """Return the layers that ``rsa.layers`` lists, in ascending order; None if it is not a list of numbers."""
    entries = [entry.strip() for entry in text.split(",")]
    if not all(entry.isascii() and entry.isdigit() and len(entry) < 6 for entry in entries):
        return None
    return tuple(sorted(set(map(int, entries))))


LATER = {"later": True}
"""Marks a setting newer than existing run folders; omitted at its default so that they still match."""

OLDER_DRAW = "permutation"
"""The value of ``rsa.draw`` in a resolved study that does not name it."""


@dataclass(frozen=True)
class TaskConfig(Settings):
    """One fine-tuning run: settings of `FinetuneConfig`; None keeps the default.

    ``task`` defaults to the name of the run. ``train`` and ``dev`` are sources of `bertft.data.sources.load`;
    ``max_train`` and ``max_dev`` limit the number of their examples.
    """

    train: str
    dev: str
    task: str = ""
    max_train: Size | None = None
    max_dev: Size | None = None
    max_select: Size | None = None
    epochs: Size | None = None
    learning_rate: Positive | None = None
    head_learning_rate: Positive | None = None
    warmup: Share | None = None
    weight_decay: Amount | None = None
    batch_size: Size | None = None
    max_length: Size | None = None
    stride: int | None = None
    freeze: int | None = None
    truncate: Size | None = None
    seed: int | None = None
    max_grad_norm: Positive | None = field(default=None, metadata=LATER)
    lora: Size | None = field(default=None, metadata=LATER)
    bf16: bool | None = field(default=None, metadata=LATER)
    fp16: bool | None = field(default=None, metadata=LATER)
    tf32: bool | None = field(default=None, metadata=LATER)


@dataclass(frozen=True)
class StimuliConfig(Settings):
    """A text to compare representations on: a source, its kind of data, and the number of texts to use."""

    source: str
    kind: Literal["text", "dep", "nli", "qa"] = "text"
    limit: Size | None = None


@dataclass(frozen=True)
class RsaConfig(Settings):
    """Comparison of the encoders: the number of tokens of each text, and the dissimilarity of two tokens.

    ``layers``: ``paired``; some layers, such as ``0,8,16``; or ``all``, to compare all with all as well, on one text
    (`StudyConfig.crossed_text`). ``by``: labels of `bertft.similarity.words.moved`, separated by commas, of the words
    of a treebank (`StudyConfig.treebank`) that moved. ``forms``: one of ``stimuli`` whose words are grouped by their
    form as well. ``null``: the derangements behind the null of each measure,
    0 or at least 100. ``noise``: whether to compare the base with a random change of the size of each tuned encoder's
    (`bertft.models.noise`). ``precision``: of the products behind the sums (`bertft.ops.precision`).

    ``draw`` is how tokens are drawn (`bertft.data.sampling.DRAWS`). A new study draws as ``bertft rsa`` does, with
    ``stream``. A run folder keeps its draw: one whose ``config.yaml`` lacks ``draw`` is older and used ``permutation``.
    """

    tokens: Size = 5000
    metric: Annotated[str, OneOf("bertft.ops.metrics", "LINEAR")] = "cosine"
    unit: Unit = "token"
    draw: Annotated[str, OneOf("bertft.data.sampling", "DRAWS")] = field(
        default="stream", metadata={**LATER, "before": OLDER_DRAW}
    )
    layers: Layers = field(default="paired", metadata=LATER)
    by: str = field(default="", metadata=LATER)
    forms: str = field(default="", metadata=LATER)
    null: Count = field(default=0, metadata=LATER)
    noise: bool = field(default=False, metadata=LATER)
    precision: Precision = field(default="float32", metadata=LATER)

    @property
    def labels(self) -> list[str]:
        """The distinct labels in ``by``."""
        return list(dict.fromkeys(entry.strip() for entry in self.by.split(",") if entry.strip()))


@dataclass(frozen=True)
class ProbesConfig(Settings):
    """Structural probes of every layer of the base and every tuned encoder; ``control`` adds a random encoder.

    ``rank`` is one rank or a list. ``control_trees``, ``orthogonal`` and ``rbf`` are the arguments ``control``,
    ``orthogonal`` and ``rbf`` of `bertft.probes.structural.driver.structural_probes`. ``window`` is to refuse or to
    split sentences longer than the encoder's window; ``dtype`` is that of the stored vectors.
    """

    train: str
    dev: str
    name: str = "trees"
    max_train: Size | None = None
    max_dev: Size | None = None
    rank: Size | Annotated[tuple[Size, ...], Within(min_length=1)] = 128
    epochs: Size = 40
    control: bool = True
    control_trees: bool = field(default=False, metadata=LATER)
    orthogonal: bool = field(default=False, metadata=LATER)
    rbf: bool = field(default=False, metadata=LATER)
    window: Window = field(default="refuse", metadata=LATER)
    dtype: StoredAs = field(default="float16", metadata=LATER)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks as a tuple."""
        return (self.rank,) if isinstance(self.rank, int) else self.rank


@dataclass(frozen=True)
class EdgeConfig(Settings):
    """Edge probes of the base and every tuned encoder on one task; ``random`` adds a random encoder.

    ``control``, ``code_length`` and ``mixes`` are arguments of `bertft.probes.edge.driver.edge_probes`.
    ``learning_rate``, ``batch_size``, ``interval`` and ``steps`` are those of
    `bertft.probes.edge.training.EdgeTraining`, ``window`` and ``dtype`` those of `ProbesConfig`.
    """

    train: str
    dev: str
    test: str | None = None
    max_train: Size | None = None
    max_dev: Size | None = None
    max_test: Size | None = None
    control: bool = True
    code_length: bool = False
    random: bool = False
    learning_rate: Positive = 1e-4
    batch_size: Size = 32
    interval: Size = 100
    steps: Size = 10_000
    window: Window = field(default="refuse", metadata=LATER)
    dtype: StoredAs = field(default="float16", metadata=LATER)
    mixes: Mixes = field(default="all", metadata=LATER)


@dataclass(frozen=True)
class AblateConfig(Settings):
    """Sweeps of one task (`bertft.study.analyses.ablation`): ``all``, or the values of k separated by commas."""

    freeze: str = ""
    truncate: str = ""

    def sweeps(self) -> dict[str, list[int] | None]:
        """Return the values of k by kind of sweep, None for all; raise ValueError for text that is not a number."""
        asked = {"freeze": self.freeze, "truncate": self.truncate}
        return {
            kind: None if text.strip() == "all" else [int(k) for k in text.split(",")]
            for kind, text in asked.items()
            if text.strip()
        }


@dataclass(frozen=True)
class StudyConfig(Settings):
    """A study, as `bertft.study.reader.read_study` reads it."""

    name: str
    model: str
    tasks: dict[str, TaskConfig]
    description: str = ""
    variant: str = ""
    seed: int = 1337
    stimuli: dict[str, StimuliConfig] = field(default_factory=dict)
    rsa: RsaConfig | None = field(default_factory=RsaConfig)
    probes: ProbesConfig | None = None
    edge: dict[str, EdgeConfig] = field(default_factory=dict)
    ablate: dict[str, AblateConfig] = field(default_factory=dict)
    weights: bool = field(default=False, metadata=LATER)
    spectra: bool = field(default=False, metadata=LATER)
    directions: Annotated[int, Within(ge=0, le=DIRECTIONS)] = field(default=0, metadata=LATER)
    causes: Count = field(default=0, metadata=LATER)

    @property
    def sources(self) -> list[str]:
        """The distinct corpora that the study reads."""
        found = [source for task in self.tasks.values() for source in (task.train, task.dev)]
        found += [stimuli.source for stimuli in self.stimuli.values()]
        found += [self.probes.train, self.probes.dev] if self.probes else []
        found += [source for edge in self.edge.values() for source in (edge.train, edge.dev, edge.test) if source]
        return list(dict.fromkeys(found))

    @property
    def synthetic(self) -> bool:
        """Whether any corpus is generated by ``bertft.data.synthetic``."""
        return any(source.startswith("builtin:synthetic") for source in self.sources)

    @property
    def own_text(self) -> dict[str, str]:
        """For each task the name of the stimuli from its dev text, which tasks with the same dev file share."""
        first: dict[tuple[str, str], str] = {}
        return {name: first.setdefault((task.task, task.dev), name) for name, task in self.tasks.items()}

    @property
    def crossed_text(self) -> str | None:
        """The text on which all pairs of layers are compared: the first of ``stimuli``, else that of the first task."""
        if self.rsa is None or self.rsa.layers != "all":
            return None
        return self.main_text

    @property
    def main_text(self) -> str:
        """The first of ``stimuli``, else the text of the first task."""
        return next(iter([*self.stimuli, *self.own_text.values()]))

    @property
    def treebank(self) -> str | None:
        """The text whose words ``rsa.by`` groups: the dev text of the probes, else of the first task on trees."""
        from bertft.models.tasks import get_task

        if self.probes:
            return self.probes.name
        return next((name for name, task in self.tasks.items() if get_task(task.task or name).kind == "dep"), None)

    def to_tree(self) -> dict[str, Any]:
        """Return the study as plain values, in the order of ``to_yaml``."""
        tree = dataclasses.asdict(self)
        tree["tasks"] = {name: settings_of(task) for name, task in self.tasks.items()}
        tree["probes"] = self.probes and settings_of(self.probes)
        tree["edge"] = {name: settings_of(edge) for name, edge in self.edge.items()}
        tree["rsa"] = self.rsa and settings_of(self.rsa)
        for key in ("edge", "ablate", "weights", "spectra", "directions", "causes"):
            if not tree[key]:
                del tree[key]  # older run folders lack the key; they must still match
        return tree

    def to_yaml(self) -> str:
        """Return the study as YAML; reading it back gives an equal ``StudyConfig``."""
        import yaml

        return yaml.safe_dump(self.to_tree(), sort_keys=False, allow_unicode=True, width=100)


@dataclass(frozen=True)
class RepeatConfig(Settings):
    """A study to repeat with several seeds (`bertft.study.repeat`); ``study`` is a name, a file or a mapping."""

    study: Any
    seeds: Annotated[tuple[int, ...], Within(min_length=1)]
    variant: str | None = None
    options: dict[str, Any] | None = None


def settings_of(config: TaskConfig | StimuliConfig | RsaConfig | ProbesConfig | EdgeConfig) -> dict[str, Any]:
    """Return the settings as plain values, without newer ones at the value that older run folders imply.

    An older run folder thus still matches the study, and its finished stages are reused.
    """
    later = (f for f in dataclasses.fields(config) if f.metadata.get("later"))
    left_out = {f.name for f in later if getattr(config, f.name) == f.metadata.get("before", f.default)}
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in left_out}
