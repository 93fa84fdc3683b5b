"""Feature stores and notes of structural and edge probing."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from bertft.probes.feature_store import FeatureStore
from bertft.runs.files import write_text_atomically
from bertft.runs.settings import check
from bertft.study.config import EdgeConfig, ProbesConfig
from bertft.study.options import EdgeCommand, StructuralCommand


@contextlib.contextmanager
def study_features(config: ProbesConfig | EdgeConfig, folder: Path) -> Iterator[FeatureStore]:
    """Provide the feature store of a stage in ``folder``; resume from stored vectors, and remove the folder at the end.

    An interrupted stage leaves its vectors for the next run.
    """
    yield FeatureStore(folder, dtype=getattr(torch, config.dtype), window=config.window)
    shutil.rmtree(folder, ignore_errors=True)  # absent if every probe had been trained before


def command_features(settings: EdgeCommand | StructuralCommand, out: Path, features: Path | None) -> FeatureStore:
    """Return the feature store of a command, in ``features`` or in the run folder ``out``."""
    check(settings, "bertft probe")
    dtype = getattr(torch, settings.dtype)
    return FeatureStore(features or out / "features", dtype=dtype, window=settings.window, stream=settings.stream)


def remove_features(out: Path) -> None:
    """Remove the vectors of a finished command, which only an interrupted one needs."""
    shutil.rmtree(out / "features", ignore_errors=True)


def write_notes(path: Path, notes: Sequence[str]) -> None:
    """Write notes on the rows, one a line; remove the file if there are none."""
    path.unlink(missing_ok=True)
    if notes:
        write_text_atomically(path, "\n".join(notes) + "\n")
