"""Encoders and text of a diff, checked before anything is written."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bertft.data.examples import Text, inputs_of
from bertft.data.location import data_name
from bertft.data.sampling import stimuli_order
from bertft.data.streams import Stream
from bertft.errors import BertftError
from bertft.models.adapters import read_adapter
from bertft.models.encoder import Encoder
from bertft.models.fingerprint import fingerprint
from bertft.models.logit_lens import LogitLens
from bertft.models.names import is_adapter
from bertft.report.page.direction_words import DirectionEnd
from bertft.runs.digests import digest
from bertft.runs.progress import SILENT, Progress
from bertft.runs.vocabulary import BASE
from bertft.similarity.compare.stimuli import taken
from bertft.study.diff.settings import DiffCommand
from bertft.study.provenance import sources

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ORIGIN = ("_name_or_path", "name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype")
CHECKED = 1000  # texts on which tokenizers must agree, of a text that is compared as a whole


@dataclass(frozen=True)
class MovedWord:
    """A word in its context, where it is marked by ``[...]``, and its local RSA in one layer of an encoder."""

    model: str
    layer: int
    value: float
    word: str
    context: str


@dataclass(frozen=True)
class Released:
    """What the parts of a diff need of a base whose weights are not in memory (`bertft.study.diff.in_turn`).

    Attributes:
        digest: its fingerprint.
        weights: the digest of its weights (`weights_digest`).
        lens: its logit lens.
        files: the folder or the hub id of its weights.
    """

    digest: str
    weights: str
    lens: LogitLens | None
    files: str


@dataclass
class Compared:
    """The inputs of every part of a diff.

    Attributes:
        command: the settings.
        base: the encoder to compare with.
        tuned: encoders that differ from the base, by name.
        unchanged: why an encoder is the same as the base, by name.
        source: the text.
        digests: fingerprint of every encoder, on which all rows depend.
        out: the run folder, or None.
        progress: receives steps and messages.
        words: words that moved, filled in by the part that finds them.
        ends: words at the ends of directions, likewise.
        released: what is known of the base if its weights are not in memory, else None.
    """

    command: DiffCommand
    base: Encoder
    tuned: dict[str, Encoder]
    unchanged: dict[str, str]
    source: Stream
    digests: dict[str, str]
    out: Path | None = None
    progress: Progress = SILENT
    words: list[MovedWord] = field(default_factory=list)
    ends: list[DirectionEnd] = field(default_factory=list)
    released: Released | None = None

    @property
    def data(self) -> str:
        """The name of the text in the rows."""
        return data_name(self.command.text)

    @property
    def depends(self) -> dict[str, Any]:
        """Everything that the rows of any part depend on."""
        return {**self.command.to_tree(), "source": self.source.digest, "weights": self.digests}

    @property
    def sources(self) -> dict[str, Any]:
        """The models and the text with their fingerprints, for ``run.json``."""
        models = {BASE: self.command.base, **self.command.tuned}
        text = {self.data: self.command.text}
        return sources("models", models, self.digests) | sources("texts", text, {self.data: self.source.digest})

    def skip(self, count: int) -> None:
        """Leave out the first ``count`` stimuli of every text from now on."""
        for encoder in (self.base, *self.tuned.values()):
            encoder.skip_first = count

    def drawn(self, tokens: int) -> list[Any]:
        """Return the first texts, the last one whole, that hold as many stimuli as the command, at most ``tokens``."""
        most = tokens if self.command.tokens is None else min(tokens, self.command.tokens)
        return taken(self.base, self.texts(), tokens=most, unit=self.command.unit)

    def texts(self) -> Iterable[Any]:
        """Return the texts in the order in which they are taken."""
        return stimuli_order(self.source, self.command.tokens, self.command.seed)


def base_and_tuned(first: Mapping[str, str], others: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the base and the tuned models by name, from the first model given and the others, each by name.

    The first is the base, unless all are adapters of one base.

    Raises:
        BertftError: for a single model that is no adapter, for adapters of different bases, and for two of one name.
    """
    given = [*first.values(), *others.values()]
    if not all(map(is_adapter, given)):
        if not others:
            raise BertftError(f"diff: expected BASE and TUNED, found only {given[0]}, which is no adapter of a base")
        return given[0], dict(others)
    if twice := first.keys() & others.keys():
        raise BertftError(f"diff: two models are named {twice.pop()!r}; rename one with NAME=model")
    bases = {name: read_adapter(name).base for name in given}
    for name, base in bases.items():
        if base != bases[given[0]]:
            raise BertftError(
                f"diff: the adapters have no common base, {given[0]} names {bases[given[0]]} and {name} names {base}; "
                "give the base first"
            )
    return bases[given[0]], {**first, **others}


