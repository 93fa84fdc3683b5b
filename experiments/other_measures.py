"""RSA, CKA and Procrustes similarity to the base encoder.

Do the measures agree?
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bertft.data.sampling import stimuli_order
from bertft.report.figure import Figure
from bertft.report.lines import Context, Line, lines
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.similarity import Plan, compare_stream
from bertft.study.analysis import layered_figures
from bertft.study.repeat import Experiment, RepeatedStudy

TITLES = {"rsa_cosine_pearson": "RSA (cosine, Pearson)", "cka_debiased": "CKA (debiased)", "procrustes": "Procrustes"}


class OtherMeasures(Experiment):
    """Three measures on one text.

    Options ``text``: the study's ``text`` and the number of ``tokens``.
    """

    name, order = "measures", 50

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return a stage for every seed, after the models."""
        settings = {"text": study.options("text", "text", "tokens")}
        return [*study.study_stages("models"), *study.stages_by_seed("measures", settings, partial(self.work, study))]

    def work(self, study: RepeatedStudy, seed: int) -> list[Row]:
        """Return the rows of one seed."""
        options, inputs = study.options("text"), study.inputs(seed)
        examples = stimuli_order(inputs.stimuli(options["text"]), options["tokens"], seed)
        rows = compare_stream(
            inputs.encoder("base"),
            inputs.encoders(),
            examples,
            Plan(measures=("rsa", "cka", "procrustes"), seed=seed),
            tokens=options["tokens"],
            data=options["text"],
            progress=study.progress,
        )
        return [row for row in rows or [] if row.task != "difference"]

    def figures(self, rows: Sequence[Row], context: Context) -> list[Figure]:
        """Return a panel for each measure."""
        shown: list[Line] = [line for task in ("rsa", "similarity") for line in lines(rows, task)]
        return layered_figures(
            "measures",
            "Three measures of how far each layer moved from the base encoder",
            f"On {rows[0].data}. 1 = unchanged.",
            shown,
            panel=lambda line: TITLES[line.measure],
            ylabel=lambda line: "similarity to the base",
            share_y=True,
        )


EXPERIMENT = OtherMeasures()
