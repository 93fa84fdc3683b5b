"""Structural-probe losses.

Values, gradients, compile, properties and bad input.
"""

from __future__ import annotations

import pytest
import torch
from probe_problems import BATCHES, brute_force, leaves, problem

from bertft.errors import BertftError
from bertft.ops import depth_probe_loss, distance_probe_loss, probe_loss, probe_loss_and_gradient, reference
from bertft.ops.native import cpu, dispatch


@pytest.fixture(autouse=True, scope="module")
def compiled():
    assert cpu.load(), cpu.status()["reason"]


@pytest.mark.parametrize("lengths", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_values(lengths, dtype, tolerance):
    args = problem(lengths, dtype=dtype)
    expected = brute_force(*args)
    both = probe_loss(*args)
    assert both.dtype == dtype
    torch.testing.assert_close(both.double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(reference.probe_loss(*args).double(), expected, rtol=tolerance, atol=tolerance)
    h, weight_distance, weight_depth, distances, depths, n = args
    torch.testing.assert_close(distance_probe_loss(h, weight_distance, distances, n), both[:, 0])
    torch.testing.assert_close(depth_probe_loss(h, weight_depth, depths, n), both[:, 1])


@pytest.mark.parametrize("lengths", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 3e-6)])
def test_gradients_equal_those_of_the_reference(lengths, dtype, tolerance):
    args = problem(lengths, dtype=dtype)
    upstream = torch.tensor([[1.0, -0.5], [0.25, 3.0]], dtype=torch.float64)
    inputs = leaves(*args[:3])
    found = torch.autograd.grad((probe_loss(*inputs, *args[3:]) * upstream.to(dtype)).sum(), inputs)
    exact = leaves(*(t.double() for t in args[:3]))
    expected = torch.autograd.grad((reference.probe_loss(*exact, *args[3:]) * upstream).sum(), exact)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        error = (a.double() - b).norm() / b.norm().clamp_min(1e-30)
        assert error <= tolerance or b.norm() < 1e-12


