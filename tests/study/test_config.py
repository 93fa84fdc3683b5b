"""YAML file of a study.

Defaults, variants, settings, paths and errors.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from small_study import TREE, changed, write

from bertft.errors import BertftError
from bertft.runs.progress import SILENT
from bertft.study.inputs import Inputs
from bertft.study.reader import BUILTIN, begun_with, read_study
from bertft.study.rsa_command import RsaCommand
from bertft.study.run import study_stages


def test_every_study_in_the_repository_reads(data_root):
    experiments = Path(__file__).parents[2] / "experiments"
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


def test_a_variant_overrides_only_the_keys_it_names(tmp_path):
    path = write(tmp_path / "s.yaml", TREE)
    config, shorter = read_study(path), read_study(path, variant="shorter")
    assert (config.rsa.tokens, shorter.rsa.tokens) == (200, 100)
    assert shorter.tasks["dep"] == dataclasses.replace(config.tasks["dep"], max_train=8)
    assert shorter.tasks["squad"] == config.tasks["squad"]


def test_settings_override_the_study(tmp_path):
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


def test_defaults_are_filled_in_and_numbers_without_a_dot_are_numbers(tmp_path):
    config = read_study(write(tmp_path / "s.yaml", TREE))
    assert config.tasks["dep"].learning_rate == 5e-3
    assert config.tasks["dep"].task == "dep" and config.tasks["frozen"].task == "mnli"
    assert all(task.seed == 3 for task in config.tasks.values())
    assert "tokens: 200" in config.to_yaml() and "metric: cosine" in config.to_yaml()


def test_training_settings_of_a_task_reach_the_driver_and_older_folders_still_match(tmp_path):
    training = {"lora": 2, "bf16": True, "fp16": False, "tf32": True, "max_grad_norm": "5e-1"}
    plain = read_study(write(tmp_path / "s.yaml", TREE))
    config = read_study(write(tmp_path / "s.yaml", changed(tasks__dep={**TREE["tasks"]["dep"], **training})))
    driver = Inputs(config, tmp_path / "out", SILENT).driver("dep")
    assert (driver.lora, driver.bf16, driver.fp16, driver.tf32, driver.max_grad_norm) == (2, True, False, True, 0.5)
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf8")
    assert read_study(tmp_path) == config
    assert not training.keys() & plain.to_tree()["tasks"]["dep"].keys()
    stages = [study_stages(Inputs(study, tmp_path / "out", SILENT)) for study in (plain, config)]
    keys = [{stage.name: stage.key for stage in found} for found in stages]
    assert not training.keys() & stages[0][0].depends["finetune"].keys()
    assert keys[0]["models/dep"] != keys[1]["models/dep"] and keys[0]["models/squad"] == keys[1]["models/squad"]


def test_newer_settings_are_written_only_if_used(tmp_path):
    config = read_study(write(tmp_path / "s.yaml", TREE))
    assert "window" not in config.to_yaml() and "rbf" not in config.to_yaml()  # older run folders know none of them
    used = read_study(write(tmp_path / "s.yaml", changed(probes__rank=[4, 8], probes__rbf=True)))
    assert used.probes.ranks == (4, 8) and "rbf: true" in used.to_yaml()
    (tmp_path / "copy.yaml").write_text(used.to_yaml(), encoding="utf8")
    assert read_study(tmp_path / "copy.yaml") == used


def test_newer_settings_at_their_default_leave_older_folders_valid(tmp_path):
    config = read_study(write(tmp_path / "s.yaml", changed(rsa={"tokens": 200})))
    assert config.to_tree()["rsa"] == {"tokens": 200, "metric": "cosine", "unit": "token", "draw": "stream"}
    config = read_study(write(tmp_path / "s.yaml", changed(rsa__by="upos,depth, upos")))
    assert config.rsa.labels == ["upos", "depth"] and config.to_tree()["rsa"]["layers"] == "all"


def test_precision_of_rsa_is_handed_on_and_left_out_at_its_default(tmp_path, monkeypatch):
    from bertft.study.analyses import rsa

    for changes, expected in (({}, None), ({"rsa__precision": "fast"}, "fast")):
        inputs = Inputs(read_study(write(tmp_path / "s.yaml", changed(**changes))), tmp_path, SILENT)
        assert inputs.config.to_tree()["rsa"].get("precision") == expected
        stage = next(s for s in study_stages(inputs) if s.name == "rsa/plain")
        assert stage.depends["rsa"].get("precision") == expected
        seen = []
        monkeypatch.setattr(rsa, "compare_encoders", lambda *_, seen=seen, **options: seen.append(options["precision"]))
        monkeypatch.setattr(rsa, "fitting", lambda base, stimuli: stimuli)
        for name, value in (("encoder", None), ("encoders", {}), ("stimuli", None)):
            monkeypatch.setattr(inputs, name, lambda *_, value=value: value)
        rsa.Rsa().work(inputs, "plain")
        assert seen == [expected or "float32"]
    with pytest.raises(BertftError, match=r"rsa\.precision: expected float32, fast or float64, found 'half'"):
        read_study(write(tmp_path / "s.yaml", changed(rsa__precision="half")))


def test_precision_of_the_command_reaches_the_plan_and_the_folder():
    command = RsaCommand(
        base="a", tuned={"t": "b"}, text="x.txt", tokens=9, unit="token", metrics=["cosine"], compares=["pearson"],
        measures=["rsa"], sample=9, intervals=False, layers="paired", permutations=0, by=[], dtype="float32",
        precision="fast", split=None, seed=0, null=0, noise=False, skip_first=0, device_map="one",
    )  # fmt: skip
    for precision, wide in (("float32", False), ("fast", False), ("float64", True)):
        some = dataclasses.replace(command, precision=precision)
        assert (some.checked().precision, some.checked().float64) == (precision, wide)
        assert some.to_tree().get("precision", "float32") == precision


def test_a_new_study_draws_as_rsa_does_and_names_it(tmp_path):
    config = read_study(write(tmp_path / "s.yaml", TREE))
    assert config.rsa.draw == "stream" and config.to_tree()["rsa"]["draw"] == "stream"
    stage = next(s for s in study_stages(Inputs(config, tmp_path, SILENT)) if s.name == "rsa/plain")
    assert stage.depends["rsa"]["draw"] == "stream"


@pytest.mark.parametrize("name", ["config.yaml", "copy.yaml"])
def test_a_resolved_study_without_a_draw_means_the_older_one(tmp_path, name):
    config = read_study(write(tmp_path / "s.yaml", changed(rsa__draw="permutation")))
    assert "draw" not in config.to_yaml()  # as folders written before the setting
    (tmp_path / name).write_text(config.to_yaml(), encoding="utf8")
    assert read_study(tmp_path / name) == config and config.rsa.draw == "permutation"
    stage = next(s for s in study_stages(Inputs(config, tmp_path, SILENT)) if s.name == "rsa/plain")
    assert "draw" not in stage.depends["rsa"]  # finished stages stay finished


@pytest.mark.parametrize("repeated", [False, True])
def test_a_run_folder_keeps_the_draw_it_was_begun_with(tmp_path, repeated):
    config = read_study(write(tmp_path / "s.yaml", TREE))
    older = dataclasses.replace(config, rsa=dataclasses.replace(config.rsa, draw="permutation"))
    assert begun_with(config, tmp_path) == config  # no folder yet
    for held, expected in ((older, older), (config, config)):
        tree = {"setting": "s", "study": held.to_tree()} if repeated else held.to_tree()
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf8")
        assert begun_with(config, tmp_path) == expected
    (tmp_path / "config.yaml").write_text("a: [", encoding="utf8")
    assert begun_with(config, tmp_path) == config


def test_an_unknown_draw_is_refused(tmp_path):
    with pytest.raises(BertftError, match=r"rsa\.draw: expected stream or permutation, found 'random'"):
        read_study(write(tmp_path / "s.yaml", changed(rsa__draw="random")))


def test_relative_paths_start_from_data_or_the_file(tmp_path):
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "wiki.txt").write_text("A b c.\n", encoding="utf8")
    path = write(tmp_path / "s.yaml", changed(stimuli__plain__source="wiki.txt"))
    (tmp_path / "questions.json").rename(tmp_path / "corpora" / "questions.json")
    config = read_study(path, data=tmp_path / "corpora")
    assert config.stimuli["plain"].source == str(tmp_path / "corpora" / "wiki.txt")
    with pytest.raises(BertftError, match=r"tasks\.squad\.train: no such file: .*questions\.json"):
        read_study(path)


def test_a_hub_id_is_kept(tmp_path):
    path = write(tmp_path / "s.yaml", changed(tasks__frozen__train="nyu-mll/multi_nli", model="org/bert"))
    config = read_study(path)
    assert config.tasks["frozen"].train == "nyu-mll/multi_nli" and config.model == "org/bert"


def test_tasks_with_the_same_dev_file_share_stimuli(tmp_path):
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
        (changed(tasks__dep__lora=0), "tasks.dep.lora: expected a number above 0, found 0"),
        (changed(tasks__dep__max_grad_norm=0), "tasks.dep.max_grad_norm: expected a number above 0, found 0"),
        (changed(tasks__dep__bf16="yes, please"), "tasks.dep.bf16: expected true or false, found 'yes, please'"),
        (changed(rsa__tokens=-1), "rsa.tokens: expected a number above 0, found -1"),
        (changed(rsa__metric="cosin"), "rsa.metric: expected dot, cosine, correlation or sqeuclidean, found 'cosin'"),
        (changed(ablate={"ner": {"freeze": "all"}}), "ablate.ner: expected one of the tasks dep, frozen, squad"),
        (
            changed(ablate={"dep": {"freeze": "1,two"}}),
            "ablate.dep: expected all, or whole numbers separated by",
        ),
        (changed(rsa__layers="0,x"), "rsa.layers: expected paired, all or layers such as 0,8,16, found '0,x'"),
        (changed(rsa__layers="some"), "rsa.layers: expected paired, all or layers such as 0,8,16, found 'some'"),
        (changed(rsa__by="upos, colour"), "rsa.by: expected some of upos, xpos, relation"),
        (
            changed(probes=None, tasks={"frozen": TREE["tasks"]["frozen"]}),
            "rsa.by: needs a treebank, found neither probes nor a task on trees",
        ),
        (changed(rsa__forms="wiki"), "rsa.forms: expected one of the texts plain, found 'wiki'"),
        (changed(rsa__forms="q", stimuli={"q": {"source": "builtin:synthetic", "kind": "qa"}}), "the texts (none)"),
        (changed(rsa__unit="letter"), "rsa.unit: expected token or word, found 'letter'"),
        (changed(tasks__dep=None), "tasks.dep: expected a mapping with train"),
        (changed(tasks__dep={"train": "builtin:synthetic"}), "tasks.dep.dev: missing"),
        (changed(tasks__ner={"train": "a", "dev": "b"}), "tasks.ner: unknown task 'ner', expected one of dep, mnli"),
        (changed(tasks__x={"task": "ner", "train": "a", "dev": "b"}), "tasks.x: unknown task 'ner'"),
        (changed(tasks={}), "tasks: expected at least one task"),
        (changed(tasks=[1]), "tasks: expected a mapping by name, found a list"),
        (changed(stimuli__dep={"source": "builtin:synthetic"}), "stimuli.dep: a task has this name"),
        (changed(stimuli__plain__kind="pdf"), "stimuli.plain.kind: expected text, dep, nli or qa, found 'pdf'"),
        (
            changed(**{"stimuli__a/b": {"source": "builtin:synthetic"}}),
            "not base or random, found 'a/b'",
        ),
        (changed(tasks__base={**TREE["tasks"]["dep"], "task": "dep"}), "not base or random, found 'base'"),
        (changed(variants=[1]), "variants: expected a mapping"),
        (changed(probes__rank=[4, 0]), "probes.rank[1]: expected a number above 0, found 0"),
        (changed(probes__rank=[4, "x"]), "probes.rank[1]: expected a whole number, found 'x'"),
        (changed(probes__rank=[]), "probes.rank: expected a whole number, found an empty list"),
        (changed(probes__rank=None), "probes.rank: expected a whole number, found nothing"),
        (changed(probes__dtype="bfloat16"), "probes.dtype: expected float16 or float32, found 'bfloat16'"),
        (changed(probes__window="cut"), "probes.window: expected refuse or split, found 'cut'"),
        (changed(rsa={"trian": 1}), "rsa.trian: unknown key, expected one of tokens"),
        (changed(probes={"trian": "a", "dev": "b"}), "probes.trian: unknown key, did you mean 'train'?"),
        (changed(edge={"ner": {"train": "a", "dev": "b", "steps": 2.5}}), "edge.ner.steps: expected a whole number"),
        (changed(tasks__dep__warmup=float("nan")), "tasks.dep.warmup: expected a number below 1, found nan"),
        (changed(description="\ud800"), "expected Unicode text"),
        (changed(**{"7": 1}), "7: unknown key"),
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


def test_an_unknown_study_variant_or_folder_is_refused(tmp_path):
    with pytest.raises(BertftError, match="built-in studies are: quickstart"):
        read_study("fast")
    with pytest.raises(BertftError, match="no variant 'huge', the study has: shorter"):
        read_study(write(tmp_path / "s.yaml", TREE), variant="huge")
    with pytest.raises(BertftError, match="no such folder"):
        read_study(tmp_path / "s.yaml", data=tmp_path / "none")
