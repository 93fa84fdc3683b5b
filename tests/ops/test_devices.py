"""Ops on every device against float64 on the CPU.

Values, gradients and errors.
"""

from __future__ import annotations

import pytest
import torch

from bertft import ops
from bertft.errors import BertftError
from bertft.ops import reference
from bertft.ops.metrics import LINEAR, METRICS

# device, and on a GPU how float32 products are formed: by its float32 units, or from halves whatever their size
DEVICES = [
    pytest.param(("cpu", None), id="cpu"),
    pytest.param(("cuda", "plain"), id="cuda-plain", marks=pytest.mark.gpu),
    pytest.param(("cuda", "split"), id="cuda-split", marks=pytest.mark.gpu),
]
TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
pytestmark = pytest.mark.parametrize("device", DEVICES, indirect=True)


@pytest.fixture
def device(request, monkeypatch):
    name, core = request.param
    if core is not None:
        monkeypatch.setenv("BERTFT_CORE", core)
    return name


def draw(*shape, seed=0, dtype=torch.float32):
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + 0.5).to(dtype)


def close(result, exact, tolerance=1e-5):
    exact = exact.to(torch.float64)
    scale = float(exact.abs().max()) if exact.numel() else 1.0
    torch.testing.assert_close(result.detach().cpu().double(), exact, rtol=0, atol=tolerance * max(scale, 1e-30))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", TYPES)
def test_pairwise_distance(device, metric, dtype):
    for n, m in ((1, None), (70, None), (131, 9), (3, 140)):
        x, y = draw(2, n, 33, dtype=dtype), None if m is None else draw(2, m, 33, seed=1, dtype=dtype)
        on = [t if t is None else t.to(device) for t in (x, y)]
        wide = [t if t is None else t.double() for t in (x, y)]
        out = ops.pairwise_distance(*on, metric=metric)
        assert out.device.type == device
        close(out, reference.pairwise_distance(*wide, metric=metric))
        if m is None:
            assert torch.equal(out, out.mT)
            condensed = ops.pairwise_distance(on[0], metric=metric, condensed=True)
            close(condensed, reference.pairwise_distance(wide[0], metric=metric, condensed=True))


@pytest.mark.parametrize("metric", METRICS)
def test_pairwise_gradient(device, metric):
    for m in (None, 6):
        x, y = draw(1, 67, 20), None if m is None else draw(1, m, 20, seed=1)
        grads = []
        for kind in (torch.float32, torch.float64):
            where = device if kind == torch.float32 else "cpu"
            leaves = [t.to(where, kind).requires_grad_() for t in (x, y) if t is not None]
            call = ops.pairwise_distance if kind == torch.float32 else reference.pairwise_distance
            out = call(*leaves, metric=metric)
            weight = draw(*out.shape, seed=2).to(where, kind)
            grads.append(torch.autograd.grad((out * weight).sum(), leaves))
        for got, exact in zip(*grads, strict=True):
            close(got, exact, 1e-4)


@pytest.mark.parametrize("metric", LINEAR)
@pytest.mark.parametrize("float64", [False, True])
def test_cross_moments(device, metric, float64):
    x, y = draw(530, 20), draw(530, 33, seed=1)
    means = ops.provisional_mean(x, metric), ops.provisional_mean(y, metric)
    mean_x, mean_y = (mean.to(device) for mean in means)
    options = {"mean_x": mean_x, "mean_y": mean_y, "metric": metric, "float64": float64}
    got = ops.cross_moments(x.to(device), y.to(device), **options)
    exact = reference.cross_moments(x.double(), y.double(), *means, metric, metric)
    for part, wanted in zip(got, exact, strict=True):
        close(part, wanted, 1e-12 if float64 else 1e-5)
    total = ops.cross_moments(x[:100].to(device), y[:100].to(device), **options)
    total = ops.cross_moments(x[100:].to(device), y[100:].to(device), **options, out=total)
    for part, wanted in zip(total, exact, strict=True):
        close(part, wanted, 1e-12 if float64 else 1e-5)


