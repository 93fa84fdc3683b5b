"""``bertft diff``: output, exit codes, refusals."""

from __future__ import annotations

import json
import shutil
import warnings

import peft
import pytest
import yaml

from bertft.cli.main import run
from bertft.data.streams import stream
from bertft.models.encoder import Encoder
from bertft.models.fingerprint import fingerprint

TEXT = "builtin:synthetic?size=40"


@pytest.fixture(scope="module")
def tuned(disturbed, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tuned"
    encoder = disturbed(0, (1,))
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _without_null(monkeypatch):
    """Leave out the null, most of the time of so small a diff."""
    monkeypatch.setattr("bertft.study.diff.parts.NULL", 0)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def diff(*models: object, text: str = TEXT, options: tuple[str, ...] = ()) -> int:
    return run(["diff", *map(str, models), "--text", text, "-q", *options])


def test_a_verdict_is_printed_and_nothing_is_written(here, tiny_model, tuned, capsys):
    assert diff(tiny_model, tuned) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].split(maxsplit=3)[:3] == ["changed", "tuned", "changed,"] and len(lines) <= 12
    assert lines[-1].startswith("cost") and shown.err == "" and list(here.iterdir()) == []


def test_a_folder_gets_results_configuration_and_page(here, tiny_model, tuned, capsys, monkeypatch):
    monkeypatch.setattr("bertft.report.write.draw", lambda figure: (b"png", b"<svg/>"))  # drawing has its own tests
    assert diff(tiny_model, f"a={tuned}", f"b={tuned}", options=("--out", "run", "--tokens", "300")) == 0
    page = here / "run" / "report.html"
    sources = json.loads((here / "run" / "run.json").read_text(encoding="utf8"))["sources"]
    weights = {
        name: fingerprint(Encoder.from_pretrained(model)) for name, model in (("base", tiny_model), ("a", tuned))
    }
    assert sources["models"]["base"] == {"source": str(tiny_model), "fingerprint": weights["base"]}
    assert sources["models"]["a"] == {"source": tuned, "fingerprint": weights["a"]} == sources["models"]["b"]
    assert sources["texts"] == {"synthetic": {"source": TEXT, "fingerprint": stream("text", TEXT).digest}}
    first = page.read_text(encoding="utf8")
    assert capsys.readouterr().out.splitlines()[-1].split() == ["page", str(page)]
    config = yaml.safe_load((here / "run" / "config.yaml").read_text(encoding="utf8"))
    assert config == {"command": "diff", "base": str(tiny_model), "tuned": {"a": tuned, "b": tuned}, "text": TEXT,
                      "tokens": 300, "unit": "token", "dtype": "float32", "seed": 1337}  # fmt: skip
    assert (here / "run" / "results.csv").exists() and run(["report", "run", "-q"]) == 0
    text = page.read_text(encoding="utf8")
    changed = text.index("a changed, but no more than noise would: its similarity")
    assert '<section class="answer"' in text and changed < text.index("data-figure")
    drawn = [page[page.index("<dl>") : page.index("<dt>cost")] for page in (first, text)]
    assert drawn[0] == drawn[1] and drawn[0].count("<dd>") == 9


