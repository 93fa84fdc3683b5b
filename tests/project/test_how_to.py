"""Commands and programs of the how-to pages, executed on tiny models.

Each page starts in a folder that holds the models and texts that it names, where ``builtin:minilm`` is a tiny encoder.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bertft.cli.main import run
from bertft.data import synthetic
from bertft.data.readers.conllu import write_conllu
from bertft.models.encoder import Encoder
from bertft.runs.rows import read_results

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the blocks of a page with their languages, in order."""
    return BLOCK.findall((DOCS / f"{page}.md").read_text(encoding="utf8"))


def saved(encoder, folder: str) -> None:
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_model, disturbed):
    """Go to a folder with texts and tuned encoders, and return the name of the tiny encoder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bertft.report.write.draw", lambda figure: (b"png", b"<svg/>"))  # drawing has its own tests
    for name, seed in (("mine", 1), ("dep", 2)):
        saved(disturbed(seed), f"runs/{name}")
    sentences = synthetic.sentences(60, seed=5)
    Path("notes.txt").write_text("".join(" ".join(s.words) + "\n" for s in sentences), encoding="utf8")
    write_conllu("train.conllu", sentences)
    write_conllu("dev.conllu", synthetic.sentences(20, seed=6))
    return str(tiny_model)


def follow(page: str, model: str) -> None:
    """Run the commands and the Python blocks of a page in their order; the rest is settings."""
    for language, code in blocks(page):
        code = code.replace("builtin:minilm", model)
        if language == "python":
            exec(compile(code, f"{page}.md", "exec"), {"__name__": page})
        elif not language:
            for line in filter(None, code.splitlines()):
                words = shlex.split(line)
                if words[0] == "bertft":
                    assert run([*words[1:], "--quiet"]) == 0, line
                elif words[0] == "torchrun":
                    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words[1:]]
                    subprocess.run(command, check=True, capture_output=True)
                else:
                    assert words[0].startswith("CUDA_VISIBLE_DEVICES="), line


@pytest.mark.slow
def test_own_models_and_texts(here):
    study = next(code for language, code in blocks("own_models") if language == "yaml")
    Path("own.yaml").write_text(study.replace("builtin:minilm", here), encoding="utf8")
    follow("own_models", here)
    assert {row.model for row in read_results("runs/own/results.csv")} >= {"mine", "noise of mine"}
    assert {row.task for row in read_results("runs/study/results.csv")} >= {"finetune", "rsa", "structural"}


@pytest.mark.slow
def test_decoders(here, capsys):
    import torch
    from families import save

    save("gpt2", Path("runs/decoder"))
    tuned, generator = Encoder.from_pretrained("runs/decoder"), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in tuned.model.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    saved(tuned, "runs/decoder_tuned")
    follow("decoders", here)
    assert {row.layer for row in read_results("runs/layers/results.csv") if row.task == "rsa"} == {0, 2}
    assert "change in layer 2" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # from peft, while the test makes its adapters
def test_adapters(here, capsys):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    for name in ("adapter", "adapter_2"):
        config = LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
        get_peft_model(AutoModel.from_pretrained(here), config).save_pretrained(f"runs/{name}")
    follow("adapters", here)
    assert {row.model for row in read_results("runs/two/results.csv")} >= {"first", "second"}
    assert "Encoder('runs/adapter': bert, 3 blocks" in capsys.readouterr().out


@pytest.mark.slow
def test_many_gpus(here):
    follow("many_gpus", here)
    rows = read_results("runs/shared/results.csv")
    assert {row.layer for row in rows if row.task == "rsa"} == {0, 1, 2, 3}


@pytest.mark.slow
def test_own_task(here, tmp_path, monkeypatch):
    import bertft.models.tasks as tasks

    (code,) = (code for language, code in blocks("own_task") if language == "python")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "relations.py").write_text(code, encoding="utf8")
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path / "tasks")])
    tasks._tasks.cache_clear()
    try:
        follow("own_task", here)
    finally:
        tasks._tasks.cache_clear()
        sys.modules.pop("bertft.models.tasks.relations", None)
    assert [row.measure for row in read_results("runs/relations/results.csv")] == ["accuracy"]


@pytest.mark.slow
def test_own_analysis(here, capsys):
    follow("own_analysis", here)
    rows = read_results("runs/spread/results.csv")
    assert [row.layer for row in rows] == [0, 1, 2, 3] and all(1 < row.value <= 32 for row in rows)
    assert "effective_dimension" in capsys.readouterr().out and Path("runs/spread/report.html").is_file()
