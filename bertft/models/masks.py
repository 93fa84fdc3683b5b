"""Attention masks that a model uses without a look at their values."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

PLAIN = {"bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"}
"""Kinds of models that use the mask in ``create_bidirectional_mask`` of transformers only."""


def ready_mask(model: nn.Module, mask: Tensor, *, padded: bool) -> Tensor | None:
    """Return the attention mask (S, P) of a batch in the form that ``model`` takes as it is; None if it needs none.

    ``padded`` says whether the mask hides anything. transformers finds that out from the values, for which the host
    waits for the GPU in each forward pass. It takes a mask (S, 1, P, P) unseen, and makes no mask of None. Other kinds
    of models get the mask as it is.
    """
    config: Any = model.config
    if config.model_type not in PLAIN or getattr(config, "_attn_implementation", "") != "sdpa":
        return mask
    return mask.bool()[:, None, None, :].expand(-1, 1, mask.shape[1], -1) if padded else None
