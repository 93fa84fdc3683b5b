"""Causes of a change: which block, exchanged alone, moves the top layer."""

from __future__ import annotations

import copy

import pytest

from bertft.data import synthetic
from bertft.errors import BertftError
from bertft.models.blocks import blocks
from bertft.models.encoder import Encoder
from bertft.runs.progress import SILENT
from bertft.runs.vocabulary import CATALOGUE, MeasureName
from bertft.similarity import Plan, compare_stream
from bertft.similarity.causes import block_causes, rows_of_causes
from bertft.similarity.paired_stimuli import Draw

TEXTS = [" ".join(s.words) for s in synthetic.sentences(20, seed=3)]
MEASURES = ["rsa_cosine_pearson", "cka_debiased"]


def test_a_model_with_one_changed_block_names_it(tiny_model, disturbed):
    base, tuned = Encoder.from_pretrained(str(tiny_model)), disturbed(blocks=(1,))
    for causes in block_causes(base, {"t": tuned}, TEXTS, draw=Draw(None))["t"]:
        assert causes.strongest == 2 and causes.whole.value < 0.999
        assert causes.swap_in[2].value == pytest.approx(causes.whole.value, abs=1e-6)
        assert causes.swap_out[2].value == pytest.approx(1, abs=1e-6)
        assert [causes.swap_in[part].value for part in (0, 1, 3)] == [1.0] * 3 and causes.lead is None
        assert [causes.swap_out[part] for part in (0, 1, 3)] == [causes.whole] * 3


def test_values_and_intervals_equal_those_of_whole_encoders(tiny_model, disturbed):
    """The lead equals the paired difference of a comparison."""
    base, tuned = Encoder.from_pretrained(str(tiny_model)), disturbed(blocks=(0, 2))
    encoders = {"whole": tuned}
    for part in (1, 3):
        for way, host, guest in (("swap_in", base, tuned), ("swap_out", tuned, base)):
            model = copy.deepcopy(host.model)
            blocks(model)[part - 1].load_state_dict(blocks(guest.model)[part - 1].state_dict())
            encoders[f"{way} {part}"] = Encoder(model, base.tokenizer)
    rows = compare_stream(base, encoders, TEXTS, Plan(), data="text")
    expected = {(row.model, row.measure): row for row in rows if row.layer == 3}
    causes = block_causes(base, {"t": tuned}, TEXTS, draw=Draw(None))
    for one in causes["t"]:
        sign, second = (1, 1) if one.strongest == 3 else (-1, 3)
        lead = expected["swap_in 1 - swap_in 3", one.measure]
        assert one.lead.value == pytest.approx(sign * lead.value, abs=1e-6) and one.lead.value > 0
        assert one.lead.high - one.lead.low == pytest.approx(lead.high - lead.low, abs=1e-5)
        assert one.swap_in[second].value > one.swap_in[one.strongest].value
    found = rows_of_causes(causes, "text", 5)
    leads = [row for row in found if row.measure.endswith("_difference")]
    assert [(row.layer, row.value, row.low) for row in leads] == [
        (one.strongest, one.lead.value, one.lead.low) for one in causes["t"]
    ]
    seen = set()
    for row in found:
        if row in leads:
            continue
        way, measure = split(row.measure)
        if row.layer is None:
            truth = expected["whole", measure]
        elif (truth := expected.get((f"{way} {row.layer}", measure))) is None:
            continue
        seen.add((way, row.layer, measure))
        assert (row.value, row.low, row.high) == pytest.approx((truth.value, truth.low, truth.high), abs=1e-5)
        assert (row.n, row.seed, row.data) == (truth.n, 5, "text")
    assert len(seen) == 2 * 5


def split(name: str) -> tuple[str, str]:
    """Return the way and the measure of a row's name."""
    assert MeasureName.parse(name).base in CATALOGUE
    way = next((way for way in ("swap_in", "swap_out") if name.startswith(way)), "")
    return way, name.removeprefix(f"{way}_") if way else name


def test_texts_beyond_the_window_are_left_out_and_said(tiny_model, disturbed):
    base, tuned, said = Encoder.from_pretrained(str(tiny_model)), disturbed(), []

    class Heard:
        step = staticmethod(SILENT.step)
        say = staticmethod(said.append)

    texts = [*TEXTS, "the dogs saw " * 100]
    found = block_causes(base, {"t": tuned}, texts, draw=Draw(None), progress=Heard())["t"]
    assert found == block_causes(base, {"t": tuned}, TEXTS, draw=Draw(None))["t"]
    assert said == ["causes: left out 1 texts beyond the window of 128"]
    with pytest.raises(BertftError, match="needs at least 2 texts within the window of 128, found 1"):
        block_causes(base, {"t": tuned}, texts[-2:], draw=Draw(None))


def test_a_metric_without_linear_sums_is_refused(tiny_model):
    base = Encoder.from_pretrained(str(tiny_model))
    with pytest.raises(BertftError, match=r"causes: metric must be one of dot, .* found 'euclidean'"):
        block_causes(base, {"t": base}, TEXTS, metric="euclidean")
