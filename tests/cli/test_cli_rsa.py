"""``bertft rsa``: results, errors and resuming."""

from __future__ import annotations

import csv
import json
import re
from html import escape

import pytest
import torch
import yaml

from bertft.cli.main import run
from bertft.data import synthetic
from bertft.data.readers.conllu import write_conllu
from bertft.data.sampling import drawn
from bertft.data.streams import stream
from bertft.models.encoder import Encoder
from bertft.models.fingerprint import fingerprint
from bertft.runs.rows import read_results

TEXT = "builtin:synthetic?size=40"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def disturbed(tiny_model, folder, change) -> str:
    encoder = Encoder.from_pretrained(str(tiny_model))
    with torch.no_grad():
        change(encoder.model)
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return str(folder)


def shifted(model) -> None:
    g = torch.Generator().manual_seed(0)
    for weight in model.encoder.layer[1].parameters():
        weight.add_(0.1 * torch.randn(weight.shape, generator=g).to(weight.device))


def rsa(base, tuned, *options: str, text: str = TEXT) -> int:
    return run(["rsa", "--base", str(base), "--tuned", str(tuned), "--text", text, "--out", "run", "-q", *options])


def fails(capsys, code: int, *words: str) -> None:
    shown = capsys.readouterr()
    lines = [line for line in shown.err.replace("\r", "\n").splitlines() if line and not line.startswith("Writing")]
    assert code == 2 and shown.out == "" and len(lines) == 1 and lines[0].startswith("error: "), shown
    for word in words:
        assert word in lines[0], lines[0]


def test_all_measures_for_two_encoders(here, tiny_model, capsys):
    tuned = disturbed(tiny_model, here / "tuned", shifted)
    options = [
        "--tokens",
        "all",
        "--metric",
        "cosine,euclidean",
        "--compare",
        "pearson,spearman",
        "--tuned",
        f"b={tiny_model}",
    ]
    options += ["--measures", "rsa,cka,svcca,pwcca,procrustes,r2,effective_dimension,knn,cka_rbf", "--sample", "120"]
    assert rsa(tiny_model, f"a={tuned}", *options) == 0
    shown = capsys.readouterr().out
    assert str(here / "run" / "results.csv") in shown and str(here / "run" / "report.html") in shown
    rows = read_results(here / "run" / "results.csv")
    found = {(row.model, row.measure): row for row in rows if row.layer == 3}
    streamed = ["rsa_cosine_pearson", "cka_debiased", "svcca", "pwcca", "procrustes", "linear_r2"]
    sampled = ["rsa_cosine_spearman", "rsa_euclidean_pearson", "rsa_euclidean_spearman", "mutual_knn_10", "cka_rbf"]
    for measure in streamed + sampled:
        changed, same = found["a", measure], found["b", measure]
        assert changed.low <= changed.value <= changed.high and changed.value < 0.999 < same.value
        assert changed.n == same.n and (changed.n <= 120) == (measure in sampled)
    for measure in streamed + sampled:
        assert found["a - b", measure].high < 0
    page = (here / "run" / "report.html").read_text(encoding="utf8")
    finished = json.loads(next((here / "run" / "rsa").glob("*.done.json")).read_text(encoding="utf8"))["finished"]
    assert f"on {finished}." in page and "compared with: a, b" in page and "Which of two encoders changed more" in page
    assert f'<td class="wrap">{TEXT}</td>' in page  # the source
    assert {"base", "a", "b"} == {model for model, measure in found if measure == "effective_dimension"}
    config = yaml.safe_load((here / "run" / "config.yaml").read_text(encoding="utf8"))
    assert "precision" not in config  # which older run folders do not know
    assert config["tokens"] == "all" and config["measures"][5] == "linear_r2"
    before = (here / "run" / "results.csv").read_bytes()
    assert rsa(tiny_model, f"a={tuned}", *options) == 0  # done before: nothing is run again
    assert (here / "run" / "results.csv").read_bytes() == before and not (here / "run" / "checkpoint").exists()


