"""Figures of a run.

Which exist, their content, and their drawing on paper and screen.
"""

from __future__ import annotations

import csv
import io
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bertft.report.draw.paper import DPI, canvas, draw
from bertft.report.draw.screen import panels
from bertft.report.figures.catalogue import figures
from bertft.report.figures.layer_maps import layer_maps
from bertft.report.lines import context, lines
from bertft.report.palette import DARK, LIGHT, MARKERS, SYMBOLS, spread
from bertft.runs.rows import Row


@pytest.fixture
def drawn(rows, config):
    return {figure.name: figure for figure in figures(rows, context(config, rows))}


def test_a_whole_study_has_four_figures(drawn):
    assert list(drawn) == ["rsa_by_layer", "rsa_domains", "probes_by_layer", "cka_debiased_by_layer"]


def test_rsa_is_shown_on_text_of_no_task_with_one_line_per_task(drawn):
    (panel,) = drawn["rsa_by_layer"].panels
    assert panel.title == "on plain" and panel.ylabel == "RSA similarity (Pearson r of cosine RDMs)"
    assert [curve.label for curve in panel.curves] == ["dep", "mnli"]
    assert panel.curves[0].line.values == pytest.approx((1.0, 0.8, 0.6, 0.4))
    assert "n = 2,000 to 2,003" in drawn["rsa_by_layer"].caption and "95 %" in drawn["rsa_by_layer"].caption


def test_domains_have_one_panel_per_task_with_own_text_first(drawn):
    dep, mnli = drawn["rsa_domains"].panels
    assert [(c.label, c.dash) for c in dep.curves] == [("dep (own)", "solid"), ("plain", "dash"), ("mnli", "dot")]
    assert [c.label for c in mnli.curves] == ["mnli (own)", "plain", "dep"]


def test_probes_show_base_tuned_and_random_encoders(drawn):
    figure = drawn["probes_by_layer"]
    assert [panel.title for panel in figure.panels] == ["Tree distances", "Tree edges", "Tree depths", "Root"]
    assert [c.label for c in figure.panels[0].curves] == ["base", "dep", "mnli", "random"]
    assert {c.slot for c in figure.panels[0].curves} == {"ink", "c0", "c1", "muted"}


def test_a_single_rsa_run_has_figures_without_a_study(rows):
    only = [row for row in rows if row.task == "rsa" and row.data == "plain"]
    found = figures(only, context({"command": "rsa"}, only))
    assert [figure.name for figure in found] == ["rsa_by_layer", "cka_debiased_by_layer"]


def test_no_layer_rows_no_figures(rows, config):
    assert figures([row for row in rows if row.layer is None], context(config, rows)) == []


def test_csv_has_every_point(drawn):
    table = list(csv.DictReader(io.StringIO(drawn["rsa_by_layer"].to_csv())))
    assert len(table) == 8
    assert table[3] == {
        "panel": "on plain", "curve": "dep", "model": "dep", "data": "plain", "measure": "rsa_cosine_pearson",
        "layer": "3", "value": "0.4", "low": "0.39", "high": "0.41000000000000003", "n": "2003",
    }  # fmt: skip


def test_png_and_svg_are_drawn_and_repeat_byte_by_byte(drawn):
    png, svg = draw(drawn["rsa_domains"])
    assert png.startswith(b"\x89PNG") and b"<svg" in svg[:1000]
    assert (png, svg) == draw(drawn["rsa_domains"])
    full = io.BytesIO()
    canvas(drawn["rsa_domains"]).savefig(full, format="png", dpi=DPI)
    assert len(png) < len(full.getvalue()) / 2
    before, after = (np.asarray(Image.open(io.BytesIO(d)).convert("RGB"), dtype=int) for d in (full.getvalue(), png))
    assert before.shape == after.shape and np.abs(before - after).mean() < 0.5  # of 255


def test_labels_are_inside_the_picture_and_do_not_overlap(drawn, monkeypatch):
    """Measure the drawn canvas after layout."""
    import bertft.report.draw.paper as static

    boxes = []
    original = static._label

    def label(axes, panel):
        original(axes, panel)
        boxes.append(axes)

    monkeypatch.setattr(static, "_label", label)
    for figure in drawn.values():
        boxes.clear()
        draw(figure)
        canvas = boxes[0].figure
        canvas.draw_without_rendering()  # repeat the layout of the PNG: the SVG has another resolution
        renderer = canvas.canvas.get_renderer()
        width, height = canvas.canvas.get_width_height()
        texts = [canvas._suptitle, canvas._supxlabel, *(t for axes in boxes for t in (axes.title, axes.yaxis.label))]
        for text in texts:
            box = text.get_window_extent(renderer)
            assert box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1, text.get_text()
        for axes in boxes:
            ends = sorted((text.get_window_extent(renderer) for text in axes.texts), key=lambda box: box.y0)
            assert all(box.x1 <= width + 1 for box in ends)
            assert all(low.y1 <= high.y0 + 2 for low, high in itertools.pairwise(ends))


