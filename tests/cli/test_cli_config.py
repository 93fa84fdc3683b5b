"""``--config``: options from a file.

The file may be the record of another run.
"""

from __future__ import annotations

import pytest
import yaml

from bertft.cli.main import run
from bertft.models.finetuning.card import read_card
from bertft.runs.rows import read_results

TRAIN, DEV = "builtin:synthetic?size=8", "builtin:synthetic?split=dev&size=4"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(arguments, capsys, *words):
    assert run(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and shown.startswith("error: "), shown
    for word in words:
        assert word in shown, shown


def write(path, **tree):
    path.write_text(yaml.safe_dump(tree), encoding="utf8")
    return str(path)


def test_a_file_holds_any_setting_of_finetuning_and_the_command_line_takes_precedence(here, tiny_model):
    file = write(
        here / "c.yaml", task="mnli", model=str(tiny_model), train=TRAIN, dev=DEV, epochs=3, batch_size=4,
        head_learning_rate=0.002, max_length=24, seed=3,
    )  # fmt: skip
    assert run(["finetune", "--config", file, "--epochs", "1", "--out", "run", "--quiet"]) == 0
    config = read_card("run")["config"]
    found = {name: config[name] for name in ("epochs", "batch_size", "head_learning_rate", "max_length", "seed")}
    assert found == {"epochs": 1, "batch_size": 4, "head_learning_rate": 0.002, "max_length": 24, "seed": 3}
    # the record of a run repeats it with all settings
    assert run(["finetune", "--config", "run/config.yaml", "--out", "again", "--quiet"]) == 0
    assert read_card("again")["identity"] == read_card("run")["identity"]
    assert read_results("again/results.csv") == read_results("run/results.csv")


def test_a_number_that_yaml_reads_as_text_is_a_number(here, tiny_model):
    (here / "c.yaml").write_text(
        f"task: mnli\nmodel: {tiny_model}\ntrain: {TRAIN}\ndev: {DEV}\nepochs: 1\nhead_learning_rate: 1e-3\n"
        "weight_decay: 1e-2\nwarmup: '0.1'\nmax_grad_norm: 2\nsnapshots: [50, 100]\n",
        encoding="utf8",
    )
    assert run(["finetune", "--config", "c.yaml", "--out", "run", "--quiet"]) == 0
    config = read_card("run")["config"]
    found = [config[name] for name in ("head_learning_rate", "weight_decay", "warmup", "max_grad_norm", "snapshots")]
    assert found == [0.001, 0.01, 0.1, 2.0, [50, 100]]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("snapshots: 50", "expected a list, found 50"),
        ("snapshots: [half]", "snapshots[0]: expected a whole number, found 'half'"),
        ("head_learning_rate: high", "expected a number, found 'high'"),
        ("weight_decay: [1, 2]", "expected a number, found a list"),
        ("warmup: true", "expected a number, found True"),
        ("lora: {rank: 4}", "lora"),
        ("weight_decay: .nan", "weight_decay"),
    ],
)
def test_a_setting_of_another_type_is_one_sentence(here, tiny_model, capsys, setting, words):
    for command in (["finetune"], ["ablate", "freeze", "-k", "1"]):
        (here / "c.yaml").write_text(f"task: mnli\nmodel: {tiny_model}\n{setting}\n", encoding="utf8")
        given = ["--train", TRAIN, "--dev", DEV, "--epochs", "1", "--out", "o", "--quiet"]
        refused([*command, "--config", "c.yaml", *given], capsys, setting.partition(":")[0], words)
    assert not (here / "o" / "config.json").exists()