def test_all_pairs_of_layers(here, tiny_model, capsys):
    tuned = disturbed(tiny_model, here / "tuned", shifted)
    fails(capsys, rsa(tiny_model, tuned, "--layers", "some"), "--layers", "paired, all or layers", "'some'")
    options = ["--tokens", "300", "--metric", "cosine,sqeuclidean", "--measures", "rsa,cka,procrustes"]
    assert rsa(tiny_model, tuned, *options, "--layers", "all") == 0
    rows = read_results(here / "run" / "results.csv")
    crossed = {(row.measure, row.layer): row.value for row in rows if row.task == "heatmap"}
    paired = [row for row in rows if row.task != "heatmap"]
    assert len(crossed) == 4 * 16 and len(paired) == 4 * 4
    for row in paired:
        assert crossed[f"{row.measure}_base{row.layer}", row.layer] == row.value and row.low <= row.value <= row.high
    # the tuned block is the second: below it the encoders are one, so that off the diagonal both orders agree
    for measure in ("rsa_cosine_pearson", "rsa_sqeuclidean_pearson", "cka_debiased"):
        assert crossed[f"{measure}_base0", 1] == pytest.approx(crossed[f"{measure}_base1", 0], abs=1e-6)
        assert crossed[f"{measure}_base0", 1] < crossed[f"{measure}_base1", 1] - 1e-5
        drawn = here / "run" / "figures" / f"{measure}_layers.csv"
        assert drawn.read_text(encoding="utf8").count("\n") == 17 and drawn.with_suffix(".png").exists()
    page = (here / "run" / "report.html").read_text(encoding="utf8")
    assert page.count('_layers.csv"') == 4  # each heat map's download
    before = {row.key: (row.value, row.low, row.high) for row in paired}
    (here / "run").rename(here / "all")
    assert rsa(tiny_model, tuned, *options) == 0
    again = {row.key: (row.value, row.low, row.high) for row in read_results(here / "run" / "results.csv")}
    assert again.keys() == before.keys()
    for key, values in again.items():
        assert before[key] == pytest.approx(values, abs=1e-6)


def test_some_layers_have_rows_figures_and_a_page(here, tiny_model, capsys):
    tuned = disturbed(tiny_model, here / "tuned", shifted)
    fails(capsys, rsa(tiny_model, tuned, "--layers", "0,2", "--by", "position"), "--by", "--layers 0,2")
    assert rsa(tiny_model, tuned, "--layers", "2,0", "--measures", "rsa") == 0
    rows = read_results(here / "run" / "results.csv")
    assert [(row.measure, row.layer) for row in rows] == [("rsa_cosine_pearson", 0), ("rsa_cosine_pearson", 2)]
    assert (here / "run" / "report.html").exists()
    sources = json.loads((here / "run" / "run.json").read_text(encoding="utf8"))["sources"]
    digests = {model: fingerprint(Encoder.from_pretrained(str(model))) for model in (tiny_model, tuned)}
    assert sources["models"] == {
        "base": {"source": str(tiny_model), "fingerprint": digests[tiny_model]},
        "tuned": {"source": tuned, "fingerprint": digests[tuned]},
    }
    assert sources["texts"] == {"synthetic": {"source": TEXT, "fingerprint": stream("text", TEXT).digest}}
    assert rsa(tiny_model, tuned, "--layers", "0,1", "--measures", "rsa") == 2  # the folder holds other layers


