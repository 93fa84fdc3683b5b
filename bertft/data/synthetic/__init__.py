"""Synthetic corpora with gold trees, labels and answers."""

from bertft.data.synthetic.corpora import SPLITS, code_sum, pairs, questions, sentences, texts

__all__ = ["SPLITS", "code_sum", "pairs", "questions", "sentences", "texts"]
