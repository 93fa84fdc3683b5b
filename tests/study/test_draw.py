"""One draw of stimuli for a study and ``bertft rsa``.

Both take the same tokens of the same text.
"""

from __future__ import annotations

import pytest
import torch
from small_study import changed, write

from bertft.cli.main import run
from bertft.data import synthetic
from bertft.models.encoder import Encoder
from bertft.runs.progress import SILENT
from bertft.runs.rows import read_results
from bertft.study.inputs import Inputs
from bertft.study.reader import read_study
from bertft.study.run import study_stages

SEED, TOKENS = 5, 150


@pytest.fixture
def tuned(tiny_model, tmp_path) -> str:
    encoder, generator = Encoder.from_pretrained(str(tiny_model)), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in encoder.model.encoder.layer[1].parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator).to(weight.device))
    encoder.model.save_pretrained(tmp_path / "tuned")
    encoder.tokenizer.save_pretrained(tmp_path / "tuned")
    return str(tmp_path / "tuned")


@pytest.fixture
def encoded(monkeypatch) -> dict[int, list[int]]:
    """Return the pieces of every text that an encoder reads, by its place in the order of the texts taken."""
    found: dict[int, list[int]] = {}
    encode = Encoder.encode

    def listening(self, batch, layers):
        inputs = zip(batch.inputs["input_ids"], batch.inputs["attention_mask"].bool(), strict=True)
        found.update({int(place): ids[read].tolist() for place, (ids, read) in zip(batch.index, inputs, strict=True)})
        return encode(self, batch, layers)

    monkeypatch.setattr(Encoder, "encode", listening)
    return found


def study_rows(tmp_path, tiny_model, tuned, draw=None):
    """Return the rows of the stage ``rsa/wiki`` of a study, without its fine-tuning."""
    rsa = {"tokens": TOKENS, **({"draw": draw} if draw else {})}
    stimuli = {"wiki": {"source": "wiki.txt"}}
    tree = changed(model=str(tiny_model), seed=SEED, rsa=rsa, stimuli=stimuli)
    config = read_study(write(tmp_path / "study.yaml", tree))
    materials = Inputs(config, tmp_path / "study", SILENT)
    encoders = {"base": Encoder.from_pretrained(str(tiny_model))}
    encoders |= dict.fromkeys(config.tasks, Encoder.from_pretrained(tuned))
    materials.encoder = encoders.__getitem__
    stage = next(stage for stage in study_stages(materials) if stage.name == "rsa/wiki")
    return [row for row in stage.work() if row.model == "dep" and row.measure == "rsa_cosine_pearson"]


def test_a_study_and_rsa_take_the_same_tokens_in_the_same_order(tmp_path, tiny_model, tuned, encoded):
    lines = [" ".join(sentence.words) for sentence in synthetic.sentences(80, seed=4)]
    (tmp_path / "wiki.txt").write_text("\n\n".join(lines), encoding="utf8")
    of_study = study_rows(tmp_path, tiny_model, tuned)
    texts = dict(encoded)
    encoded.clear()
    command = ["rsa", "--base", str(tiny_model), "--tuned", f"dep={tuned}", "--text", str(tmp_path / "wiki.txt")]
    assert run([*command, "--tokens", str(TOKENS), "--seed", str(SEED), "--out", str(tmp_path / "rsa"), "-q"]) == 0
    assert encoded == texts and 2 < len(texts) < 80
    in_the_file = Encoder.from_pretrained(str(tiny_model)).tokenizer(lines)["input_ids"]
    assert [texts[place] for place in range(len(texts))] != in_the_file[: len(texts)]
    rows = read_results(tmp_path / "rsa" / "results.csv")
    of_rsa = [row for row in rows if row.measure == "rsa_cosine_pearson" and row.model == "dep"]
    assert [(row.layer, row.n) for row in of_rsa] == [(row.layer, TOKENS) for row in of_study]
    assert [row.value for row in of_rsa] == pytest.approx([row.value for row in of_study], abs=1e-9)
    assert min(row.value for row in of_rsa) < 0.99  # the encoders differ
    older = study_rows(tmp_path, tiny_model, tuned, "permutation")
    assert [row.value for row in older] != pytest.approx([row.value for row in of_study], abs=1e-6)
