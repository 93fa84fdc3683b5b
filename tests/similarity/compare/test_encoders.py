"""compare_stream: values, resuming, checkpoints, refusals.

Resumed runs end with the same bits.
"""

from __future__ import annotations

import math
import os
import types

import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import kendalltau, pearsonr, spearmanr

from bertft.data import synthetic
from bertft.data.examples import Text
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.ops.reference import compare_matrices
from bertft.runs import process as memory
from bertft.runs.checkpoint import Checkpoint
from bertft.runs.progress import SILENT
from bertft.similarity.compare import all_pairs as sampled
from bertft.similarity.compare import stream
from bertft.similarity.compare.encoders import compare_stream
from bertft.similarity.compare.plan import Plan
from bertft.similarity.moments import CrossMoments

TEXTS = [" ".join(s.words) for s in synthetic.sentences(60, seed=3)]
OPTIONS = {"batch_tokens": 256, "data": "toy"}
FULL = Plan(measures=("rsa", "cka", "cca", "procrustes", "effective_dimension"), sample=150)


@pytest.fixture(autouse=True, scope="module")
def small_buffers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "BUFFER", 16)
        patch.setattr(sampled, "RESAMPLES", 40)
        yield


@pytest.fixture(scope="module")
def encoders(tiny_model, disturbed):
    return Encoder.from_pretrained(str(tiny_model)), disturbed(0), disturbed(1)


def vectors(encoder: Encoder, tokens: int | None = None) -> torch.Tensor:
    """Return (L, T, D) of the texts, one by one, in their order."""
    parts = [next(iter(encoder.stream([text], unit="token"))).vectors for text in TEXTS]
    return torch.cat(parts, dim=1)[:, :tokens].double().cpu()


@pytest.fixture(scope="module")
def streamed(encoders):
    """Rows of a stream by (model, measure, layer), and all vectors behind them (L, 301, D)."""
    base, tuned, _ = encoders
    plan = Plan(("cosine", "sqeuclidean"), ("pearson", "cosine"), ("rsa", "cka", "cca", "linear_r2", "anisotropy"))
    rows = compare_stream(base, {"t": tuned}, iter(TEXTS), plan, tokens=301, **OPTIONS)
    return {(row.model, row.measure, row.layer): row for row in rows}, vectors(base, 301), vectors(tuned, 301)


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean"])
def test_rsa_of_a_stream_is_that_of_all_pairs(streamed, metric):
    found, x, y = streamed
    for layer in range(4):
        a, b = (torch.from_numpy(pdist(space[layer].numpy(), metric)) for space in (x, y))
        for compare in ("pearson", "cosine"):
            expected = float(compare_matrices(a, b, compare))
            assert found["t", f"rsa_{metric}_{compare}", layer].value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("measure", ["cka_debiased", "cca", "linear_r2"])
def test_measures_of_a_stream_are_those_of_all_vectors(streamed, measure):
    found, x, y = streamed
    moments = CrossMoments(4, 4, "dot").update(x, y)
    for layer, expected in enumerate(getattr(moments, measure.removesuffix("_debiased"))().tolist()):
        assert found["t", measure, layer].value == pytest.approx(expected, abs=1e-5)


def test_anisotropy_of_a_stream_is_the_mean_cosine_of_all_pairs(streamed):
    found, *spaces = streamed
    for model, space in zip(("base", "t"), spaces, strict=True):
        for layer in range(4):
            expected = 1 - pdist(space[layer].numpy(), "cosine").mean()
            assert found[model, "anisotropy", layer].value == pytest.approx(expected, abs=1e-6)


def test_rows_of_a_stream_count_all_stimuli(streamed):
    assert {row.n for row in streamed[0].values()} == {301}


