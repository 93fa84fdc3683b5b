"""Words of a plain text of a study, grouped by form."""

from __future__ import annotations

import pytest
import torch
from small_study import changed, write

from bertft.data import synthetic
from bertft.models.encoder import Encoder
from bertft.report.page.moved_words import moved_words
from bertft.runs.progress import SILENT
from bertft.runs.rows import merge_rows
from bertft.runs.vocabulary import MeasureName
from bertft.similarity.words.moved import words_that_moved
from bertft.study.inputs import Inputs
from bertft.study.reader import read_study
from bertft.study.run import study_stages


@pytest.fixture
def inputs(tiny_model, tmp_path):
    """Return inputs of a study with a text of its own, whose tuned encoders are the base with one block changed."""
    texts = [" ".join(sentence.words) for sentence in synthetic.sentences(60, seed=4)]
    (tmp_path / "wiki.txt").write_text("\n".join(texts), encoding="utf8")
    tree = changed(
        model=str(tiny_model), stimuli={"wiki": {"source": "wiki.txt"}}, rsa={"tokens": 150, "forms": "wiki"}
    )
    found = Inputs(read_study(write(tmp_path / "study.yaml", tree)), tmp_path / "out", SILENT)
    base, tuned = (Encoder.from_pretrained(str(tiny_model)) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in tuned.model.encoder.layer[1].parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator).to(weight.device))
    found.encoder = {"base": base, **dict.fromkeys(found.config.tasks, tuned)}.__getitem__
    return found


def test_forms_of_a_text_have_rows_and_files_beside_those_of_the_treebank(inputs):
    (stage,) = [stage for stage in study_stages(inputs) if stage.name == "forms/wiki"]
    rows = stage.work()
    truth = words_that_moved(inputs.encoder("base"), {"dep": inputs.encoder("dep")}, inputs.stimuli("wiki"), ["form"])
    expected = {(mean.layer, mean.label): mean.value for mean in truth["dep"].by["form"] if "=" not in mean.label}
    found = {(row.layer, MeasureName.parse(row.measure).label): row.value for row in rows if row.model == "dep"}
    assert found == pytest.approx(expected, abs=1e-12) and {label for _, label in found} >= {"the", "(rarer words)"}
    assert {(row.task, row.data) for row in rows} == {("local", "wiki")} and min(found.values()) < 0.99
    assert len(merge_rows(rows)) == len(rows)
    assert (inputs.out / stage.product).is_file()
    section = moved_words(inputs.out)
    assert [encoder.title for encoder in section.encoders] == [f"{name}, on wiki" for name in inputs.config.tasks]
    assert [link.name for link in section.downloads] == ["wiki_local.csv", "wiki_words.csv", "wiki_sentences.csv"]


def test_the_setting_is_left_out_of_older_studies(inputs, tmp_path):
    assert inputs.config.to_tree()["rsa"]["forms"] == "wiki"
    older = read_study(write(tmp_path / "older.yaml", changed()))
    assert "forms" not in older.to_tree()["rsa"]
    assert not any(stage.name.startswith("forms/") for stage in study_stages(Inputs(older, tmp_path, SILENT)))
