"""Optimiser and schedule of edge probes.

They treat each probe independently.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from bertft.probes.edge.head import Heads

CLIP = 5.0
HALVE_AFTER, STOP_AFTER = 5, 20  # validations without an improvement
COUNTS = ("highest", "since", "plateau", "steps", "rates")  # arrays (P,) of a schedule
# Most probes in one pass. On a CPU the intermediate results of a few stay in the cache. A GPU takes no longer for many,
# as long as a tensor of all their targets (256 floats each) stays below a quarter of a gigabyte.
ON_CPU, ELSEWHERE, TARGETS = 4, 32, 1 << 18


def together(probes: Sequence[int], device: torch.device, targets: int) -> list[list[int]]:
    """Group consecutive ``probes`` into passes; the parameters of consecutive probes need no copy.

    A batch has at most ``targets`` targets.
    """
    most = ON_CPU if device.type == "cpu" else max(1, min(ELSEWHERE, TARGETS // max(targets, 1)))
    groups: list[list[int]] = []
    for probe in probes:
        if groups and groups[-1][-1] == probe - 1 and len(groups[-1]) < most:
            groups[-1].append(probe)
        else:
            groups.append([probe])
    return groups


@dataclass(frozen=True)
class Group:
    """Probes that take their steps together.

    ``owner[name]`` gives for each row of the group's part of a stacked tensor the position of its probe in ``probes``.
    ``runs`` are learning rates with the rows, by tensor, of the probes of that rate: in the whole tensor, and in the
    group's part.
    """

    probes: list[int]
    owner: dict[str, Tensor]
    runs: list[tuple[float, dict[str, tuple[slice, slice]]]]


class Schedule:
    """The schedule of the P probes of ``heads``, whose parameters it changes in place.

    A batch has at most ``targets`` targets.
    """

    def __init__(self, heads: Heads, learning_rate: float, targets: int = 0) -> None:
        self.heads, self.targets = heads, targets
        probes = range(len(heads.inputs))
        self.active = list(probes)
        self.best = {name: t.clone() for name, t in heads.tensors.items()}
        self.highest = np.full(len(probes), -np.inf)
        self.since = np.zeros(len(probes), dtype=int)  # validations since the last improvement
        self.plateau = np.zeros(len(probes), dtype=int)  # validations since the last improvement or change of the rate
        self.steps = np.zeros(len(probes), dtype=int)
        self.rates = np.full(len(probes), learning_rate)
        # Adam's state. An active probe has taken every step so far, so all share one count.
        self.taken = 0
        self.means = {name: torch.zeros_like(t) for name, t in heads.tensors.items()}
        self.squares = {name: torch.zeros_like(t) for name, t in heads.tensors.items()}
        self.groups = self._grouped()

    def _grouped(self) -> list[Group]:
        found = []
        for probes in together(self.active, self.heads.device, self.targets):
            rows = {name: [self.heads.rows(name, probe) for probe in probes] for name in self.heads.tensors}
            owner = {
                name: torch.tensor(
                    [i for i, part in enumerate(parts) for _ in range(part.stop - part.start)], device=self.heads.device
                )
                for name, parts in rows.items()
            }
            runs = []
            for rate, members in itertools.groupby(range(len(probes)), key=lambda i: float(self.rates[probes[i]])):
                chosen = list(members)
                own = {}
                for name, parts in rows.items():
                    start, stop, begin = parts[chosen[0]].start, parts[chosen[-1]].stop, parts[0].start
                    if stop > start:
                        own[name] = slice(start, stop), slice(start - begin, stop - begin)
                runs.append((rate, own))
            found.append(Group(probes, owner, runs))
        return found

    def step(self, group: Group, gradients: dict[str, Tensor]) -> None:
        """Take a step of Adam with a group, each probe's gradients clipped to a norm of `CLIP`.

        The caller increments `taken` once all groups have taken the step.
        """
        gradients = {name: gradient for name, gradient in gradients.items() if len(gradient)}
        squares = torch.zeros(len(group.probes), dtype=torch.float64, device=self.heads.device)
        for name, gradient in gradients.items():
            norms = torch.linalg.vector_norm(gradient.view(len(gradient), -1), dim=1)
            # Tensor by tensor: a probe has at most two rows in each, and the order of two summands makes no difference.
            squares += torch.zeros_like(squares).index_add_(0, group.owner[name], norms.double().square())
        # On a GPU, multiplying by one costs less than waiting for the comparison.
        if squares.is_cuda or float(squares.max()) > CLIP**2:
            factors = (CLIP / squares.sqrt()).clamp(max=1).float()
            for name, gradient in gradients.items():
                gradient *= factors[group.owner[name]].view(-1, *[1] * (gradient.ndim - 1))
        for rate, rows in group.runs:
            parameters, means, squared = (
                [own[name][part] for name, (part, _) in rows.items()]
                for own in (self.heads.tensors, self.means, self.squares)
            )
            slopes = [gradients[name][part] for name, (_, part) in rows.items()]
            steps = list(torch.full((len(rows),), float(self.taken), device=self.heads.device).unbind())
            adam(
                parameters, slopes, means, squared, [], steps,
                fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=rate, weight_decay=0.0, eps=1e-8, maximize=False,
            )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on."""
        found = {
            f"{kind}.{name}": tensor
            for kind, own in (
                ("now", self.heads.tensors),
                *((k, getattr(self, k)) for k in ("best", "means", "squares")),
            )
            for name, tensor in own.items()
        }
        found |= {name: torch.from_numpy(getattr(self, name)) for name in COUNTS}
        return found | {"active": torch.tensor(self.active, dtype=torch.int64), "taken": torch.tensor(self.taken)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore a state returned by `state`."""
        for name, tensor in self.state().items():
            if name not in ("active", "taken"):
                tensor.copy_(state[name])
        self.active, self.taken = state["active"].tolist(), int(state["taken"])
        self.groups = self._grouped()

    def end_validation(self, number: int, scores: np.ndarray) -> None:
        """Update the schedule from the dev scores of the active probes after step ``number``; higher is better."""
        still = []
        for probe, value in zip(self.active, scores.tolist(), strict=True):
            self.steps[probe] = number
            if value > self.highest[probe]:
                self.highest[probe] = value
                self.since[probe] = self.plateau[probe] = 0
                for name, best in self.best.items():
                    rows = self.heads.rows(name, probe)
                    best[rows] = self.heads.tensors[name][rows]
            else:
                self.since[probe] += 1
                self.plateau[probe] += 1
            if self.plateau[probe] > HALVE_AFTER:
                self.rates[probe] *= 0.5
                self.plateau[probe] = 0
            if self.since[probe] < STOP_AFTER:
                still.append(probe)
        self.active = still
        self.groups = self._grouped()
