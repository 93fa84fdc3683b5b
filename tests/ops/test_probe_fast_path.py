"""Which arguments of probe losses go to the CPU's kernel at once, and that the others have the same losses."""

from __future__ import annotations

import importlib

import pytest
import torch
from probe_problems import problem

from bertft.errors import BertftError
from bertft.ops.native import cpu, dispatch
from bertft.ops.probe_checks import explain_not_finite
from bertft.ops.probe_loss import (
    _fit_the_kernel,
    depth_probe_loss,
    distance_probe_loss,
    probe_loss,
    probe_loss_and_gradient,
)

TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.fixture(autouse=True, scope="module")
def compiled():
    assert cpu.load(), cpu.status()["reason"]


def fits(precision="float32", **changed):
    h, weight, _, distances, depths, lengths = problem([3, 2], dtype=torch.float32)
    arguments = {"h": h, "weight": weight, "distances": distances, "depths": depths, "lengths": lengths}
    return _fit_the_kernel(*(arguments | changed).values(), precision)


def test_one_target_is_enough():
    assert fits() and fits(distances=None) and fits(depths=None) and fits(distances=None, depths=None)


@pytest.mark.parametrize("name", ["h", "weight", "distances", "depths", "lengths"])
def test_tensors_of_another_device_do_not_fit(name):
    assert not fits(**{name: torch.zeros(1, dtype=torch.int64 if name == "lengths" else torch.float32, device="meta")})


def test_lengths_are_int64():
    assert not fits(lengths=torch.tensor([3, 2], dtype=torch.int32))


@pytest.mark.parametrize("weight", TYPES)
@pytest.mark.parametrize("h", TYPES)
def test_halves_go_with_either_weight_and_other_words_with_their_own(h, weight):
    found = fits(h=torch.zeros(2, 5, 19, dtype=h), weight=torch.zeros(2, 19, 13, dtype=weight))
    wide = weight in (torch.float32, torch.float64)
    assert found == (wide and (h is weight or h in (torch.bfloat16, torch.float16)))


@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("dims", [2, 3])
def test_words_shared_by_all_layers_have_no_gradient_there(dims, requires_grad):
    h = torch.zeros((2, 5, 19)[-dims:], requires_grad=requires_grad)
    assert fits(h=h) == (dims == 3 or not requires_grad)


def test_float64_products_of_float32_do_not_fit():
    assert fits("fast") and not fits("float64") and not fits("unknown")


def test_a_graph_that_is_traced_or_a_missing_kernel_does_not_fit(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert not fits()
    monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    assert not fits()


@pytest.mark.parametrize("gold", [torch.uint8, torch.int64, torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_paths_have_the_same_losses_to_the_bit(dtype, gold, monkeypatch):
    h, weight, _, distances, depths, lengths = problem([5, 1, 7], dtype=dtype)
    calls = (
        lambda: distance_probe_loss(h, weight, distances.to(gold), lengths),
        lambda: depth_probe_loss(h, weight, depths.to(gold), lengths),
    )
    quick = [call() for call in calls]
    monkeypatch.setattr(importlib.import_module("bertft.ops.probe_loss"), "_fit_the_kernel", lambda *_: False)
    assert all(torch.equal(found, call()) for found, call in zip(quick, calls, strict=True))
    assert all(found.dtype == dtype for found in quick)


def test_words_shared_by_all_layers_need_no_kernel(monkeypatch):
    h, weight, _, distances, _, lengths = problem([5, 1, 7])
    expected = distance_probe_loss(h[:1].expand(2, -1, -1), weight, distances, lengths)
    monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    torch.testing.assert_close(distance_probe_loss(h[0], weight, distances, lengths), expected)


def test_the_bad_input_is_named_after_those_of_integers():
    h, weight, _, distances, _, lengths = problem([3, 2])
    weight[1, 4, 0] = torch.nan
    with pytest.raises(BertftError, match=r"probe_loss: weight\[1, 4\] is not finite$"):
        distance_probe_loss(h, weight, distances, lengths)
    with pytest.raises(BertftError, match=r"op: b\[1\] is not finite \(and 1 more\)"):
        explain_not_finite("op", weight, a=distances, b=torch.tensor([0.0, torch.inf, torch.nan]))


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("checked", [True, False])
def test_a_loss_that_is_not_finite_is_refused_or_passes_on_either_path(checked, quick, monkeypatch):
    h, weight, _, distances, depths, lengths = problem([3, 2])
    h[1, 4, 0] = torch.nan
    if not quick:
        monkeypatch.setattr(importlib.import_module("bertft.ops.probe_loss"), "_fit_the_kernel", lambda *_: False)
    for call in (
        lambda: distance_probe_loss(h, weight, distances, lengths, check_finite=checked),
        lambda: depth_probe_loss(h, weight, depths, lengths, check_finite=checked),
        lambda: probe_loss(h, weight, weight, distances, depths, lengths, check_finite=checked)[:, 0],
    ):
        if checked:
            with pytest.raises(BertftError, match=r"h\[1, 4\] is not finite"):
                call()
        else:
            assert call().isnan().tolist() == [False, True]


@pytest.mark.parametrize("distance_rank", [0, 4, 13])
def test_a_step_with_all_columns_of_one_kind_has_no_other_loss(distance_rank, monkeypatch):
    h, weight, _, distances, depths, lengths = problem([5, 0, 3])
    found = probe_loss_and_gradient(h, weight, distances, depths, lengths, distance_rank=distance_rank)
    first, second = weight[..., :distance_rank], weight[..., distance_rank:]
    zero = torch.zeros(2, dtype=torch.float64)
    of_distances = distance_probe_loss(h, first, distances, lengths) if distance_rank else zero
    of_depths = depth_probe_loss(h, second, depths, lengths) if distance_rank < 13 else zero
    torch.testing.assert_close(found[0], torch.stack([of_distances, of_depths], 1))
    monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    plain = probe_loss_and_gradient(h, weight, distances, depths, lengths, distance_rank=distance_rank)
    for a, b in zip(found, plain, strict=True):
        torch.testing.assert_close(a, b)
        assert not b.requires_grad


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((True, True, None), "distance_rank is needed unless exactly one"),
        ((False, False, None), "distance_rank is needed unless exactly one"),
        ((True, True, -1), "distance_rank -1 does not match"),
        ((True, True, 14), "distance_rank 14 does not match"),
        ((False, True, 1), "distance_rank 1 does not match"),
        ((True, False, 12), "depths are needed for the columns of weight from 12 on"),
    ],
)
def test_ranks_that_do_not_match_the_golds_are_refused(arguments, words):
    h, weight, _, distances, depths, lengths = problem([3, 2])
    with_distances, with_depths, rank = arguments
    golds = distances if with_distances else None, depths if with_depths else None
    with pytest.raises(BertftError, match=words):
        probe_loss_and_gradient(h, weight, *golds, lengths, distance_rank=rank)


def test_one_kind_of_golds_takes_all_columns():
    h, weight, _, distances, depths, lengths = problem([3, 2])
    loss, _ = probe_loss_and_gradient(h, weight, distances, None, lengths)
    torch.testing.assert_close(loss[:, 0], distance_probe_loss(h, weight, distances, lengths))
    assert not loss[:, 1].any()
    loss, _ = probe_loss_and_gradient(h, weight, None, depths, lengths)
    torch.testing.assert_close(loss[:, 1], depth_probe_loss(h, weight, depths, lengths))
    assert not loss[:, 0].any()