def load_encoder(name: str, dtype: str) -> Encoder:
    """Load an encoder; the error for an adapter without its base names both."""
    if not is_adapter(name):
        return Encoder.from_pretrained(name, dtype=DTYPES[dtype])
    base = read_adapter(name).base
    try:
        return Encoder.from_pretrained(name, dtype=DTYPES[dtype])
    except BertftError as error:
        if str(error).startswith(name):
            raise
        raise BertftError(f"{name}: the adapter's base {base} cannot be loaded ({error})") from None


def compared(
    command: DiffCommand,
    base: Encoder,
    tuned: Mapping[str, Encoder],
    source: Stream,
    *,
    out: Path | None,
    progress: Progress,
    released: Released | None = None,
) -> Compared:
    """Return the inputs of a diff; raise ``BertftError`` for encoders that cannot be compared on the text."""
    texts = stimuli_order(source, command.tokens, command.seed)
    if command.tokens is None:
        texts = itertools.islice(texts, CHECKED)
    drawn = taken(base, texts, tokens=command.tokens, unit=command.unit)
    base = copy.copy(base)  # what it skips is a matter of this diff
    found, unchanged = {}, {}
    digests = {"": fingerprint(base) if released is None else released.digest}
    for name, encoder in tuned.items():
        digests[name] = fingerprint(encoder)
        aligned = _aligned(base, encoder, name, drawn, command.unit)
        if released is not None and not (base.reads_like(aligned) and base.max_length == aligned.max_length):
            raise BertftError(f"diff: --in-turn needs one tokenizer and one window, found others in {name}")
        reason = _sameness(base, aligned, command.tuned[name], released)
        if reason is None:
            found[name] = copy.copy(aligned)
        else:
            unchanged[name] = reason
    return Compared(command, base, found, unchanged, source, digests, out, progress, released=released)


def _aligned(base: Encoder, encoder: Encoder, name: str, texts: Sequence[Any], unit: str) -> Encoder:
    """Return the encoder, reading with the tokenizer of the base if both give the same ids for every text.

    A tokenizer that only gained words, such as a padding token, is therefore no obstacle. For words, tokenizers may
    differ.
    """
    if base.reads_like(encoder):
        return encoder
    for text in texts:
        example = inputs_of([text], unit)
        ours, theirs = (one.tokenise(example, unit)[0] for one in (base, encoder))
        if ours.inputs.get("input_ids") != theirs.inputs.get("input_ids"):
            if unit == "word":
                return encoder
            shown = text.text if isinstance(text, Text) else str(text)
            raise BertftError(
                f"diff: the tokenizers of {name} and of the base read the text differently, first "
                f"{' '.join(shown.split())[:60]!r} ({ours.count} tokens in the base, {theirs.count} in {name}); "
                "compare words with --unit word"
            )
    return Encoder(encoder.model, base.tokenizer, encoder.name)


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of a model's weights alone."""
    found = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        found.update(digest({name: weight.cpu()}).encode())
    return found.hexdigest()


def _sameness(base: Encoder, encoder: Encoder, source: str, released: Released | None) -> str | None:
    """Return why an encoder gives the vectors of the base by definition, or None if it may not."""
    if _settings(base) != _settings(encoder) or not base.reads_like(encoder):
        return None
    if released is not None and released.weights != weights_digest(encoder.model):
        return None
    if released is None and not _equal_weights(base.model.state_dict(), encoder.model.state_dict()):
        return None
    if not is_adapter(source):
        return "its weights are those of the base"
    halves = [weight for name, weight in read_adapter(source).weights.items() if "lora_B" in name]
    zero = bool(halves) and not any(bool(weight.any()) for weight in halves)
    return "the adapter's weights are zero" if zero else "the adapter changes no weight"


def _equal_weights(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        torch.equal(weight, theirs[name].to(weight.device)) for name, weight in ours.items()
    )


def _settings(encoder: Encoder) -> dict[str, Any]:
    """Return the configuration without entries that say where a model comes from."""
    about: Any = encoder.model.config
    return {name: value for name, value in about.to_dict().items() if name not in ORIGIN}
