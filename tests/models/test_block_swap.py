"""Hybrids of two models against whole passes of models with exchanged weights."""

from __future__ import annotations

import copy

import pytest
import torch
from families import save

from bertft.data import synthetic
from bertft.errors import BertftError
from bertft.models import block_swap
from bertft.models.block_swap import BlockSwap
from bertft.models.blocks import blocks, embedding_modules, truncate
from bertft.models.encoder import Encoder

TEXTS = [" ".join(s.words) for s in synthetic.sentences(6, seed=3)]


def pair(folder):
    """Return a model and the same with noise on every weight."""
    base, tuned = (Encoder.from_pretrained(str(folder), device="cpu") for _ in range(2))
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in tuned.model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=g))
    return base, tuned


def hybrid(host: Encoder, guest: Encoder, part: int) -> Encoder:
    """Return a copy of ``host`` with the weights of one part of ``guest``."""
    model = copy.deepcopy(host.model)
    mine, theirs = ([embedding_modules(m), *([b] for b in blocks(m))][part] for m in (model, guest.model))
    for one, other in zip(mine, theirs, strict=True):
        one.load_state_dict(other.state_dict())
    return Encoder(model, host.tokenizer)


@pytest.mark.parametrize("family", ["bert", "deberta-v3", "modernbert", "gpt2", "llama"])
def test_hybrids_equal_whole_passes(family, tmp_path):
    base, tuned = pair(save(family, tmp_path))
    compare_with_whole_passes(base, tuned)


def test_blocks_that_pass_on_more_than_hidden_states_run_as_a_whole(tmp_path):
    """As in T5, whose first block computes the position bias of all others."""
    base, tuned = pair(save("bert", tmp_path))
    carried = {}

    def carry(module, args, output):
        carried[args[0].shape] = 0.5

    def take(module, args):
        return args[0] + carried.pop(args[0].shape, 0.0), *args[1:]

    for encoder in (base, tuned):
        first, second = blocks(encoder.model)
        first.register_forward_hook(carry)
        second.register_forward_pre_hook(take)
    compare_with_whole_passes(base, tuned)


def compare_with_whole_passes(base, tuned):
    before = [{k: v.clone() for k, v in e.model.state_dict().items()} for e in (base, tuned)]
    items = base.tokenise(TEXTS, "token")
    swap = BlockSwap(base, tuned)
    parts = swap.changed()
    assert parts == [0, 1, 2] and swap.parts == 3
    found = swap.tops(items, parts)
    encoders = [base, tuned, *(hybrid(base, tuned, p) for p in parts), *(hybrid(tuned, base, p) for p in parts)]
    for place, (encoder, top) in enumerate(zip(encoders, found, strict=True)):
        batches = list(encoder.stream(items, unit="token", layers=[2], batch_tokens=10**6))
        assert len(batches) == 1
        order = torch.argsort(batches[0].index)
        pieces = batches[0].vectors[0].split(batches[0].lengths.tolist())
        torch.testing.assert_close(top, torch.cat([pieces[i] for i in order]), rtol=1e-5, atol=1e-6, msg=f"{place}")
    assert all(not torch.allclose(a, b) for i, a in enumerate(found) for b in found[i + 1 :])
    for encoder, state in zip((base, tuned), before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in encoder.model.state_dict().items())


def test_unchanged_parts_are_known(tiny_model, disturbed):
    base = Encoder.from_pretrained(str(tiny_model))
    assert BlockSwap(base, disturbed(blocks=(1,))).changed() == [2]
    assert BlockSwap(base, base).changed() == []


def test_a_block_that_serves_several_layers_is_refused(tiny_model, monkeypatch):
    base = Encoder.from_pretrained(str(tiny_model))
    monkeypatch.setattr(block_swap, "blocks", lambda model: torch.nn.ModuleList(list(blocks(model))))
    with pytest.raises(BertftError, match="a block of its own for each layer, found one for several in BertModel"):
        BlockSwap(base, base)


def test_models_of_other_architectures_are_refused(tiny_model):
    base = Encoder.from_pretrained(str(tiny_model))
    short = Encoder.from_pretrained(str(tiny_model))
    truncate(short.model, 2)
    with pytest.raises(BertftError, match="BertModel of 3 blocks and 32 dimensions and BertModel of 2 blocks"):
        BlockSwap(base, short)
    other = Encoder.from_pretrained(str(tiny_model))
    blocks(other.model)[0].intermediate.dense = torch.nn.Linear(32, 48)
    with pytest.raises(BertftError, match="3 blocks and 32 dimensions with weights of other shapes"):
        BlockSwap(base, other)
