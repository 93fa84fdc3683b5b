"""Readers, examples and synthetic corpora."""

from bertft.data.conllu import read_conllu, write_conllu
from bertft.data.examples import Answer, Pair, Question, Sentence, Text
from bertft.data.nli import read_nli
from bertft.data.sources import load, resolve_model
from bertft.data.squad import read_squad
from bertft.data.text import read_text
from bertft.data.words import AlignedWords, align_words

__all__ = [
    "AlignedWords",
    "Answer",
    "Pair",
    "Question",
    "Sentence",
    "Text",
    "align_words",
    "load",
    "read_conllu",
    "read_nli",
    "read_squad",
    "read_text",
    "resolve_model",
    "write_conllu",
]
