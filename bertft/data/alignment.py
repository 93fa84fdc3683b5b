"""Alignment of words and word pieces.

Works with any fast tokenizer: WordPiece (BERT), byte-level vocabularies with a leading space (RoBERTa, GPT-2) and
SentencePiece.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from bertft.data.files import check_text, shorten
from bertft.errors import BertftError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Integers: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]

SPECIAL = -1
"""Word index of pieces that belong to no word: ``[CLS]``, ``[SEP]``, ``<s>``, ..."""

_copies: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, Tokenizer, bool]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class AlignedWords:
    """Word pieces of a list of sentences, without padding.

    ``ids[s][t]`` is the vocabulary index of piece ``t`` of sentence ``s``, special tokens included. ``words[s][t]`` is
    the index, from 0, of the word that the piece belongs to, or `SPECIAL`. Word indices ascend along a sentence, and
    every word has at least one piece.
    """

    ids: list[list[int]]
    words: list[list[int]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """Number of pieces of each sentence, special tokens included."""
        return [len(ids) for ids in self.ids]


def align_words(
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[Sequence[str]],
    max_length: int | None = None,
    *,
    names: Sequence[str] | None = None,
) -> AlignedWords:
    """Cut every word of ``sentences`` into pieces and return which piece belongs to which word.

    Each word is cut on its own, as the tokenizer cuts it in running text after a space. A byte-level vocabulary thus
    gives ``Ġword``, also at the start of a sentence. Text that spells a special token (``[SEP]``, ``</s>``) is cut like
    other text, or becomes an unknown-token piece if the vocabulary cannot cut it. A word that yields no piece (a
    control character, white space, an empty string) becomes one unknown-token piece, so that every word has a vector.
    The tokenizer is not modified.

    Args:
        tokenizer: a fast tokenizer of transformers.
        sentences: word sequences.
        max_length: the most pieces a sentence may have, special tokens included; None for no limit.
        names: names of the sentences in errors; default their index from 0.

    Raises:
        BertftError: for a slow tokenizer, a word without a piece if the vocabulary has no unknown token, a word with
            half a character in it, and a sentence of more than ``max_length`` pieces.
    """
    found = align_pieces(tokenizer, sentences, names=names)
    lengths = found.lengths.tolist()
    if max_length is not None and (long := [s for s, length in enumerate(lengths) if length > max_length]):
        raise BertftError(
            f"sentence {_name(names, long[0])} ({shorten(' '.join(sentences[long[0]]))}) has {lengths[long[0]]} word"
            f" pieces with its special tokens, expected at most {max_length}, the window of the encoder"
        )
    ids, words = found.ids.tolist(), found.words.tolist()
    ends = list(itertools.accumulate(lengths, initial=0))
    spans = [slice(start, stop) for start, stop in itertools.pairwise(ends)]
    return AlignedWords([ids[span] for span in spans], [words[span] for span in spans])


class AlignedPieces(NamedTuple):
    """Word pieces of S sentences in flat arrays: ``ids`` and ``words`` (N,), as in `AlignedWords`, ``lengths`` (S,)."""

    ids: Integers
    words: Integers
    lengths: Integers


def align_pieces(
    tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sequence[str]], *, names: Sequence[str] | None = None
) -> AlignedPieces:
    """Return what `align_words` returns, in flat int64 arrays and without a limit of length."""
    backend, needs_space = _backend(tokenizer)
    inputs = [[f" {word}" for word in words] if needs_space else list(words) for words in sentences]
    try:
        encodings = backend.encode_batch(inputs, is_pretokenized=True, add_special_tokens=True)
    except (TypeError, UnicodeEncodeError):  # text without a UTF-8 form
        for s, sentence in enumerate(sentences):
            for word in sentence:
                check_text(word, "a word", f"sentence {_name(names, s)}")
        raise
    ids, lengths = flattened(encoding.ids for encoding in encodings)
    special = flattened(encoding.special_tokens_mask for encoding in encodings)[0].astype(np.bool_)
    words = np.array([SPECIAL if w is None else w for e in encodings for w in e.word_ids], np.int64)
    words[special] = SPECIAL
    _replace_reserved(tokenizer, ids, special)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    kept = words != SPECIAL
    first = np.ones(int(kept.sum()), np.bool_)  # of its word
    first[1:] = (np.diff(words[kept]) != 0) | (np.diff(owner[kept]) != 0)
    present = np.bincount(owner[kept][first], minlength=len(lengths))
    lacking = np.flatnonzero(present != np.fromiter(map(len, sentences), np.int64, len(sentences)))
    if not lacking.size:
        return AlignedPieces(ids, words, lengths)
    return _filled(tokenizer, sentences, AlignedPieces(ids, words, lengths), lacking.tolist(), names)


def flattened(rows: Iterable[Sequence[int]]) -> tuple[Integers, Integers]:
    """Return the numbers of all ``rows`` one after the other, and the length of each row, both int64."""
    held = list(rows)
    lengths = np.fromiter(map(len, held), np.int64, len(held))
    return np.fromiter(itertools.chain.from_iterable(held), np.int64, int(lengths.sum())), lengths


def _replace_reserved(tokenizer: PreTrainedTokenizerBase, ids: Integers, special: Flags) -> None:
    """Make text that spells a special token an unknown-token piece, in place."""
    unknown = tokenizer.unk_token_id
    if unknown is not None and (reserved := set(tokenizer.all_special_ids) - {unknown}):
        ids[~special & np.isin(ids, list(reserved))] = unknown


def _filled(
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[Sequence[str]],
    found: AlignedPieces,
    lacking: Sequence[int],
    names: Sequence[str] | None,
) -> AlignedPieces:
    """Return ``found`` with an unknown-token piece for every word without a piece, in the sentences ``lacking``."""
    ends = np.cumsum(found.lengths)[:-1]
    ids, words = np.split(found.ids, ends), np.split(found.words, ends)
    for s in lacking:
        filled = _fill(tokenizer, sentences[s], ids[s].tolist(), words[s].tolist(), _name(names, s))
        ids[s], words[s] = np.array(filled[0]), np.array(filled[1])
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    return AlignedPieces(np.concatenate(ids), np.concatenate(words), lengths)


def _backend(tokenizer: PreTrainedTokenizerBase) -> tuple[Tokenizer, bool]:
    """Return a copy of the Rust tokenizer without truncation and padding, and whether words need a leading space."""
    if not getattr(tokenizer, "is_fast", False):
        raise BertftError(
            f"expected a fast tokenizer, found {type(tokenizer).__name__}, which cannot align words to pieces"
        )
    size = len(tokenizer)
    cached = _copies.get(tokenizer)
    if cached is None or cached[0] != size:
        original = tokenizer.backend_tokenizer
        copy = type(original).from_str(original.to_str())
        copy.no_truncation()
        copy.no_padding()
        copy.encode_special_tokens = True
        cached = _copies[tokenizer] = (size, copy, _needs_space(copy))
    return cached[1], cached[2]


def _needs_space(backend: Tokenizer) -> bool:
    """Return whether a word on its own needs a leading space to be cut as it is after another word.

    Byte-level vocabularies without ``add_prefix_space`` do: to them ``dog`` alone continues the previous word.
    """
    alone, spaced, after = (backend.encode(text, add_special_tokens=False).ids for text in ("a", " a", "a a"))
    return alone != spaced and after[len(alone) :] == spaced


def _fill(
    tokenizer: PreTrainedTokenizerBase, sentence: Sequence[str], ids: list[int], words: list[int], name: str
) -> tuple[list[int], list[int]]:
    """Return ``ids`` and ``words`` with an unknown-token piece inserted for every word without a piece."""
    unknown = tokenizer.unk_token_id
    present = set(words)
    missing = [w for w in range(len(sentence)) if w not in present]
    if unknown is None:
        word = shorten(sentence[missing[0]])
        raise BertftError(
            f"sentence {name}: word {missing[0] + 1} ({word}) yields no word piece"
            " and the vocabulary has no unknown token"
        )
    ids, words = list(ids), list(words)
    for w in missing:
        # Before the first piece of a later word, else after the last piece of an earlier word, else after the
        # special tokens that open the sentence.
        later = [t for t, other in enumerate(words) if other > w]
        earlier = [t for t, other in enumerate(words) if SPECIAL < other < w]
        at = later[0] if later else earlier[-1] + 1 if earlier else _prefix_length(tokenizer)
        ids.insert(at, unknown)
        words.insert(at, w)
    return ids, words


def _prefix_length(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the number of special tokens that the tokenizer puts before a text."""
    encoding = _backend(tokenizer)[0].encode(["a"], is_pretokenized=True)
    return next((t for t, m in enumerate(encoding.special_tokens_mask) if not m), 0)


def _name(names: Sequence[str] | None, index: int) -> str:
    return names[index] if names is not None else str(index)
