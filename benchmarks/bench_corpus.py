"""What streamed similarity costs beside what it cannot do without.

python benchmarks/bench_corpus.py sums --stimuli 1000000      sums of one layer pair against the GEMM limit, memory
python benchmarks/bench_corpus.py stream --text FILE          two encoders alone against RSA and CKA of all layers
python benchmarks/bench_corpus.py knn                         mutual nearest neighbours against the dense way
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from bertft.similarity.comparison import Comparison, Plan
from bertft.similarity.moments import CrossMoments
from bertft.similarity.neighbours import mutual_knn


def peak() -> float:
    """Peak resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def chunks(d: int, rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Eight different chunks (1, rows, d), over and over: drawing a million rows would cost more than summing them."""
    g = torch.Generator().manual_seed(0)
    held = []
    for _ in range(8):
        x = torch.randn(1, rows, d, generator=g) + torch.randn(d, generator=g)
        held.append((x, x + 0.5 * torch.randn(1, rows, d, generator=g)))
    return itertools.cycle(held)


def sums(stimuli: int, d: int, rows: int) -> None:
    """Sums of one layer pair (2 d^2 multiply-adds a stimulus: U'V, and U'U and V'V at half) against products alone."""
    source = chunks(d, rows)
    moments = CrossMoments(1, 1, "cosine").update(*next(source))
    before, count = peak(), stimuli // rows
    begun = time.perf_counter()
    for _ in range(count):
        moments.update(*next(source))
    seconds = time.perf_counter() - begun
    extra = peak() - before
    moments.rsa()
    # the limit: as many multiply-adds in plain products of the same shapes, at the best of several tries
    x, y = next(source)
    x, y, out = x[0], y[0], torch.empty(d, d)
    best = float("inf")
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(2):
            torch.mm(x.T, y, out=out)
        best = min(best, time.perf_counter() - begun)
    limit, n = best * count, count * rows
    print(f"{n} stimuli, d={d}, chunks of {rows}, {torch.get_num_threads()} threads: {seconds:.1f} s")
    print(f"{n * (n - 1) / 2 / seconds:.3g} pairs/s; {limit / seconds:.3f} of the GEMM limit ({limit:.1f} s)")
    print(f"memory beyond the first chunk: {extra:.0f} MB")


def stream(text: Path, base: str, tuned: str, tokens: int, sample: int) -> None:
    """Two encoders over the same batches, alone and with RSA (cosine) and CKA of all layers, batch by batch in turn."""
    from bertft.encoder import Encoder
    from bertft.similarity.compare import count_stimuli, side_by_side

    encoders = [Encoder.from_pretrained(name, device="cpu") for name in (base, tuned)]
    with gzip.open(text, "rt", encoding="utf8") if text.suffix == ".gz" else text.open(encoding="utf8") as file:
        lines = [line.strip() for line in itertools.islice(file, tokens) if line.strip()]
    room = 0
    for kept, count in enumerate(count_stimuli(encoders[0], lines, "token")):  # noqa: B007 - used below
        room += count
        if room >= tokens:
            break
    lines = lines[: kept + 1]
    comparison = Comparison(Plan(sample=sample), {"tuned": encoders[0].num_layers})
    comparison.sentences = len(lines)
    forward = update = 0.0
    streams = side_by_side([encoder.stream(lines, unit="token", window="split") for encoder in encoders])
    with torch.inference_mode():
        while True:
            begun = time.perf_counter()
            batch = next(streams, None)
            forward += time.perf_counter() - begun
            if batch is None:
                break
            begun = time.perf_counter()
            comparison.update(*batch)
            update += time.perf_counter() - begun
        begun = time.perf_counter()
        comparison.rows("text")
        rows = time.perf_counter() - begun
    print(f"{len(comparison)} tokens, {encoders[0].num_layers} layers, {torch.get_num_threads()} threads")
    print(f"forward passes {forward:.2f} s, sums and sample {update:.2f} s: {update / forward:.1%} on top")
    million = 1e6 / len(comparison) * (forward + update)
    print(f"values and intervals from {comparison.reservoir.stimuli} sampled tokens {rows:.2f} s:")
    print(f"{rows / million:.2%} of the {million:.0f} s that a million tokens take at this rate")


def knn(n: int, d: int, k: int) -> None:
    """Mutual nearest neighbours by tiles against the dense matrix and topk."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=g)
    y = x + torch.randn(n, d, generator=g)

    def dense() -> torch.Tensor:
        found = []
        for t in (x, y):
            u = torch.nn.functional.normalize(t)
            similar = u @ u.T
            similar.fill_diagonal_(-torch.inf)
            found.append(similar.topk(k, dim=1).indices)
        return (found[0].unsqueeze(2) == found[1].unsqueeze(1)).any(2).double().mean(1)

    tiles, whole = mutual_knn(x, y, k), dense()
    assert (tiles - whole).abs().mean() < 1e-4, "tiles and dense way disagree"
    seconds = {}
    for name, function in (("tiles", lambda: mutual_knn(x, y, k)), ("dense", dense)):
        begun = time.perf_counter()
        function()
        seconds[name] = time.perf_counter() - begun
    print(f"n={n}, d={d}, k={k}: tiles {seconds['tiles']:.2f} s, dense {seconds['dense']:.2f} s: "
          f"{seconds['dense'] / seconds['tiles']:.2f} times as fast")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("sums")
    command.add_argument("--stimuli", type=int, default=1_000_000)
    command.add_argument("--d", type=int, default=384)
    command.add_argument("--rows", type=int, default=4096)
    command = commands.add_parser("stream")
    command.add_argument("--text", type=Path, required=True)
    command.add_argument("--base", default="builtin:minilm")
    command.add_argument("--tuned", default="builtin:minilm")
    command.add_argument("--tokens", type=int, default=20_000)
    command.add_argument("--sample", type=int, default=5000)
    command = commands.add_parser("knn")
    command.add_argument("--n", type=int, default=20_000)
    command.add_argument("--d", type=int, default=384)
    command.add_argument("--k", type=int, default=10)
    options = vars(parser.parse_args())
    {"sums": sums, "stream": stream, "knn": knn}[options.pop("command")](**options)
