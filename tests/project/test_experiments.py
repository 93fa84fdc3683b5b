"""Experiment scripts on synthetic text, resumed and reused."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertft.errors import BertftError
from bertft.models.finetuning.evaluation import evaluate
from bertft.runs.rows import Row, read_results
from bertft.study.repeat import RepeatedStudy, read_setting
from bertft.study.run import run_study

ROOT = Path(__file__).parents[2]
SETTINGS = ROOT / "experiments" / "settings.yaml"
SCRIPTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if not path.stem.startswith("_"))
PAPER = [name for name in SCRIPTS if name.startswith(("fig", "table"))]


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("experiments") / "run"


def study_of(tiny_model, out, **changes) -> RepeatedStudy:
    setting = read_setting(SETTINGS, "tiny", model=str(tiny_model))
    return RepeatedStudy(dataclasses.replace(setting, **changes), out)


def experiment(script: str):
    # pytest leaves the repository's root out of the path
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(f"experiments.{script}").EXPERIMENT


def run(study: RepeatedStudy, script: str):
    chosen = experiment(script)
    study.check([chosen])
    with study.folder.claim():
        study.run(chosen)
    table = read_results(study.out / "results" / f"{chosen.name}.csv")
    assert len({row.key for row in table}) == len(table) > 0
    return table


def test_every_script_has_at_most_100_lines():
    assert len(PAPER) == 6
    for path in (ROOT / "experiments").glob("*.py"):
        assert len(path.read_text(encoding="utf8").splitlines()) <= 100, path.name


def test_settings_are_read_by_name(tmp_path):
    for name in ("tiny", "full"):
        assert read_setting(SETTINGS, name, data=tmp_path).seeds
    with pytest.raises(
        BertftError, match="no setting 'huge', it has: tiny, minilm, minilm_full, full, mpnet, mpnet_full"
    ):
        read_setting(SETTINGS, "huge")


def test_figure_2_of_two_seeds(tiny_model, out):
    table = run(study_of(tiny_model, out), "fig2_rsa")
    top = {row.seed: row for row in table if row.layer == 3 and row.model == "mnli" and row.data == "plain"
           and row.measure == "rsa_cosine_pearson"}  # fmt: skip
    assert set(top) == {1, 2, None} and top[1].value != top[2].value and max(top[1].value, top[2].value) < 0.999
    assert top[None].value == pytest.approx((top[1].value + top[2].value) / 2)
    # Student's t with one degree of freedom makes each half at least this wide; similarity is at most 1.
    half = 6.35 * abs(top[1].value - top[2].value)
    assert top[None].low <= top[None].value - half and min(1, top[None].value + half) <= top[None].high <= 1
    for ending in (".png", ".svg", ".csv"):
        assert (out / "results" / f"fig2_rsa_rsa_by_layer{ending}").stat().st_size > 0
    models = {path: path.stat().st_mtime_ns for path in out.glob("seed*/models/*/bertft.json")}
    assert len(models) == 4
    again = run(study_of(tiny_model, out), "fig5_domains")  # has the same stages, all done
    derived = [row for row in again if row.task == "own_text"]
    assert {row.key for row in again} == {row.key for row in [*table, *derived]}
    assert {row.seed for row in derived} == {1, 2, None} and "mnli - plain" in {row.data for row in derived}
    assert models == {path: path.stat().st_mtime_ns for path in models}


def test_figure_1_has_each_tuned_encoder_less_the_base(tiny_model, out):
    table = run(study_of(tiny_model, out), "fig1_structural_probes")
    by = {(row.model, row.measure, row.layer, row.seed): row for row in table}
    for seed in (1, 2, None):
        gap = by["dep", "uuas", 3, seed].value - by["base", "uuas", 3, seed].value
        assert by["dep", "uuas_difference", 3, seed].value == pytest.approx(gap, abs=1e-12)
    assert ("dep", "uuas_difference_p", 3, 1) in by and ("dep", "uuas_difference_p", 3, None) not in by
    for name in ("probes_by_layer", "difference"):
        assert (out / "results" / f"fig1_structural_probes_{name}.png").stat().st_size > 0


def test_figure_3_sweeps_and_keeps_no_models(tiny_model, out):
    table = run(study_of(tiny_model, out), "fig3_freezing")
    scores = {row.layer: row for row in table if row.measure == "accuracy"}
    assert set(scores) == {-1, 2, 3} and all(row.low <= row.value <= row.high for row in scores.values())
    trained = {row.layer: row.value for row in table if row.measure == "trained_parameters"}
    assert trained[-1] > trained[2] > trained[3] > 0
    assert not list(out.glob("freeze/*/*/k*/model.safetensors")) and not (out / "prefix").exists()


def test_table_1_is_scored_on_test_and_written_out(tiny_model, out):
    table = run(study_of(tiny_model, out), "table1_edge_probing")
    assert {row.n for row in table if row.measure == "micro_f1"} == {8}
    folder = out / "edge" / "seed1"
    assert {row.data for row in read_results(folder / "arcs.labels.csv")} == {"arcs"}
    assert not (folder / ".features").exists()
    assert "too good" not in "".join(path.read_text(encoding="utf8") for path in folder.glob("*.notes.txt"))
    text = (out / "results" / "table1_edge_probing.md").read_text(encoding="utf8")
    assert [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| arcs")] == ["base", "dep", "mnli"]
    assert text.count("to the base") >= 8


def test_models_are_scored_on_further_texts(tiny_model, out):
    table = run(study_of(tiny_model, out), "model_scores")
    found = {(row.model, row.data) for row in table if row.seed == 1}
    assert found == {("dep", "dep"), ("mnli", "mnli"), ("dep", "dep_test")}
    test = {row.measure: row.value for row in table if row.data == "dep_test" and row.seed == 2}
    model = out / "seed2" / "models" / "dep"
    assert test == evaluate(model, "builtin:synthetic?split=test&size=8&seed=1")[0]


ARCS = {"train": "builtin:synthetic?size=4"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("table1_edge_probing", ARCS, "setting tiny: options.edge.tasks.arcs.dev: missing"),
        ("table1_edge_probing", {**ARCS, "dev": "gone.jsonl"}, "options.edge.tasks.arcs.dev: no such file"),
        ("table1_edge_probing", {**ARCS, "dev": "bad.jsonl"}, "bad.jsonl: line 1"),
        ("model_scores", {"dep": {"test": {"source": "bad.conllu"}}}, "bad.conllu: line 1"),
        (
            "model_scores",
            {"ner": {"test": {"source": "bad.conllu"}}},
            "options.also.ner: no task of the study has that name",
        ),
        ("model_scores", {"dep": {"test": {"split": "test"}}}, "setting tiny: options.also.dep.test.source: missing"),
    ],
)
def test_unreadable_input_is_refused_before_the_first_stage(tiny_model, tmp_path, name, options, message):
    for file in ("bad.jsonl", "bad.conllu"):
        (tmp_path / file).write_text("nothing of the kind\n", encoding="utf8")
    setting = read_setting(SETTINGS, "tiny", model=str(tiny_model))
    own = (
        {"also": options}
        if name == "model_scores"
        else {"edge": {"seeds": [1], "shared": {}, "tasks": {"arcs": options}}}
    )
    wrong = dataclasses.replace(setting, options={**setting.options, **own}, root=tmp_path)
    with pytest.raises(BertftError, match=re.escape(message)):
        run(RepeatedStudy(wrong, tmp_path / "out"), name)
    assert not (tmp_path / "out").exists()


def test_missing_option_is_named(tiny_model, tmp_path):
    setting = read_setting(SETTINGS, "tiny", model=str(tiny_model))
    needed = {"edge": "table1_edge_probing", "prefix_time": "prefix_time", "sweep": "fig3_freezing",
              "along": "along_training", "lora": "lora", "text": "other_measures", "beyond_size": "beyond_size",
              "kind_of_change": "kind_of_change"}  # fmt: skip
    for options, script in needed.items():
        stages = experiment(script).stages
        with pytest.raises(BertftError, match=f"setting tiny: options.{options}: expected a mapping, found None"):
            stages(RepeatedStudy(dataclasses.replace(setting, options={}), tmp_path))
        for key in set(setting.options[options]) - {"shared", "k"}:
            left = {name: value for name, value in setting.options[options].items() if name != key}
            with pytest.raises(BertftError, match=f"setting tiny: options.{options}.{key}: missing"):
                stages(RepeatedStudy(dataclasses.replace(setting, options={options: left}), tmp_path))
    edge = {name: value for name, value in setting.options["edge"].items() if name != "shared"}
    bare = RepeatedStudy(dataclasses.replace(setting, options={"edge": edge}), tmp_path)
    assert importlib.import_module("experiments.table1_edge_probing").edge_tasks(bare)["arcs"].steps == 10_000
    models = experiment("model_scores").stages(bare)
    assert {stage.name.split("/")[1] for stage in models} == {"models"}


def test_task_of_a_sweep_can_have_its_own_k(tiny_model, tmp_path):
    setting = read_setting(SETTINGS, "tiny", model=str(tiny_model))
    sweep = {"seeds": [3], "k": {"freeze": [-1, 2]}, "tasks": {"dep": {}, "mnli": {"k": {"freeze": [1]}}}}
    study = RepeatedStudy(dataclasses.replace(setting, options={"sweep": sweep}), tmp_path)
    stages = experiment("fig3_freezing").stages(study)
    assert [stage.name for stage in stages] == [
        "freeze/dep/seed3/k-1", "freeze/dep/seed3/k2", "freeze/mnli/seed3/k1",
    ]  # fmt: skip
    assert sweep["tasks"]["mnli"] == {"k": {"freeze": [1]}}


def test_killed_measurement_starts_again(tiny_model, tmp_path, monkeypatch):
    script = importlib.import_module("experiments.prefix_time")

    def finetune(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "finetune", finetune)
    folder = tmp_path / "prefix_time" / "mnli"
    (folder / ".run.training").mkdir(parents=True)
    (folder / ".run.lock").touch()
    with pytest.raises(KeyboardInterrupt):
        script.EXPERIMENT.work(study_of(tiny_model, tmp_path), "mnli", 2)
    assert [path.name for path in folder.iterdir()] == [".run.lock"]


def test_finished_stages_are_taken_from_a_study_of_the_same_settings(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("bertft.study.analysis.write_report", lambda folder, **_: folder / "report.html")
    here = study_of(tiny_model, tmp_path / "lab", seeds=(1,))
    small = dataclasses.replace(
        here.setting.study, tasks={"dep": here.setting.study.tasks["dep"]}, probes=None, stimuli={}
    )
    here = RepeatedStudy(dataclasses.replace(here.setting, study=small), tmp_path / "lab")
    there = tmp_path / "there"
    run_study(here.study(1), there)
    with here.folder.claim():
        here.take([there])
    assert read_results(here.out / "seed1" / "models" / "dep.csv") == read_results(there / "models" / "dep.csv")
    stamp = (here.out / "seed1" / "models" / "dep" / "bertft.json").stat().st_mtime_ns
    assert stamp == (there / "models" / "dep" / "bertft.json").stat().st_mtime_ns
    rows = run(here, "fig2_rsa")
    assert (here.out / "seed1" / "models" / "dep" / "bertft.json").stat().st_mtime_ns == stamp
    assert {row.key for row in rows} <= {row.key for row in read_results(there / "results.csv")}
    other = RepeatedStudy(dataclasses.replace(here.setting, seeds=(2,)), tmp_path / "other")
    with other.folder.claim(), pytest.raises(BertftError, match="has seed 1, expected one of 2"):
        other.take([there])
    shorter = dataclasses.replace(small, tasks={"dep": dataclasses.replace(small.tasks["dep"], epochs=2)})
    changed = RepeatedStudy(dataclasses.replace(here.setting, study=shorter), tmp_path / "changed")
    with changed.folder.claim():
        changed.take([there])
    assert not (changed.out / "seed1" / "models").exists()


def test_finished_stages_are_taken_from_another_call(tiny_model, tmp_path):
    """Two calls in two folders share the work; the third one takes both parts and repeats neither."""
    parts = {name: study_of(tiny_model, tmp_path / name, seeds=(1,)) for name in ("model_scores", "fig3_freezing")}
    for name, part in parts.items():
        run(part, name)
    here = study_of(tiny_model, tmp_path / "here", seeds=(1,))
    wanted = [experiment(name) for name in parts]
    stages = [stage for experiment in wanted for stage in experiment.stages(here)]
    with here.folder.claim():
        here.take([part.out for part in parts.values()], wanted[:1])
        models = {stage.name for stage in wanted[0].stages(here)}
        assert {stage.name for stage in stages if here.folder.done(stage) is not None} == models
        here.take([part.out for part in parts.values()], wanted)
    assert all(here.folder.done(stage) is not None for stage in stages)
    for name, part in parts.items():
        run(here, name)
        table = f"results/{experiment(name).name}.csv"
        first, again = ((study.out / table).read_bytes() for study in (part, here))
        assert first == again


def command(tiny_model, out, *arguments: str) -> list[str]:
    return [*arguments, "--setting", "tiny", "--model", str(tiny_model), "--out", str(out), "--quiet"]


@pytest.fixture
def main(monkeypatch):
    """Return the entry point of ``python -m experiments``, which runs in this process."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the command handles SIGTERM
    return importlib.import_module("experiments.__main__").main