def test_rsa_runs_again_from_its_config(here, tiny_model, capsys):
    first = ["rsa", "--base", str(tiny_model), "--tuned", f"a={tiny_model}", "--tuned", f"b={tiny_model}", "--text"]
    first += ["builtin:synthetic?size=9", "--tokens", "all", "--metric", "cosine,dot", "--no-intervals"]
    assert run([*first, "--out", "run", "--quiet"]) == 0
    assert run(["rsa", "--config", "run/config.yaml", "--out", "again", "--quiet"]) == 0
    assert read_results("again/results.csv") == read_results("run/results.csv")
    refused(
        ["finetune", "--config", "run/config.yaml"],
        capsys,
        "run/config.yaml",
        "expected options of bertft finetune, found those of rsa",
    )


def test_probes_and_sweeps_run_again_from_their_config(here, tiny_model):
    corpora = ["--train", TRAIN, "--dev", DEV, "--quiet"]
    probe = ["probe", "structural", "--model", f"x={tiny_model}", "--rank", "2", "--rank", "4", "--epochs", "1"]
    edge = ["probe", "edge", "--model", f"x={tiny_model}", "--steps", "2", "--interval", "1", "--no-control"]
    sweep = ["ablate", "freeze", "--task", "mnli", "--model", str(tiny_model), "--epochs", "1", "-k", "-1", "-k", "1"]
    for number, command in enumerate((probe, edge, sweep)):
        assert run([*command, *corpora, "--out", f"run{number}"]) == 0
        again = [word for word in command[:2] if word != "freeze"]
        assert run([*again, "--config", f"run{number}/config.yaml", "--out", f"again{number}", "--quiet"]) == 0
        assert read_results(f"again{number}/results.csv") == read_results(f"run{number}/results.csv")


def test_a_setting_that_may_be_repeated_is_given_once(here, tiny_model):
    """``rank: 2`` and ``model: x=...`` stand for a list of one."""
    file = write(here / "c.yaml", model=f"x={tiny_model}", rank=2, train=TRAIN, dev=DEV, epochs=1)
    assert run(["probe", "structural", "--config", file, "--out", "run", "--quiet"]) == 0
    config = yaml.safe_load((here / "run" / "config.yaml").read_text(encoding="utf8"))
    assert config["rank"] == [2] and config["models"] == {"x": str(tiny_model)}


def test_an_unusable_file_is_one_sentence(here, capsys):
    base = {"task": "mnli", "model": "m", "train": "t", "dev": "d"}
    refused(["finetune", "--config", "none.yaml", "--out", "o"], capsys, "none.yaml")
    (here / "bad.yaml").write_text("a: [", encoding="utf8")
    refused(["finetune", "--config", "bad.yaml", "--out", "o"], capsys, "bad.yaml", "not valid YAML")
    (here / "list.yaml").write_text("- a", encoding="utf8")
    refused(["finetune", "--config", "list.yaml", "--out", "o"], capsys, "list.yaml", "expected a mapping")
    refused(["finetune", "--config", write(here / "a.yaml", **base, epoch=1), "--out", "o"], capsys,
            "a.yaml", "epoch", "did you mean 'epochs'")  # fmt: skip
    refused(["finetune", "--config", write(here / "b.yaml", **base, epochs="few"), "--out", "o"], capsys,
            "b.yaml", "epochs", "few")  # fmt: skip
    refused(["finetune", "--config", write(here / "c.yaml", task="mnli"), "--out", "o"], capsys, "--model")
    refused(["rsa", "--config", write(here / "d.yaml", warmup=0.1), "--out", "o"], capsys, "warmup", "bertft rsa")
    assert not (here / "o").exists()


@pytest.mark.parametrize(
    ("typed", "found"),
    [(["--epochs", "0"], "found 0"), (["--epochs", "few"], "found 'few'"), (["--epochs=few"], "found 'few'"),
     (["--batch-size", "-3"], "found -3")],
)  # fmt: skip
def test_a_refused_option_is_named_with_its_value(typed, found, here, capsys):
    task = ["--task", "mnli", "--model", "m", "--train", TRAIN, "--dev", DEV, "--out", "o"]
    refused(
        ["finetune", *task, *typed], capsys, typed[0].split("=")[0], "expected" if "few" not in found else "", found
    )
    assert not (here / "o").exists()