@pytest.mark.parametrize("served", [True, False], ids=["kernel", "reference"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_loss_and_gradient_in_one_call(served, dtype, monkeypatch):
    h, wd, wp, distances, depths, lengths = problem([9, 0, 4], dtype=dtype)
    weight = torch.cat([wd, wp], dim=2).requires_grad_()
    expected = probe_loss(h, wd.requires_grad_(), wp.requires_grad_(), distances, depths, lengths)
    gradients = torch.autograd.grad(expected.sum(), [wd, wp])
    if not served:
        monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    loss, gradient = probe_loss_and_gradient(h, weight, distances, depths, lengths, distance_rank=13)
    assert not loss.requires_grad and not gradient.requires_grad and gradient.dtype == dtype
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.cat(gradients, dim=2))
    loss, gradient = probe_loss_and_gradient(h, wd, distances, None, lengths)
    torch.testing.assert_close(loss[:, 0], expected[:, 0].detach())
    assert not loss[:, 1].any()
    torch.testing.assert_close(gradient, gradients[0])
    loss, gradient = probe_loss_and_gradient(h, wp, None, depths, lengths)
    assert not loss[:, 0].any()
    torch.testing.assert_close(gradient, gradients[1])
    for golds, rank in [
        ((distances, depths), None),
        ((None, depths), 3),
        ((distances, None), 3),
        ((distances, None), 99),
    ]:
        with pytest.raises(BertftError, match="probe_loss: d"):
            probe_loss_and_gradient(h, weight, *golds, lengths, distance_rank=rank)


@pytest.mark.parametrize("op", ["distance", "depth", "both"])
def test_gradcheck(op):
    h, wd, wp, distances, depths, lengths = problem([3, 1, 5, 0, 2], D=4, R=3, R2=2)
    h, wd, wp = leaves(h, wd, wp)
    call = {
        "distance": (lambda h, w: distance_probe_loss(h, w, distances, lengths), (h, wd)),
        "depth": (lambda h, w: depth_probe_loss(h, w, depths, lengths), (h, wp)),
        "both": (lambda h, w, v: probe_loss(h, w, v, distances, depths, lengths), (h, wd, wp)),
    }[op]
    assert torch.autograd.gradcheck(*call)


WANTED = [(True, True), (True, False), (False, True), (False, False)]


@pytest.mark.parametrize(
    ("wanted", "distance_rank", "kind"),
    [*((wanted, rank, -1) for rank in (0, 4, 9) for wanted in WANTED), ((True, True), 4, 0), ((True, True), 4, 1)],
)
def test_opcheck(wanted, distance_rank, kind):
    h, wd, wp, distances, depths, lengths = problem([3, 1, 5, 0, 2], D=4, R=5, R2=4)
    weight = torch.cat([wd, wp], dim=2)
    h.requires_grad_(wanted[1])
    weight.requires_grad_(wanted[0])
    args = (h, weight, distance_rank, distances.double(), depths.double(), lengths, *wanted, False, kind, True)
    torch.library.opcheck(torch.ops.bertft.probe_loss.default, args)


def test_a_single_kind_of_the_op_takes_all_columns():
    h, wd, _, distances, depths, lengths = problem([3, 1, 5, 0, 2])
    golds, whole = (distances.double(), depths.double(), lengths), wd.shape[2]
    for kind, rank in ((0, whole), (1, 0)):
        both = torch.ops.bertft.probe_loss(h, wd, rank, *golds, True, True, False)
        alone = torch.ops.bertft.probe_loss(h, wd, whole - 1, *golds, True, True, False, kind)
        assert torch.equal(alone[0], both[0][:, kind])
        assert torch.equal(alone[1], both[1]) and torch.equal(alone[2], both[2])
    with pytest.raises(RuntimeError, match="kind must be -1, 0 or 1"):
        torch.ops.bertft.probe_loss(h, wd, whole, *golds, True, True, False, 2)


def test_the_op_refuses_a_loss_that_is_not_finite_if_asked():
    h, wd, _, distances, depths, lengths = problem([3, 4])
    h[1, 5, 2] = float("inf")
    args = (h, wd, wd.shape[2], distances.double(), depths.double(), lengths, True, False, False)
    for kind in (-1, 0):
        with pytest.raises(RuntimeError, match="a loss of layer 1 is not finite"):
            torch.ops.bertft.probe_loss(*args, kind, True)
        assert not torch.isfinite(torch.ops.bertft.probe_loss(*args, kind)[0][1].sum())


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_words_of_a_double_weight_are_widened_exactly(half):
    h, wd, _, distances, _, lengths = problem([9, 4])
    h, results = h.to(half), []
    for words in (h, h.double()):
        weight = wd.clone().requires_grad_()
        loss = distance_probe_loss(words, weight, distances, lengths)
        results.append((loss, *torch.autograd.grad(loss.sum(), weight)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_compile_fullgraph():
    args = problem([3, 1, 5, 0, 2], dtype=torch.float32)
    inputs = leaves(*args[:3])

    def loss(h, wd, wp):
        return (probe_loss(h * 1.5, wd, wp, *args[3:]) * 2).sum()

    expected = torch.autograd.grad(loss(*inputs), inputs)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), loss(*inputs))
    for a, b in zip(torch.autograd.grad(compiled(*inputs), inputs), expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_accumulated_in_float32(dtype):
    args = problem([30, 7, 12])
    h = args[0].to(dtype).requires_grad_()
    weights = [w.float().requires_grad_() for w in args[1:3]]
    found = probe_loss(h, *weights, *args[3:])
    exact = leaves(h.double(), *(w.double() for w in weights))
    expected = reference.probe_loss(*exact, *args[3:])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    gradients = torch.autograd.grad(found.sum(), [h, *weights])
    for a, b, tolerance in zip(gradients, torch.autograd.grad(expected.sum(), exact), (4e-3, 2e-6, 2e-6), strict=True):
        assert (a.double() - b).norm() <= tolerance * b.norm()
    assert gradients[0].dtype == dtype


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32, torch.float64])
def test_types_of_the_golds(dtype):
    *head, distances, depths, lengths = problem([30, 7, 12])
    expected = probe_loss(*head, distances, depths, lengths)
    torch.testing.assert_close(probe_loss(*head, distances.to(dtype), depths.to(dtype), lengths), expected)


