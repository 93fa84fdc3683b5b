"""Make the packages ``experiments`` and ``benchmarks`` of the repository importable."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # last, so that the installed package is tested
