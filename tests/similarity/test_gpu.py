"""Similarity of vectors on a GPU: equal to that on the CPU."""

from __future__ import annotations

import pytest
import torch

from bertft.data import synthetic
from bertft.errors import BertftError
from bertft.models.blocks import reinitialise
from bertft.models.encoder import Encoder
from bertft.similarity import CrossMoments, compare_stream, local_rsa, mutual_knn, rbf_cka, rsa
from bertft.similarity.compare.plan import Plan


def draw(*shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random) + 2 * torch.randn(shape[0], 1, shape[-1], generator=random)


def fed(pairs: str, device: str, chunks: int = 3) -> CrossMoments:
    x, y = draw(2, 90, 20), draw(2, 90, 12, seed=1)
    sums = CrossMoments(2, 2, "cosine", pairs)
    for a, b in zip(x.chunk(chunks, 1), y.chunk(chunks, 1), strict=True):
        sums.update(a.to(device), b.to(device))
    return sums


@pytest.mark.gpu
@pytest.mark.parametrize("pairs", ["diagonal", "all"])
def test_gpu_sums_equal_cpu_sums(pairs, tmp_path):
    there, here = fed(pairs, "cuda"), fed(pairs, "cpu")
    assert len(there) == len(here) == 90
    torch.testing.assert_close(there.rsa(), here.rsa(), rtol=0, atol=1e-6)
    torch.testing.assert_close(there.cka(), here.cka(), rtol=0, atol=1e-6)
    there.save(tmp_path / "sums.safetensors")
    torch.testing.assert_close(CrossMoments.load(tmp_path / "sums.safetensors").rsa(), there.rsa(), rtol=0, atol=0)
    more = draw(2, 30, 20, seed=2), draw(2, 30, 12, seed=3)
    there.merge(here).update(*(t.cuda() for t in more))  # sums fetched to the CPU return to the GPU
    here.merge(fed(pairs, "cpu")).update(*more)
    assert len(there) == len(here) == 210
    torch.testing.assert_close(there.rsa(), here.rsa(), rtol=0, atol=1e-6)


@pytest.mark.gpu
def test_reading_the_sums_does_not_change_later_ones():
    """Checkpoints of a stream fetch the sums; later sums are the same to the bit."""
    plain, looked_at = CrossMoments(2, 2), CrossMoments(2, 2)
    for seed in range(4):
        x, y = draw(2, 50, 20, seed=seed).cuda(), draw(2, 50, 12, seed=seed + 9).cuda()
        plain.update(x, y)
        looked_at.update(x, y)
        looked_at.restore({name: tensor.clone() for name, tensor in looked_at.state.items()})
    assert all(torch.equal(plain.state[name], looked_at.state[name]) for name in plain.state)


@pytest.mark.gpu
@pytest.mark.parametrize("pairs", ["diagonal", "all"])
def test_sums_that_do_not_fit_stay_on_the_cpu(pairs, monkeypatch):
    here = fed(pairs, "cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8, 8))
    there = fed(pairs, "cuda")
    assert not there._sums.on_gpu
    torch.testing.assert_close(there.rsa(), here.rsa(), rtol=0, atol=1e-9)


@pytest.mark.gpu
def test_measures_of_rows_on_the_gpu():
    x, y, groups = draw(1, 60, 20), draw(1, 60, 12, seed=1), torch.arange(60) // 4
    sums = fed("diagonal", "cpu")
    rows = draw(2, 90, 20), draw(2, 90, 12, seed=1)
    for function, arguments in (
        (local_rsa, (sums, *rows)),
        (lambda *own: rbf_cka(own[0][0], own[1][0], groups=groups)[0], (x, y)),
        (lambda *own: mutual_knn(own[0][0], own[1][0]), (x, y)),
        (lambda *own: torch.tensor(rsa(own[0][0], own[1][0], "cosine", "spearman").estimate), (x, y)),
    ):
        here = function(*arguments)
        there = function(*(t.cuda() if isinstance(t, torch.Tensor) else t for t in arguments))
        torch.testing.assert_close(torch.as_tensor(there).cpu(), torch.as_tensor(here), rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_rows_of_two_devices_are_refused():
    with pytest.raises(BertftError, match="x and y must be on one device, found cuda:0 and cpu"):
        CrossMoments(2, 2).update(draw(2, 9, 5).cuda(), draw(2, 9, 5))


@pytest.mark.gpu
def test_a_stream_on_the_gpu_equals_that_on_the_cpu(tiny_model):
    texts = synthetic.sentences(60, seed=4)
    plan = Plan(measures=("rsa", "cka", "procrustes", "mutual_knn"), sample=400)
    tables = []
    for device in ("cuda", "cpu"):
        base = Encoder.from_pretrained(str(tiny_model), device=device)
        other = Encoder(reinitialise(base.model, 3).to(device), base.tokenizer, "other")
        tables.append(compare_stream(base, {"other": other}, texts, plan))
    assert len(tables[0]) == len(tables[1]) > 8
    for there, here in zip(*tables, strict=True):
        assert (there.measure, there.layer, there.n) == (here.measure, here.layer, here.n)
        assert there.value == pytest.approx(here.value, abs=2e-3 if "knn" in there.measure else 1e-4)
