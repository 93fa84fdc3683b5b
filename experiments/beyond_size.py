"""Layers that training moved more than the size of its change explains.

With d the RSA to the base of a tuned encoder minus that of a random change of the same size (`bertft.models.noise`),
z = -mean(d) / sqrt(mean(e^2) + s^2 (1 + 1/R)) over R random changes, e the standard error of one d, paired by sentence,
and s the standard deviation of d over them. Above 2, training moved the layer more than its size explains.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from functools import partial

from bertft.data.sampling import stimuli_order
from bertft.models.noise import noise_encoders
from bertft.report.figure import Figure
from bertft.report.lines import Context, Line, lines, number
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.runs.vocabulary import is_noise, noise_of, operands, pair
from bertft.similarity import Plan, compare_stream
from bertft.study.analysis import layered_figures
from bertft.study.repeat import Experiment, RepeatedStudy

NAME, Z, HALF = "beyond_size", "z", 1.959964  # half a 95 % interval, in standard errors


class BeyondSize(Experiment):
    """RSA to the base of tuned encoders, of random changes, and of unrelated texts.

    Options ``beyond_size``: ``seeds``, the study's ``text``, the numbers of ``tokens``, of random changes (``draws``)
    and of ``derangements`` for the null.
    """

    name, order = NAME, 75

    def stages(self, study: RepeatedStudy) -> list[Stage]:
        """Return a stage for every seed, after the models."""
        options = study.options(NAME, "seeds", "draws", "derangements", "text", "tokens")
        found = study.study_stages("models", seeds=options["seeds"])
        for seed in options["seeds"]:
            found.append(study.stage(f"{NAME}/seed{seed}", seed, {NAME: options}, partial(self.work, study, seed)))
        return found

    def work(self, study: RepeatedStudy, seed: int) -> list[Row]:
        """Return the rows of one seed, with one row over all random changes."""
        options, inputs = study.options(NAME), study.inputs(seed)
        base, tuned, drawn = inputs.encoder("base"), inputs.encoders(), dict[tuple[object, ...], list[Row]]()
        for draw in range(options["draws"]):
            null = options["derangements"] if draw == 0 else 0
            plan = Plan(measures=("rsa",), seed=seed, null=null, null_sample=1200, null_of_noise=False)
            both = {**tuned, **noise_encoders(base, tuned, seed + draw)}
            examples = stimuli_order(inputs.stimuli(options["text"]), options["tokens"], seed)
            size = {"tokens": options["tokens"], "data": options["text"], "progress": study.progress}
            for row in compare_stream(base, both, examples, plan, **size) or []:
                drawn.setdefault(row.key, []).append(dataclasses.replace(row, seed=seed))
        noise = {noise_of(name) for name in tuned} | {pair(name, noise_of(name)) for name in tuned}
        kept = [rows for rows in drawn.values() if rows[0].task in ("rsa", "null") or rows[0].model in noise]
        return [over_draws(rows) if rows[0].model in noise else rows[0] for rows in kept]

    def figures(self, rows: Sequence[Row], context: Context) -> list[Figure]:
        """Return RSA of tuned encoders and of random changes, and z by layer."""
        return layered_figures(
            NAME,
            "Which layers moved more than the size of the change explains",
            f"Similarity to the base on {rows[0].data}. z: random change minus training, over its standard error.",
            [*lines(rows, "rsa"), *z_by_layer(rows)],
            panel=lambda line: Z if line.data == Z else line.model.removeprefix(noise_of("")),
            ylabel=lambda line: Z if line.data == Z else "RSA (cosine, Pearson)",
            label=lambda line: "random change" if is_noise(line.model) else line.model,
        )

    def tables(self, rows: Sequence[Row], context: Context) -> Mapping[str, str]:
        """Return z by layer."""
        found = z_by_layer(rows)
        table = [[Z, *(f"layer {k}" for k in found[0].layers)], ["---"] * (1 + len(found[0].layers))]
        table += [[line.model, *(number(value, digits=1) for value in line.values)] for line in found]
        return {NAME: "".join(f"| {' | '.join(cells)} |\n" for cells in table)}


def over_draws(rows: Sequence[Row]) -> Row:
    """Return the mean of one row over random changes, with an interval for one more of them."""
    values, errors = [row.value for row in rows], [(row.high - row.low) / (2 * HALF) for row in rows]
    spread = statistics.variance(values) * (1 + 1 / len(rows))
    mean, half = statistics.fmean(values), HALF * (statistics.fmean(e * e for e in errors) + spread) ** 0.5
    return dataclasses.replace(rows[0], value=mean, low=mean - half, high=mean + half)


def z_by_layer(rows: Sequence[Row]) -> list[Line]:
    """Return z of every tuned encoder, as lines on the text ``z``; 0 where neither moved."""
    found = []
    for line in lines(rows, "difference"):
        errors, none = [(b - a) / (2 * HALF) for a, b in zip(line.lows, line.highs, strict=True)], (None,) * len(line.n)
        z = tuple(-value / e if e else 0.0 for value, e in zip(line.values, errors, strict=True))
        found.append(dataclasses.replace(line, model=operands(line.model)[0], data=Z, values=z, lows=none, highs=none))
    return found


EXPERIMENT = BeyondSize()
