"""Costs of streamed similarity.

python benchmarks/bench_corpus.py sums --stimuli 1000000      sums of one layer pair against the GEMM limit; memory
python benchmarks/bench_corpus.py stream --text FILE          two encoders alone, and with RSA and CKA (--measures)
python benchmarks/bench_corpus.py pipeline --text FILE        a stream without its encoders, in CPU seconds; memory
python benchmarks/bench_corpus.py processes --text FILE       two processes against one with two threads
python benchmarks/bench_corpus.py error --text FILE           every layer's real vectors against all pairs in float64
python benchmarks/bench_corpus.py knn                         mutual nearest neighbours against dense matrices
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bertft.similarity.compare.comparison import Comparison
from bertft.similarity.compare.plan import Plan
from bertft.similarity.moments import CrossMoments
from bertft.similarity.neighbours import mutual_knn

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder


def peak() -> float:
    """Return the peak resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def chunks(d: int, rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Repeat eight different chunks (1, rows, d), because drawing a million rows would cost more than summing them."""
    g = torch.Generator().manual_seed(0)
    held = []
    for _ in range(8):
        x = torch.randn(1, rows, d, generator=g) + torch.randn(d, generator=g)
        held.append((x, x + 0.5 * torch.randn(1, rows, d, generator=g)))
    return itertools.cycle(held)


def sums(stimuli: int, d: int, rows: int) -> None:
    """Time the sums of one layer pair against its products alone.

    A stimulus takes 2 d^2 multiply-adds: U'V, and U'U and V'V at half cost.
    """
    source = chunks(d, rows)
    moments = CrossMoments(1, 1, "cosine").update(*next(source))
    x, y = (t[0] for t in next(source))
    out = torch.empty(d, d)

    def products() -> float:
        best = float("inf")
        for _ in range(3):
            begun = time.perf_counter()
            for _ in range(2):
                torch.mm(x.T, y, out=out)
            best = min(best, time.perf_counter() - begun)
        return best

    # The limit is the same number of multiply-adds in plain products; both times are medians over the run.
    products()
    limits, each, before, count = [products()], [], peak(), stimuli // rows
    for turn in range(count):
        begun = time.perf_counter()
        moments.update(*next(source))
        each.append(time.perf_counter() - begun)
        if turn % 10 == 0:
            limits.append(products())
    seconds, limit = statistics.median(each) * count, statistics.median(limits) * count
    extra, n = peak() - before, count * rows
    moments.rsa()
    print(f"{n} stimuli, d={d}, chunks of {rows}, {torch.get_num_threads()} threads: {seconds:.1f} s")
    print(f"{n * (n - 1) / 2 / seconds:.3g} pairs/s; {limit / seconds:.3f} of the GEMM limit ({limit:.1f} s)")
    print(f"memory beyond the first chunk: {extra:.0f} MB")


def lines_of(text: Path, encoder: Encoder, tokens: int) -> list[str]:
    """Return the first lines of a file that have at least ``tokens`` tokens together."""
    from bertft.similarity.compare.stimuli import count_stimuli

    with gzip.open(text, "rt", encoding="utf8") if text.suffix == ".gz" else text.open(encoding="utf8") as file:
        lines = [line.strip() for line in itertools.islice(file, tokens) if line.strip()]
    held = itertools.accumulate(count_stimuli(encoder, lines, "token"))
    return lines[: 1 + next((i for i, total in enumerate(held) if total >= tokens), len(lines))]


def stream(text: Path, base: str, tuned: str, tokens: int, sample: int, measures: str) -> None:
    """Time two encoders on the same batches, and the measures (RSA by cosine) of all layers, in turn."""
    from bertft.models.encoder import Encoder
    from bertft.similarity.compare.stimuli import side_by_side

    encoders = [Encoder.from_pretrained(name, device="cpu") for name in (base, tuned)]
    lines = lines_of(text, encoders[0], tokens)
    plan = Plan(measures=tuple(measures.split(",")), sample=sample)
    comparison = Comparison(plan, {"tuned": (encoders[0].num_layers, encoders[1].num_layers)})
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


def pipeline(text: Path, tokens: int) -> None:
    """Take the CPU seconds of a stream without its encoders: two random BERTs of 6 blocks and 32 dimensions.

    Seconds of all threads of the process, less those inside the models' forward passes (pooling counts). The text is
    repeated until it has enough tokens.
    """
    from transformers import BertConfig, BertModel

    from bertft.data.streams import stream as lines
    from bertft.models import encoder as of_encoder
    from bertft.models.loading import load_pretrained
    from bertft.runs.process import keep_steady
    from bertft.similarity.compare.encoders import compare_stream

    keep_steady()  # as the command does

    inside = [0.0]  # seconds in forward passes

    def counted(function, sign):
        def call(*args, **options):
            begun = time.thread_time()
            found = function(*args, **options)
            inside[0] += sign * (time.thread_time() - begun)
            return found

        return call

    tokenizer = load_pretrained("builtin:minilm")[1]
    sizes = {"hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 128}
    sizes["vocab_size"] = len(tokenizer)
    torch.manual_seed(0)
    encoders = [of_encoder.Encoder(BertModel(BertConfig(**sizes)), tokenizer) for _ in range(2)]
    for encoder in encoders:
        encoder.model.forward = counted(encoder.model.forward, 1)
    of_encoder.pool = counted(of_encoder.pool, -1)
    source = lines("text", str(text))
    compare_stream(encoders[0], {"t": encoders[1]}, list(itertools.islice(source, 64)), Plan(intervals=False))
    texts = itertools.chain.from_iterable(itertools.repeat(source))
    inside[0], begun = 0.0, time.process_time()
    compare_stream(encoders[0], {"t": encoders[1]}, texts, Plan(), tokens=tokens)
    seconds = time.process_time() - begun
    print(f"{tokens} tokens, two encoders of 6 x 32, {torch.get_num_threads()} threads; peak {peak():.0f} MB")
    print(f"{seconds:.2f} CPU s in all, {inside[0]:.2f} of them forward passes: without those")
    print(f"{tokens / (seconds - inside[0]):,.0f} tokens per CPU second")


def _share(text: Path, names: list[str], tokens: int, threads: int, part: int, parts: int, start, done) -> None:
    """Encode and sum one process's part of the lines; put its tokens and seconds into ``done``."""
    from bertft.models.encoder import Encoder
    from bertft.similarity.compare.stimuli import side_by_side

    torch.set_num_threads(threads)
    encoders = [Encoder.from_pretrained(name, device="cpu") for name in names]
    lines = lines_of(text, encoders[0], tokens)
    comparison = Comparison(Plan(), {"tuned": (encoders[0].num_layers, encoders[1].num_layers)})
    with torch.inference_mode():
        for warm, mine in ((True, lines[:64]), (False, lines[part::parts])):
            if not warm:
                comparison = Comparison(Plan(), {"tuned": (encoders[0].num_layers, encoders[1].num_layers)})
                start.wait()
            begun = time.perf_counter()
            for batch in side_by_side([encoder.stream(mine, unit="token", window="split") for encoder in encoders]):
                comparison.update(*batch)
    done.put((len(comparison), time.perf_counter() - begun))


def processes(text: Path, base: str, tuned: str, tokens: int) -> None:
    """Time one process with two threads and two processes with one on the same lines, in turn, twice."""
    context = torch.multiprocessing.get_context("spawn")
    rates: dict[int, list[float]] = {1: [], 2: []}
    for count in (1, 2, 1, 2):
        start, done = context.Barrier(count), context.Queue()
        team = [
            context.Process(target=_share, args=(text, [base, tuned], tokens, 2 // count, i, count, start, done))
            for i in range(count)
        ]
        for process in team:
            process.start()
        found = [done.get() for _ in team]
        for process in team:
            process.join()
        rates[count].append(sum(n for n, _ in found) / max(seconds for _, seconds in found))
        print(f"{count} process(es), {2 // count} thread(s) each: {rates[count][-1]:.0f} tokens/s")
    print(f"two processes / one: {max(rates[2]) / max(rates[1]):.2f} of its throughput")


def error(text: Path, base: str, tuned: str, tokens: int) -> None:
    """Compare RSA and debiased CKA of every layer from streamed sums with all pairs in float64."""
    from bertft.models.encoder import Encoder

    kept = []
    for name in (base, tuned):
        encoder = Encoder.from_pretrained(name, device="cpu")
        with torch.inference_mode():
            stream = encoder.stream(lines_of(text, encoder, tokens), unit="token", window="split")
            kept.append(torch.cat([batch.vectors for batch in stream], dim=1)[:, :tokens])

    def matrix(rows: torch.Tensor, metric: str) -> torch.Tensor:
        rows = rows.double()
        if metric == "cosine":
            rows = torch.nn.functional.normalize(rows)
            return rows @ rows.T
        rows = rows - rows.mean(0)
        squares = rows.square().sum(1)
        return squares[:, None] + squares - 2 * (rows @ rows.T)

    def hsic(k: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return debiased HSIC (Song et al. 2012) of matrices with zero diagonals."""
        n = len(k)
        rows, columns = k.sum(1), other.sum(1)
        cross = (k * other).sum() + k.sum() * other.sum() / ((n - 1) * (n - 2)) - 2 * (rows @ columns) / (n - 2)
        return cross / (n * (n - 3))

    n = kept[0].shape[1]
    i, j = torch.triu_indices(n, n, 1)
    worst: dict[tuple[str, bool], float] = {}
    for layer, rows in enumerate(zip(*kept, strict=True)):
        for metric in ("cosine", "sqeuclidean"):
            a, b = (matrix(t, metric)[i, j] for t in rows)
            a, b = a - a.mean(), b - b.mean()
            expected = float(a @ b / (a.norm() * b.norm()))
            for wide in (False, True):
                sums = CrossMoments(1, 1, metric, float64=wide)
                for part in zip(*(t[None].split(4096, dim=1) for t in rows), strict=True):
                    sums.update(*part)
                key = (f"RSA {metric}", wide)
                worst[key] = max(worst.get(key, 0.0), abs(sums.rsa().item() - expected))
                if metric == "sqeuclidean":
                    middle = [t.double() - t.double().mean(0) for t in rows]
                    k, other = (u @ u.T for u in middle)
                    k.fill_diagonal_(0)
                    other.fill_diagonal_(0)
                    cka = float(hsic(k, other) / (hsic(k, k) * hsic(other, other)).sqrt())
                    worst["CKA", wide] = max(worst.get(("CKA", wide), 0.0), abs(sums.cka().item() - cka))
        print(f"layer {layer} done", flush=True)
    for (name, wide), value in sorted(worst.items()):
        print(f"n={n}, largest error over layers, {name}, {'float64' if wide else 'float32'} products: {value:.1e}")


def knn(n: int, d: int, k: int) -> None:
    """Time mutual nearest neighbours by tiles against dense matrices and topk."""
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
    assert (tiles - whole).abs().mean() < 1e-4, "tiles and dense matrices disagree"
    seconds: dict[str, list[float]] = {"tiles": [], "dense": []}
    for name, function in 3 * [("tiles", lambda: mutual_knn(x, y, k)), ("dense", dense)]:
        begun = time.perf_counter()
        function()
        seconds[name].append(time.perf_counter() - begun)
    tiles, whole = (statistics.median(seconds[name]) for name in ("tiles", "dense"))
    print(f"n={n}, d={d}, k={k}, {torch.get_num_threads()} threads: tiles {tiles:.2f} s, dense {whole:.2f} s, medians "
          f"of 3 in turn: {whole / tiles:.2f} times as fast")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("sums")
    command.add_argument("--stimuli", type=int, default=1_000_000)
    command.add_argument("--d", type=int, default=384)
    command.add_argument("--rows", type=int, default=4096)
    for name, tokens in (("stream", 20_000), ("pipeline", 200_000), ("processes", 10_000), ("error", 5_000)):
        command = commands.add_parser(name)
        command.add_argument("--text", type=Path, required=True)
        if name == "pipeline":
            command.add_argument("--tokens", type=int, default=tokens)
            continue
        command.add_argument("--base", default="builtin:minilm")
        command.add_argument("--tuned", default="builtin:minilm")
        command.add_argument("--tokens", type=int, default=tokens)
        if name == "stream":
            command.add_argument("--sample", type=int, default=5000)
            command.add_argument("--measures", default="rsa,cka", help="as of bertft rsa, with commas")
    command = commands.add_parser("knn")
    command.add_argument("--n", type=int, default=20_000)
    command.add_argument("--d", type=int, default=384)
    command.add_argument("--k", type=int, default=10)
    options = vars(parser.parse_args())
    work = {"sums": sums, "stream": stream, "pipeline": pipeline, "processes": processes, "error": error, "knn": knn}
    work[options.pop("command")](**options)
