"""The programs in examples/."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bertft.data import streams
from bertft.runs.rows import read_results

FOLDER = Path(__file__).parents[2] / "examples"


def main_of(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def other_model(tiny_model, tmp_path_factory) -> Path:
    """Return a folder with the small encoder and other weights."""
    from bertft.models.blocks import reinitialise
    from bertft.models.encoder import Encoder

    encoder = Encoder.from_pretrained(str(tiny_model))
    folder = tmp_path_factory.mktemp("other") / "model"
    reinitialise(encoder.model, 1).save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return folder


def test_two_models_are_compared(tiny_model, other_model, capsys):
    text = ["--text", "builtin:synthetic?size=40", "--tokens", "200"]
    main_of("compare_two_models")([str(tiny_model), str(other_model), *text])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and all(re.match(r"layer +\d  \w+ +-?0\.\d+ \[", line) for line in lines)


def test_measures_of_unrelated_texts_are_a_table(tiny_model, tmp_path, capsys):
    main_of("unrelated_texts")([str(tiny_model), "--texts", "30"])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["30 unrelated texts, 4 layers", "lowest", "highest"] and len(lines) == 14
    found = {name: (float(low), float(high)) for name, low, high in lines[2:]}
    biased, debiased = found["linear CKA, biased"], found["linear CKA, debiased"]
    assert biased[0] > 0.1 > debiased[1] and -0.2 < debiased[0] <= debiased[1]


def test_one_layer_is_probed(tiny_model, capsys):
    texts = ["--train", "builtin:synthetic?size=20", "--dev", "builtin:synthetic?split=dev&size=12"]
    main_of("probe_one_layer")([str(tiny_model), "--layer", "3", "--epochs", "1", *texts])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == ["dspr", "nspr", "uuas", "root_accuracy"]
    assert all(line.startswith("layer 3 ") for line in lines)


def test_the_fused_loss_trains_probes_in_a_custom_loop(tiny_model, capsys):
    losses = main_of("own_training_loop")(
        [str(tiny_model), "--train", "builtin:synthetic?size=40", "--steps", "40", "--rank", "8"]
    )
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize("similarity", ["rsa", "cka"])
def test_the_regulariser_keeps_an_encoder_near_its_base(similarity, tiny_model, capsys):
    options = [str(tiny_model), "--train", "builtin:synthetic?size=64", "--steps", "25", "--similarity", similarity]
    _, free = main_of("rsa_regulariser")([*options, "--strength", "0"])
    _, held = main_of("rsa_regulariser")([*options, "--strength", "20"])
    assert free < held <= 1


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_processes_share_a_stream(tiny_model, other_model, tmp_path, processes):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    given = [str(tiny_model), str(other_model), "--text", "builtin:synthetic?size=60", "--out", str(tmp_path)]
    if processes == 1:
        main_of("million_tokens")(given)
    else:
        subprocess.run([*launch, str(FOLDER / "million_tokens.py"), *given], check=True, capture_output=True)
    rows = read_results(tmp_path / "results.csv")
    assert {row.measure for row in rows} == {"rsa_cosine_pearson", "cka_debiased"} and len(rows) == 8


def test_a_folder_of_text_is_read_no_further_than_needed(tiny_model, other_model, tmp_path, monkeypatch):
    words = "the cat saw a tree and then it slept"
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"{words}\n" * 5000, encoding="utf8")
    taken = []

    def lines(files, read=streams._lines):
        for text in read(files):
            taken.append(text.id)
            yield text

    monkeypatch.setattr(streams, "_lines", lines)
    given = [str(tiny_model), str(other_model), "--text", str(tmp_path), "--tokens", "200"]
    main_of("million_tokens")([*given, "--out", str(tmp_path / "out")])
    assert {row.n for row in read_results(tmp_path / "out" / "results.csv")} == {200}
    assert 0 < len(taken) < 5000


def test_the_table_names_every_example():
    named = set(re.findall(r"(\w+\.py)", (FOLDER / "README.md").read_text(encoding="utf8")))
    assert named == {path.name for path in FOLDER.glob("*.py")}
