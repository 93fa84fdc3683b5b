"""The answer of a diff as a notebook shows it."""

from __future__ import annotations

from html.parser import HTMLParser

from bertft.report.page.answer import Answer, Number, Said
from bertft.report.page.figure_section import Cell
from bertft.report.page.page import snippet

ANSWER = Answer(
    "dep", "dep changed & moved.",
    [Said("where", "layer 6 [sic]"), Said("moved", "0.1 the [cat] sat", word="cat"),
     Said("moved", "0.2 a <b>[dog]</b>", word="dog"), Said("cost", "3 s")],
    [Number("RSA, layer 6", Cell("0.718", "[0.694, 0.739]"))],
)  # fmt: skip


class Read(HTMLParser):
    """The text of each element by its tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag != "img":
            self.open.append(tag)
            self.found += [(tag, "")] if tag in ("dt", "dd", "mark") else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in {"dt", "dd", "mark"} & set(self.open):
            last = max(i for i, (name, _) in enumerate(self.found) if name == tag)
            self.found[last] = (tag, self.found[last][1] + data)


def test_a_term_stands_once_and_its_word_is_marked():
    read = Read(snippet(ANSWER, b"png"))
    assert read.open == []
    assert read.found == [
        ("dt", "where"), ("dd", "layer 6 [sic]"),
        ("dt", "moved"), ("dd", "0.1 the cat sat"), ("mark", "cat"), ("dd", "0.2 a <b>dog</b>"), ("mark", "dog"),
        ("dt", "cost"), ("dd", "3 s"),
    ]  # fmt: skip
