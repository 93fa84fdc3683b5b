"""The package itself: what it exports, and what importing it costs."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import bertft


def test_every_public_name_can_be_had():
    for name in bertft.__all__:
        assert getattr(bertft, name) is not None


def test_an_unknown_name_is_named():
    with pytest.raises(AttributeError, match="no attribute 'finetuned'"):
        bertft.finetuned  # noqa: B018


def test_a_submodule_stays_a_module_whatever_was_imported_first():
    code = (
        "import bertft; bertft.run_study; bertft.load_finetuned; from types import ModuleType;"
        "assert type(bertft.study.run) is type(bertft.models.finetuning.evaluation) is ModuleType"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_loads_nothing_heavy():
    heavy = "{'torch', 'transformers', 'datasets', 'matplotlib', 'plotly', 'scipy', 'numpy'}"
    code = (
        f"import sys, bertft, bertft.cli.main; found = {heavy} & set(sys.modules); sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _packages() -> list[str]:
    found = (module.name for module in pkgutil.walk_packages(bertft.__path__, "bertft.") if module.ispkg)
    return ["bertft", *found]


@pytest.mark.parametrize("name", _packages())
def test_a_lazily_exported_name_is_never_a_submodule(name):
    """Importing a submodule sets the package's attribute of its name, and a lazy export would lose to it."""
    package = importlib.import_module(name)
    if not hasattr(package, "__getattr__"):
        return
    submodules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    exported = {public for public in package.__all__ if not isinstance(getattr(package, public), ModuleType)}
    modules = {public for public in package.__all__ if public not in exported}
    assert not exported & submodules
    assert not modules or name == "bertft"  # only the root exports its packages


def test_functions_of_similarity_are_no_modules_whichever_is_imported_first():
    code = "from bertft.similarity import compare_rdms, rdms, rsa; assert all(map(callable, (compare_rdms, rdms, rsa)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
