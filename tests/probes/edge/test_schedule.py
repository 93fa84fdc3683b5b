"""The optimiser and schedule of edge probes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertft.probes.edge.head import Heads, Input
from bertft.probes.edge.schedule import Schedule


def test_each_probe_has_its_own_rate_and_stop():
    heads = Heads([Input("layer", 0), Input("layer", 1)], 2, 4, 1, 2, seed=0)
    schedule = Schedule(heads, 1e-3)
    for number in range(1, 23):
        f1 = np.array([0.5, number / 100])[list(schedule.active)]
        schedule.end_validation(number, f1)
    assert schedule.rates.tolist() == pytest.approx(
        [1e-3 / 8, 1e-3]
    )  # after 6, 12 and 18 validations without an improvement
    assert schedule.active == [1] and schedule.steps.tolist() == [21, 22]
    assert schedule.highest.tolist() == [0.5, 0.22]


def test_gradients_are_clipped_probe_by_probe():
    heads = Heads([Input("layer", 0), Input("layer", 1)], 2, 4, 1, 2, seed=0)
    schedule = Schedule(heads, 1e-3)
    gradients = {name: torch.zeros_like(t) for name, t in heads.tensors.items()}
    gradients["out"][0, 0, 0], gradients["out"][1, 0, 0] = 500.0, 3.0
    schedule.step(schedule.groups[0], gradients)
    assert gradients["out"][:, 0, 0].tolist() == pytest.approx([5.0, 3.0])


def test_steps_equal_those_of_adam_at_the_rate_of_each_probe():
    heads = Heads([Input("layer", 0), Input("cat", 1), Input("mix", 1)], 2, 4, 2, 3, seed=0)
    schedule = Schedule(heads, 1e-3)
    schedule.rates[:] = 1e-3, 1e-2, 1e-3
    schedule.end_validation(1, np.zeros(3))  # from here on in runs of one rate
    plain = [[heads.tensors[n][heads.rows(n, p)].clone() for n in heads.tensors] for p in range(3)]
    optimizer = torch.optim.Adam([{"params": own, "lr": schedule.rates[p]} for p, own in enumerate(plain)])
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        gradients = {n: torch.randn(t.shape, generator=generator) for n, t in heads.tensors.items()}
        for p, own in enumerate(plain):
            for parameter, name in zip(own, heads.tensors, strict=True):
                parameter.grad = gradients[name][heads.rows(name, p)].clone()
            torch.nn.utils.clip_grad_norm_(own, 5.0)
        optimizer.step()
        for group in schedule.groups:
            schedule.step(group, gradients)
        schedule.taken += 1
    for p, own in enumerate(plain):
        for parameter, name in zip(own, heads.tensors, strict=True):
            torch.testing.assert_close(heads.tensors[name][heads.rows(name, p)], parameter, rtol=1e-5, atol=1e-7)


def test_passes_have_as_many_probes_as_memory_allows():
    from bertft.probes.edge.schedule import together

    probes = list(range(14))
    assert [len(g) for g in together(probes, torch.device("cpu"), 10**6)] == [4, 4, 4, 2]
    assert [len(g) for g in together(probes, torch.device("cuda"), 600)] == [14]
    assert [len(g) for g in together([*probes[:3], *probes[5:]], torch.device("cuda"), 600)] == [3, 9]
    assert {len(g) for g in together(probes, torch.device("cuda"), 100_000)} == {2}
    assert {len(g) for g in together(probes, torch.device("cuda"), 10**7)} == {1}