def test_different_tokenizers_need_words_as_units(here, tiny_model, tmp_path_factory, capsys):
    from families import save

    other = save("roberta", tmp_path_factory.mktemp("roberta"))
    fails(capsys, rsa(tiny_model, f"o={other}"), "different tokenizers", "--unit word")
    assert not (here / "run").exists()
    assert rsa(tiny_model, f"o={other}", "--unit", "word", "--no-intervals") == 0
    rows = read_results(here / "run" / "results.csv")
    assert [row.layer for row in rows] == [0, 1, 2] * 2 and all(row.low is None for row in rows)


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_a_layer_of_nan_or_zero_rows_is_refused(here, tiny_model, capsys, value):
    def broken(model) -> None:
        model.encoder.layer[1].output.LayerNorm.weight.fill_(value)
        model.encoder.layer[1].output.LayerNorm.bias.fill_(value)

    tuned = disturbed(tiny_model, here / "tuned", broken)
    fails(capsys, rsa(tiny_model, tuned), "in layer 2 of tuned", "row")
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tokens", "3"], ["--tokens", "at least 4 or all", "'3'"]),
        (["--tokens", "many"], ["--tokens", "'many'"]),
        (["--unit", "letter"], ["--unit", "'letter'"]),
        (["--compare", "tau"], ["compare must be one of", "'tau'"]),
        (["--measures", "rsa,cosinus"], ["measures must be one of", "'cosinus'"]),
        (["--dtype", "int8"], ["--dtype", "'int8'"]),
        (["--null", "50"], ["null must be 0 or at least 100, found 50 (--null)"]),
        (["--skip-first", "some"], ["--skip-first: expected auto or a number of at least 0, found 'some'"]),
    ],
)
def test_a_bad_option_is_one_sentence(here, tiny_model, capsys, options, words):
    fails(capsys, rsa(tiny_model, tiny_model, *options), *words)
    assert list(here.iterdir()) == []


def test_reserved_names_are_refused(here, tiny_model, capsys):
    for name in ("base", "noise of a"):
        fails(capsys, rsa(tiny_model, f"{name}={tiny_model}"), "--tuned", f"{name!r} is reserved")
    assert not (here / "run").exists()


def test_too_few_stimuli_or_texts_are_refused(here, tiny_model, capsys):
    (here / "one.txt").write_text("the dogs saw them in the garden", encoding="utf8")
    fails(capsys, rsa(tiny_model, tiny_model, text="one.txt"), "at least 2 texts", "found 1 in one")
    (here / "three.txt").write_text("a\nb\nc\n", encoding="utf8")
    fails(capsys, rsa(tiny_model, tiny_model, text="three.txt"), "at least 4 stimuli, found 3")
    assert not (here / "run").exists()


def test_a_checkpoint_of_another_comparison_is_refused(here, tiny_model, capsys, monkeypatch):
    """An interrupted run whose tuned encoder was replaced since."""
    from bertft.similarity.compare import encoders, stream

    monkeypatch.setattr(stream, "BUFFER", 8)
    monkeypatch.setattr(encoders, "EVERY", 0)
    tuned = disturbed(tiny_model, here / "tuned", shifted)

    def lost(self, tensors, record, save=encoders.Checkpoint.save):
        save(self, tensors, record)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(encoders.Checkpoint, "save", lost)
        assert rsa(tiny_model, tuned) == 130
    assert "To resume: bertft rsa" in capsys.readouterr().err
    disturbed(tiny_model, here / "tuned", lambda model: None)
    fails(capsys, rsa(tiny_model, tuned), "a checkpoint of another comparison", "weights.tuned")
    disturbed(tiny_model, here / "tuned", shifted)
    assert rsa(tiny_model, tuned) == 0
    assert rsa(tiny_model, tuned, "--seed", "3") == 2  # the folder holds another seed's run


