"""Mixed precision: bfloat16, and unsupported settings."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from bertft.errors import BertftError
from bertft.models.finetuning.config import FinetuneConfig
from bertft.models.finetuning.run import finetune
from bertft.study.analyses.ablation import sweep_stages


@pytest.fixture
def config(tiny_model, tmp_path):
    data = {"train": "builtin:synthetic?size=16", "dev": "builtin:synthetic?split=dev&size=8"}
    return dict(task="dep", model=str(tiny_model), out=tmp_path / "run", epochs=1, batch_size=8, **data)


def test_bf16_trains_in_bfloat16_and_saves_float32(config):
    seen = set()

    def look(module, inputs, output):
        if isinstance(module, torch.nn.Linear):
            seen.add((module.training, output.dtype))

    hook = torch.nn.modules.module.register_module_forward_hook(look)
    try:
        result = finetune(FinetuneConfig(**config, bf16=True))
    finally:
        hook.remove()
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}
    weights = load_file(result.folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    with pytest.raises(BertftError, match="holds another fine-tuned model"):
        finetune(FinetuneConfig(**config))


@pytest.mark.parametrize("asked", [{"fp16": True}, {"tf32": True}])
def test_precision_without_hardware_is_refused(config, asked, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("a GPU may support it")
    with pytest.raises(BertftError, match=f"finetune: {next(iter(asked))}: "):
        finetune(FinetuneConfig(**config, **asked))
    assert not (tmp_path / "run").exists()


def test_bf16_with_fp16_is_refused(config):
    with pytest.raises(BertftError, match="bf16 or fp16, found both"):
        finetune(FinetuneConfig(**config, bf16=True, fp16=True))


def test_stage_key_of_a_sweep_names_a_precision_only_if_it_is_set(config):
    """Sweeps on disk that are older than the setting keep their keys."""
    (plain,) = sweep_stages("freeze", FinetuneConfig(**config), config["out"], depths_wanted=[1])
    (half,) = sweep_stages("freeze", FinetuneConfig(**config, bf16=True), config["out"], depths_wanted=[1])
    assert "bf16" not in plain.depends and half.depends["bf16"] and plain.key != half.key