def test_screen_panels_have_values_intervals_and_hover_text(drawn):
    (panel,) = panels(drawn["rsa_by_layer"])
    band, line = panel["traces"][:2]
    assert line["x"] == [0, 1, 2, 3] and line["y"] == pytest.approx([1.0, 0.8, 0.6, 0.4])
    assert line["text"][3] == "0.400 [0.390, 0.410]<br>n = 2,003"
    assert band["x"] == [0, 1, 2, 3, 3, 2, 1, 0] and band["y"][3] == pytest.approx(0.41)
    assert [a["text"] for a in panel["layout"]["annotations"]] == ["dep", "mnli"]
    low, high = panel["layout"]["yaxis"]["range"]
    assert low < 0.39 and high > 1.01


def test_names_are_never_markup_for_plotly(rows, config):
    table = [Row("a<b>&", "rsa", "t", layer, "rsa_cosine_pearson", 0.5) for layer in range(2)]
    (panel,) = panels(figures(table, context({}, table))[0])
    assert panel["traces"][0]["name"] == "a&lt;b&gt;&amp;"


def test_paper_does_not_read_dollars_as_formulas_and_shortens_long_names():
    table = [Row("$\\x$", task, "t", layer, measure, 0.5)
             for task, measure in (("rsa", "rsa_cosine_pearson"), ("heatmap", "rsa_cosine_pearson_base0"))
             for layer in range(2)]  # fmt: skip
    for figure in (*figures(table, context({}, table)), *layer_maps(table)):
        assert "<!-- $\\x$ -->" in draw(figure)[1].decode()
    table = [Row("m" * 200, "rsa", "t", layer, "rsa_cosine_pearson", 0.5) for layer in range(2)]
    (figure,) = figures(table, context({}, table))
    assert f"<!-- {'m' * 39}… -->" in draw(figure)[1].decode()


def test_lines_sort_layers_and_keep_missing_intervals():
    table = [Row("m", "rsa", "t", layer, "x", float(layer)) for layer in (2, 0, 1)]
    (line,) = lines(table, "rsa")
    assert line.layers == (0, 1, 2) and line.values == (0.0, 1.0, 2.0) and line.lows == (None,) * 3


@pytest.mark.parametrize(("colours", "paper"), [(LIGHT, 1.0), (DARK, 0.008)])
def test_colours_have_enough_contrast_to_the_page(colours, paper):
    """Require a WCAG contrast of at least 3, as for graphics."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in colours.values():
        high, low = sorted((luminance(colour), paper), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 3, colour
    assert colours.keys() == MARKERS.keys() == SYMBOLS.keys()
    assert len(set(MARKERS.values())) == len(MARKERS) and len(set(SYMBOLS.values())) == len(SYMBOLS)


# Machado, Oliveira and Fernandes (2009): linear RGB as seen by readers who lack one kind of cone.
SEEN = {
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}
XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))


def lab(colour: str, seen) -> np.ndarray:
    """Return CIELAB (D65) of an sRGB colour seen through a matrix of `SEEN`."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    xyz = np.array(XYZ) @ np.clip(np.array(seen) @ linear, 0, 1) / (0.95047, 1.0, 1.08883)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_no_two_colours_look_alike_to_colour_blind_readers(colours, seen):
    """Require six times the just noticeable difference (2.3 in CIELAB), because thin lines are hard to compare.

    Beyond six series the markers differ instead.
    """
    distinct = {slot: lab(colour, SEEN[seen]) for slot, colour in colours.items() if slot not in ("c6", "c7", "c8")}
    for (one, a), (two, b) in itertools.combinations(distinct.items(), 2):
        assert np.linalg.norm(a - b) >= 6 * 2.3, (one, two)


def test_nine_encoders_have_distinct_looks():
    table = [Row(f"m{i}", "rsa", "t", layer, "rsa_cosine_pearson", i / 9) for i in range(9) for layer in range(2)]
    (figure,) = figures(table, context({}, table))
    looks = [(LIGHT[curve.slot], SYMBOLS[curve.slot]) for curve in figure.panels[0].curves]
    assert len(set(looks)) == 9 and draw(figure)[0].startswith(b"\x89PNG")
    for (colour, symbol), (other, another) in itertools.combinations(looks, 2):
        assert colour != other or symbol.endswith("open") != another.endswith("open")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 0.2))
def test_spread_labels_keep_their_order_and_distance(positions, gap):
    placed = spread(positions, gap)
    order = sorted(range(len(positions)), key=positions.__getitem__)
    assert all(placed[b] - placed[a] >= gap - 1e-9 for a, b in itertools.pairwise(order))
    assert sum(placed) == pytest.approx(sum(positions), abs=1e-9)


def test_labels_that_are_far_apart_do_not_move():
    assert spread([0.9, 0.1, 0.5], 0.1) == [0.9, 0.1, 0.5]
