"""Word and token vectors of the layers of an encoder.

Layer 0 is the output of the embeddings and layer k the output of block k (``hidden_states[k]`` of Hugging Face). The
last layer is the model's output: in decoders that end in a normalisation it comes after that. The vector of a word is
the mean of the vectors of its word pieces. Special tokens and padding have no vectors.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from bertft.data.alignment import align_words
from bertft.data.examples import Input, RawInput, inputs_of
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
from bertft.models.blocks import blocks, freeze, reinitialise, truncate
from bertft.models.devices import device_of, layer_devices, main_device
from bertft.models.hooks import listening
from bertft.models.loading import load_pretrained, quiet_transformers, window_size
from bertft.models.skipping import without_first
from bertft.runs.progress import SILENT, Progress

__all__ = ["Batch", "Encoder", "freeze", "reinitialise", "truncate"]

# Number of examples sorted by length together: large enough that batches have almost no padding, small enough that a
# stream of any length fits in memory.
BUFFER = 2048


@dataclass(frozen=True, slots=True)
class Batch:
    """Vectors of some examples, packed without padding.

    - ``vectors``: (L, T, D), in the encoder's dtype and on its device; the layers are those requested, in that order.
    - ``lengths``: (S,) int64, the number of consecutive vectors of each example; T is their sum.
    - ``index``: (S,) int64, the position of each example in the input. With ``window="split"`` a long example has
      several entries with the same index.
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
        self.skip_first = 0  # vectors left out at the beginning of every example (`bertft.models.skipping`)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        device_map: str | None = None,
    ) -> Encoder:
        """Load an encoder. Only safetensors are read, and code that comes with a model is never run.

        Args:
            name: a folder, a Hugging Face id or ``id@revision``, or ``builtin:minilm``.
            device: defaults to the current GPU if there is one, else the CPU.
            dtype: of the weights, float32 by default.
            device_map: ``auto`` spreads the blocks over all GPUs and, if they do not fit, the CPU (accelerate); then
                ``device`` is not used.

        Raises:
            BertftError: if there is no such model, or it is not a BERT-like encoder with a fast tokenizer.
        """
        model, tokenizer = load_pretrained(name, dtype=dtype or torch.float32, device_map=device_map)
        return cls(model if device_map else model.to(device_of(device)), tokenizer, name=str(name))

    @property
    def num_layers(self) -> int:
        """Number of layers: of blocks, plus 1 for the embeddings (layer 0)."""
        return len(blocks(self.model)) + 1

    @property
    def dim(self) -> int:
        """D, the hidden size."""
        config: Any = self.model.config
        return int(config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Device of the model's inputs and of its vectors."""
        return main_device(self.model)

    @property
    def layer_devices(self) -> list[torch.device]:
        """Device of each layer, 0 to the last."""
        return layer_devices(self.model)

    @property
    def max_length(self) -> int:
        """Length of the longest input in word pieces, special tokens included."""
        return window_size(self.model, self.tokenizer)

    def stream(
        self,
        examples: Iterable[RawInput | Encoded],
        *,
        unit: str = "word",
        layers: Sequence[int] | None = None,
        batch_tokens: int = 4096,
        window: str = "refuse",
        skip: int = 0,
        progress: Progress = SILENT,
    ) -> Iterator[Batch]:
        """Yield the vectors of ``examples`` in batches of similar length.

        Within a buffer of 2,048 examples batches come longest first, so that an iterator of any length needs little
        memory; ``Batch.index`` gives the order.

        Args:
            examples: of one kind: word sequences; with ``unit="token"`` also texts or pairs of texts, as
                `bertft.data.examples.inputs_of` reads them; or the result of `tokenise`, which is not tokenised again.
            unit: ``word`` gives one vector for each word, the mean over its pieces, and ``token`` one for each piece.
            layers: layers to return, all by default. Blocks above the highest one do not run.
            batch_tokens: largest number of pieces of a batch, padding included.
            window: handling of an example longer than the model's window: ``refuse`` it with ``BertftError``, or
                ``split`` a word sequence or text into consecutive windows.
            skip: number of batches to leave out, without their forward passes, to resume an interrupted stream.
            progress: reports the examples encoded.

        Raises:
            BertftError: for other settings, layers the encoder lacks, and examples of mixed kinds or with an invalid
                text.
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
        examples: Iterable[RawInput | Encoded],
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
                for group in length_sorted_batches(
                    self._fit(self.tokenise(buffer, unit, start=start), window), batch_tokens
                ):
                    if skip > 0:
                        skip -= 1
                        continue
                    yield self._run(group, wanted)
                    step.advance(len(group))

    def tokenise(self, examples: Sequence[RawInput | Encoded], unit: str, *, start: int = 0) -> list[Encoded]:
        """Return ``examples`` as word pieces, in order and not cut to the window; ``index`` counts from ``start``.

        Encoders whose tokenizers are alike (`reads_like`) can stream the result in place of the examples.
        """
        done = [example for example in examples if isinstance(example, Encoded)]
        if done:
            if len(done) < len(examples):
                raise BertftError("stream: expected examples of one kind, found tokenised examples among others")
            return [dataclasses.replace(item, index=start + row) for row, item in enumerate(done)]
        given = cast("Sequence[RawInput]", examples)
        if unit == "word" and any(texts := [isinstance(example, str) for example in given]):
            raise BertftError(
                f'stream: unit="word" needs word sequences, example {start + texts.index(True)} is a text'
            )
        inputs = inputs_of(given, unit)
        kinds = {item.kind for item in inputs}
        if len(kinds) > 1:
            raise BertftError("stream: expected examples of one kind, found texts among word sequences or pairs")
        words = kinds == {"words"}
        found = self._pieces_of_words(inputs, start, unit) if words else self._pieces_of_texts(inputs, start)
        return [without_first(item, self.skip_first) for item in found] if self.skip_first else found

    def reads_like(self, other: Encoder) -> bool:
        """Return whether both tokenizers cut every text alike, into the same inputs of the model."""
        mine, theirs = self.tokenizer, other.tokenizer
        return mine is theirs or _rules(mine) == _rules(theirs)

    def _pieces_of_texts(self, inputs: list[Input], start: int) -> list[Encoded]:
        texts = [item.parts[0] if item.kind == "text" else tuple(item.parts) for item in inputs]
        try:
            with quiet_transformers():  # it warns about lengths, which `_fit` checks
                encoding = self.tokenizer(texts, return_special_tokens_mask=True, return_attention_mask=False)
        except (TypeError, UnicodeEncodeError):  # a text without a UTF-8 form: find it and report it
            for row, item in enumerate(inputs):
                for text in item.parts:
                    check_text(text, "the text", f"stream: example {start + row}")
            raise
        special = encoding.pop("special_tokens_mask")
        return [
            Encoded(
                start + row,
                {key: encoding[key][row] for key in encoding},
                count_up(not s for s in special[row]),
                whole=item.kind == "pair",
            )
            for row, item in enumerate(inputs)
        ]

    def _pieces_of_words(self, inputs: list[Input], start: int, unit: str) -> list[Encoded]:
        aligned = align_words(self.tokenizer, [item.parts for item in inputs])
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
            elif window == "split" and not item.whole:
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
                here = pool_words(hidden, pieces.to(hidden.device), offsets.to(hidden.device))
                found[layer] = here.to(self.device)

        with listening(self.model, max(wanted), keep) as run:
            run(**{key: value.to(self.device) for key, value in inputs.items()})
        index = torch.tensor([item.index for item in group])
        return Batch(vectors=torch.stack([found[layer] for layer in wanted]), lengths=lengths, index=index)


def _rules(tokenizer: Any) -> tuple[Any, ...]:
    """Return the settings that decide how a tokenizer cuts text, without truncation and padding (never used here)."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    return tokenizer.model_input_names, {key: rules[key] for key in rules if key not in ("truncation", "padding")}


def _split(item: Encoded, limit: int) -> list[Encoded]:
    """Cut an example between words into consecutive windows of at most ``limit`` pieces, each with special tokens."""
    slots = item.slots
    head = next(i for i, slot in enumerate(slots) if slot != -1)
    tail = len(slots) - next(i for i, slot in enumerate(reversed(slots)) if slot != -1)
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
        first = max(slots[start], 0)
        parts.append(Encoded(item.index, inputs, [slots[i] - first if slots[i] >= 0 else -1 for i in keep]))
        start = stop
    return parts