def test_a_folder_with_sampled_fingerprints_is_recognised_and_resumes(here, tiny_model, capsys, monkeypatch):
    """Run folders of earlier versions hold digests of a sample of the weights, in their markers and checkpoints."""
    from bertft.models import fingerprint as module
    from bertft.similarity.compare import encoders, stream
    from bertft.study import rsa_command

    monkeypatch.setattr(stream, "BUFFER", 8)
    monkeypatch.setattr(encoders, "EVERY", 0)
    tuned = disturbed(tiny_model, here / "tuned", shifted)

    def interrupted(self, tensors, record, save=encoders.Checkpoint.save):
        save(self, tensors, record)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rsa_command, "fingerprint", module.sampled_fingerprint)
        patch.setattr(encoders.Checkpoint, "save", interrupted)
        assert rsa(tiny_model, tuned) == 130
    assert rsa(tiny_model, tuned) == 0  # resumes from the checkpoint instead of refusing it
    marker = next((here / "run" / "rsa").glob("*.done.json"))
    base = Encoder.from_pretrained(str(tiny_model))
    assert json.loads(marker.read_text(encoding="utf8"))["settings"]["weights"][""] == module.sampled_fingerprint(base)
    before = marker.stat().st_mtime_ns
    assert rsa(tiny_model, tuned) == 0
    assert marker.stat().st_mtime_ns == before  # nothing ran again
    disturbed(tiny_model, here / "tuned", lambda model: None)
    assert rsa(tiny_model, tuned) == 0
    new = json.loads(marker.read_text(encoding="utf8"))["settings"]["weights"]
    assert new[""] == module.fingerprint(base)  # another encoder: it is compared anew, under fingerprints of all bytes


def table(path) -> list[dict[str, str]]:
    with path.open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))


def test_words_that_moved_are_listed_by_label(here, tiny_model, capsys):
    tuned = disturbed(tiny_model, here / "tuned", shifted)
    fails(capsys, rsa(tiny_model, tuned, "--by", "colour"), "--by", "upos", "'colour'")
    fails(
        capsys, rsa(tiny_model, tuned, "--by", "upos", "--metric", "euclidean"), "--by", "--metric", "found euclidean"
    )
    options = ["--by", "upos,depth", "--tokens", "300", "--metric", "sqeuclidean,manhattan", "--sample", "60"]
    assert rsa(tiny_model, tuned, *options) == 0
    assert str(here / "run" / "local.csv") in capsys.readouterr().out
    means, words, sentences = (table(here / "run" / f"{name}.csv") for name in ("local", "words", "sentences"))
    assert {row["by"] for row in means} == {"upos", "depth"} and {row["model"] for row in means} == {"tuned"}
    assert {row["metric"] for row in means + words + sentences} == {"sqeuclidean"}
    # the sentences that make up the 300 tokens, the last one whole
    encoder, counted, used = Encoder.from_pretrained(str(tiny_model)), 0, []
    for sentence in drawn(stream("dep", TEXT), 1337):
        if counted < 300:
            used.append(sentence)
            counted += len(encoder.tokenizer(list(sentence.words), is_split_into_words=True)["input_ids"]) - 2
    of_layer = [row for row in means if row["layer"] == "3" and row["by"] == "upos"]
    assert len(used) < 40 and sum(int(row["n"]) for row in of_layer) == sum(len(s.words) for s in used)
    nouns = next(row for row in of_layer if row["label"] == "NOUN")
    assert float(nouns["low"]) < float(nouns["value"]) < float(nouns["high"]) and int(nouns["n"]) > 20
    page = (here / "run" / "report.html").read_text(encoding="utf8")
    assert f'<th scope="row">NOUN</th><td class="number">{int(nouns["n"]):,}</td>' in page
    assert page.index("By part of speech") < page.index("By depth in the tree")
    at = words[0]["context"].partition("[")[0]
    assert re.search(f"{re.escape(escape(at))}<mark [^>]+><strong>{re.escape(escape(words[0]['word']))}</strong>", page)
    assert len(words) == 4 * 2 * 20 and all(f"[{row['word']}]" in row["context"] for row in words)
    most = [row for row in sentences if row["layer"] == "3" and row["moved"] == "most"]
    assert f'<td class="wrap">{escape(most[0]["text"])}</td>' in page and "Sentences that moved most" in page
    assert len(most) == min(20, len(used)) and {row["text"] for row in most} <= {" ".join(s.words) for s in used}


