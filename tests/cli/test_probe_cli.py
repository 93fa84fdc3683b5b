"""``bertft probe``: results, errors and resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bertft.cli.main import run
from bertft.runs.rows import read_results

ROOT = Path(__file__).parents[2]
SMALL = ["--steps", "4", "--interval", "2", "--learning-rate", "1e-3", "--batch-size", "8"]
TRAIN, DEV = "builtin:synthetic?size=12", "builtin:synthetic?split=dev&size=8"


def line(words: str, *targets: dict) -> str:
    return json.dumps({"text": words, "targets": list(targets)}) + "\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_edge_writes_a_folder_and_shows_the_control(here, tiny_model, capsys):
    command = ["probe", "edge", "--model", f"base={tiny_model}", "--random", "--train", TRAIN, "--dev", DEV, *SMALL]
    assert run([*command, "--out", "run", "--features", "kept", "--quiet"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert sum("micro-F1" in text and "control" in text for text in shown) == 8
    assert shown[-1] == f"The page is at {here / 'run' / 'report.html'}" and shown[0].startswith("note: ")
    rows = read_results(here / "run" / "results.csv")
    assert {row.data for row in rows} == {"synthetic"} and {row.model for row in rows} == {"base", "random"}
    assert read_results(here / "run" / "labels.csv") and (here / "run" / "figures" / "edge_by_layer.svg").exists()
    assert len(list((here / "kept").iterdir())) == 4 and not (here / "run" / "features").exists()
    assert run([*command, "--out", "again", "--quiet"]) == 0
    assert (here / "again" / "results.csv").read_bytes() == (here / "run" / "results.csv").read_bytes()
    assert not (here / "again" / "features").exists()


def test_structural_sweep_draws_a_tree(here, tiny_model, capsys):
    command = ["probe", "structural", "--model", tiny_model, "--train", TRAIN, "--dev", DEV, "--epochs", "1"]
    assert run([*map(str, command), "--rank", "2", "--rank", "3", "--rbf", "--control", "--out", "run", "--quiet"]) == 0
    rows = read_results(here / "run" / "results.csv")
    shown = capsys.readouterr().out.splitlines()
    name = tiny_model.name
    assert shown[0] == (
        f"note: {name}.rank2: 8 of 8 probes reached the limit of 1 epochs and may not have learned all they could"
    )
    best = max((row for row in rows if row.measure == "uuas_rank3"), key=lambda row: row.value)
    control, lexical = (
        next(row.value for row in rows if (row.measure, row.layer) == wanted)
        for wanted in (("control_uuas_rank3", best.layer), ("uuas_rank3", 0))
    )
    assert (
        f"{name}, uuas_rank3, best layer {best.layer}: {best.value:.3f} [{best.low:.3f}, {best.high:.3f}]"
        f", control {control:.3f}; layer 0 {lexical:.3f}"
    ) in shown
    assert sum("best layer" in text for text in shown) == 4 * 3
    measures = {row.measure for row in rows}
    assert {"uuas_rank2", "uuas_rbf", "control_dspr_rank3", "root_accuracy_selectivity_rank2"} <= measures
    pictures = [path.name for path in (here / "run" / "figures").glob("tree_*.svg")]
    assert sorted(pictures) == [f"tree_{tiny_model.name}.{kind}.svg" for kind in ("rank2", "rank3", "rbf")]


BAD = {
    "span outside": (line("a b", {"span1": [1, 3], "label": "x"}), [], ["line 1", "targets[0]", "<= 2"]),
    "no target": (line("a b"), [], ["bad.jsonl", "found none"]),
    "half a line": (line("a b", {"span1": [0, 1], "label": "x"})[:-9], [], ["line 1", "not valid JSON"]),
    "one text": (line("a b", {"span1": [0, 1], "span2": [0, 1], "label": "x"}), [], ["at least 2 texts", "found 1"]),
    "one span": (line("a", {"span1": [0, 1], "label": "x"}) * 2, [], ["1 span", "training data of 2"]),
    "too long": (
        line("dog " * 200 + ".", {"span1": [0, 1], "span2": [0, 1], "label": "x"}) * 2, [],
        ["sentence 1 of the dev data", "at most 128", "window"],
    ),
    "bfloat16": ("", ["--dtype", "bfloat16"], ["bfloat16", "float16 or float32"]),
    "no dtype": ("", ["--dtype", "fp16"], ["--dtype", "fp16"]),
    "window": ("", ["--window", "cut"], ["--window", "cut"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_leaves_no_folder(case, here, tiny_model, capsys):
    content, options, wanted = BAD[case]
    (here / "bad.jsonl").write_text(content, encoding="utf8")
    command = ["probe", "edge", "--model", tiny_model, "--train", TRAIN, "--dev", "bad.jsonl", *SMALL, *options]
    assert run([*map(str, command), "--out", "run", "--quiet"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1 and shown.err.startswith("error: ")
    for word in wanted:
        assert word in shown.err, shown.err
    assert [path.name for path in here.iterdir()] == ["bad.jsonl"]


def killed(script: str, flag: Path) -> None:
    """Run a program in the folder of ``flag`` and end it with SIGKILL once that is there."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=flag.parent
    )
    deadline = time.monotonic() + 300
    while not flag.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL


# Waits to be killed once so many states of trainings are kept.
WAITING = """
    import time
    from bertft.cli.main import run
    from bertft.probes.edge import driver
    from bertft.runs.artefacts import Unfinished
    driver.CHECKPOINT_INTERVAL_S = 0.0
    keep, calls = Unfinished.keep, []
    def slow(self, *state, **settings):
        keep(self, *state, **settings)
        calls.append(1)
        if len(calls) == {count}:
            open("training", "w").close()
            time.sleep(300)
    Unfinished.keep = slow
    run({command!r})
"""


def test_edge_killed_in_training_resumes_to_the_same_table(here, tiny_model, capsys):
    command = ["probe", "edge", "--model", str(tiny_model), "--train", TRAIN, "--dev", DEV, *SMALL, "--quiet"]
    # The probes are done with their two states, the control is being trained.
    killed(WAITING.format(count=3, command=[*command, "--out", "killed"]), here / "training")
    name, probes = tiny_model.name, here / "killed" / "probes"
    kept = sorted(path.name for path in probes.iterdir())
    assert kept == [f".{name}.control.unfinished", f"{name}.probes.safetensors"]
    assert not (here / "killed" / "results.csv").exists()
    before = (probes / kept[1]).stat().st_mtime_ns
    assert run([*command, "--out", "killed"]) == 0 and run([*command, "--out", "whole"]) == 0
    assert (probes / kept[1]).stat().st_mtime_ns == before
    assert (here / "killed" / "results.csv").read_bytes() == (here / "whole" / "results.csv").read_bytes()
    finished = [f"{name}.{p}.safetensors" for p in ("control", "probes")]
    assert sorted(path.name for path in probes.iterdir()) == finished
    (probes / f".{name}.probes.unfinished").touch()  # killed before it was removed
    assert run([*command, "--out", "killed"]) == 0
    assert sorted(path.name for path in probes.iterdir()) == finished


def test_structural_killed_resumes_and_two_runs_agree(here, tiny_model, capsys):
    command = ["probe", "structural", "--model", str(tiny_model), "--train", TRAIN, "--dev", DEV, "--epochs", "3"]
    command += ["--rank", "2", "--orthogonal", "--quiet"]
    # Plain probes have kept a state after each of 3 epochs, orthogonal ones after the first.
    killed(WAITING.format(count=4, command=[*command, "--out", "killed"]), here / "training")
    name, probes = tiny_model.name, here / "killed" / "probes"
    kept = {path.name for path in probes.iterdir()}
    assert f".{name}.orthogonal.unfinished" in kept and f"{name}.safetensors" in kept
    assert f"{name}.orthogonal.safetensors" not in kept
    tables = []
    for folder in ("killed", "whole", "again"):
        assert run([*command, "--out", folder]) == 0
        tables.append((here / folder / "results.csv").read_bytes())
    assert tables[0] == tables[1] == tables[2]
    assert not list(probes.glob(".*"))
