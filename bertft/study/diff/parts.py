"""The parts of a diff.

Each gives stages (rows), lines of the verdict, and figures. To add a part, write a class and list it in ``PARTS``. A
part reads the rows of other analyses by the vocabulary and gives nothing where they are absent.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertft.data.examples import Sentence, Text
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.models.noise import noise_encoders
from bertft.report.lines import Line, apart, number, point
from bertft.report.page.answer import Said
from bertft.report.similar import HARDLY, half, is_lower, scale
from bertft.runs.checkpoint import Checkpoint
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName, noise_of
from bertft.similarity import Plan, compare_stream
from bertft.similarity.compare.recorded import Recorder
from bertft.similarity.compare.stimuli import in_windows
from bertft.similarity.compare.stream import USUAL
from bertft.similarity.sinks import Place
from bertft.similarity.words.labels import FORM, as_words
from bertft.similarity.words.moved import FILES, Moved, words_that_moved, write_moved
from bertft.study.diff.deeper import Causes, Directions
from bertft.study.diff.further import MASSIVE, Part
from bertft.study.diff.models import Compared, MovedWord
from bertft.study.diff.verdict import SHOWN, Found, is_changed
from bertft.study.diff.weights import WeightsMoved
from bertft.study.massive_places import write_massive

METRIC = "cosine"
NULL, TRADED = 100, 1200  # derangements of a null, and the stimuli that trade places
WORDS = 2000  # words that are looked at one by one
CONTEXT = 7  # words shown on either side of a word that moved


class Similarity(Part):
    """Rows ``rsa_cosine_pearson`` and ``cka_debiased`` of every layer, exact over all stimuli, with intervals.

    One pass also gives their nulls, and the same of a random change of the size of every encoder's.
    Of an encoder that is the base by definition the rows are 1 and have no ``n``: nothing is measured.
    """

    name, order, tasks = "rsa", 10, ("rsa",)

    def stages(self, inputs: Compared) -> list[Stage]:
        """Return the stage ``rsa/<text>``."""
        depends = {**inputs.depends, "null": [NULL, TRADED], "noise": True}
        return [Stage(f"rsa/{inputs.data}", depends, lambda: self.work(inputs))]

    def work(self, inputs: Compared) -> list[Row]:
        """Return the rows of all encoders in the order of the command."""
        command = inputs.command
        rows = self._measured(inputs) if inputs.tuned else []
        measures = (str(MeasureName.rsa(METRIC, "pearson")), str(MeasureName("cka_debiased")))
        for name, measure in itertools.product(inputs.unchanged, measures):
            layers = range(inputs.base.num_layers)
            rows += [Row(name, "rsa", inputs.data, k, measure, 1.0, 1.0, 1.0, None, command.seed) for k in layers]
        return rows

    def _measured(self, inputs: Compared) -> list[Row]:
        command, massive = inputs.command, list[Place]()
        plan = Plan(metrics=(METRIC,), seed=command.seed, null=NULL, null_sample=TRADED, null_of_noise=False)
        inputs.skip(command.skip_first or 0)
        compared = {**inputs.tuned, **({} if inputs.released else _noise(inputs))}
        checkpoint = Checkpoint(inputs.out / "checkpoint", inputs.depends) if inputs.out else None
        rows: list[Row] = compare_stream(
            inputs.base, compared, inputs.texts(), plan, tokens=command.tokens, unit=command.unit, data=inputs.data,
            batch_tokens=USUAL if inputs.released else None, checkpoint=checkpoint, texts_in_all=inputs.source.count,
            massive=massive, progress=inputs.progress,
        ) or []  # fmt: skip
        if checkpoint:
            checkpoint.remove()
        if inputs.out is not None:
            about = plan, command.unit, command.skip_first or 0
            write_massive(massive, inputs.base, ["base", *compared], inputs.texts(), about, inputs.out)
        return rows

    def record(self, inputs: Compared) -> None:
        """Run the base over the text."""
        command, base = inputs.command, inputs.base
        assert isinstance(base, Recorder)
        inputs.skip(command.skip_first or 0)
        with inputs.progress.step("keep vectors of the base", total=command.tokens, unit=f"{command.unit}s") as step:
            base.record_stream(inputs.texts(), (), tokens=command.tokens, unit=command.unit, step=step)

    def said(self, found: Found) -> list[Said]:
        """Return whether each encoder changed, and where most."""
        said = []
        for name in found.tuned:
            line = found.similarity(name)
            if line is not None:
                said.append(Said("changed", self._changed(found, name, line)))
        several = len(found.tuned) > 1
        for name in found.tuned:
            line = found.similarity(name)
            if line is not None and 1 - min(line.values) >= HARDLY:
                said.append(Said("where", (f"{name}: " if several else "") + _where(line), rank=1))
        return said

    def _changed(self, found: Found, name: str, line: Line) -> str:
        at = line.lowest()
        if name in found.unchanged:
            return f"{name} is unchanged: {found.unchanged[name]}."
        if not is_changed(found, name):
            return f"{name} is unchanged: every layer has a similarity of 1 to {found.base}."
        if 1 - line.values[at] < HARDLY:
            return f"{name} hardly changed: its similarity to {found.base} is above {1 - HARDLY} at every layer."
        falls = f"its similarity to {found.base} falls to {point(line, at)} at layer {line.layers[at]}"
        zero = scale(found.derived(line, "null"), line.layers[at])
        noise = found.similarity(noise_of(name))
        there = None if noise is None else noise.at(line.layers[at])
        if noise is None or there is None:
            return f"{name} changed: {falls} ({zero})."
        random = point(noise, there)
        if not is_lower(found.rows, line, at, noise, there):
            return f"{name} changed, but no more than noise would: {falls} ({zero}), noise of that size to {random}."
        return f"{name} changed: {falls} ({zero}). A random change of the same size leaves it at {random}."


def _noise(inputs: Compared) -> dict[str, Encoder]:
    """Return an encoder with noise of the size of each tuned encoder's change; none where weights have other shapes."""
    found: dict[str, Encoder] = {}
    for name, encoder in inputs.tuned.items():
        try:
            found |= noise_encoders(inputs.base, {name: encoder}, inputs.command.seed)
        except BertftError:
            inputs.progress.say(f"{name}: its weights have other shapes; there is no random change of the same size")
    for encoder in found.values():
        encoder.skip_first = inputs.base.skip_first
    return found


