"""The page: self-contained, escaped, complete.

`test_browser.py` opens it in a browser.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from html.parser import HTMLParser

import pytest
import yaml
from PIL import Image

from bertft.errors import BertftError
from bertft.report import write_report
from bertft.report.pooled_tables import read_tables
from bertft.runs.rows import Row, write_results

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Balanced(HTMLParser):
    """Parser that fails on tags that do not nest, and collects text, tags and attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text, self.attributes = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if data.strip(" \n"):
            self.text.append(data.strip(" \n"))


def parse(page):
    parser = Balanced()
    parser.feed(page.read_text(encoding="utf8"))
    parser.close()
    assert parser.open == []
    return parser


def test_tags_nest_and_required_text_is_present(page):
    parsed = parse(page)
    text = " ".join(parsed.text)
    assert page.name == "report.html"
    for words in (
        "a study",
        "Synthetic text.",
        "What changed",
        "layer 3 changed most",
        "config.yaml",
        "9.9",
        "plain.txt",
    ):
        assert words in text
    assert parsed.seen.count("details") >= 6
    assert {p.name for p in (page.parent / "figures").iterdir()} == {
        f"{name}.{suffix}"
        for name in ("rsa_by_layer", "rsa_domains", "probes_by_layer", "cka_debiased_by_layer")
        for suffix in ("png", "svg", "csv")
    }


def test_nothing_is_fetched(page):
    parsed = parse(page)
    for name, value in parsed.attributes:
        if name in ("src", "href", "data", "action", "srcset", "poster"):
            assert value.startswith(("data:", "#")), value[:60]
    policy = next(value for name, value in parsed.attributes if name == "content" and "default-src" in (value or ""))
    assert "default-src 'none'" in policy and "http" not in policy


def test_the_fixed_part_of_a_page_is_small_and_every_picture_is_in_it_once(page):
    source = page.read_text(encoding="utf8")
    carried = sum(len(data) for data in re.findall(r'"data:[^"]*"', source))
    assert len(source) - carried < 2.3e6  # plotly.js, compressed, is nearly all of it
    assert source.count("data:image/svg+xml;base64") == source.count("data:image/png;base64") == 4
    for path in (page.parent / "figures").glob("*.png"):
        with Image.open(path) as picture:
            assert picture.mode == "P"  # a third of the size of true colour


def test_findings_are_folded_below_the_answer(page):
    source = page.read_text(encoding="utf8")
    assert source.index('class="answer"') < source.index('class="findings"') < source.index("<h2>The same similarity")
    findings = source.partition('class="findings"')[2].partition("</section>")[0]
    assert findings.count("<details><summary>") == findings.count("<ul>") > 3


def test_sources_of_edge_corpora_are_shown(folder, rows, config):
    config["edge"] = {
        "ner": {"train": "n/train.jsonl", "dev": "n/dev.jsonl", "test": "n/test.jsonl"},
        "coref": {"train": "c/train.jsonl", "dev": "c/dev.jsonl", "test": None},
    }
    edges = [Row("base", "edge", task, 0, "micro_f1", 0.5, n=9) for task in ("ner", "coref")]
    write_results(folder / "results.csv", edges)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf8")
    text = " ".join(parse(write_report(folder)).text)
    assert "train n/train.jsonl, dev n/dev.jsonl, measured on n/test.jsonl" in text
    assert "train c/train.jsonl, dev and measured on c/dev.jsonl" in text


def test_the_table_of_scores_has_only_finetuning_rows(folder, rows):
    write_results(folder / "results.csv", [*rows, Row("dep", "edge", "ner", None, "expected_layer", 2.345, n=9)])
    page = write_report(folder).read_text(encoding="utf8")
    scores = page.partition("Scores of the fine-tuned models")[2].partition("</details>")[0]
    assert "las_conll18" in scores and "accuracy" in scores and "expected_layer" not in scores


