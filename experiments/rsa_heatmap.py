"""Every layer of the base encoder against every layer of a tuned one: where did a layer's geometry go?"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bertft.report.figure import HeatMap, Matrix
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.similarity import CrossMoments
from bertft.similarity.compare.stimuli import choose, cut, example_of, side_by_side
from bertft.study.repeat import Lab

MEASURE = "rsa_cosine_pearson_base"


def stages(lab: Lab) -> list[Stage]:
    """Options ``text``: the study's text and how many ``tokens``."""
    options = lab.options("text", "text", "tokens")
    found = lab.study_stages("models")
    for seed in lab.seeds:
        work = lambda seed=seed: measure(lab, seed, **options)
        found.append(lab.stage(f"heatmap/seed{seed}", seed, {"text": options}, work))
    return found


def measure(lab: Lab, seed: int, text: str, tokens: int) -> list[Row]:
    """``rsa_cosine_pearson_base<l>`` at layer k: layer k of the tuned encoder against layer l of the base."""
    base = lab.encoder(seed, "base")
    examples = [example_of(example, "token") for example in lab.materials(seed).stimuli(text)]
    chosen, counts, _ = choose(base, examples, tokens=tokens, unit="token", seed=seed)
    rows = []
    for name in ("base", *lab.setting.study.tasks):
        encoders = [base, lab.encoder(seed, name)]
        sums = CrossMoments(base.num_layers, encoders[1].num_layers, "cosine", pairs="all")
        left = torch.tensor(counts)
        streams = [encoder.stream(chosen, unit="token", window="split") for encoder in encoders]
        with torch.inference_mode():
            for index, lengths, spaces in side_by_side(streams):
                sums.update(*cut(index, lengths, left, spaces)[1])
        for of_base, values in enumerate(sums.rsa().tolist()):
            for layer, value in enumerate(values):
                rows.append(Row(name, "heatmap", text, layer, f"{MEASURE}{of_base}", value, n=len(sums), seed=seed))
    return rows


def figures(rows: Sequence[Row], lab: Lab) -> list[HeatMap]:
    panels = []
    for model in dict.fromkeys(row.model for row in rows):
        own = {(int(row.measure.removeprefix(MEASURE)), row.layer): row.value for row in rows if row.model == model}
        base, tuned = sorted({key[0] for key in own}), sorted({key[1] for key in own})
        values = [[own[i, j] for j in tuned] for i in base]
        panels.append(Matrix(model, values, [str(i) for i in base], [str(j) for j in tuned]))
    return [
        HeatMap(
            "rsa_heatmap",
            "Every layer against every layer of the base encoder",
            f"RSA (cosine, Pearson) on {rows[0].data}, {rows[0].n:,} tokens; without intervals, which fig2_rsa has for "
            "the diagonal. The first panel is the base encoder against itself.",
            tuple(panels),
            "layer of the panel's encoder",
            "layer of the base encoder",
            "RSA",
            low=min(0.0, *(row.value for row in rows)),
            columns=2,
        )
    ]
