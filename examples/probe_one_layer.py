"""Trees that a linear probe reads from one layer.

Source: Hewitt and Manning 2019.

python examples/probe_one_layer.py builtin:minilm --layer 4 --train en_ewt-ud-train.conllu --dev en_ewt-ud-dev.conllu
"""

from __future__ import annotations

import argparse

import bertft
from bertft.data import load
from bertft.probes import structural_probes


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--layer", type=int, default=2)
    parser.add_argument("--train", default="builtin:synthetic?size=200")
    parser.add_argument("--dev", default="builtin:synthetic?split=dev&size=60")
    parser.add_argument("--epochs", type=int, default=5)
    given = parser.parse_args(arguments)

    encoder = bertft.Encoder.from_pretrained(given.model)
    # The probes of all layers train in one loop; one layer of a small encoder would cost no less.
    rows = structural_probes(
        {"model": encoder}, load("dep", given.train), load("dep", given.dev), rank=64, epochs=given.epochs
    )
    for row in rows:
        if row.layer == given.layer:
            print(f"layer {row.layer}  {row.measure:14s} {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]")


if __name__ == "__main__":
    main()
