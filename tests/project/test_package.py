"""The package itself: what it exports, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bertft


def test_every_public_name_can_be_had():
    for name in bertft.__all__:
        assert getattr(bertft, name) is not None


def test_an_unknown_name_is_named():
    with pytest.raises(AttributeError, match="no attribute 'finetuned'"):
        bertft.finetuned  # noqa: B018


def test_a_submodule_stays_a_module_whatever_was_imported_first():
    code = "import bertft; bertft.FinetuneConfig; from types import ModuleType; assert type(bertft.models.finetuning.run) is ModuleType"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_loads_nothing_heavy():
    heavy = "{'torch', 'transformers', 'datasets', 'matplotlib', 'plotly', 'scipy', 'numpy'}"
    code = (
        f"import sys, bertft, bertft.cli.main; found = {heavy} & set(sys.modules); sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