def test_predicted_trees_are_shown_for_each_encoder(folder, rows):
    probes = folder / "probes"
    probes.mkdir()

    def write(name, layer, heads):
        lines = [f"# layer = {layer}"]
        for i, (head, gold) in enumerate(zip(heads, (2, 0, 2, 5, 3, 2), strict=True), 1):
            lines.append("\t".join(map(str, (i, f"<w{i}>", "_", "X", "X", "_", head, "dep", "_", f"GoldHead={gold}"))))
        (probes / name).write_text("\n".join([*lines, "", ""]), encoding="utf8")

    write("base.conllu", 2, (2, 0, 2, 3, 2, 2))
    write("dep.rank4.conllu", 1, (2, 0, 2, 5, 3, 2))
    write("dep.rank32.conllu", 3, (0, 1, 1, 1, 1, 1))
    parsed = parse(write_report(folder))
    told = [value for name, value in parsed.attributes if name == "aria-label" and value.endswith("edges")]
    assert told == ["base, layer 2: 3 of 5 edges", "dep, layer 3: 1 of 5 edges"]
    assert "<w1> <w2> <w3> <w4> <w5> <w6>" in parsed.text
    # the heads as a table, ticked if gold has the edge, and as a file
    text = " ".join(parsed.text)
    assert "word gold head base, layer 2 dep, layer 3 <w1> <w2> <w2>\u00a0✓ (root)" in text
    files = [value for name, value in parsed.attributes if name == "href" and value.startswith("data:text/csv")]
    table = b64decode(files[-1].partition("base64,")[2]).decode()
    assert table.splitlines()[0] == 'sentence,position,word,gold head,"base, layer 2","dep, layer 3"'
    assert table.splitlines()[1:3] == ["1,1,<w1>,2,2,0", "1,2,<w2>,0,0,1"]
    assert parsed.seen.count("svg") == 2 and not any(v and "#ffffff" in v for n, v in parsed.attributes if n == "fill")
    (probes / "base.conllu").write_text("# layer = 2\n" + "x\t" * 9 + "x\n\n", encoding="utf8")
    with pytest.raises(BertftError, match=r"base.conllu: line 2: expected a probe's tree"):
        write_report(folder)
    write("base.conllu", 2, (2, 0, 2, 3, 2, 7))
    with pytest.raises(BertftError, match=r"base.conllu: line 8: expected a probe's tree"):
        write_report(folder)


def test_a_study_on_real_text_carries_no_notice(folder, rows, config):
    config["tasks"]["dep"] |= {"dev": "d.conllu", "train": "t.conllu"}
    config["description"] = "Compare with the study on builtin:synthetic."
    write_results(folder / "results.csv", [row for row in rows if row.layer is None])
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf8")
    assert "Synthetic text." not in write_report(folder).read_text(encoding="utf8")


def test_hostile_text_never_becomes_markup(folder, rows, config):
    evil = '</script><script>alert("x")</script><img src=x onerror=alert(1)>\u2028&amp;'
    config |= {"name": evil, "description": evil, "stimuli": {evil: {"source": evil, "kind": "text"}}}
    table = [*rows[:2], *(Row(evil, "rsa", evil, layer, "rsa_cosine_pearson", 0.5, n=3) for layer in range(3))]
    write_results(folder / "results.csv", table)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf8")
    (folder / "run.json").write_text(json.dumps({"versions": {evil: evil}, "finished": evil}), encoding="utf8")
    page = write_report(folder)
    parsed = parse(page)
    source = page.read_text(encoding="utf8")
    assert parsed.seen.count("script") == 4
    assert "<script>alert" not in source and "<img src=x" not in source
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', source, re.DOTALL)
    assert data and any(
        evil.replace("&", "&amp;").split("<")[0] in str(trace) for trace in json.loads(data[1]).values()
    )


def test_a_partial_study_has_a_page(tmp_path, rows):
    write_results(tmp_path / "results.csv", [row for row in rows if row.layer is None])
    parsed = parse(write_report(tmp_path))
    assert "How well the tasks were learnt" in " ".join(parsed.text)
    assert parsed.seen.count("script") == 1  # that of the theme
    write_results(tmp_path / "results.csv", [])
    assert "no layer-by-layer results" in " ".join(parse(write_report(tmp_path)).text)


