"""Words and pieces aligned, for every family of tokenizers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from bertft.data.alignment import SPECIAL, align_words
from bertft.errors import BertftError

TEXTS = ["the dog saw the cat in the garden", "don't stop , he said .", "unhappiness is rare", "cats and dogs 123"] * 20
SENTENCES = [["the", "dog", "saw", "unhappiness", "."], ["don't", "1 000", "Cats"], ["dog"], []]


def byte_level(**options: object) -> PreTrainedTokenizerBase:
    """Return a tokenizer like RoBERTa's: byte-level BPE, <s> and </s>, no space before the first word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **options})
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([f" {text}" for text in TEXTS], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def split_then_bytes() -> PreTrainedTokenizerBase:
    """Return a tokenizer like GPT-4's: a regular expression, then bytes; no special tokens."""
    tokenizer = byte_level()
    backend = tokenizer.backend_tokenizer
    pattern = r"'(?:s|t|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+"
    from tokenizers import Regex

    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def sentencepiece(scheme: str = "always") -> PreTrainedTokenizerBase:
    """Return a tokenizer like XLM-R's: unigram pieces with a word-start mark."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    special = ["<s>", "</s>", "<pad>", "<unk>"]
    trainer = UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def prepended() -> PreTrainedTokenizerBase:
    """Return a tokenizer like that of Llama 1: the normaliser inserts the mark; no pre-tokenizer."""
    tokenizer = sentencepiece()
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = None
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def bert(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(
    params=["bert", "byte", "byte with prefix", "split", "sentencepiece", "sentencepiece without mark", "prepended"]
)
def tokenizer(request: pytest.FixtureRequest, tiny_model: Path) -> PreTrainedTokenizerBase:
    return {
        "bert": lambda: bert(tiny_model),
        "byte": byte_level,
        "byte with prefix": lambda: byte_level(add_prefix_space=True),
        "split": split_then_bytes,
        "sentencepiece": sentencepiece,
        "sentencepiece without mark": lambda: sentencepiece("never"),
        "prepended": prepended,
    }[request.param]()


def check(tokenizer: PreTrainedTokenizerBase, sentences: list[list[str]]) -> None:
    aligned = align_words(tokenizer, sentences)
    assert len(aligned) == len(sentences)
    for sentence, ids, words in zip(sentences, aligned.ids, aligned.words, strict=True):
        assert len(ids) == len(words)
        content = [w for w in words if w != SPECIAL]
        assert content == sorted(content)
        assert sorted(set(content)) == list(range(len(sentence)))
        inside = [t for t, w in enumerate(words) if w != SPECIAL]
        assert not inside or SPECIAL not in words[inside[0] : inside[-1] + 1]


def test_every_word_has_its_pieces(tokenizer: PreTrainedTokenizerBase) -> None:
    check(tokenizer, SENTENCES)
    check(
        tokenizer,
        [["a\x00b", "\x00", "", "\u200d", "\u00a0", "é", "漢字", "👩‍👩‍👧", "\ufeff", " ", "dog"], ["\x00"], [""]],
    )


def test_special_tokens_in_text_are_text(tokenizer: PreTrainedTokenizerBase) -> None:
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    sentence = [token for token in tokenizer.all_special_tokens if token] + ["dog"]
    aligned = align_words(tokenizer, [sentence])
    inside = {i for i, w in zip(aligned.ids[0], aligned.words[0], strict=True) if w != SPECIAL}
    assert not inside & special
    check(tokenizer, [sentence])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.text(max_size=8), max_size=6), max_size=4))
def test_any_words(sentences: list[list[str]]) -> None:
    for tokenizer in (CACHED.setdefault(f, f()) for f in (byte_level, sentencepiece)):
        check(tokenizer, sentences)


CACHED: dict[object, PreTrainedTokenizerBase] = {}


def test_same_pieces_as_running_text(tokenizer: PreTrainedTokenizerBase) -> None:
    """A word inside a sentence is cut as in running text, including its leading space."""
    words = ["the", "dog", "saw", "unhappiness", "in", "the", "garden"]
    aligned = align_words(tokenizer, [words])
    first = sum(w in (SPECIAL, 0) for w in aligned.words[0][:-1])
    running = tokenizer(" ".join(words))["input_ids"]
    assert aligned.ids[0][first:] == running[-len(aligned.ids[0][first:]) :]


def test_the_first_word_is_cut_like_later_ones() -> None:
    tokenizer = byte_level()
    aligned = align_words(tokenizer, [["dog", "dog"]])
    pieces = [[i for i, w in zip(aligned.ids[0], aligned.words[0], strict=True) if w == k] for k in (0, 1)]
    assert pieces[0] == pieces[1]
    assert tokenizer.convert_ids_to_tokens(pieces[0])[0].startswith("Ġ")


def test_the_tokenizer_is_not_modified(tiny_model: Path) -> None:
    tokenizer = bert(tiny_model)
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    before = tokenizer.backend_tokenizer.to_str()
    aligned = align_words(tokenizer, [["the"] * 20])
    assert aligned.lengths == [len(aligned.ids[0])]
    assert aligned.words[0] == [SPECIAL, *sorted(aligned.words[0][1:-1]), SPECIAL]
    assert tokenizer.backend_tokenizer.to_str() == before


def test_tokens_added_later_are_used(tiny_model: Path) -> None:
    tokenizer = bert(tiny_model)
    align_words(tokenizer, [["zyx"]])
    tokenizer.add_tokens(["zyx"])
    assert align_words(tokenizer, [["zyx"]]).ids[0][1:-1] == [len(tokenizer) - 1]


def test_the_unknown_piece_is_inserted_at_the_place_of_its_word(tiny_model: Path) -> None:
    tokenizer = bert(tiny_model)
    aligned = align_words(tokenizer, [["\x00", "x", "\x00", "\x00", "x", "\x00"], ["\x00"]])
    assert aligned.words == [[SPECIAL, 0, 1, 2, 3, 4, 5, SPECIAL], [SPECIAL, 0, SPECIAL]]
    unknown = tokenizer.unk_token_id
    assert [i == unknown for i in aligned.ids[0]] == [False, True, False, True, True, False, True, False]


def test_a_word_without_piece_is_refused_if_there_is_no_unknown_token(tiny_model: Path) -> None:
    tokenizer = bert(tiny_model)
    tokenizer.unk_token = None
    with pytest.raises(BertftError, match=r"sentence 1: word 2 \('\\x00'\) yields no word piece"):
        align_words(tokenizer, [["the"], ["the", "\x00"]])


def test_a_sentence_over_the_limit_is_named(tiny_model: Path) -> None:
    tokenizer = bert(tiny_model)
    sentences = [["x"] * 6, ["x"] * 7]
    assert align_words(tokenizer, sentences, 9).lengths == [8, 9]
    with pytest.raises(BertftError) as error:
        align_words(tokenizer, sentences, 8)
    expected = "sentence 1 ('x x x x x x x') has 9 word pieces with its special tokens, expected at most 8"
    assert str(error.value).startswith(expected)
    with pytest.raises(BertftError, match="sentence ewt-7 "):
        align_words(tokenizer, sentences, 8, names=["ewt-6", "ewt-7"])


def test_slow_tokenizers_are_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(BertftError, match="expected a fast tokenizer, found Slow"):
        align_words(Slow(), [["a"]])  # type: ignore[arg-type]
