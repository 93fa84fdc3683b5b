"""Limits of value axes."""

from __future__ import annotations

import pytest

from bertft.report.axes import counted, limits
from bertft.report.draw.paper import canvas
from bertft.report.draw.screen import panels
from bertft.report.figure import Curve, Figure, Panel
from bertft.report.lines import Line


def panel(measure: str, *values: float, low: float | None = None, high: float | None = None) -> Panel:
    n = len(values)
    line = Line("dep", "t", measure, tuple(range(n)), values, (low,) * n, (high,) * n, (9,) * n)
    return Panel("p", "y", (Curve("dep", line, "c0"),))


CASES = {
    "a similarity near 1 ends at 1": (("rsa_cosine_pearson", 0.5, 1.0), (0.47, 1.0)),
    "a constant similarity of 1": (("swap_in_rsa_cosine_pearson", 1.0, 1.0), (0.95, 1.0)),
    "a share near 0 begins at 0": (("mean_shift_share", 0.01, 0.5), (0.0, 0.5 + 0.06 * 0.49)),
    "a share in percent": (("las_conll18", 90.0, 100.0), (89.4, 100.0)),
    "a negative correlation": (("rsa_cosine_pearson", -0.1, 0.9), (-0.16, 0.96)),
    "a value beyond its bound": (("rsa_cosine_pearson", 0.0, 1.01), (0.0, 1.01 * 1.06)),
    "no intruders": (("intruder_dimensions", 0.0, 0.0), (0.0, 1.0)),
    "some intruders": (("intruder_dimensions", 0.0, 10.0), (0.0, 10.6)),
    "a small distance begins at 0": (("relative_weight_distance", 0.014, 0.015), (0.0, 0.0159)),
    "no distance": (("relative_weight_distance", 0.0, 0.0), (0.0, 0.05)),
    "an unbounded quantity": (("linear_r2", -2.0, 2.0), (-2.24, 2.24)),
    "a narrow range is widened": (("rsa_cosine_pearson", 0.5, 0.51), (0.48, 0.53)),
}


@pytest.mark.parametrize("case", [*CASES])
def test_limits_leave_room_but_not_beyond_possible_values(case):
    given, expected = CASES[case]
    assert limits(panel(*given)) == pytest.approx(expected)


def test_limits_include_intervals():
    assert limits(panel("rsa_cosine_pearson", 0.5, low=0.2, high=0.9)) == pytest.approx((0.2 - 0.042, 0.942))


@pytest.mark.parametrize("most", [0.0, 3.0, 40.0])
def test_axes_of_counts_have_whole_ticks_on_paper_and_on_screen(most):
    figure = Figure("f", "t", "c", (panel("intruder_dimensions", 0.0, most),), share_y=False)
    (axis,) = (one["layout"]["yaxis"] for one in panels(figure))
    (axes,) = canvas(figure).axes
    assert axis["tickformat"] == ",d" and ("dtick" in axis) == (most < 6)
    assert axes.get_ylim() == pytest.approx(axis["range"]) and axis["range"][0] == 0
    assert all(float(tick).is_integer() for tick in axes.get_yticks())
    assert not counted(panel("effective_dimension", 1.0, 35.7)) and not counted(panel("mean_shift_share", 0.0, 1.0))


def test_a_mark_at_the_end_of_an_axis_is_drawn_whole():
    figure = Figure("f", "t", "c", (panel("rsa_cosine_pearson", 1.0, 0.4),))
    (axes,) = canvas(figure).axes
    assert axes.get_ylim()[1] == 1.0 and not axes.lines[0].get_clip_on()
    assert panels(figure)[0]["traces"][0]["cliponaxis"] is False
