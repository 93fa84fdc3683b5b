"""Similarity of two encoders, layer by layer.

python examples/compare_two_models.py google-bert/bert-base-uncased textattack/bert-base-uncased-MNLI
"""

from __future__ import annotations

import argparse

import bertft
from bertft.data import load
from bertft.similarity import compare_encoders


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("tuned")
    parser.add_argument(
        "--text", default="builtin:synthetic?size=300", help="such as a file with one sentence per line"
    )
    parser.add_argument("--tokens", type=int, default=2000)
    given = parser.parse_args(arguments)

    base = bertft.Encoder.from_pretrained(given.base)
    tuned = bertft.Encoder.from_pretrained(given.tuned)
    rows = compare_encoders(base, {"tuned": tuned}, load("text", given.text), tokens=given.tokens, data=given.text)
    for row in rows:
        print(f"layer {row.layer:2d}  {row.measure:20s} {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]")


if __name__ == "__main__":
    main()
