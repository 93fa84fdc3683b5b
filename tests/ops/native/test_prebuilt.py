"""Libraries that come with the package: which is chosen, what a damaged one costs, and how a wheel gets them."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import warnings

import pytest
import setuptools
import torch

from bertft.cli.doctor import kernels
from bertft.ops import pairwise_distance, reference
from bertft.ops.native import build, cpu, prebuilt, wheel
from bertft.ops.native.build import BuildError
from bertft.ops.native.loader import Loader
from bertft.ops.native.prebuilt import Target

OLD, NEW = Target("old", ("-O0",), frozenset({"sse"})), Target("new", ("-O1",), frozenset({"sse", "avx"}))


@pytest.fixture
def tree(tmp_path):
    """Make a small source tree that compiles in a fraction of a second."""
    root = tmp_path / "csrc"
    (root / "cpu").mkdir(parents=True)
    (root / "bind_cpu.cpp").write_text('extern "C" int answer() { return 42; }\n')
    return root


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Make the package's folder of libraries an empty one, and the CPU one with two features."""
    monkeypatch.setattr(prebuilt, "FOLDER", tmp_path / "_prebuilt")
    monkeypatch.setattr(prebuilt, "cpu_features", lambda: ("some CPU", frozenset({"sse", "avx", "f16c"})))
    (tmp_path / "_prebuilt").mkdir()
    return tmp_path / "_prebuilt"


def fill(folder, root, *targets: Target, **changes: object) -> None:
    """Write a library for each target and the manifest with ``changes``."""
    for target in targets:
        (folder / f"{target.name}.so").write_text(target.name)
    entries = [prebuilt.entry(target, folder / f"{target.name}.so") for target in targets]
    (folder / prebuilt.MANIFEST).write_text(json.dumps(prebuilt.manifest(root, entries) | changes))


def test_the_first_library_that_this_cpu_can_run_is_chosen(here, tree, monkeypatch):
    assert prebuilt.find(tree) is None, "no manifest"
    fill(here, tree, NEW, OLD)
    assert prebuilt.find(tree) == here / "new.so"
    monkeypatch.setattr(prebuilt, "cpu_features", lambda: ("old CPU", frozenset({"sse"})))
    assert prebuilt.find(tree) == here / "old.so"
    monkeypatch.setattr(prebuilt, "cpu_features", lambda: ("older CPU", frozenset()))
    assert prebuilt.find(tree) is None


@pytest.mark.parametrize("changes", [{"machine": "vax"}, {"sources": "other"}])
def test_a_library_for_another_machine_or_of_other_sources_is_not_chosen(changes, here, tree):
    fill(here, tree, NEW, **changes)
    assert prebuilt.find(tree) is None


def test_sanitizers_compile_anew(here, tree, monkeypatch):
    fill(here, tree, NEW)
    monkeypatch.setenv("BERTFT_SANITIZE", "address")
    assert prebuilt.find(tree) is None


def test_a_damaged_library_or_manifest_is_named(here, tree):
    fill(here, tree, NEW, OLD)
    (here / "new.so").write_text("ne")
    with pytest.raises(BuildError, match=r"new\.so is damaged"):
        prebuilt.find(tree)
    (here / "new.so").unlink()
    with pytest.raises(BuildError, match=r"new\.so cannot be read \(No such file"):
        prebuilt.find(tree)
    for text in ("{", "[]", '{"machine": "x86_64"}'):
        (here / prebuilt.MANIFEST).write_text(text)
        with pytest.raises(BuildError, match=r"manifest\.json cannot be read"):
            prebuilt.find(tree)