def test_words_of_plain_text_and_of_other_columns_are_listed(here, tiny_model, capsys):
    tuned = disturbed(tiny_model, here / "tuned", shifted)
    lines = [" ".join(s.words) for s in synthetic.sentences(12, seed=3)]
    lines[0] = " ".join(["dogs"] * 150)  # more than a window
    (here / "plain.txt").write_text("\n".join(lines), encoding="utf8")
    fails(capsys, rsa(tiny_model, tuned, "--by", "depth", text="plain.txt"), "plain.txt: line 1", "columns")
    options = ["--tokens", "all", "--metric", "cosine,dot", "--measures", "cka"]
    assert rsa(tiny_model, tuned, "--by", "position,frequency", *options, text="plain.txt") == 0
    means = table(here / "run" / "local.csv")
    assert {(row["metric"], row["by"]) for row in means} == {
        (metric, by) for metric in ("cosine", "dot") for by in ("position", "frequency")
    }
    first = [row for row in means if row["by"] == "position" and row["layer"] == "0" and row["metric"] == "dot"]
    assert sum(int(row["n"]) for row in first) == sum(len(line.split()) for line in lines)
    assert {row["n"] for row in first if row["label"] == "0"} == {"12"}
    assert "tuned (cosine)" in (here / "run" / "report.html").read_text(encoding="utf8")
    write_conllu(here / "trees.conllu", synthetic.sentences(6, seed=3))
    text = (
        (here / "trees.conllu").read_text(encoding="utf8").replace("\tNOUN\tNN\t_", "\tNOUN\tNN\tCase=Nom|Number=Sing")
    )
    (here / "trees.conllu").write_text(text, encoding="utf8")
    options = ["--tokens", "all", "--out", "trees"]
    capsys.readouterr()
    fails(capsys, rsa(tiny_model, tuned, "--by", "misc:Gloss", *options, text="trees.conllu"), "'misc:Gloss'")
    assert not (here / "trees").exists()
    assert rsa(tiny_model, tuned, "--by", "feats:Number", *options, text="trees.conllu") == 0
    counts = {row["label"]: int(row["n"]) for row in table(here / "trees" / "local.csv") if row["layer"] == "0"}
    assert set(counts) == {"Sing", "_"} and counts["Sing"] == text.count("Number=Sing")


def test_precision_is_recorded_and_identifies_a_run(here, tiny_model, capsys, monkeypatch):
    from bertft.similarity.moments import CrossMoments

    fails(capsys, rsa(tiny_model, tiny_model, "--precision", "half"), "--precision", "'half'")
    made, start = [], CrossMoments.__init__

    def noting(self, *arguments, **more):
        start(self, *arguments, **more)
        made.append(self.float64)

    monkeypatch.setattr(CrossMoments, "__init__", noting)
    options = ["--tokens", "200", "--by", "position", "--no-intervals"]
    assert rsa(tiny_model, tiny_model, *options, "--precision", "float64") == 0
    assert len(made) == 5 and all(made)  # RSA's and CKA's, those of massive stimuli, and the words' sums
    config = yaml.safe_load((here / "run" / "config.yaml").read_text(encoding="utf8"))
    assert config["precision"] == "float64" and capsys.readouterr().err == ""
    fails(capsys, rsa(tiny_model, tiny_model, *options), "precision is set only there")


def test_permutations_add_p_values(here, tiny_model, capsys):
    tuned = disturbed(tiny_model, here / "tuned", shifted)
    fails(capsys, rsa(tiny_model, tuned, "--permutations", "9", "--compare", "kendall"), "permutations", "--compare")
    fails(capsys, rsa(tiny_model, tuned, "--permutations", "9", "--sample", "10001"), "at most 10000", "--sample")
    options = ["--permutations", "19", "--compare", "pearson,spearman", "--no-intervals", "--unit", "word"]
    assert rsa(tiny_model, tuned, *options) == 0
    rows = [row for row in read_results(here / "run" / "results.csv") if row.task == "permutation"]
    assert {row.measure for row in rows} == {"rsa_cosine_pearson_p", "rsa_cosine_spearman_p"} and len(rows) == 8
    # a lightly disturbed encoder is related to its base; the smallest p value of 19 permutations is 1 / 20
    assert all(row.value == pytest.approx(0.05) and 200 < row.n <= 5000 for row in rows)
