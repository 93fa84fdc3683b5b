"""Results tables: round trips and damaged files.

Round trips are exact; damage gives one sentence.
"""

from __future__ import annotations

import json
import math

import pytest

from bertft.errors import BertftError
from bertft.runs.rows import (
    COLUMNS,
    Row,
    Rows,
    merge_rows,
    read_results,
    results_as_json,
    to_arrow,
    to_pandas,
    write_results,
)

ROWS = [
    Row("dep", "rsa", "wikipedia", 3, "rsa_cosine_pearson", 0.1 + 0.2, 0.25, 0.35, 5000, 1),
    Row("dep, tuned", "finetune", 'a "quoted" name', None, "las_conll18", 86.0),
]


def test_round_trip_is_exact(tmp_path):
    write_results(tmp_path / "results.csv", ROWS)
    assert read_results(tmp_path / "results.csv") == ROWS


def test_arrow_and_pandas_have_the_same_rows():
    table, frame = to_arrow(ROWS), to_pandas(ROWS)
    assert [Row(**row) for row in table.to_pylist()] == ROWS
    assert tuple(table.column_names) == COLUMNS == tuple(frame.columns)
    missing = frame.astype(object).where(frame.notna(), None)
    assert [Row(*row) for row in missing.itertuples(index=False)] == ROWS
    assert frame["layer"].dtype == "Int64" and frame["value"].dtype == "float64"
    assert frame[frame["task"] == "rsa"]["n"].sum() == 5000
    assert to_arrow([]).schema == table.schema and list(to_pandas([]).dtypes) == list(frame.dtypes)


def test_merge_replaces_rows_of_one_key_in_place():
    newer = Row("dep", "rsa", "wikipedia", 3, "rsa_cosine_pearson", 0.5, seed=1)
    assert merge_rows(ROWS, [newer]) == [newer, ROWS[1]]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_refused_and_keeps_the_old_file(tmp_path, value):
    write_results(tmp_path / "results.csv", ROWS)
    with pytest.raises(BertftError, match="expected a finite number"):
        write_results(tmp_path / "results.csv", [Row("m", "t", "d", 0, "x", value)])
    assert read_results(tmp_path / "results.csv") == ROWS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected the columns"),
        ("a,b\n", "line 1: expected the columns"),
        (",".join(COLUMNS) + "\nm,t,d\n", "line 2: expected 10 cells, found 3"),
        (",".join(COLUMNS) + "\nm,t,d,one,x,1.0,,,,\n", "line 2: invalid literal"),
        (",".join(COLUMNS) + "\nm,t,d,1,x,,,,,\n", "line 2: could not convert"),
        (",".join(COLUMNS) + "\nm,t,d,1,x,nan,,,,\n", "line 2: expected a finite value, found nan"),
        (",".join(COLUMNS) + "\n" + "x" * 200_000, "not a table of results in UTF-8 .field larger"),
    ],
)
def test_errors_name_the_line_of_a_damaged_file(tmp_path, text, message):
    (tmp_path / "results.csv").write_text(text, "utf8")
    with pytest.raises(BertftError, match=message):
        read_results(tmp_path / "results.csv")


def test_the_error_names_a_missing_file(tmp_path):
    with pytest.raises(BertftError, match=r"nowhere\.csv: no such results file"):
        read_results(tmp_path / "nowhere.csv")


def test_json_has_an_object_a_line_with_every_column():
    rows = [ROWS[0], Row("é", "rsa", "d", None, "x", 1.0)]
    lines = results_as_json(rows).split("\n")
    assert [lines[0], lines[-1]] == ["[", "]"] and len(lines) == 4 and "é" in lines[2]
    found = json.loads("\n".join(lines))
    assert [Row(**row) for row in found] == rows and all(tuple(row) == COLUMNS for row in found)


def test_rows_are_chosen_by_their_columns():
    rows = Rows(ROWS)
    assert rows.of(measure="las_conll18") == [ROWS[1]] and rows.of() == ROWS
    assert rows.of(model="dep", layer=3) == [ROWS[0]] and rows.of(model="dep", layer=4) == []
    with pytest.raises(BertftError, match=r"expected columns of model, .*, found colour"):
        rows.of(colour="red")


def test_cells_with_commas_quotes_and_breaks_are_quoted(tmp_path):
    written = [Row(name, "t", "d", 1, "x", 2.0) for name in ("a,b", 'a"b', "a\nb", "a\rb", "a b")]
    write_results(tmp_path / "results.csv", written)
    assert read_results(tmp_path / "results.csv") == written
    text = (tmp_path / "results.csv").read_bytes().decode()
    assert text.count('"') == 2 * 4 + 2 and text.endswith("a b,t,d,1,x,2.0,,,,\n")
