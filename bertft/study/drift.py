"""Similarity to the base during training, as a callback of ``transformers.Trainer``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from bertft.data.english import english
from bertft.data.sampling import drawn
from bertft.errors import BertftError
from bertft.models.loading import load_pretrained
from bertft.similarity.pairwise_rsa import rsa

__all__ = ["DriftCallback"]

SHARE = 0.01  # of the training time
LENGTH = 64  # tokens of a text; the rest is cut off


class DriftCallback(TrainerCallback):
    """Log the similarity of every layer to the base while a ``Trainer`` trains.

    ``drift/layer_<k>`` is the RSA of layer k with the same layer of the base (Pearson correlation of cosine
    similarities, over all pairs of the sampled tokens): 1 at the start, and lower as the layer departs. It goes through
    the log of the trainer, to every reporter. ``drift/lowest`` is that of the most changed layer.

    ```python
    trainer = Trainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
    trainer.add_callback(DriftCallback(trainer))
    ```

    The base is the model at the beginning of the training; of a PEFT model it is the model without its adapter. The
    interval follows from the measured cost: measurements take at most ``share`` of the time since the training began.
    Shorter trainings get one measurement, at the end.

    Args:
        trainer: the trainer that the callback is added to.
        texts: texts, by default sentences of the English that comes with Python.
        every: least number of steps between two measurements.
        tokens: number of tokens to compare, in whole texts.
        share: largest share of the training time.
        base: a model to compare with in place of the first state, for a training that resumes.
        seed: of the choice of default texts.

    Raises:
        BertftError: there is no tokenizer, there are too few tokens, or the weights are spread over processes.
    """

    def __init__(
        self,
        trainer: Any,
        texts: Sequence[str] | None = None,
        *,
        every: int = 50,
        tokens: int = 256,
        share: float = SHARE,
        base: str | None = None,
        seed: int = 0,
    ) -> None:
        tokenizer = getattr(trainer, "processing_class", None)
        if not callable(tokenizer):
            raise BertftError("DriftCallback: expected a Trainer with a tokenizer as processing_class, found none")
        if getattr(trainer, "is_fsdp_enabled", False) or getattr(trainer, "is_deepspeed_enabled", False):
            raise BertftError("DriftCallback: needs all weights in one process, found FSDP or DeepSpeed")
        if every < 1 or not 0 < share <= 1:
            raise BertftError(f"DriftCallback: expected every >= 1 and 0 < share <= 1, found {every} and {share}")
        self.trainer, self.every, self.share, self.base = trainer, every, share, base
        self.batch, self.kept = _sample(tokenizer, texts, tokens, seed)
        self.spent = 0.0  # seconds of all measurements
        self._start = self._cost = 0.0
        self._first: list[Tensor] = []  # (N, D) of each layer of the base
        self._last = 0  # step of the last measurement

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Keep the vectors of the base."""
        self._start = time.monotonic()
        self.spent, self._last = 0.0, state.global_step
        if not state.is_world_process_zero:
            return
        with self._timed():
            if self.base is not None:
                other = load_pretrained(self.base)[0].to(next(model.parameters()).device)
                self._first = self._vectors(other)
            else:
                with model.disable_adapter() if hasattr(model, "disable_adapter") else contextlib.nullcontext():
                    self._first = self._vectors(model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Measure if enough steps have passed and the measurement fits into the share of time."""
        if not self._first or state.global_step - self._last < self.every:
            return
        if self.spent + self._cost <= self.share * (time.monotonic() - self._start):
            self._log(state, control, model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Measure once if nothing was logged before."""
        if self._first and not any("drift/lowest" in entry for entry in state.log_history):
            self._log(state, control, model)

    def _log(self, state: Any, control: Any, model: nn.Module) -> None:
        with self._timed():
            values = self.similarities(model)
        self._last = state.global_step
        wanted = control.should_log  # logging clears it, and the loss would not be logged
        self.trainer.log({f"drift/layer_{k}": value for k, value in enumerate(values)} | {"drift/lowest": min(values)})
        control.should_log = wanted

    def similarities(self, model: nn.Module) -> list[float]:
        """Return the similarity of each layer of ``model`` to the base."""
        pairs = zip(self._first, self._vectors(model), strict=True)
        return [min(1.0, rsa(before, now, "cosine", "pearson").estimate) for before, now in pairs]

    def _vectors(self, model: nn.Module) -> list[Tensor]:
        """Return the vectors (N, D) float32 of the sampled tokens in every layer, on the CPU."""
        training = [module for module in model.modules() if module.training]
        device = next(model.parameters()).device
        try:
            with torch.no_grad():
                outputs = model.eval()(
                    **{name: value.to(device) for name, value in self.batch.items()}, output_hidden_states=True
                )
        finally:
            for module in training:
                module.training = True
        hidden = getattr(outputs, "hidden_states", None)
        if hidden is None:
            raise BertftError(f"DriftCallback: expected hidden states, found none in {type(outputs).__name__}")
        return [layer[self.kept.to(device)].float().cpu() for layer in hidden]

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        """Count the seconds of a measurement."""
        begun = time.monotonic()
        yield
        self._cost = time.monotonic() - begun
        self.spent += self._cost


def _sample(tokenizer: Any, texts: Sequence[str] | None, tokens: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return one padded batch, and the mask (B, P) of the first ``tokens`` tokens that are neither special nor padding.

    Nor is one of them the first of its text. Padding stands on the right.
    """
    chosen = texts if texts is not None else [text.text for text in drawn(english(), seed)]
    rows, count = [], 0
    for text in chosen:
        row = tokenizer(text, return_special_tokens_mask=True, truncation=True, max_length=LENGTH)
        rows.append(row)
        count += sum(not special for special in row["special_tokens_mask"][1:])
        if count >= tokens:
            break
    if count < 4:
        raise BertftError(f"DriftCallback: expected texts of at least 4 tokens, found {count}")
    width = max(len(row["input_ids"]) for row in rows)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids = torch.full((len(rows), width), pad)
    mask, special = torch.zeros(len(rows), width, dtype=torch.int64), torch.ones(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        size = len(row["input_ids"])
        ids[i, :size] = torch.tensor(row["input_ids"])
        mask[i, :size] = 1
        special[i, :size] = torch.tensor(row["special_tokens_mask"]).bool()
        special[i, 0] = True  # of a decoder without a special token it carries an activation that decides every sum
    kept = ~special
    kept.view(-1)[kept.view(-1).nonzero()[tokens:, 0]] = False
    return {"input_ids": ids, "attention_mask": mask}, kept
