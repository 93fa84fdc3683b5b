"""Tests that a page of the documentation names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def marks(file: str, name: str) -> list[pytest.Mark]:
    """Return the marks of test ``name`` in ``tests/<file>``."""
    spec = importlib.util.spec_from_file_location(f"documented_{Path(file).stem}", TESTS / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(getattr(module, name), "pytestmark", [])