def test_a_dry_run_lists_every_stage_and_writes_nothing(main, tiny_model, tmp_path, capsys):
    here = study_of(tiny_model, tmp_path / "run")
    analyses = [experiment(name) for name in ("model_scores", "fig2_rsa")]
    stages = {stage.name: stage for analysis in analyses for stage in analysis.stages(here)}
    name = "seed1/models/dep"
    with here.folder.claim():
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "config.json").write_text("{}", encoding="utf8")
        here.folder.finish(stages[name], [Row("dep", "x", "y", None, "z", 1.0)], 65.0)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(command(tiny_model, tmp_path / "run", "models", "fig2_rsa", "--dry-run")) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    *lines, blank, summary = capsys.readouterr().out.splitlines()
    assert blank == "" and sorted(line.split()[0] for line in lines) == sorted(stages)  # each once
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}
    assert listed.pop(name) == "done   1 min 05 s" and listed.pop("seed2/models/dep") == "to do  1 min 05 s"
    assert set(listed.values()) == {"to do"}
    assert summary.startswith(
        f"{len(stages) - 1} of {len(stages)} stages to do: 1 min 05 s for 1 of them, if they take"
    )
    assert summary.endswith("Nothing was written.")
    assert main(command(tiny_model, tmp_path / "run", "fig9", "--dry-run")) == 2
    assert "fig9: no such analysis" in capsys.readouterr().err


