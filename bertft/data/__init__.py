"""Readers, examples and synthetic corpora."""

from bertft.data.alignment import AlignedWords, align_words
from bertft.data.examples import Answer, Pair, Question, Sentence, Text
from bertft.data.readers.conllu import read_conllu, write_conllu
from bertft.data.readers.nli import read_nli
from bertft.data.readers.squad import read_squad
from bertft.data.readers.text import read_text
from bertft.data.sources import load

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
    "write_conllu",
]
