"""What the built-in study teaches: natural English beside the grammar, and a task that is learnt."""

from __future__ import annotations

import pytest

from bertft.data.english import ENGLISH
from bertft.runs.progress import SILENT
from bertft.study.inputs import Inputs
from bertft.study.reader import read_study
from bertft.study.run import study_stages


def test_the_quickstart_compares_and_lists_words_on_natural_english_first(tmp_path):
    config = read_study("quickstart")
    assert config.stimuli[config.main_text].source == ENGLISH and config.rsa.forms == config.main_text
    inputs = Inputs(config, tmp_path, SILENT)
    assert {f"rsa/{config.main_text}", f"forms/{config.main_text}"} <= {stage.name for stage in study_stages(inputs)}
    words = sum(len(text.text.split()) for text in inputs.stimuli(config.main_text))
    assert words >= config.rsa.tokens  # every token asked for is there, and words have more than one occurrence


@pytest.mark.slow
def test_the_quickstart_learns_to_answer_questions(tmp_path):
    inputs = Inputs(read_study("quickstart"), tmp_path, SILENT)
    (stage,) = [stage for stage in study_stages(inputs) if stage.name == "models/squad"]
    (f1,) = [row for row in stage.work() if row.measure == "f1"]
    assert f1.value >= 60 and f1.n == 150