def test_json_has_verdict_and_rows(here, tiny_model, tuned, capsys):
    assert diff(tiny_model, tuned, options=("--json",)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["changed"] == {"tuned": True} and found["verdict"][0].startswith("changed")
    own = [r for r in found["rows"] if (r["model"], r["task"], r["measure"]) == ("tuned", "rsa", "rsa_cosine_pearson")]
    assert found["lowest"]["tuned"] == min(r["value"] for r in own)


EXITS = {
    "unchanged": (["{base}", "copy"], 0),
    "a model has to change": (["{base}", "copy", "--fail-if-unchanged"], 1),
    "bad input": (["{base}", "./gone"], 2),
    "an unknown option": (["{base}", "copy", "--nothing"], 2),
    "no model": ([], 2),
    "interrupted": (["{base}", "copy"], 130),
    "out of memory": (["{base}", "copy"], 2),
}


@pytest.mark.parametrize("case", [*EXITS])
def test_json_of_every_exit_can_be_read_and_stands_alone(here, tiny_model, capfd, monkeypatch, case):
    shutil.copytree(tiny_model, here / "copy")
    error = {"interrupted": KeyboardInterrupt(), "out of memory": MemoryError()}.get(case)

    def fail(*given, **settings):
        raise error

    if error is not None:
        monkeypatch.setattr("bertft.study.diff.run.run_diff", fail)
    words, code = EXITS[case]
    assert run(["diff", *(word.format(base=tiny_model) for word in words), "--json"]) == code
    shown = capfd.readouterr()
    found = json.loads(shown.out)
    if code < 2:
        assert found["changed"] == {"copy": False} and found["verdict"] and found["rows"]
    else:
        assert list(found) == ["error"] and found["error"] in shown.err


@pytest.mark.parametrize(
    ("same", "options", "code"),
    [
        (True, ("--fail-if-changed", "1"), 0),
        (True, ("--fail-if-unchanged",), 1),
        (False, ("--fail-if-changed", "0.9999"), 1),
        (False, ("--fail-if-changed", "-1"), 0),
        (False, ("--fail-if-unchanged",), 0),
    ],
)
def test_the_exit_code_tells_whether_a_model_changed(here, tiny_model, tuned, capsys, same, options, code):
    copy = shutil.copytree(tiny_model, here / "copy") if same else tuned
    assert diff(tiny_model, copy, options=options) == code
    assert ("unchanged" in capsys.readouterr().out) == same


@pytest.fixture(scope="module")
def adapters(tiny_model, tmp_path_factory):
    """Return a folder with adapters of bases that do not exist."""
    folder = tmp_path_factory.mktemp("adapters")
    for name, base in (("lora", "nowhere/gone"), ("other", "nowhere/else")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from peft
            encoder = Encoder.from_pretrained(str(tiny_model)).model
            model = peft.get_peft_model(encoder, peft.LoraConfig(r=2, target_modules=["query"]))
            model.peft_config["default"].base_model_name_or_path = base
            model.save_pretrained(folder / name)
    return folder


FAULTS = {
    "one model that is no adapter": (["{base}"], "expected BASE and TUNED, found only"),
    "a folder that does not exist": (["{base}", "./gone"], "./gone"),
    "an adapter whose base is gone": (["lora"], "lora: the adapter's base nowhere/gone cannot be loaded"),
    "adapters of different bases": (["lora", "other"], "no common base, lora names nowhere/gone and other names"),
    "an adapter named twice": (["lora", "x/lora"], "two models are named 'lora'; rename one with NAME=model"),
    "a name of the results": (["{base}", "base={tuned}"], "'base' is reserved"),
    "the name of noise": (["{base}", "noise of a={tuned}"], "'noise of a' is reserved"),
    "a number to skip": (["{base}", "{tuned}", "--skip-first", "x"], "--skip-first: expected auto or a number"),
    "a threshold that is no similarity": (["{base}", "{tuned}", "--fail-if-changed", "2"], "from -1 to 1, found 2"),
    "a text that is missing": (["{base}", "{tuned}", "--text", "gone.txt"], "gone.txt"),
    "a file as run folder": (["{base}", "{tuned}", "--out", "file"], "--out file: expected a folder, found a file"),
}


@pytest.mark.parametrize("fault", [*FAULTS])
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(here, tiny_model, tuned, adapters, capsys, fault):
    (here / "file").write_text("", encoding="utf8")
    for name in ("lora", "other", "x/lora"):
        shutil.copytree(adapters / name.split("/")[-1], here / name)
    before = sorted(here.rglob("*"))
    words, sentence = FAULTS[fault]
    arguments = [word.format(base=tiny_model, tuned=tuned) for word in words]
    out = [] if "--out" in arguments else ["--out", "run"]
    assert run(["diff", *arguments, *out, "-q"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and sentence in shown.err, shown.err
    assert sorted(here.rglob("*")) == before
