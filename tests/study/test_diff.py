"""`bertft.diff`: values, verdicts, refusals, the run folder."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModel

import bertft
from bertft.data import synthetic
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.report.lines import context
from bertft.report.page.answer import Said
from bertft.runs.rows import Row, read_results
from bertft.study.diff.parts import PARTS
from bertft.study.diff.verdict import MOST, Found, answer, at_most

from_peft = pytest.mark.filterwarnings("ignore::FutureWarning")  # while the test makes its adapter
TEXTS = [" ".join(sentence.words) for sentence in synthetic.sentences(40, seed=3)]


@pytest.fixture(scope="module")
def tuned(disturbed, tmp_path_factory) -> str:
    """Return a folder with the tiny encoder, its blocks 2 and 3 disturbed."""
    folder = tmp_path_factory.mktemp("models") / "tuned"
    encoder = disturbed(0, (1, 2))
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def found(tiny_model, tuned):
    return bertft.diff(tiny_model, tuned, TEXTS, tokens=None)


@pytest.fixture(autouse=True)
def _without_null(monkeypatch):
    """Leave out the null, most of the time of so small a diff; `found` has it."""
    monkeypatch.setattr("bertft.study.diff.parts.NULL", 0)


def adapter(tiny_model, folder, *, trained: bool, base: str | None = None) -> str:
    model = AutoModel.from_pretrained(tiny_model)
    config = peft.LoraConfig(r=2, target_modules=["query", "value"])
    wrapped = peft.get_peft_model(model, config)
    if trained:
        with torch.no_grad():
            for name, weight in wrapped.named_parameters():
                if "lora_B" in name:
                    weight.normal_(generator=torch.Generator().manual_seed(1))
    wrapped.peft_config["default"].base_model_name_or_path = base or str(tiny_model)
    wrapped.save_pretrained(folder)
    return str(folder)


def _similarities(rows: list[Row]) -> list[Row]:
    of_tuned = [row for row in rows if (row.task, row.model) == ("rsa", "tuned")]
    return [row for row in of_tuned if row.measure == "rsa_cosine_pearson"]


def test_similarities_equal_brute_force(found, tiny_model, tuned):
    spaces = []
    for name in (str(tiny_model), tuned):
        batches = list(Encoder.from_pretrained(name).stream(TEXTS, unit="token"))
        spaces.append(torch.cat([batch.vectors for batch in batches], dim=1).double().numpy())
    upper = np.triu_indices(spaces[0].shape[1], 1)
    rows = _similarities(found.rows)
    assert [row.layer for row in rows] == [0, 1, 2, 3] and rows[0].n == spaces[0].shape[1]
    for row, x, y in zip(rows, *spaces, strict=True):
        x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
        truth = np.corrcoef((x @ x.T)[upper], (y @ y.T)[upper])[0, 1]
        assert row.value == pytest.approx(truth, abs=1e-5) and row.low <= row.value <= row.high


def test_the_verdict_names_layers_words_blocks_and_cost(found):
    assert found.changed == {"tuned": True} and found.lowest["tuned"] < 0.98
    terms = [line.term for line in found.said]
    assert terms == ["changed", "where", "words", "moved", "moved", "moved", "direction", "cause", "weights", "cost"]
    lowest = min(_similarities(found.rows), key=lambda row: row.value)
    changed, where, words, moved, *_, weights, cost = found.verdict
    assert f"falls to {lowest.value:.3f} [{lowest.low:.3f}, {lowest.high:.3f}] at layer {lowest.layer}" in changed
    assert f"layer {lowest.layer} {lowest.value:.3f}" in where and " of 3." in where
    forms = [row for row in found.rows if row.task == "local" and row.layer == lowest.layer and "(" not in row.measure]
    most = min(forms, key=lambda row: row.value)
    assert f"most {most.measure.partition('=')[2]!r} {most.value:.2f}" in words
    assert "[" in moved and "block 2" in weights and "block 1 0.00 %" in weights and "embeddings 0.00 %" in weights
    assert f"{lowest.n} tokens of 40 texts" in cost.replace(",", "")


def test_noise_null_directions_causes_and_spectra_come_with_a_diff(found):
    lowest = min(_similarities(found.rows), key=lambda row: row.value)
    value = {(row.model, row.measure, row.layer): row for row in found.rows if row.task != "difference"}
    noise = value["noise of tuned", "rsa_cosine_pearson", lowest.layer]
    assert lowest.value < 1 and noise.value < 1 and (noise.n, noise.low is None) == (lowest.n, False)
    null = value["tuned", "rsa_cosine_pearson_null", lowest.layer]
    assert null.value < 0.5 < noise.value and null.value < null.high and 500 < null.n <= 1500
    changed, _, _, _, _, _, direction, cause, weights, _ = found.verdict
    assert f"unrelated texts {null.value:.3f}, at most {null.high:.3f}" in changed and f"{noise.value:.3f}" in changed
    first = value["tuned", "direction_share_1", lowest.layer]
    assert f"at layer {lowest.layer} the first direction carries {first.value:.2f} [" in direction
    ends = [end for end in found.found.ends if end.group == ("tuned", lowest.layer, "1")]
    low, high = ([end.word for end in ends if end.end == which][:3] for which in ("low", "high"))
    assert f"), from {low[0]!r}, {low[1]!r}, {low[2]!r} to {high[0]!r}, " in direction
    alone = [value["tuned", "swap_in_rsa_cosine_pearson", part].value for part in range(4)]
    assert alone[0] == alone[1] == 1 and f"block {alone.index(min(alone))}" in cause and f"{min(alone):.3f}" in cause
    assert value["tuned", "intruder_dimensions", 2].n == 6 and "intruder dimensions" in weights
    labels = [curve.label for curve in found.figure.panels[0].curves]
    assert labels == ["tuned", "noise of tuned", "null"]


def test_the_result_is_shown_in_a_notebook(found):
    html = found._repr_html_()
    assert html.count("<tr>") <= 6 and "data:image/png;base64," in html and "falls to" in html
    assert repr(found) == str(found) == "\n".join(found.verdict)
    assert found.plot().axes[0].get_ylabel().startswith("RSA")
    assert list(found.to_pandas().columns) == [*Row.__dataclass_fields__]


def test_a_model_against_itself_is_exactly_1_and_not_run(tiny_model, tmp_path, monkeypatch):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    monkeypatch.setattr(Encoder, "encode", None)
    same = bertft.diff(tiny_model, copy)
    similar = [(row.value, row.low, row.high, row.n) for row in same.rows if row.task == "rsa"]
    assert similar == [(1.0, 1.0, 1.0, None)] * 8 and same.changed == {"copy": False}
    assert same.verdict[0].endswith("copy is unchanged: its weights are those of the base.")
    assert len(same.said) == 2 and "nothing had to be measured" in same.verdict[1]


def test_an_equal_model_with_another_configuration_is_measured(tiny_model, tmp_path):
    encoder = Encoder.from_pretrained(str(tiny_model))
    encoder.model.config.layer_norm_eps = 1e-11  # as good as none
    same = bertft.diff(str(tiny_model), {"eps": encoder}, TEXTS)
    assert next(row.n for row in same.rows if row.task == "rsa") > 100
    assert "every layer has a similarity of 1" in same.verdict[0] and same.lowest["eps"] == pytest.approx(1, abs=1e-6)


@from_peft
def test_an_adapter_alone_is_compared_with_its_base(tiny_model, tmp_path):
    found = bertft.diff(adapter(tiny_model, tmp_path / "lora", trained=True), text=TEXTS)
    assert found.changed == {"lora": True} and f"similarity to {tiny_model.name} falls" in found.verdict[0]
    moved = [row.value for row in found.rows if row.measure == "relative_weight_distance"]
    assert moved[0] == 0 and min(moved[1:]) > 0


@from_peft
def test_an_untrained_adapter_is_unchanged_because_its_weights_are_zero(tiny_model, tmp_path):
    found = bertft.diff(adapter(tiny_model, tmp_path / "lora", trained=False), text=TEXTS)
    assert "lora is unchanged: the adapter's weights are zero." in found.verdict[0]
    assert {row.value for row in found.rows if row.task == "rsa"} == {1.0}


@from_peft
def test_several_adapters_of_one_base_need_no_base(tiny_model, tmp_path):
    first = adapter(tiny_model, tmp_path / "first", trained=True)
    second = adapter(tiny_model, tmp_path / "second", trained=False)
    found = bertft.diff(first, [second], TEXTS)
    assert found.changed == {"first": True, "second": False} and len(found.said) <= MOST


def test_a_tokenizer_that_gained_a_word_is_no_obstacle(tiny_model, tuned, tmp_path):
    grown = shutil.copytree(tuned, tmp_path / "grown")
    encoder = Encoder.from_pretrained(tuned)
    encoder.tokenizer.add_tokens(["<|new|>"])
    encoder.model.resize_token_embeddings(len(encoder.tokenizer))
    encoder.model.save_pretrained(grown)
    encoder.tokenizer.save_pretrained(grown)
    rows = {name: bertft.diff(tiny_model, {"a": model}, TEXTS).rows for name, model in (("", tuned), ("+", grown))}
    similar = [[(row.layer, row.value) for row in rows[name] if (row.task, row.model) == ("rsa", "a")] for name in rows]
    assert similar[0] == similar[1]
    assert not [row for row in rows["+"] if row.task == "weights"]  # the embeddings differ in shape


@pytest.mark.parametrize("unit", ["token", "word"])
def test_tokenizers_that_read_the_text_differently_need_words(tiny_model, tuned, unit):
    encoder = Encoder.from_pretrained(tuned)
    vocabulary = encoder.tokenizer.get_vocab()
    order = sorted(vocabulary, key=vocabulary.get)
    shifted = {word: place for place, word in enumerate([*order[:5], *order[6:], order[5]])}
    encoder.tokenizer = type(encoder.tokenizer)(vocab=shifted, do_lower_case=True, model_max_length=128)
    if unit == "word":
        assert bertft.diff(tiny_model, {"other": encoder}, TEXTS, unit="word").changed == {"other": True}
        return
    sentence = (
        r"the tokenizers of other and of the base read the text differently, first '.*compare words with --unit word"
    )
    with pytest.raises(BertftError, match=sentence):
        bertft.diff(tiny_model, {"other": encoder}, TEXTS)


def test_a_finished_diff_is_not_repeated(tiny_model, tuned, tmp_path, monkeypatch):
    monkeypatch.setattr("bertft.study.diff.run.redraw", lambda *args, **kwargs: None)
    out = tmp_path / "run"
    first = bertft.diff(tiny_model, tuned, TEXTS, out=out)
    assert first.rows == read_results(out / "results.csv") and first.folder == out
    with (out / "words.csv").open(encoding="utf8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 20 * 4
    monkeypatch.setattr(Encoder, "encode", None)
    again = bertft.diff(tiny_model, tuned, TEXTS, out=out)
    assert again.rows == first.rows and again.said[:-2] == first.said[:-2]
    assert not list(out.glob("checkpoint*"))
    (out / "words.csv").write_text("model,layer\na,b\n", encoding="utf8")
    with pytest.raises(BertftError, match=r"words\.csv: expected the words of a diff"):
        bertft.diff(tiny_model, tuned, TEXTS, out=out)


def test_an_error_leaves_nothing_and_a_fault_of_a_model_is_named(tiny_model, tuned, tmp_path):
    broken = Encoder.from_pretrained(tuned)
    with torch.no_grad():
        broken.model.encoder.layer[1].output.dense.bias[0] = float("nan")
    with pytest.raises(BertftError, match=r"similarity: row 0 of text \d+ .* in layer 2 of broken, holds NaN"):
        bertft.diff(tiny_model, {"broken": broken}, TEXTS, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_noise_and_null_are_read_where_other_analyses_give_them():
    rows = [
        Row("dep", "rsa", "t", k, "rsa_cosine_pearson", 1 - k / 4, 0.9 - k / 4, 1.1 - k / 4, 90, 1) for k in range(3)
    ]
    rows += [Row("noise of dep", "rsa", "t", k, "rsa_cosine_pearson", 0.999, 0.998, 1.0, 90, 1) for k in range(3)]
    rows += [Row("dep", "null", "t", k, "rsa_cosine_pearson_null", 0.01, 0.0, 0.03, 90, 1) for k in range(3)]
    config = {"base": "b", "tuned": {"dep": "runs/dep"}, "unit": "token", "text": "t"}
    found = Found(rows, context(config, rows), {})
    said = [line for part in PARTS for line in part.said(found)]
    assert said[0].text == (
        "dep changed: its similarity to b falls to 0.500 [0.400, 0.600] at layer 2 (1 = the same; unrelated texts "
        "0.010, at most 0.030). A random change of the same size leaves it at 0.999 [0.998, 1.000]."
    )
    assert [line.term for line in said] == ["changed", "where"]
    table = {number.name: number.cell.value for number in answer(found, said, "").numbers}
    assert table["noise of the same size, layer 2"] == "0.999" and table["unrelated texts, layer 2"] == "0.010"


def test_massive_activations_directions_and_causes_are_read_where_other_analyses_give_them():
    rows = [Row("dep", "rsa", "t", k, "rsa_cosine_pearson", 1 - k / 4, None, None, 90, 1) for k in range(3)]
    rows += [Row("dep", "sinks", "t", k, "massive_stimuli", float(3 * k), None, None, 90, 1) for k in range(3)]
    for measure, value in (("direction_share_1", 0.46), ("direction_rank", 4.2), ("mean_shift_share", 0.15)):
        rows.append(Row("dep", "directions", "t", 2, measure, value, value - 0.01, value + 0.01, 90, 1))
    rows += [Row("dep", "causes", "t", k, "swap_in_rsa_cosine_pearson", 0.9 - k / 5, n=90) for k in range(3)]
    rows += [Row("dep", "causes", "t", k, "swap_out_rsa_cosine_pearson", 0.5 + k / 5, n=90) for k in range(3)]
    config = {"base": "b", "tuned": {"dep": "runs/dep"}}
    said = {line.term: line.text for part in PARTS for line in part.said(Found(rows, context(config, rows), {}))}
    assert list(said) == ["changed", "where", "massive", "direction", "cause"]
    assert said["massive"] == "6 of 90 stimuli are massive activations at layer 2 and left out."
    assert said["direction"] == (
        "at layer 2 the first direction carries 0.46 [0.45, 0.47] of the change (effective rank 4.2); "
        "0.15 [0.14, 0.16] is a shift that all tokens have in common."
    )
    assert said["cause"] == "block 2 alone moves the top layer to 0.500; without it that layer is at 0.900."


CAUSED = {  # similarity of the base with one part alone, of all parts, how far the strongest leads: the sentence
    "one block": ((1.0, 0.9, 0.6), 0.5, (0.2, 0.4), "block 2 alone moves the top layer to 0.600."),
    "the embeddings": ((0.6, 0.9, 1.0), 0.5, (0.2, 0.4), "the embeddings alone move the top layer to 0.600."),
    "no leader": ((1.0, 0.65, 0.6), 0.5, (0.0, 0.1), "the strongest alone, block 2, to 0.600."),
    "less than half": (
        (1.0, 0.9, 0.76),
        0.5,
        (0.1, 0.2),
        "all move the top layer to 0.500, the strongest alone, block 2",
    ),
}


@pytest.mark.parametrize("case", [*CAUSED])
def test_a_block_is_the_cause_only_if_it_leads_and_makes_half_of_the_change(case):
    alone, whole, (low, high), sentence = CAUSED[case]
    rows = [Row("dep", "rsa", "t", k, "rsa_cosine_pearson", 1 - k / 4, n=90) for k in range(3)]
    rows += [Row("dep", "causes", "t", k, "swap_in_rsa_cosine_pearson", v, n=90) for k, v in enumerate(alone)]
    rows.append(Row("dep", "causes", "t", None, "rsa_cosine_pearson", whole, n=90))
    lead = (alone.index(min(alone)), "swap_in_rsa_cosine_pearson_difference", (low + high) / 2, low, high)
    rows.append(Row("dep", "causes", "t", *lead, 90))
    said = [line for part in PARTS for line in part.said(Found(rows, context({"tuned": {"dep": ""}}, rows), {}))]
    cause = next(line.text for line in said if line.term == "cause")
    assert sentence in cause and cause.startswith("spread over several blocks") == (
        case in ("no leader", "less than half")
    )


@pytest.mark.parametrize(("low", "high", "more"), [(-0.2, -0.01, True), (-0.2, 0.01, False)])
def test_changed_more_than_noise_is_said_by_the_interval_of_the_difference(low, high, more):
    rows = [Row("dep", "rsa", "t", k, "rsa_cosine_pearson", 0.9, 0.8, 1.0, 90, 1) for k in range(2)]
    rows += [Row("noise of dep", "rsa", "t", k, "rsa_cosine_pearson", 0.99, 0.9, 1.0, 90, 1) for k in range(2)]
    pair = "dep - noise of dep"
    rows += [Row(pair, "difference", "t", k, "rsa_cosine_pearson", -0.09, low, high, 90, 1) for k in range(2)]
    found = Found(rows, context({"tuned": {"dep": ""}}, rows), {})
    text = next(line.text for part in PARTS for line in part.said(found) if line.term == "changed")
    assert text.startswith("dep changed: ") == more and ("no more than noise" in text) != more


def test_lines_beyond_twelve_are_dropped_by_rank():
    said = [Said("changed", str(i)) for i in range(6)] + [Said("moved", str(i), 2) for i in range(9)]
    kept = at_most([*said, Said("where", "", 1)])
    assert len(kept) == 12 and [line.term for line in kept[-2:]] == ["moved", "where"] and kept[10].text == "4"
    many = at_most([Said("changed", str(i)) for i in range(20)])
    assert len(many) == 12 and many[-1] == Said("more", "9 more lines are in the results")
