"""Exports of the package, and the cost of importing it."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import bertft

ROOT = Path(__file__).parents[2]
STUBS = sorted(path.parent for path in (ROOT / "bertft").rglob("__init__.pyi"))
PACKAGES = [".".join(folder.relative_to(ROOT).parts) for folder in STUBS]
HEAVY = "{'torch', 'transformers', 'datasets', 'matplotlib', 'plotly', 'scipy', 'numpy', 'pydantic', 'yaml'}"


def run(code: str, **environment: str) -> str:
    """Return the output of ``code``, run in a new process."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def exported(package: str) -> dict[str, str]:
    """Return the public names of a package's stub and the modules they come from; submodules come from ""."""
    stub = ROOT.joinpath(*package.split("."), "__init__.pyi")
    tree = ast.parse(stub.read_text(encoding="utf8"))
    nodes = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in nodes for alias in node.names}


def test_five_packages_export_lazily():
    assert PACKAGES == ["bertft", "bertft.models", "bertft.probes", "bertft.similarity", "bertft.study"]


@pytest.mark.parametrize("eager", ["", pytest.param("1", marks=pytest.mark.slow)])
def test_every_public_name_can_be_imported_in_one_process(eager):
    """Import as the README does, one package after the other; with EAGER_IMPORT, modules may overwrite names."""
    lines = [f"from {package} import {name}; found.append(({package!r}, {name!r}, {name}))"
             for package in PACKAGES for name in exported(package)]  # fmt: skip
    check = (
        "from types import ModuleType\n"
        "for package, name, value in found:\n"
        "    assert isinstance(value, ModuleType) == (name in modules), name\n"
        "    assert getattr(importlib.import_module(package), name) is value, name\n"
        "print(len(found))"
    )
    modules = {name for name, home in exported("bertft").items() if not home}
    code = "\n".join(["import importlib", f"modules, found = {modules!r}, []", *lines, check])
    assert run(code, EAGER_IMPORT=eager) == str(sum(len(exported(package)) for package in PACKAGES))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_lists_what_its_stub_lists(package):
    listed = importlib.import_module(package).__all__
    assert sorted(listed) == sorted([*exported(package), *(["__version__"] if package == "bertft" else [])])


def test_the_version_is_that_of_the_installed_package():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf8")
    assert f'version = "{bertft.__version__}"' in text


def test_an_unknown_name_is_named():
    with pytest.raises(AttributeError, match="No bertft attribute finetuned"):
        bertft.finetuned  # noqa: B018


def test_model_cards_find_load_finetuned_in_its_former_module():
    from bertft.evaluation import load_finetuned as found

    assert importlib.import_module("bertft.evaluation").load_finetuned is found
    assert found.__module__ == "bertft.models.finetuning.evaluation"


def test_a_submodule_stays_a_module_in_any_import_order():
    assert callable(bertft.run_study) and callable(bertft.load_finetuned)
    assert type(bertft.study.run) is type(bertft.models.finetuning.evaluation) is ModuleType


@pytest.mark.parametrize(
    "module", ["bertft", "bertft.evaluation", "bertft.similarity", "bertft.cli.main", "bertft.cli.app"]
)
def test_importing_loads_nothing_heavy(module):
    assert run(f"import sys, {module}; print({HEAVY} & set(sys.modules))") == "set()"


@pytest.mark.parametrize("module", ["bertft.study.rsa_command", "bertft.study.diff.run", "bertft.study.probing"])
def test_comparing_and_probing_do_not_load_the_trainer(
    module,
):  # it takes seconds, and peft, datasets and pandas with it
    code = f"import sys, {module}; print({{'transformers.trainer', 'peft', 'datasets', 'pandas'}} & set(sys.modules))"
    assert run(code) == "set()"


def _packages() -> list[str]:
    found = (module.name for module in pkgutil.walk_packages(bertft.__path__, "bertft.") if module.ispkg)
    return ["bertft", *found]


@pytest.mark.parametrize("name", _packages())
def test_a_lazily_exported_name_is_never_a_submodule(name):
    """Check names, because importing a submodule overwrites the package's attribute of the same name."""
    package = importlib.import_module(name)
    if not hasattr(package, "__getattr__"):
        return
    submodules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    exported = {public for public in package.__all__ if not isinstance(getattr(package, public), ModuleType)}
    modules = {public for public in package.__all__ if public not in exported}
    assert not exported & submodules
    assert not modules or name == "bertft"  # only the root exports its packages


def test_functions_of_similarity_stay_functions_in_any_import_order():
    run("from bertft.similarity import compare_rdms, rdms, rsa; assert all(map(callable, (compare_rdms, rdms, rsa)))")
