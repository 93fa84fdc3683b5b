"""Page section: sentences with gold and predicted trees."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bertft.errors import BertftError
from bertft.report.draw.tree import tree_svg
from bertft.report.figure import csv_text
from bertft.report.page.download import Download, download
from bertft.report.palette import LIGHT, LIGHT_PAGE
from bertft.runs.vocabulary import RANDOM

SHOWN = 3  # sentences
PAGE_COLOURS = {name: f"var(--{name})" for name in LIGHT | LIGHT_PAGE}
LENGTHS = range(6, 13)  # words of a sentence that fits a page
ROOT = "(root)"


@dataclass(frozen=True)
class Tree:
    """One sentence: its words, and their 1-based gold and predicted heads (0 for the root)."""

    words: tuple[str, ...]
    gold: tuple[int, ...]
    predicted: tuple[int, ...]

    @property
    def found(self) -> int:
        """Return the number of gold edges that the probe predicts, in either direction."""
        gold, predicted = (
            {frozenset((i + 1, h)) for i, h in enumerate(heads) if h} for heads in (self.gold, self.predicted)
        )
        return len(gold & predicted)


def read_trees(path: Path) -> tuple[int, list[Tree]]:
    """Return the layer and sentences of a file of `bertft.probes.structural.predicted_trees.write_trees`.

    Raises ``BertftError`` with the line of anything else.
    """
    layer, trees, rows = 0, list[Tree](), list[tuple[str, int, int]]()
    with path.open(encoding="utf8") as file:
        for number, line in enumerate((*file, "\n"), 1):
            cells = line.rstrip("\n").split("\t")
            try:
                if line.startswith("# layer = "):
                    layer = int(line.rpartition(" ")[2])
                elif len(cells) == 10:
                    rows.append((cells[1], int(cells[9].removeprefix("GoldHead=")), int(cells[6])))
                elif rows:
                    words, gold, predicted = zip(*rows, strict=True)
                    if not all(0 <= head <= len(words) for head in (*gold, *predicted)):
                        raise ValueError
                    trees.append(Tree(words, gold, predicted))
                    rows = []
            except ValueError:
                raise BertftError(f"{path}: line {number}: expected a probe's tree, found another text") from None
    return layer, trees


@dataclass(frozen=True)
class Picture:
    """A tree in the page's colours, light or dark, and as a file on white."""

    svg: str
    download: Download


@dataclass(frozen=True)
class Sentence:
    """A sentence, one picture per encoder, and a table of heads: pairs of a word and its heads as words."""

    text: str
    pictures: list[Picture]
    heads: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class TreeSection:
    """Content of the template ``sections/example_trees.html.j2``."""

    columns: list[str]
    sentences: list[Sentence]
    downloads: list[Download]


def example_trees(folder: Path, models: Sequence[str]) -> TreeSection | None:
    """Return a section with the sentences of 6 to 12 words on which the trained encoders differ most, or None.

    ``folder`` is a run folder. If there are probes of several ranks, the highest is used.
    """
    read = {model: read_trees(path) for model in models if (path := _file(folder / "probes", model))}
    if not read:
        return None
    sentences = list(zip(*(trees for _, trees in read.values()), strict=False))
    fitting = [
        i for i, own in enumerate(sentences) if len(own[0].words) in LENGTHS and len({t.words for t in own}) == 1
    ]
    trained = [place for place, model in enumerate(read) if model != RANDOM]

    def spread(i: int) -> int:
        found = [sentences[i][place].found for place in trained] or [0]
        return max(found) - min(found)

    fitting.sort(key=spread, reverse=True)
    if not fitting:
        return None
    names = [f"{model}, layer {layer}" for model, (layer, _) in read.items()]
    shown = []
    table: list[list[object]] = [["sentence", "position", "word", "gold head", *names]]
    for number, i in enumerate(fitting[:SHOWN], start=1):
        own = sentences[i]
        pictures = [_picture(name, tree) for name, tree in zip(names, own, strict=True)]
        shown.append(Sentence(" ".join(own[0].words), pictures, _heads(own)))
        heads = zip(own[0].words, own[0].gold, *(tree.predicted for tree in own), strict=True)
        table += [[number, place, *cells] for place, cells in enumerate(heads, start=1)]
    return TreeSection(["word", "gold head", *names], shown, [download("trees.csv", csv_text(table).encode())])


def _picture(name: str, tree: Tree) -> Picture:
    title = f"{name}: {tree.found} of {len(tree.words) - 1} edges"
    drawn = tree_svg(tree.words, tree.gold, tree.predicted, title, PAGE_COLOURS)
    paper = tree_svg(tree.words, tree.gold, tree.predicted, title)
    return Picture(drawn, download("tree.svg", paper.encode()))


def _heads(trees: Sequence[Tree]) -> list[tuple[str, list[str]]]:
    """Return each word with its gold head and its head in each predicted tree, ticked if gold has that edge."""
    first = trees[0]

    def head(place: int, tree: Tree) -> str:
        at = tree.predicted[place - 1]
        word = first.words[at - 1] if at else ROOT
        found = at and (first.gold[place - 1] == at or first.gold[at - 1] == place)
        return f"{word}\u00a0✓" if found else word

    return [
        (word, [first.words[gold - 1] if gold else ROOT, *(head(place, tree) for tree in trees)])
        for place, (word, gold) in enumerate(zip(first.words, first.gold, strict=True), start=1)
    ]


def _file(probes: Path, model: str) -> Path | None:
    """Return the file of an encoder's trees, of the highest rank; None for a name that is no file name."""
    if re.search(r"[/\\\0]", model):
        return None
    plain = probes / f"{model}.conllu"
    if plain.is_file():
        return plain
    ranked = {
        int(found[1]): path
        for path in (probes.glob("*.conllu") if probes.is_dir() else ())
        if (found := re.fullmatch(re.escape(model) + r"\.rank(\d+)\.conllu", path.name))
    }
    return ranked[max(ranked)] if ranked else None
