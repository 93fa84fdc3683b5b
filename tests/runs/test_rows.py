"""Results tables: round trips and damaged files.

Round trips are exact; damage gives one sentence.
"""

from __future__ import annotations

import math

import pytest

from bertft.errors import BertftError
from bertft.runs.rows import COLUMNS, Row, merge_rows, read_results, to_arrow, to_pandas, write_results

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
