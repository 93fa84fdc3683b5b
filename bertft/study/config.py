"""What a study is: its YAML file as dataclasses; `bertft.study.reader` reads it.

```yaml
name: merchant2020_minilm          # for the page's title
model: builtin:minilm              # hub id | folder | builtin:minilm
seed: 1337
tasks:                             # one fine-tuning run each; the name is the name on the lines of the figures
  dep: {train: ud/train.conllu.gz, dev: ud/dev.conllu.gz, epochs: 3}
stimuli:                           # out-of-domain texts for RSA; each task's own dev text is always measured too
  wikipedia: {source: wikipedia/sentences.txt.gz}
rsa: {tokens: 5000, metric: cosine}  # layers: all adds heat maps, by: "upos,relation" which words moved
probes: {train: ud/train.conllu.gz, dev: ud/dev.conllu.gz, rank: 128}
edge:                              # edge probes, a task by name, scored on its test data, else on dev
  ner: {train: ner/train.jsonl.gz, dev: ner/dev.jsonl.gz, test: ner/test.jsonl.gz}
ablate:                            # a task fine-tuned anew for every k, frozen or truncated to it: some k, or all
  mnli: {freeze: "-1,2,4", truncate: all}
variants:                          # overrides by name, chosen with --variant
  small: {tasks: {dep: {max_train: 2000}}}
```
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import yaml


def _later(default: Any) -> Any:
    """A setting that came when run folders without it were about: at its default `settings_of` does not name it."""
    return field(default=default, metadata={"later": True})


@dataclass(frozen=True)
class TaskConfig:
    """One fine-tuning run. None means the fine-tuning driver's own default for that task.

    ``train`` and ``dev`` are sources as ``bertft.data.sources.load`` takes them; ``max_train`` and ``max_dev`` cut
    them to so many examples. Every key but ``task`` (by default the run's name) is one of ``FinetuneConfig``.
    """

    train: str
    dev: str
    task: str = ""
    max_train: int | None = None
    max_dev: int | None = None
    max_select: int | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    warmup: float | None = None
    weight_decay: float | None = None
    batch_size: int | None = None
    max_length: int | None = None
    stride: int | None = None
    freeze: int | None = None
    truncate: int | None = None
    seed: int | None = None
    max_grad_norm: float | None = _later(None)
    lora: int | None = _later(None)
    bf16: bool | None = _later(None)
    fp16: bool | None = _later(None)
    tf32: bool | None = _later(None)


@dataclass(frozen=True)
class StimuliConfig:
    """A text to compare representations on, beside the tasks' own: a source and what kind it is."""

    source: str
    kind: str = "text"
    limit: int | None = None


@dataclass(frozen=True)
class RsaConfig:
    """How the encoders are compared: so many tokens of each text, and the dissimilarity of two tokens.

    ``layers: all`` sets every layer against every layer of the base too, on one text (`StudyConfig.crossed_text`).
    ``by``, some of `bertft.study.reader.RSA_LABELS` with commas, says which words of a treebank moved
    (`StudyConfig.treebank`).
    """

    tokens: int = 5000
    metric: str = "cosine"
    unit: str = "token"
    layers: str = _later("paired")
    by: str = _later("")

    @property
    def labels(self) -> list[str]:
        """The entries of ``by``, each once."""
        return list(dict.fromkeys(entry.strip() for entry in self.by.split(",") if entry.strip()))


@dataclass(frozen=True)
class ProbesConfig:
    """Structural probes of every layer of the base, every tuned and (``control``) a random encoder.

    ``rank`` is one or a list of them; ``control_trees``, ``orthogonal`` and ``rbf`` add what the arguments ``control``,
    ``orthogonal`` and ``rbf`` of `bertft.probes.structural.driver.structural_probes` add. Sentences longer than the window of
    the encoder are refused or split (``window``); vectors are kept as ``dtype``, float16 or float32.
    """

    train: str
    dev: str
    name: str = "trees"
    max_train: int | None = None
    max_dev: int | None = None
    rank: int | tuple[int, ...] = 128
    epochs: int = 40
    control: bool = True
    control_trees: bool = _later(False)
    orthogonal: bool = _later(False)
    rbf: bool = _later(False)
    window: str = _later("refuse")
    dtype: str = _later("float16")

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks, one or several."""
        return (self.rank,) if isinstance(self.rank, int) else self.rank


@dataclass(frozen=True)
class EdgeConfig:
    """Edge probes on one task of the base, every tuned and (``random``) a random encoder.

    ``control`` and ``code_length`` as in `bertft.probes.edge.driver.edge_probes`, the rest of the training as in
    `bertft.probes.edge.training.EdgeTraining`; ``window`` and ``dtype`` as in `ProbesConfig`.
    """

    train: str
    dev: str
    test: str | None = None
    max_train: int | None = None
    max_dev: int | None = None
    max_test: int | None = None
    control: bool = True
    code_length: bool = False
    random: bool = False
    learning_rate: float = 1e-4
    batch_size: int = 32
    interval: int = 100
    steps: int = 10_000
    window: str = _later("refuse")
    dtype: str = _later("float16")


@dataclass(frozen=True)
class AblateConfig:
    """Sweeps (`bertft.study.analyses.ablation`) of one task of the study: ``all``, or the k wanted with commas."""

    freeze: str = ""
    truncate: str = ""

    def sweeps(self) -> dict[str, list[int] | None]:
        """The k of each kind that was asked for, None for all of them; raises ValueError for what is no number."""
        asked = {"freeze": self.freeze, "truncate": self.truncate}
        return {
            kind: None if text.strip() == "all" else [int(k) for k in text.split(",")]
            for kind, text in asked.items()
            if text.strip()
        }


@dataclass(frozen=True)
class StudyConfig:
    """A whole study. ``read_study`` makes one from YAML."""

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

    @property
    def sources(self) -> list[str]:
        """Every corpus the study reads, each once."""
        found = [source for task in self.tasks.values() for source in (task.train, task.dev)]
        found += [stimuli.source for stimuli in self.stimuli.values()]
        found += [self.probes.train, self.probes.dev] if self.probes else []
        found += [source for edge in self.edge.values() for source in (edge.train, edge.dev, edge.test) if source]
        return list(dict.fromkeys(found))

    @property
    def synthetic(self) -> bool:
        """Whether any text in it is made by ``bertft.data.synthetic``."""
        return any(source.startswith("builtin:synthetic") for source in self.sources)

    @property
    def own_text(self) -> dict[str, str]:
        """For each task the name of the stimuli made of its own dev text; tasks with one dev file share them."""
        first: dict[tuple[str, str], str] = {}
        return {name: first.setdefault((task.task, task.dev), name) for name, task in self.tasks.items()}

    @property
    def crossed_text(self) -> str | None:
        """Where every layer is set against every layer: on the first text of no task, else on the first task's own."""
        if self.rsa is None or self.rsa.layers != "all":
            return None
        return next(iter([*self.stimuli, *self.own_text.values()]))

    @property
    def treebank(self) -> str | None:
        """The text whose words ``rsa.by`` tells apart: the probes' dev text, else that of the first task on trees."""
        from bertft.models.tasks import get_task

        if self.probes:
            return self.probes.name
        return next((name for name, task in self.tasks.items() if get_task(task.task or name).kind == "dep"), None)

    def to_tree(self) -> dict[str, Any]:
        """The resolved study as plain values, as ``to_yaml`` writes it."""
        tree = dataclasses.asdict(self)
        tree["tasks"] = {name: settings_of(task) for name, task in self.tasks.items()}
        tree["probes"] = self.probes and settings_of(self.probes)
        tree["edge"] = {name: settings_of(edge) for name, edge in self.edge.items()}
        tree["rsa"] = self.rsa and settings_of(self.rsa)
        for key in ("edge", "ablate"):
            if not tree[key]:
                del tree[key]  # which older run folders do not name: they are still of the same study
        return tree

    def to_yaml(self) -> str:
        """The resolved study: reading it back gives an equal ``StudyConfig``."""
        return yaml.safe_dump(self.to_tree(), sort_keys=False, allow_unicode=True, width=100)


def settings_of(config: TaskConfig | RsaConfig | ProbesConfig | EdgeConfig) -> dict[str, Any]:
    """The settings as plain values, without those that came later and have their default.

    So an older run folder is still of the same study, and its stages count as done.
    """
    later = (f for f in dataclasses.fields(config) if f.metadata.get("later"))
    left_out = {f.name for f in later if getattr(config, f.name) == f.default}
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in left_out}