def test_experiments_show_the_sources_in_their_stage_markers(tmp_path):
    rows = [
        Row("5 %", "along", "dep", 0, "rsa_cosine_pearson", 0.5, 0.4, 0.6, 9),
        Row("base", "edge", "ner", 0, "micro_f1", 0.5, n=9),
    ]
    write_results(tmp_path / "results" / "along.csv", rows)
    study = {"name": "s", "tasks": {"dep": {"dev": "own-dev"}}, "stimuli": {"wiki": {"source": "w.txt"}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"setting": "s", "study": study}), encoding="utf8")
    for stage, settings in (
        ("along/dep", {"along": {"text": "wiki"}}),
        ("edge/ner", {"edge": {"train": "n-train", "dev": "n-dev", "test": "n-test"}}),
    ):
        mark = tmp_path / f"{stage}.done.json"
        mark.parent.mkdir()
        mark.write_text(json.dumps({"settings": settings}), encoding="utf8")
    page = write_report(tmp_path).read_text(encoding="utf8")
    table = page.partition("What was measured")[2].partition("</table>")[0]
    assert "w.txt" in table and "measured on n-test" in table and "own-dev" not in table


def test_experiments_show_pooled_rows_and_prefer_the_figures_of_the_paper(tmp_path):
    def table(name: str, *values: float) -> None:
        seeds = [*range(len(values) - 1), None]
        made = [
            Row("dep", "rsa", "plain", 1, "rsa_cosine_pearson", value, None, None, 9, seed)
            for value, seed in zip(values, seeds, strict=True)
        ]
        write_results(tmp_path / "results" / f"{name}.csv", made)

    table("fig2_rsa", 0.5, 0.7, 0.6)
    table("measures", 0.1, 0.3, 0.2)
    write_results(
        tmp_path / "results" / "lora.csv", [Row("lora", "rsa", "plain", 1, "rsa_cosine_pearson", 0.9, seed=0)]
    )
    found, seeds = read_tables(tmp_path / "results", {})
    assert [(row.model, row.value, row.seed) for row in found] == [("dep", 0.6, None), ("lora", 0.9, 0)]
    assert seeds == [0, 1]
    only = tmp_path / "bare"
    write_results(only / "results" / "fig.csv", [Row("dep", "rsa", "plain", 1, "rsa_cosine_pearson", 0.5)])
    assert "seeds" not in write_report(only).read_text(encoding="utf8").partition("<h2")[0]
    # the adapter is not an encoder of the study, so the page omits it
    assert [row.model for row in read_tables(tmp_path / "results", {"dep": {}})[0]] == ["dep"]
    page = write_report(tmp_path).read_text(encoding="utf8")
    assert "Mean over several seeds. The intervals include their spread." in page and "seeds 0, 1" in page
    for name in ("fig2_rsa", "measures"):
        (tmp_path / "results" / f"{name}.csv").unlink()
    assert "Mean over several seeds" not in write_report(tmp_path).read_text(encoding="utf8")


def test_the_page_of_experiments_has_the_date_of_the_last_stage(tmp_path, rows):
    write_results(tmp_path / "results" / "fig.csv", rows)
    for name, finished in (("a", "2020-01-02T03:04:05Z"), ("b/c", "2021-01-02T03:04:05Z")):
        mark = tmp_path / f"{name}.done.json"
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(json.dumps({"finished": finished}), encoding="utf8")
    (tmp_path / "b" / "d.done.json").write_text("{", encoding="utf8")
    assert "on 2021-01-02T03:04:05Z." in write_report(tmp_path).read_text(encoding="utf8")


