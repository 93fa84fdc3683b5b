"""Faults planted in copies of the kernels' sources."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from gpu_build import CSRC

Lines = str | Sequence[str]


def with_fault(file: str, before: Lines, after: Lines) -> str:
    """Return the text of ``csrc/cuda/<file>`` in which ``before``, found once, is replaced by ``after``."""
    text = (CSRC / "cuda" / file).read_text(encoding="utf-8")
    olds, news = ([lines] if isinstance(lines, str) else lines for lines in (before, after))
    for old, new in zip(olds, news, strict=True):
        assert text.count(old) == 1, f"{file}: {text.count(old)} times instead of once: {old}"
        text = text.replace(old, new)
    return text


def faulty_sources(folder: Path, file: str, before: Lines, after: Lines) -> Path:
    """Copy ``csrc/cuda`` into ``folder``, plant a fault in ``file`` and return the copy."""
    target = folder / "cuda"
    shutil.copytree(CSRC / "cuda", target)
    (target / file).write_text(with_fault(file, before, after), encoding="utf-8")
    return target