@pytest.mark.parametrize("damage", ["truncated", "no library"])
@pytest.mark.parametrize("compiler", ["", "no-such-compiler"])
def test_a_damaged_library_costs_one_warning_and_changes_no_result(damage, compiler, here, monkeypatch):
    """With a compiler the kernels are compiled, without one plain PyTorch takes over."""
    fill(here, build.source_root(), NEW)  # intact, but no library
    if damage == "truncated":
        (here / "new.so").write_text("n")
    if compiler:
        monkeypatch.setenv("CXX", compiler)
    monkeypatch.delenv("BERTFT_KERNELS", raising=False)
    monkeypatch.setattr(cpu, "_kernels", Loader(cpu._load))
    x = torch.randn(20, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = pairwise_distance(x)
    (text,) = (str(one.message) for one in caught)
    assert "new.so" in text and ("does not load" if damage == "no library" else "is damaged") in text
    assert (compiler in text) and cpu.status()["kernels"] == ("reference" if compiler else "compiled")
    torch.testing.assert_close(found, reference.pairwise_distance(x))


def test_the_doctor_says_that_a_library_of_the_package_is_in_use(here, monkeypatch):
    assert cpu.load()
    library, _ = cpu.find_or_build()  # that of this process, under another name
    shutil.copy(library, here / "new.so")
    entries = [prebuilt.entry(NEW, here / "new.so")]
    (here / prebuilt.MANIFEST).write_text(json.dumps(prebuilt.manifest(build.source_root(), entries)))
    monkeypatch.setattr(cpu, "load_ops", lambda path: assert_same(path, here / "new.so"))
    monkeypatch.setattr(cpu, "_kernels", Loader(cpu._load))
    assert kernels()["in use"] == "prebuilt" and "for new fits" in kernels()["why"]


def assert_same(found: object, expected: object) -> None:
    assert found == expected


# Building ----------------------------------------------------------------------------------------------------------


def test_a_build_compiles_one_library_for_each_target(here, tree, monkeypatch):
    for module in (wheel, prebuilt):
        monkeypatch.setattr(module, "FOLDER", here)
    monkeypatch.setattr(wheel, "source_root", lambda: tree)
    distribution = setuptools.Distribution({"name": "any", **wheel.options([NEW, OLD])})
    command = distribution.get_command_obj("build_ext")
    command.build_lib = str(here.parent / "lib")
    command.ensure_finalized()
    command.run()
    built = here.parent / "lib" / "bertft" / here.name
    assert {path.name for path in built.iterdir()} == {"new.so", "old.so", prebuilt.MANIFEST}
    command.copy_extensions_to_source()  # an editable installation
    assert prebuilt.find(tree) == here / "new.so"
    assert distribution.get_command_obj("bdist_wheel").get_tag()[:2] == ("py3", "none")


def test_what_is_compiled_follows_from_the_environment():
    assert [target.name for target in wheel.targets("portable", "x86_64")] == ["avx512", "avx2"]
    assert [target.name for target in wheel.targets("portable", "aarch64")] == ["neon"]
    assert wheel.targets("1", "vax")[0].features == build.cpu_features()[1]
    with pytest.raises(BuildError, match="BERTFT_AOT must be 1 or portable, not 'yes'"):
        wheel.targets("yes", "x86_64")
    with pytest.raises(BuildError, match="expected one of x86_64, aarch64, found the machine vax"):
        wheel.targets("portable", "vax")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86-64")
@pytest.mark.parametrize("target", prebuilt.PORTABLE["x86_64"], ids=lambda target: target.name)
def test_a_target_asks_a_cpu_for_every_feature_that_its_flags_use(target):
    """Ask the compiler for the instruction sets behind its flags; /proc/cpuinfo has two names of its own."""

    def macros(*flags: str) -> set[str]:
        command = [*build.find_compiler().split(), *flags, "-dM", "-E", "-x", "c++", "/dev/null"]
        return set(re.findall(r"#define __([A-Z0-9]+)__ 1$", subprocess.check_output(command, text=True), re.MULTILINE))

    used = {name.lower() for name in macros(*target.flags) - macros("-march=x86-64-v2")}
    assert {{"lzcnt": "abm", "bmi": "bmi1"}.get(name, name) for name in used} == target.features
