"""The fused probe loss in your own training loop.

One optimiser trains the distance probes of every layer, with any schedule.

python examples/own_training_loop.py builtin:minilm
"""

from __future__ import annotations

import argparse

import torch

import bertft
from bertft.data import load
from bertft.ops import distance_probe_loss
from bertft.probes import extract
from bertft.probes.structural.training import Trees


def main(arguments: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--train", default="builtin:synthetic?size=200")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args(arguments)

    sentences = load("dep", given.train)
    encoder = bertft.Encoder.from_pretrained(given.model)
    vectors = extract(encoder, [sentence.words for sentence in sentences])  # all layers of all words
    trees = Trees(sentences)

    torch.manual_seed(0)
    weight = torch.nn.Parameter((torch.rand(encoder.num_layers, encoder.dim, given.rank) - 0.5) / 10)
    optimiser = torch.optim.Adam([weight], lr=1e-3)
    means = []
    for step in range(given.steps):
        chosen = torch.randint(len(sentences), (20,)).tolist()
        distances, _, lengths = trees.batch(chosen)
        loss = distance_probe_loss(vectors.batch(chosen), weight, distances, lengths)  # (L,), one per layer
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
        means.append(float(loss.detach().mean()))
        if step % 20 == 0:
            print(f"step {step:3d}  loss by layer {' '.join(f'{value:.2f}' for value in loss.tolist())}")
    return means


if __name__ == "__main__":
    main()