def test_an_interrupted_study_lists_stages_done_and_left(folder):
    stages = ["models/dep", "models/mnli", "rsa/plain"]
    record = {"versions": {"bertft": "9.9"}, "stages": stages, "started": "2020-01-02T03:04:05Z"}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf8")
    (folder / "models").mkdir()
    (folder / "models" / "dep.done.json").write_text('{"seconds": 75.0}', encoding="utf8")
    (folder / "models" / "mnli.done.json").write_text("{", encoding="utf8")  # damaged: the study repeats this stage
    text = " ".join(parse(write_report(folder)).text)
    assert "Unfinished: 1 of 3 stages are done; missing: fine-tuning (mnli), comparison (plain). So far: dep" in text
    for words in ("9.9 in a run started on 2020-01-02T03:04:05Z", "name: a study", "models/dep 75.0 s", "75 s of work"):
        assert words in text
    write_results(folder / "results.csv", [])
    assert "missing: fine-tuning (mnli), comparison (plain). resume" in " ".join(parse(write_report(folder)).text)
    for stage in stages:
        (folder / f"{stage}.done.json").parent.mkdir(exist_ok=True)
        (folder / f"{stage}.done.json").write_text('{"seconds": 60}', encoding="utf8")
    assert "Unfinished" not in write_report(folder).read_text(encoding="utf8")


LOCAL = (
    "model,data,layer,by,label,value,low,high,n\ndep,trees,0,upos,NOUN,0.25,0.2,0.3,40\ndep,trees,0,upos,DET,0.5,,,1\n"
)
WORDS = "model,data,layer,moved,value,word,sentence,context\ndep,trees,0,most,0.25,owl,s1,an [owl] saw\n"


def test_words_are_shaded_by_how_far_they_moved(folder):
    (folder / "local.csv").write_text(LOCAL, encoding="utf8")
    (folder / "words.csv").write_text(
        WORDS + "dep,trees,0,least,1.0,saw,s1,an owl [saw]\ndep,trees,0,least,nan,an,s1,[an] owl\n", encoding="utf8"
    )
    page = write_report(folder)
    source = page.read_text(encoding="utf8")
    shades = re.findall(r'<mark style="background:rgba\(var\(--shade\),([\d.]+)\)" title="local RSA (\S+)">', source)
    assert shades == [("0.45", "0.250"), ("0.00", "1.000"), ("0.00", "nan")]
    assert "an <mark" in source and "<strong>owl</strong></mark> saw" in source
    assert "dep, on trees" in " ".join(parse(page).text)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("local.csv", "a,b\n", "line 1: expected the columns model,data,layer,by"),
        ("local.csv", LOCAL.replace(",1\n", "\n"), "row 3: expected 9 cells"),
        ("local.csv", LOCAL.replace(",0.3,", ",much,"), "row 2: high: expected a number, found 'much'"),
        ("words.csv", WORDS.replace(",0,most", ",x,most"), "row 2: layer: expected a number, found 'x'"),
        ("words.csv", WORDS.replace("saw", "saw,and"), "row 2: expected 8 cells"),
    ],
)
def test_damaged_word_files_give_a_one_line_error(folder, name, content, message):
    (folder / "local.csv").write_text(LOCAL, encoding="utf8")
    (folder / "words.csv").write_text(WORDS, encoding="utf8")
    (folder / name).write_text(content, encoding="utf8")
    with pytest.raises(BertftError, match=re.escape(message)) as raised:
        write_report(folder)
    assert str(raised.value).startswith(str(folder / name)) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.csv", None, "no such results file"),
        ("results.csv", "a,b\n", "line 1"),
        ("config.yaml", "a: [", "not readable"),
        ("config.yaml", "- 1", "expected a mapping"),
        ("run.json", "{", "not readable"),
    ],
)
def test_damaged_folders_give_a_one_line_error(folder, name, content, message):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content, encoding="utf8")
    with pytest.raises(BertftError, match=message) as raised:
        write_report(folder)
    assert name in str(raised.value) and "\n" not in str(raised.value)
    assert not (folder / "report.html").exists()


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(BertftError, match="no such run folder"):
        write_report(tmp_path / "none")
