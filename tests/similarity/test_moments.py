"""CrossMoments against float64 brute force: values, merging, saving, processes, bad input."""

from __future__ import annotations

import math
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr

from bertft.errors import BertftError
from bertft.ops.moments.cross_moments import Moments, cross_moments
from bertft.runs.artefacts import Artefact
from bertft.similarity.compare.comparison import Comparison
from bertft.similarity.compare.plan import Plan
from bertft.similarity.moments import CrossMoments, merged
from bertft.similarity.placed_sums import bytes_of_sums

METRICS = ("dot", "cosine", "correlation", "sqeuclidean")
SUMS = ("gram_x", "stats_x", "cross", "stats_xy", "gram_y", "stats_y")


def spaces(kind: str = "bert", n: int = 60, d: int = 12, e: int = 9, layers: int = 2, seed: int = 0):
    """Return two related spaces (L, n, d) and (L, n, e), float64."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(layers, n, d, generator=g, dtype=torch.float64)
    y = x @ torch.randn(layers, d, e, generator=g, dtype=torch.float64) / 3
    y = y + torch.randn(layers, n, e, generator=g, dtype=torch.float64)
    if kind in ("bert", "rogue"):
        x, y = x + 8 * torch.randn(d, generator=g, dtype=torch.float64), y + 20
    if kind == "rogue":
        x[..., 1] = x[..., 1] * 10 + 100  # one dimension far from the others, as in BERT
        y[..., :2] *= 20
    if kind == "repeated":
        x[:, n // 2 :], y[:, n // 2 :] = x[:, : n - n // 2], y[:, : n - n // 2]
    return x, y


def dissimilarities(x: torch.Tensor, metric: str) -> np.ndarray:
    """Return RSA from all pairs in extended precision; 1 - cosine of nearly equal vectors costs float64 five digits."""
    x = x.numpy().astype(np.longdouble)
    if metric == "correlation":
        x = x - x.mean(1, keepdims=True)
    if metric in ("cosine", "correlation"):
        x = x / np.sqrt((x * x).sum(1, keepdims=True))
    i, j = np.triu_indices(len(x), 1)
    if metric == "sqeuclidean":
        return ((x[i] - x[j]) ** 2).sum(1)
    return (x[i] * x[j]).sum(1) if metric == "dot" else 1 - (x[i] * x[j]).sum(1)


def brute_rsa(
    x: torch.Tensor, y: torch.Tensor, metric: str, compare: str = "pearson", metric_y: str | None = None
) -> float:
    a, b = dissimilarities(x, metric), dissimilarities(y, metric_y or metric)
    if compare == "pearson":
        a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def test_brute_force_equals_scipy():
    x, y = spaces("plain")
    for metric in ("cosine", "correlation", "sqeuclidean"):
        expected = pearsonr(pdist(x[0].numpy(), metric), pdist(y[0].numpy(), metric))[0]
        assert brute_rsa(x[0], y[0], metric) == pytest.approx(expected, abs=1e-13)


def brute_cka(x: torch.Tensor, y: torch.Tensor, debiased: bool) -> float:
    """Return CKA from full kernel matrices, as in Song et al. (2012) and Kornblith et al. (2019)."""
    x, y = x - x.mean(0), y - y.mean(0)  # CKA ignores the shift, but the rounding of kernel matrices does not
    k, l_ = x @ x.T, y @ y.T
    n = len(k)
    if not debiased:
        h = torch.eye(n, dtype=k.dtype) - 1 / n
        k, l_ = h @ k @ h, h @ l_ @ h
        return float((k * l_).sum() / (k.norm() * l_.norm()))

    def hsic(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = (m - m.diag().diag() for m in (a, b))
        one = torch.ones(n, dtype=a.dtype)
        ab = a @ b
        return ab.trace() + (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2)) - 2 * (one @ ab @ one) / (n - 2)

    return float(hsic(k, l_) / (hsic(k, k) * hsic(l_, l_)).sqrt())


def stream(x: torch.Tensor, y: torch.Tensor, metric, cuts=(7, 8, 31), **kwargs) -> CrossMoments:
    moments = CrossMoments(len(x), len(y), metric, **kwargs)
    for a, b in zip(x.tensor_split(cuts, 1), y.tensor_split(cuts, 1), strict=True):
        moments.update(a, b)
    return moments


@pytest.mark.parametrize("kind", ["plain", "bert", "rogue", "repeated"])
@pytest.mark.parametrize("metric", METRICS)
def test_rsa_equals_all_pairs(metric, kind):
    x, y = spaces(kind)
    moments = stream(x, y, metric)
    assert len(moments) == 60
    for compare in ("pearson", "cosine"):
        expected = torch.tensor(
            [brute_rsa(a, b, metric, compare) for a, b in zip(x, y, strict=True)], dtype=torch.float64
        )
        torch.testing.assert_close(moments.rsa(compare), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("shape", [(3, 12, 9), (4, 30, 40), (200, 3, 5)])
def test_few_stimuli_and_fewer_than_dimensions(shape):
    n, d, e = shape
    x, y = spaces("bert", n, d, e)
    moments = stream(x, y, "cosine", cuts=(1,))
    expected = torch.tensor([brute_rsa(a, b, "cosine") for a, b in zip(x, y, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(moments.rsa(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("debiased", [True, False])
def test_cka_equals_kernel_matrices(debiased):
    x, y = spaces("rogue")
    expected = torch.tensor([brute_cka(a, b, debiased) for a, b in zip(x, y, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(stream(x, y, "dot").cka(debiased), expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(stream(x, y, "sqeuclidean").cka(debiased), expected, rtol=0, atol=1e-11)


def test_golden_values():
    rng = np.random.RandomState(1337)
    x = rng.randn(100, 10)
    y = rng.randn(100, 10) + x
    moments = stream(torch.tensor(x)[None], torch.tensor(y)[None], "dot")
    assert moments.cka(debiased=False).item() == pytest.approx(0.55761, abs=5e-6)
    assert moments.cka(debiased=True).item() == pytest.approx(0.51346, abs=5e-6)


def test_float32_input_is_as_good_as_brute_force():
    x, y = spaces("rogue", n=400, d=32, e=32)
    x, y = x.float(), y.float()
    expected = [brute_rsa(a.double(), b.double(), "cosine") for a, b in zip(x, y, strict=True)]
    assert stream(x, y, "cosine").rsa().numpy() == pytest.approx(expected, abs=1e-6)
    assert stream(x, y, "cosine", float64=True).rsa().numpy() == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("metric", [*METRICS, ("cosine", "sqeuclidean")])
@pytest.mark.parametrize("pairs", ["diagonal", "all"])
def test_merge_of_sums_about_different_means(metric, pairs):
    x, y = spaces("rogue")
    whole = stream(x, y, metric, pairs=pairs)
    parts = [stream(x[:, s], y[:, s], metric, pairs=pairs) for s in (slice(0, 9), slice(9, 40), slice(40, 60))]
    assert not torch.equal(parts[0].state["mean_x"], parts[1].state["mean_x"])
    together = merged(parts)
    assert len(together) == 60 and len(parts[0]) == 9
    for measure in ("rsa", "cka", "procrustes"):
        torch.testing.assert_close(getattr(together, measure)(), getattr(whole, measure)(), rtol=0, atol=1e-11)
    expected = whole.about(parts[0].state["mean_x"], parts[0].state["mean_y"])
    for name in SUMS:
        torch.testing.assert_close(together.state[name], expected[name], rtol=1e-10, atol=1e-7)


def test_sums_take_the_bytes_that_are_forecast():
    """At four layers, and linear in the layers: 33 paired layers of 4,096 take less than 9 GB."""
    x, y = torch.randn(2, 4, 5, 65).unbind()
    for pairs in ("diagonal", "all"):
        sums = CrossMoments(4, 4, "dot", pairs).start(x, y[..., :40])
        kept = [t.untyped_storage().nbytes() for name, t in sums.state.items() if name != "noise"]
        assert sums.nbytes == bytes_of_sums((4, 4), (65, 40), pairs) == sum(kept)
    one, four, many = (bytes_of_sums((count, count), (4096, 4096)) for count in (1, 4, 33))
    assert one == 8 * (4096 * 4097 + 4096**2 + 2 * (3 * 4096 + 6) + 4 * 4096 + 4 + 2 * 4096)
    assert four == 4 * one and many == 33 * one and 8.8e9 < many < 9e9


@pytest.mark.parametrize("pairs", ["diagonal", "all"])
def test_long_updates_add_as_the_kernel_does_alone(pairs):
    """Bit for bit, where the kernel adds to the sums several times."""
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(1, 20_000, width, generator=g) for width in (160, 150))
    sums = CrossMoments(1, 1, "dot", pairs).update(x, y)
    means = {name: sums.state[name][0] for name in ("mean_x", "mean_y")}
    widths = (160, 160), (486,), (160, 150), (624,), (150, 150), (456,)
    total = Moments(*(torch.zeros(shape, dtype=torch.float64) for shape in widths))
    for rows in (slice(0, 8192), slice(8192, 16384), slice(16384, None)):
        cross_moments(x[0, rows], y[0, rows], **means, metric="dot", out=total)
    for name, found, expected in zip(SUMS, sums.moments(0, 0), total, strict=True):
        assert torch.equal(found, expected), name


def test_sums_of_layers_on_several_devices_are_those_of_one(monkeypatch):
    """Devices cpu:0 and cpu:1 are others than cpu by name; one of them is full, so that its layer stays behind."""
    free = {"cpu:0": 10**9, "cpu:1": 8}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[str(device)], 10**9))
    x, y = spaces("bert", layers=4)
    plain, spread = CrossMoments(4, 4), CrossMoments(4, 4)
    spread.place([torch.device(name) for name in ("cpu", "cpu:0", "cpu:1", "cpu:0")])
    for rows in (slice(0, 20), slice(20, 60)):
        plain.update(x[:, rows], y[:, rows])
        spread.update(x[:, rows], y[:, rows])
        assert spread._sums.on_gpu
    assert len(spread) == 60 and spread.widths == (12, 9)
    assert all(torch.equal(spread.state[name], kept) for name, kept in plain.state.items())
    assert not spread._sums.on_gpu  # looked at, they are on the CPU
    assert torch.equal(spread.update(x, y).rsa(), plain.update(x, y).rsa())


@pytest.mark.parametrize("bad", ["x", "y"])
def test_a_bad_row_far_into_an_update_is_named(bad):
    rows = {"x": torch.ones(1, 9000, 4), "y": torch.ones(1, 9000, 4)}
    rows[bad][0, 8500] = math.nan
    with pytest.raises(BertftError, match=rf"row 8500 of {bad} in layer 0 "):
        CrossMoments(1, 1).update(rows["x"], rows["y"])


def test_sums_of_earlier_versions_are_read(tmp_path):
    """Format 2 kept whole symmetric matrices."""
    x, y = spaces("bert")
    sums = stream(x, y, "cosine")
    square = {
        name: torch.stack([getattr(sums.moments(k, k), name) for k in range(2)]) if name.startswith("gram") else kept
        for name, kept in sums.state.items()
    }
    Artefact(tmp_path / "sums.safetensors", sums.config, format="bertft.CrossMoments/2").save(square)
    again = CrossMoments.load(tmp_path / "sums.safetensors", expect=sums)
    assert all(torch.equal(again.state[name], kept) for name, kept in sums.state.items())
    assert torch.equal(CrossMoments(2, 2).restore(square).rsa(), sums.rsa())  # as a checkpoint holds them


def test_arrays_and_tensors_give_equal_results():
    x, y = spaces("bert")
    expected = CrossMoments(2, 2).update(x, y).rsa()
    read_only = x.numpy().copy()
    read_only.flags.writeable = False
    backwards = y.numpy()[:, ::-1].copy()[:, ::-1]
    assert torch.equal(CrossMoments(2, 2).update(read_only, backwards).rsa(), expected)
    foreign, packed = x.numpy().astype(">f8"), np.zeros(y.shape, dtype=[("y", "f8"), ("other", "u1")])
    packed["y"] = y.numpy()
    assert torch.equal(CrossMoments(2, 2).update(foreign, packed["y"]).rsa(), expected)
    with pytest.raises(BertftError, match="expected an array of numbers, found one of object"):
        CrossMoments(2, 2).update(np.array([["a"]], dtype=object), y)
    with pytest.raises(BertftError, match=r"x must be float of shape"):
        CrossMoments(2, 2).update(np.ones((2, 3, 4), dtype=int), y)


def test_all_reduce_with_nccl_passes_through_the_gpu(monkeypatch):
    """The exchange of one real process; only the name of its backend and the move to the GPU are replaced."""
    there = []

    def cuda(tensor):
        there.append(tensor.clone())
        return there[-1]

    def on_gpu(exchange):
        def checked(tensor, *arguments, **options):
            assert any(tensor is other for other in there), "a tensor of the CPU"
            return exchange(tensor, *arguments, **options)

        return checked

    x, y = spaces("bert")
    with torch.inference_mode():  # as the comparison of encoders takes them
        sums = CrossMoments(2, 2).update(x, y)
    expected = CrossMoments(2, 2).update(x, y)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        monkeypatch.setattr(torch.Tensor, "cuda", cuda)
        monkeypatch.setattr(dist, "get_backend", lambda group: "nccl")
        monkeypatch.setattr(dist, "broadcast", on_gpu(dist.broadcast))
        monkeypatch.setattr(dist, "all_reduce", on_gpu(dist.all_reduce))
        sums.all_reduce()
    finally:
        dist.destroy_process_group()
    assert len(sums) == 60
    assert len(there) == 8  # two means and six sums
    assert torch.equal(sums.rsa(), expected.rsa())


def test_all_against_all():
    x, _ = spaces("bert", layers=3)
    _, y = spaces("bert", layers=2, seed=1)
    moments = stream(x, y, "cosine", pairs="all")
    expected = [[brute_rsa(a, b, "cosine") for b in y] for a in x]
    assert moments.rsa().numpy() == pytest.approx(np.array(expected), abs=1e-11)
    assert moments.cka().shape == (3, 2)
    assert [t.shape for t in moments.anisotropy()] == [(3,), (2,)]


def test_metrics_may_differ_between_the_spaces():
    x, y = spaces("bert")
    value = stream(x, y, ("cosine", "sqeuclidean")).rsa()[0].item()
    assert value == pytest.approx(brute_rsa(x[0], y[0], "cosine", metric_y="sqeuclidean"), abs=1e-11)


def test_save_and_load(tmp_path):
    x, y = spaces("bert")
    moments = stream(x[:, :30], y[:, :30], "cosine")
    moments.save(tmp_path / "sums.safetensors")
    again = CrossMoments.load(tmp_path / "sums.safetensors", expect=CrossMoments(2, 2, "cosine"))
    for part in (moments, again):
        part.update(x[:, 30:], y[:, 30:])
    assert torch.equal(again.rsa(), moments.rsa()) and torch.equal(again.cka(), moments.cka())
    CrossMoments(2, 2).save(tmp_path / "empty.safetensors")
    assert len(CrossMoments.load(tmp_path / "empty.safetensors")) == 0
    with pytest.raises(BertftError, match="expected sums of"):
        CrossMoments.load(tmp_path / "sums.safetensors", expect=CrossMoments(2, 2, "dot"))
    with pytest.raises(BertftError, match="no such file"):
        CrossMoments.load(tmp_path / "absent.safetensors")
    (tmp_path / "other").write_text("not sums")
    with pytest.raises(BertftError, match="not a safetensors file"):
        CrossMoments.load(tmp_path / "other")


WORKER = """
import sys, torch, torch.distributed as dist
from safetensors.torch import load_file
from bertft.similarity import CrossMoments
rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=3)
moments = CrossMoments(2, 2, "cosine")
if rank:  # process 0 has no stimuli
    data, part = load_file(f"{folder}/data.safetensors"), slice(0, 25) if rank == 1 else slice(25, None)
    moments.update(data["x"][:, part], data["y"][:, part])