def test_strides_do_not_matter():
    h, *rest = problem([9, 4, 20])
    expected = probe_loss(h, *rest)
    L, T, D = h.shape
    layouts = {
        "words first": h.transpose(0, 1).contiguous().transpose(0, 1),
        "dims first": h.transpose(1, 2).contiguous().transpose(1, 2),
        "wider rows": torch.cat([h, h], dim=2)[..., :D],
        "every other row": torch.stack([h, h], dim=2).view(L, 2 * T, D)[:, ::2],
        "every other dim": torch.stack([h, h], dim=3).view(L, T, 2 * D)[..., ::2],
    }
    for name, layout in layouts.items():
        torch.testing.assert_close(probe_loss(layout, *rest), expected, rtol=1e-13, atol=0, msg=name)
    weights = [w.transpose(1, 2).contiguous().transpose(1, 2) for w in rest[:2]]
    torch.testing.assert_close(probe_loss(h, *weights, *rest[2:]), expected, rtol=1e-13, atol=0)


def test_one_set_of_vectors_for_all_layers():
    h, wd, wp, *rest = problem([9, 4])
    flat, shared = h[0].clone().requires_grad_(), h[:1].expand(2, -1, -1)
    found = probe_loss(flat, wd, wp, *rest)
    assert torch.equal(found, probe_loss(shared, wd, wp, *rest))
    (grad,) = torch.autograd.grad(found.sum(), flat)
    exact = flat.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad(reference.probe_loss(exact.expand(2, -1, -1), wd, wp, *rest).sum(), exact)
    torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0]])
def test_losses_without_words_are_zero(lengths):
    args = problem(lengths)
    inputs = leaves(*args[:3])
    loss = probe_loss(*inputs, *args[3:])
    assert torch.equal(loss, torch.zeros(2, 2, dtype=torch.float64))
    for grad, tensor in zip(torch.autograd.grad(loss.sum(), inputs), inputs, strict=True):
        assert torch.equal(grad, torch.zeros_like(tensor))


def test_no_layers():
    h, wd, wp, *rest = problem([3, 4])
    assert probe_loss(h[:0], wd[:0], wp[:0], *rest).shape == (0, 2)


def test_equal_words_have_finite_gradients():
    h, wd, wp, distances, depths, lengths = problem([6, 4])
    h[:] = h[:, :1]
    inputs = leaves(h, wd, wp)
    loss = probe_loss(*inputs, torch.zeros_like(distances), torch.zeros_like(depths), lengths)
    assert loss[:, 0].abs().max() < 1e-12
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss.sum(), inputs))


