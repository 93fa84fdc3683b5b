"""The kernels as functions: pure tensor operations that know nothing of models.

Each op has one file here (checks, shape rule, autograd), a kernel in ``csrc`` and its formula in plain PyTorch in
`bertft.ops.reference`, which serves where no compiled kernel does.
"""

from __future__ import annotations

from bertft.ops.probe_loss import depth_probe_loss, distance_probe_loss, probe_loss

__all__ = ["depth_probe_loss", "distance_probe_loss", "probe_loss"]
