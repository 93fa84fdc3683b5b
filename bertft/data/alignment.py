"""Alignment of words and word pieces.

Works with any fast tokenizer: WordPiece (BERT), byte-level vocabularies with a leading space (RoBERTa, GPT-2) and
SentencePiece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from bertft.data.files import check_text, shorten
from bertft.errors import BertftError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

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
    backend, needs_space = _backend(tokenizer)
    inputs = [[f" {word}" for word in words] if needs_space else list(words) for words in sentences]
    result = AlignedWords([], [])
    try:
        encodings = backend.encode_batch(inputs, is_pretokenized=True, add_special_tokens=True)
    except (TypeError, UnicodeEncodeError):  # text without a UTF-8 form
        for s, sentence in enumerate(sentences):
            for word in sentence:
                check_text(word, "a word", f"sentence {_name(names, s)}")
        raise
    for s, encoding in enumerate(encodings):
        ids, words = _pieces(tokenizer, encoding)
        if len(set(words) - {SPECIAL}) != len(sentences[s]):
            ids, words = _fill(tokenizer, sentences[s], ids, words, _name(names, s))
        if max_length is not None and len(ids) > max_length:
            raise BertftError(
                f"sentence {_name(names, s)} ({shorten(' '.join(sentences[s]))}) has {len(ids)} word pieces with its"
                f" special tokens, expected at most {max_length}, the window of the encoder"
            )
        result.ids.append(ids)
        result.words.append(words)
    return result


def _pieces(tokenizer: PreTrainedTokenizerBase, encoding: Encoding) -> tuple[list[int], list[int]]:
    """Return ids and words of an encoding; text that spells a special token becomes an unknown-token piece."""
    unknown, special = tokenizer.unk_token_id, encoding.special_tokens_mask
    words = [SPECIAL if m or w is None else w for w, m in zip(encoding.word_ids, special, strict=True)]
    reserved = set(tokenizer.all_special_ids) - {unknown}
    if unknown is None or reserved.isdisjoint(i for i, m in zip(encoding.ids, special, strict=True) if not m):
        return encoding.ids, words
    return [unknown if i in reserved and not m else i for i, m in zip(encoding.ids, special, strict=True)], words


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