def test_losses_ignore_probe_rotation_and_sentence_order():
    h, wd, _, distances, _, lengths = problem([5, 9])
    rotation = torch.linalg.qr(torch.randn(13, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    expected = distance_probe_loss(h, wd, distances, lengths)
    torch.testing.assert_close(distance_probe_loss(h, wd @ rotation, distances, lengths), expected)
    swapped = distance_probe_loss(
        torch.cat([h[:, 5:], h[:, :5]], 1), wd, torch.cat([distances[25:], distances[:25]]), lengths.flip(0)
    )
    torch.testing.assert_close(swapped, expected)


def test_golds_need_not_be_symmetric():
    h, wd, _, distances, _, lengths = problem([7, 18])
    distances = torch.randint(0, 9, distances.shape, generator=torch.Generator().manual_seed(2))
    inputs, exact = leaves(h, wd), leaves(h, wd)
    found = torch.autograd.grad(distance_probe_loss(*inputs, distances, lengths).sum(), inputs)
    expected = torch.autograd.grad(reference.distance_probe_loss(*exact, distances, lengths).sum(), exact)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_and_pieces(threads):
    """Threads share remaining layers, and long inputs are cut into pieces: 2,300 words, 1 and 3 layers."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for L in (1, 3):
            args = problem([40] * 30 + [1100], L=L, D=8, R=5, R2=2)
            inputs, exact = leaves(*args[:3]), leaves(*args[:3])
            first = [probe_loss(*inputs, *args[3:]) for _ in range(2)]
            assert torch.equal(*first)
            grads = [torch.autograd.grad(loss.sum(), inputs) for loss in first]
            assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
            expected = reference.probe_loss(*exact, *args[3:])
            torch.testing.assert_close(first[0], expected, rtol=1e-11, atol=1e-11)
            for a, b in zip(grads[0], torch.autograd.grad(expected.sum(), exact), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    finally:
        torch.set_num_threads(before)


def test_reference_serves_other_devices_and_missing_kernels(monkeypatch):
    args = problem([9, 4])
    expected = probe_loss(*args)
    monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    torch.testing.assert_close(probe_loss(*args), expected)
    h, wd, wp, distances, depths, lengths = args
    torch.testing.assert_close(distance_probe_loss(h, wd, distances, lengths), expected[:, 0])
    torch.testing.assert_close(depth_probe_loss(h, wp, depths, lengths), expected[:, 1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite(value):
    h, *rest = problem([9, 4, 1])
    h[1, 11, 3] = value
    with pytest.raises(BertftError, match=r"h\[1, 11\] is not finite"):
        probe_loss(h, *rest)
    passed = probe_loss(h, *rest, check_finite=False)
    assert torch.isfinite(passed[0]).all() and not torch.isfinite(passed[1]).any()
    h[1, 11, 3], h[0, 13, 0] = 0, value  # a sentence of one word
    with pytest.raises(BertftError, match=r"h\[0, 13\] is not finite"):
        distance_probe_loss(h, rest[0], rest[2], rest[4])
    h[0, 13, 0] = 0
    rest[0][1, 2, 0] = value
    with pytest.raises(BertftError, match=r"weight\[1, 2\] is not finite"):
        probe_loss(h, *rest)


def test_overflow_is_named():
    h, *rest = problem([9, 4], dtype=torch.float32)
    with pytest.raises(BertftError, match="layer 0 overflows"):
        probe_loss(h * 1e30, *rest)


BAD = {
    "weight must be .L, D, R.": lambda a: a | {"weight": a["weight"][0]},
    "h must be": lambda a: a | {"h": a["h"][..., :-1]},
    r"h must be \(T, \d+\) or \(\d+, T, \d+\) to go with weight, found \(9,": lambda a: (
        a | {"h": a["h"][:1].expand(9, -1, -1)}
    ),
    "must be floating": lambda a: a | {"h": a["h"].long()},
    "lengths must be a vector of integers": lambda a: a | {"lengths": a["lengths"].double()},
    r"lengths\[1\] is negative": lambda a: a | {"lengths": torch.tensor([10, -1, 4])},
    "lengths sum to 12, but h has 13 words": lambda a: a | {"lengths": torch.tensor([9, 3])},
    r"distances must have 97 entries .* found 96": lambda a: a | {"distances": a["distances"][:-1]},
    "distances must be packed": lambda a: a | {"distances": a["distances"][None]},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    h, weight, _, distances, _, lengths = problem([9, 4])
    args = BAD[message]({"h": h, "weight": weight, "distances": distances, "lengths": lengths})
    with pytest.raises(BertftError, match=message):
        distance_probe_loss(**args)


def test_bad_depths_and_weights():
    h, wd, wp, distances, depths, lengths = problem([9, 4])
    with pytest.raises(BertftError, match=r"depths must be \(13,\)"):
        depth_probe_loss(h, wp, depths[1:], lengths)
    with pytest.raises(BertftError, match="same L and D"):
        probe_loss(h, wd[:1], wp, distances, depths, lengths)


def test_the_kernel_itself_refuses_lengths_that_do_not_fit():
    """torch.compile cannot check values beforehand, so the kernel must protect the memory."""
    h, wd, wp, distances, depths, _ = problem([9, 4])
    args = (h, torch.cat([wd, wp], 2), 13, distances.double(), depths.double())
    for bad in ([9, 3], [9, -1, 5], [13]):
        with pytest.raises(RuntimeError, match="probe_loss: "):
            torch.ops.bertft.probe_loss(*args, torch.tensor(bad), False, False, False)


def test_golds_of_another_device_are_refused_by_name():
    h, weight, lengths = torch.randn(1, 3, 4), torch.randn(1, 4, 2), torch.tensor([3])
    with pytest.raises(BertftError, match="distances must be on the device of h, cpu, found meta"):
        distance_probe_loss(h, weight, torch.zeros(9, device="meta"), lengths)
