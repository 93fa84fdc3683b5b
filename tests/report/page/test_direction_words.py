"""The words of the first direction: section, figure, damaged files."""

from __future__ import annotations

import csv

import pytest

from bertft.errors import BertftError
from bertft.report import write_report
from bertft.report.draw.dots import dot_panels
from bertft.report.draw.paper import canvas
from bertft.report.lines import context
from bertft.report.page.direction_words import both_ends, chosen_layers, direction_section, read_ends
from bertft.runs.rows import Row, write_results
from bertft.similarity.direction_words import FILES

HEAD = ["model", "data", "layer", "direction", "share", "low", "high", "end", "value", "word", "text", "context"]
WORDS = {"high": ("<b>", "dog", "a"), "low": (".", "dog", "x" * 30)}


def write(folder, *, older: bool = False, layers=(1, 2)) -> None:
    table = [HEAD + ([] if older else ["count", "mean"])]
    tokens = [["model", "data", "layer", "direction", "end", "value", "token", "embedding"]]
    for layer in layers:
        for direction in ("mean", "1"):
            for end, sign in (("high", 1), ("low", -1)):
                for i, word in enumerate(WORDS[end]):
                    row = [
                        "dep",
                        "t",
                        layer,
                        direction,
                        0.46,
                        0.45,
                        0.47,
                        end,
                        sign * (9 - i),
                        word,
                        "7",
                        f"so [{word}] !",
                    ]
                    table.append(row + ([] if older else [1234, sign * 2.5]))
                tokens.append(["dep", "t", layer, direction, end, sign, f"{end}{layer}", "lm_head.weight"])
    for name, rows in zip(FILES, (table, tokens), strict=True):
        with (folder / name).open("w", encoding="utf8", newline="") as file:
            csv.writer(file).writerows(rows)


def similar(lowest: int) -> list[Row]:
    return [Row("dep", "rsa", "t", k, "rsa_cosine_pearson", 0.4 if k == lowest else 0.9, n=9) for k in range(3)]


def test_the_section_shows_the_most_changed_layer(tmp_path):
    write(tmp_path)
    rows = similar(lowest=1)
    section = direction_section(tmp_path, rows, context({}, rows))
    (encoder,) = section.encoders
    assert encoder.title == "dep, layer 1: 0.46 [0.45, 0.47] of the variance of the change"
    assert [(row.sign, row.word, row.count) for row in encoder.words[:4]] == [
        ("+", "<b>", "1,234"), ("+", "dog", "1,234"), ("+", "a", "1,234"), ("−", ".", "1,234")
    ]  # fmt: skip
    assert (encoder.words[3].before, encoder.words[3].after) == ("so ", " !")
    assert encoder.vocabulary == [("+", "'high1'"), ("−", "'low1'")] and encoder.embedding == "lm_head.weight"
    assert [(row.layer, row.direction) for row in encoder.others] == [
        (1, "mean shift"), (1, "1"), (2, "mean shift"), (2, "1")
    ]  # fmt: skip
    assert both_ends(read_ends(tmp_path), "dep", 1, 2) == (["<b>", "dog"], [".", "dog"])


def test_a_layer_without_directions_is_replaced_by_the_last(tmp_path):
    write(tmp_path)
    assert chosen_layers(read_ends(tmp_path), similar(lowest=0)) == {"dep": 2}
    assert chosen_layers(read_ends(tmp_path), []) == {"dep": 2}


@pytest.mark.parametrize("older", [False, True])
def test_the_figure_has_both_ends_farthest_outside_on_paper_and_on_screen(tmp_path, older):
    write(tmp_path, older=older)
    figure = direction_section(tmp_path, [], context({}, similar(0))).figure
    (panel,) = dot_panels(figure)
    marks, axis = panel["traces"][-1], panel["layout"]["yaxis"]
    assert marks["x"] == [9, 8, 7, -7, -8, -9] and marks["y"] == sorted(marks["y"])
    count = "" if older else " ×1,234"
    assert axis["ticktext"][0] == f"&lt;b&gt;{count}" and axis["ticktext"][3] == "x" * 17 + f"…{count}"
    assert axis["range"][0] > axis["tickvals"][-1] and panel["traces"][2]["x"] == (
        [] if older else [2.5] * 3 + [-2.5] * 3
    )
    assert ("Hollow" in figure.caption) != older
    (axes,) = canvas(figure).axes
    assert [label.get_text() for label in axes.get_yticklabels()][4] == f"dog{count}"
    assert figure.to_csv().count("\n") == 7


def test_the_page_has_the_words_and_files_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("bertft.report.write.draw", lambda figure: (b"png", b"<svg/>"))
    write(tmp_path)
    write_results(tmp_path / "results.csv", similar(lowest=2))
    page = write_report(tmp_path).read_text(encoding="utf8")
    assert "&lt;b&gt;</strong></mark> !" in page and "<b>" not in page.partition("<script type")[0]
    assert all(f'download="{name}"' in page for name in (*FILES, "direction_words.csv"))
    assert (tmp_path / "figures" / "direction_words.csv").read_text(encoding="utf8").startswith("panel,end,word,value")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", ["a,b\n1,2\n", ",".join(HEAD) + "\ndep,t,x,1\n"])
def test_a_damaged_file_is_named(tmp_path, name, content):
    write(tmp_path)
    (tmp_path / name).write_text(content, encoding="utf8")
    with pytest.raises(BertftError, match=rf"{name}: expected the directions of a change, found something else"):
        direction_section(tmp_path, [], context({}, []))


def test_a_folder_without_directions_has_no_section(tmp_path):
    assert direction_section(tmp_path, [], context({}, [])) is None
    write(tmp_path, layers=())
    assert direction_section(tmp_path, [], context({}, [])) is None
