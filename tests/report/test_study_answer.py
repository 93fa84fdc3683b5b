"""The first screen of a study, against numbers known by construction."""

from __future__ import annotations

import dataclasses

import pytest

from bertft.report.lines import context
from bertft.report.study_answer import study_answer
from bertft.report.write import verdict
from bertft.runs.rows import Row, write_results

RSA = "rsa_cosine_pearson"


def answered(rows, config, record=None):
    return study_answer(rows, context(config, rows), record or {})


def similar(model, values, half=0.01, data="plain"):
    return [Row(model, "rsa", data, k, RSA, v, v - half, v + half, 50) for k, v in enumerate(values)]


def test_the_sentence_names_the_task_that_moved_most_and_where(rows, config):
    answer = answered(rows, config)
    assert answer.sentence == (
        "dep moved the model most: its similarity to the base encoder falls to 0.400 [0.390, 0.410] at layer 3 of 3 on "
        "plain (1 = the same)."
    )
    said = {line.term: line.text for line in answer.said}
    assert said["where"] == "half of the change is reached at layer 2 (dep), 3 (mnli) of 3."
    assert said["learnt"] == "dep LAS 90.0 [88.0, 92.0]; mnli accuracy 0.700 [0.650, 0.750]."
    assert said["syntax"].startswith("UUAS at the best layer: base 0.800") and "dep +0.050" in said["syntax"]
    assert [(number.name, number.cell.value, number.cell.interval) for number in answer.numbers] == [
        ("dep: RSA, layer 3 (lowest)", "0.400", "[0.390, 0.410]"),
        ("mnli: RSA, layer 3 (lowest)", "0.600", "[0.590, 0.610]"),
        ("dep: LAS", "90.0", "[88.0, 92.0]"),
        ("mnli: accuracy", "0.700", "[0.650, 0.750]"),
    ]
    assert answer.figure == "rsa_by_layer" and answer.findings


def test_overlapping_intervals_share_the_first_place():
    table = [*similar("c", (1.0, 0.9), 0.01), *similar("b", (1.0, 0.55), 0.1), *similar("a", (1.0, 0.5), 0.1)]
    start = "a and b moved the model most; their intervals do not tell them apart. For a, similarity to the base"
    assert answered(table, {}).sentence.startswith(start)


def test_a_paired_difference_decides_where_intervals_overlap():
    table = [*similar("a", (1.0, 0.5), 0.1), *similar("b", (1.0, 0.55), 0.1)]
    for name, value in (("a - b", -0.05), ("b - a", 0.05)):
        clear = Row(name, "difference", "plain", 1, RSA, value, value - 0.01, value + 0.01, 50)
        assert answered([*table, clear], {}).sentence.startswith("a moved the model most: its")
        unclear = dataclasses.replace(clear, low=value - 0.1, high=value + 0.1)
        assert answered([*table, unclear], {}).sentence.startswith("a and b moved the model most;")


def test_no_change_is_said_to_be_none():
    table = [*similar("a", (1.0, 0.9998), 0.0001), *similar("b", (1.0, 0.9999), 0.0001)]
    answer = answered(table, {})
    assert answer.sentence == (
        "Nothing moved: the similarity of a and b to the base encoder is above 0.9995 at every layer."
    )
    assert [line.term for line in answer.said] == []


def test_a_null_stands_in_the_sentence_and_in_the_table():
    null = [Row("a", "null", "plain", k, f"{RSA}_null", 0.02, None, 0.05, 50) for k in range(2)]
    answer = answered([*similar("a", (1.0, 0.5)), *null], {})
    assert "(1 = the same; unrelated texts 0.020, at most 0.050)" in answer.sentence
    assert answer.numbers[-1].name == "unrelated texts, layer 1" and answer.numbers[-1].cell.value == "0.020"


def test_the_table_has_at_most_six_rows_and_at_least_one_score():
    models = "abcdefgh"
    table = [row for i, model in enumerate(models) for row in similar(model, (1.0, 0.1 * (i + 1)))]
    scores = [Row(model, "finetune", model, None, "f1", 50.0, 49.0, 51.0, 9) for model in models]
    names = [number.name for number in answered([*table, *scores], {}).numbers]
    assert len(names) == 6 and names[0] == "a: RSA, layer 1 (lowest)" and names[-1] == "a: F1"


def test_an_unfinished_study_names_what_is_missing(rows, config):
    left = ["models/mnli", "rsa/dep", "rsa/mnli", "rsa/plain", "rsa/other", "words/moved"]
    record = {"done": ["models/dep"], "left": left}
    missing = (
        "Unfinished: 1 of 7 stages are done; missing: fine-tuning (mnli), comparison (4 stages), local RSA (moved)."
    )
    learnt = [row for row in rows if row.task == "finetune"]
    assert answered(learnt, config, record).sentence == missing
    assert answered(learnt, config, record).figure == ""
    some = answered(rows, config, record)
    assert some.sentence.startswith(f"{missing} So far: dep moved the model most")
    assert some.said[-1].term == "resume"


def test_a_run_that_compares_nothing_has_no_answer(rows, config):
    assert answered([row for row in rows if row.task == "finetune"], config) is None
    assert answered([], {}) is None


@pytest.mark.parametrize("compared", [True, False])
def test_the_verdict_of_a_terminal_ends_in_the_page(tmp_path, rows, compared):
    write_results(tmp_path / "results.csv", [row for row in rows if compared or row.task == "finetune"])
    page = tmp_path / "report.html"
    shown = verdict(page)
    if compared:
        assert shown[0].startswith("answer  dep moved the model most:") and shown[-1] == f"page    {page.resolve()}"
        assert [line[:8].strip() for line in shown] == ["answer", "where", "syntax", "learnt", "page"]
    else:
        assert shown == [f"The page is at {page.resolve()}"]
