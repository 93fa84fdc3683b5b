"""Everything here needs Linux and g++; elsewhere it is skipped with the reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from gpu_build import unavailable


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if reason := unavailable():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_report_header() -> str:
    return f"CUDA kernels on the CPU: {unavailable() or sys.platform}"
