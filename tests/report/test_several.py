"""Several runs on one page."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from bertft.errors import BertftError
from bertft.report import several
from bertft.report.write import write_runs
from bertft.runs.rows import Row, read_results, write_results

RSA = "rsa_cosine_pearson"


def made(folder, values, *, model="dep", data="plain", measure=RSA, half=0.01, f1=50.0, **config):
    """Write a run folder whose encoder has these similarities by layer, and return it."""
    rows = [Row(model, "rsa", data, k, measure, v, v - half, v + half, 90) for k, v in enumerate(values)]
    rows.append(Row(model, "finetune", model, None, "f1", f1, f1 - 1, f1 + 1, 9))
    folder.mkdir(parents=True)
    write_results(folder / "results.csv", rows)
    tree = {"name": "s", "model": "builtin:minilm", "seed": 1, "stimuli": {data: {"source": "p.txt"}}, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf8")
    (folder / "run.json").write_text(json.dumps({"finished": "2020-01-02T03:04:05Z"}), encoding="utf8")
    return folder


@pytest.fixture
def runs(tmp_path):
    a = made(tmp_path / "a" / "run", (1.0, 0.8, 0.5))
    b = made(tmp_path / "b" / "run", (1.0, 0.7, 0.5), seed=2, f1=60.0)
    return [a, b]


def test_the_answer_names_the_layer_at_which_the_runs_differ_most(runs):
    answer = several.answer(several.read_runs(runs))
    assert answer.sentence == (
        "The runs differ most for dep at layer 1 on plain: its similarity to the base encoder is 0.800 [0.790, 0.810] "
        "in a/run and 0.700 [0.690, 0.710] in b/run."
    )
    assert [(number.name, number.cell.value) for number in answer.numbers] == [
        ("a/run: dep, RSA, layer 2 (lowest)", "0.500"),
        ("b/run: dep, RSA, layer 2 (lowest)", "0.500"),
    ]


def test_overlapping_intervals_are_no_difference(tmp_path):
    folders = [made(tmp_path / name, (1.0, value), half=0.2) for name, value in (("a", 0.5), ("b", 0.6))]
    assert several.answer(several.read_runs(folders)).sentence == (
        "The intervals do not tell the runs apart at any layer on plain: the largest difference is 0.100 (dep, layer "
        "1: 0.500 [0.300, 0.700] in a, 0.600 [0.400, 0.800] in b)."
    )
    same = [made(tmp_path / name, (1.0, 0.5)) for name in ("c", "d")]
    assert several.answer(several.read_runs(same)).sentence.startswith("The runs are the same:")


def test_the_figure_has_a_panel_for_each_encoder_and_a_curve_for_each_run(runs, tmp_path):
    third = made(tmp_path / "c" / "run", (1.0, 0.9, 0.8), model="mnli")
    panels = several.figure(several.read_runs([*runs, third])).panels
    assert [(panel.title, [curve.label for curve in panel.curves]) for panel in panels] == [
        ("dep, on plain", ["a/run", "b/run"]),
        ("on plain", ["c/run: mnli"]),
    ]
    assert [curve.line.values for curve in panels[0].curves] == [(1.0, 0.8, 0.5), (1.0, 0.7, 0.5)]


def test_the_first_panel_is_that_of_the_answer(runs):
    for folder, value in zip(runs, (0.9, 0.2), strict=True):
        rows = read_results(folder / "results.csv")
        rows += [Row("squad", "rsa", "plain", k, RSA, v, v - 0.01, v + 0.01, 90) for k, v in enumerate((1.0, value))]
        write_results(folder / "results.csv", rows)
    shared = several.read_runs(runs)
    assert "differ most for squad at layer 1" in several.answer(shared).sentence
    assert [panel.title for panel in several.figure(shared).panels] == ["squad, on plain", "dep, on plain"]


def test_encoders_that_no_two_runs_share_are_compared_in_one_panel(tmp_path):
    folders = [made(tmp_path / name, (1.0, v), model=name) for name, v in (("x", 0.5), ("y", 0.6))]
    shared = several.read_runs(folders)
    assert several.answer(shared).sentence == (
        "The runs share no encoder. x of x moved most: its similarity to its base falls to 0.500 [0.490, 0.510] at "
        "layer 1 on plain."
    )
    assert [curve.label for curve in several.figure(shared).panels[0].curves] == ["x: x", "y: y"]


def test_scores_and_differing_settings_have_a_column_for_each_run(runs):
    section = several.section(several.read_runs(runs))
    assert [(name, [cell.value for cell in cells]) for name, cells in section.scores.rows] == [
        ("dep: F1", ["50.0", "60.0"])
    ]
    assert [(name, [cell.value for cell in cells]) for name, cells in section.settings.rows] == [("seed", ["1", "2"])]


def test_other_sources_and_encoders_are_named(tmp_path):
    a = made(tmp_path / "a", (1.0, 0.5))
    b = made(tmp_path / "b", (1.0, 0.5), model="dep", stimuli={"plain": {"source": "q.txt"}})
    (b / "config.yaml").write_text(yaml.safe_dump({"model": "other", "stimuli": {"plain": {"source": "q.txt"}}}))
    said = {line.term: line.text for line in several.answer(several.read_runs([a, b])).said}
    assert said["text"] == "plain is p.txt in a, q.txt in b."
    assert said["base"] == "builtin:minilm in a, other in b."


def test_the_page_of_several_runs_holds_both_and_can_be_written_again(runs, tmp_path):
    out = tmp_path / "both"
    for _ in range(2):
        page = write_runs(runs, out)
    text = page.read_text(encoding="utf8")
    for words in ("2 runs side by side", "The runs differ most for dep at layer 1", "Scores of the runs", "2020-01-02"):
        assert words in text
    assert {path.name for path in (out / "figures").iterdir()} == {
        f"similarity_by_run.{suffix}" for suffix in ("png", "svg", "csv")
    }
    assert sorted(path.name for path in out.iterdir()) == ["figures", "report.html"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measure": "cka_debiased"}, "shares no measure of similarity with {a}: expected one of rsa_cosine_pearson, "),
        ({"data": "wiki"}, "shares no text with {a}: expected one of plain, found wiki"),
        ({"values": ()}, "has no similarity of layers to a base encoder, so it cannot be compared"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_in_one_sentence(tmp_path, change, message):
    a = made(tmp_path / "a", (1.0, 0.5))
    b = made(tmp_path / "b", **{"values": (1.0, 0.5), **change})
    with pytest.raises(BertftError, match="^" + re.escape(f"{b}: {message.format(a=a)}")) as raised:
        write_runs([a, b], tmp_path / "out")
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_wrong_paths_are_refused_in_one_sentence(runs, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf8")
    for folders, out, message in (
        ([runs[0], tmp_path / "none"], "out", "none: no such run folder"),
        ([runs[0], runs[0]], "out", "given twice; expected different run folders"),
        (runs, "file", "--out .*file: expected a folder, found the file"),
        (runs, "file/x", "--out .*x: expected a folder, found the file"),
        (runs, "a/run", "expected a new folder for the page, found one that holds config.yaml"),
    ):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(BertftError, match=message):
            write_runs(folders, tmp_path / out)
        assert sorted(tmp_path.rglob("*")) == before
