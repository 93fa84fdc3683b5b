"""What measures of similarity print for vectors of unrelated texts.

python examples/unrelated_texts.py builtin:minilm --texts 50

Text i of one half is put beside text i of the other half: 0 is the honest answer. The texts are prose of Python's own
documentation (`pydoc_data.topics`), or the lines of a file.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from pydoc_data.topics import topics

import torch

import bertft
from bertft.similarity import CrossMoments, cka_null, mutual_knn, rbf_cka, rsa


def sentences() -> list[str]:
    """Return the plain sentences of 40 to 200 characters of Python's documentation, each once, in order of topic."""
    prose = " ".join(" ".join(topics[name].split()) for name in sorted(topics))
    found = re.findall(r"(?<=[.] )[A-Z][A-Za-z ,'()-]{38,198}[.](?= )", prose)
    return list(dict.fromkeys(found))


def pooled(encoder: bertft.Encoder, texts: list[str]) -> torch.Tensor:
    """Return the mean of each text's token vectors in every layer, (L, N, D) float64."""
    means: dict[int, torch.Tensor] = {}
    for batch in encoder.stream(texts, unit="token", window="split"):
        parts = batch.vectors.double().cpu().split(batch.lengths.tolist(), dim=1)
        means |= {index: part.mean(1) for index, part in zip(batch.index.tolist(), parts, strict=True)}
    return torch.stack([means[i] for i in range(len(texts))], dim=1)


def measured(x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """Return every measure of x (N, D) and y (N, E), and the exact null of the biased one."""
    sums = CrossMoments(1, 1, "dot", float64=True).update(x[None], y[None])
    mean, sd = cka_null(sums.moments(0, 0))
    return {
        "linear CKA, biased": float(sums.cka(debiased=False)),
        "its exact null: mean": float(mean),
        "its exact null: standard deviation": float(sd),
        "CKA with a Gaussian kernel, biased": rbf_cka(x, y)[0],
        "SVCCA (99 % of variance)": float(sums.svcca()),
        "mean CCA": float(sums.cca()),
        "Procrustes similarity": float(sums.procrustes()),
        "linear R2": float(sums.linear_r2()),
        "mutual 10 nearest neighbours": float(mutual_knn(x, y).mean()),
        "linear CKA, debiased": float(sums.cka()),
        "RSA (cosine, Pearson)": rsa(x, y).estimate,
        "RSA (cosine, Spearman)": rsa(x, y, compare="spearman").estimate,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--texts", type=int, default=50, help="in each half")
    parser.add_argument("--text", help="a file with one text a line")
    given = parser.parse_args(arguments)

    texts = sentences() if given.text is None else Path(given.text).read_text(encoding="utf8").splitlines()
    if len(texts) < 2 * given.texts:
        parser.error(f"expected {2 * given.texts} texts, found {len(texts)}")
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))[: 2 * given.texts]
    vectors = pooled(bertft.Encoder.from_pretrained(given.model), [texts[i] for i in order])
    x, y = vectors[:, : given.texts], vectors[:, given.texts :]
    by_layer = [measured(a, b) for a, b in zip(x, y, strict=True)]
    print(f"| {given.texts} unrelated texts, {len(by_layer)} layers | lowest | highest |\n|---|---|---|")
    for name in by_layer[0]:
        values = [found[name] for found in by_layer]
        print(f"| {name} | {min(values):.2f} | {max(values):.2f} |")


if __name__ == "__main__":
    main()
