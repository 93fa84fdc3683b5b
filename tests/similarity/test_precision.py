"""The precision of sums and comparisons: how it is recorded and handed on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertft.errors import BertftError
from bertft.similarity import CrossMoments, rdms, rsa
from bertft.similarity.compare.comparison import Comparison
from bertft.similarity.compare.plan import Plan


def spaces():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 40, 6, generator=draw) + 2
    return x, x + torch.randn(1, 40, 6, generator=draw)


def test_two_names_of_one_setting_agree():
    assert (Plan().precision, Plan().float64) == ("float32", False)
    assert Plan(float64=True) == Plan(precision="float64")
    assert Plan(float64=True).precision == "float64" and Plan(precision="float64").float64
    for options in ({"precision": "half"}, {"precision": "fast", "float64": True}):
        with pytest.raises(BertftError, match="precision"):
            Plan(**options)


def test_a_plan_sets_the_precision_of_each_sum():
    plan = Plan(measures=("rsa", "cca"), precision="fast")
    assert (plan.precision_of("cosine"), plan.precision_of("dot")) == ("fast", "float64")
    sums = Comparison(plan, {"tuned": (2, 2)}).sums["tuned"]
    assert {metric: moments.precision for metric, moments in sums.items()} == {"cosine": "fast", "dot": "float64"}


def test_files_of_fast_sums_say_so_and_others_are_as_before(tmp_path):
    x, y = spaces()
    fast, plain = (CrossMoments(1, 1, precision=p).update(x, y) for p in ("fast", "float32"))
    assert torch.equal(fast.rsa(), plain.rsa())  # on the CPU
    assert set(fast.config) - set(plain.config) == {"precision"}
    fast.save(tmp_path / "sums.safetensors")
    again = CrossMoments.load(tmp_path / "sums.safetensors", expect=CrossMoments(1, 1, precision="fast"))
    assert (again.precision, again.float64) == ("fast", False)
    assert CrossMoments(1, 1, precision="float64").config == CrossMoments(1, 1, float64=True).config
    with pytest.raises(BertftError, match=r"CrossMoments\.merge: expected"):
        plain.merge(fast)


def test_matrices_and_their_comparison_take_a_precision():
    x, y = (t.numpy() for t in spaces())
    wide = rdms(x, precision="float64").values
    assert np.array_equal(wide, rdms(x.astype(np.float64)).values)
    assert not np.array_equal(wide, rdms(x).values)
    assert rsa(x[0], y[0], precision="float64").route.dtype == torch.float64
    assert rsa(x[0], y[0], precision="fast").estimate == rsa(x[0], y[0]).estimate
    for call in (lambda: rdms(x, precision="half"), lambda: rsa(x[0], y[0], precision="half")):
        with pytest.raises(BertftError, match="precision must be one of float32, fast, float64, not 'half'"):
            call()
