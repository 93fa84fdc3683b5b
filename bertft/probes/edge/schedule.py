"""The schedule of edge probes: Adam, clipping, rate, best weights and end of each probe apart, in few calls a step."""

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
HALVE_AFTER, STOP_AFTER = 5, 20  # validations without a gain
COUNTS = ("highest", "since", "plateau", "steps", "rates")  # arrays (P,) of a schedule
# Probes passed through together: what a pass of a few leaves stays in a CPU's cache; a GPU takes no longer for many, as
# long as a tensor of all their targets (256 numbers each) stays below a quarter of a gigabyte.
ON_CPU, ELSEWHERE, TARGETS = 4, 32, 1 << 18


def together(probes: Sequence[int], device: torch.device, targets: int) -> list[list[int]]:
    """``probes`` a few at a time, each next to the one before: their parameters are taken without a copy.

    ``targets`` at most are in a pass.
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
    """Probes that are stepped together.

    ``owner[name]`` the position among ``probes`` of the probe that each row of their part of a stacked tensor belongs
    to; ``runs`` (rate, rows by name), the rows of probes of one rate, in the whole tensor and in the group's part.
    """

    probes: list[int]
    owner: dict[str, Tensor]
    runs: list[tuple[float, dict[str, tuple[slice, slice]]]]


class Schedule:
    """Of the P probes of ``heads``, whose parameters it changes in place."""

    def __init__(self, heads: Heads, learning_rate: float, targets: int = 0) -> None:
        self.heads, self.targets = heads, targets  # at most in a batch
        probes = range(len(heads.inputs))
        self.active = list(probes)
        self.best = {name: t.clone() for name, t in heads.tensors.items()}
        self.highest = np.full(len(probes), -np.inf)
        self.since = np.zeros(len(probes), dtype=int)  # validations since the last gain
        self.plateau = np.zeros(len(probes), dtype=int)  # validations since the last gain or change of the rate
        self.steps = np.zeros(len(probes), dtype=int)
        self.rates = np.full(len(probes), learning_rate)
        # Adam's: an active probe has taken every step so far, so that all have one count.
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
        """The next step of a group, with each probe's gradients clipped to a norm of `CLIP`; once all have taken it,
        `taken` is to be raised.
        """
        gradients = {name: gradient for name, gradient in gradients.items() if len(gradient)}
        squares = torch.zeros(len(group.probes), dtype=torch.float64, device=self.heads.device)
        for name, gradient in gradients.items():
            norms = torch.linalg.vector_norm(gradient.view(len(gradient), -1), dim=1)
            # By name first: the order in which a GPU adds two rows to nothing makes no difference.
            squares += torch.zeros_like(squares).index_add_(0, group.owner[name], norms.double().square())
        # On a GPU multiplying by one costs less than waiting for the answer.
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
        """All that the next step depends on."""
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
        """Be what ``state`` was taken of."""
        for name, tensor in self.state().items():
            if name not in ("active", "taken"):
                tensor.copy_(state[name])
        self.active, self.taken = state["active"].tolist(), int(state["taken"])
        self.groups = self._grouped()

    def end_validation(self, number: int, scores: np.ndarray) -> None:
        """Take the dev scores of the active probes after step ``number``; more is better."""
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
