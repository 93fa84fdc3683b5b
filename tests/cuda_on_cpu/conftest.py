"""Skips and early compilation of the executed kernels.

Tests are skipped where kernels cannot be executed. Plain mode is left to .ci/run.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gpu_build import CSRC, kernel_library, unavailable

HERE = Path(__file__).parent
SOURCES = {  # where it is not csrc/cuda/<op>.cu of test_<op>.py
    "test_rdm_ranks": [str(CSRC / "cuda" / "rdm_correlation.cu")],
    "test_planted_bugs": ["planted/tiled_gram.cu", "planted/sentence_spread.cu", "planted/tensor_tile.cu"],
    "test_patterns": ["planted/patterns.cu"],
    "test_executor": ["planted/driver.cu"],
    "test_counters": ["planted/driver.cu"],
    "test_instructions": ["instructions.cu"],
    "test_core_arithmetic": ["instructions.cu"],
    "test_fast_products": [
        str(CSRC / "cuda" / f"{name}.cu") for name in ("split_rows", "split_gram", "split_moments", "rdm_correlation")
    ],
    "test_split_gradient": [str(CSRC / "cuda" / f"split_{name}.cu") for name in ("gradient", "matrix")],
    "test_split_gram": [str(CSRC / "cuda" / f"split_{name}.cu") for name in ("rows", "gram")],
    "test_wide_tiles": [str(CSRC / "cuda" / f"{name}.cu") for name in ("split_rows", "split_gram", "rdm_correlation")],
}


@pytest.hookimpl(tryfirst=True)  # before pytest deselects what is slow
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = unavailable()
    for item in items:
        if HERE not in item.path.parents:
            continue
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        elif "plain" in _modes(item):  # checked mode sees more; plain mode doubles the time of compilation
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compile the libraries of the selected tests in the background; the first test to need one waits for it."""
    if session.config.option.collectonly or unavailable():
        return
    wanted: dict[tuple[Path, str], None] = {}
    for item in session.items:
        if HERE in item.path.parents:
            for source in _sources(item.path.stem):
                wanted.update(dict.fromkeys((source, mode) for mode in _modes(item) or {"checked"}))
    pool = ThreadPoolExecutor(os.cpu_count())
    for source, mode in wanted:
        pool.submit(kernel_library, source, mode)  # a failure shows in the test, which tries again
    pool.shutdown(wait=False)


def _modes(item: pytest.Item) -> set[str]:
    callspec = getattr(item, "callspec", None)
    return {callspec.params[name] for name in ("mode", "kernels") if name in callspec.params} if callspec else set()


def _sources(module: str) -> list[Path]:
    if module in SOURCES:
        return [HERE / name for name in SOURCES[module]]
    source = CSRC / "cuda" / f"{module.removeprefix('test_')}.cu"
    return [source] if source.exists() else []
