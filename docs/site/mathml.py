"""Formulas as MathML, which browsers draw without a script."""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

BAR = re.compile(r'<mo(?: stretchy="false")?>&#x0007C;</mo>')


def markup(text: str, place: str) -> str:
    """Return TeX as MathML; the bars of a norm are as high as its letters and close to them."""
    return BAR.sub('<mo stretchy="false" lspace="0" rspace="0">|</mo>', convert(text.strip(), display=place))


def formula(writer: Any, node: Any) -> None:
    """Write a formula inside a line."""
    _write(writer, node, "inline")


def display(writer: Any, node: Any) -> None:
    """Write a formula on a line of its own."""
    _write(writer, node, "block")


def _write(writer: Any, node: Any, place: str) -> None:
    from docutils.nodes import SkipNode

    writer.body.append(markup(node.astext(), place))
    raise SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (formula, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
