"""Agreement of README, docs, help and code.

Documented commands parse, and every option has an effect.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import runpy
import shlex
import textwrap
from collections import Counter
from pathlib import Path

import pytest
import typer

from bertft.cli.app import app
from bertft.study.config import EdgeConfig, ProbesConfig, RsaConfig, StimuliConfig, StudyConfig, TaskConfig

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted(ROOT.glob("docs/*.md")) + [ROOT / name / "README.md" for name in ("experiments", "examples")]
PACKAGES = runpy.run_path(str(ROOT / ".ci" / "docs.py"))["PACKAGES"]
# options of other programs that the pages name
FOREIGN = {"--no-build-isolation", "--no-compile", "--no-deps", "--nproc-per-node", "--exclude", "--dist"}
MISTYPED = ROOT / "docs" / "walk.md"  # on purpose, to show the messages


LEAVES = runpy.run_path(str(ROOT / "docs" / "site" / "command_pages.py"))["leaves"]
TREE = dict(LEAVES(typer.main.get_command(app)))
OPTIONS = {names: {option for param in command.params for option in param.opts} for names, command in TREE.items()}


def understood(line: str) -> tuple[tuple[str, ...], list[str]]:
    """Return the command of a line and its arguments."""
    words = shlex.split(line)
    words = words[words.index("bertft") + 1 :]
    for names in TREE:
        if tuple(words[: len(names)]) == names:
            return names, words[len(names) :]
    raise AssertionError(f"no such command: {line}")


def written(text: str) -> list[str]:
    """Return the lines of a page or help text that call bertft, with continuations joined."""
    lines: list[str] = []
    for line in re.sub(r"\\\n\s+", "", text).splitlines():
        if found := re.match(r"(?:.*&& |torchrun .*-m )?(bertft [a-z].*)", line.strip()):
            lines.append(found[1])
        elif lines and line.strip().startswith("--"):
            lines[-1] += " " + line.strip()
    return [re.sub(r"   +\(.*\)$", "", line) for line in lines]


def of_page(page: Path) -> list[str]:
    blocks = re.findall(r"^```(\S*)\n(.*?)^```$", page.read_text(encoding="utf8"), re.DOTALL | re.MULTILINE)
    return [line for language, block in blocks if not language for line in written(block)]


def of_help() -> list[str]:
    return [line for command in TREE.values() for line in written((command.epilog or "").replace("\\n", ""))]


def test_every_documented_command_parses(monkeypatch):
    # the settings file of another fine-tuning run
    held = {"task": "dep", "model": "m", "train": "t", "dev": "d"}
    monkeypatch.setattr("bertft.cli.options._read", lambda path: dict(held))
    lines = [(page.name, line) for page in PAGES for line in of_page(page)] + [("--help", line) for line in of_help()]
    assert len(lines) >= 25
    for place, line in lines:
        names, arguments = understood(line)
        try:  # parses every option and value and checks for missing ones, but runs nothing
            TREE[names].make_context(" ".join(names), arguments)
        except Exception as error:
            pytest.fail(f"{place}: {line}: {error}")


@pytest.mark.parametrize(
    "line",
    [
        "bertft rsa --base a --tuned b --text c --token all --out d",
        "bertft rsa --base a --tuned b --text c",
        "bertft probe edge --model a --train b --dev c --steps few --out d",
    ],
)
def test_a_wrong_command_is_detected(line):
    names, arguments = understood(line)
    with pytest.raises(Exception, match=r"No such option: --token\b|[Mm]issing parameter: out|valid int"):
        TREE[names].make_context("x", arguments)


def test_every_documented_option_exists():
    known = FOREIGN | {"--help"} | set().union(*OPTIONS.values())
    known |= {option for param in typer.main.get_command(app).params for option in param.opts}
    for source in [*ROOT.glob("experiments/*.py"), *ROOT.glob("benchmarks/**/*.py"), *ROOT.glob(".ci/*.py"),
                   *ROOT.glob("examples/*.py")]:  # fmt: skip
        known |= set(re.findall(r"""["'](--[a-z][\w-]*)["']""", source.read_text(encoding="utf8")))
    for page in PAGES:
        if page == MISTYPED:
            continue
        text = page.read_text(encoding="utf8")
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", text):
            assert option in known, f"{page.name}: {option}"
        for line in re.findall(r"`(bertft [a-z][^`]*)`", text):
            if (found := re.match(r"bertft (probe \w+|\w+)", line)) and found[1] not in ("probe", "COMMAND"):
                names = tuple(re.split(r" ", found[1]))
                options = set(re.findall(r"--[a-z][\w-]*", line))
                assert names in OPTIONS and options <= OPTIONS[names] | {"--help"}, f"{page.name}: {line}"


def test_every_option_has_help():
    for names, command in TREE.items():
        for param in command.params:
            assert getattr(param, "help", None), f"bertft {' '.join(names)}: {param.name}"


def test_links_lead_to_existing_files():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf8")):
            if not re.match(r"https?:|#|mailto:", target):
                assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_variables_of_the_environment_are_documented():
    pages = "".join(page.read_text(encoding="utf8") for page in PAGES)
    code = "".join(path.read_text(encoding="utf8") for path in [*ROOT.glob("bertft/**/*.py"), ROOT / "setup.py"])
    read = set(re.findall(r"environ(?:\.get\(|\[)\s*\"(BERTFT_\w+)\"", code))
    assert {"BERTFT_CACHE", "BERTFT_AOT", "BERTFT_KERNELS"} <= read
    assert not {name for name in read if name not in pages}


# Unused options ----------------------------------------------------------------------------------------------------


def unused(function: object) -> set[str]:
    """Return the parameters that a function's body does not read."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]  # type: ignore[arg-type]
    assert isinstance(tree, ast.FunctionDef)
    if all(isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) for line in tree.body):
        return set()  # a method of a protocol
    parameters = {a.arg for a in [*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs]} - {"self", "cls"}
    loads = (node for line in tree.body for node in ast.walk(line))
    return parameters - {node.id for node in loads if isinstance(node, ast.Name)}


def test_an_unused_parameter_is_detected():
    def function(used: int, dead: int) -> int:
        return used

    assert unused(function) == {"dead"}


def test_every_option_of_a_command_is_used():
    for names, command in TREE.items():
        read = {
            param.name for param in command.params if param.callback
        }  # read before the command runs, such as --config
        assert not unused(inspect.unwrap(command.callback)) - read, names


def test_every_parameter_of_a_public_function_is_used():
    seen = 0
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            members = vars(value).items() if inspect.isclass(value) else [(name, value)]
            for label, member in members:
                member = inspect.unwrap(getattr(member, "__func__", member)) if callable(member) else member
                if inspect.isfunction(member) and not label.startswith("__") and member.__module__.startswith("bertft"):
                    seen += 1
                    assert not unused(member), f"{package}.{name}: {label}"
    assert seen > 60


def test_every_function_and_class_is_used():
    files = [path for folder in ("bertft", "experiments", "benchmarks", "examples", "docs", "tests", ".ci")
             for path in ROOT.glob(f"{folder}/**/*") if path.suffix in (".py", ".md")]  # fmt: skip
    words = Counter(
        re.findall(r"\w+", "".join(path.read_text(encoding="utf8") for path in [*files, ROOT / "README.md"]))
    )
    for path in ROOT.glob("bertft/**/*.py"):
        for node in ast.parse(path.read_text(encoding="utf8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert words[node.name] > 1, f"{path.name}: {node.name} is used nowhere"


def test_every_setting_is_read_somewhere():
    from bertft.models.finetuning.config import FinetuneConfig
    from bertft.probes.edge.training import EdgeTraining
    from bertft.study.options import EdgeCommand, StructuralCommand

    trees = [ast.parse(path.read_text(encoding="utf8")) for path in ROOT.glob("bertft/**/*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    gets = [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "get"]
    read |= {str(getattr(call.args[0], "value", None)) for call in gets if call.args}  # of a run folder's config.yaml
    for config in (StudyConfig, RsaConfig, ProbesConfig, EdgeConfig, StimuliConfig, FinetuneConfig, EdgeTraining,
                   StructuralCommand, EdgeCommand):  # fmt: skip
        assert {field.name for field in dataclasses.fields(config)} <= read, config
    # A task's settings are passed to `FinetuneConfig` by name.
    assert {f.name for f in dataclasses.fields(TaskConfig)} <= {f.name for f in dataclasses.fields(FinetuneConfig)}
