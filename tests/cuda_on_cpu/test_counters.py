"""Counted requests against counts by hand, and promises of headers that are broken."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from faults import faulty_sources
from gpu_build import CSRC
from gpu_counters import arithmetic, broken, header_of, promises, sectors, totals
from gpu_executor import Kernels, Misaligned, Uninitialised

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).parent / "planted" / "requests.cu"


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return Kernels(SOURCE, "counting")


@pytest.fixture(scope="module")
def counters():
    spec = importlib.util.spec_from_file_location("cuda_counters", ROOT / ".ci" / "cuda_counters.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["cuda_counters"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["cuda_counters"]


def counted(kernels: Kernels, launcher: str, *arguments, **options):
    kernels.call(launcher, *arguments, **options)
    (count,) = totals(kernels.launches).values()
    return count


# bytes a lane, stride in elements, wavefronts of a load, least: a bank holds every 32nd word
SHARED = [
    (4, 0, 1, 1),  # one word for all lanes
    (4, 1, 1, 1),
    (4, 2, 2, 1),
    (4, 3, 1, 1),  # odd strides reach all banks
    (4, 32, 32, 1),
    (8, 0, 1, 1),  # neighbours agree: half the passes
    (8, 1, 2, 2),  # half a warp at a time
    (8, 2, 4, 2),
    (8, 16, 32, 2),
    (16, 0, 2, 2),
    (16, 1, 4, 4),  # a quarter of a warp at a time
    (16, 2, 8, 4),
    (16, 8, 32, 4),
]


@pytest.mark.parametrize(("size", "stride", "passes", "least"), SHARED)
@pytest.mark.parametrize("order", ("ascending", "random"))
def test_bank_conflicts(kernels, size, stride, passes, least, order):
    out = np.zeros(32, np.float32)
    count = counted(kernels, "shared", out, size, stride, 0, order=order, seed=1)
    assert (count["shared loads"], count["shared stores"]) == (1, 1)
    assert (count["wavefronts"], count["conflicts"]) == (2 * passes, 2 * (passes - least))


# bytes a lane, stride, first element, lanes, sectors, least
GLOBAL = [
    (4, 1, 0, 32, 4, 4),
    (4, 1, 1, 32, 5, 4),  # misaligned
    (4, 0, 0, 32, 1, 1),
    (4, 2, 0, 32, 8, 4),
    (4, 8, 0, 32, 32, 4),
    (4, 1, 0, 5, 1, 1),
    (16, 1, 0, 32, 16, 16),
    (16, 2, 0, 32, 32, 16),
]


@pytest.mark.parametrize(("size", "stride", "first", "lanes", "touched", "least"), GLOBAL)
def test_sectors(kernels, size, stride, first, lanes, touched, least):
    x, out = np.zeros(2048, np.float32), np.zeros(32, np.float32)
    count = counted(kernels, "global", x, Uninitialised(out), size, stride, first, lanes, 3)
    # two blocks read the same three times, and write the same
    assert (count["global loads"], count["global stores"]) == (6, 2)
    assert (count["load sectors"], count["least load sectors"]) == (6 * touched, 6 * least)
    assert (count["L2"], count["HBM"]) == (2 * touched + 2 * 4, touched + 4)
    assert (count["blocks"], count["warps"], count["store sectors"]) == (2, 2, 8)


def test_sectors_of_a_misaligned_array(kernels):
    x, out = np.zeros(2048, np.float32), np.zeros(32, np.float32)
    count = counted(kernels, "global", Misaligned(x, 3), out, 4, 1, 0, 32, 1)
    assert sectors(count, "load") == 5 / 4


def test_atomics_to_one_word_wait_for_one_another(kernels):
    for stride, passes in ((0, 32), (1, 1), (16, 16)):
        count = counted(kernels, "atomics", np.zeros(32, np.float32), stride)
        assert count["shared atomics"] == 1
        assert count["conflicts"] == passes - 1


def matrix(kernels: Kernels, bug: int):
    a, c = np.random.default_rng(0).integers(-4, 5, (16, 64)).astype(np.float16), np.zeros((16, 16), np.float32)
    count = counted(kernels, "matrix", a, c, bug)
    assert np.array_equal(c, a.astype(np.float32) @ a.T.astype(np.float32))
    return count


def test_tensor_cores_and_their_loads(kernels):
    count = matrix(kernels, 0)
    assert (count["tensor"], count["ldmatrix"], count["cp.async"], count["global stores"]) == (8, 8, 4, 8)
    assert (count["wavefronts"], count["conflicts"]) == (8 * 4 + 4 * 4, 0)
    # rows 128 bytes apart begin in the same bank: eight passes for each of the 8 x 8 matrices
    assert matrix(kernels, 3)["conflicts"] == 8 * 4 * 7


def transpose(kernels: Kernels, bug: int):
    x, out = np.arange(1024, dtype=np.float32).reshape(32, 32), np.zeros((32, 32), np.float32)
    count = counted(kernels, "transpose", x, out, bug)
    assert np.array_equal(out, x.T)
    return count


def test_barriers_and_requests_of_all_warps(kernels):
    count = transpose(kernels, 0)
    assert (count["warps"], count["barriers"], count["shared loads"], count["global stores"]) == (4, 4, 32, 32)


def test_counting_is_off_unless_asked_for():
    kernels = Kernels(SOURCE.with_name("driver.cu"), "checked")
    kernels.scale(np.zeros(40, np.float32), np.zeros(40, np.float32), 40, 2.5)
    assert kernels.launches == []


# bug, what breaks
BUGS = [
    (0, None),
    (1, "transpose_kernel: its header promises 'no bank conflicts', but 992 of 1056"),
    (2, "transpose_kernel: its header promises 'sectors 1.0', but they are 8.00 times the fewest"),
    (3, "matrix_kernel: its header promises 'no bank conflicts'"),
]


@pytest.mark.parametrize(("bug", "text"), BUGS)
def test_broken_promises_are_found(kernels, bug, text):
    found = {"transpose_kernel": [transpose(kernels, bug)], "matrix_kernel": [matrix(kernels, bug)]}
    faults = broken(SOURCE, found)
    assert len(faults) == (text is not None)
    assert text is None or text in faults[0]


def test_promises_of_a_header(tmp_path):
    source = tmp_path / "gram.cu"
    source.write_text("// counters: gram load sectors <= 1.5, quick\n#include <x>\n// counters: late sectors 1.0\n")
    assert promises("counters: gram load sectors <= 1.5, quick") == {"gram": ["load sectors <= 1.5", "quick"]}
    assert "which was not counted" in broken(source, {})[0]
    enough, bad = (Counter({"load sectors": touched, "least load sectors": 2}) for touched in (3, 4))
    assert ["nobody knows" in fault for fault in broken(source, {"gram": [enough]})] == [True]
    assert len(broken(source, {"gram": [enough, bad]})) == 2


def test_arithmetic_by_a_formula():
    header = "float32: gram 4 * warps * d / shared_loads\nfloat64: gram n"
    known = {"warps": 3, "shared loads": 2, "d": 5, "n": 7}
    assert [arithmetic(header, kind, "gram", known) for kind in ("float32", "float64", "float16")] == [30, 7, 0]


ALONG_ROWS = [("k = k0 + ", ", first = "), ("stage + (", ") * kStride + ")]
# what is wrong: file, texts as they are, texts with the fault, the work that shows it, the promise that breaks
FAULTS = {
    "pieces of a line not exchanged": (
        "split_tile.cuh", ["((q ^ (row & 7)) << 3)"], ["(q << 3)"], "distances 4 x 4,096 x 768, tensor cores",
        "split_gram_kernel: its header promises 'no bank conflicts', but",
    ),
    "lanes along the rows": (
        "pairwise_tile.cuh",
        [f"{x}static_cast<int>(threadIdx.x) % KC{y}static_cast<int>(threadIdx.x) / KC" for x, y in ALONG_ROWS],
        [f"{x}static_cast<int>(threadIdx.x) / kStep{y}static_cast<int>(threadIdx.x) % kStep" for x, y in ALONG_ROWS],
        "distances 4 x 4,096 x 768, manhattan, FFMA",
        "pairwise_distance_kernel: its header promises 'load sectors 1.0', but they are 8.00 times the fewest",
    ),
}  # fmt: skip


@pytest.mark.planted
@pytest.mark.parametrize("name", FAULTS)
def test_faults_in_kernels_break_their_promises(name, tmp_path, counters):
    *fault, work, promise = FAULTS[name]
    (case,) = (case for case in counters.CASES if case.work == work)
    assert not any(case.kernels[0] in text and "promises '" in text for text in counters.faults(counters.count(case)))
    folder = faulty_sources(tmp_path, *fault)
    assert any(promise in text for text in counters.faults(counters.count(case, folder), folder))


def test_every_kernel_file_is_counted(counters):
    sources = {path.name for path in (CSRC / "cuda").glob("*.cu")}
    assert {case.source for case in counters.CASES} == sources
    for source in sources:
        counted_ = {kernel for case in counters.CASES if case.source == source for kernel in case.kernels}
        assert set(promises(header_of(CSRC / "cuda" / source))) <= counted_


def test_figures_at_full_size_follow_from_small_runs(counters):
    """Three tiles in a triangle of two by two, one in one: 32 x 32 have 32 on and 496 above the diagonal."""
    run = lambda folder, tiles, columns: [
        {"kernel": "gram<T>", "threads": 64, "blocks": tiles * (tiles + 1) // 2, "tensor": 7 * tiles * tiles * columns}
        | dict.fromkeys(("barriers", "exchanges", "read", "read_by_block", "written", "written_by_block"), 0)
        | {"instructions": []}
    ]
    cases = sys.modules["counter_cases"]
    axes = {"tiles": cases.triangle(32), "columns": cases.linear((1, 2), 24)}
    count = cases.Case("work", "gram.cu", ("gram",), run, axes).full()["gram"]
    assert (count["blocks"], count["warps"], count["tensor"]) == (528, 1056, 7 * 32 * 32 * 24)


def test_the_slowest_part_is_the_prediction(counters):
    count = Counter({"warps": 1, "tensor": 615_000_000, "shared loads": 4, "wavefronts": 132 * 1755, "HBM": 43_000})
    case = counters.CASES[0]
    seconds = counters.Row(case, "gram", count, float32=4 * 132 * 1755, float64=0, issued=0).seconds()
    assert seconds["tensor"] == pytest.approx(4096 * 615e6 / 615e12)
    assert (seconds["float32"], seconds["L1"]) == pytest.approx((1e-6, 1e-6))
    assert seconds["HBM"] == pytest.approx(32 * 43e3 / 4.3e12)
    assert max(seconds, key=seconds.__getitem__) == "tensor"


def test_the_page_keeps_what_headers_promise():
    """The committed table is of kernels as they are: every promise holds in it."""
    page = (ROOT / "docs" / "cuda_counters.md").read_text(encoding="utf-8")
    lines = page.split("<!-- table -->\n")[1].split("\n<!-- end")[0].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    head, seen = rows[0], set()
    for cells in rows[2:]:
        row = dict(zip(head, cells, strict=True))
        for source in (CSRC / "cuda").glob("*.cu"):
            for promise in promises(header_of(source)).get(f"{row['kernel']}_kernel", []):
                seen.add((source.name, row["kernel"]))
                if promise == "no bank conflicts":
                    assert row["conflicts"] == "0 %", row
                elif match := re.fullmatch(r"(load|store) sectors (?:<= )?(\S+)", promise):
                    assert float(row[f"{match[1]} sectors"]) <= float(match[2]), row
    assert len(seen) == sum(len(promises(header_of(path))) for path in (CSRC / "cuda").glob("*.cu"))