def test_experiments_are_chosen_by_name_or_module(main):
    choose = sys.modules["experiments.__main__"].choose
    assert [chosen.name for chosen in choose(["measures", "other_measures", "model_scores", "fig4_truncation"])] == [
        "measures", "measures", "models", "fig4_truncation",
    ]  # fmt: skip


def test_all_adds_every_experiment_in_order(main):
    choose = sys.modules["experiments.__main__"].choose
    assert [chosen.name for chosen in choose(["fig2_rsa", "all"])] == [
        "models", "fig2_rsa", "fig5_domains", "weight_distance", "kind_of_change", "measures", "rsa_heatmap",
        "noise_ceiling", "beyond_size", "lora", "lora_weights", "prefix_time", "fig1_structural_probes",
        "fig3_freezing", "fig4_truncation", "along_training", "table1_edge_probing",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError("3 GiB"), 2, "error: out of memory; finished work is kept. "),
        (OSError(28, "No space left on device", "a.csv"), 2, "error: no space left on the disk"),
        (PermissionError(13, "Permission denied", "a.csv"), 2, "error: a.csv: Permission denied"),
        (KeyboardInterrupt(), 130, "To resume: python -m experiments models --setting tiny --model "),
    ],
)
def test_errors_are_reported_as_by_bertft(main, tiny_model, tmp_path, monkeypatch, capsys, error, code, words):
    def fail(*_):
        raise error

    monkeypatch.setattr(RepeatedStudy, "run", fail)
    assert main(command(tiny_model, tmp_path / "run", "models")) == code
    errors = capsys.readouterr().err.strip()
    assert errors.splitlines()[-1].startswith("interrupted" if code == 130 else words) and words in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_runs(tiny_model, out, name):
    started = time.process_time()
    run(study_of(tiny_model, out), name)
    assert time.process_time() - started < 60
    assert list((out / "results").glob(f"{experiment(name).name}*.png")) or name == "model_scores"


