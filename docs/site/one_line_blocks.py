"""A class for blocks of one line: such a command may wrap on a phone, while several lines would run together."""

from __future__ import annotations

from typing import Any


def mark(app: Any, doctree: Any) -> None:
    """Give blocks of one line the class ``one-line``, which ``site.css`` wraps."""
    for block in doctree.findall(lambda node: getattr(node, "tagname", "") == "literal_block"):
        if "\n" not in block.astext().strip("\n"):
            block["classes"].append("one-line")


def setup(app: Any) -> dict[str, Any]:
    """Connect the event of Sphinx that has read a page."""
    app.connect("doctree-read", mark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
