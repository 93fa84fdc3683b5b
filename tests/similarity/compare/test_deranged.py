"""Unrelated texts of decoders: calibrated values are 0."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2Model

from bertft.similarity import Plan, compare_vectors

STOP, SIZE = 1, 200  # the id that ends every text, and the number of ids


def sizes(texts: int, most: int) -> list[int]:
    """Return the lengths of texts, of 8 to ``most`` tokens."""
    return torch.randint(8, most + 1, (texts,), generator=torch.Generator().manual_seed(0)).tolist()


def decoder(seed: int, sink: float) -> GPT2Model:
    """Return a random decoder of 4 blocks; the vector of the first position is ``sink`` times as long as usual."""
    settings = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 16, "vocab_size": SIZE}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = GPT2Model(GPT2Config(**settings, bos_token_id=None, eos_token_id=None)).eval()
        model.wpe.weight[0] *= sink
        model.wte.weight[STOP] *= 4
    return model


@torch.inference_mode()
def read(model: GPT2Model, seed: int, lengths: list[int]) -> torch.Tensor:
    """Return the vectors (L, T, D) of random texts of ``lengths``, each of which ends in `STOP`."""
    g, layers = torch.Generator().manual_seed(seed), []
    for length in lengths:
        ids = torch.cat([torch.randint(2, SIZE, (length - 1,), generator=g), torch.tensor([STOP])])
        layers.append(torch.stack(model(ids[None], output_hidden_states=True).hidden_states)[:, 0])
    return torch.cat(layers, 1)


@pytest.mark.slow
def test_unrelated_texts_of_decoders_with_sinks_are_at_zero():
    """Each decoder reads texts of its own. Without the sinks nothing is left but full stops beside full stops."""
    lengths = sizes(250, 14)
    x, y = (read(decoder(seed, sink=500), seed, lengths) for seed in (1, 2))
    groups = torch.repeat_interleave(torch.arange(250), torch.tensor(lengths)).tolist()
    rows = {(r.model, r.measure, r.layer): r for r in compare_vectors(x, y, Plan(null=100), groups=groups)}
    for layer in range(4):  # behind the last block is the final normalisation
        assert rows["base", "massive_stimuli", layer].value == rows["tuned", "massive_stimuli", layer].value == 250
        assert rows["tuned", "cka_debiased_with_massive", layer].value > 0.9
    for measure in ("rsa_cosine_pearson", "cka_debiased"):
        for layer in range(5):
            assert abs(rows["tuned", f"{measure}_calibrated", layer].value) < 0.02, (measure, layer)
    assert rows["tuned", "cka_debiased", 1].value > 0.03  # what full stops alone give


def test_full_stops_at_the_end_of_unrelated_texts_are_part_of_the_null():
    """Most classes hold texts of several lengths, whose full stops stay beside each other when they are cut."""
    lengths = sizes(200, 80)
    g = torch.Generator().manual_seed(3)
    groups = torch.repeat_interleave(torch.arange(200), torch.tensor(lengths))
    x, y = (torch.randn(1, len(groups), 16, generator=g) for _ in range(2))
    for space in (x, y):
        space[0, torch.tensor(lengths).cumsum(0) - 1] += 6 * torch.randn(16, generator=g)
    rows = {(r.measure, r.layer): r for r in compare_vectors(x, y, Plan(null=100), groups=groups.tolist())}
    value, calibrated = (rows[name, 0].value for name in ("cka_debiased", "cka_debiased_calibrated"))
    assert value > 0.3 and abs(calibrated) < 0.02
