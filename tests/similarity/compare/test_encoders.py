"""Streamed comparisons: values, going on after an interruption to the same bits, checkpoints, refusals."""

from __future__ import annotations

import json
import math
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial.distance import pdist
from scipy.stats import kendalltau, spearmanr

from bertft.data import synthetic
from bertft.data.examples import Text
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.runs import process as memory
from bertft.runs.checkpoint import Checkpoint, write_tensors
from bertft.runs.progress import SILENT
from bertft.similarity.compare import all_pairs as sampled
from bertft.similarity.compare import encoders as module
from bertft.similarity.compare.comparison import Plan
from bertft.similarity.compare.encoders import compare_stream
from bertft.similarity.moments import CrossMoments

TEXTS = [" ".join(s.words) for s in synthetic.sentences(60, seed=3)]
OPTIONS = {"batch_tokens": 256, "data": "toy"}
FULL = Plan(measures=("rsa", "cka", "cca", "procrustes", "effective_dimension"), sample=150)


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch):
    monkeypatch.setattr(module, "BUFFER", 16)
    monkeypatch.setattr(sampled, "RESAMPLES", 40)


@pytest.fixture(scope="module")
def encoders(tiny_model):
    def disturbed(seed: int) -> Encoder:
        encoder, g = Encoder.from_pretrained(str(tiny_model)), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in encoder.model.named_parameters():
                if "layer.1." in name or "layer.2." in name:
                    weight.add_(0.05 * torch.randn(weight.shape, generator=g).to(weight.device))
        return encoder

    return Encoder.from_pretrained(str(tiny_model)), disturbed(0), disturbed(1)


def vectors(encoder: Encoder, tokens: int | None = None) -> torch.Tensor:
    """(L, T, D) of the texts one by one, in their order."""
    parts = [next(iter(encoder.stream([text], unit="token"))).vectors for text in TEXTS]
    return torch.cat(parts, dim=1)[:, :tokens].double().cpu()


def test_values_are_those_of_all_vectors(encoders):
    base, tuned, _ = encoders
    plan = Plan(("cosine", "sqeuclidean"), ("pearson", "cosine"), ("rsa", "cka", "cca", "linear_r2", "anisotropy"))
    rows = compare_stream(base, {"t": tuned}, iter(TEXTS), plan, tokens=301, **OPTIONS)
    x, y = vectors(base, 301), vectors(tuned, 301)
    found = {(row.model, row.measure, row.layer): row for row in rows}
    for metric in ("cosine", "sqeuclidean"):
        moments = CrossMoments(4, 4, metric).update(x, y)
        for compare in ("pearson", "cosine"):
            for layer, expected in enumerate(moments.rsa(compare).tolist()):
                row = found["t", f"rsa_{metric}_{compare}", layer]
                assert (
                    row.value == pytest.approx(expected, abs=1e-6) and row.n == 301 and row.low <= row.value <= row.high
                )
    raw = CrossMoments(4, 4, "dot").update(x, y)
    for measure, values in (("cka_debiased", raw.cka()), ("cca", raw.cca()), ("linear_r2", raw.linear_r2())):
        for layer, expected in enumerate(values.tolist()):
            assert found["t", measure, layer].value == pytest.approx(expected, abs=1e-5)
    for model, values in zip(("base", "t"), CrossMoments(4, 4, "cosine").update(x, y).anisotropy(), strict=True):
        for layer, expected in enumerate(values.tolist()):
            row = found[model, "anisotropy", layer]
            assert row.value == pytest.approx(expected, abs=1e-6) and row.low < row.value < row.high


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


class Cut(Exception):
    pass


def cut_after(count: int):
    for i, text in enumerate(TEXTS):
        if i == count:
            raise Cut
        yield text


@pytest.mark.parametrize("moments", [(0, 17, 33), (16, 30)])
@pytest.mark.parametrize("tokens", [None, 1100])
def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(encoders, tmp_path, moments, tokens):
    base, a, b = encoders
    whole = compare_stream(base, {"a": a, "b": b}, TEXTS, FULL, tokens=tokens, **OPTIONS)
    for moment in moments:  # of the text: the last checkpoint lies up to a buffer before
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


def test_a_checkpoint_between_the_batches_of_a_buffer(encoders, tmp_path):
    """Every place between two batches is gone on from, with encoders that batch differently too."""
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_saves_first(encoders, tmp_path, number):
    base, tuned, _ = encoders

    def texts():
        yield from TEXTS[:20]
        os.kill(os.getpid(), number)
        yield from TEXTS[20:]

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        compare_stream(base, {"t": tuned}, texts(), FULL, checkpoint=Checkpoint(tmp_path, {}), **OPTIONS)
    assert signal.getsignal(number) is before
    _, record = Checkpoint(tmp_path, {}).load()
    assert (record["buffer"], record["batch"]) == (1, 1)