@pytest.mark.parametrize("layers", [(0, 2), (3,), (1,)])
def test_chosen_layers_have_the_rows_of_all_layers(encoders, layers):
    base, tuned, other = encoders
    measures = ("rsa", "cka", "mutual_knn", "effective_dimension")
    both = {"t": tuned, "u": other}
    whole = compare_stream(base, both, TEXTS, Plan(measures=measures, sample=150), tokens=301, **OPTIONS)
    some = compare_stream(base, both, TEXTS, Plan(measures=measures, sample=150, layers=layers), tokens=301, **OPTIONS)
    assert some == [row for row in whole if row.layer in layers]


def test_layers_that_an_encoder_lacks_are_refused(encoders):
    base, tuned, _ = encoders
    with pytest.raises(BertftError, match=r"layers must lie in 0\.\.3 for the base, found 4 \(--layers\)"):
        compare_stream(base, {"t": tuned}, TEXTS, Plan(layers=(0, 4)), **OPTIONS)
    with pytest.raises(BertftError, match=r"layers must be different numbers from 0 on, found \[1, 1\]"):
        Plan(layers=(1, 1))
    with pytest.raises(BertftError, match="found all_layers"):
        Plan(layers=(1,), all_layers=True)


def test_a_bad_row_of_a_chosen_layer_has_its_number(encoders, tiny_model):
    base, broken = encoders[0], Encoder.from_pretrained(str(tiny_model))
    with torch.no_grad():
        broken.model.encoder.layer[1].output.LayerNorm.weight.fill_(math.nan)
    with pytest.raises(BertftError, match="in layer 2 of t, holds NaN"):
        compare_stream(base, {"t": broken}, TEXTS, Plan(layers=(0, 2)), **OPTIONS)


def test_an_encoder_spread_by_accelerate_gives_the_same_rows(encoders, tiny_model):
    base, tuned, _ = encoders
    spread = Encoder.from_pretrained(str(tiny_model), device_map="auto")
    assert len(spread.layer_devices) == 4
    alone = compare_stream(base, {"t": tuned}, TEXTS, Plan(sample=150), tokens=301, **OPTIONS)
    assert compare_stream(spread, {"t": tuned}, TEXTS, Plan(sample=150), tokens=301, **OPTIONS) == alone


def test_intervals_of_a_stream_contain_their_value(streamed):
    for (model, measure, layer), row in streamed[0].items():
        assert row.low <= row.value <= row.high, (model, measure, layer)
        if measure == "anisotropy":
            assert row.low < row.high, (model, layer)


def test_pairwise_measures_are_those_of_the_sampled_stimuli(encoders):
    base, tuned, _ = encoders
    plan = Plan(("euclidean",), ("spearman", "kendall"), ("rsa", "mutual_knn", "cka_rbf"), sample=10**6)
    rows = compare_stream(base, {"t": tuned}, TEXTS, plan, tokens=120, **OPTIONS)
    x, y = vectors(base, 120), vectors(tuned, 120)
    found = {(row.measure, row.layer): row for row in rows}
    assert {m for m, _ in found} == {
        "rsa_euclidean_spearman", "rsa_euclidean_kendall", "mutual_knn_10", "cka_rbf",
    }  # fmt: skip
    for compare, function in (("spearman", spearmanr), ("kendall", kendalltau)):
        expected = function(pdist(x[3].numpy()), pdist(y[3].numpy())).statistic
        row = found[f"rsa_euclidean_{compare}", 3]
        assert row.value == pytest.approx(expected, abs=1e-4) and row.low < row.value < row.high and row.n == 120
    assert found["mutual_knn_10", 1].value == pytest.approx(1) and 0.05 < found["mutual_knn_10", 3].value < 1


def test_batches_added_one_late_give_the_same_bits(encoders, tmp_path, monkeypatch):
    """As on a GPU, with a checkpoint after every batch."""
    base, tuned, _ = encoders
    whole = compare_stream(base, {"t": tuned}, TEXTS, FULL, tokens=500, **OPTIONS)
    monkeypatch.setattr("bertft.similarity.compare.late_batches.on_gpu", lambda spaces: True)
    saved = {"checkpoint": Checkpoint(tmp_path, {}), "every": 0}
    assert compare_stream(base, {"t": tuned}, TEXTS, FULL, tokens=500, **saved, **OPTIONS) == whole


