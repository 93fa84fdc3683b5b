"""Nulls and noise as settings of a study."""

from __future__ import annotations

import pytest
from small_study import changed, write

from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.runs.progress import SILENT
from bertft.study.analyses.rsa import Rsa
from bertft.study.inputs import Inputs
from bertft.study.reader import read_study


def study(tiny_model, folder, **rsa) -> Inputs:
    """Return a study of one task and one text with these settings of ``rsa``, nothing trained."""
    tree = changed(model=str(tiny_model), rsa={"tokens": 400, **rsa})
    for name in ("squad", "frozen"):
        del tree["tasks"][name]
    del tree["probes"], tree["variants"]
    return Inputs(read_study(write(folder / "study.yaml", tree)), folder, SILENT)


def test_settings_at_their_default_leave_the_study_and_its_stages_as_they_were(tiny_model, tmp_path):
    plain = study(tiny_model, tmp_path)
    assert not {"null", "noise"} & set(plain.config.to_tree()["rsa"])
    assert set(Rsa().stages(plain)[0].depends["rsa"]) == {"tokens", "metric", "unit", "draw"}
    both = study(tiny_model, tmp_path, null=100, noise=True)
    assert {"null": 100, "noise": True}.items() <= Rsa().stages(both)[0].depends["rsa"].items()


def test_a_study_with_both_has_rows_of_the_null_and_of_noise(tiny_model, tmp_path, disturbed, monkeypatch):
    inputs = study(tiny_model, tmp_path, null=100, noise=True)
    encoders = {"base": Encoder.from_pretrained(str(tiny_model)), "dep": disturbed(0)}
    monkeypatch.setattr(inputs, "encoder", encoders.__getitem__)
    rows = Rsa().work(inputs, "plain")
    assert {row.model for row in rows if row.task == "rsa"} == {"dep", "noise of dep"}
    assert {row.measure for row in rows if row.task == "null" and row.layer is None} == {
        "rsa_cosine_pearson_null_max",
        "cka_debiased_null_max",
    }


def test_a_null_of_too_few_derangements_is_refused_before_any_training(tiny_model, tmp_path):
    with pytest.raises(BertftError, match=r"null must be 0 or at least 100, found 20"):
        Rsa().check(study(tiny_model, tmp_path, null=20))