def test_checkpoints(tmp_path):
    tensors = {
        "a": torch.arange(6.0, dtype=torch.float64).view(2, 3),
        "b": torch.tensor([1.5, -2.0]).bfloat16(),
        "c": torch.empty(0, 3).half(),
        "d": torch.arange(3),
    }
    write_tensors(tmp_path / "x.safetensors", tensors)
    read = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())
    checkpoint = Checkpoint(tmp_path / "kept", {"seed": 1, "text": "t"})
    assert checkpoint.load() is None
    for i in range(3):
        checkpoint.save(tensors, {"batch": i})
    assert len(list((tmp_path / "kept").iterdir())) == 2
    assert Checkpoint(tmp_path / "kept", {"seed": 1, "text": "t"}).load()[1] == {"batch": 2}
    with pytest.raises(BertftError, match=r"another comparison.*seed is 1 there and 2 here"):
        Checkpoint(tmp_path / "kept", {"seed": 2, "text": "t"}).load()
    path = tmp_path / "kept" / "stream.json"
    content = json.loads(path.read_text())
    (tmp_path / "kept" / content["tensors"]).unlink()
    with pytest.raises(BertftError, match="tensors are missing"):
        checkpoint.load()
    path.write_text(path.read_text()[:40])
    with pytest.raises(BertftError, match="not a usable checkpoint"):
        checkpoint.load()
    checkpoint.remove()
    assert not (tmp_path / "kept").exists()


def test_a_text_that_has_become_shorter(encoders, tmp_path):
    base, tuned, _ = encoders
    with pytest.raises(Cut):
        compare_stream(base, {"t": tuned}, cut_after(40), FULL, checkpoint=Checkpoint(tmp_path, {}), every=0, **OPTIONS)
    with pytest.raises(BertftError, match="it changed"):
        compare_stream(base, {"t": tuned}, TEXTS[:10], FULL, checkpoint=Checkpoint(tmp_path, {}), **OPTIONS)


@pytest.mark.parametrize("bad", [float("nan"), 0.0])
def test_a_bad_layer_is_named(encoders, tiny_model, bad):
    broken = Encoder.from_pretrained(str(tiny_model))
    with torch.no_grad():
        norm = broken.model.encoder.layer[1].output.LayerNorm
        norm.weight.fill_(bad)
        norm.bias.fill_(bad)
    with pytest.raises(
        BertftError, match=r"base \(x\) and t \(y\): layer 2: .*row \d+ of text \d+ of the stream, in y,"
    ):
        compare_stream(encoders[0], {"t": broken}, TEXTS, **OPTIONS)


@pytest.mark.parametrize("layers", ["paired", "all"])
def test_a_bad_row_is_named_by_its_text(encoders, monkeypatch, layers):
    """Batches are sorted by length and buffers hold 16 texts: the row's place in a batch says nothing to anyone."""
    base, tuned, _ = encoders
    texts = [Text(f"a.txt:{2 * i + 1}", text) for i, text in enumerate(TEXTS)]
    wanted = base.tokenizer(TEXTS[21], add_special_tokens=False)["input_ids"]
    run = Encoder._run

    def broken(self, group, layers):
        batch = run(self, group, layers)
        start = 0
        for item, length in zip(group, batch.lengths.tolist(), strict=True):
            if self is tuned and item.inputs["input_ids"][1:-1] == wanted:
                batch.vectors[2, start + 3] = math.nan
            start += length
        return batch

    monkeypatch.setattr(Encoder, "_run", broken)
    name = r"layer 2: .*row 3 of text 22 of the stream \(a.txt:43\), in y, holds NaN"
    with pytest.raises(BertftError, match=name):
        compare_stream(base, {"t": tuned}, texts, Plan(all_layers=layers == "all"), **OPTIONS)


def test_the_time_is_said_before_the_text_is_read(encoders, monkeypatch):
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


def test_memory_is_given_back_after_every_buffer(encoders, monkeypatch):
    base, tuned, _ = encoders
    calls = []
    monkeypatch.setattr(memory, "give_back", lambda: calls.append(1))
    compare_stream(base, {"t": tuned}, TEXTS, Plan(intervals=False), **OPTIONS)
    assert len(calls) == math.ceil(len(TEXTS) / module.BUFFER)
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "3")
    memory.keep_steady()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "3"  # what the user asked for
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    memory.keep_steady()
    assert 6 <= int(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) < 100