class Cut(Exception):
    pass


def cut_after(count: int):
    for i, text in enumerate(TEXTS):
        if i == count:
            raise Cut
        yield text


@pytest.mark.parametrize("moments", [(0, 17, 33), (16, 30)])
@pytest.mark.parametrize("tokens", [None, 1100])
def test_a_resumed_run_gives_the_same_bits(encoders, tmp_path, moments, tokens):
    base, a, b = encoders
    whole = compare_stream(base, {"a": a, "b": b}, TEXTS, FULL, tokens=tokens, **OPTIONS)
    for moment in moments:  # in the text; the last checkpoint is up to a buffer before it
        with pytest.raises(Cut):
            compare_stream(
                base, {"a": a, "b": b}, cut_after(moment), FULL, tokens=tokens, every=0,
                checkpoint=Checkpoint(tmp_path, {}), **OPTIONS,
            )  # fmt: skip
    again = compare_stream(
        base, {"a": a, "b": b}, TEXTS, FULL, tokens=tokens, checkpoint=Checkpoint(tmp_path, {}), **OPTIONS
    )
    assert again == whole
    assert {row.model for row in whole} == {"base", "a", "b", "a - b"}


def test_a_run_resumes_between_any_two_batches(encoders, tmp_path):
    """Resume from every place between two batches, also with encoders that batch differently."""
    base, tuned, _ = encoders
    other = Encoder(tuned.model, tuned.tokenizer, "narrow")
    other.model.config.max_position_embeddings = 100
    words = [text.split() for text in TEXTS[:40]]
    for partner in (tuned, other):
        whole = compare_stream(base, {"t": partner}, words, FULL, unit="word", **OPTIONS)
        places = 0
        for stop in (2, 3, 5, 6, 8, 11, 99):
            seen = []

            class Counting(Checkpoint):
                def save(self, tensors, record, seen=seen, stop=stop):
                    super().save(tensors, record)
                    seen.append(record["batch"])
                    if len(seen) == stop:
                        raise Cut

            folder = tmp_path / f"{partner.name}{stop}"
            try:
                checkpoint = Counting(folder, {})
                compare_stream(
                    base, {"t": partner}, words, FULL, unit="word", checkpoint=checkpoint, every=0, **OPTIONS
                )
                break
            except Cut:
                places += seen[-1] > 1
            resumed = compare_stream(
                base, {"t": partner}, words, FULL, unit="word", checkpoint=Checkpoint(folder, {}), **OPTIONS
            )
            assert resumed == whole
        assert places > 1
    other.model.config.max_position_embeddings = 128


def test_a_shortened_text_is_refused_on_resume(encoders, tmp_path):
    base, tuned, _ = encoders
    with pytest.raises(Cut):
        compare_stream(base, {"t": tuned}, cut_after(40), FULL, checkpoint=Checkpoint(tmp_path, {}), every=0, **OPTIONS)
    with pytest.raises(BertftError, match="the text changed"):
        compare_stream(base, {"t": tuned}, TEXTS[:10], FULL, checkpoint=Checkpoint(tmp_path, {}), **OPTIONS)


def test_each_tokenizer_reads_the_words_itself(encoders):
    from transformers import BertTokenizer

    base, tuned, _ = encoders
    order = sorted(base.tokenizer.get_vocab(), key=base.tokenizer.get_vocab().get)
    vocabulary = {entry: i for i, entry in enumerate([*order[:-40], *reversed(order[-40:])])}
    other = Encoder(tuned.model, BertTokenizer(vocab=vocabulary, do_lower_case=True), "other")
    words = [text.split() for text in TEXTS]
    rows = compare_stream(base, {"other": other}, iter(words), Plan(measures=("rsa",)), unit="word", **OPTIONS)
    x, y = (
        torch.cat([next(iter(encoder.stream([one], unit="word"))).vectors for one in words], 1)[2].double()
        for encoder in (base, other)
    )
    expected = pearsonr(pdist(x.numpy(), "cosine"), pdist(y.numpy(), "cosine"))[0]
    found = {(row.measure, row.layer): row.value for row in rows}
    assert found["rsa_cosine_pearson", 2] == pytest.approx(expected, abs=1e-6)


