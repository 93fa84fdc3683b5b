"""Builds of the CUDA kernels, without a GPU.

A CUDA build of torch is not needed either.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from bertft.errors import BertftError
from bertft.ops.native import build, cuda
from bertft.ops.native.build import BuildError
from bertft.ops.native.loader import Loader

TORCH = Path(torch.__file__).parent


@pytest.fixture
def fresh(monkeypatch):
    monkeypatch.setattr(cuda, "_kernels", Loader(cuda._load))


def toolkit(folder: Path, version: str, library: str | None = "lib/libcudart.so.13") -> Path:
    """Make a folder that looks like a CUDA toolkit."""
    (folder / "bin").mkdir(parents=True)
    (folder / "include").mkdir()
    (folder / "include" / "cuda_runtime.h").touch()
    nvcc = folder / "bin" / "nvcc"
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.1'\n")
    nvcc.chmod(0o755)
    if library:
        (folder / library).parent.mkdir()
        (folder / library).touch()
    return folder


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_binding_compiles_against_the_stable_abi_without_cuda():
    root = build.source_root()
    command = ["g++", "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-DUSE_CUDA"]
    command += ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-isystem", str(TORCH / "include")]
    done = subprocess.run([*command, str(root / "bind_cuda.cpp")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_binding_declares_the_launchers_as_the_kernels_define_them():
    def declarations(text: str) -> dict[str, str]:
        text = re.sub(r"//.*", "", text)
        found = re.findall(r"\bint (\w+_(?:launch|plan|of_block|bytes|serves))\(([^)]*)\)\s*[;{]", text)
        return {name: " ".join(parameters.split()) for name, parameters in found}

    root = build.source_root()
    declared = declarations((root / "bind_cuda.h").read_text())
    defined = {}
    for file in root.glob("cuda/*.cu"):
        defined |= declarations(file.read_text())
    assert declared == defined and len(declared) == 28


def test_schemas_of_the_binding_exist_on_the_cpu_too():
    root = build.source_root()
    own, cpu = ((root / name).read_text() for name in ("bind_cuda.cpp", "bind_cpu.cpp"))
    implemented = set(re.findall(r'm\.impl\("(\w+)"', own))
    defined = set(re.findall(r'm\.def\(\s*"(\w+)\(', own)) | set(re.findall(r'm\.def\(\s*"(\w+)\(', cpu))
    assert implemented <= defined and "probe_loss" in implemented


def test_architectures(monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.6 9.0a+PTX;12.0")
    assert cuda.architectures() == [
        "-gencode=arch=compute_86,code=sm_86",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_90a,code=compute_90a",
        "-gencode=arch=compute_120,code=sm_120",
    ]
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "Ampere")
    with pytest.raises(BuildError, match="'Ampere'; it must be numbers such as"):
        cuda.architectures()
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert " ".join(cuda.architectures()).count("sm_") == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda k: [(9, 0), (8, 0), (9, 0)][k])
    assert [flag[-5:] for flag in cuda.architectures()] == ["sm_80", "sm_90"]


def test_toolkit_is_found_in_the_named_folder(monkeypatch, tmp_path):
    home = toolkit(tmp_path / "cuda", "13.0")
    monkeypatch.setenv("CUDA_HOME", str(home))
    assert cuda.find_toolkit("13") == home
    with pytest.raises(BuildError, match=r"no CUDA 12 toolkit to compile with \(.*cuda is CUDA 13.0\)"):
        cuda.find_toolkit("12")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(BuildError, match="no CUDA 13 toolkit to compile with"):
        cuda.find_toolkit("13")
    monkeypatch.setenv("CUDA_HOME", str(toolkit(tmp_path / "bare", "13.0", library=None)))
    with pytest.raises(BuildError, match=r"has no libcudart.so"):
        cuda.find_toolkit("13")


def test_a_wrapper_script_on_the_path_is_no_toolkit(monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "nvcc").chmod(0o755)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert tmp_path in cuda._toolkit_candidates()
    try:
        assert cuda.find_toolkit("13") != tmp_path
    except BuildError as error:
        assert str(tmp_path) not in str(error)


def test_key_changes_with_what_goes_in(monkeypatch, tmp_path):
    root, home = build.source_root(), toolkit(tmp_path / "cuda", "13.0")
    key = cuda.build_key(root, home, "g++", ["a"])
    assert key == cuda.build_key(root, home, "g++", ["a"])
    other = toolkit(tmp_path / "other", "13.0")
    changed = [(home, "clang++", ["a"]), (home, "g++", ["b"]), (other, "g++", ["a"])]
    assert len({key, *(cuda.build_key(root, *rest) for rest in changed)}) == 4


def test_build_file_names_every_kernel(tmp_path):
    root, home = build.source_root(), toolkit(tmp_path / "cuda 13", "13.0")
    cuda.write_ninja(tmp_path, root, "g++", home, ["-gencode=x"], tmp_path / "library.so")
    text = (tmp_path / "build.ninja").read_text()
    for file in root.glob("cuda/*.cu"):
        assert f"build {file.stem}.o: device" in text
    assert "build bind_cuda.o: host" in text and "'" + str(home) in text
    ninja = shutil.which("ninja")
    if ninja:  # parses, with a space in a path
        subprocess.run([ninja, "-C", str(tmp_path), "-t", "targets"], check=True, capture_output=True)


@pytest.mark.skipif(torch.version.cuda is not None, reason="is about a torch without CUDA")
def test_status_names_what_is_missing(fresh, monkeypatch):
    assert cuda.status() == {"loaded": False, "reason": "this torch is built for the CPU only"}
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_HOME", "/nowhere")
    assert "no CUDA 13 toolkit" in cuda.status()["reason"]


@pytest.mark.skipif(torch.version.cuda is not None, reason="is about a torch without CUDA")
def test_load_warns_once_and_falls_back(fresh, monkeypatch):
    monkeypatch.delenv("BERTFT_KERNELS", raising=False)
    with pytest.warns(RuntimeWarning, match="plain PyTorch on the GPU, slower: this torch is built for the CPU only"):
        assert cuda.load() is False
    assert cuda.load() is False  # a second warning would be an error here
    monkeypatch.setattr(cuda, "_kernels", Loader(cuda._load))
    monkeypatch.setenv("BERTFT_KERNELS", "compiled")
    with pytest.raises(BertftError, match="BERTFT_KERNELS=compiled, but this torch is built for the CPU only"):
        cuda.load()
