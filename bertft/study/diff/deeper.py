"""Parts that look for the kind and the cause of a change; each is left out for models that it cannot compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bertft.errors import BertftError
from bertft.models.logit_lens import logit_lens
from bertft.report.figure import Figure, HeatMap
from bertft.report.lines import Context
from bertft.report.page.direction_words import MEAN, DirectionEnd
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.similarity.causes import block_causes, rows_of_causes
from bertft.similarity.direction_words import FILES, write_directions
from bertft.similarity.directions import LayerDirections, directions_of_change, rows_of_directions
from bertft.similarity.paired_stimuli import Draw, Stimuli
from bertft.study.analyses.causes import Causes as StudyCauses
from bertft.study.analyses.directions import Directions as StudyDirections
from bertft.study.diff.further import Reading, causes, directions
from bertft.study.diff.models import Compared

DIRECTIONS = 3  # of each layer
TOKENS = 5000  # most stimuli whose change is taken apart
EXCHANGED = 1000  # most stimuli that read exchanged blocks
PASSES = 15_000  # stimuli times passes of whole encoders: exchanges cost about as much as a comparison of 5,000 stimuli


class Directions(Reading):
    """Rows ``mean_shift_share``, ``direction_rank`` and ``direction_share_<j>``; and the files of `write_directions`.

    Only encoders of the base's architecture and width share its basis.
    """

    def __init__(self) -> None:
        super().__init__("direction", 40, directions)

    def stages(self, inputs: Compared) -> list[Stage]:
        """Return the stage ``directions/<text>``, unless no encoder changed."""
        if not inputs.tuned:
            return []
        depends = {**inputs.depends, "directions": [DIRECTIONS, TOKENS]}
        return [Stage(f"directions/{inputs.data}", depends, lambda: self.work(inputs), product=FILES[0])]

    def work(self, inputs: Compared) -> list[Row]:
        """Return the rows, and write the files."""
        inputs.skip(inputs.command.skip_first or 0)
        base = inputs.base
        found: dict[str, list[LayerDirections]] = {}
        for name, encoder in inputs.tuned.items():
            if type(encoder.model) is not type(base.model) or encoder.dim != base.dim:
                inputs.progress.say(f"{name}: its vectors have another basis than the base; directions are left out")
                continue
            try:
                found |= directions_of_change(
                    base, {name: encoder}, inputs.drawn(TOKENS), k=DIRECTIONS, draw=_draw(inputs, TOKENS),
                    progress=inputs.progress,
                )  # fmt: skip
            except BertftError as error:
                inputs.progress.say(f"{name}: directions are left out: {error}")
        inputs.ends += _ends(found)
        if inputs.out is not None:
            lens = inputs.released.lens if inputs.released else logit_lens(base) if found else None
            write_directions(found, inputs.out, inputs.data, lens)
        return rows_of_directions(found, inputs.data, inputs.command.seed)

    def record(self, inputs: Compared) -> None:
        """Run the base over the stimuli, unless they are too few; the stage then says so."""
        inputs.skip(inputs.command.skip_first or 0)
        draw = _draw(inputs, TOKENS)
        try:
            stimuli = Stimuli("directions", inputs.base, {"base": inputs.base}, inputs.drawn(TOKENS), draw)
        except BertftError:
            return
        with inputs.progress.step("keep vectors for directions", total=len(stimuli), unit=f"{draw.unit}s") as step:
            for lengths in stimuli.encoded(inputs.base):
                step.advance(lengths)

    def figures(self, rows: Sequence[Row], context: Context) -> Sequence[Figure | HeatMap]:
        """Return the figure of a study."""
        return StudyDirections().figures(rows, context)


class Causes(Reading):
    """Rows ``swap_in_<measure>`` and ``swap_out_<measure>`` by block; none where blocks cannot be exchanged."""

    def __init__(self) -> None:
        super().__init__("cause", 50, causes)

    def stages(self, inputs: Compared) -> list[Stage]:
        """Return the stage ``causes/<text>``, unless no encoder changed or the base is not in memory."""
        if not inputs.tuned or inputs.released:
            return []
        depends = {**inputs.depends, "causes": exchanged(inputs.base.num_layers)}
        return [Stage(f"causes/{inputs.data}", depends, lambda: self.work(inputs))]

    def work(self, inputs: Compared) -> list[Row]:
        """Return the rows."""
        inputs.skip(inputs.command.skip_first or 0)
        rows, tokens = [], exchanged(inputs.base.num_layers)
        for name, encoder in inputs.tuned.items():
            try:
                found = block_causes(
                    inputs.base, {name: encoder}, inputs.drawn(tokens), draw=_draw(inputs, tokens),
                    progress=inputs.progress,
                )  # fmt: skip
            except BertftError as error:
                inputs.progress.say(f"{name}: causes are left out: {error}")
                continue
            rows += rows_of_causes(found, inputs.data, inputs.command.seed)
        return rows

    def figures(self, rows: Sequence[Row], context: Context) -> Sequence[Figure | HeatMap]:
        """Return the figure of a study."""
        return StudyCauses().figures(rows, context)


def _ends(found: Mapping[str, Sequence[LayerDirections]]) -> list[DirectionEnd]:
    """Return the words at both ends of every direction."""
    return [
        DirectionEnd(
            name, one.layer, str(e.direction) if e.direction else MEAN, "", e.end, e.value, e.word, e.context, e.count,
            e.mean,
        )
        for name, layers in found.items() for one in layers for e in one.ends
    ]  # fmt: skip


def exchanged(layers: int) -> int:
    """Return how many stimuli read exchanged blocks: fewer in deep models, whose blocks need more passes."""
    passes = layers + 3  # 2 (layers - 1) of half the height, 2 of the embeddings' and 2 of whole encoders
    return min(EXCHANGED, PASSES // passes)


def _draw(inputs: Compared, tokens: int) -> Draw:
    """Return which stimuli to take of the texts that `Compared.drawn` gives."""
    command = inputs.command
    most = tokens if command.tokens is None else min(tokens, command.tokens)
    return Draw(most, command.unit, command.seed)
