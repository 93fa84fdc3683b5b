"""Example sentences with the gold tree and the one a probe sees, encoder by encoder, for the page."""

from __future__ import annotations

import csv
import io
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from bertft.errors import BertftError
from bertft.report.draw.tree import tree_svg
from bertft.report.lines import RANDOM
from bertft.report.palette import LIGHT, LIGHT_PAGE

SHOWN = 3
PAGE_COLOURS = {name: f"var(--{name})" for name in LIGHT | LIGHT_PAGE}
LENGTHS = range(6, 13)  # words of a sentence that fits a page


@dataclass(frozen=True)
class Tree:
    """One sentence: its words, 1-based gold heads and those of the probe (0 for the root)."""

    words: tuple[str, ...]
    gold: tuple[int, ...]
    predicted: tuple[int, ...]

    @property
    def found(self) -> int:
        """How many gold edges the probe has, whatever their direction."""
        gold, predicted = (
            {frozenset((i + 1, h)) for i, h in enumerate(heads) if h} for heads in (self.gold, self.predicted)
        )
        return len(gold & predicted)


def read_trees(path: Path) -> tuple[int, list[Tree]]:
    """The layer and the sentences of a file that `bertft.probes.structural.predicted_trees.write_trees` wrote."""
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


def example_trees(folder: Path, models: Sequence[str]) -> str:
    """A section with some sentences of 6 to 12 words on which the probes of the encoders differ most (the random one
    aside), or nothing. ``folder`` is a run folder; of several ranks the highest is taken.
    """
    read = {model: read_trees(path) for model in models if (path := _file(folder / "probes", model))}
    if not read:
        return ""
    sentences = list(zip(*(trees for _, trees in read.values()), strict=False))
    fitting = [
        i for i, own in enumerate(sentences) if len(own[0].words) in LENGTHS and len({t.words for t in own}) == 1
    ]
    trained = [place for place, model in enumerate(read) if model != RANDOM]

    def spread(i: int) -> int:
        found = [sentences[i][place].found for place in trained] or [0]
        return max(found) - min(found)

    fitting.sort(key=spread, reverse=True)
    names = [f"{model}, layer {layer}" for model, (layer, _) in read.items()]
    shown, arcs = "", [["sentence", "position", "word", "gold head", *names]]
    for number, i in enumerate(fitting[:SHOWN], start=1):
        own = sentences[i]
        pictures = "".join(_picture(name, tree) for name, tree in zip(names, own, strict=True))
        shown += f"<details{'' if shown else ' open'}><summary>{escape(' '.join(own[0].words))}</summary>"
        shown += f'<div class="pictures">{pictures}</div>{_arcs(names, own)}</details>'
        heads = zip(own[0].words, own[0].gold, *(tree.predicted for tree in own), strict=True)
        arcs += [[str(number), str(place), *map(str, cells)] for place, cells in enumerate(heads, start=1)]
    if not shown:
        return ""
    caption = (
        "Gold edges above the words, below them those of the probe at the layer where it finds most: solid where gold "
        "has the edge too, dashed where not; a dot at the root. Sentences on which the encoders differ most."
    )
    return (
        f'<section class="trees"><h2>Trees the probes see</h2><p class="caption">{caption}</p>{shown}'
        f'<p class="downloads">Download: {_csv("trees.csv", arcs)}</p></section>'
    )


def _picture(name: str, tree: Tree) -> str:
    """The tree in the page's own colours, light or dark, and on white to be taken away."""
    said = f"{name}: {tree.found} of {len(tree.words) - 1} edges"
    drawn = tree_svg(tree.words, tree.gold, tree.predicted, said, PAGE_COLOURS)
    paper = tree_svg(tree.words, tree.gold, tree.predicted, said)
    link = f'<a download="tree.svg" href="data:image/svg+xml,{quote(paper)}">SVG</a>'
    return f'<figure class="tree"><div tabindex="0">{drawn}</div><figcaption>{link}</figcaption></figure>'


def _arcs(names: Sequence[str], trees: Sequence[Tree]) -> str:
    """The arcs as a table: of every word its head in gold and in each probe's tree, ticked where gold has that edge."""
    first = trees[0]

    def head(place: int, tree: Tree) -> str:
        at = tree.predicted[place - 1]
        word = first.words[at - 1] if at else "(root)"
        found = at and (first.gold[place - 1] == at or first.gold[at - 1] == place)
        return f"{word}\u00a0✓" if found else word

    body = ""
    for place, (word, gold) in enumerate(zip(first.words, first.gold, strict=True), start=1):
        cells = [first.words[gold - 1] if gold else "(root)", *(head(place, tree) for tree in trees)]
        body += f'<tr><th scope="row">{escape(word)}</th>' + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>"
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("word", "gold head", *names))
    return (
        '<details><summary>The arcs</summary><p class="caption">The head of every word; ✓: gold joins the two words '
        f'as well.</p><div class="scroll" tabindex="0"><table><thead><tr>{columns}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></details>"
    )


def _csv(name: str, table: Sequence[Sequence[str]]) -> str:
    """A link that downloads the table."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return f'<a download="{name}" href="data:text/csv;base64,{b64encode(text.getvalue().encode()).decode()}">CSV</a>'


def _file(probes: Path, model: str) -> Path | None:
    """The trees of an encoder's probes, of the highest rank."""
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
