"""Example sentences with the gold tree and the one a probe sees, encoder by encoder, for the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from bertft.errors import BertftError
from bertft.report.series import RANDOM
from bertft.report.trees import tree_svg

SHOWN = 3
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
    """The layer and the sentences of a file that `bertft.probes.predicted.write_trees` wrote."""
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
                    trees.append(Tree(words, gold, predicted))
                    rows = []
            except ValueError:
                raise BertftError(f"{path}: line {number}: expected a word of a probe's tree, found another") from None
    return layer, trees


def example_trees(folder: Path, models: Sequence[str]) -> str:
    """A section with some sentences of 6 to 12 words on which the probes of the encoders differ most (the random one
    aside), or nothing. ``folder`` is a run folder; of several ranks the highest is taken.
    """
    read = {model: read_trees(path) for model in models if (path := _file(folder / "probes", model))}
    if not read:
        return ""
    sentences = list(zip(*(trees for _, trees in read.values()), strict=False))
    fitting = [i for i, own in enumerate(sentences) if len(own[0].words) in LENGTHS]
    trained = [place for place, model in enumerate(read) if model != RANDOM]

    def spread(i: int) -> int:
        found = [sentences[i][place].found for place in trained] or [0]
        return max(found) - min(found)

    fitting.sort(key=spread, reverse=True)
    shown = ""
    for i in fitting[:SHOWN]:
        pictures = ""
        for (model, (layer, _)), tree in zip(read.items(), sentences[i], strict=True):
            said = f"{model}, layer {layer}: {tree.found} of {len(tree.words) - 1} edges"
            svg = tree_svg(tree.words, tree.gold, tree.predicted, said)
            pictures += f'<img class="tree" alt="{escape(said)}" src="data:image/svg+xml,{quote(svg)}">'
        words = escape(" ".join(sentences[i][0].words))
        shown += f"<details{'' if shown else ' open'}><summary>{words}</summary>"
        shown += f'<div class="pictures">{pictures}</div></details>'
    if not shown:
        return ""
    caption = (
        "Gold edges above the words, below them those of the probe at the layer where it finds most: solid where gold "
        "has the edge too, dashed where not; a dot at the root. Sentences on which the encoders differ most."
    )
    return f'<section class="trees"><h2>Trees the probes see</h2><p class="caption">{caption}</p>{shown}</section>'


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
