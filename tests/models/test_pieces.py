"""Tokenised examples in flat arrays, against example by example."""

from __future__ import annotations

import contextlib
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from families import FAMILIES, save
from tokenizers.processors import TemplateProcessing

from bertft.data import synthetic
from bertft.data.examples import inputs_of
from bertft.models import pieces as module
from bertft.models.batching import Encoded, length_sorted_batches, pad, pad_inputs, pool_words, word_pieces
from bertft.models.encoder import Encoder
from bertft.models.loading import load_pretrained
from bertft.models.pieces import Pieces, fitting, pool, prepare, sent, slots_of
from bertft.models.tokenising import padding_of, pieces_of_texts

WORDS = [tuple(s.words) for s in synthetic.sentences(40, seed=5)]
TEXTS = [" ".join(words) for words in WORDS]


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return Encoder.from_pretrained(str(tiny_model), device="cpu")


def count_up(kept) -> list[int]:
    """Return a number for each piece: kept ones count from 0, the others are -1."""
    numbers = itertools.count()
    return [next(numbers) if keep else -1 for keep in kept]


def random_examples(seed: int, count: int = 30) -> list[Encoded]:
    """Return examples with a special piece at either end, words of several pieces, and empty ones."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        sizes = rng.integers(1, 4, rng.integers(0, 9))
        slots = [-1, *np.repeat(np.arange(len(sizes)), sizes).tolist(), -1] if i % 7 else []
        ids = rng.integers(5, 99, len(slots)).tolist()
        found.append(Encoded(i + 3, {"input_ids": ids, "token_type_ids": [i % 2] * len(ids)}, slots, whole=i == 4))
    return found


def test_arrays_hold_the_examples():
    examples = random_examples(0)
    pieces = Pieces.of(examples)
    assert list(pieces) == examples and pieces[-1] == examples[-1] and pieces[2:5] == examples[2:5]
    assert pieces.counts.tolist() == [item.count for item in examples]
    rows = np.array([7, 0, 29, 4, 4])
    assert list(pieces.take(rows)) == [examples[i] for i in rows]
    assert list(Pieces.join([pieces.take(rows), pieces, Pieces.of(examples[:2])])) == [
        *(examples[i] for i in rows), *examples, *examples[:2],
    ]  # fmt: skip
    assert [item.index for item in pieces.numbered(np.arange(30))] == list(range(30))
    with pytest.raises(IndexError):
        pieces[30]


def test_slots_count_the_kept_pieces_of_each_example():
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 9, 50)
    kept = rng.random(lengths.sum()) < 0.6
    expected = [count_up(part) for part in np.split(kept, np.cumsum(lengths)[:-1])]
    assert slots_of(kept, lengths).tolist() == [*itertools.chain(*expected)]


@pytest.mark.parametrize("batch_tokens", [1, 40, 64, 10_000])
def test_batches_are_those_of_the_examples(batch_tokens):
    examples = [item for item in random_examples(2, 200) if len(item)]
    found = [[examples[i].index for i in rows] for rows in Pieces.of(examples).batches(batch_tokens)]
    assert found == [[item.index for item in batch] for batch in length_sorted_batches(examples, batch_tokens)]


@pytest.mark.parametrize("several", [True, False])
def test_a_batch_is_padded_and_pooled_as_example_by_example(encoder, several):
    examples = [item for item in random_examples(3) if item.count]
    if not several:
        for item in examples:
            item.slots = count_up(slot >= 0 for slot in item.slots)
            item.count = max(item.slots) + 1
    rows = np.array([5, 2, 11, 3])
    group = [examples[i] for i in rows]
    batch = prepare(Pieces.of(examples), rows, padding_of(encoder.tokenizer))
    inputs = pad_inputs([item.inputs for item in group], encoder.tokenizer)
    assert inputs.keys() == batch.inputs.keys()
    for name, expected in inputs.items():
        assert torch.equal(batch.inputs[name], expected) and batch.inputs[name].dtype == torch.int64
    lengths = torch.tensor([item.count for item in group])
    pieces, offsets = word_pieces(pad([item.slots for item in group], -1), lengths)
    assert torch.equal(batch.pieces, pieces) and torch.equal(batch.lengths, lengths)
    assert batch.index.tolist() == [item.index for item in group] and batch.padded
    assert (batch.offsets is not None) is several
    hidden = torch.randn(len(rows), inputs["input_ids"].shape[1], 8, generator=torch.Generator().manual_seed(0))
    found = torch.empty(batch.vectors, 8)
    pool(hidden, batch, found)
    assert torch.equal(found, pool_words(hidden, pieces, offsets))
    alone = prepare(Pieces.of(examples), rows[:1], {})
    assert not alone.padded and alone.inputs["attention_mask"].all()


def test_long_examples_are_cut_where_they_are():
    examples = random_examples(4)
    cut = list(fitting(Pieces.of(examples[5:]), 9, split=True, name="it"))
    assert max(map(len, cut)) == 9 and len(cut) > len(examples[5:])
    for item in examples[5:]:
        mine = [part for part in cut if part.index == item.index]
        if len(item) <= 9:
            assert mine == [item]
            continue
        inner = [part.inputs["input_ids"][1:-1] for part in mine]
        assert [*itertools.chain(*inner)] == item.inputs["input_ids"][1:-1] and sum(
            part.count for part in mine
        ) == item.count
    assert [item.index for item in cut] == sorted(item.index for item in cut)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["text", "pair"])
def test_texts_are_cut_as_the_tokenizer_itself_cuts_them(family, kind, tmp_path):
    """Also with text that spells a special token, after the tokenizer was told to pad and truncate."""
    tokenizer = load_pretrained(str(save(family, tmp_path)))[1]
    texts = [*TEXTS[:8], "", "a [SEP] b </s> <s> c", "  two  blanks ", "\u00e9\u4e2d \U0001f600"]
    given = texts if kind == "text" else list(zip(texts, texts[::-1], strict=True))
    expected = tokenizer(given, return_special_tokens_mask=True)
    tokenizer.backend_tokenizer.enable_truncation(6)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    found = pieces_of_texts(tokenizer, inputs_of(given, "token"), 5)
    for row, item in enumerate(found):
        assert item.index == 5 + row and item.whole is (kind == "pair")
        assert item.slots == count_up(not special for special in expected["special_tokens_mask"][row])
        for name in item.inputs:
            assert item.inputs[name] == expected[name][row]
        assert item.inputs.keys() == expected.keys() - {"attention_mask", "special_tokens_mask"}


@pytest.mark.parametrize(
    "single", ["$A [SEP] [CLS]", "[CLS] [SEP] $A", "[CLS] $A:1 [SEP]:1", "[CLS] $A [SEP] $A [SEP]"]
)
def test_special_tokens_are_where_the_tokenizer_puts_them(single, tiny_model):
    tokenizer = load_pretrained(str(tiny_model))[1]
    backend = tokenizer.backend_tokenizer
    special = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")]
    backend.post_processor = TemplateProcessing(single=single, pair="$A $B", special_tokens=special)
    texts = [*TEXTS[:3], "", "a [SEP] b"]
    found = pieces_of_texts(tokenizer, inputs_of(texts, "token"), 0)
    for item, text in zip(found, texts, strict=True):
        expected = backend.encode(text)
        assert item.slots == count_up(not special for special in expected.special_tokens_mask)
        assert item.inputs == {"input_ids": expected.ids, "token_type_ids": expected.type_ids}


class Card:
    """Stand-in for ``torch.cuda`` that records what happens in which stream."""

    def __init__(self) -> None:
        self.happened: list[tuple] = []
        self.current = "main"

    def Stream(self, device):
        return SimpleNamespace(name="copies", record_event=lambda: self.happened.append(("recorded",)) or "event")

    @contextlib.contextmanager
    def stream(self, stream):
        self.current = stream.name
        yield
        self.current = "main"

    def current_stream(self, device):
        return SimpleNamespace(wait_event=lambda event: self.happened.append(("waits", self.current)))


def test_a_batch_is_copied_to_a_gpu_in_its_own_stream_while_the_one_before_it_computes(encoder, monkeypatch):
    card = Card()
    monkeypatch.setattr(module.torch, "cuda", card)
    monkeypatch.setattr(
        module, "sent_to", lambda tensor, device: card.happened.append(("copied", card.current)) or tensor
    )
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: card.happened.append(("used",)))
    batches = list(encoder.prepared(encoder.tokenise(TEXTS, "token"), 512, "refuse"))[:3]
    tensors = len(batches[0].inputs) + 1
    for count, batch in enumerate(sent(iter(batches), torch.device("cuda", 0)), start=1):
        assert batch.inputs["input_ids"] is batches[count - 1].inputs["input_ids"]
        ahead = min(count + 1, 3)  # batches copied by now
        assert card.happened.count(("copied", "copies")) == ahead * tensors
        assert card.happened.count(("recorded",)) == ahead
        assert card.happened[-1 - tensors :] == [("waits", "main"), *[("used",)] * tensors]
    assert count == 3 and ("copied", "main") not in card.happened
