"""Versions of Python and of the installed packages."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence

PACKAGES = (
    "bertft",
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "safetensors",
    "tokenizers",
    "numpy",
    "scipy",
    "matplotlib",
    "plotly",
)


def versions() -> dict[str, str]:
    """Return the versions of Python, of the platform and of each package that a number may depend on.

    No package is imported for it.
    """
    return {"python": platform.python_version(), "platform": platform.platform(), **package_versions(PACKAGES)}


def package_versions(names: Sequence[str]) -> dict[str, str]:
    """Return the version of each package in ``names``, or ``not installed``."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # bertft itself can be imported from its source tree
            versions[name] = "source tree" if name == "bertft" else "not installed"
    return versions
