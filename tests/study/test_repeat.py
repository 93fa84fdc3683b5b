"""Settings of repeated studies."""

from __future__ import annotations

import pytest
from small_study import changed, write

from bertft.errors import BertftError
from bertft.runs.progress import SILENT
from bertft.study.repeat import RepeatedStudy, read_setting


def test_a_setting_names_a_built_in_study_or_a_file(tmp_path):
    write(tmp_path / "small.yaml", changed())
    path = tmp_path / "settings.yaml"
    path.write_text("a: {study: quickstart, seeds: [1]}\nb: {study: small.yaml, seeds: [2, 3]}\n", encoding="utf8")
    assert read_setting(path, "a").study.name == "quickstart"
    second = read_setting(path, "b")
    assert (second.study.name, second.seeds) == ("small", (2, 3))
    study = RepeatedStudy(second, tmp_path / "out", SILENT)
    assert study.model(3, "dep") == tmp_path / "out" / "seed3" / "models" / "dep"
    assert study.draw == "stream" and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "not readable"),
        ("[]", "no setting 'a', it has: none"),
        ("b: {}", "no setting 'a', it has: b"),
        ("a: {study: quickstart}", "a.seeds: missing"),
        ("a: {study: quickstart, seeds: []}", "a.seeds: "),
        ("a: {study: nowhere, seeds: [1]}", "nowhere: no such study file"),
    ],
)
def test_a_file_without_the_setting_is_refused(tmp_path, text, sentence):
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf8")
    with pytest.raises(BertftError) as raised:
        read_setting(path, "a")
    assert sentence in str(raised.value) and "\n" not in str(raised.value)
