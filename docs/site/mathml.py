"""Formulas as MathML, which browsers draw without a script."""

from __future__ import annotations

from typing import Any

from latex2mathml.converter import convert


def formula(writer: Any, node: Any) -> None:
    """Write a formula inside a line."""
    _write(writer, node, "inline")


def display(writer: Any, node: Any) -> None:
    """Write a formula on a line of its own."""
    _write(writer, node, "block")


def _write(writer: Any, node: Any, place: str) -> None:
    from docutils.nodes import SkipNode

    writer.body.append(convert(node.astext().strip(), display=place))
    raise SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (formula, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
