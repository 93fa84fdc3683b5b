"""Analyses that an experiment asks for in a study's place."""

from __future__ import annotations

from pathlib import Path

import pytest

import experiments
from bertft.study.repeat import RepeatedStudy, read_setting
from experiments import kind_of_change


@pytest.fixture
def study(tiny_model, tmp_path) -> RepeatedStudy:
    setting = read_setting(Path(experiments.__path__[0]) / "settings.yaml", "tiny", model=str(tiny_model))
    return RepeatedStudy(setting, tmp_path / "out")


def test_stages_are_those_of_a_study_that_asks(study):
    found = {stage.name: stage.product for stage in kind_of_change.EXPERIMENT.stages(study)}
    assert found == {
        "seed1/models/dep": "seed1/models/dep/config.json",
        "seed1/models/mnli": "seed1/models/mnli/config.json",
        "seed1/weights/spectra": "seed1/matrices.csv",
        "seed1/directions/plain": "seed1/directions.csv",
        "seed1/causes/plain": None,
    }


def test_the_study_itself_does_not_change(study):
    before, text = study.inputs(1).config, study.setting.to_yaml()
    asking = kind_of_change.asking(study, 1)
    assert (asking.config.directions, asking.config.causes, asking.config.spectra) == (2, 100, True)
    assert study.inputs(1).config == before and study.setting.to_yaml() == text and not before.spectra
    assert asking.encoder("base") is study.inputs(1).encoder("base")  # loaded once