@pytest.mark.slow
def test_killed_run_of_all_resumes_without_repeating_a_stage(tiny_model, tmp_path):
    command = [sys.executable, "-m", "experiments", "all", "--setting", "tiny", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(out: Path) -> subprocess.Popen:
        arguments = [*command, "--model", str(tiny_model), "--out", str(out)]
        return subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def stages(out: Path) -> dict[Path, int]:
        return {path.relative_to(out): path.stat().st_mtime_ns for path in out.rglob("*.done.json")}

    cut, whole = tmp_path / "cut", tmp_path / "whole"
    done: dict[Path, int] = {}
    for wanted in (3, 9):
        process = start(cut)
        deadline = time.monotonic() + 600
        while len(stages(cut)) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        kept = stages(cut)
        assert len(kept) >= wanted and all(kept[path] == stamp for path, stamp in done.items())
        done = kept
    for out in (cut, whole):
        process = start(out)
        printed, errors = process.communicate(timeout=1200)
        assert process.returncode == 0, errors.decode()
        assert "Tables and figures are in" in printed.decode()
    assert all(stages(cut)[path] == stamp for path, stamp in done.items())
    assert stages(cut).keys() == stages(whole).keys()
    for name in (experiment(script).name for script in SCRIPTS):
        rows, others = (read_results(folder / "results" / f"{name}.csv") for folder in (cut, whole))
        assert len({row.key for row in rows}) == len(rows)
        assert [row.key for row in rows] == [row.key for row in others]
        assert name == "prefix_time" or [row.value for row in rows] == [row.value for row in others]
