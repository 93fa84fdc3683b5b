"""Static budget of .ci/cuda_budget.py: input and complaints."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PTXAS = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4gramPKf' for 'sm_80'
ptxas info    : Function properties for _Z4gramPKf
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 38 registers, used 1 barriers, 8 bytes cumulative stack size, 10240 bytes smem, 388 bytes cmem[0]
ptxas info    : Compiling entry function '_Z4gramPKf' for 'sm_90'
ptxas info    : Function properties for _Z4gramPKf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 388 bytes cmem[0]
"""
SASS = """\
arch = sm_80
        Function : _Z4gramPKf
        /*0000*/                   LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0010*/                   LDG.E R4, [R2.64] ;
        /*0020*/                   LDGSTS.E.BYPASS.128 [R5], [R2.64] ;
        /*0030*/                   HMMA.1688.F32.TF32 R8, R4, R6, R8 ;
        /*0038*/                   HMMA.16816.F32 R8, R4, R6, RZ ;
        /*0040*/                   LDSM.16.M88.4 R8, [R4] ;
        /*0050*/                   STG.E.128 [R2.64], R4 ;
"""


@pytest.fixture(scope="module")
def budget():
    spec = importlib.util.spec_from_file_location("cuda_budget", ROOT / ".ci" / "cuda_budget.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["cuda_budget"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["cuda_budget"]


def test_ptxas(budget):
    assert budget.read_ptxas(PTXAS) == {
        ("_Z4gramPKf", "sm_80"): budget.Usage(registers=38, spilled=16, stack=8, shared=10240),
        ("_Z4gramPKf", "sm_90"): budget.Usage(registers=40),
    }


def test_machine_code(budget):
    counts = budget.count_instructions(SASS)
    claims = {"tensor cores": 2, "cp.async": 1, "ldmatrix": 1, "16-byte loads": 2}
    assert counts == {("_Z4gramPKf", "sm_80"): claims | {"HMMA": 2, "HMMA from zero": 1, "LDSM": 1, "LDGSTS": 1}}


def test_stated_budget(budget):
    assert budget.stated_budget("out = x\nregisters: <= 128, fold_kernel <= 40\n") == {"": 128, "fold_kernel": 40}
    assert budget.stated_budget("registers: <= 9, b <= 8\nregisters: c <= 7\n") == {"": 9, "b": 8, "c": 7}
    assert budget.stated_budget("uses 128 registers: many") == {}


def test_stated_spills_and_instructions(budget):
    text = (
        "registers: <= 9\nspills: gram <= 8\ninstructions: gram 96 HMMA, 32 HMMA from zero\ninstructions: fold 1 LDSM\n"
    )
    assert budget.stated_spills(text) == {"gram": 8}
    assert budget.stated_instructions(text) == {"gram": {"HMMA": 96, "HMMA from zero": 32}, "fold": {"LDSM": 1}}
    assert budget.stated_spills("registers: <= 9") == budget.stated_instructions("registers: <= 9") == {}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("spills: gram <= 16", None),
        ("spills: gram <= 15", "gram on sm_80 spills 16 bytes"),
        ("spills: gram <= 25", "admits spills of more than 24 bytes"),
        ("spills: gram <= 16, lost <= 4", "speaks of lost, which is no kernel"),
        ("spills: gram <= 16\n// instructions: gram 2 HMMA, 1 HMMA from zero", None),
        ("spills: gram <= 16\n// instructions: gram 3 HMMA", "2 HMMA in 1 instances of 3"),
    ],
)
def test_what_a_header_admits(budget, tmp_path, line, complaint):
    source = tmp_path / "gram.cu"
    source.write_text(f"// gram\n// registers: <= 40\n// {line}\n", "utf-8")
    kernel = budget.Kernel("gram.cu", "gram", {"_Z4gramPKf"})
    kernel.usage["sm_80"] = budget.read_ptxas(PTXAS)["_Z4gramPKf", "sm_80"]
    kernel.instructions["sm_80"] |= budget.count_instructions(SASS)["_Z4gramPKf", "sm_80"]
    found = budget.complaints(source, [kernel])
    assert any(complaint in text for text in found) if complaint else not found


def test_complaints(budget, tmp_path):
    source = tmp_path / "gram.cu"
    source.write_text("// gram: products on tensor cores\n// registers: <= 39\n#include <x>\n// cp.async\n", "utf-8")
    kernel = budget.Kernel("gram.cu", "gram")
    for (_, architecture), usage in budget.read_ptxas(PTXAS).items():
        kernel.usage[architecture] = usage
    found = budget.complaints(source, [kernel])
    assert any("gram on sm_80 spills 16 bytes" in text for text in found)
    assert any("gram on sm_90 uses 40 registers, its header states <= 39" in text for text in found)
    assert sum("speaks of tensor cores" in text for text in found) == 3
    assert not any("cp.async" in text for text in found)  # below the header
    source.write_text("// gram\n", "utf-8")
    assert any("states no budget" in text for text in budget.complaints(source, []))


@pytest.mark.parametrize("source", sorted((ROOT / "csrc" / "cuda").glob("*.cu")), ids=lambda path: path.name)
def test_every_kernel_file_states_a_budget(budget, source):
    assert budget.stated_budget(budget.header(source))
