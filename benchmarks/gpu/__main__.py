"""The command ``python -m benchmarks.gpu``; `benchmarks.gpu` documents it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu import card, digests, end_to_end, works
from benchmarks.gpu.run import Item, Record, Result, Section
from bertft import ops
from bertft.ops.native import cuda
from bertft.runs.versions import versions


def bits_items(device: str) -> Iterator[Item]:
    """Yield the comparison of the card's bits with the executor's; a rehearsal checks the rows alone."""
    found, x = digests.stored(), digests.rows()
    yield Item("rows", 0, lambda: _same(digests.digest(x), found["rows"], "NumPy draws other rows"))
    if device != "cuda":
        return
    capability, there = digests.capability_of(torch.cuda.get_device_capability()[0]), torch.from_numpy(x).to(device)
    for precision in ("float32", "fast"):
        for metric, tile in [*((metric, "narrow") for metric in digests.METRICS), ("cosine", "wide")]:

            def bits(metric: str = metric, tile: str = tile, precision: str = precision) -> Result:
                with card.core("split"), card.environment("BERTFT_TILE", tile):
                    out = ops.pairwise_distance(there, metric=metric, precision=precision).cpu().numpy()
                expected = found[f"{capability} {precision} {metric}"]
                return _same(digests.digest(out), expected, f"bits are not those of the model (sm_{capability})")

            yield Item(f"{precision} {metric}{' wide' * (tile == 'wide')}", 1, bits)


def _same(found: str, expected: str, otherwise: str) -> Result:
    return {"same": True} if found == expected else {"wrong": otherwise}


def sections(device: str, tiny: bool, treebank: Path | None) -> list[Section]:
    """Return the sections in their order."""
    watch, limits = card.Stopwatch(device), card.Limits()
    made = {
        "bits": (20, partial(bits_items, device)),
        "card": (25, partial(card.card_items, watch, limits, tiny)),
        "core": (60, partial(card.core_items, watch, limits, tiny)),
        "ops": (150, partial(works.ops_items, watch, limits, tiny)),
        "end_to_end": (220, partial(end_to_end.end_to_end_items, device, tiny, treebank)),
    }
    return [Section(name, limit, items) for name, (limit, items) in made.items()]


def about(device: str) -> Result:
    """Return the card and the versions."""
    known = versions()
    name = torch.cuda.get_device_name() if device == "cuda" else "rehearsal on the CPU: times mean nothing"
    return {"card": name, "torch": torch.__version__, "CUDA": torch.version.cuda, "bertft": known.get("bertft", "")}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return 1 if a result is wrong or there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Benchmark of the GPU.")
    parser.add_argument("--rehearse", action="store_true", help="test the benchmark itself: tiny, on the CPU")
    parser.add_argument("--build", action="store_true", help="compile the kernels and do nothing else")
    parser.add_argument("--seconds", type=float, default=460, help="budget of the run (default: %(default)s)")
    parser.add_argument("--sections", help="sections to run, with commas (default: all)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder (default: %(default)s)")
    parser.add_argument("--treebank", type=Path, help="folder of UD English EWT")
    options = parser.parse_args(arguments)
    if options.build:
        return _built()
    device = "cpu" if options.rehearse else "cuda"
    if not options.rehearse and not torch.cuda.is_available():
        print(f"no GPU is visible, so nothing was measured ({cuda.status()['reason']})", file=sys.stderr)
        return 1
    if not options.rehearse and not cuda.load():
        print(f"the CUDA kernels are not in use: {cuda.status()['reason']}", file=sys.stderr)
        return 1
    chosen = sections(device, options.rehearse, options.treebank)
    names = options.sections.split(",") if options.sections else [section.name for section in chosen]
    if unknown := set(names) - {section.name for section in chosen}:
        parser.error(f"--sections: expected some of {', '.join(s.name for s in chosen)}, found {', '.join(unknown)}")
    record = Record(options.out, about(device), options.seconds, say=partial(print, flush=True))
    for section in chosen:
        if section.name in names:
            record.add(section)
    print(f"{record.folder / 'gpu.md'}: {len(record.results)} results, {record.wrong} wrong")
    return min(record.wrong, 1)


def _built() -> int:
    began = time.perf_counter()
    library, found = cuda.find_or_build()
    print(f"{library}: {found['reason']}, {found['architectures']}, {time.perf_counter() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
