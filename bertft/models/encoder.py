"""Word and token vectors of every layer of a Hugging Face encoder, as a stream.

Layer 0 is the embedding output and layer k the output of block k (``hidden_states[k]`` of Hugging Face). A word's
vector is the mean of its word pieces' vectors; special tokens and padding never leave this module.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bertft.data.files import check_text
from bertft.errors import BertftError
from bertft.models.batching import (
    Encoded,
    count_up,
    length_sorted_batches,
    pad,
    pad_inputs,
    pool_words,
    word_inputs,
    word_pieces,
)
from bertft.models.blocks import (
    blocks,
    freeze,
    listening,
    load_pretrained,
    quiet_transformers,
    reinitialise,
    truncate,
    window_size,
)
from bertft.models.devices import device_of
from bertft.runs.progress import SILENT, Progress

__all__ = ["Batch", "Encoder", "freeze", "reinitialise", "truncate"]

# Examples that are sorted by length together: enough that batches hold almost no padding, few enough that a stream of
# any length is never held.
BUFFER = 2048


@dataclass(frozen=True, slots=True)
class Batch:
    """Vectors of a few examples, packed without padding.

    ``vectors`` (L, T, D) in the encoder's dtype and on its device, the asked-for layers in the asked-for order;
    ``lengths`` (S,) int64, how many consecutive vectors each example has, T in all; ``index`` (S,) int64, each
    example's position in the input. With ``window="split"`` a long example is several entries of one ``index``.
    """

    vectors: Tensor
    lengths: Tensor
    index: Tensor


class Encoder:
    """A BERT-like encoder in evaluation mode, with its fast tokenizer."""

    def __init__(self, model: nn.Module, tokenizer: Any, name: str = "encoder") -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name

    @classmethod
    def from_pretrained(
        cls, name: str, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Encoder:
        """Load the encoder ``name``: a folder, a Hugging Face id or ``id@revision``, or ``builtin:minilm``.

        ``device`` defaults to the GPU where there is one, ``dtype`` to float32. Only safetensors are read, and code
        that comes with a model is never run. Raises ``BertftError`` for anything that is no encoder.
        """
        model, tokenizer = load_pretrained(name, dtype=dtype or torch.float32)
        return cls(model.to(device_of(device)), tokenizer, name=str(name))

    @property
    def num_layers(self) -> int:
        """Blocks + 1: layer 0 is the embedding output."""
        return len(blocks(self.model)) + 1

    @property
    def dim(self) -> int:
        """D, the hidden size."""
        config: Any = self.model.config
        return int(config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    @property
    def max_length(self) -> int:
        """The longest input in pieces, special tokens included."""
        return window_size(self.model, self.tokenizer)

    def stream(
        self,
        examples: Iterable[str | tuple[str, str] | Sequence[str]],
        *,
        unit: str = "word",
        layers: Sequence[int] | None = None,
        batch_tokens: int = 4096,
        window: str = "refuse",
        skip: int = 0,
        progress: Progress = SILENT,
    ) -> Iterator[Batch]:
        """Yield the vectors of ``examples`` in batches of similar length, each of at most ``batch_tokens`` pieces.

        ``examples`` are word sequences, or with ``unit="token"`` also texts or text pairs (a tuple of two strings).
        ``unit="word"`` gives one vector a word, the mean of its pieces; ``unit="token"`` one a piece. ``layers``
        defaults to all; blocks above the highest asked for are not run. Within a buffer of 2,048 examples batches
        come longest first, so an iterator of any length is never held; ``Batch.index`` tells the order. An example
        longer than the model's window raises ``BertftError``; with ``window="split"`` a long word sequence or text is
        run as consecutive windows instead. The first ``skip`` batches are left out, their forward passes not run: how
        a stream goes on where it was cut off.
        """
        if unit not in ("word", "token"):
            raise BertftError(f'stream: unit must be "word" or "token", found {unit!r}')
        if window not in ("refuse", "split"):
            raise BertftError(f'stream: window must be "refuse" or "split", found {window!r}')
        wanted = list(range(self.num_layers)) if layers is None else [int(layer) for layer in layers]
        if not wanted or not all(0 <= layer < self.num_layers for layer in wanted):
            raise BertftError(f"stream: layers must be some of 0..{self.num_layers - 1}, found {wanted}")
        return self._stream(examples, unit, wanted, batch_tokens, window, skip, progress)

    def _stream(
        self,
        examples: Iterable[Any],
        unit: str,
        wanted: list[int],
        batch_tokens: int,
        window: str,
        skip: int,
        progress: Progress,
    ) -> Iterator[Batch]:
        total = len(examples) if isinstance(examples, Sized) else None
        with progress.step(f"encode {self.name}", total=total, unit="examples") as step:
            source = iter(examples)
            for start in itertools.count(0, BUFFER):
                buffer = list(itertools.islice(source, BUFFER))
                if not buffer:
                    return
                for group in length_sorted_batches(self._encode(buffer, start, unit, window), batch_tokens):
                    if skip > 0:
                        skip -= 1
                        continue
                    yield self._run(group, wanted)
                    step.advance(len(group))

    def _encode(self, examples: list[Any], start: int, unit: str, window: str) -> list[Encoded]:
        texts = [isinstance(example, str) for example in examples]
        # Two strings may be a pair of texts or a sentence of two words; unit="word" and any longer neighbour tell.
        pairs = unit == "token" and all(isinstance(e, tuple) and len(e) == 2 for e in examples)
        if unit == "word" and any(texts):
            raise BertftError(
                f'stream: unit="word" needs word sequences, example {start + texts.index(True)} is a text'
            )
        if all(texts) or pairs:
            encoded = self._encode_texts(examples, start)
        elif any(texts):
            raise BertftError("stream: expected examples of one kind, found texts beside word sequences or pairs")
        else:
            encoded = self._encode_words(examples, start, unit)
        return self._fit(encoded, "refuse" if pairs else window)

    def _encode_texts(self, examples: list[Any], start: int) -> list[Encoded]:
        try:
            with quiet_transformers():  # the length is checked below
                encoding = self.tokenizer(examples, return_special_tokens_mask=True, return_attention_mask=False)
        except (TypeError, UnicodeEncodeError):  # what has no UTF-8 form
            for row, example in enumerate(examples):
                for text in [example] if isinstance(example, str) else example:
                    check_text(text, "the text", f"stream: example {start + row}")
            raise
        special = encoding.pop("special_tokens_mask")
        return [
            Encoded(start + row, {key: encoding[key][row] for key in encoding}, count_up(not s for s in special[row]))
            for row in range(len(examples))
        ]

    def _encode_words(self, sentences: list[Sequence[str]], start: int, unit: str) -> list[Encoded]:
        from bertft.data.alignment import align_words

        aligned = align_words(self.tokenizer, sentences)
        return [
            Encoded(
                start + row,
                word_inputs(self.tokenizer, ids),
                words if unit == "word" else count_up(w >= 0 for w in words),
            )
            for row, (ids, words) in enumerate(zip(aligned.ids, aligned.words, strict=True))
        ]

    def _fit(self, encoded: list[Encoded], window: str) -> list[Encoded]:
        limit = self.max_length
        fitted: list[Encoded] = []
        for item in encoded:
            if len(item) <= limit:
                fitted.append(item)
            elif window == "split":
                fitted.extend(_split(item, limit))
            else:
                raise BertftError(
                    f"stream: example {item.index} has {len(item)} pieces, expected at most {limit} for {self.name}"
                )
        return fitted

    @torch.inference_mode()
    def _run(self, group: list[Encoded], wanted: list[int]) -> Batch:
        inputs = pad_inputs([item.inputs for item in group], self.tokenizer)
        lengths = torch.tensor([item.count for item in group])
        pieces, offsets = (t.to(self.device) for t in word_pieces(pad([item.slots for item in group], -1), lengths))
        found: dict[int, Tensor] = {}

        def keep(layer: int, hidden: Tensor) -> None:
            if layer in wanted:
                found[layer] = pool_words(hidden, pieces, offsets)

        with listening(self.model, max(wanted), keep) as model:
            model(**{key: value.to(self.device) for key, value in inputs.items()})
        index = torch.tensor([item.index for item in group])
        return Batch(vectors=torch.stack([found[layer] for layer in wanted]), lengths=lengths, index=index)


def _split(item: Encoded, limit: int) -> list[Encoded]:
    """Cut an example into consecutive windows of at most ``limit`` pieces, between words, special tokens kept."""
    slots = item.slots
    head = next(i for i, slot in enumerate(slots) if slot >= 0)
    tail = len(slots) - next(i for i, slot in enumerate(reversed(slots)) if slot >= 0)
    room = limit - head - (len(slots) - tail)
    parts = []
    start = head
    while start < tail:
        stop = min(start + room, tail)
        while start < stop < tail and slots[stop] == slots[stop - 1]:
            stop -= 1
        if stop == start:
            raise BertftError(f"stream: example {item.index} has a word of more than {room} pieces, the window's room")
        keep = [*range(head), *range(start, stop), *range(tail, len(slots))]
        inputs = {key: [values[i] for i in keep] for key, values in item.inputs.items()}
        first = slots[start]
        parts.append(Encoded(item.index, inputs, [slots[i] - first if slots[i] >= 0 else -1 for i in keep]))
        start = stop
    return parts