moments.all_reduce().save(f"{folder}/{rank}.safetensors")
dist.destroy_process_group()
"""


def test_all_reduce_equals_one_process(tmp_path):
    x, y = spaces("rogue")
    save_file({"x": x, "y": y}, tmp_path / "data.safetensors")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(rank), port, str(tmp_path)]) for rank in range(3)]
    assert [worker.wait(timeout=240) for worker in workers] == [0, 0, 0]
    one = stream(x, y, "cosine")
    for rank in range(3):
        moments = CrossMoments.load(tmp_path / f"{rank}.safetensors")
        assert len(moments) == 60
        torch.testing.assert_close(moments.rsa(), one.rsa(), rtol=1e-12, atol=0)
        torch.testing.assert_close(moments.cka(), one.cka(), rtol=1e-12, atol=0)


def test_bad_input():
    x, y = spaces("plain")
    with pytest.raises(BertftError, match="metric must be one of dot, cosine"):
        CrossMoments(2, 2, "euclidean")
    with pytest.raises(BertftError, match="pairs must be"):
        CrossMoments(2, 2, pairs="some")
    with pytest.raises(BertftError, match="as many on both"):
        CrossMoments(2, 3)
    with pytest.raises(BertftError, match="same stimuli, found 60 and 59"):
        CrossMoments(2, 2).update(x, y[:, 1:])
    with pytest.raises(BertftError, match=r"x must be float of shape \(2, n, D\)"):
        CrossMoments(2, 2).update(x[:1], y[:1])
    moments = CrossMoments(2, 2).update(x, y)
    with pytest.raises(BertftError, match=r"y must be float of shape \(2, n, 9\)"):
        moments.update(x, y[..., :5])
    with pytest.raises(BertftError, match=r"merge: expected \{"):
        moments.merge(CrossMoments(2, 2, "dot").update(x, y))
    with pytest.raises(BertftError, match="widths"):
        moments.merge(CrossMoments(2, 2).update(x, y[..., :5]))
    with pytest.raises(BertftError, match="at least 3 stimuli, found 0"):
        CrossMoments(2, 2).rsa()
    with pytest.raises(BertftError, match="at least 3 stimuli, found 2"):
        CrossMoments(2, 2).update(x[:, :2], y[:, :2]).rsa()
    with pytest.raises(BertftError, match="at least 4 stimuli, found 3"):
        CrossMoments(2, 2).update(x[:, :3], y[:, :3]).cka()
    with pytest.raises(BertftError, match="anisotropy: needs metric 'cosine'"):
        CrossMoments(2, 2, "dot").update(x, y).anisotropy()
    with pytest.raises(BertftError, match="not initialised"):
        moments.all_reduce()


@pytest.mark.parametrize("bad", [0.0, math.nan])
def test_a_row_without_direction_is_named(bad):
    x, y = spaces("plain")
    x[1, 17] = bad
    with pytest.raises(BertftError, match=r"row 17 of x in layer 1 "):
        CrossMoments(2, 2, "cosine").update(x, y)
    for pairs in ("diagonal", "all"):
        with pytest.raises(BertftError, match=r"row 17 of y in layer 1 "):
            CrossMoments(2, 2, "cosine", pairs).update(y, x)


def test_a_constant_matrix_gives_nan_not_noise():
    x, y = spaces("plain", n=5, d=5)
    x[:] = torch.eye(5)
    assert torch.isnan(stream(x, y, "cosine").rsa()).all()


def test_only_the_sums_of_what_was_asked_are_kept():
    def sets(*measures: str) -> list[str]:
        return list(Comparison(Plan(measures=measures), {"a": (2, 2)}).sums["a"])

    assert sets("rsa") == sets("anisotropy") == ["cosine"] and sets("cca") == sets("cka") == ["dot"]
    assert sets("rsa", "cka", "cca") == ["cosine", "dot"]
