"""RSA and CKA of every tuned encoder with the base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bertft.data.examples import inputs_of
from bertft.errors import BertftError
from bertft.models.blocks import blocks
from bertft.models.encoder import Encoder
from bertft.models.loading import load_skeleton
from bertft.models.noise import noise_encoders
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.similarity import Plan, compare_encoders
from bertft.similarity.compare.stimuli import choose, count_stimuli
from bertft.similarity.placed_sums import bytes_of_sums
from bertft.study.analysis import Analysis
from bertft.study.config import RsaConfig, layer_numbers, settings_of
from bertft.study.inputs import Inputs, fitting
from bertft.study.timing import (
    PIECES,
    Line,
    StageCost,
    corpus_pieces,
    encoding_seconds,
    line,
    placed,
    seconds_of,
    weights_of,
)

BATCH_PIECES = 4096  # of an encoder's stream
RESERVOIR = 5000  # stimuli kept for the intervals


class Rsa(Analysis[Inputs]):
    """Rows ``rsa_<metric>_pearson`` and ``cka_debiased`` for each text, tuned encoder and layer.

    Settings: `RsaConfig` (``rsa``) and the texts of ``stimuli``; every task's own dev text is added.
    """

    name, order, tasks = "rsa", 20, ("rsa", "heatmap", "null")

    def stages(self, inputs: Inputs) -> list[Stage]:
        """Return a stage ``rsa/<text>`` for every text."""
        config, rsa = inputs.config, inputs.config.rsa
        if rsa is None:
            return []
        shared = ("metric", "tokens", "unit", "draw", "null", "noise", "precision")
        common = {key: value for key, value in settings_of(rsa).items() if key in shared}
        found = []
        for text in _texts(inputs):
            stimuli = config.stimuli.get(text)
            own = inputs.tuned.get(text, {})
            read = settings_of(stimuli) if stimuli else {"own": own["dev"], "limit": own["max_dev"]}
            crossed = rsa.layers == "all" and text != config.crossed_text
            layers = {} if crossed or rsa.layers == "paired" else {"layers": rsa.layers}
            depends = {"rsa": {**common, **layers}, "text": read, "models": inputs.tuned, **inputs.seeds}
            found.append(Stage(f"rsa/{text}", depends, partial(self.work, inputs, text)))
        return found

    def check(self, inputs: Inputs) -> None:
        """Read every text; refuse layers that the model lacks, and a null of too few derangements."""
        model, rsa = inputs.config.model, inputs.config.rsa
        if rsa:
            Plan(metrics=(rsa.metric,), null=rsa.null)
        chosen = layer_numbers(rsa.layers) if rsa else None
        if chosen and chosen[-1] > (last := len(blocks(load_skeleton(model)))):
            raise BertftError(f"rsa.layers: expected some of 0..{last} of {model}, found {chosen[-1]}")
        for text in _texts(inputs):
            inputs.stimuli(text)

    def work(self, inputs: Inputs, text: str) -> list[Row]:
        """Return the rows of one text."""
        config, rsa, base = inputs.config, inputs.config.rsa, inputs.encoder("base")
        assert rsa is not None
        tuned = inputs.encoders()
        return compare_encoders(
            base,
            {**tuned, **(noise_encoders(base, tuned, config.seed) if rsa.noise else {})},
            fitting(base, inputs.stimuli(text)),
            metric=rsa.metric,
            tokens=rsa.tokens,
            unit=rsa.unit,
            seed=config.seed,
            draw=rsa.draw,
            data=text,
            all_layers=text == config.crossed_text,
            layers=layer_numbers(rsa.layers) or (),
            null=rsa.null,
            precision=rsa.precision,
            progress=inputs.progress,
        )

    def cost(self, inputs: Inputs, stages: Sequence[Stage], held: int) -> Iterator[StageCost]:
        """Yield the cost of each text, extrapolated from its first examples."""
        compared = ComparisonCost(inputs, held)
        for stage in stages:
            text = stage.name.partition("/")[2]
            examples = fitting(compared.base, inputs.stimuli(text))
            yield compared.on_text(stage.name, examples, all_layers=text == inputs.config.crossed_text)


def _texts(inputs: Inputs) -> list[str]:
    """Return the names of the texts, each once: the tasks' own, then the study's ``stimuli``."""
    config = inputs.config
    return [] if config.rsa is None else list(dict.fromkeys([*config.own_text.values(), *config.stimuli]))


class ComparisonCost:
    """Cost of comparing the tuned encoders of a study with its base; one comparison is timed and then scaled."""

    def __init__(self, inputs: Inputs, held: int) -> None:
        assert inputs.config.rsa is not None
        self.config: RsaConfig = inputs.config.rsa
        self.base: Encoder = inputs.encoder("base")
        self.tuned = len(inputs.config.tasks) * (2 if self.config.noise else 1)
        self.seed, self.held = inputs.config.seed, held
        self._lines: dict[bool, Line] = {}

    @property
    def _layers(self) -> int:
        return len(layer_numbers(self.config.layers) or range(self.base.num_layers))

    @property
    def _row(self) -> int:
        """Bytes of one stimulus in all layers that are compared."""
        return self._layers * self.base.dim * 4

    def _sums(self, pairs: str) -> int:
        """Return the bytes of the sums of one metric with one tuned encoder."""
        return bytes_of_sums((self._layers, self._layers), (self.base.dim, self.base.dim), pairs)

    @property
    def _encoders(self) -> int:
        """Bytes of the encoders with a batch each."""
        return (self.tuned + 1) * (weights_of(self.base.model) + BATCH_PIECES * self._row)

    def on_text(self, stage: str, texts: Sequence[Any], *, all_layers: bool) -> StageCost:
        """Return the cost of a comparison on ``texts``, with ``all_layers`` of every layer with every layer."""
        base, unit, tuned = self.base, self.config.unit, self.tuned
        examples = inputs_of(texts, unit)
        encoded, counts, places = choose(
            base, examples, tokens=self.config.tokens, unit=unit, seed=self.seed, draw=self.config.draw
        )
        chosen = [examples[place] for place in places]
        total, pieces = sum(counts), sum(item.count for item in encoded)
        encode = encoding_seconds(base, chosen, unit)
        compare = self._seconds(chosen, counts, encode, unit, all_layers)
        sample = tuned * 2 * min(total, RESERVOIR) * self._row
        sums = tuned * 2 * self._sums("all" if all_layers else "diagonal")  # of RSA and of CKA
        seconds = (tuned + 1) * encode * pieces + tuned * compare.at(total)
        memory = placed(self.held + sample, self._encoders + sums)
        return StageCost(stage, f"{total:,} {unit}s, {tuned + 1} encoders", seconds, 0, 0, *memory)

    def of_words(self, stage: str, sentences: Sequence[Any]) -> StageCost:
        """Return the cost of local RSA: two passes, for the sums and for each word, taken to cost the same."""
        base, tuned, texts = self.base, self.tuned, [sentence.words for sentence in sentences]
        counts = [len(words) for words in texts]
        total, encode = sum(counts), encoding_seconds(base, texts, "word")
        compare = self._seconds(texts, counts, encode, "word", False)
        seconds = 2 * ((tuned + 1) * encode * corpus_pieces(base, sentences) + tuned * compare.at(total))
        memory = placed(self.held, self._encoders + tuned * self._sums("diagonal"))
        return StageCost(stage, f"{total:,} words, {tuned + 1} encoders", seconds, 0, 0, *memory)

    def _seconds(self, texts: Sequence[Any], counts: Sequence[int], encode: float, unit: str, all_layers: bool) -> Line:
        """Return the seconds of comparing one pair of encoders by stimuli, measured once on the first texts."""
        if all_layers not in self._lines:
            enough = int(np.searchsorted(np.cumsum(counts), PIECES)) + 1
            points = []
            for some in (texts[:2], texts[: max(enough, 2)]):
                stimuli = sum(count_stimuli(self.base, list(some), unit))
                points += [stimuli, self._compared(some, unit, all_layers) - 2 * encode * stimuli]
            few, fast, more, slow = points
            self._lines[all_layers] = line(few, max(0.0, fast), more, max(0.0, slow))
        return self._lines[all_layers]

    def _compared(self, texts: Sequence[Any], unit: str, all_layers: bool) -> float:
        """Return the seconds of comparing the base with itself."""
        options: dict[str, Any] = {"metric": self.config.metric, "tokens": None, "unit": unit, "all_layers": all_layers}
        return seconds_of(lambda: compare_encoders(self.base, {"a": self.base}, texts, **options))
