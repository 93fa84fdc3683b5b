"""Word and token vectors of the layers of an encoder.

Layer 0 is the output of the embeddings and layer k the output of block k (``hidden_states[k]`` of Hugging Face). The
last layer is the model's output: in decoders that end in a normalisation it comes after that. The vector of a word is
the mean of the vectors of its word pieces. Special tokens and padding have no vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from bertft.data.examples import RawInput, inputs_of
from bertft.errors import BertftError
from bertft.models.batching import Encoded
from bertft.models.blocks import blocks, freeze, reinitialise, truncate
from bertft.models.devices import encoder_device, layer_devices, main_device, vector_device
from bertft.models.hooks import listening
from bertft.models.loading import load_pretrained, window_size
from bertft.models.masks import ready_mask
from bertft.models.pieces import Pieces, Prepared, fitting, pool, prepare, sent
from bertft.models.skipping import without_first
from bertft.models.tokenising import padding_of, pieces_of_texts, pieces_of_words, same_rules
from bertft.runs.progress import SILENT, Progress
from bertft.runs.shown import as_html
from bertft.runs.units import short

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
            device: defaults to the current GPU if there is one (``mps`` on a Mac), else the CPU.
            dtype: of the weights, float32 by default.
            device_map: ``auto`` spreads the blocks over all GPUs and, if they do not fit, the CPU (accelerate); then
                ``device`` is not used.

        Raises:
            BertftError: if there is no such model, or it is not a BERT-like encoder with a fast tokenizer.
        """
        model, tokenizer = load_pretrained(name, dtype=dtype or torch.float32, device_map=device_map)
        return cls(model if device_map else model.to(encoder_device(device)), tokenizer, name=str(name))

    def __repr__(self) -> str:
        kind, depth, width, parameters, dtype, device = self._facts().values()
        size = f"{depth} blocks of {width} dimensions, {parameters} parameters"
        return f"Encoder({self.name!r}: {kind}, {size} in {dtype} on {device})"

    def _repr_html_(self) -> str:
        facts = self._facts()
        return as_html((f"Encoder {self.name}", list(facts), [list(facts.values())]))

    def _facts(self) -> dict[str, str]:
        model: Any = self.model
        return {
            "architecture": str(model.config.model_type),
            "blocks": str(self.num_layers - 1),
            "dimensions": str(self.dim),
            "parameters": short(sum(weight.numel() for weight in model.parameters())),
            "weights": str(next(model.parameters()).dtype).removeprefix("torch."),
            "device": str(self.device),
        }

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
        """Device of the vectors: that of the model's inputs, but the CPU for a model on ``mps``."""
        return vector_device(main_device(self.model))

    @property
    def layer_devices(self) -> list[torch.device]:
        """Device of the vectors of each layer, 0 to the last."""
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
                pieces = self.tokenise(buffer, unit, start=start)
                for batch in sent(self.prepared(pieces, batch_tokens, window), self.device):
                    if skip > 0:
                        skip -= 1
                        continue
                    yield self.encode(batch, wanted)
                    step.advance(len(batch.index))

    def tokenise(self, examples: Sequence[RawInput | Encoded], unit: str, *, start: int = 0) -> Pieces:
        """Return ``examples`` as word pieces, in order and not cut to the window; ``index`` counts from ``start``.

        Encoders whose tokenizers are alike (`reads_like`) can stream the result in place of the examples.
        """
        if isinstance(examples, Pieces) or any(isinstance(example, Encoded) for example in examples):
            done = [example for example in examples if isinstance(example, Encoded)]
            if len(done) < len(examples):
                raise BertftError("stream: expected examples of one kind, found tokenised examples among others")
            return Pieces.of(done).numbered(np.arange(start, start + len(done)))
        if not examples:
            return Pieces.of([])
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
        found = (
            pieces_of_words(self.tokenizer, inputs, start, unit)
            if words
            else pieces_of_texts(self.tokenizer, inputs, start)
        )
        return without_first(found, self.skip_first) if self.skip_first else found

    def prepared(self, pieces: Pieces, batch_tokens: int, window: str) -> Iterator[Prepared]:
        """Yield batches of similar length, longest first, on the CPU; `stream` documents the arguments."""
        fitted = fitting(pieces, self.max_length, split=window == "split", name=self.name)
        padding = padding_of(self.tokenizer)
        for rows in fitted.batches(batch_tokens):
            yield prepare(fitted, rows, padding)

    @torch.inference_mode()
    def encode(self, batch: Prepared, layers: Sequence[int]) -> Batch:
        """Return the vectors of a batch that `sent` has put on the encoder's device. The host does not wait for it."""
        vectors: list[Tensor] = []  # (L, T, D), made when the first layer shows its type
        device, there = self.device, main_device(self.model)
        if there != device:
            batch = batch.mapped(lambda tensor: tensor.to(there))

        def keep(layer: int, hidden: Tensor) -> None:
            if layer in layers:
                if not vectors:
                    size = (len(layers), batch.vectors, hidden.shape[-1])
                    vectors.append(hidden.new_empty(size, device=device))
                for place in (i for i, wanted in enumerate(layers) if wanted == layer):
                    pool(hidden, batch, vectors[0][place])

        inputs: dict[str, Tensor | None] = dict(batch.inputs)
        inputs["attention_mask"] = ready_mask(self.model, batch.inputs["attention_mask"], padded=batch.padded)
        with listening(self.model, max(layers), keep) as model:
            model(**inputs)
        return Batch(vectors[0], batch.lengths, batch.index)

    def reads_like(self, other: Encoder) -> bool:
        """Return whether both tokenizers cut every text alike, into the same inputs of the model."""
        return same_rules(self.tokenizer, other.tokenizer)
