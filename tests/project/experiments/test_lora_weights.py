"""Intruder dimensions of LoRA and of full fine-tuning."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bertft.models.encoder import Encoder
from bertft.runs.rows import Row
from experiments import lora, lora_weights


@pytest.fixture(scope="module")
def rows(tiny_model):
    """Rows of a planted intruder in block 2 of ``LoRA``, and of a small full-rank change in ``full``."""
    base, full, adapted = (Encoder.from_pretrained(str(tiny_model), device="cpu") for _ in range(3))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in full.model.encoder.layer[1].parameters():
            weight.add_(1e-3 * torch.randn(weight.shape, generator=generator))
        weight = adapted.model.encoder.layer[1].attention.self.query.weight
        u, v = torch.randn(2, 32, generator=generator)
        weight.add_(5 * torch.outer(u / u.norm(), v / v.norm()))
    encoders = {"full": full, "LoRA": adapted}
    study = SimpleNamespace(encoder=lambda seed, name: base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lora, "tuned", lambda study, seed: encoders)
        return lora_weights.EXPERIMENT.work(study, 1)


def test_a_planted_intruder_is_counted_in_its_block(rows):
    found = {(row.model, row.measure, row.layer): row.value for row in rows}
    assert {block: found["LoRA", "intruder_dimensions", block] for block in range(4)} == {0: 0, 1: 0, 2: 1, 3: 0}
    assert not any(found["full", "intruder_dimensions", block] for block in range(4))
    assert found["LoRA", "weight_change_rank", 2] == pytest.approx(1) and found["full", "weight_change_rank", 2] > 5
    assert ("LoRA", "weight_change_rank", 1) not in found  # nothing changed there
    assert found["LoRA", "relative_weight_distance", 1] == 0 < found["full", "relative_weight_distance", 2] < 0.1


def test_panels_and_table(rows):
    similar = [Row(lora.BOTH, "rsa", "plain", layer, "rsa_cosine_pearson", 0.94, 0.93, 0.95, 9) for layer in range(4)]
    about = SimpleNamespace(config={"options": {"lora": {"task": "dep"}}})
    (figure,) = lora_weights.EXPERIMENT.figures([*rows, *similar], about)
    panels = {panel.title: [curve.label for curve in panel.curves] for panel in figure.panels}
    assert panels == {
        "Effective rank": ["full", "LoRA"], "Intruder dimensions": ["full", "LoRA"],
        "representations, one to the other": [lora.BOTH],
    }  # fmt: skip
    head, _, *body = lora_weights.EXPERIMENT.tables([*rows, *similar], about)["lora_weights"].splitlines()
    assert head.startswith("| block | intruders, full | intruders, LoRA | effective rank, full |") and len(body) == 4
    assert body[2].startswith("| 2 | 0 | 1 | ") and body[2].endswith(" | 0.940 [0.930, 0.950] |")
    assert body[1].split(" | ")[1:5] == ["0", "0", "", ""]