def _where(line: Line) -> str:
    """Return the most changed layers, noting neighbours whose intervals overlap, and where half of it is reached."""
    order = sorted(range(len(line.values)), key=line.values.__getitem__)[:SHOWN]
    parts = [f"layer {line.layers[order[0]]} {point(line, order[0])}"]
    for before, at in itertools.pairwise(order):
        remark = " (intervals overlap)" if apart(line, before, line, at) is False else ""
        parts.append(f"layer {line.layers[at]} {point(line, at)}{remark}")
    reached = f"half of the change is reached at layer {line.layers[half(line)]} of {line.layers[-1]}"
    return f"{', '.join(parts)}; {reached}."


class Words(Part):
    """Rows ``local_rsa_form=<form>``, the mean local RSA of the forms that are common in the text; words in context.

    The files of `write_moved` appear in the run folder.
    """

    name, order, tasks = "words", 20, ("local",)

    def stages(self, inputs: Compared) -> list[Stage]:
        """Return the stage ``words/moved``, unless no encoder changed."""
        if not inputs.tuned:
            return []
        depends = {**inputs.depends, "words": WORDS}
        return [Stage("words/moved", depends, lambda: self.work(inputs), product=FILES[1])]

    def work(self, inputs: Compared) -> list[Row]:
        """Return the rows, and keep the words."""
        inputs.skip(0)  # local RSA is of every word
        sentences = _first_words(inputs.texts())
        if len(sentences) < 2:
            return []
        try:
            moved = words_that_moved(
                inputs.base, inputs.tuned, sentences, (FORM,), metric=METRIC, progress=inputs.progress
            )
        except BertftError as error:
            inputs.progress.say(f"words that moved are left out: {error}")
            return []
        inputs.words += [word for name, one in moved.items() for word in _listed(name, one)]
        if inputs.out is not None:
            write_moved({METRIC: moved}, inputs.out, inputs.data)
        return [
            Row(name, "local", inputs.data, r.layer, str(MeasureName("local_rsa", label=r.label, grouping=FORM)),
                r.value, r.low, r.high, r.n, inputs.command.seed)
            for name, one in moved.items() for r in one.by[FORM] if r.label and "=" not in r.label
        ]  # fmt: skip

    def record(self, inputs: Compared) -> None:
        """Run the base over the words."""
        inputs.skip(0)
        whole = [as_words(sentence).words for sentence in _first_words(inputs.texts())]
        parts = [part for _, part in in_windows(whole, [inputs.base])]
        with inputs.progress.step("keep vectors of words", total=len(parts), unit="texts") as step:
            for batch in inputs.base.stream(parts):
                step.advance(len(batch.index))

    def said(self, found: Found) -> list[Said]:
        """Return the forms that moved most and least, and words in their sentences."""
        said = []
        several = len(found.tuned) > 1
        for name in found.tuned:
            line = found.similarity(name)
            if line is None or 1 - min(line.values) < HARDLY:
                continue
            layer, start = line.layers[line.lowest()], f"{name}: " if several else ""
            forms = found.forms(name, layer)
            if count := min(SHOWN, len(forms) // 2):
                most = ", ".join(_form(row) for row in forms[:count])
                least = ", ".join(_form(row) for row in forms[-count:][::-1])
                text = f"{start}at layer {layer} moved most {most}; least {least} (local RSA: 1 = not moved)."
                said.append(Said("words", text, rank=1))
            for word in _in_context(found.words, name, layer):
                said.append(Said("moved", f"{start}{number(word.value)} {word.context}", rank=2, word=word.word))
        return said


def _first_words(texts: Any) -> list[Sentence | Text]:
    """Return the first texts that hold `WORDS` words."""
    found: list[Sentence | Text] = []
    count = 0
    for text in texts:
        sentence = text if isinstance(text, Sentence) else _as_text(text)
        found.append(sentence)
        count += len(sentence.words if isinstance(sentence, Sentence) else sentence.text.split())
        if count >= WORDS:
            break
    return found


def _as_text(text: Any) -> Text:
    if isinstance(text, Text):
        return text
    return Text(getattr(text, "id", ""), " ".join(text.input("word").parts))


def _listed(name: str, moved: Moved) -> list[MovedWord]:
    return [MovedWord(name, word.layer, word.value, word.word, word.context) for word in moved.most]


def read_words(folder: Path) -> list[MovedWord]:
    """Return the words that moved most from the file of a run folder; none if there is no such file.

    Raises ``BertftError`` for a damaged file.
    """
    path = folder / FILES[1]
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf8", newline="") as file:
            return [
                MovedWord(row["model"], int(row["layer"]), float(row["value"]), row["word"], row["context"])
                for row in csv.DictReader(file)
                if row["moved"] == "most"
            ]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise BertftError(f"{path}: expected the words of a diff, found something else ({error!r})") from None


def _form(row: Row) -> str:
    return f"{MeasureName.parse(row.measure).label!r} {number(row.value, row.low, row.high, 2)}"


def _in_context(words: Sequence[MovedWord], model: str, layer: int) -> list[MovedWord]:
    """Return the words that moved most at a layer, each form once, in a short context."""
    seen: dict[str, MovedWord] = {}
    for word in words:
        if word.model == model and word.layer == layer:
            seen.setdefault(word.word.lower(), word)
    return [
        MovedWord(w.model, w.layer, w.value, w.word, _short(w.context, f"[{w.word}]")) for w in [*seen.values()][:SHOWN]
    ]


def _short(context: str, marked: str) -> str:
    before, _, after = context.partition(marked)
    left, right = before.split(), after.split()
    start = "… " if len(left) > CONTEXT else ""
    end = " …" if len(right) > CONTEXT else ""
    return f"{start}{' '.join([*left[-CONTEXT:], marked, *right[:CONTEXT]])}{end}"


PARTS: list[Part] = sorted(
    [Similarity(), MASSIVE, Words(), Directions(), Causes(), WeightsMoved()], key=lambda part: part.order
)
"""Every part, in the order in which they run and speak."""
