"""Words to word pieces, for any fast tokenizer: BERT, RoBERTa and GPT-2 (leading space), SentencePiece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from bertft.data.files import check_text, shorten
from bertft.errors import BertftError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

SPECIAL = -1
"""The word index of pieces that belong to no word: ``[CLS]``, ``[SEP]``, ``<s>``, ..."""

_copies: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, Tokenizer, bool]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class AlignedWords:
    """Word pieces of a list of sentences.

    ``ids[s][t]`` is the vocabulary index of piece ``t`` of sentence ``s``, special tokens included; ``words[s][t]`` the
    index (from 0) of the word it belongs to, or ``SPECIAL``. Both are of the piece's length; nothing is padded. Word
    indices ascend along a sentence and every word has at least one piece.
    """

    ids: list[list[int]]
    words: list[list[int]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """Pieces of each sentence, special tokens included."""
        return [len(ids) for ids in self.ids]


def align_words(
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[Sequence[str]],
    max_length: int | None = None,
    *,
    names: Sequence[str] | None = None,
) -> AlignedWords:
    """Cut every word of ``sentences`` into pieces and say which piece belongs to which word.

    Each word is cut on its own, as the tokenizer cuts it in running text after a space (so a byte-level
    vocabulary gives ``Ġword``, at the sentence's start too). Text that spells a special token (``[SEP]``, ``</s>``) is
    cut like other text, or becomes an unknown-token piece where the vocabulary cannot cut it. A word that yields no
    piece (a control character, white space, an empty string) becomes one unknown-token piece, so that no word is lost.
    The tokenizer itself is left as it was.

    Raises ``BertftError`` for a tokenizer that is not a fast one, for a word without a piece where the vocabulary has
    no unknown token, for a word with half a character in it, and for a sentence of more than ``max_length`` pieces
    (special tokens counted; None: no limit), naming it by ``names`` or its index from 0.
    """
    backend, needs_space = _backend(tokenizer)
    inputs = [[f" {word}" for word in words] if needs_space else list(words) for words in sentences]
    unknown = tokenizer.unk_token_id
    reserved = set(tokenizer.all_special_ids) - {unknown}
    result = AlignedWords([], [])
    try:
        encodings = backend.encode_batch(inputs, is_pretokenized=True, add_special_tokens=True)
    except (TypeError, UnicodeEncodeError):  # what has no UTF-8 form
        for s, sentence in enumerate(sentences):
            for word in sentence:
                check_text(word, "a word", f"sentence {_name(names, s)}")
        raise
    for s, encoding in enumerate(encodings):
        ids = encoding.ids
        special = encoding.special_tokens_mask
        words = [SPECIAL if m or w is None else w for w, m in zip(encoding.word_ids, special, strict=True)]
        if unknown is not None and not reserved.isdisjoint(i for i, m in zip(ids, special, strict=True) if not m):
            ids = [unknown if i in reserved and not m else i for i, m in zip(ids, special, strict=True)]
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


def _backend(tokenizer: PreTrainedTokenizerBase) -> tuple[Tokenizer, bool]:
    """A private copy of the Rust tokenizer, without truncation and padding, and whether words need a space before."""
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
    """Whether a word handed over alone must begin with a space to be cut as it is after another word.

    So it is with byte-level vocabularies without ``add_prefix_space``: ``dog`` alone would continue the word before.
    """
    alone, spaced, after = (backend.encode(text, add_special_tokens=False).ids for text in ("a", " a", "a a"))
    return alone != spaced and after[len(alone) :] == spaced


def _fill(
    tokenizer: PreTrainedTokenizerBase, sentence: Sequence[str], ids: list[int], words: list[int], name: str
) -> tuple[list[int], list[int]]:
    """``ids`` and ``words`` with one unknown-token piece put in for every word that has none."""
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
        # Before the first piece of a later word, else behind the last piece of the words before, else behind what
        # special tokens open the sentence.
        later = [t for t, other in enumerate(words) if other > w]
        earlier = [t for t, other in enumerate(words) if SPECIAL < other < w]
        at = later[0] if later else earlier[-1] + 1 if earlier else _prefix_length(tokenizer)
        ids.insert(at, unknown)
        words.insert(at, w)
    return ids, words


def _prefix_length(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many special tokens the tokenizer puts before a text."""
    encoding = _backend(tokenizer)[0].encode(["a"], is_pretokenized=True)
    return next((t for t, m in enumerate(encoding.special_tokens_mask) if not m), 0)


def _name(names: Sequence[str] | None, index: int) -> str:
    return names[index] if names is not None else str(index)
