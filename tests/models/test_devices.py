"""Devices of models: the choice of one, and Apple's ``mps`` by a stub, for want of a Mac."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bertft.models import devices, encoder
from bertft.models.encoder import Encoder
from bertft.models.skipping import is_causal

MPS = torch.device("mps")


class Apple(TorchFunctionMode):
    """Count the tensors that are sent to ``mps``, and leave them on the CPU; refuse float64 there, as ``mps`` does."""

    sent = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        given = [*args, *(kwargs or {}).values()]
        to_apple = MPS in [one for one in given if isinstance(one, torch.device)]
        if to_apple and function is not torch._C._nn._parse_to:  # of Module.to, which then calls Tensor.to
            assert torch.float64 not in [one for one in given if isinstance(one, torch.dtype)]
            if function is Tensor.to:
                assert args[0].dtype != torch.float64
                self.sent += 1
            args = tuple(torch.device("cpu") if one == MPS else one for one in args)
            kwargs = {name: torch.device("cpu") if one == MPS else one for name, one in (kwargs or {}).items()}
        return function(*args, **(kwargs or {}))


@pytest.fixture
def apple(monkeypatch):
    """Let torch say that there is ``mps`` and no CUDA, and that models are on it."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for module in (devices, encoder):
        monkeypatch.setattr(module, "main_device", lambda model: MPS)
    with Apple() as mode:
        yield mode


def test_an_encoder_goes_to_mps_where_torch_has_it_and_no_cuda(monkeypatch):
    for cuda, mps, expected in ((False, False, "cpu"), (False, True, "mps"), (True, True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert devices.encoder_device().type == expected
        assert devices.encoder_device("cpu") == torch.device("cpu")
        assert devices.device_of().type == ("cuda" if cuda else "cpu"), "probes need float64"


def test_a_model_runs_on_mps_and_its_vectors_are_summed_on_the_cpu(tiny_model, apple):
    there = Encoder.from_pretrained(str(tiny_model))
    assert apple.sent >= len(list(there.model.parameters())), "the weights"
    assert {device.type for device in [there.device, *there.layer_devices]} == {"cpu"}
    sent = apple.sent
    (batch,) = there.stream([["one", "word"], ["another", "longer", "sentence"]])
    assert apple.sent - sent >= 3, "inputs, mask and places of words"
    assert batch.vectors.device.type == "cpu" and batch.vectors.dtype == torch.float32
    assert batch.vectors.shape == (4, 5, there.dim) and batch.vectors.isfinite().all()


def test_float64_of_a_tensor_on_mps_is_taken_on_the_cpu(monkeypatch):
    class OnMps(Tensor):
        device = MPS

        def double(self):
            raise TypeError("MPS has no float64")

        def to(self, device):
            assert device == torch.device("cpu")
            return torch.ones(2)

    tensor = torch.zeros(2).as_subclass(OnMps)
    assert torch.equal(devices.in_float64(tensor), torch.ones(2, dtype=torch.float64))
    assert devices.in_float64(torch.ones(1)).dtype == torch.float64


def test_a_decoder_is_recognised_on_the_models_own_device(tiny_model, apple, monkeypatch):
    there = Encoder.from_pretrained(str(tiny_model))
    monkeypatch.setattr("bertft.models.skipping.main_device", lambda model: MPS)
    assert not is_causal(there)
