"""Directions of little variance: those of rounding alone do not count."""

from __future__ import annotations

import pytest
import torch

from bertft.similarity.compare.plan import Plan
from bertft.similarity.moments import CrossMoments, merged


@pytest.mark.parametrize("measure", ["cca", "pwcca", "linear_r2"])
def test_a_direction_without_variance_does_not_count(measure):
    """Layer normalisation leaves one such direction; float32 products give it 1e-9 of the largest variance."""
    g = torch.Generator().manual_seed(0)
    scale = torch.cat([torch.full((8,), 30.0), torch.ones(152)])
    rows = torch.randn(6, 900, 160, generator=g) * scale
    other = rows + 0.5 * scale * torch.randn(rows.shape, generator=g)
    gain = torch.rand(160, generator=g) + 0.5
    spaces = [torch.nn.functional.layer_norm(x, (160,), gain, gain) for x in (rows, other)]
    truth = getattr(CrossMoments(6, 6, "dot", float64=True).update(*(x.double() for x in spaces)), measure)()
    for float64 in (False, True):
        found = getattr(CrossMoments(6, 6, "dot", float64=float64).update(*spaces), measure)()
        torch.testing.assert_close(found, truth, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 1e-6), (torch.bfloat16, 1e-4)])
def test_a_direction_of_rounding_noise_does_not_count(dtype, least):
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(1, 900, 160, generator=g)
    spaces = [torch.nn.functional.layer_norm(x, (160,)) for x in (rows, rows + torch.randn(rows.shape, generator=g))]
    truth = float(CrossMoments(1, 1, "dot", float64=True).update(*spaces).cca())
    found = CrossMoments(1, 1, "dot", float64=True).update(*(x.to(dtype) for x in spaces))
    blurred = found.restore({name: t for name, t in found.state.items() if name != "noise"})  # the finest floor
    assert abs(float(blurred.cca()) - truth) > 10 * least  # one of 160 correlations that are about 0.7
    assert abs(float(CrossMoments(1, 1, "dot", float64=True).update(*(x.to(dtype) for x in spaces)).cca()) - truth) < (
        30 * least
    )


def test_small_directions_count_in_float64():
    """An invertible map changes nothing, although it leaves most directions 1e-8 of the largest variance."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 900, 160, dtype=torch.float64, generator=g)
    y = x + torch.randn(x.shape, dtype=torch.float64, generator=g)
    scaled = x * torch.cat([torch.full((40,), 1e4), torch.ones(120)])
    for measure in ("cca", "linear_r2"):
        plain, mapped = (getattr(CrossMoments(1, 1, "dot").update(a, y), measure)() for a in (x, scaled))
        torch.testing.assert_close(mapped, plain, rtol=0, atol=1e-6)


def test_the_noise_floor_is_merged_saved_and_restored(tmp_path):
    x = torch.randn(1, 50, 4, generator=torch.Generator().manual_seed(0))
    fine, coarse = CrossMoments(1, 1).update(x, x), CrossMoments(1, 1).update(x.bfloat16(), x.bfloat16())
    assert fine.noise < coarse.noise == merged([fine, coarse]).noise
    coarse.save(tmp_path / "sums")
    assert CrossMoments.load(tmp_path / "sums").noise == coarse.noise
    older = {name: tensor for name, tensor in fine.state.items() if name != "noise"}
    assert CrossMoments(1, 1).restore(older).noise == 1e-7  # whose products may have been float32


def test_measures_sensitive_to_little_variance_take_float64_products():
    plan = Plan(measures=("rsa", "cca"))
    assert plan.in_float64("dot") and not plan.in_float64("cosine")
    assert not Plan(measures=("rsa", "cka", "svcca", "procrustes")).in_float64("dot")
    assert Plan(measures=("rsa",), float64=True).in_float64("cosine")
