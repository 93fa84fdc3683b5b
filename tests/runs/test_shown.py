"""Rows as tables of text and of HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

import bertft
from bertft.errors import BertftError
from bertft.runs.rows import Row, Rows, read_results, write_results
from bertft.runs.shown import ENDS, MOST, interval, number

ROWS = Rows(
    Row("dep", "rsa", "news", layer, measure, 1 - layer / 4, 0.9 - layer / 4, None if layer else 1.0, 1200, 7)
    for layer in range(3)
    for measure in ("rsa_cosine_pearson", "cka_debiased")
)


class Cells(HTMLParser):
    """The cells of a table, row by row, as a browser reads them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.inside = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.inside = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        elif self.inside:
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data

    def handle_endtag(self, tag):
        self.inside = False


def test_columns_that_agree_stand_above_the_table():
    head, names, first, *others = repr(ROWS).splitlines()
    assert head == "6 rows, model dep, task rsa, data news, n 1,200, seed 7"
    assert re.split("  +", names) == ["layer", "measure", "value", "95 % interval"]
    assert re.split("  +", first.strip()) == ["0", "rsa_cosine_pearson", "1.000", "[0.900, 1.000]"]
    assert len(others) == 5 and others[-1].endswith("[0.400, ]")


def test_a_table_of_several_models_names_them():
    rows = Rows([*ROWS, Row("squad", "rsa", "news", None, "cka_debiased", 0.5)])
    assert Cells(rows._repr_html_()).rows[0] == ["model", "layer", "measure", "value", "95 % interval", "n", "seed"]
    assert Cells(rows._repr_html_()).rows[-1] == ["squad", "", "cka_debiased", "0.500", "", "", ""]


def test_text_and_html_have_the_same_cells():
    lines = [re.split("  +", line.strip()) for line in repr(ROWS).splitlines()[1:]]
    assert Cells(ROWS._repr_html_()).rows == lines


def test_markup_in_names_is_escaped():
    bad = "<script>alert('x')</script>&amp;"
    rows = Rows([Row(bad, "rsa", bad, 0, bad, 1.0), Row("dep", "rsa", bad, 0, bad, 1.0)])
    shown = Cells(rows._repr_html_())
    assert shown.tags == {"p", "table", "tr", "th", "td"}
    assert shown.rows[1] == [bad, "0", bad, "1.000"]


def test_the_middle_of_a_long_table_is_left_out():
    rows = Rows(Row("dep", "rsa", "news", layer, "cka_debiased", 1.0) for layer in range(MOST + 5))
    lines = repr(rows).splitlines()
    assert len(lines) == 2 + 2 * ENDS + 1 and lines[2 + ENDS] == f"... {MOST + 5 - 2 * ENDS} more ..."
    assert lines[1 + ENDS].split()[0] == str(ENDS - 1) and lines[3 + ENDS].split()[0] == str(MOST + 5 - ENDS)
    assert len(repr(Rows(rows[:MOST])).splitlines()) == 2 + MOST


def test_no_rows_are_a_table_of_none():
    assert repr(Rows()) == "0 rows" and "0 rows" in Rows()._repr_html_()


def test_rows_are_a_list_and_are_chosen_by_column(tmp_path):
    assert list(ROWS) == ROWS and isinstance(ROWS, list)
    assert [row.value for row in ROWS.of(measure="cka_debiased", layer=2)] == [0.5]
    with pytest.raises(BertftError, match=r"^rows: expected columns of model, .*, found metric$"):
        ROWS.of(metric="cosine")
    write_results(tmp_path / "results.csv", ROWS)
    read = read_results(tmp_path / "results.csv")
    assert read == ROWS and isinstance(read, bertft.Rows) and len(read.to_pandas()) == 6


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.000"), (0.12345, "0.123"), (-0.5, "-0.500"), (999.5, "999.500"), (12345.6, "1.23e+04"), (2e-5, "2e-05")],
)
def test_a_number_has_three_decimals_or_three_digits(value, text):
    assert number(value) == text


def test_an_open_interval_has_one_end():
    assert [interval(0.1, 0.2), interval(None, 0.2), interval(None, None)] == ["[0.100, 0.200]", "[, 0.200]", ""]


def test_an_end_near_0_has_the_decimals_of_the_other():
    assert [interval(-4e-4, 0.041), interval(2000.0, 12345.6)] == ["[-0.000, 0.041]", "[2e+03, 1.23e+04]"]