def test_a_layer_of_equal_rows_is_named(encoders, tiny_model):
    flat = Encoder.from_pretrained(str(tiny_model))
    with torch.no_grad():
        norm = flat.model.encoder.layer[-1].output.LayerNorm
        norm.weight.fill_(0)
        norm.bias.fill_(1)
    with pytest.raises(BertftError, match="of t at layer 3 on toy: all dissimilarities are equal"):
        compare_stream(encoders[0], {"t": flat}, TEXTS, Plan(measures=("rsa",)), **OPTIONS)


@pytest.mark.parametrize("bad", [float("nan"), 0.0])
def test_a_bad_layer_is_named(encoders, tiny_model, bad):
    broken = Encoder.from_pretrained(str(tiny_model))
    with torch.no_grad():
        norm = broken.model.encoder.layer[1].output.LayerNorm
        norm.weight.fill_(bad)
        norm.bias.fill_(bad)
    with pytest.raises(BertftError, match=r"similarity: row \d+ of text \d+ of the stream, in layer 2 of t, h"):
        compare_stream(encoders[0], {"t": broken}, TEXTS, **OPTIONS)


@pytest.mark.parametrize("layers", ["paired", "all"])
def test_a_bad_row_is_named_by_its_text(encoders, monkeypatch, layers):
    """Batches are sorted by length and a buffer has 16 texts, so the row's place in a batch would not help a user."""
    base, tuned, _ = encoders
    texts = [Text(f"a.txt:{2 * i + 1}", text) for i, text in enumerate(TEXTS)]
    wanted = base.tokenizer(TEXTS[21], add_special_tokens=False)["input_ids"]
    encode = Encoder.encode

    def broken(self, batch, layers):
        found = encode(self, batch, layers)
        start = 0
        for ids, length in zip(batch.inputs["input_ids"].tolist(), batch.lengths.tolist(), strict=True):
            if self is tuned and ids[1 : length + 1] == wanted:
                found.vectors[2, start + 3] = math.nan
            start += length
        return found

    monkeypatch.setattr(Encoder, "encode", broken)
    name = r"^similarity: row 3 of text 22 of the stream \(a.txt:43\), in layer 2 of t, holds NaN or infinity$"
    with pytest.raises(BertftError, match=name):
        compare_stream(base, {"t": tuned}, texts, Plan(all_layers=layers == "all"), **OPTIONS)


def test_the_forecast_comes_before_the_text(encoders, monkeypatch):
    base, tuned, _ = encoders
    happened = []

    class Telling:
        def say(self, message):
            happened.append(message)

        def step(self, *arguments, **options):
            return SILENT.step("")

    def texts():
        for text in TEXTS:
            happened.append("read")
            yield text

    monkeypatch.setattr(sampled, "forecast", lambda plan, n, encoders: {f"{plan.compares[0]} {n} {encoders}": 100.0})
    plan = Plan(compares=("kendall",), intervals=False, sample=300)
    compare_stream(base, {"t": tuned}, texts(), plan, tokens=120, progress=Telling(), **OPTIONS)
    assert happened[0] == "toy: after the text, on up to 120 sampled stimuli: kendall 120 [(4, (32, 32))] about 100 s"
    assert happened[1] == "read"
    happened.clear()
    compare_stream(base, {"t": tuned}, texts(), Plan(intervals=False), tokens=120, progress=Telling(), **OPTIONS)
    assert set(happened) == {"read"}  # nothing needs pairs