@pytest.mark.parametrize("compare", ["pearson", "cosine", "spearman", "rho_a"])
@pytest.mark.parametrize("metric", METRICS)
def test_rdm_correlation(device, metric, compare):
    x, y = draw(3, 90, 20), draw(2, 90, 9, seed=1)
    y[..., :9] += x[:2, :, :9]
    for other, metric_y in ((None, None), (y, None), (y, "euclidean")):
        exact = reference.rdm_correlation(
            x.double(), None if other is None else other.double(), metric=metric, compare=compare, metric_y=metric_y
        )
        got = ops.rdm_correlation(
            x.to(device), None if other is None else other.to(device), metric=metric, compare=compare, metric_y=metric_y
        )
        torch.testing.assert_close(got.cpu(), exact, rtol=0, atol=2e-6)


@pytest.mark.gpu
def test_ranks_by_histogram(device):
    if device == "cpu":
        pytest.skip("is about the GPU's kernel")
    x = draw(2, 1500, 24)
    x[1] += x[0]
    exact = reference.rdm_correlation(x.double(), compare="spearman")
    torch.testing.assert_close(ops.rdm_correlation(x.cuda(), compare="spearman").cpu(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("lengths", [(5, 0, 33, 1), (140, 3), ()])
def test_probe_losses(device, dtype, lengths):
    words, counts = sum(lengths), torch.tensor(lengths, dtype=torch.int64)
    h, weight = draw(2, words, 12, dtype=dtype), draw(2, 12, 5, seed=1, dtype=dtype) / 3
    random = torch.Generator().manual_seed(3)
    distances = torch.randint(0, 9, (sum(n * n for n in lengths),), generator=random).to(torch.uint8)
    depths = torch.randint(0, 9, (words,), generator=random).float()
    for name, gold in (("distance_probe_loss", distances), ("depth_probe_loss", depths)):
        results = []
        for wide in (False, True):
            where, kind = ("cpu", torch.float64) if wide else (device, dtype)
            leaves = [t.to(where, kind).requires_grad_() for t in (h, weight)]
            loss = getattr(reference if wide else ops, name)(*leaves, gold.to(where), counts)
            results.append((loss, *torch.autograd.grad(loss.sum(), leaves)))
        (loss, grad_h, grad_weight), exact = results
        close(loss, exact[0].detach())
        loose = 1e-2 if dtype in (torch.float16, torch.bfloat16) else 1e-4  # gradients have the input's type
        close(grad_h, exact[1], loose)
        close(grad_weight, exact[2], loose)


def test_bad_rows_are_named(device):
    x = draw(2, 9, 5).to(device)
    x[1, 4] = 0
    with pytest.raises(
        BertftError, match="row 4 of x in layer 1 has norm 0, so its cosine or correlation is undefined"
    ):
        ops.pairwise_distance(x, metric="cosine")
    with pytest.raises(BertftError, match="row 4 of y in layer 1 has norm 0"):
        ops.pairwise_distance(x.flip(0)[:, :3], x, metric="cosine")
    x[0, 2, 1] = float("nan")
    with pytest.raises(BertftError, match="row 2 of x in layer 0 holds NaN or infinity"):
        ops.pairwise_distance(x, metric="manhattan")
    with pytest.raises(BertftError, match="row 2 of x holds NaN or infinity"):
        ops.cross_moments(x[0], mean_x=torch.zeros(5, device=device, dtype=torch.float64))


def test_strided_and_empty_input(device):
    x = draw(40, 2, 26).to(device).transpose(0, 1)[..., ::2]
    exact = reference.pairwise_distance(x.cpu().double())
    close(ops.pairwise_distance(x), exact)
    assert ops.pairwise_distance(x[:, :0]).shape == (2, 0, 0)
    assert ops.pairwise_distance(x, x[:, :0]).shape == (2, 40, 0)