def test_refusals(encoders):
    base, tuned, _ = encoders
    with pytest.raises(BertftError, match="metric must be one of"):
        Plan(metrics=("hamming",))
    with pytest.raises(BertftError, match="compare must be one of"):
        Plan(compares=("tau",))
    with pytest.raises(BertftError, match="measures must be one of"):
        Plan(measures=("rsa", "cosinus"))
    with pytest.raises(BertftError, match="sample must be at least 4"):
        Plan(sample=1)
    with pytest.raises(BertftError, match="at least 2 texts"):
        compare_stream(base, {"t": tuned}, TEXTS[:1], **OPTIONS)
    with pytest.raises(BertftError, match="at least 4 stimuli, found 3"):
        compare_stream(base, {"t": tuned}, ["a", "b", "c"], **OPTIONS)
    with pytest.raises(BertftError, match="tokens must be at least 4"):
        compare_stream(base, {"t": tuned}, TEXTS, tokens=2, **OPTIONS)
    with pytest.raises(BertftError, match="no encoder"):
        compare_stream(base, {}, TEXTS, **OPTIONS)
    rows = compare_stream(base, {"t": tuned}, TEXTS[:1], Plan(intervals=False), **OPTIONS)
    assert all(row.low is row.high is None for row in rows)


def test_the_difference_of_two_tuned_encoders_is_paired(encoders):
    base, a, b = encoders
    rows = compare_stream(base, {"a": a, "b": b, "same": a}, TEXTS, **OPTIONS)
    found = {(row.model, row.measure, row.layer): row for row in rows}
    for measure in ("rsa_cosine_pearson", "cka_debiased"):
        first, second = found["a", measure, 3], found["b", measure, 3]
        apart = found["a - b", measure, 3]
        assert apart.value == first.value - second.value and apart.task == "difference"
        widths = [(row.high - row.low) / 2 for row in (first, second, apart)]
        assert 0 < widths[2] < sum(widths[:2])
        nothing = found["a - same", measure, 3]
        assert nothing.value == nothing.low == nothing.high == 0


def test_memory_is_released_after_every_buffer(encoders, monkeypatch):
    base, tuned, _ = encoders
    calls = []
    monkeypatch.setattr(memory, "give_back", lambda: calls.append(1))
    compare_stream(base, {"t": tuned}, TEXTS, Plan(intervals=False), **OPTIONS)
    assert len(calls) == math.ceil(len(TEXTS) / stream.BUFFER)
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "3")
    memory.keep_steady()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "3"  # the user's own setting
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    memory.keep_steady()
    assert 6 <= int(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) < 100


@pytest.mark.parametrize("own", [None, "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_the_allocator_keeps_the_memory_of_a_batch_unless_the_user_has_set_it(own, monkeypatch):
    asked = []
    libc = types.SimpleNamespace(mallopt=lambda kind, value: asked.append((kind, value)))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: libc)
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    if own:
        monkeypatch.setenv(own, "131072")
    memory.keep_steady()
    assert asked == ([] if own else [(-3, 32 << 20), (-1, 256 << 20)])  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: types.SimpleNamespace())
    memory.keep_steady()  # a system without mallopt


def test_a_pair_is_refused_and_never_cut_where_windows_differ(encoders):
    base, *_ = encoders

    class Narrow(Encoder):
        max_length = 24

    narrow = Narrow(base.model, base.tokenizer, "narrow")
    short, long = ("the cat", "it sat"), (" ".join(["cat"] * 30), "it sat")
    rows = compare_stream(base, {"narrow": narrow}, [short] * 8, Plan(intervals=False), **OPTIONS)
    pieces = sum(len(base.tokenizer.tokenize(text)) for text in short)
    assert {row.n for row in rows} == {8 * pieces}
    with pytest.raises(BertftError, match=r"example 3 has \d+ pieces, expected at most 24 for narrow"):
        compare_stream(base, {"narrow": narrow}, [*[short] * 3, long], Plan(intervals=False), **OPTIONS)
